"""The checker against brute force: on small random histories both say the same."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations, permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.chaos.models import ACCOUNTS, OPENING_BALANCE
from tests.chaos.operations import NEVER, OK, UNKNOWN, Operation
from tests.chaos.verdict import judge_object

FAMILIES = ("register", "counter", "list", "bank", "role")
State = dict[str, object]


class PlainObject:
    """The objects again, as plainly as possible: what one call does to them and gives."""

    def __init__(self) -> None:
        self.value: int | None = None
        self.role = "voter"
        self.total = 0
        self.rows: list[int] = []
        self.balances = [OPENING_BALANCE] * ACCOUNTS

    def call(self, family: str, call: str, argument: tuple[object, ...]) -> object:
        match family, call:
            case "register", "read":
                return self.value
            case "register", "write":
                self.value = argument[0]
                return None
            case "register", "cas":
                if self.value != argument[0]:
                    return False
                self.value = argument[1]
                return True
            case "role", "read":
                return self.role
            case "role", "cas":
                if self.role != argument[0]:
                    return False
                self.role = argument[1]
                return True
            case "counter", "read":
                return self.total
            case "counter", "add":
                self.total += argument[0]
                return self.total
            case "list", "read":
                return tuple(self.rows)
            case "list", "append":
                self.rows.append(argument[0])
                return None
            case "bank", "read":
                return tuple(self.balances), tuple(self.rows)
            case "bank", "transfer":
                number, source, target, amount = argument
                if self.balances[source] < amount:
                    return False
                self.balances[source] -= amount
                self.balances[target] += amount
                self.rows.append(number)
                return True
        raise ValueError(call)


def orders(operations: Sequence[Operation]) -> Iterator[tuple[Operation, ...]]:
    """Every order of all known operations and of any of the unknown ones that keeps what ended before what began."""
    known = [one for one in operations if one.known]
    unknown = [one for one in operations if not one.known and one.call != "read"]
    for count in range(len(unknown) + 1):
        for some in combinations(unknown, count):
            for order in permutations([*known, *some]):
                if all(later.returned >= one.invoked for at, one in enumerate(order) for later in order[at:]):
                    yield order


def explains(order: Sequence[Operation]) -> bool:
    thing = PlainObject()
    for one in order:
        result = thing.call(one.family, one.call, one.argument)
        if one.known and result != one.result:
            return False
    return True


def brute_force(operations: Sequence[Operation]) -> bool:
    return any(explains(order) for order in orders(operations))


def random_call(chance: random.Random, family: str, number: int) -> tuple[str, tuple[object, ...]]:
    if chance.random() < 0.4:
        return "read", ()
    if family == "register":
        if chance.random() < 0.5:
            return "cas", (chance.randint(1, max(1, number)), 100 + number)
        return "write", (number,)
    if family == "role":
        return "cas", chance.choice((("voter", "learner"), ("learner", "voter")))
    if family == "counter":
        return "add", (1,)
    if family == "list":
        return "append", (number,)
    source, target = chance.sample(range(ACCOUNTS), 2)
    return "transfer", (number, source % 2, target, chance.choice((10, 60, 90)))


def random_history(chance: random.Random, family: str, size: int) -> list[Operation]:
    """A history of a real object: each call takes effect at a moment inside its span, or, if unknown, perhaps never."""
    planned = []
    for number in range(1, size + 1):
        begin = chance.randint(0, 12)
        planned.append((chance.uniform(begin, begin + chance.randint(1, 8)), begin, number))
    thing = PlainObject()
    history = []
    for moment, begin, number in sorted(planned):
        call, argument = random_call(chance, family, number)
        unknown = chance.random() < 0.25
        if unknown and chance.random() < 0.5:
            history.append(Operation(family, "k", call, argument, None, begin, NEVER, UNKNOWN))
            continue
        result = thing.call(family, call, argument)
        end = int(moment) + 1 + chance.randint(0, 4)
        if unknown:
            history.append(Operation(family, "k", call, argument, None, begin, NEVER, UNKNOWN))
        else:
            history.append(Operation(family, "k", call, argument, result, begin, end, OK))
    return history


def spoiled(chance: random.Random, history: list[Operation]) -> list[Operation]:
    """The history with one thing changed; it may be right all the same."""
    at = chance.randrange(len(history))
    one = history[at]
    others = [other for other in history if other.family == one.family and other.call == one.call and other.known]
    match chance.randint(0, 3):
        case 0:
            changed = replace(one, result=chance.choice(others).result if one.known else None)
        case 1:
            changed = replace(one, invoked=one.invoked + 20, returned=max(one.returned, one.invoked + 21))
        case 2 if one.known:
            changed = replace(one, invoked=-2, returned=-1)
        case _:
            return history[:at] + history[at + 1 :]
    return [*history[:at], changed, *history[at + 1 :]]


@pytest.mark.parametrize("family", FAMILIES)
@settings(deadline=None, max_examples=250)
@given(seed=st.integers(0, 1 << 60), size=st.integers(1, 6), spoils=st.integers(0, 2))
def test_the_checker_agrees_with_brute_force(family: str, seed: int, size: int, spoils: int) -> None:
    """On real histories, and on ones where an answer, a time or an operation was changed."""
    chance = random.Random(seed)
    history = random_history(chance, family, size)
    for _ in range(spoils):
        history = spoiled(chance, history) if history else history
    expected = brute_force(history)
    assert expected or spoils, "the generator of right histories is wrong"
    violation = judge_object(family, history)
    assert (violation is None) == expected, "\n".join(map(str, history))
    if violation is not None:
        assert not brute_force(violation.operations), "the operations that are shown do not contradict each other"


@pytest.mark.parametrize("family", FAMILIES)
def test_random_histories_are_both_right_and_wrong(family: str) -> None:
    """Else the comparison above would compare nothing: of spoiled ones a fair part is wrong, a fair part right."""
    wrong = 0
    for seed in range(200):
        chance = random.Random(seed)
        wrong += judge_object(family, spoiled(chance, random_history(chance, family, 6))) is not None
    assert 20 <= wrong <= 180
