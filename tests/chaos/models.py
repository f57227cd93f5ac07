"""The objects that clients work on: register, counter, append list, bank, as SQL gives them, and a member's role.

A model is made of all operations on one object, and may draw conclusions from them that hold in every order, so that
the search is short. Every value written is unique, save a role.

- Register: read, write(value), cas(expected, value) -> whether it matched. A missing one is None.
- Counter: add(1) -> the sum after it; read. A missing one is 0.
- List: append(value); read -> all values in order. Lists only grow and reads give the whole list, so the longest read
  says where each value stands: the state is how many values are in. What the longest read lacks comes after it.
- Bank: transfer(id, source, target, amount) -> whether the source had enough; read -> (balances, ids of all transfers
  in order). A list of transfers, where each read's balances are what its transfers lead to.
- Role: of one node; a change of members is a cas from one role to the other. All begin as voters.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from .linearizable import ILLEGAL, Illegal, Model, State
from .operations import Operation

ACCOUNTS = 4
OPENING_BALANCE = 100


class Conflict(Exception):
    """Answers that no order explains, seen without a search."""

    def __init__(self, text: str, *operations: Operation) -> None:
        super().__init__(text)
        self.operations = operations


class Register:
    """State: the value."""

    initial: State = None

    def __init__(self, operations: Sequence[Operation] = ()) -> None:
        """Nothing is concluded from the operations as a whole; `needed` does what can be done."""

    def step(self, state: State, operation: Operation) -> State | Illegal:
        if operation.call == "read":
            return state if operation.result == state else ILLEGAL
        after: State = written(operation)
        if operation.call == "write":
            return after
        matches = state == operation.argument[0]
        if operation.result is False:
            return ILLEGAL if matches else state
        return after if matches else ILLEGAL


class Role(Register):
    """State: the role."""

    initial: State = "voter"


class Counter:
    """State: the sum."""

    initial: State = 0

    def __init__(self, operations: Sequence[Operation] = ()) -> None:
        """Nothing is concluded from the operations as a whole."""

    def step(self, state: State, operation: Operation) -> State | Illegal:
        assert isinstance(state, int)
        if operation.call == "read":
            return state if operation.result == state else ILLEGAL
        after = state + operation.argument[0]
        return after if not operation.known or operation.result == after else ILLEGAL


class AppendList:
    """State: how many values are in.

    Raises:
        Conflict: reads that disagree about the order, or that give a value twice.
    """

    initial: State = 0

    def __init__(self, operations: Sequence[Operation]) -> None:
        reads = [operation for operation in operations if operation.call == "read" and operation.known]
        longest = max(reads, key=lambda read: len(values_of(read)), default=None)
        self.order = values_of(longest) if longest is not None else ()
        self.place = {value: at for at, value in enumerate(self.order)}
        if longest is not None and len(self.place) != len(self.order):
            raise Conflict("a value is there twice", longest)
        for read in reads:
            if values_of(read) != self.order[: len(values_of(read))]:
                assert longest is not None
                raise Conflict("one read is not the beginning of the other", read, longest)

    def step(self, state: State, operation: Operation) -> State | Illegal:
        assert isinstance(state, int)
        if operation.call == "read":
            return state if len(values_of(operation)) == state else ILLEGAL
        return self._append(state, operation.argument[0])

    def _append(self, state: int, value: object) -> State | Illegal:
        here = self.place.get(value)
        if here is None:
            here = max(state, len(self.order))
        return state + 1 if here == state else ILLEGAL


class Bank(AppendList):
    """State: how many transfers were made, and the balances.

    Raises:
        Conflict: also for balances that the transfers do not lead to, and for transfers without cover.
    """

    initial: State = (0, (OPENING_BALANCE,) * ACCOUNTS)

    def __init__(self, operations: Sequence[Operation]) -> None:
        super().__init__(operations)
        transfers = {one.argument[0]: one for one in operations if one.call == "transfer" and one.result is not False}
        balances = [OPENING_BALANCE] * ACCOUNTS
        self.balances = [tuple(balances)]
        for number in self.order:
            transfer = transfers.get(number)
            if transfer is None:
                raise Conflict(f"transfer {number} was seen and never made", *self._first_with(number, operations))
            _, source, target, amount = transfer.argument
            if balances[source] < amount:
                raise Conflict("a transfer without cover", transfer, *self._first_with(number, operations))
            balances[source] -= amount
            balances[target] += amount
            self.balances.append(tuple(balances))
        for read in operations:
            if read.call == "read" and read.known:
                self.check_balances(read)

    def check_balances(self, read: Operation) -> None:
        """Raises Conflict unless the read's balances are what its transfers lead to; so their total is constant."""
        if read.result[0] != self.balances[len(values_of(read))]:
            raise Conflict("balances that the transfers do not lead to", read)

    def _first_with(self, number: object, operations: Sequence[Operation]) -> list[Operation]:
        return [one for one in operations if one.call == "read" and one.known and number in values_of(one)][:1]

    def step(self, state: State, operation: Operation) -> State | Illegal:
        assert isinstance(state, tuple)
        count, balances = state
        if operation.call == "read":
            return state if len(values_of(operation)) == count else ILLEGAL
        number, source, target, amount = operation.argument
        covered = balances[source] >= amount
        if operation.result is False:
            return ILLEGAL if covered else state
        after = self._append(count, number)
        if after is ILLEGAL or not covered:
            return ILLEGAL
        moved = list(balances)
        moved[source] -= amount
        moved[target] += amount
        return after, tuple(moved)


FAMILIES: dict[str, type[Register] | type[Counter] | type[AppendList]] = {
    "register": Register, "counter": Counter, "list": AppendList, "bank": Bank, "role": Role,
}  # fmt: skip

UNNAMED = ("counter", "role")  # families whose writes cannot be told from each other by what is read


def needed(family: str, operations: Sequence[Operation]) -> list[Operation]:
    """The operations that the search has to order.

    Left out: what was not applied, reads without an answer, and writes of unknown outcome that nothing speaks for:
    those whose value nobody saw, unless they may be why a later cas failed, or a later transfer was refused or had
    cover that nobody saw.
    """
    sought = [one for one in operations if one.known or (one.outcome != "not_applied" and one.call != "read")]
    if family in UNNAMED:
        return sought
    seen: set[object] = set()
    for one in sought:
        if one.call == "cas":
            seen.add(one.argument[0])
        elif one.call == "read":
            seen.update([one.result] if family == "register" else values_of(one))
    puzzles = [
        one.returned
        for one in sought
        if one.known and (one.result is False or (one.call == "transfer" and one.argument[0] not in seen))
    ]
    last = max(puzzles, default=-1)
    return [one for one in sought if one.known or written(one) in seen or (family != "list" and one.invoked <= last)]


def values_of(read: Operation) -> tuple[object, ...]:
    """What a read of a list or a bank saw, in order."""
    values: tuple[object, ...] = read.result[1] if read.family == "bank" else read.result
    return values


def written(operation: Operation) -> Hashable:
    """The unique value that a write of a register, list or bank brings in."""
    value: Hashable = operation.argument[1 if operation.call == "cas" else 0]
    return value


def model_of(family: str, operations: Sequence[Operation]) -> Model:
    """Raises Conflict when the answers contradict each other at sight."""
    return FAMILIES[family](operations)
