"""Operators and their bad luck: members change, leaders hand over, images travel, and something fails in the midst.

An order of several changes is pursued for a while at whoever leads. Invariant: no change is asked for that would leave
a set of voters without a majority that keeps its promises; that is the operator's part of the bargain.
"""

from __future__ import annotations

from collections.abc import Callable

from hiqlite.engine.change import following
from hiqlite.engine.model import (
    AppendReply,
    AppendRequest,
    Change,
    ChangeKind,
    Identity,
    Membership,
    Message,
    TimeoutNow,
)
from hiqlite.errors import UsageError

from .node import Node
from .profile import VOTERS_MAX
from .sectors import SectorNemeses

MS = 1_000_000
PURSUED_TURNS = 40
KINDS = (*ChangeKind, ChangeKind.ADD_LEARNER, ChangeKind.PROMOTE, ChangeKind.PROMOTE)
Order = tuple[Change, ...]


class Operators(SectorNemeses):
    """Strikes that begin with an order."""

    # ------------------------------------------------------------------ orders

    def ask(self, change: Change) -> int:
        """Propose a change at the leader; its index or 0."""
        leader = self.cluster.leader()
        if leader is None or not leader.runs():
            return 0
        try:
            target = following(leader.raft.membership, change, 0)
            if not self.cluster.bears(None, target):
                return 0
            return leader.change_members(change)
        except UsageError:
            return 0

    def pursue(self, order: Order, turns: int = PURSUED_TURNS) -> None:
        """One change after the other, each asked for until it is taken."""
        if not order or turns == 0 or self.ended:
            return
        if self.ask(order[0]):
            order = order[1:]
        self.world.after((20 + self.world.below(60)) * MS, self.pursue, order, turns - 1)

    def some_of(self, identities: tuple[Identity, ...] | list[Identity]) -> Identity | None:
        return identities[self.world.below(len(identities))] if identities else None

    def spare(self) -> Identity | None:
        """A node that is no member yet."""
        leader = self.cluster.leader()
        if leader is None:
            return None
        membership = leader.raft.membership
        taken = {one.id for one in membership.voters + membership.learners}
        return self.some_of([node.identity for node in self.cluster.nodes.values() if node.id not in taken])

    def voter(self) -> Identity | None:
        leader = self.cluster.leader()
        return self.some_of(leader.raft.membership.voters) if leader is not None else None

    def change(self) -> None:
        """Any change, sensible or not."""
        leader = self.cluster.leader()
        if leader is None:
            return
        current = leader.raft.membership
        kind = KINDS[self.world.below(len(KINDS))]
        everybody = [node.identity for node in self.cluster.nodes.values()]
        if kind is ChangeKind.SET_VOTERS:
            members = tuple(one for one in everybody if self.world.chance() < 0.6)
        elif kind is ChangeKind.REPLACE:
            members = tuple(one for one in (self.voter(), self.some_of(current.learners)) if one is not None)
        elif kind is ChangeKind.PROMOTE:
            members = tuple(one for one in (self.some_of(current.learners),) if one is not None)
        else:
            members = tuple(one for one in (self.some_of(everybody),) if one is not None)
        self.ask(Change(kind, members))

    def grow(self) -> None:
        """A new node learns, and then it votes."""
        spare = self.spare()
        if spare is not None:
            self.pursue((Change(ChangeKind.ADD_LEARNER, (spare,)), Change(ChangeKind.PROMOTE, (spare,))))

    def shrink(self) -> None:
        one = self.voter()
        if one is not None:
            self.pursue((Change(ChangeKind.REMOVE, (one,)),), 10)

    def shrink_leader(self) -> None:
        """The leader itself leaves: it leads until that is committed."""
        leader = self.cluster.leader()
        if leader is not None:
            self.pursue((Change(ChangeKind.REMOVE, (leader.identity,)),), 10)

    def replace(self) -> None:
        spare, one = self.spare(), self.voter()
        if spare is not None and one is not None:
            self.pursue((Change(ChangeKind.ADD_LEARNER, (spare,)), Change(ChangeKind.REPLACE, (one, spare))))

    def demote(self) -> None:
        """A voter learns for a while; sometimes it votes again."""
        one = self.voter()
        if one is not None:
            again = (Change(ChangeKind.PROMOTE, (one,)),) if self.world.chance() < 0.5 else ()
            self.pursue((Change(ChangeKind.DEMOTE, (one,)), *again))

    def set_voters(self) -> None:
        """An explicit set, several at once."""
        leader = self.cluster.leader()
        if leader is not None:
            membership = leader.raft.membership
            members = tuple(one for one in membership.voters + membership.learners if self.world.chance() < 0.7)
            self.pursue((Change(ChangeKind.SET_VOTERS, members),), 10)

    def seven(self) -> None:
        """As many voters as a cluster may have, in one step, and three of them later (1 -> 7 -> 3)."""
        if len(self.cluster.nodes) >= VOTERS_MAX:
            self._toward(VOTERS_MAX, PURSUED_TURNS)

    def _toward(self, size: int, turns: int) -> None:
        if turns == 0 or self.ended:
            return
        leader = self.cluster.leader()
        if leader is not None:
            membership = leader.raft.membership
            if len(membership.voters) == size and not membership.joint:
                if size == VOTERS_MAX:
                    self.world.after((50 + self.world.below(500)) * MS, self._toward, 3, PURSUED_TURNS)
                return
            if self.ask(self._step_toward(size, membership)) and leader.raft.membership.joint:
                self._late_majority(leader)
        self.world.after((10 + self.world.below(20)) * MS, self._toward, size, turns - 1)

    def _late_majority(self, leader: Node) -> None:
        """A majority of the old voters, or of the new ones, hears late of it: nothing is agreed on before."""
        membership = leader.raft.membership
        side = membership.outgoing if self.world.chance() < 0.5 else membership.voters
        late = [one for one in side if one != leader.identity]
        while len(late) > len(side) // 2 + 1:
            del late[self.world.below(len(late))]
        self.network.slow.update({(leader.id, one.id): 60 * MS for one in late})

    def _step_toward(self, size: int, membership: Membership) -> Change:
        """One more learns, as long as there are too few; then so many vote."""
        voters, learners, surplus = membership.voters, membership.learners, len(membership.voters) - size
        taken = {one.id for one in voters + learners}
        others = [node.identity for node in self.cluster.nodes.values() if node.up and node.id not in taken]
        if others and len(voters + learners) < size:
            return Change(ChangeKind.ADD_LEARNER, (others[self.world.below(len(others))],))
        first = self.world.below(surplus + 1) if surplus > 0 else 0
        return Change(ChangeKind.SET_VOTERS, (voters + learners)[first : first + size])

    def mend(self) -> None:
        """Who lost its disk is taken in again as somebody else."""
        leader = self.cluster.leader()
        if leader is None:
            return
        for one in leader.raft.membership.voters:
            present = self.cluster.nodes[one.id].identity
            if present != one:
                self.pursue((Change(ChangeKind.ADD_LEARNER, (present,)), Change(ChangeKind.PROMOTE, (present,))))

    # ------------------------------------------------------------------ in the midst of a change

    def change_crash(self) -> None:
        """A process ends when a configuration reached somebody, or when somebody said so."""
        self._some_order()
        self.network.trap = self._change_crash

    def _change_crash(self, node: Node, peer_id: int, message: Message) -> None:
        carries = isinstance(message, AppendRequest) and message.memberships
        holds = isinstance(message, AppendReply) and message.accepted and node.raft.membership.joint
        if (carries or holds) and self.world.chance() < 0.4:
            self.network.trap = None
            victim = node if self.world.chance() < 0.5 else self.cluster.nodes[peer_id]
            if victim.up:
                arguments = (victim, victim.life, 20 + self.world.below(900))
                self.world.after(self.world.below(4 * MS), self._crash_and_return, *arguments)

    def leave_crash(self) -> None:
        """A leader that leaves ends when nobody but it holds the configuration without it (thesis 4.2.2)."""
        self.shrink_leader()
        self.network.trap = self._leave_crash

    def _leave_crash(self, node: Node, peer_id: int, message: Message) -> None:
        if not isinstance(message, AppendRequest) or not message.memberships:
            return
        newest = message.memberships[-1]
        if not newest.joint and node.identity not in newest.voters:
            self.network.trap = None
            self.network.blocked |= {(node.id, number) for number in self.cluster.nodes if number != node.id}
            self.cluster.reach_changed()
            arguments = (node, node.life, 100 + self.world.below(900))
            self.world.after((10 + self.world.below(30)) * MS, self._crash_and_return, *arguments)

    def change_cut(self) -> None:
        """The network parts while a configuration is on its way."""
        self._some_order()
        self.network.trap = self._change_cut

    def _change_cut(self, node: Node, peer_id: int, message: Message) -> None:
        if isinstance(message, AppendRequest) and message.memberships and self.world.chance() < 0.6:
            self.network.trap = None
            others = {number for number in self.cluster.nodes if self.world.chance() < 0.4}
            self.network.cut({node.id} | others, both_ways=True, beats=self.world.chance() < 0.7)

    def change_alone(self) -> None:
        """A leader that nobody hears any more begins a change; the others go on, with a change of their own."""
        leader = self.cluster.leader()
        if leader is None or not leader.runs():
            return
        self.network.cut({leader.id}, both_ways=True, beats=True)
        self._some_order()
        self.world.after((700 + self.world.below(900)) * MS, self._change_elsewhere)

    def _change_elsewhere(self) -> None:
        if not self.ended:
            self._some_order()
            self.world.after((50 + self.world.below(400)) * MS, self._heal_later)

    def _heal_later(self) -> None:
        if not self.ended:
            self.network.heal()

    def change_company(self) -> None:
        """A voter leaves, and stays with the leader when both lose the others: it counts for nothing any more."""
        leader, one = self.cluster.leader(), self.voter()
        if leader is not None and one is not None and one.id != leader.id:
            self.pursue((Change(ChangeKind.REMOVE, (one,)),), 10)
            self.world.after((60 + self.world.below(120)) * MS, self._cut_company, {leader.id, one.id})

    def _cut_company(self, ours: set[int]) -> None:
        if not self.ended:
            self.network.cut(ours, both_ways=True, beats=self.world.chance() < 0.7)
            self.cut_until_ns = self.world.now_ns + 1300 * MS

    def _some_order(self) -> None:
        orders: tuple[Callable[[], None], ...] = (
            self.grow, self.shrink, self.shrink_leader, self.replace, self.demote, self.set_voters, self.change,
        )  # fmt: skip
        orders[self.world.below(len(orders))]()

    # ------------------------------------------------------------------ leadership

    def transfer(self) -> None:
        """Leadership goes to somebody, or to the one with the longest log."""
        leader = self.cluster.leader()
        if leader is not None and leader.runs():
            ids = [0, *self.cluster.nodes]
            target = ids[self.world.below(len(ids))]
            if target != leader.id and leader.raft.transfer_leadership(target, leader.now()):
                self.world.note(f"node {leader.id} hands over to node {target}")
            leader.turn_soon()

    def transfer_cut(self) -> None:
        """The one that was told to campaign is cut off from some, or the old leader is."""
        self.transfer()
        self.network.trap = self._transfer_cut

    def _transfer_cut(self, node: Node, peer_id: int, message: Message) -> None:
        if isinstance(message, TimeoutNow):
            self.network.trap = None
            ours = {node.id if self.world.chance() < 0.5 else peer_id}
            if self.world.chance() < 0.4:
                ours.add(1 + self.world.below(len(self.cluster.nodes)))
            self.world.after(self.world.below(6 * MS), self._cut_off, ours)

    def _cut_off(self, ours: set[int]) -> None:
        if not self.ended:
            self.network.cut(ours, both_ways=self.world.chance() < 0.7, beats=self.world.chance() < 0.5)

    def transfer_crash(self) -> None:
        """The old or the new leader ends while leadership goes from one to the other."""
        self.transfer()
        self.network.trap = self._transfer_crash

    def _transfer_crash(self, node: Node, peer_id: int, message: Message) -> None:
        if isinstance(message, TimeoutNow):
            self.network.trap = None
            victim = node if self.world.chance() < 0.5 else self.cluster.nodes[peer_id]
            if victim.up:
                arguments = (victim, victim.life, 10 + self.world.below(600))
                self.world.after(self.world.below(12 * MS), self._crash_and_return, *arguments)

    def transfer_rotten(self) -> None:
        """Leadership goes to one that holds the whole log by all that the leader knows, and cannot read all of it."""
        leader, node = self.cluster.leader(), self.some(True)
        if leader is None or node is None or node is leader or not self.cluster.bears(node.identity):
            return
        node.crash(power_loss=False)
        first, last = node.disk.base + 1, len(node.disk.terms) - 1  # a cut under way may have come to its end
        low = max(first, last - self.world.below(20))
        node.disk.damage(range(low, min(low + 3, last + 1)), deep=False)
        self.cluster.look_after(node)
        self.cluster.start(node)
        self.world.after(MS, self._transfer_rotten_waits, leader, leader.life, node, node.life, 40)

    def _transfer_rotten_waits(self, leader: Node, life: int, node: Node, its_life: int, turns: int) -> None:
        if self.ended or turns == 0 or leader.life != life or node.life != its_life or not leader.runs():
            return
        if leader.raft.transfer_leadership(node.id, leader.now()):
            leader.turn_soon()
        else:
            arguments = (leader, life, node, its_life, turns - 1)
            self.world.after(MS // 2, self._transfer_rotten_waits, *arguments)

    # ------------------------------------------------------------------ images

    def lag(self) -> None:
        """One is away while the others write, make checkpoints and purge: it needs an image."""
        node = self.some(True)
        leader = self.cluster.leader()
        if node is None or leader is None or node is leader or not leader.runs():
            return
        self.network.cut({node.id}, both_ways=True, beats=True)
        self.world.after(30 * MS, self._write_on, 6)

    def _write_on(self, turns: int) -> None:
        leader = self.cluster.leader()
        if self.ended:
            return
        if leader is not None and leader.runs():
            leader.propose(4 + self.world.below(8), 300)
        if turns:
            self.world.after((10 + self.world.below(60)) * MS, self._write_on, turns - 1)
        else:
            self.network.heal()

    def lone_tail(self) -> None:
        """A leader alone makes a tail and ends; the others write less and purge it: their image ends in that tail."""
        leader = self.cluster.leader()
        if leader is None or not leader.runs() or len(self.cluster.nodes) < 3:
            return
        pairs = {(leader.id, number) for number in self.cluster.nodes if number != leader.id}
        self.network.blocked |= pairs
        self.cluster.reach_changed()
        for _ in range(3):
            leader.propose(4 + self.world.below(6), 600)
        span_ns = 2 * self.cluster.profile.disk_ns + 5 * MS
        self.world.after(span_ns, self._lone_tail_dies, leader, leader.life, leader.raft.term, pairs)

    def _lone_tail_dies(self, old: Node, life: int, term: int, pairs: set[tuple[int, int]]) -> None:
        if self.ended or old.life != life:
            return
        self.network.blocked -= pairs  # who redials is refused, and need not wait
        old.crash(power_loss=False)
        self.world.after(20 * MS, self._lone_tail_waits, old, old.life, term, 60)

    def _lone_tail_waits(self, old: Node, life: int, term: int, turns: int) -> None:
        if self.ended or turns == 0 or old.life != life:
            return
        leader = self.cluster.leader()
        if leader is None or leader.raft.term <= term or not leader.raft.opened or not leader.runs():
            self.world.after(20 * MS, self._lone_tail_waits, old, life, term, turns - 1)
            return
        leader.propose(1 + self.world.below(3), 300)
        self.world.after((20 + self.world.below(60)) * MS, self._lone_tail_ends, old)

    def _lone_tail_ends(self, old: Node) -> None:
        if not self.ended:
            self.checkpoint()
            self.cluster.start(old)

    def checkpoint(self) -> None:
        """Everybody makes a checkpoint and lets go of all that may go."""
        for node in self.cluster.nodes.values():
            node.purge(0)

    def image_cut(self) -> None:
        """Whoever takes an image is cut off from its sender, and comes back."""
        for node in self.cluster.nodes.values():
            for peer_id in node.sender.transfers if node.up else ():
                self.network.reset(node.id, peer_id, refused=False)

    def image_crash(self) -> None:
        """A process ends while it sends or takes an image, or in the midst of the installation."""
        for node in self.cluster.nodes.values():
            busy = node.receiver.installing or node.receiver.image is not None or node.sender.transfers
            if node.up and busy and self.world.chance() < 0.6:
                self._crash_and_return(node, node.life, 5 + self.world.below(300))
