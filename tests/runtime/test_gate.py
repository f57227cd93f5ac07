"""The order of a leader's writes, and that none passes which may never end."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Sequence
from typing import Any

import pytest

from hiqlite._accel.batch import Op
from hiqlite.engine.ports import Cost, Verdict
from hiqlite.errors import RequestTimeout, StatementTimeout, StorageError
from hiqlite.runtime.gate import TRIED_BYTES_MAX, TRIED_MAX, Gate

CHEAP, SCHEMA, COSTLY = b"cheap", b"schema", b"costly"
COSTS = {CHEAP: Cost.CHEAP, SCHEMA: Cost.CHANGES_SCHEMA, COSTLY: Cost.UNKNOWN}


class World:
    """A gate whose judge looks at the first word of a record; what is proposed is applied when the test says so."""

    def __init__(self, judging: bool = True) -> None:
        self.loop = asyncio.get_running_loop()
        self.proposed: list[bytes] = []
        self.level = True
        self.woken = 0
        self.forgotten = 0
        self.trials: list[tuple[list[bytes], asyncio.Future[Verdict]]] = []
        self.gate = Gate(
            self if judging else None, self.loop, propose=self._propose, is_level=lambda: self.level, wake=self._wake
        )

    def _propose(self, record: bytes, waiting: Any) -> None:
        self.proposed.append(record)
        self.level = False

    def _wake(self) -> None:
        self.woken += 1

    def cost(self, record: bytes) -> Cost:
        return COSTS[record.split()[0]]

    async def try_out(self, records: Sequence[bytes], deadlines_ns: Sequence[int]) -> Verdict:
        assert len(records) == len(deadlines_ns)
        ended: asyncio.Future[Verdict] = self.loop.create_future()
        self.trials.append((list(records), ended))
        return await ended

    def applied(self, run: Any) -> None: ...

    def forget(self) -> None:
        self.forgotten += 1

    # -- what the test does

    def take(self, record: bytes, deadline_ns: int = 0) -> Op:
        op = Op(self.loop, None, None, deadline_ns)
        self.gate.take(record, op)
        return op

    async def turns(self, apply: bool = True) -> None:
        """Until nothing moves any more; what is proposed is applied each time."""
        for _ in range(10):
            self.level = self.level or apply
            self.gate.turn()
            await asyncio.sleep(0)

    def end(
        self, *tried: bytes, passed: int | None = None, error: Exception | None = None, schema: bool = False
    ) -> None:
        """The trial under way, which is of these writes, ends so; `error` is of the one behind `passed`."""
        records, ended = self.trials.pop(0)
        assert records == list(tried)
        count = len(tried) - (error is not None) if passed is None else passed
        ended.set_result(Verdict(tried[:count], schema, error))


async def test_cheap_writes_pass_at_once() -> None:
    """And nothing waits behind them."""
    world = World()
    for number in range(3):
        world.take(CHEAP + b" %d" % number)
    assert world.proposed == [b"cheap 0", b"cheap 1", b"cheap 2"] and not world.gate.closed


async def test_without_a_judge_all_writes_are_cheap() -> None:
    """The caches' group; it has nothing to wait for when it begins to lead, either."""
    world = World(judging=False)
    world.gate.begin()
    world.take(COSTLY)
    assert world.proposed == [COSTLY] and not world.gate.closed


async def test_a_costly_write_is_tried_on_what_it_will_meet_and_keeps_its_place() -> None:
    """All before it are applied by then; all behind it wait, or are tried with it."""
    world = World()
    world.take(b"cheap 1")
    world.take(b"costly 2")
    world.take(b"cheap 3")
    assert world.gate.closed and world.gate.queued_bytes == len(b"costly 2cheap 3")
    await world.turns(apply=False)
    assert world.trials == []
    await world.turns()
    assert world.proposed == [b"cheap 1"]
    world.take(b"cheap 4")
    world.end(b"costly 2", b"cheap 3")
    await world.turns()
    assert world.proposed == [b"cheap 1", b"costly 2", b"cheap 3", b"cheap 4"]
    assert not world.gate.closed and world.gate.queued_bytes == len(world.gate) == 0


async def test_the_order_of_writes_is_that_in_which_they_were_issued() -> None:
    """However many of those that are tried together pass each time."""
    world = World()
    kinds = [CHEAP, COSTLY, COSTLY, CHEAP, SCHEMA, CHEAP, COSTLY, CHEAP, COSTLY]
    records = [kind + b" %d" % number for number, kind in enumerate(kinds)]
    for record in records:
        world.take(record)
    while len(world.proposed) < len(records):
        await world.turns()
        if world.trials:
            tried = world.trials[0][0]
            assert not [record for record in tried if record.startswith(SCHEMA)], "that is never tried"
            world.end(*tried, passed=max(1, len(tried) // 2))
    assert world.proposed == records


async def test_only_a_few_are_tried_together() -> None:
    """By number and by bytes; a large one stands alone."""
    world = World()
    records = [COSTLY + b" " + b"x" * (TRIED_BYTES_MAX + 1), *[COSTLY + b" %d" % number for number in range(100)]]
    for record in records:
        world.take(record)
    await world.turns()
    world.end(records[0])
    await world.turns()
    world.end(*records[1 : TRIED_MAX + 1])
    await world.turns()
    assert world.proposed == records[: TRIED_MAX + 1] and len(world.trials[0][0]) == 100 - TRIED_MAX


@pytest.mark.parametrize("tried", [False, True])
async def test_nothing_is_judged_before_a_change_of_the_schema_is_applied(tried: bool) -> None:
    """What is cheap by the old one may be endless by the new one."""
    world = World()
    world.take(COSTLY if tried else SCHEMA)
    world.take(CHEAP)
    if tried:
        await world.turns()
        world.end(COSTLY, CHEAP, passed=1, schema=True)
    await world.turns(apply=False)
    assert world.proposed == [COSTLY if tried else SCHEMA] and world.gate.closed
    await world.turns()
    assert world.proposed[1:] == [CHEAP] and not world.gate.closed


async def test_a_new_leader_judges_once_it_has_applied_its_log() -> None:
    """A change of the schema may stand in it. What it had learnt in an earlier leadership is old."""
    world = World()
    world.level = False
    world.gate.begin()
    world.take(CHEAP)
    await world.turns(apply=False)
    assert world.proposed == [] and world.forgotten == 1
    await world.turns()
    assert world.proposed == [CHEAP] and not world.gate.closed


async def test_what_may_not_be_proposed_is_told_and_the_rest_goes_on() -> None:
    """Those before it passed; those behind it are tried anew, without it."""
    world = World()
    first, refused, behind = world.take(b"costly 1"), world.take(b"costly 2"), world.take(b"costly 3")
    await world.turns()
    error = StatementTimeout("too long", outcome="not_applied")
    world.end(b"costly 1", b"costly 2", b"costly 3", passed=1, error=error)
    await world.turns()
    assert refused.exception() is error and world.proposed == [b"costly 1"]
    world.end(b"costly 3")
    await world.turns()
    assert world.proposed == [b"costly 1", b"costly 3"] and not first.done() and not behind.done()


async def test_a_trial_that_fails_by_a_fault_of_ours_refuses_its_write() -> None:
    """Nobody waits for ever."""
    world = World()
    refused = world.take(COSTLY)
    await world.turns()
    world.trials.pop()[1].set_exception(ValueError("broken"))
    await world.turns()
    error = refused.exception()
    assert isinstance(error, StorageError) and error.outcome == "not_applied" and not world.gate.closed


async def test_who_leaves_does_not_take_his_write_back() -> None:
    """Before its trial, during it, or while it waits behind another one's."""
    world = World()
    records = [b"costly 1", b"costly 2", b"cheap 3", b"cheap 4"]
    ops = [world.take(record) for record in records]
    ops[0].cancel()
    ops[2].cancel()
    await world.turns()
    ops[1].cancel()
    world.end(*records)
    await world.turns()
    assert world.proposed == records and not world.gate.closed


async def test_deadlines_end_the_waiting_and_the_write() -> None:
    """It is not proposed any more, so the outcome is known; those behind it are tried without it."""
    world = World()
    late, patient = world.take(b"costly 1", deadline_ns=100), world.take(b"costly 2", deadline_ns=200)
    await world.turns()
    world.gate.expire(100)
    error = late.exception()
    assert isinstance(error, RequestTimeout) and error.outcome == "not_applied"
    world.end(b"costly 1", b"costly 2")
    await world.turns()
    assert world.proposed == [] and not patient.done()
    world.end(b"costly 2")
    await world.turns()
    assert world.proposed == [b"costly 2"]


async def test_who_is_told_that_he_was_late_may_write_again_at_once() -> None:
    """His next write joins the queue while the others are told."""
    world = World()
    again: list[Op] = []
    for number in range(3):
        world.take(COSTLY, deadline_ns=100).add_done_callback(
            lambda _, record=b"costly again %d" % number: again.append(world.take(record)),
            context=contextvars.copy_context(),
        )

    def in_a_callback() -> None:  # as the pulse does: waiters run at once where no task does
        world.gate.expire(100)

    world.loop.call_soon(in_a_callback)
    await asyncio.sleep(0)
    await world.turns()
    assert len(again) == 3
    world.end(*[b"costly again %d" % number for number in range(3)])
    await world.turns()
    assert world.proposed == [b"costly again %d" % number for number in range(3)]


async def test_what_waits_goes_with_the_leadership_in_order() -> None:
    """The trial that is under way has no say any more."""
    world = World()
    ops = [world.take(b"costly 1"), world.take(b"cheap 2"), world.take(b"costly 3")]
    await world.turns()
    left = world.gate.take_all()
    assert [record for record, _ in left] == [b"costly 1", b"cheap 2", b"costly 3"]
    assert [waiting for _, waiting in left] == ops
    assert len(world.gate) == world.gate.queued_bytes == 0
    await asyncio.sleep(0)
    assert world.trials[0][1].cancelled()
    await world.turns()
    assert world.proposed == [] and not any(op.done() for op in ops)


async def test_a_leadership_that_comes_back_tries_again() -> None:
    """What was tried under the one before may meet other rows now."""
    world = World()
    world.take(COSTLY)
    await world.turns()
    _, ended = world.trials.pop()
    world.gate.begin()
    await world.turns()
    assert ended.cancelled()
    world.end(COSTLY)
    await world.turns()
    assert world.proposed == [COSTLY]
