"""What holds for reads of a node's own state, which may be old but never wrong.

In one life of a process: a read that began after another one ended sees no less; it sees everything that was written
through this process and acknowledged before the read began, and everything that a linearizable read on this node saw.
No read sees what was written only after it ended. Lists and banks are seen in the one order that there is, and each
bank as it was between two transfers.

Registers tell no order by their values, so of them only this is asked: the value was written, and not after the read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .models import AppendList, Bank, Conflict, values_of, written
from .operations import NEVER, Operation


def check_local_reads(family: str, operations: Sequence[Operation], model: object) -> None:
    """Checks the local reads among all operations on one object.

    Raises:
        Conflict: the first read found to be wrong, and what it contradicts.
    """
    reads = [one for one in operations if one.local and one.known]
    if not reads:
        return
    if family in ("register", "list", "bank"):
        _check_origin(family, operations, reads)
    if isinstance(model, AppendList):
        strict = [one for one in operations if one.call == "read" and one.known and not one.local]
        last = max(strict, key=lambda one: one.invoked, default=None)
        for read in reads:
            _check_order(model, read, last)
    if family != "register":
        sizes = _sizes(family, model)
        for life in {read.life for read in reads}:
            _check_floor([one for one in operations if one.life == life and one.known], sizes)


def _check_origin(family: str, operations: Sequence[Operation], reads: Sequence[Operation]) -> None:
    writes = {written(one): one for one in operations if one.changes}
    for read in reads:
        seen = [read.result] if family == "register" else values_of(read)
        for value in seen:
            if value is None and family == "register":
                continue
            write = writes.get(value)
            if write is None:
                raise Conflict(f"{value} was seen and never written", read)
            if write.invoked > read.returned:
                raise Conflict("a value was seen before it was written", read, write)


def _check_order(model: AppendList, read: Operation, last: Operation | None) -> None:
    """`last`: the linearizable read that began last; one that began after the local read lacks nothing of it."""
    values, known = values_of(read), len(model.order)
    if values[:known] != model.order[: len(values)]:
        raise Conflict("a local read is not the beginning of what is there", read)
    if len(values) > known:
        if last is not None and last.invoked > read.returned:
            raise Conflict("what a local read saw is gone", read, last)
    elif isinstance(model, Bank):
        model.check_balances(read)


def _sizes(family: str, model: object) -> Callable[[Operation], int]:
    """How much an operation shows to be there: a sum, or a number of values."""
    if family == "counter":
        return lambda one: int(one.result)
    assert isinstance(model, AppendList)
    place = model.place

    def size(one: Operation) -> int:
        if one.call == "read":
            return len(values_of(one))
        return place.get(written(one), -1) + 1 if one.changes else 0

    return size


def _check_floor(operations: Sequence[Operation], size: Callable[[Operation], int]) -> None:
    """`operations` are those of one life: what had returned before a local read began is a floor under it."""
    ended = sorted((one for one in operations if one.returned != NEVER), key=lambda one: one.returned)
    floor, highest, at = 0, None, 0
    for read in sorted((one for one in operations if one.local), key=lambda one: one.invoked):
        while at < len(ended) and ended[at].returned < read.invoked:
            if size(ended[at]) > floor:
                floor, highest = size(ended[at]), ended[at]
            at += 1
        if size(read) < floor:
            assert highest is not None
            raise Conflict("a local read lacks what this node had shown or acknowledged before", read, highest)
