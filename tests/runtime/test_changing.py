"""A change of members as its caller sees it, whatever comes in between."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from hiqlite.clock import Clock
from hiqlite.engine.model import Change, ChangeKind, Identity, Membership
from hiqlite.errors import LeadershipLost, NotLeader, Overloaded, ShuttingDown
from hiqlite.runtime.changing import Changing, change_members

ONE, TWO, THREE = (Identity(number, 1) for number in (1, 2, 3))
BEFORE = Membership(0, (ONE, TWO), (THREE,))
JOINT = Membership(7, (ONE, TWO, THREE), (), (ONE, TWO))
AFTER = Membership(9, (ONE, TWO, THREE))
PROMOTE = Change(ChangeKind.PROMOTE, (THREE,))
CALLS_MAX = 100  # of something that gives the loop no turn


class Group:
    """A leader by what it says of itself; everything up to 8 is applied, though the change is still half through."""

    def __init__(self, refusals: int = 0) -> None:
        self.engine = cast(Any, self)
        self.changed = asyncio.Event()
        self.leads = True
        self.membership = BEFORE
        self.waited: list[int] = []
        self._refusals = refusals

    def change_refusal(self, change: Change) -> str:
        self._refusals -= 1
        return "not yet" if self._refusals >= 0 else ""

    def propose_membership(self, change: Change, now_ns: int) -> int:
        self.membership = JOINT
        return JOINT.index

    def pump(self) -> None: ...

    async def until_applied(self, index: int) -> None:
        self.waited.append(index)
        assert len(self.waited) < CALLS_MAX, "the loop gets no turn"

    def becomes(self, membership: Membership, *, leads: bool = True) -> None:
        self.membership, self.leads = membership, leads
        self.changed.set()


def begin(group: Group, timeout: float = 5.0) -> asyncio.Task[Membership]:
    return asyncio.ensure_future(change_members(cast(Changing, group), PROMOTE, Clock(), timeout))


async def proposed(group: Group) -> None:
    while group.membership is BEFORE:
        await asyncio.sleep(0)
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_change_returns_when_nothing_joint_is_left() -> None:
    """It waits for that, not for entries: others are applied under the joint configuration (found by chaos: a leader
    that was handing over hung for ever)."""
    group = Group()
    changing = begin(group)
    await proposed(group)
    assert not changing.done()
    group.becomes(AFTER)
    assert await changing == AFTER
    assert group.waited == [7, 9]


async def test_a_change_that_another_leader_cuts_is_unknown() -> None:
    """Whether it went back or stays half through here."""
    for left in (BEFORE, JOINT):
        group = Group()
        changing = begin(group)
        await proposed(group)
        group.becomes(left, leads=False)
        with pytest.raises(LeadershipLost) as told:
            await changing
        assert told.value.outcome == "unknown"


async def test_a_change_waits_until_it_is_possible() -> None:
    """And says why when it never became so; a node that leads no longer says that."""
    group = Group(refusals=3)
    changing = begin(group)
    await proposed(group)
    group.becomes(AFTER)
    assert await changing == AFTER
    with pytest.raises(Overloaded, match="not yet"):
        await begin(Group(refusals=CALLS_MAX), timeout=0.0)
    group = Group(refusals=CALLS_MAX)
    changing = begin(group)
    await asyncio.sleep(0)
    group.becomes(BEFORE, leads=False)
    with pytest.raises(NotLeader):
        await changing


async def test_a_node_that_stops_while_members_change_says_that_nobody_knows_what_became_of_it() -> None:
    """The change stands in the log: others may carry it out."""

    class Stopping(Group):
        async def until_applied(self, index: int) -> None:
            raise ShuttingDown("the node is shutting down")

    with pytest.raises(ShuttingDown) as caught:
        await begin(Stopping())
    assert caught.value.outcome == "unknown"
