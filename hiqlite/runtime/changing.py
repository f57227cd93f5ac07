"""A change of members from its request to its end, on the leader: through the log, and out of the joint configuration.

Must not know how the engine agrees on it. Invariant: a change that returns is committed and applied here, with nothing
joint left of it; whoever gets an error is told what is known of the change.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from hiqlite.clock import Clock
from hiqlite.engine.model import Change, Membership
from hiqlite.engine.raft import Raft
from hiqlite.errors import HiqliteError, LeadershipLost, NotLeader, Overloaded, with_outcome

# How often it is looked whether a refused change is possible by now (a learner catches up, an earlier change ends).
RETRY_S = 0.02


class Changing(Protocol):
    """What of a group a change needs."""

    engine: Raft
    changed: asyncio.Event

    @property
    def leads(self) -> bool: ...
    def pump(self) -> None: ...
    async def until_applied(self, index: int) -> None: ...


async def change_members(group: Changing, change: Change, clock: Clock, timeout: float) -> Membership:
    """Carry a change out, as soon as it is possible.

    Args:
        timeout: seconds that it may take to become possible; how long it takes then is up to the majorities.

    Raises:
        UsageError: it makes no sense. NotLeader: this node does not lead. Overloaded: it did not become possible in
        time, with the reason. LeadershipLost: another leader took over. What this node fails or closes with. The
        `outcome` of the last two is "unknown".
    """
    index = await _propose(group, change, clock, timeout)
    try:
        return await _carried_out(group, index)
    except HiqliteError as error:
        raise with_outcome(error, "unknown") from error


async def _carried_out(group: Changing, index: int) -> Membership:
    """The configuration that the change which begins at `index` led to, once it is applied here."""
    wanted = group.engine.membership
    await group.until_applied(index)
    while group.leads and group.engine.membership.joint:  # the leader leaves it by itself
        group.changed.clear()
        await group.changed.wait()
    found = group.engine.membership
    await group.until_applied(found.index)
    if (found.voters, found.learners) != (wanted.voters, wanted.learners) or found.joint:
        raise LeadershipLost("another leader took over while the members changed", outcome="unknown")
    return found


async def _propose(group: Changing, change: Change, clock: Clock, timeout: float) -> int:
    """The index of the entry that the change begins with."""
    end_ns = clock.monotonic_ns() + int(timeout * 1e9)
    while True:
        if not group.leads:
            raise NotLeader("only the leader changes the members")
        now_ns = clock.monotonic_ns()
        reason = group.engine.change_refusal(change)
        index = 0 if reason else group.engine.propose_membership(change, now_ns)
        if index:
            group.pump()
            return index
        if now_ns > end_ns:
            raise Overloaded(f"the members cannot be changed now: {reason}")
        await asyncio.sleep(RETRY_S)
