"""A write that stands in the log twice is applied once, and gives its first answer (semantics.md section 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import apsw
import pytest
from apply_harness import ROWS_WANTED, Machine, error_of, healthy, machine

from hiqlite._accel import answers
from hiqlite._accel.records import Operation, encode_batch, encode_command, encode_record, seal_records
from hiqlite.errors import AnswerNotKept, ConstraintError, ProtocolError, SessionExpired, UsageError
from hiqlite.statemachine.session_record import check, session_record

SECOND_NS = 1_000_000_000
TTL_NS = 3600 * SECOND_NS
REQUEST_TTL_NS = 100 * SECOND_NS
WINDOW = 8
RUNS_KEPT = 256  # runs whose rows are kept, about

Entry = tuple[bytes, int]  # a record, and its group time in ns


def opening(window: int = WINDOW, ttl_ns: int = TTL_NS) -> bytes:
    return session_record(window, ttl_ns, REQUEST_TTL_NS)


def write(
    session: int, sequence: int, sql: str, params: Any = (), *, low: int = 1, request: str = "", rows: bool = False
) -> bytes:
    return encode_command(
        Operation.EXECUTE, [(sql, params)], flags=ROWS_WANTED if rows else 0,
        session=session, sequence=sequence, window_low=low, request_id=request,
    )  # fmt: skip


ADD = "INSERT INTO t(a) VALUES (?)"
CREATE = "CREATE TABLE t(id INTEGER PRIMARY KEY, a UNIQUE)"


def give(made: Machine, entries: Sequence[Entry]) -> list[bytes]:
    """Applies the entries, each with its group time, in as few runs as the machine makes of them."""
    first = made.applier.applied_index + 1
    sealed = bytearray()
    for number, (record, group_ns) in enumerate(entries):
        one = bytearray(record)
        seal_records(one, 1, first + number, group_ns, 1_700_000_000 * SECOND_NS, 42)
        sealed += one
    last = first + len(entries) - 1
    assert made.applier.apply_inline(first, last, 1, [bytes(sealed)], True)
    assert made.applier.failure is None, made.applier.failure
    return [run.answer(index) for run in made.applier.take() for index in range(run.first, run.last + 1)]


def now(*records: bytes, at: int = 1) -> list[Entry]:
    return [(record, at) for record in records]


@pytest.fixture
def made(tmp_path: Path) -> Any:
    """A machine with the table t and session 2."""
    with machine(tmp_path / "a.db") as opened:
        give(opened, now(encode_command(Operation.EXECUTE, [(CREATE, ())]), opening()))
        yield opened


@pytest.mark.parametrize("how", ["same run", "next run", "restart"])
def test_the_same_write_is_applied_once_and_gives_its_first_answer(made: Machine, how: str) -> None:
    one = write(2, 1, ADD, ["x"])
    if how == "same run":
        first, second = give(made, now(one, one))
    else:
        (first,) = give(made, now(one))
        if how == "restart":
            made.reopen()
        (second,) = give(made, now(one))
    assert tuple(answers.decode_execute(first, 3)) == (1, 1, 3)
    assert tuple(answers.decode_execute(second, 4)) == (1, 1, 3)  # the index of the entry that did it
    assert made.rows("SELECT count(*) FROM t") == [(1,)] and healthy(made)


def test_a_failure_is_a_first_answer_too(made: Machine) -> None:
    """What made it fail may be gone by the second time."""
    give(made, now(write(2, 1, ADD, ["x"])))
    again = write(2, 2, ADD, ["x"])
    first = give(made, now(again))[0]
    give(made, now(write(2, 3, "DELETE FROM t", [])))
    second = give(made, now(again))[0]
    assert isinstance(error_of(first), ConstraintError) and isinstance(error_of(second), ConstraintError)
    assert error_of(second).message == error_of(first).message
    assert made.rows("SELECT count(*) FROM t") == [(0,)]


def test_rows_and_several_results_come_again(made: Machine) -> None:
    one = write(2, 1, "INSERT INTO t(a) VALUES (?), (?) RETURNING id, a", ["x", "y"], rows=True)
    text = "INSERT INTO t(a) VALUES ('z'); INSERT INTO t(a) VALUES ('z')"
    both = encode_batch(text, session=2, sequence=2, window_low=1)
    for _ in range(3):
        given = give(made, now(one, both))
        made.reopen()
        rows, result = answers.decode_returning(given[0], 3)  # the entry's own index, or that of the first
        assert [tuple(row) for row in rows] == [(1, "x"), (2, "y")] and result.log_index == 3
        kinds = [type(each).__name__ for each in answers.decode_batch(given[1], 99)]
        assert kinds == ["ExecuteResult", "ConstraintError"]
    assert made.rows("SELECT count(*) FROM t") == [(3,)]


def test_a_large_answer_is_kept_as_applied(made: Machine) -> None:
    """The caller learns that it happened, and that its rows are gone; nothing happens twice."""
    one = write(2, 1, "INSERT INTO t(a) VALUES (?) RETURNING a", ["x" * 70_000], rows=True)
    give(made, now(one))
    for _ in range(2):
        error = error_of(give(made, now(one))[0])
        assert isinstance(error, AnswerNotKept) and error.outcome == "applied"
        made.reopen()
    assert made.rows("SELECT count(*) FROM t") == [(1,)]


def test_answers_below_the_window_are_let_go(made: Machine) -> None:
    """Whoever moved on does not ask again; who asks all the same is told that nobody knows."""
    give(made, now(*[write(2, n, ADD, [n], low=max(1, n - 3)) for n in range(1, 7)]))
    for sequence in (1, 2):
        error = error_of(give(made, now(write(2, sequence, ADD, [sequence])))[0])
        assert isinstance(error, SessionExpired) and error.outcome == "unknown"
    assert answers.decode_execute(give(made, now(write(2, 3, ADD, [3])))[0], 0).log_index == 5
    assert made.rows("SELECT count(*) FROM t") == [(6,)]


def test_writes_of_one_session_may_come_in_any_order(made: Machine) -> None:
    """Which one comes first decides nothing about the others."""
    order = [5, 1, 3, 2, 4]
    give(made, now(*[write(2, n, ADD, [n]) for n in order]))
    made.reopen()
    again = give(made, now(*[write(2, n, ADD, [n]) for n in (1, 2, 3, 4, 5)]))
    assert [answers.decode_execute(each, 0).log_index for each in again] == [4, 6, 5, 7, 3]
    assert made.rows("SELECT count(*) FROM t") == [(5,)]


@pytest.mark.parametrize(("sequence", "low"), [(WINDOW + 1, 1), (1, 2), (1 << 63, 1)])
def test_a_write_outside_of_its_window_is_refused(made: Machine, sequence: int, low: int) -> None:
    assert isinstance(error_of(give(made, now(write(2, sequence, ADD, [1], low=low)))[0]), UsageError)
    assert made.rows("SELECT count(*) FROM t") == [(0,)]


def test_a_session_that_nobody_opened_is_refused(made: Machine) -> None:
    assert isinstance(error_of(give(made, now(write(1, 1, ADD, [1])))[0]), SessionExpired)
    assert made.rows("SELECT count(*) FROM t") == [(0,)]


@pytest.mark.parametrize("runs", [1, 2 * RUNS_KEPT])
def test_a_session_ends_when_it_is_not_used(made: Machine, runs: int) -> None:
    """By the group time of entries alone; whether its rows are swept away by then makes no difference."""
    give(made, now(opening(), write(2, 1, ADD, [1]), at=5))
    give(made, now(write(2, 2, ADD, [2]), at=5 + TTL_NS))  # just in time, and it counts from here
    filler = encode_command(Operation.EXECUTE, [("DELETE FROM t WHERE id < 0", ())])
    for _ in range(runs):
        give(made, now(filler, at=6 + 2 * TTL_NS if runs == 1 else 9 * TTL_NS))
    late = 6 + 2 * TTL_NS if runs == 1 else 9 * TTL_NS
    assert isinstance(error_of(give(made, now(write(2, 2, ADD, [2]), at=late))[0]), SessionExpired)
    made.reopen()
    assert isinstance(error_of(give(made, now(write(2, 3, ADD, [3]), at=late))[0]), SessionExpired)
    assert made.rows("SELECT count(*) FROM t") == [(2,)]
    # The latest one of all stays: it tells that there were any.
    assert made.rows("SELECT id FROM _hiqlite_session") == [(3,)] or runs == 1
    assert made.applier.has_sessions


def test_an_undone_run_leaves_no_trace_of_its_writes(made: Machine) -> None:
    """A statement that ends the transaction has the run applied again; its neighbours are new both times."""
    ending = write(2, 2, "INSERT OR ROLLBACK INTO t(a) VALUES ('x')")
    given = give(made, now(write(2, 1, ADD, ["x"]), ending, write(2, 3, ADD, ["y"])))
    assert [each[1] for each in given] == [0, 1, 0]
    again = give(made, now(write(2, 1, ADD, ["x"]), ending, write(2, 3, ADD, ["y"])))
    assert [answers.decode_execute(each, 0).log_index for each in (again[0], again[2])] == [3, 5]
    assert isinstance(error_of(again[1]), ConstraintError)
    assert made.rows("SELECT a FROM t ORDER BY id") == [("x",), ("y",)] and healthy(made)


@pytest.mark.parametrize("payload", [b"", b"\0" * 24, session_record(1, 1, 1)[64:87], b"\xff" * 24])
def test_a_malformed_opening_opens_nothing(made: Machine, payload: bytes) -> None:
    (answer,) = give(made, now(encode_record(1, 2, payload)))
    assert answer[1] == 1
    assert isinstance(error_of(give(made, now(write(3, 1, ADD, [1])))[0]), SessionExpired)


@pytest.mark.parametrize("damage", ["crc", "padding", "size"])
def test_a_damaged_opening_of_a_peer_is_refused_before_it_is_replicated(damage: str) -> None:
    whole = bytearray(opening())
    check(bytes(whole))
    if damage == "crc":
        whole[70] ^= 1
    elif damage == "size":
        whole += bytes(8)
    else:
        whole = bytearray(encode_record(1, 2, bytes(20)))
        whole[-1] = 1
    with pytest.raises(ProtocolError):
        check(bytes(whole))


def test_a_session_with_many_answers_gets_its_row(tmp_path: Path) -> None:
    """Rows of all sizes, under request ids too, read again after restarts, from runs and from rows of sessions."""
    returning = "INSERT INTO t(a) SELECT zeroblob(900) FROM (SELECT 1 UNION SELECT 2 UNION SELECT 3) RETURNING a"
    with machine(tmp_path / "a.db") as opened:
        create = "CREATE TABLE t(id INTEGER PRIMARY KEY, a)"
        give(opened, now(encode_command(Operation.EXECUTE, [(create, ())]), opening(500)))
        writes = [write(2, n, returning, rows=True, request=f"r{n}") for n in range(1, 400)]
        first = give(opened, now(*writes))
        opened.reopen()
        again = give(opened, now(*writes))
        rows = [[answers.decode_returning(each, 0)[0] for each in given] for given in (first, again)]
        assert rows[0] == rows[1]
        for _ in range(RUNS_KEPT):  # the session gets its own row
            give(opened, now(write(0, 0, "DELETE FROM t WHERE id < 0", low=0)))
        opened.reopen()
        assert give(opened, now(writes[5]))[0][:-8] == again[5][:-8]
        assert opened.rows("SELECT count(*) FROM t") == [(3 * 399,)]


def test_what_older_runs_keep_is_bounded(made: Machine) -> None:
    """Many large answers do not pile up in the rows of runs; nothing of a session is lost by that."""
    give(made, now(opening(2000)))
    text = "INSERT INTO t(a) VALUES (zeroblob(60000 + ?)) RETURNING a"
    for run in range(50):
        numbers = range(20 * run + 1, 20 * run + 21)
        give(made, now(*[write(3, n, text, [n], rows=True, low=max(1, n - 50)) for n in numbers]))
    ((kept,),) = made.rows("SELECT sum(length(answers)) FROM _hiqlite_run")
    assert kept < 20 << 20
    made.reopen()
    rows, result = answers.decode_returning(give(made, now(write(3, 960, text, [960], rows=True)))[0], 0)
    assert len(rows[0][0]) == 60960 and result.log_index == 963


@pytest.mark.parametrize(("table", "column"), [("_hiqlite_session", "state"), ("_hiqlite_run", "answers")])
def test_damage_of_what_is_kept_is_damage_of_the_database(tmp_path: Path, table: str, column: str) -> None:
    """An open says so, so that the node takes another node's image in its place."""
    with machine(tmp_path / "a.db") as opened:
        give(opened, now(opening(), write(1, 1, "SELECT 1")))
        for _ in range(RUNS_KEPT):
            give(opened, now(write(1, 2, "SELECT 1")))
    raw = apsw.Connection(str(tmp_path / "a.db"))
    raw.execute(f"UPDATE {table} SET {column} = x'0708' WHERE {column} IS NOT NULL")
    raw.close()
    with pytest.raises(OSError) as damaged:
        Machine(tmp_path / "a.db")
    assert damaged.value.errno == apsw.SQLITE_CORRUPT


# --------------------------------------------------------------------------- request ids


def test_a_request_id_outlives_session_and_process(made: Machine) -> None:
    """Whoever sends the same write under it, through whatever session, gets the first answer."""
    give(made, now(opening()))
    first = give(made, now(write(2, 1, ADD, ["x"], request="order 7")))[0]
    assert tuple(answers.decode_execute(first, 4)) == (1, 1, 4)
    for record in (write(2, 2, ADD, ["x"], request="order 7"), write(3, 1, ADD, ["x"], request="order 7"),
                   write(0, 0, ADD, ["x"], low=0, request="order 7")):  # fmt: skip
        made.reopen()
        for _ in range(2):
            assert tuple(answers.decode_execute(give(made, now(record))[0], 99)) == (1, 1, 4)
    assert made.rows("SELECT count(*) FROM t") == [(1,)]


def test_another_write_under_a_request_id_is_refused(made: Machine) -> None:
    give(made, now(write(2, 1, ADD, ["x"], request="a")))
    for sequence, record in enumerate(
        (write(2, 2, ADD, ["y"], request="a"), write(2, 3, "INSERT  INTO t(a) VALUES (?)", ["x"], request="a")), 2
    ):
        for _ in range(2):  # the second time it is the answer to that write of the session
            error = error_of(give(made, now(record))[0])
            assert isinstance(error, UsageError) and "request id 'a'" in error.message, sequence
    assert made.rows("SELECT a FROM t") == [("x",)]


def test_old_request_ids_are_removed_as_new_ones_come(made: Machine) -> None:
    """So the table holds those of the time that they are kept, and little more."""
    give(made, now(opening(1000)))
    for number in range(1, 301):
        give(made, now(write(3, number, "DELETE FROM t", request=f"r{number}"), at=number * 60 * SECOND_NS))
    ((count,),) = made.rows("SELECT count(*) FROM _hiqlite_request")
    assert count < 70  # an hour more than they count


def test_a_request_id_is_free_again_when_its_time_is_over(made: Machine) -> None:
    give(made, now(write(2, 1, ADD, ["x"], request="a"), at=10))
    kept = give(made, now(write(2, 2, ADD, ["x"], request="a"), at=10 + REQUEST_TTL_NS))[0]
    assert answers.decode_execute(kept, 99).log_index == 3
    give(made, now(write(2, 3, ADD, ["y"], request="a"), at=11 + REQUEST_TTL_NS))
    assert made.rows("SELECT a FROM t ORDER BY id") == [("x",), ("y",)]


# --------------------------------------------------------------------------- against a model


@dataclass
class Kept:
    low: int
    seen_ns: int
    answers: dict[int, tuple[int, int]] = field(default_factory=dict)  # sequence -> (rowid, index)


class Model:
    """What sessions mean, in a few lines: every insert gives the next rowid."""

    def __init__(self) -> None:
        self.sessions: dict[int, Kept] = {}
        self.requests: dict[str, tuple[object, int, int, int]] = {}  # what, rowid, index, end
        self.rows = 0

    def opened(self, index: int, group_ns: int) -> None:
        self.sessions[index] = Kept(1, group_ns)

    def insert(self, index: int, group_ns: int, session: int, sequence: int, low: int, request: str, value: int) -> Any:
        kept = self.sessions.get(session)
        if kept is None or group_ns - kept.seen_ns > TTL_NS or sequence < kept.low:
            return SessionExpired
        low = max(low, kept.low)
        if low > sequence or sequence - low >= WINDOW:
            return UsageError
        kept.low, kept.seen_ns = low, max(kept.seen_ns, group_ns)
        kept.answers = {n: answer for n, answer in kept.answers.items() if n >= low}
        if sequence not in kept.answers:
            kept.answers[sequence] = self._once(index, group_ns, request, value)
        return kept.answers[sequence]

    def _once(self, index: int, group_ns: int, request: str, value: int) -> Any:
        if request in self.requests and self.requests[request][3] >= group_ns:
            what, rowid, first, _ = self.requests[request]
            return (rowid, first) if what == value else UsageError
        self.rows += 1
        if request:
            self.requests[request] = (value, self.rows, index, group_ns + REQUEST_TTL_NS)
        return self.rows, index


def random_history(chance: Random, count: int) -> tuple[list[Entry], list[Any], int]:
    """Entries of several clients that send again, jump, sleep and ask for what is gone; what each is to answer."""
    model = Model()
    entries: list[Entry] = [(encode_command(Operation.EXECUTE, [("CREATE TABLE t(id INTEGER PRIMARY KEY, a)", ())]), 1)]
    expected: list[Any] = [None]
    group_ns = 1
    while len(entries) < count:
        index = len(entries) + 1
        group_ns += chance.choice([0, 0, 0, 1, 1, SECOND_NS, SECOND_NS, 40 * SECOND_NS])
        if chance.random() < 0.002:
            group_ns += TTL_NS - 60 * SECOND_NS
        if not model.sessions or chance.random() < 0.02:
            entries.append((opening(), group_ns))
            model.opened(index, group_ns)
            expected.append(None)
            continue
        known = list(model.sessions)  # the latest, the oldest, any, and two that nobody opened
        session = chance.choice([*known[-3:], *known[-3:], *known[:1], chance.choice(known), 1, index])
        kept = model.sessions.get(session)
        low = kept.low if kept else 1
        sequence = max(0, low + chance.randint(-2, WINDOW))
        lows = low + chance.choice([0, 0, 0, 0, 1, 2, -1])
        request = chance.choice(["", "", "", "a", "b"])
        value = chance.randint(0, 1) if request else 7
        record = write(session, sequence, ADD, [value], low=max(0, lows), request=request)
        entries.append((record, group_ns))
        expected.append(model.insert(index, group_ns, session, sequence, max(0, lows), request, value))
    return entries, expected, model.rows


def seen(answer: bytes, index: int) -> Any:
    try:
        result = answers.decode_execute(answer, index)
    except (SessionExpired, UsageError) as error:
        return type(error)
    return result.last_insert_rowid, result.log_index


@pytest.mark.parametrize("seed", range(6))
def test_random_histories_are_as_the_model_says(tmp_path: Path, seed: int) -> None:
    """However runs are cut, and with a restart between any two: the same answers, rows and running hash."""
    chance = Random(seed)
    entries, expected, rows = random_history(chance, 1200)
    hashes = set()
    for how in ("large", "small", "restarts"):
        with machine(tmp_path / f"{how}.db") as opened:
            at = 0
            while at < len(entries):
                size = {"large": 400, "small": chance.randint(1, 3), "restarts": chance.randint(1, 40)}[how]
                for number, answer in enumerate(give(opened, entries[at : at + size]), at):
                    if expected[number] is not None:
                        assert seen(answer, number + 1) == expected[number], (how, number)
                at += size
                if how == "restarts" or (how == "small" and chance.random() < 0.02):
                    opened.reopen()
            assert opened.rows("SELECT count(*) FROM t") == [(rows,)]
            hashes.add(opened.applier.equality_hash)
            if how == "small":  # so that rows of sessions were written and older runs are gone
                assert opened.rows("SELECT count(*) FROM _hiqlite_session")[0][0] > 0
                assert opened.rows("SELECT count(*) FROM _hiqlite_run")[0][0] <= 2 * RUNS_KEPT
    assert len(hashes) == 1
