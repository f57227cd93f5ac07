"""Answers: results, rows and errors, alike from the compiled codec and its plain twin."""

import pickle

import pytest
from codec_twins import ANSWERS, NAMES, outcome
from hypothesis import given, settings
from hypothesis import strategies as st

from hiqlite import errors
from hiqlite._accel.plain.answers import Done, Failed, Returned, encode_answer

I64 = st.integers(-(2**63), 2**63 - 1)
VALUE = st.one_of(st.none(), I64, st.floats(allow_nan=False), st.text(max_size=9), st.binary(max_size=9))


@pytest.fixture(params=NAMES)
def codec(request):
    return ANSWERS[request.param]


@st.composite
def returned(draw):
    columns = draw(st.lists(st.text(max_size=5), min_size=1, max_size=3))
    rows = draw(st.lists(st.tuples(*[VALUE] * len(columns)), max_size=3))
    return Returned(columns, rows, draw(I64), draw(I64))


RESULT = st.one_of(st.builds(Done, I64, I64), returned())


def numbers(result):
    return result.rows_affected, result.last_insert_rowid, result.log_index


@given(I64, I64, st.integers(0, 2**64 - 1))
def test_an_execute_gives_its_numbers(affected, rowid, index):
    """The answer of nearly every write."""
    answer = encode_answer(0, [Done(affected, rowid)])
    for codec in ANSWERS.values():
        assert numbers(codec.decode_execute(answer, index)) == (affected, rowid, index)
        assert numbers(codec.decode_execute(bytearray(answer), index)) == (affected, rowid, index)


def test_a_result_is_a_value(codec):
    """Unpacking, equality, hash, repr, pickling; never changed."""
    result = codec.decode_execute(encode_answer(0, [Done(1, 2)]), 3)
    affected, rowid, index = result
    assert (affected, rowid, index) == (1, 2, 3)
    assert result == codec.decode_execute(encode_answer(0, [Done(1, 2)]), 3)
    assert result != codec.decode_execute(encode_answer(0, [Done(1, 2)]), 4)
    assert result != (1, 2, 3)
    assert len({result, pickle.loads(pickle.dumps(result))}) == 1
    assert repr(result) == "ExecuteResult(rows_affected=1, last_insert_rowid=2, log_index=3)"
    with pytest.raises(AttributeError):
        result.rows_affected = 5
    match result:
        case codec.ExecuteResult(rows_affected, last, _):
            assert (rows_affected, last) == (1, 2)


def test_an_execute_with_rows_gives_its_numbers_too(codec):
    """RETURNING in a plain execute: the rows are not asked for."""
    answer = encode_answer(0, [Returned(["id"], [(4,)], 1, 4)])
    assert numbers(codec.decode_execute(answer, 9)) == (1, 4, 9)


@given(returned())
def test_rows_survive(result):
    """Column names and values of RETURNING."""
    for codec in ANSWERS.values():
        rows, done = codec.decode_returning(encode_answer(0, [result]), 7)
        assert rows == list(result.rows)
        assert all(row.keys() == tuple(result.columns) for row in rows)
        assert numbers(done) == (result.rows_affected, result.last_insert_rowid, 7)


def test_returning_without_rows_gives_an_empty_list(codec):
    """A statement that changed nothing."""
    assert codec.decode_returning(encode_answer(0, [Done(0, 0)]), 7)[0] == []
    assert codec.decode_returning(encode_answer(0, [Returned(["id"], [])]), 7)[0] == []


@given(st.lists(RESULT, max_size=4))
def test_a_txn_gives_one_result_per_statement(results):
    """`rows` is None where the statement returns none by its nature."""
    for codec in ANSWERS.values():
        found = codec.decode_txn(encode_answer(0, results), 7, ["x"] * len(results))
        assert [numbers(one.result)[:2] for one in found] == [(r.rows_affected, r.last_insert_rowid) for r in results]
        assert [one.rows for one in found] == [r.rows if isinstance(r, Returned) else None for r in results]
        many = codec.decode_many(encode_answer(0, results), 7, "x")
        assert [numbers(one) for one in many] == [numbers(one.result) for one in found]


CLASSES = [
    (1, errors.StatementError),
    (2, errors.ConstraintError),
    (3, errors.SchemaError),
    (4, errors.ExpectationFailed),
    (5, errors.DeterminismError),
    (6, errors.UsageError),
    (7, errors.ParameterError),
    (8, errors.MigrationError),
]


@pytest.mark.parametrize(("number", "kind"), CLASSES)
@pytest.mark.parametrize(("status", "remains"), [(1, "not_applied"), (2, "applied")])
def test_each_class_is_raised_as_its_error(codec, number, kind, status, remains):
    """docs/formats.md section 4; the outcome says whether anything remains."""
    answer = encode_answer(status, [Failed(number, "what happened", 2067, 0)])
    for decode in (codec.decode_execute, codec.decode_returning, codec.decode_many):
        with pytest.raises(kind, match="what happened") as caught:
            decode(answer, 7, "INSERT")
        assert type(caught.value) is kind
        assert caught.value.outcome == remains
        if issubclass(kind, errors.StatementError):
            assert (caught.value.sqlite_code, caught.value.extended_code) == (19, 2067)
            assert (caught.value.statement_index, caught.value.sql) == (0, "INSERT")


def test_the_error_of_a_txn_names_the_failed_statement(codec):
    """Index and text."""
    answer = encode_answer(1, [Failed(2, "no", 19, 1)])
    with pytest.raises(errors.ConstraintError) as caught:
        codec.decode_txn(answer, 7, ["A", b"B"])
    assert (caught.value.statement_index, caught.value.sql) == (1, "B")


def test_a_long_statement_is_shortened_in_errors(codec):
    """200 characters."""
    with pytest.raises(errors.StatementError) as caught:
        codec.decode_execute(encode_answer(1, [Failed(1, "no")]), 7, "é" * 5000)
    assert len(caught.value.sql) == 200
    assert caught.value.sql.endswith("…")


def test_a_batch_gives_results_and_errors_side_by_side(codec):
    """A failed statement is no failure of the entry, and says whether a part of it remains; one that failed as a whole
    raises."""
    results = [Done(1, 2), Failed(3, "no such table", 1, 1), Failed(2, "no", 19, 2, part_remains=True), Done()]
    found = codec.decode_batch(encode_answer(0, results), 7)
    assert numbers(found[0]) == (1, 2, 7)
    assert isinstance(found[1], errors.SchemaError)
    assert found[1].statement_index == 1
    assert [error.outcome for error in found[1:3]] == ["not_applied", "applied"]
    with pytest.raises(errors.ConstraintError):
        codec.decode_batch(encode_answer(1, [Failed(2, "no")]), 7)


def test_rows_that_cannot_be_shown_come_from_a_write_that_happened(codec):
    """Text that is not UTF-8 in RETURNING: RowMappingError with outcome applied."""
    answer = encode_answer(0, [Returned(["t"], [("ab",)], 1, 1)]).replace(b"ab", b"\xff\xfe")
    for decode in (codec.decode_returning, codec.decode_txn):
        with pytest.raises(errors.RowMappingError) as caught:
            decode(answer, 7)
        assert caught.value.outcome == "applied"


def decoders(codec):
    return (
        codec.decode_execute,
        codec.decode_returning,
        codec.decode_many,
        codec.decode_counts,
        codec.decode_txn,
        codec.decode_batch,
    )


SAMPLES = [
    encode_answer(0, [Done(1, 2)]),
    encode_answer(0, [Done(1, 2), Returned(["id", "é"], [(1, "a"), (None, b"z")], 2, 2)]),
    encode_answer(1, [Failed(2, "UNIQUE", 2067, 0)]),
    encode_answer(0, [Done(1, 2), Failed(2, "UNIQUE", 2067, 1)]),
]


@pytest.mark.parametrize("sample", range(len(SAMPLES)))
def test_every_cut_and_every_excess_of_an_answer_is_refused(codec, sample):
    """ProtocolError, whatever was asked for."""
    whole = SAMPLES[sample]
    for data in [whole[:end] for end in range(len(whole))] + [whole + b"\0"]:
        for decode in decoders(codec):
            with pytest.raises(errors.ProtocolError):
                decode(data, 7)


def summary(result):
    """A result that twins can be compared by: their classes differ, what they show does not."""
    return result[:2] if result[0] == "error" else ("value", repr(result[1]))


@given(st.sampled_from(SAMPLES), st.data())
@settings(max_examples=400)
def test_hostile_answers_end_in_the_same_verdict_of_both_codecs(sample, data):
    """Bytes changed anywhere: the same value or error in both, never a crash."""
    raw = bytearray(sample)
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.sampled_from([0, 1, 2, 3, 5, 24, 127, 128, 255]))
    for ours, plain in zip(*(decoders(codec) for codec in ANSWERS.values()), strict=True):
        results = [outcome(decode, bytes(raw), 7) for decode in (ours, plain)]
        assert summary(results[0]) == summary(results[1])
        assert results[0][0] == "value" or issubclass(results[0][1], errors.HiqliteError)


@given(st.binary(max_size=100))
def test_random_bytes_are_no_answer(raw):
    """Fuzz."""
    for codec in ANSWERS.values():
        for decode in decoders(codec):
            result = outcome(decode, raw, 7)
            assert result[0] == "value" or issubclass(result[1], errors.HiqliteError)
