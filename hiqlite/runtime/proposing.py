"""What a leader's batches go through: the engine gives them their place, they are sealed, and memory keeps them.

Must not know who waits for a write. Invariant: entries go into memory in the order in which the engine placed them.
"""

from __future__ import annotations

from collections.abc import Callable

from hiqlite.clock import Clock
from hiqlite.engine.raft import Raft

from .group_time import GroupTime
from .proposals import Proposals
from .window import Window


class Proposer:
    """Of one group. `seed` gives chance for the entries' own."""

    def __init__(
        self, proposals: Proposals, window: Window, group_time: GroupTime, clock: Clock, seed: Callable[[], int]
    ) -> None:
        self._proposals = proposals
        self._window = window
        self._group_time = group_time
        self._clock = clock
        self._seed = seed

    def propose(self, engine: Raft, *, leads: bool, now_ns: int) -> None:
        """Everything that may be proposed now; what this node may not propose any more is passed on."""
        proposals = self._proposals
        if proposals.gate.closed and leads:
            proposals.gate.turn()
        if not proposals.waits:
            return
        if not leads:
            proposals.follow()
            return
        for batch in proposals.batches():
            first = engine.propose(batch.count, batch.size_bytes, now_ns)
            if first == 0:
                return
            proposals.proposed(batch, first)
            times = self._group_time.read(now_ns), self._clock.wall_ns(), self._seed()
            records = batch.seal(engine.term, first, *times)
            self._window.add(first, first + batch.count - 1, records)
