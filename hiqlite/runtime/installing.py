"""Another database in place of this group's: what waits for entries learns what became of them.

Sees the group's parts and a call that does the switch; must not know files or SQL. Invariant: nothing is handed to the
state machine while it changes, and what is handed to it afterwards begins right behind where the new database stands.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from .applier import Applier
from .proposals import Proposals
from .waiting import AppliedWaiters


class Applying(Protocol):
    """What of a group an install touches."""

    applier: Applier
    proposals: Proposals
    waiters: AppliedWaiters


async def install(group: Applying, switch: Callable[[], Awaitable[None]]) -> int:
    """Pauses the feed, lets `switch` put another database under the state machine, and goes on from its index.

    Returns:
        The index that is applied now.

    Raises:
        what `switch` raises; then the feed stays paused, because nobody knows where the state machine stands.
    """
    await group.applier.pause()
    await switch()
    group.applier.go_on()
    group.proposals.passed_over()
    group.waiters.reached(group.applier.applied_index)
    return group.applier.applied_index
