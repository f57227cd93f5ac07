"""The configuration in force, resolved to slots so that quorums are counted over plain lists.

Must not know the log or how a change is agreed on. Invariant: slot 0 is this node, every other member has one slot;
`voter_sets` holds one set now and will hold two while a joint configuration is in force; a learner is in none.
"""

from __future__ import annotations

from .model import Identity, Membership


class Configuration:
    """Slots and voter sets of one Membership, seen from one node."""

    def __init__(self, membership: Membership, own: Identity) -> None:
        self.membership: Membership = membership
        self.own: Identity = own
        self.slots: dict[Identity, int] = {own: 0}
        self.peers: list[Identity] = []
        for identity in membership.voters + membership.learners:
            if identity not in self.slots:
                self.slots[identity] = len(self.slots)
                if identity.id != own.id:
                    self.peers.append(identity)
        self.voter_sets: list[list[int]] = [[self.slots[identity] for identity in membership.voters]]
        self.voters: frozenset[Identity] = frozenset(membership.voters)
        self.is_voter: bool = own in self.voters
        self.is_single: bool = self.is_voter and len(membership.voters) == 1

    def slot_of(self, identity: Identity) -> int:
        """The slot of a member, -1 for anybody else: another incarnation of a member is nobody (rule 8)."""
        return self.slots.get(identity, -1)

    def size(self) -> int:
        """How many slots there are."""
        return len(self.slots)
