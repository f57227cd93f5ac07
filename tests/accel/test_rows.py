"""Rows: what a user sees of a result, in the compiled codec and its plain twin."""

import copy
import pickle
from collections.abc import Sequence

import pytest
from codec_twins import NAMES, VALUES

from hiqlite import errors


@pytest.fixture(params=NAMES)
def codec(request):
    return VALUES[request.param]


@pytest.fixture
def row(codec):
    return codec.new_row(codec.Columns(["id", "name", "count"]), (1, "eve", 7))


def test_a_row_is_read_by_number_name_and_attribute(row):
    """api.md section 3."""
    assert row[0] == 1
    assert row[-1] == 7
    assert row[0:2] == (1, "eve")
    assert row["name"] == "eve"
    assert row.name == "eve"
    assert row.keys() == ("id", "name", "count")
    assert row.asdict() == {"id": 1, "name": "eve", "count": 7}
    assert dict(row) == row.asdict()
    assert list(row) == [1, "eve", 7]
    assert len(row) == 3
    assert "eve" in row
    assert row.index("eve") == 1
    assert isinstance(row, Sequence)


def test_methods_win_over_columns_for_attribute_access(row):
    """A column called like a method is read by `row["count"]`."""
    assert row["count"] == 7
    assert row.count(7) == 1


def test_a_row_equals_the_tuple_of_its_values(codec, row):
    """Equality, order and hash are those of the tuple."""
    assert row == (1, "eve", 7)
    same = (1, "eve", 7)
    assert same == row
    assert row != (1, "eve")
    assert row != [1, "eve", 7]
    assert row == codec.new_row(codec.Columns(["a", "b", "c"]), (1, "eve", 7))
    assert hash(row) == hash((1, "eve", 7))
    assert row < (2,)
    assert row >= (1, "eve", 7)
    assert {row: 1}[(1, "eve", 7)] == 1


def test_a_row_can_be_matched_and_unpacked(row):
    """A row is a sequence to pattern matching."""
    match row:
        case [number, name, _]:
            assert (number, name) == (1, "eve")
        case _:
            pytest.fail("a row did not match a sequence pattern")


def test_a_row_shows_its_names(row):
    """repr for people."""
    assert repr(row) == "Row(id=1, name='eve', count=7)"


def test_a_row_never_changes(row):
    """Neither attributes nor items can be set or deleted."""
    with pytest.raises(AttributeError):
        row.name = "x"
    with pytest.raises(AttributeError):
        row.other = "x"
    with pytest.raises(TypeError):
        row[0] = 2
    with pytest.raises(AttributeError):
        del row.name


def test_unknown_names_raise_what_python_expects(row):
    """KeyError for items, AttributeError for attributes, IndexError for numbers; names are exact."""
    with pytest.raises(KeyError, match="nope"):
        row["nope"]
    with pytest.raises(KeyError):
        row["NAME"]
    with pytest.raises(AttributeError, match="nope"):
        row.nope
    with pytest.raises(IndexError):
        row[3]
    assert not hasattr(row, "nope")


def test_a_name_that_occurs_twice_raises_when_asked_for_by_name(codec):
    """It can be read by number only."""
    row = codec.new_row(codec.Columns(["id", "id", "x"]), (1, 2, 3))
    assert (row[0], row[1], row.x) == (1, 2, 3)
    for ask in (lambda: row["id"], lambda: row.id, row.asdict):
        with pytest.raises(errors.RowMappingError, match="twice"):
            ask()


def test_rows_survive_pickling_and_share_their_names(codec, row):
    """The rows of one result carry one `Columns`, before and after."""
    columns = codec.Columns(["a"])
    rows = [codec.new_row(columns, (number,)) for number in range(3)]
    again = pickle.loads(pickle.dumps(rows))
    assert again == rows
    assert again[0].keys() is again[2].keys()
    assert pickle.loads(pickle.dumps(row)).asdict() == row.asdict()
    assert copy.deepcopy(row) == row
    assert copy.copy(row).name == "eve"


def test_an_empty_row_can_be_made_but_not_filled(codec):
    """`Row()` is a row without columns; nothing of it can crash."""
    row = codec.Row()
    assert (len(row), row.keys(), row.asdict(), repr(row)) == (0, (), {}, "Row()")
    with pytest.raises(TypeError):
        codec.Row(1)


def test_values_and_names_must_agree_in_number(codec):
    """A row has one value per column."""
    with pytest.raises((ValueError, TypeError)):
        codec.new_row(codec.Columns(["a"]), (1, 2))


def test_decoded_rows_share_columns(codec):
    """`decode_rows` reads values row by row."""
    data = b"xx" + codec.encode_values([1, "a", None, b"z"])
    rows = codec.decode_rows(data, 2, 2, codec.Columns(["n", "v"]))
    assert rows == [(1, "a"), (None, b"z")]
    assert rows[0].keys() is rows[1].keys()
    assert codec.decode_rows(b"", 0, 0, codec.Columns([])) == []


def test_text_that_is_not_utf8_is_a_mapping_error_or_bytes(codec):
    """api.md section 2: RowMappingError that names the column, or bytes for who asks."""
    data = codec.encode_values(["ok"]) + b"\x03\x02\0\0\0\xff\xfe" + codec.encode_values([9])
    columns = codec.Columns(["a", "b", "c"])
    with pytest.raises(errors.RowMappingError, match="'b'"):
        codec.decode_rows(data, 0, 1, columns)
    assert codec.decode_rows(data, 0, 1, columns, bytes_for_bad_text=True) == [("ok", b"\xff\xfe", 9)]


def test_rows_without_columns_are_refused(codec):
    """Bytes that claim rows of nothing would cost memory for nothing."""
    with pytest.raises(errors.ProtocolError):
        codec.decode_rows(b"", 0, 1, codec.Columns([]))
