"""One membership for two groups: a change made through the one is told to the other, whose leader carries it out.

Two duties, each done by whichever node leads the group in question. The *source's* leader writes each new list of
members into the target's log; the *target's* leader changes its members, step by step, until they are those of the
newest list in its log. Must not know files or sockets. Invariants: only a committed list is told; whatever comes late,
twice or from a deposed leader is refused by the state machine, which keeps the newest alone; a node that came back in
another incarnation of the target is replaced without anybody's request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from hiqlite import observe
from hiqlite._accel.batch import Op
from hiqlite.clock import Clock
from hiqlite.engine.mirror import next_change
from hiqlite.engine.model import Membership
from hiqlite.errors import HiqliteError, ProtocolError

from .group import Group
from .mirror_record import Mirrored
from .waiting import until_next
from .wishes import left_over

# How long one step may take to become possible: a new member has to catch up first. Then it is judged anew.
STEP_S = 1.0
TELL_S = 5.0
log = observe.logger("runtime")


class MirrorState(Protocol):
    """What the target's state machine keeps."""

    @property
    def mirrored_index(self) -> int: ...
    @property
    def mirrored(self) -> bytes: ...


class Mirroring:
    """Between two groups of one node.

    Args:
        state: of the target's state machine, now.
        life_of: the incarnation in which a node lives in the target now; 0: not heard of.
    """

    def __init__(
        self,
        source: Group,
        target: Group,
        state: Callable[[], MirrorState],
        life_of: Callable[[int], int],
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._source = source
        self._target = target
        self._state = state
        self._life_of = life_of
        self._clock = clock
        self._loop = loop
        self._pause_s = source.settings.heartbeat_interval_ms / 1000
        self._closed = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = self._loop.create_task(self._run(), name="hiqlite-mirror")

    async def close(self) -> None:
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def until_mirrored(self, index: int) -> bool:
        """Until the target's members are those of the source's configuration at `index`, or of a newer one.

        Returns:
            False: this mirroring was closed. The target may have begun anew, with another one.
        """
        while not self._closed:
            if self._state().mirrored_index >= index and self._agrees():
                return True
            await until_next(self._target.changed, self._pause_s)
        await asyncio.sleep(self._pause_s)  # until there is another one
        return False

    # -- inside

    async def _run(self) -> None:
        while self._source.failure is None and self._target.failure is None:
            try:
                await self._tell()
                await self._follow()
            except HiqliteError as error:  # leadership moved, nobody leads, a member is not reached: tried again
                log.debug("the members of the groups do not agree yet: %s", error)
            except Exception:
                log.exception("mirroring the members failed, it is tried again")
            await until_next(self._target.changed, self._pause_s)

    async def _tell(self) -> None:
        """The source's leader: write its members into the target's log, unless that knows them already."""
        source = self._source
        if not source.leads or not self._target.started:
            return
        membership = source.engine.membership
        committed = membership.index <= source.applier.applied_index
        if membership.joint or not committed or membership.index <= self._state().mirrored_index:
            return
        op = Op(self._loop, lambda answer, index, detail: index, None, self._clock.monotonic_ns() + int(TELL_S * 1e9))
        self._target.write(Mirrored.of(membership).record(), op)
        await op

    async def _follow(self) -> None:
        """The target's leader: one step towards the members that it was told last."""
        target = self._target
        if not target.leads:
            return
        membership = target.engine.membership
        wanted = self._wanted(membership)
        change = left_over(membership, self._life_of)
        if change is None:
            change = next_change(membership, wanted.voters, wanted.learners, self._life_of)
        if change is not None:
            log.info("the members follow those of the other group: %s %s", change.kind.name.lower(), change.members)
            await target.change_members(change, STEP_S)

    def _agrees(self) -> bool:
        membership = self._target.engine.membership if self._target.started else None
        if membership is None or membership.joint or membership.index > self._target.applier.applied_index:
            return False
        wanted, found = self._wanted(membership), Mirrored.of(membership)
        if len(membership.voters + membership.learners) > len(found.voters + found.learners):
            return False  # a later incarnation has not taken the place of the one before
        return (wanted.voters, wanted.learners) == (found.voters, found.learners)

    def _wanted(self, current: Membership) -> Mirrored:
        """The newest list; before there is any, who is a member now."""
        state = self._state()
        if not state.mirrored_index:
            return Mirrored.of(current)
        with suppress(ProtocolError):
            return Mirrored.decode(state.mirrored_index, state.mirrored)
        log.error("the list of members in this group's log cannot be read")
        return Mirrored.of(current)
