"""The checker of histories on histories that are known to be right, and on those known to be wrong in each way."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.linearizable import Undecided, is_linearizable
from tests.chaos.models import Register
from tests.chaos.operations import NEVER, NOT_APPLIED, OK, UNKNOWN, Belief, Operation, read_record
from tests.chaos.verdict import judge, judge_beliefs

B0 = (100, 100, 100, 100)


def op(
    family: str, call: str, argument: tuple[Any, ...], span: tuple[int, ...], result: object = None, **more: Any
) -> Operation:
    """A call in `span`; without a result it is a write that only says "done"."""
    outcome = more.get("outcome", OK)
    returned = NEVER if outcome == UNKNOWN else span[1]
    return Operation(family, "k", call, argument, result, span[0], returned, **more)


def write(value: int, *span: int, **more: Any) -> Operation:
    return op("register", "write", (value,), span, **more)


def read(value: int | None, *span: int, **more: Any) -> Operation:
    return op("register", "read", (), span, value, **more)


def cas(expected: int, value: int, matched: bool | None, *span: int, **more: Any) -> Operation:
    return op("register", "cas", (expected, value), span, matched, **more)


def add(after: int | None, *span: int, **more: Any) -> Operation:
    return op("counter", "add", (1,), span, after, **more)


def total(value: int, *span: int, **more: Any) -> Operation:
    return op("counter", "read", (), span, value, **more)


def append(value: int, *span: int, **more: Any) -> Operation:
    return op("list", "append", (value,), span, **more)


def rows(values: list[int], *span: int, **more: Any) -> Operation:
    return op("list", "read", (), span, tuple(values), **more)


def transfer(
    number: int, source: int, target: int, amount: int, done: bool | None, *span: int, **more: Any
) -> Operation:
    return op("bank", "transfer", (number, source, target, amount), span, done, **more)


def bank(balances: tuple[int, ...], transfers: list[int], *span: int, **more: Any) -> Operation:
    return op("bank", "read", (), span, (balances, tuple(transfers)), **more)


RIGHT = {
    "nothing": [],
    "one after the other": [read(None, 0, 1), write(1, 2, 3), read(1, 4, 5), cas(1, 2, True, 6, 7), read(2, 8, 9)],
    "a read beside a write sees the old value": [write(1, 0, 1), write(2, 2, 9), read(1, 3, 4)],
    "a read beside a write sees the new value": [write(1, 0, 1), write(2, 2, 9), read(2, 3, 4)],
    "two writes at once, in the order that the reads tell": [write(1, 0, 9), write(2, 0, 9), read(2, 10, 11)],
    "a write of unknown outcome that happens late": [
        write(1, 0, 1), write(2, 2, 3, outcome=UNKNOWN), read(1, 4, 5), read(2, 6, 7),
    ],
    "a write of unknown outcome that never happens": [write(1, 0, 1), write(2, 2, 3, outcome=UNKNOWN), read(1, 4, 5)],
    "a cas that fails because of a write that nobody saw": [
        write(1, 0, 1), write(2, 2, 3, outcome=UNKNOWN), cas(1, 3, False, 4, 5), write(4, 6, 7),
    ],
    "a cas that fails on nothing": [cas(1, 2, False, 0, 1), read(None, 2, 3)],
    "a cas of unknown outcome upon a write of unknown outcome": [
        write(1, 0, 1, outcome=UNKNOWN), cas(1, 2, None, 2, 3, outcome=UNKNOWN), read(2, 4, 5),
    ],
    "a write that was not applied and is not seen": [
        write(1, 0, 1), write(2, 2, 3, outcome=NOT_APPLIED), read(1, 4, 5),
    ],
    "sums": [add(1, 0, 1), add(3, 2, 9), add(2, 2, 9), total(3, 10, 11)],
    "a sum that needs one of two unknown additions": [
        add(None, 0, 1, outcome=UNKNOWN), add(None, 0, 1, outcome=UNKNOWN), add(2, 2, 3),
        total(2, 4, 5), total(3, 6, 7),
    ],
    "appends at once": [append(1, 0, 9), append(2, 0, 9), rows([2], 3, 4), rows([2, 1], 10, 11)],
    "an append after the longest read": [append(1, 0, 1), rows([1], 2, 3), append(2, 4, 5), append(3, 4, 5)],
    "an unknown append that is seen late": [
        append(1, 0, 1, outcome=UNKNOWN), append(2, 2, 3), rows([2], 4, 5), rows([2, 1], 6, 7),
    ],
    "an old local read": [
        append(1, 0, 1, life=1), append(2, 2, 3, life=1), rows([1, 2], 4, 5), rows([1], 6, 7, local=True, life=2),
    ],
    "a local read of what no linearizable read saw yet": [
        append(1, 0, 1), rows([1], 2, 3), append(2, 4, 5), append(3, 6, 7), rows([1, 3, 2], 8, 9, local=True),
    ],
    "a local read of transfers that no linearizable read saw yet": [
        transfer(1, 0, 1, 80, True, 0, 1), bank((20, 180, 100, 100), [1], 2, 3, local=True),
    ],
    "a local read of a register": [
        write(1, 0, 1), write(2, 2, 3), read(1, 4, 5, local=True), read(None, 4, 5, local=True),
    ],
    "transfers": [
        transfer(1, 0, 1, 80, True, 0, 1), transfer(2, 0, 1, 80, False, 2, 3), bank((20, 180, 100, 100), [1], 4, 5),
    ],
    "a transfer that is refused between two others": [
        transfer(1, 0, 1, 80, True, 0, 1), transfer(2, 0, 1, 80, False, 2, 9), transfer(3, 1, 0, 90, True, 2, 9),
        bank((110, 90, 100, 100), [1, 3], 10, 11), bank(B0, [], 10, 11, local=True, life=9),
    ],
    "a transfer of unknown outcome that happened": [
        transfer(1, 0, 1, 5, None, 0, 1, outcome=UNKNOWN), bank(B0, [], 2, 3), bank((95, 105, 100, 100), [1], 4, 5),
    ],
}  # fmt: skip

WRONG = {
    "a stale read": [write(1, 0, 1), write(2, 2, 3), read(1, 4, 5)],
    "a stale read of nothing": [write(1, 0, 1), read(None, 2, 3)],
    "a read that goes back": [write(1, 0, 1), write(2, 2, 9), read(2, 3, 4), read(1, 5, 6)],
    "a lost write": [write(1, 0, 1), write(2, 2, 3), read(1, 4, 5), read(1, 6, 7)],
    "a lost update of cas": [write(1, 0, 1), cas(1, 2, True, 2, 9), cas(1, 3, True, 2, 9)],
    "a cas that matched what was gone": [write(1, 0, 1), write(2, 2, 3), cas(1, 3, True, 4, 5)],
    "a cas that fails for no reason": [write(1, 0, 1), cas(1, 2, False, 2, 3), read(1, 4, 5)],
    "a value that nobody wrote": [write(1, 0, 1), read(7, 2, 3)],
    "a value from the future": [read(1, 0, 1), write(1, 2, 3)],
    "an unknown write seen before it was made": [read(1, 0, 1), write(1, 2, 3, outcome=UNKNOWN)],
    "an unknown write that happens twice": [
        write(1, 0, 1, outcome=UNKNOWN), read(1, 2, 3), write(2, 4, 5), read(2, 6, 7), read(1, 8, 9),
    ],
    "a read of a write that was not applied": [write(1, 0, 1), write(2, 2, 3, outcome=NOT_APPLIED), read(2, 4, 5)],
    "a local read of a write that was not applied": [write(2, 2, 3, outcome=NOT_APPLIED), read(2, 4, 5, local=True)],
    "a local read from the future": [read(1, 0, 1, local=True), write(1, 2, 3)],
    "a lost addition": [add(1, 0, 1), add(2, 2, 3), total(1, 4, 5)],
    "two additions with one sum": [add(1, 0, 9), add(1, 0, 9)],
    "an addition that was applied twice": [add(1, 0, 1), add(2, 2, 3), total(3, 4, 5)],
    "an unknown addition that was applied twice": [add(None, 0, 1, outcome=UNKNOWN), total(1, 2, 3), total(2, 4, 5)],
    "a sum before its additions": [total(1, 0, 1), add(1, 2, 3)],
    "an addition that was not applied and counts": [add(None, 0, 1, outcome=NOT_APPLIED), total(1, 2, 3)],
    "a lost append": [append(1, 0, 1), append(2, 2, 3), rows([2], 4, 5)],
    "an append that was applied twice": [append(1, 0, 1), rows([1, 1], 2, 3)],
    "appends out of order": [append(1, 0, 1), append(2, 2, 3), rows([2, 1], 4, 5)],
    "reads that disagree about the order": [
        append(1, 0, 9), append(2, 0, 9), rows([2, 1], 10, 11), rows([1, 2], 10, 11),
    ],
    "an append that is gone again": [append(1, 0, 1, outcome=UNKNOWN), rows([1], 2, 3), rows([], 4, 5)],
    "a row that nobody wrote": [append(1, 0, 1), rows([1, 9], 2, 3)],
    "a dirty read: an append that was not applied": [
        append(1, 0, 1, outcome=NOT_APPLIED), rows([1], 2, 3), rows([], 4, 5),
    ],
    "a local read of another order": [
        append(1, 0, 9), append(2, 0, 9), rows([2, 1], 10, 11), rows([1], 12, 13, local=True),
    ],
    "a local read that lacks an own write": [
        append(1, 0, 1, life=1), rows([], 2, 3, local=True, life=1), rows([1], 2, 3),
    ],
    "a local read of what is gone afterwards": [
        append(1, 0, 1, outcome=UNKNOWN), rows([1], 2, 3, local=True), rows([], 4, 5),
    ],
    "a long local read of another order": [
        append(1, 0, 9), append(2, 0, 9), rows([2], 10, 11), rows([1, 2], 8, 13, local=True),
    ],
    "local reads that go back": [
        append(1, 0, 1), rows([1], 2, 3), rows([1], 4, 5, local=True, life=2), rows([], 6, 7, local=True, life=2),
    ],
    "a local read behind a linearizable one of its node": [
        append(1, 0, 1), rows([1], 2, 3, life=2), rows([], 4, 5, local=True, life=2),
    ],
    "a local sum that goes back": [add(1, 0, 1, life=1), total(0, 2, 3, local=True, life=1)],
    "write skew: two transfers that the balance does not cover": [
        transfer(1, 0, 1, 80, True, 0, 9), transfer(2, 0, 1, 80, True, 0, 9),
        bank((-60, 260, 100, 100), [1, 2], 10, 11),
    ],
    "a total that is not constant": [transfer(1, 0, 1, 80, True, 0, 1), bank((20, 100, 100, 100), [1], 2, 3)],
    "a local snapshot between the halves of a transfer": [
        transfer(1, 0, 1, 80, True, 0, 1), bank((20, 180, 100, 100), [1], 2, 3),
        bank((20, 100, 100, 100), [], 0, 1, local=True),
    ],
    "a refusal for no reason": [transfer(1, 0, 1, 80, False, 0, 1), bank(B0, [], 2, 3)],
    "a transfer that was refused and is seen": [
        transfer(1, 0, 1, 80, False, 0, 1), bank((20, 180, 100, 100), [1], 2, 3),
    ],
    "a lost transfer": [transfer(1, 0, 1, 5, True, 0, 1), bank(B0, [], 2, 3)],
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_history_is_accepted(name: str) -> None:
    """Each of these has an order."""
    assert [str(violation) for violation in judge(RIGHT[name])] == []


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_history_is_refused(name: str) -> None:
    """None of these has one; exactly one violation is found, and it names operations."""
    (violation,) = judge(WRONG[name])
    assert violation.operations
    assert "not decided" not in violation.text


def test_objects_are_judged_apart() -> None:
    """A wrong object among right ones is named."""
    wrong = [replace(one, key="other") for one in WRONG["a lost append"]]
    (violation,) = judge([*RIGHT["appends at once"], *wrong, *RIGHT["sums"]])
    assert violation.text.startswith("list other:")


def test_a_conflict_is_shown_with_few_operations() -> None:
    """Of a hundred writes and reads only those remain that contradict each other."""
    history = []
    for number in range(1, 100):
        history += [write(number, 10 * number, 10 * number + 1), read(number, 10 * number + 2, 10 * number + 3)]
    history.append(read(60, 5000, 5001))
    (violation,) = judge(history)
    assert len(violation.operations) <= 4
    assert history[-1] in violation.operations


def test_many_writes_of_unknown_outcome_are_searched_quickly() -> None:
    """Thirty that nobody saw, some that somebody saw late, and four clients at work: within few configurations."""
    history = [write(1000 + number, number, number, outcome=UNKNOWN) for number in range(30)]
    for number in range(100):
        begin = 100 * (number + 1)
        history += [write(10 * number + client, begin, begin + 50) for client in range(4)]
        seen = 1000 + number if number < 10 else 10 * number + number % 4
        history += [read(seen, begin + 60, begin + 70)]
    assert is_linearizable(Register(), history, 20_000)
    assert judge(history) == []


def test_a_search_that_is_too_long_is_given_up_and_said() -> None:
    """It counts as a violation: nobody knows that there is none."""
    history = [write(number, 0, 100, outcome=OK) for number in range(12)] + [read(99, 200, 201)]
    with pytest.raises(Undecided):
        is_linearizable(Register(), history, 100)


def test_two_leaders_of_one_term_are_found() -> None:
    """One may lead several terms, and follow in that of another; two may not call themselves leader of the same."""
    right = [Belief(1, 1, 1, 3, 1, "leader"), Belief(2, 2, 2, 3, 1, "follower"), Belief(3, 2, 2, 4, 2, "leader")]
    assert judge_beliefs(right) == []
    (violation,) = judge_beliefs([*right, Belief(4, 3, 3, 4, 3, "leader")])
    assert "term 4" in violation.text


def test_a_record_that_was_cut_by_a_kill_is_read(tmp_path: Path) -> None:
    """A call without an end is of unknown outcome, a half line does not count, lists become tuples."""
    file = tmp_path / "record"
    call = {"n": 1, "f": "list", "k": "a", "l": False}
    lines = [
        {"o": 1, **call, "c": "append", "a": [5], "t": 10},
        {"o": 2, **call, "c": "read", "a": [], "t": 11},
        {"g": "db", "term": 2, "leader": 1, "role": "leader", "i": 3, "n": 1, "t": 12},
        {"o": 2, "x": OK, "r": [[5]], "t": 13},
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"o": 3, "n"')
    record = read_record([(7, file), (8, tmp_path / "absent")])
    unknown, seen = record.operations
    assert (unknown.outcome, unknown.returned, unknown.life) == (UNKNOWN, NEVER, 7)
    assert (seen.outcome, seen.result, seen.returned) == (OK, ((5,),), 13)
    assert record.beliefs == [Belief(12, 1, 7, 2, 1, "leader", "db", 3)]
