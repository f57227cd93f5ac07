"""Whatever comes in whatever order through a leader's gate: the order of writes holds, and no judgement is older than
the schema that its write meets."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from hiqlite._accel.batch import Op
from hiqlite.engine.ports import Cost, Verdict
from hiqlite.errors import StatementTimeout
from hiqlite.runtime.gate import Gate

COSTS = {b"cheap": Cost.CHEAP, b"index": Cost.CHANGES_SCHEMA, b"costly": Cost.UNKNOWN, b"table": Cost.UNKNOWN}
CHANGES = (b"index", b"table")
TAKE = st.tuples(st.just("take"), st.sampled_from(sorted(COSTS)))
GOES_ON = st.one_of(
    st.tuples(st.just("turn"), st.just(b"")),
    st.tuples(st.just("apply"), st.integers(1, 4)),
    st.tuples(st.just("end"), st.tuples(st.integers(0, 3), st.booleans())),
)
RARE = st.one_of(
    st.tuples(st.just("cancel"), st.integers(0, 5)),
    st.tuples(st.just("expire"), st.integers(1, 9)),
    st.tuples(st.just("leadership"), st.just(b"")),
)
STEPS = st.lists(st.one_of(TAKE, TAKE, GOES_ON, GOES_ON, GOES_ON, TAKE, GOES_ON, RARE), min_size=8, max_size=40)


class World:
    """A gate, a log, and a database behind it whose schema is a number."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.schema = 0
        self.judged: dict[bytes, int] = {}  # by which schema each was judged last
        self.log: list[bytes] = []
        self.reached = 0
        self.broken: list[str] = []
        self.taken: list[tuple[bytes, Op]] = []
        self.trial: tuple[list[bytes], asyncio.Future[Verdict]] | None = None
        self.gate = Gate(
            self, self.loop, propose=self.propose, is_level=lambda: self.reached == len(self.log), wake=lambda: None
        )

    # -- what the gate asks for

    def propose(self, record: bytes, waiting: Any) -> None:
        self.log.append(record)

    def cost(self, record: bytes) -> Cost:
        self.judged[record] = self.schema
        return COSTS[record.split()[0]]

    async def try_out(self, records: Sequence[bytes], deadlines_ns: Sequence[int]) -> Verdict:
        self.rule(self.reached == len(self.log), "it is tried before all that it will meet is there")
        self.rule(self.trial is None or self.trial[1].done(), "two trials at once")
        self.rule(not [record for record in records if record.startswith(b"index")], "that is never tried")
        for count, record in enumerate(records, 1):
            self.judged[record] = self.schema
            if record.startswith(CHANGES):
                records = records[:count]
                break
        self.trial = list(records), self.loop.create_future()
        return await self.trial[1]

    def applied(self, run: Any) -> None: ...

    def forget(self) -> None: ...

    def rule(self, holds: bool, otherwise: str) -> None:
        """What the gate would take for an error of the judge is told in the end."""
        if not holds:
            self.broken.append(otherwise)

    # -- what happens

    def take(self, kind: bytes) -> None:
        record = b"%s %d" % (kind, len(self.taken))
        op = Op(self.loop, None, None, len(self.taken) + 1)
        self.taken.append((record, op))
        self.gate.take(record, op)

    def turn(self, _: bytes) -> None:
        if self.gate.closed:
            self.gate.turn()

    def apply(self, count: int) -> None:
        for record in self.log[self.reached : self.reached + count]:
            assert self.judged[record] == self.schema, f"{record!r} was judged by an older schema"
            self.schema += record.startswith(CHANGES)
            self.reached += 1

    def end(self, how: tuple[int, bool]) -> None:
        """The trial under way lets some pass and, perhaps, refuses the one behind them."""
        if self.trial is None or self.trial[1].done():
            return
        (records, ended), (passed, refuses) = self.trial, how
        passed = min(passed, len(records))
        refuses = (refuses and passed < len(records)) or passed == 0
        changes = passed > 0 and records[passed - 1].startswith(CHANGES)
        error = StatementTimeout("too long", outcome="not_applied") if refuses else None
        ended.set_result(Verdict(records[:passed], changes, error))

    def cancel(self, number: int) -> None:
        if number < len(self.taken):
            self.taken[number][1].cancel()

    def expire(self, now_ns: int) -> None:
        self.gate.expire(now_ns)

    def leadership(self, _: bytes) -> None:
        """It goes, and comes back once what is in the log has been applied or not; nothing waits any more."""
        for _record, waiting in self.gate.take_all():
            waiting.set_exception(StatementTimeout("elsewhere", outcome="not_applied"))
        self.gate.begin()

    async def play(self, steps: list[tuple[str, Any]]) -> None:
        for name, argument in steps:
            getattr(self, name)(argument)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        for _ in range(4 * len(steps) + 4):  # to its end: everything is applied, each trial lets all pass
            self.apply(len(self.log))
            self.end((len(self.taken), False))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            self.turn(b"")

    def check(self) -> None:
        assert self.broken == []
        proposed = set(self.log)
        assert self.log == [record for record, _ in self.taken if record in proposed], "their order is another one"
        for record, op in self.taken:
            told = op.done() and not op.cancelled()  # that it did not happen
            assert told != (record in proposed) or op.cancelled(), f"{record!r}: told {told}"
        assert len(self.gate) == self.gate.queued_bytes == 0 and not self.gate.closed


@settings(max_examples=1000, deadline=None)
@given(STEPS)
def test_writes_keep_their_order_and_are_judged_by_the_schema_that_they_meet(steps: list[tuple[str, Any]]) -> None:
    """Trials that let some pass, callers that leave or are late, leadership that goes and comes back."""

    async def play() -> None:
        world = World()
        await world.play(steps)
        world.check()

    asyncio.run(play())
