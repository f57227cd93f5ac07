"""Thesis 6.3, linearizable semantics by sessions: what the replicated state machine keeps of its clients."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hiqlite._accel import answers
from hiqlite._accel.records import Operation, encode_command, seal_records
from hiqlite.errors import SessionExpired
from hiqlite.statemachine.session_record import session_record
from tests.statemachine.apply_harness import Machine, error_of, machine

WINDOW = 4
TTL_NS = 1000
ADD = "INSERT INTO t(a) VALUES ('x')"
CLIENT = 2  # the id of a session is the index of the entry that registered it


def command(sequence: int, *, client: int = CLIENT, low: int = 1, sql: str = ADD) -> bytes:
    """A command with its serial number, and the lowest one whose answer the client still wants."""
    return encode_command(Operation.EXECUTE, [(sql, ())], session=client, sequence=sequence, window_low=low)


def registration() -> bytes:
    return session_record(WINDOW, TTL_NS, TTL_NS)


def applied(made: Machine, *records: bytes, time_ns: int = 1) -> list[bytes]:
    """One run of committed entries, each with the leader's time in it; what they are answered."""
    first = made.applier.applied_index + 1
    sealed = bytearray(b"".join(records))
    seal_records(sealed, 1, first, time_ns, 0, 42)
    assert made.applier.apply_inline(first, first + len(records) - 1, 1, [bytes(sealed)], True)
    assert made.applier.failure is None, made.applier.failure
    return [run.answer(index) for run in made.applier.take() for index in range(run.first, run.last + 1)]


def done_at(answer: bytes) -> int:
    """The index of the entry that did what this answer tells of; 0 stands for its own."""
    return answers.decode_execute(answer, 0).log_index


def expired(answer: bytes) -> bool:
    return answer[1] == 1 and isinstance(error_of(answer), SessionExpired)


def rows(made: Machine) -> int:
    ((count,),) = made.rows("SELECT count(*) FROM t")
    return int(count)


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Machine]:
    """A server with the table t, and one client that is registered."""
    with machine(tmp_path / "a.db") as opened:
        create = encode_command(Operation.EXECUTE, [("CREATE TABLE t(id INTEGER PRIMARY KEY, a)", ())])
        applied(opened, create, registration())
        yield opened


def test_a_command_that_was_executed_is_answered_and_not_executed_again(made: Machine) -> None:
    """6.3: the server "responds immediately without re-executing the request", in this life or a later one."""
    (first,) = applied(made, command(1))
    (again,) = applied(made, command(1))
    made.reopen()
    (restarted,) = applied(made, command(1))
    assert done_at(first) == 0 and done_at(again) == done_at(restarted) == 3 and rows(made) == 1


def test_clients_and_their_commands_are_told_apart(made: Machine) -> None:
    """6.3: "each client with a unique identifier", and each command of it with a serial number of its own."""
    applied(made, registration())
    applied(made, command(1), command(1, client=3), command(2), command(2, client=3))
    assert rows(made) == 4
    applied(made, command(1), command(1, client=3), command(2), command(2, client=3))
    assert rows(made) == 4


def test_commands_may_be_concurrent_and_come_in_any_order(made: Machine) -> None:
    """6.3: the session tracks "a set of sequence number and response pairs", not the newest one alone."""
    applied(made, command(3), command(1))
    assert rows(made) == 2
    given = applied(made, command(1), command(2), command(3))
    assert [done_at(answer) for answer in given] == [4, 0, 3] and rows(made) == 3


def test_answers_that_the_client_has_are_discarded(made: Machine) -> None:
    """6.3: with the lowest number that it has no answer to it lets the others go; they are not executed again."""
    applied(made, command(1), command(2))
    applied(made, command(3, low=3))
    assert all(expired(answer) for answer in applied(made, command(1), command(2)))
    assert done_at(*applied(made, command(3, low=3))) == 5 and rows(made) == 3


def test_a_command_without_a_session_is_an_error_and_not_a_new_client(made: Machine) -> None:
    """6.3: the server cannot know whether it was executed before, so it is not executed."""
    assert expired(*applied(made, command(1, client=1))) and rows(made) == 0


@pytest.mark.parametrize("cut", ["one run", "a run each", "a restart between"])
def test_servers_agree_on_when_a_session_ends(tmp_path: Path, made: Machine, cut: str) -> None:
    """6.3: by the time that the leader gave each entry, whatever their clocks say and however they apply."""
    applied(made, command(1), time_ns=10)
    moments = [(command(1), 10 + TTL_NS), (command(1), 11 + 2 * TTL_NS), (command(2), 11 + 2 * TTL_NS)]
    if cut == "one run":
        given = applied(made, moments[0][0], time_ns=moments[0][1])
        given += applied(made, moments[1][0], moments[2][0], time_ns=moments[1][1])
    else:
        given = []
        for record, time_ns in moments:
            given += applied(made, record, time_ns=time_ns)
            if cut == "a restart between":
                made.reopen()
    assert [expired(answer) for answer in given] == [False, True, True]
    assert done_at(given[0]) == 3 and rows(made) == 1


def test_a_client_that_is_active_keeps_its_session(made: Machine) -> None:
    """6.3: what ends a session is that nothing was heard of it, not its age."""
    for number in range(1, 10):
        (answer,) = applied(made, command(number, low=number), time_ns=number * TTL_NS)
        assert not expired(answer)
    assert rows(made) == 9
