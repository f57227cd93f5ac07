"""Whether operations on one object can be put in an order that explains every answer: linearizability.

The search is that of Wing and Gong with Lowe's memory of configurations ("Testing for linearizability", 2017). A
configuration is the set of operations that were put in order so far, and the state they lead to. The next one may be
any whose call began before the first return among those left. An operation of unknown outcome never returns: it may
take its place at any time, or never. Three shortcuts, all exact:

- An operation that leaves the state as it is (a read) is put in order as soon as it may be and its answer fits: if it
  fits later in some order, that order is as good with it here.
- Of operations of unknown outcome that do the same, the one that began first goes first.
- After one of unknown outcome that no answer has shown yet, nothing is tried that would lead to the same state without
  it: the same order without that operation is as good.

Must not know what the objects are: a model says what an operation does to a state.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol

from .operations import Operation


class Illegal(Enum):
    """The answer of a model whose state does not explain the operation's result."""

    ILLEGAL = "illegal"


ILLEGAL: Final = Illegal.ILLEGAL
CONFIGURATIONS_MAX = 1_000_000

State = Hashable


class Model(Protocol):
    """What an object is and does."""

    initial: State

    def step(self, state: State, operation: Operation) -> State | Illegal:
        """The state after the operation, or ILLEGAL. One of unknown outcome: the state after it took effect."""


class Undecided(Exception):
    """The search was given up: too many configurations."""


@dataclass(slots=True)
class _Frame:
    """A configuration on the way: the bit set of what is in order, and where to go from there."""

    required: int
    untried: Iterator[_Step]


@dataclass(slots=True)
class _Step:
    """A configuration to go to. `idle`: it was reached by an operation of unknown outcome, from the state `since`."""

    required: int
    optional: int
    state: State
    idle: bool = False
    since: State = None


def is_linearizable(model: Model, operations: Sequence[Operation], limit: int = CONFIGURATIONS_MAX) -> bool:
    """Whether an order exists. Operations that were not applied, and reads without an answer, must not be among them.

    Raises:
        Undecided: more than `limit` configurations.
    """
    return _Search(model, operations).run(limit)


class _Search:
    def __init__(self, model: Model, operations: Sequence[Operation]) -> None:
        self._model = model
        in_time = sorted(operations, key=lambda operation: operation.invoked)
        self._required = [operation for operation in in_time if operation.known]
        self._optional = [operation for operation in in_time if not operation.known]
        self._observes = [not operation.changes for operation in self._required]
        # The one before it that does the same: as long as that one is free, this one need not be tried.
        latest: dict[tuple[str, Hashable], int] = {}
        self._same_before: list[int | None] = []
        for number, operation in enumerate(self._optional):
            self._same_before.append(latest.get((operation.call, operation.argument)))
            latest[operation.call, operation.argument] = number

    def run(self, limit: int) -> bool:
        everything = (1 << len(self._required)) - 1
        seen: set[tuple[int, int, State]] = set()
        stack = [self._frame(_Step(0, 0, self._model.initial))]
        while stack:
            if stack[-1].required == everything:
                return True
            step = next(stack[-1].untried, None)
            if step is None:
                stack.pop()
                continue
            configuration = (step.required, step.optional, step.state)
            if configuration in seen:
                continue
            seen.add(configuration)
            if len(seen) > limit:
                raise Undecided(f"more than {limit} configurations")
            stack.append(self._frame(step))
        return False

    def _frame(self, step: _Step) -> _Frame:
        required = self._settle(step.required, step.state)
        step.idle = step.idle and required == step.required
        return _Frame(required, self._next(required, step))

    def _candidates(self, required: int) -> tuple[list[int], int]:
        """The required operations that may come next, and the moment before which an operation had to begin."""
        found: list[int] = []
        first_return = 1 << 63
        number = (~required & (required + 1)).bit_length() - 1  # the lowest one that is left
        operations = self._required
        while number < len(operations) and operations[number].invoked <= first_return:
            if not required >> number & 1:
                found.append(number)
                first_return = min(first_return, operations[number].returned)
            number += 1
        return found, first_return

    def _settle(self, required: int, state: State) -> int:
        """Puts every operation in order that may come next, fits, and leaves the state as it is."""
        while True:
            before = required
            for number in self._candidates(required)[0]:
                if self._observes[number] and self._model.step(state, self._required[number]) == state:
                    required |= 1 << number
            if required == before:
                return required

    def _next(self, required: int, here: _Step) -> Iterator[_Step]:
        step, state, optional = self._model.step, here.state, here.optional
        candidates, first_return = self._candidates(required)
        for number in candidates:
            if self._observes[number]:
                continue  # it did not fit, else it would be in order
            operation = self._required[number]
            after = step(state, operation)
            if after is not ILLEGAL and not (here.idle and step(here.since, operation) == after):
                yield _Step(required | 1 << number, optional, after)
        for number, operation in enumerate(self._optional):  # last: most of them explain nothing
            if operation.invoked > first_return:
                break
            same = self._same_before[number]
            if optional >> number & 1 or (same is not None and not optional >> same & 1):
                continue
            after = step(state, operation)
            if after is not ILLEGAL and not (here.idle and step(here.since, operation) == after):
                yield _Step(required, optional | 1 << number, after, True, state)
