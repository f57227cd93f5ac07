"""A simulated database: applied values by index, of which a power loss may take what no checkpoint covers.

It holds what it was given to apply, not what the log says, so that the two can be compared. Must not know Raft.
Invariants: `durable <= applied`; an image is the whole content as of one index, membership inside.
"""

from __future__ import annotations

from dataclasses import dataclass

from hiqlite.engine.model import Membership

from .world import World

LATE_ENTRIES = 6  # a power loss rarely takes more than the system wrote in its last moments


@dataclass(frozen=True, slots=True)
class Image:
    """A copy of a database as of `index`; it travels in `chunks` pieces."""

    number: int
    index: int
    term: int
    terms: tuple[int, ...]
    values: tuple[int, ...]
    membership: Membership
    chunks: int


class Database:
    """Of one incarnation; it outlives the process."""

    def __init__(self, membership: Membership) -> None:
        self.terms: list[int] = [0]
        self.values: list[int] = [0]
        self.durable = 0
        self.losses = 0  # of power, so far
        self.recorded = membership  # the newest that the metadata name: written before an entry behind it is applied

    @property
    def applied(self) -> int:
        return len(self.values) - 1

    def apply(self, terms: list[int], values: list[int]) -> None:
        self.terms.extend(terms)
        self.values.extend(values)

    def make_durable(self, synced_index: int) -> None:
        """A checkpoint: it goes no further than the own log is durable (docs/durability.md)."""
        if self.applied <= synced_index:
            self.durable = max(self.durable, self.applied)

    def lose_power(self, world: World) -> None:
        """What no checkpoint covers may be gone, up to any entry; what is left then is on the disk."""
        self.losses += 1
        low = self.durable
        if world.chance() < 0.8:
            low = max(low, self.applied - world.below(LATE_ENTRIES))
        kept = low + world.below(self.applied - low + 1) if world.chance() < 0.6 else self.applied
        del self.terms[kept + 1 :], self.values[kept + 1 :]
        self.durable = kept

    def copy(self) -> Database:
        copied = Database(self.recorded)
        copied.terms, copied.values = list(self.terms), list(self.values)
        copied.durable, copied.losses = self.durable, self.losses
        return copied

    def become(self, image: Image) -> None:
        """The image takes the database's place, durably and in one step."""
        self.terms, self.values = list(image.terms), list(image.values)
        self.durable = image.index
        if image.membership.index >= self.recorded.index:
            self.recorded = image.membership
