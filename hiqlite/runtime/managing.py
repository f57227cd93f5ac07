"""A wish about the members, from the call on any node to its fulfilment by the leader (api.md section 6).

The leader takes the steps, one at a time, and looks at the members anew before each. Must not know addresses, files
or sockets. Invariants: a wish that returns is committed, applied on the leader and, but for LEARN, mirrored by the
other group; a wish that is fulfilled already changes nothing, so it may be asked for again whenever its answer was
lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from hiqlite import observe
from hiqlite.clock import Clock
from hiqlite.engine.model import Change
from hiqlite.errors import LeadershipLost, NotLeader, Overloaded, ProtocolError, UsageError

from .group import Group
from .leader_calls import PAUSE_S, LeaderCalls, Peers
from .wishes import LifeOf, Wish, WishKind, left_over, next_change

# How long one step may keep the others waiting until it becomes possible; then the members are looked at anew.
STEP_S = 0.25
log = observe.logger("runtime")


class Reach(Protocol):
    """Who is dialled, as far as a wish has a say."""

    def said_of(self, ids: Sequence[int]) -> Any:
        """What this node knows of where they are, to be told to the leader."""
        ...

    def trouble_of(self, number: int) -> str:
        """Why a node is not reached, as far as that is known."""
        ...

    def expecting(self, ids: Sequence[int], said: Any) -> AbstractContextManager[None]:
        """They are dialled meanwhile, whoever they are. Raises ProtocolError when `said` cannot be read."""
        ...


class Managing:
    """One node's part in changing the members of a group.

    Args:
        life_of: the incarnation in which a node lives now in the group; 0: not heard of.
        mirrored: returns once the other group has followed the configuration at an index, within so many seconds.
    """

    def __init__(
        self,
        group: Group,
        peers: Peers,
        life_of: LifeOf,
        reach: Reach,
        mirrored: Callable[[int, float], Awaitable[None]],
        clock: Clock,
    ) -> None:
        self._group = group
        self._life_of = life_of
        self._reach = reach
        self._mirrored = mirrored
        self._clock = clock
        self._stepping = asyncio.Lock()
        self.busy = 0  # calls of this node or of peers that are not answered yet
        self._calls = LeaderCalls(group, peers, "manage", self._answer, clock)

    async def fulfil(self, wish: Wish, timeout: float | None = None) -> None:
        """Return once the wish is fulfilled in both groups, LEARN in this one. Raises what `LeaderCalls.call` does."""
        self.busy += 1
        try:
            await self._calls.call(lambda: [wish.to_wire(), self._reach.said_of(wish.ids)], timeout)
        finally:
            self.busy -= 1

    async def tidy(self) -> None:
        """The leader's duty without anybody's wish: see `left_over`. Raises Overloaded: it has to wait."""
        group = self._group
        async with self._stepping:
            change = left_over(group.engine.membership, self._life_of) if group.leads else None
            if change is not None:
                log.warning("node %d is a member that lives: another one had its id", change.members[0].id)
                await group.change_members(change, STEP_S)

    async def _answer(self, payload: Any, slice_s: float) -> None:
        match payload:
            case [wire, said]:
                wish = Wish.from_wire(wire)
            case _:
                raise ProtocolError("a wish about the members that cannot be read")
        self.busy += 1
        try:
            with self._reach.expecting(wish.ids, said):
                await self._lead(wish, slice_s)
        finally:
            self.busy -= 1

    async def _lead(self, wish: Wish, slice_s: float) -> None:
        """Step by step. Raises Overloaded, with the reason, when a step is not possible in time."""
        group = self._group
        end_ns = self._clock.monotonic_ns() + int(slice_s * 1e9)
        while True:
            try:
                index = await self._step(wish, min(self._left_s(end_ns), STEP_S))
            except Overloaded:
                if self._left_s(end_ns) <= 0:
                    raise
                await asyncio.sleep(PAUSE_S)
                continue
            if index is not None:
                break
        if index > group.applier.applied_index:
            await group.until_applied(index)
            if group.engine.membership.index != index:
                raise LeadershipLost("the members changed meanwhile", outcome="unknown")
        if wish.kind is not WishKind.LEARN:  # the other group follows once who asks is in it: after this answer
            await self._mirrored(index, max(self._left_s(end_ns), PAUSE_S))

    def _left_s(self, end_ns: int) -> float:
        return (end_ns - self._clock.monotonic_ns()) / 1e9

    async def _step(self, wish: Wish, limit_s: float) -> int | None:
        """One change at most. None, if another one is to follow; else the index of the configuration in which the wish
        is fulfilled."""
        group = self._group
        async with self._stepping:  # what is looked at must not change before the step
            change = self._next(wish)
            if change is not None:
                log.info("%s %s: %s %s", wish.kind, list(wish.ids), change.kind.name.lower(), change.members)
                await group.change_members(change, limit_s)
                # Judged before anybody else's step: of two contrary wishes each is fulfilled, and none undoes the
                # other over and over.
                change = self._next(wish)
            return group.engine.membership.index if change is None else None

    def _next(self, wish: Wish) -> Change | None:
        group = self._group
        members = group.engine.membership
        if not group.leads and members.index > group.applier.applied_index:
            raise NotLeader("this node does not lead any more", leader_id=group.leader_id or None)
        return next_change(members, wish, self._life_of, self._reach.trouble_of)


class HandingOver:
    """Leadership that moves because somebody asks for it."""

    def __init__(self, group: Group, peers: Peers, clock: Clock) -> None:
        self._group = group
        self._clock = clock
        self._calls = LeaderCalls(group, peers, "transfer", self._answer, clock)

    async def transfer(self, to: int, timeout: float) -> None:
        """Return once `to` leads, or with 0 any other node than now; see `LeaderCalls.call` for what it raises."""
        group = self._group
        before = group.leader_id

        def moved() -> bool:
            return group.leader_id == to if to else group.leader_id not in (0, before) and before != 0

        await self._calls.call(lambda: to, timeout, moved)

    async def _answer(self, to: Any, slice_s: float) -> None:
        group = self._group
        voters = {one.id for one in group.engine.membership.voters}
        if type(to) is not int or (to and to not in voters):
            raise UsageError(f"node {to} is no voter", hint="promote it first")
        if to == group.identity.id:
            return
        if voters == {group.identity.id}:
            raise UsageError("there is no other voter that could lead")
        end_ns = self._clock.monotonic_ns() + int(slice_s * 1e9)
        while group.leads:
            if self._clock.monotonic_ns() > end_ns:
                raise Overloaded("nobody took over the leadership in time", outcome="unknown")
            if group.engine.transfer_leadership(to, self._clock.monotonic_ns()):
                group.pump()
            await asyncio.sleep(PAUSE_S)
        if to and group.leader_id != to:
            raise Overloaded(f"node {to} does not lead yet", outcome="unknown")
