"""The configuration in force, resolved to slots so that quorums are counted over plain lists.

Must not know the log or how a change is agreed on. Invariant: slot 0 is this node, every other member has one slot;
`voter_sets` holds one set, or two while a joint configuration is in force (thesis 4.3); a learner is in none. An id
that stands in two incarnations has one peer: the one that came last, for the other has lost its log.
"""

from __future__ import annotations

from .model import Identity, Membership


class Configuration:
    """Slots and voter sets of one Membership, seen from one node.

    Args:
        departing: who left by this configuration. They count nowhere, and are still told of entries, so that they
            learn of their leaving and rest.
    """

    def __init__(self, membership: Membership, own: Identity, departing: tuple[Identity, ...] = ()) -> None:
        self.membership: Membership = membership
        self.own: Identity = own
        self.slots: dict[Identity, int] = {own: 0}
        counted = [membership.voters, membership.outgoing] if membership.outgoing else [membership.voters]
        everybody = membership.voters + membership.learners + membership.outgoing + departing
        reached: dict[int, Identity] = {}
        for identity in departing + membership.outgoing + membership.voters + membership.learners:
            reached[identity.id] = identity
        self.peers: list[Identity] = []
        for identity in everybody:
            if identity not in self.slots:
                self.slots[identity] = len(self.slots)
                if identity.id != own.id and reached[identity.id] == identity:
                    self.peers.append(identity)
        self.voter_sets: list[list[int]] = [[self.slots[identity] for identity in voters] for voters in counted]
        self.voters: frozenset[Identity] = frozenset(membership.voters + membership.outgoing)
        self.learners: frozenset[Identity] = frozenset(membership.learners) - self.voters
        self.is_voter: bool = own in self.voters
        self.is_joint: bool = membership.joint
        self.is_single: bool = self.is_voter and len(self.voters) == 1

    def slot_of(self, identity: Identity) -> int:
        """The slot of a member, -1 for anybody else: another incarnation of a member is nobody (rule 8)."""
        return self.slots.get(identity, -1)

    def size(self) -> int:
        """How many slots there are."""
        return len(self.slots)
