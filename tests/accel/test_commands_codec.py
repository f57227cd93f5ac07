"""Commands: what a write call asks for, written and checked alike by the compiled codec and its plain twin."""

import math

import pytest
from codec_twins import COMMANDS, NAMES, RECORDS, outcome
from hypothesis import given, settings
from hypothesis import strategies as st

from hiqlite import errors
from hiqlite._accel.commands import FOREIGN_KEYS_OFF, ROWS_WANTED, Operation, Reference

EXECUTE, MANY, TXN, BATCH, MIGRATION = Operation
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=20)
VALUE = st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.text(max_size=9), st.binary(max_size=9))
NAME = st.text("abc_é", min_size=1, max_size=5)
PARAMETERS = st.one_of(st.lists(VALUE, max_size=4), st.tuples(VALUE, VALUE), st.dictionaries(NAME, VALUE, max_size=4))


@pytest.fixture(params=NAMES)
def codec(request):
    return COMMANDS[request.param]


def test_an_execute_shows_what_it_was_made_of(codec):
    """One text, one statement."""
    view = codec.command_view(codec.encode_command(EXECUTE, [("INSERT ?", [1])], flags=ROWS_WANTED))
    assert (view.operation, view.flags, view.texts) == (EXECUTE, ROWS_WANTED, [b"INSERT ?"])
    assert view.statements == [(0, False, 1, None)]
    assert view.expects == [None]


def test_a_txn_holds_each_text_once(codec):
    """Distinct texts in order of first use; names, references and expectations kept."""
    statements = [("A", [1]), ("B", {"x": Reference(0, "id"), "y": None}), ("A", (Reference(1, 0),))]
    view = codec.command_view(codec.encode_command(TXN, statements, expects=[None, 2, 0]))
    assert view.texts == [b"A", b"B"]
    assert view.statements == [(0, False, 1, None), (1, True, 2, ("x", "y")), (0, False, 1, None)]
    assert view.expects == [None, 2, 0]


def test_who_asks_is_kept(codec):
    """Session, sequence, window and request id, for exactly once."""
    origin = {"session": 2**64 - 1, "sequence": 3, "window_low": 2, "request_id": "wünsch"}
    for record in (
        codec.encode_command(MANY, [("A", [1]), ("A", [2])], **origin),
        codec.encode_batch("A; B", **origin),
        codec.encode_migration("A; B", "1_a.sql", "00", **origin),
    ):
        view = codec.command_view(record)
        assert (view.session, view.sequence, view.window_low, view.request_id) == (2**64 - 1, 3, 2, "wünsch")


def test_batch_and_migration_hold_their_texts(codec):
    """The text is split when it is applied; a migration also has a name and a hash."""
    view = codec.command_view(codec.encode_batch("SELECT 1; SELECT 2"))
    assert (view.operation, view.texts, view.statements) == (BATCH, [b"SELECT 1; SELECT 2"], [])
    record = codec.encode_migration("CREATE", "1_a.sql", "abc", True)
    view = codec.command_view(record)
    assert (view.operation, view.flags, view.texts) == (MIGRATION, FOREIGN_KEYS_OFF, [b"CREATE", b"1_a.sql", b"abc"])
    assert RECORDS["plain"].header(record).entry_kind == 5


def test_a_record_is_shown_whether_sealed_or_not(codec):
    """The leader's fields do not belong to the command."""
    record = bytearray(codec.encode_command(EXECUTE, [("A", ())]))
    assert bytes(record[16:64]) == bytes(48)
    before = codec.command_view(record)
    RECORDS["compiled"].seal(record, 0, 3, 9, 1, 2, 3)
    assert codec.command_view(record) == before


@given(
    st.lists(st.tuples(TEXT, PARAMETERS), min_size=1, max_size=5),
    st.lists(st.one_of(st.none(), st.integers(0, 5)), min_size=5, max_size=5),
    TEXT,
)
def test_both_codecs_write_the_same_bytes_and_read_them_back(statements, expects, request_id):
    """Round trip of any txn."""
    expects = expects[: len(statements)]
    made = [c.encode_command(TXN, statements, expects=expects, request_id=request_id) for c in COMMANDS.values()]
    assert made[0] == made[1]
    views = [c.command_view(made[0]) for c in COMMANDS.values()]
    assert views[0] == views[1]
    assert views[0].expects == expects
    assert [views[0].texts[s.text_number].decode() for s in views[0].statements] == [text for text, _ in statements]


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ([math.nan], "parameter 1"),
        ([1, 2**64], "parameter 2"),
        ({"a": object()}, "parameter 'a'"),
        ({"a": "\ud800"}, "surrogate"),
        ({1: 2}, "name"),
        ({"": 2}, "name"),
        ({"\ud800": 2}, "surrogate"),
        ({"n" * 70_000: 2}, "name"),
        ("text", "not str"),
        (b"bytes", "not bytes"),
        ({1, 2}, "not set"),
        (5, "not int"),
        (None, "not NoneType"),
        (iter([1]), "not list_iterator"),
        ([0] * 32_767, "32766"),
        ([Reference(0, 0)], "txn only"),
    ],
    ids=lambda value: None,
)
def test_parameters_that_cannot_be_stored_are_refused(codec, params, words):
    """ParameterError that names the parameter, before anything is replicated."""
    with pytest.raises(errors.ParameterError, match=words):
        codec.encode_command(EXECUTE, [("A", params)])


def test_the_most_parameters_pass(codec):
    """32 766, SQLite's limit."""
    view = codec.command_view(codec.encode_command(EXECUTE, [("A", [None] * 32_766)]))
    assert view.statements[0].parameter_count == 32_766


def test_an_error_in_a_txn_names_the_statement(codec):
    """Counted from 0, as in `statement_index`."""
    with pytest.raises(errors.ParameterError, match="statement 1, parameter 2"):
        codec.encode_command(TXN, [("A", []), ("B", [1, math.nan])])


@pytest.mark.parametrize("statement", [1, 2])
def test_a_reference_reaches_back_only(codec, statement):
    """To a statement before its own."""
    with pytest.raises(errors.ParameterError, match="earlier"):
        codec.encode_command(TXN, [("A", []), ("B", [Reference(statement, "id")])])


@pytest.mark.parametrize("made", [(-1, 0), (0, -1), ("0", 1), (0, None), (2**32, 0), (0, 1.5)])
def test_a_reference_of_nonsense_cannot_be_made(made):
    """Numbers count from 0; a column is a name or a number."""
    with pytest.raises(errors.ParameterError):
        Reference(*made)


@pytest.mark.parametrize(
    ("operation", "statements", "more"),
    [
        (EXECUTE, [], {}),
        (TXN, [], {}),
        (EXECUTE, [("A", ()), ("A", ())], {}),
        (MANY, [("A", ()), ("B", ())], {}),
        (BATCH, [("A", ())], {}),
        (9, [("A", ())], {}),
        (EXECUTE, [("A\0B", ())], {}),
        (EXECUTE, [("\ud800", ())], {}),
        (EXECUTE, [(b"A", ())], {}),
        (EXECUTE, [(["A"], ())], {}),
        (EXECUTE, [("A", ())], {"expects": [1, 2]}),
        (EXECUTE, [("A", ())], {"expects": [-1]}),
        (EXECUTE, [("A", ())], {"expects": ["1"]}),
        (EXECUTE, [("A", ())], {"request_id": "x" * 65_536}),
        (EXECUTE, [("A", ())], {"request_id": 5}),
        (EXECUTE, [("A", [b"x" * 1000])], {"size_max": 1000}),
        (TXN, [(f"A{number}", ()) for number in range(65_536)], {}),
    ],
    ids=lambda value: None,
)
def test_calls_that_no_command_stands_for_are_usage_errors(codec, operation, statements, more):
    """Counts, texts, expectations, request ids and sizes."""
    with pytest.raises(errors.UsageError):
        codec.encode_command(operation, statements, **more)


def test_size_max_counts_the_whole_record(codec):
    """Header and padding included."""
    record = codec.encode_command(EXECUTE, [("A", [1])])
    assert codec.encode_command(EXECUTE, [("A", [1])], size_max=len(record)) == record
    with pytest.raises(errors.UsageError, match="max_entry_size"):
        codec.encode_command(EXECUTE, [("A", [1])], size_max=len(record) - 1)
    with pytest.raises(errors.UsageError, match="max_entry_size"):
        codec.encode_batch("A" * 200, size_max=200)


def resealed(payload, entry_kind=1):
    """A record with an intact checksum round a payload that may be anything."""
    return RECORDS["plain"].unsealed(1, entry_kind, bytes(payload))


STATEMENTS = [("A", [1, "é", 2.5, b"z", None]), ("B", {"x": Reference(0, "id"), "y": Reference(0, 1)})]
SAMPLE = COMMANDS["plain"].encode_command(TXN, STATEMENTS, expects=[3, None], request_id="id")
PAYLOAD = SAMPLE[64 : 64 + RECORDS["plain"].header(SAMPLE).payload_length]


@given(st.data())
@settings(max_examples=400)
def test_a_hostile_payload_ends_in_the_same_verdict_of_both_codecs(data):
    """Bytes changed, cut or appended under a good checksum: the same view or a ProtocolError in both, never a crash."""
    payload = bytearray(PAYLOAD)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(payload) - 1))
        payload[at] = data.draw(st.sampled_from([0, 1, 2, 3, 6, 127, 128, 255]))
    payload = payload[: data.draw(st.integers(len(payload) // 2, len(payload)))] + data.draw(st.binary(max_size=2))
    record = resealed(payload)
    results = [outcome(codec.command_view, record) for codec in COMMANDS.values()]
    assert [result[:2] for result in results[:1]] == [result[:2] for result in results[1:]]
    assert results[0][0] == "value" or results[0][1] is errors.ProtocolError


@given(st.binary(max_size=300))
def test_random_payloads_are_refused(payload):
    """Fuzz of the whole payload."""
    results = [outcome(codec.command_view, resealed(payload)) for codec in COMMANDS.values()]
    assert results[0][:2] == results[1][:2]


def test_every_cut_of_a_command_is_refused(codec):
    """Under a good checksum, so that only the payload's own checks can find it."""
    for end in range(len(PAYLOAD)):
        with pytest.raises(errors.ProtocolError):
            codec.command_view(resealed(PAYLOAD[:end]))


def test_a_record_that_is_no_command_is_refused(codec):
    """Other kinds, bytes behind it, damage, nothing at all."""
    damaged = bytearray(SAMPLE)
    damaged[70] ^= 1
    for record in (b"", SAMPLE + bytes(8), SAMPLE[:-1], bytes(damaged), resealed(PAYLOAD, 5), resealed(b"", 8)):
        with pytest.raises(errors.ProtocolError):
            codec.command_view(record)


def test_a_forged_reference_forward_is_refused(codec):
    """A statement cannot use the rows of one that has not run yet, however the bytes came about."""
    at = PAYLOAD.index(b"\x06\0\0\0\0\x02\0\0\0id")
    with pytest.raises(errors.ProtocolError, match="parameter"):
        codec.command_view(resealed(PAYLOAD[: at + 1] + b"\x01" + PAYLOAD[at + 2 :]))


def test_a_forged_count_costs_no_memory(codec):
    """Statement and parameter counts beyond the bytes are refused."""
    for at in (4, 40):
        forged = bytearray(PAYLOAD)
        forged[at : at + 4] = b"\xff\xff\xff\xff"
        with pytest.raises(errors.ProtocolError):
            codec.command_view(resealed(forged))
