"""The verdict on a history: what of it no order explains, with the fewest operations that show it.

Each object is judged on its own; a history of objects is linearizable exactly if each object's part is (Herlihy and
Wing, "Linearizability", 1990).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise

from .linearizable import Undecided, is_linearizable
from .local_reads import check_local_reads
from .models import UNNAMED, Conflict, model_of, needed, values_of, written
from .operations import NEVER, NOT_APPLIED, UNKNOWN, Belief, Operation

SHRINK_LIMIT = 20_000  # configurations of one trial of the shrinking
# A group that begins anew begins millions of indexes further, and its terms begin anew as well.
ANEW = 1 << 22


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was broken."""

    text: str
    operations: tuple[Operation, ...] = ()

    def __str__(self) -> str:
        return "\n    ".join([self.text, *map(str, self.operations)])


def judge(operations: Sequence[Operation]) -> list[Violation]:
    """At most one violation of each object."""
    found = []
    by_object = sorted(operations, key=lambda one: (one.family, one.key, one.invoked))
    for (family, key), part in groupby(by_object, key=lambda one: (one.family, one.key)):
        violation = judge_object(family, list(part))
        if violation is not None:
            found.append(replace(violation, text=f"{family} {key}: {violation.text}"))
    return found


def judge_object(family: str, operations: Sequence[Operation]) -> Violation | None:
    """What is wrong with the operations on one object."""
    try:
        if family == "token":
            _check_tokens(operations)
            return None
        _check_refused(family, operations)
        strict = [one for one in operations if not one.local]
        sought = needed(family, strict)
        model = model_of(family, sought)
        if not is_linearizable(model, sought):
            return Violation("no order explains these answers", _fewest(family, sought))
        check_local_reads(family, operations, model)
    except Conflict as conflict:
        return Violation(str(conflict), conflict.operations)
    except Undecided as undecided:
        return Violation(f"not decided: {undecided}")
    return None


def _check_refused(family: str, operations: Sequence[Operation]) -> None:
    """What was said to be not applied is never seen. (A counter's sums and a node's roles tell it by themselves.)"""
    if family in UNNAMED:
        return
    refused = {written(one): one for one in operations if one.outcome == NOT_APPLIED and one.call != "read"}
    for read in operations:
        if read.call == "read" and read.known:
            for value in [read.result] if family == "register" else values_of(read):
                if value in refused:
                    raise Conflict("a write that was said to be not applied is seen", read, refused[value])


def _check_tokens(operations: Sequence[Operation]) -> None:
    """Indexes of the cache group's log: whoever asks after another one was answered gets a higher one.

    For ever, also where all nodes forget the group and it begins anew.
    """
    known = [one for one in operations if one.known]
    returned = sorted(known, key=lambda one: one.returned)
    highest, at = None, 0
    for one in sorted(known, key=lambda one: one.invoked):
        while at < len(returned) and returned[at].returned < one.invoked:
            if highest is None or returned[at].result > highest.result:
                highest = returned[at]
            at += 1
        if highest is not None and one.result <= highest.result:
            raise Conflict("an index does not follow one that was given before", highest, one)
    by_index = sorted(known, key=lambda one: int(one.result))
    for one, other in pairwise(by_index):
        if one.result == other.result:
            raise Conflict("an index was given twice", one, other)


def _fewest(family: str, operations: Sequence[Operation]) -> tuple[Operation, ...]:
    """Few operations that already contradict each other: the shortest beginning, then without what is not needed.

    Only what cannot create a contradiction by its absence is left out: observers, and a register's writes that nobody
    saw where no cas failed.
    """
    kept = _shortest_beginning(family, sorted(operations, key=lambda one: one.invoked))
    before = 0
    while before != len(kept):  # a write may be left out once its readers are
        before = len(kept)
        for one in list(kept):
            rest = [other for other in kept if other is not one]
            if _may_be_left_out(family, one, rest) and _contradicts(family, rest):
                kept = rest
    return tuple(kept)


def _shortest_beginning(family: str, operations: list[Operation]) -> list[Operation]:
    returns = sorted(one.returned for one in operations if one.known)
    low, high = 0, len(returns) - 1
    while low < high:
        middle = (low + high) // 2
        if _contradicts(family, _until(operations, returns[middle])):
            high = middle
        else:
            low = middle + 1
    shortest = _until(operations, returns[high])
    return shortest if _contradicts(family, shortest) else operations


def _until(operations: Sequence[Operation], moment: int) -> list[Operation]:
    """What was known at a moment: calls that had not returned are of unknown outcome."""
    return [
        one if one.returned <= moment else replace(one, outcome=UNKNOWN, result=None, returned=NEVER)
        for one in operations
        if one.invoked <= moment and (one.returned <= moment or (one.call != "read" and one.result is not False))
    ]


def _may_be_left_out(family: str, one: Operation, rest: Sequence[Operation]) -> bool:
    if not one.changes:
        return True
    if family != "register" or any(other.call == "cas" for other in rest):
        return False
    return all(other.result != written(one) for other in rest if other.call == "read")


def _contradicts(family: str, operations: Sequence[Operation]) -> bool:
    try:
        sought = needed(family, operations)
        return not is_linearizable(model_of(family, sought), sought, SHRINK_LIMIT)
    except Conflict:
        return True
    except Undecided:
        return False


def judge_beliefs(beliefs: Sequence[Belief]) -> list[Violation]:
    """Election safety as seen from outside: at most one node calls itself leader of a term of a group."""
    leaders: dict[tuple[str, int], list[Belief]] = {}
    found = []
    for belief in beliefs:
        if belief.role != "leader":
            continue
        others = leaders.setdefault((belief.group, belief.term), [])
        for other in others:
            if other.node != belief.node and abs(other.last_index - belief.last_index) < ANEW:
                text = f"{belief.group}: term {belief.term} had two leaders, {other.node} and {belief.node}"
                found.append(Violation(text))
                break
        others.append(belief)
    return found
