"""What a process holds of its log, and the bytes that come with messages: the runtime's memory, one number per entry.

Must not decide what is written or sent. Invariant: nothing at or below the log's base is ever given to a peer: it is
purged, though the lists keep it for the invariants to look at.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hiqlite.engine.model import AppendRequest, Membership, Message, Repair, RepairReply

if TYPE_CHECKING:
    from hiqlite.engine.raft import Raft

    from .checks import Checks
    from .cluster import Cluster
    from .database import Database
    from .disk import Disk
    from .world import World

Body = tuple[int, list[int], list[int]]  # first index, terms, values
MS = 1_000_000


class Holding:
    """The part of a node that holds entries."""

    cluster: Cluster
    world: World
    checks: Checks
    database: Database
    disk: Disk
    raft: Raft
    id: int
    life: int
    terms: list[int]
    values: list[int]
    bodies: list[Body]
    fetched: dict[int, Body]
    window_start: int
    first_membership: Membership

    def runs(self) -> bool:
        raise NotImplementedError

    def turn(self) -> None:
        raise NotImplementedError

    def now(self) -> int:
        raise NotImplementedError

    def membership_at(self, index: int) -> Membership:
        """Who was in force at an entry, by what the log says and, below it, the metadata."""
        recorded = self.database.recorded
        known = self.cluster.memberships
        for position in range(index, max(self.raft.base_index, 0), -1):
            found = known.get(self.values[position])
            if found is not None:
                return found
        return recorded

    def newest_membership(self) -> Membership:
        """The last one that the whole log names, what is purged included."""
        return self.cluster.membership_in(self.values, self.first_membership)

    def with_memberships(self, message: Message, body: Body) -> Message:
        """What the entries say about members is read from their bytes: the sender's engine may know it no more."""
        known = self.cluster.memberships
        if not known or not isinstance(message, (AppendRequest, RepairReply)):
            return message
        named = tuple([known[value] for value in body[2] if value in known])
        return replace(message, memberships=named) if named or message.memberships else message

    def take_body(self, first: int, last: int, term: int) -> None:
        """The bytes of entries that came with a request; the newest that fits, as the runtime keeps them."""
        for body_first, terms, values in reversed(self.bodies):
            if body_first <= first and last < body_first + len(terms) and terms[last - body_first] == term:
                low, high = first - body_first, last + 1 - body_first
                self.terms.extend(terms[low:high])
                self.values.extend(values[low:high])
                self.checks.took(self, first, last)
                return
        raise AssertionError(f"no bytes for [{first}, {last}]")

    def take_repair(self, repair: Repair) -> tuple[list[int], list[int]]:
        """The bytes came with the message just stepped."""
        first, last = repair.first, repair.last
        body_first, terms, values = self.bodies[-1]
        if not body_first <= first <= last < body_first + len(terms):
            raise AssertionError(f"no bytes for the repair of [{first}, {last}]")
        low, high = first - body_first, last + 1 - body_first
        self.checks.repairing(self, first, terms[low:high], values[low:high])
        self.terms[first : last + 1] = terms[low:high]
        self.values[first : last + 1] = values[low:high]
        return terms[low:high], values[low:high]

    def body_of(self, peer_id: int, message: Message) -> Body | None:
        if type(message) is AppendRequest:
            first, last = message.previous_index + 1, message.last_index
            if last < first:
                return None
            fetched = self.fetched.get(peer_id)
            if fetched is not None and fetched[0] == first and last == first + len(fetched[1]) - 1:
                return fetched
            self.checks.giving(self, first, last, True)
        elif type(message) is RepairReply:
            first, last = message.first, message.last
            self.checks.giving(self, first, last, False)
        else:
            return None
        return (first, self.terms[first : last + 1], self.values[first : last + 1])

    def fetch(self, peer_id: int, first: int, size_max: int) -> None:
        count = 1 + self.world.below(8)
        last = min(first + count, len(self.terms) - 1)
        body = (first, self.terms[first : last + 1], self.values[first : last + 1])
        self.world.after(1 + self.world.below(3 * MS), self.answer_fetch, self.life, peer_id, first, last, body)

    def answer_fetch(self, life: int, peer_id: int, first: int, last: int, body: Body) -> None:
        if life != self.life:
            return
        if not self.runs():
            self.world.after(20 * MS, self.answer_fetch, life, peer_id, first, last, body)
            return
        self.turn()
        if first <= self.disk.base:
            last = first - 1  # purged meanwhile
        self.fetched[peer_id] = body
        self.raft.entries_fetched(peer_id, first, last, 100 * (last - first + 1), self.now())
        self.turn()
        self.fetched.clear()
