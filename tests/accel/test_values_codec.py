"""Values: what becomes of a Python value, byte for byte, in the compiled codec and its plain twin."""

import array
import enum
import math
import struct
import uuid
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal

import pytest
from codec_twins import NAMES, VALUES, outcome
from hypothesis import given
from hypothesis import strategies as st

from hiqlite import errors

STORED = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(),
    st.binary(),
)


@pytest.fixture(params=NAMES)
def codec(request):
    return VALUES[request.param]


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Nested(enum.Enum):
    INNER = Colour.RED


class LoudText(str):
    def encode(self, *args):
        raise AssertionError("a subclass must not decide how its text is encoded")


class Number:
    """Like a scalar of a number library: it offers a buffer by way of nothing, and an index."""

    def __index__(self):
        return 1


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (True, 1),
        (False, 0),
        (Level.HIGH, 3),
        (Colour.RED, "red"),
        (Nested.INNER, "red"),
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"abcdef")[::2], b"ace"),
        (array.array("H", [1, 2]), struct.pack("=HH", 1, 2)),
        (datetime(2024, 5, 6, 7, 8, 9), "2024-05-06 07:08:09.000000"),
        (datetime(2024, 5, 6, 7, 8, 9, 12, UTC), "2024-05-06 07:08:09.000012+00:00"),
        (datetime(2024, 5, 6, 1, tzinfo=timezone(timedelta(hours=2))), "2024-05-05 23:00:00.000000+00:00"),
        (date(2024, 5, 6), "2024-05-06"),
        (time(7, 8), "07:08:00.000000"),
        (Decimal("1.50"), "1.50"),
        (Decimal("1E+5"), "1E+5"),
        (uuid.UUID(int=5), bytes(15) + b"\x05"),
    ],
)
def test_each_accepted_type_becomes_its_storage_class(codec, value, stored):
    """api.md section 2: the accepted values and what they are stored as."""
    decoded, _ = codec.decode_values(codec.encode_values([value]), 0, 1)
    assert decoded == (stored,)
    assert type(decoded[0]) is type(stored)


def test_a_subclass_of_text_has_no_say_in_its_bytes(codec):
    """Text is taken as it stands, whatever methods a subclass overrides."""
    decoded, _ = codec.decode_values(codec.encode_values([LoudText("x")]), 0, 1)
    assert decoded == ("x",)


def test_json_is_stored_as_compact_text(codec):
    """`Json` marks a value to be written as JSON, characters beyond ASCII unescaped."""
    decoded, _ = codec.decode_values(codec.encode_values([codec.Json({"a": [1, "é"]})]), 0, 1)
    assert decoded == ('{"a":[1,"é"]}',)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (math.nan, "NaN"),
        (Decimal("NaN"), "NaN"),
        (2**63, "64 bit"),
        (-(2**63) - 1, "64 bit"),
        ("\ud800", "surrogate"),
        (object(), "builtins.object"),
        (Number(), "Number"),
        ([1], "builtins.list"),
        ({"a": 1}, "builtins.dict"),
        (1j, "builtins.complex"),
        (VALUES["compiled"].Json(math.nan), "JSON"),
        (VALUES["compiled"].Json(object()), "JSON"),
        (VALUES["compiled"].Json("\ud800"), "surrogate"),
        (datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=2))), "UTC"),
    ],
)
def test_what_sqlite_cannot_hold_is_refused_with_its_place(codec, value, words):
    """Everything else raises ParameterError that names the position and says why."""
    with pytest.raises(errors.ParameterError) as caught:
        codec.encode_values([1, value])
    assert "parameter 2" in str(caught.value)
    assert words in str(caught.value)
    assert caught.value.outcome == "not_applied"


def test_extremes_survive(codec):
    """Limits of each storage class, text with NUL, empty text and blob, infinity, negative zero."""
    values = (2**63 - 1, -(2**63), math.inf, -math.inf, -0.0, 5e-324, "a\0b", "", b"", b"\0", None, "\U0010ffff")
    data = codec.encode_values(values)
    decoded, end = codec.decode_values(data, 0, len(values))
    assert decoded == values
    assert math.copysign(1, decoded[4]) == -1
    assert end == len(data)


@given(st.lists(STORED))
def test_values_survive_and_both_codecs_give_the_same_bytes(values):
    """Round trip; equal content has equal bytes."""
    data = VALUES["compiled"].encode_values(values)
    assert data == VALUES["plain"].encode_values(values)
    for name in NAMES:
        assert VALUES[name].decode_values(data, 0, len(values)) == (tuple(values), len(data))


@given(st.lists(STORED, max_size=4), st.data())
def test_hostile_bytes_end_in_the_same_verdict_of_both_codecs(values, data):
    """Bytes changed or cut anywhere either decode to the same values or raise ProtocolError in both."""
    raw = bytearray(VALUES["plain"].encode_values(values))
    cut = raw[: data.draw(st.integers(0, len(raw)))]
    if cut:
        cut[data.draw(st.integers(0, len(cut) - 1))] = data.draw(st.integers(0, 255))
    results = [outcome(VALUES[name].decode_values, bytes(cut), 0, len(values)) for name in NAMES]
    assert repr(results[0]) == repr(results[1])
    assert results[0][0] == "value" or results[0][1] is errors.ProtocolError


@pytest.mark.parametrize("offset", [-1, 2, 10**9])
def test_an_offset_outside_of_the_bytes_is_refused(codec, offset):
    """No read outside of what was given."""
    with pytest.raises(errors.ProtocolError):
        codec.decode_values(b"\0", offset, 1)


@pytest.mark.parametrize("count", [-1, 2, 2**40])
def test_a_count_that_the_bytes_cannot_hold_is_refused_before_memory_is_taken(codec, count):
    """A hostile count costs nothing."""
    with pytest.raises(errors.ProtocolError):
        codec.decode_values(b"\0", 0, count)
    with pytest.raises(errors.ProtocolError):
        codec.decode_rows(b"\0", 0, count, codec.Columns(["a"]))


@pytest.mark.parametrize("tag", [5, 6, 7, 255])
def test_references_and_unknown_tags_are_no_values(codec, tag):
    """Tags 5 and 6 stand in parameters of a txn only."""
    with pytest.raises(errors.ProtocolError):
        codec.decode_values(bytes([tag]) + bytes(16), 0, 1)


@given(st.binary(max_size=64))
def test_the_check_for_utf8_agrees_with_python(body):
    """native/bytes.h decides as Python does which bytes are text."""
    data = b"\x03" + len(body).to_bytes(4, "little") + body
    results = [outcome(VALUES[name].decode_values, data, 0, 1) for name in NAMES]
    assert results[0] == results[1]
