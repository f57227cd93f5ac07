"""Scripts that wait for the moment at which a fault hurts most, and then strike there.

Each is one method that may do nothing when it does not fit the moment. At most one waits for a message at a time: the
newest one (`network.trap`). Invariant: after `ended` nobody strikes any more.
"""

from __future__ import annotations

from hiqlite.engine.model import (
    AppendReply,
    AppendRequest,
    Message,
    ProbeReply,
    ProbeRequest,
    VoteReply,
    VoteRequest,
)

from .cluster import Cluster
from .node import Node

MS = 1_000_000


class Nemeses:
    """What the scripts share, and the scripts."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.world = cluster.world
        self.network = cluster.network
        self.ended = False
        self.cut_until_ns = 0  # no link heals by itself before
        self.rotting = 0  # whose tail is to be damaged

    def some(self, up: bool) -> Node | None:
        nodes = [node for node in self.cluster.nodes.values() if node.up is up]
        return nodes[self.world.below(len(nodes))] if nodes else None

    def _go_on(self, node: Node, life: int) -> None:
        if node.life == life and not node.runs() and not self.ended:
            node.wake(life)

    def _crash_and_return(self, node: Node, life: int, after_ms: int) -> None:
        if node.life == life and node.up and not self.ended:
            node.crash(power_loss=self.world.chance() < 0.6)
            self.world.after(after_ms * MS, self.cluster.start, node)

    # ------------------------------------------------------------------ elections

    def leader_kill(self) -> None:
        leader = self.cluster.leader()
        if leader is not None:
            leader.crash(power_loss=self.world.chance() < 0.5)

    def vote_crash(self) -> None:
        """A voter dies right after its vote left, and is back soon."""
        self.network.trap = self._vote_crash

    def _vote_crash(self, node: Node, peer_id: int, message: Message) -> None:
        if isinstance(message, VoteReply) and message.granted and not message.pre:
            self.network.trap = None
            self.world.after(0, self._crash_and_return, node, node.life, self.world.below(30))

    def twins(self) -> None:
        """Two campaigns for one term reach a voter one after the other; between them it dies and comes back.

        Requests for votes are slow while this lasts, so that those who lost the leader together campaign together.
        """
        leader = self.cluster.leader()
        if leader is None or self.network.vote_delay_ns:
            return
        self.network.vote_delay_ns = (20 + self.world.below(150)) * MS
        self.network.trap = self._twins
        leader.crash(power_loss=False)
        self.world.after(self.world.below(120) * MS, self.cluster.start, leader)
        self.world.after((300 + self.world.below(900)) * MS, self._twins_end)

    def _twins(self, node: Node, peer_id: int, message: Message) -> None:
        if isinstance(message, VoteReply) and message.granted and not message.pre:
            self.world.after(0, self._crash_and_return, node, node.life, 1 + self.world.below(8))

    def _twins_end(self) -> None:
        self.network.vote_delay_ns = 0
        self.network.trap = None

    def campaign_cut(self) -> None:
        """In the middle of a campaign the candidate is cut off from some, for one direction or both."""
        self.network.trap = self._campaign_cut

    def _campaign_cut(self, node: Node, peer_id: int, message: Message) -> None:
        if isinstance(message, VoteRequest) and not message.pre:
            self.network.trap = None
            others = [number for number in self.cluster.nodes if number != node.id and self.world.chance() < 0.6]
            pairs = {(node.id, number) for number in others}
            if self.world.chance() < 0.5:
                pairs |= {(number, node.id) for number in others}
            self.world.after(self.world.below(4 * MS), self._cut_pairs, pairs)

    def _cut_pairs(self, pairs: set[tuple[int, int]]) -> None:
        if not self.ended:
            self.network.blocked |= pairs
            self.cluster.reach_changed()

    def long_tail(self) -> None:
        """A leader alone makes a long tail of its term; another one commits a few entries, and dies for it."""
        leader = self.cluster.leader()
        if leader is None or not leader.runs() or len(self.cluster.nodes) < 3:
            return
        self.network.cut({leader.id}, both_ways=True, beats=True)
        leader.propose(6 + self.world.below(6), 600)
        self.world.after(400 * MS, self._long_tail_waits, leader, leader.life, leader.raft.term, 30)

    def _long_tail_waits(self, old: Node, life: int, term: int, turns: int) -> None:
        if self.ended or turns == 0 or old.life != life:
            return
        leader = self.cluster.leader()
        if leader is None or leader is old or leader.raft.term <= term or not leader.raft.opened:
            self.world.after(60 * MS, self._long_tail_waits, old, life, term, turns - 1)
            return
        leader.crash(power_loss=self.world.chance() < 0.5)
        self.network.heal()
        self.world.after((200 + self.world.below(2000)) * MS, self.cluster.start, leader)

    # ------------------------------------------------------------------ entries

    def ack_crash(self) -> None:
        """A leader dies when the first acknowledgement of an older term's entries reached it (thesis figure 3.7)."""
        self.network.trap = self._ack_crash

    def _ack_crash(self, node: Node, peer_id: int, message: Message) -> None:
        if isinstance(message, AppendReply) and message.accepted:
            leader = self.cluster.nodes[peer_id]
            if leader.up and leader.raft.leads and message.match_index < leader.raft.state.opened_index:
                self.network.trap = None
                delay = self.cluster.profile.delay_ns + self.world.below(3 * MS)
                self.world.after(delay, self._crash_and_return, leader, leader.life, 300)

    def one_copy(self) -> None:
        """A leader dies when an entry reached one peer, or none, and the others go on without the two."""
        leader = self.cluster.leader()
        if leader is None or not leader.runs():
            return
        others = [number for number in self.cluster.nodes if number != leader.id]
        kept = others[self.world.below(len(others))] if others and self.world.chance() < 0.7 else 0
        self.network.blocked |= {(leader.id, number) for number in others if number != kept}
        self.cluster.reach_changed()
        leader.propose(2, 200)
        self.network.trap = None
        self.world.after((1 + self.world.below(30)) * MS, self._one_copy_ends, leader, leader.life)

    def _one_copy_ends(self, leader: Node, life: int) -> None:
        if self.ended:
            return
        if leader.life == life:
            leader.crash(power_loss=self.world.chance() < 0.5)
        if self.world.chance() < 0.7:
            self.network.heal()

    def one_peer(self) -> None:
        """A leader dies the moment its newest entry reached exactly one peer."""
        self.network.trap = self._one_peer

    def _one_peer(self, node: Node, peer_id: int, message: Message) -> None:
        if isinstance(message, AppendRequest) and message.runs and node.raft.leads:
            self.network.trap = self._one_peer_acked
            pairs = {(node.id, number) for number in self.cluster.nodes if number not in (node.id, peer_id)}
            self.network.blocked |= pairs
            self.cluster.reach_changed()

    def _one_peer_acked(self, node: Node, peer_id: int, message: Message) -> None:
        if isinstance(message, AppendReply) and message.accepted and not self.ended:
            self.network.trap = None
            leader = self.cluster.nodes[peer_id]
            if leader.up:
                self.world.after(0, self._crash_and_return, leader, leader.life, 20 + self.world.below(1500))
            if self.world.chance() < 0.7:
                self.world.after(MS, self.network.heal)

    def beyond(self) -> None:
        """A follower applies what its disk only promised to write, and the power goes: its database is ahead.

        What was said to it before reaches it once more afterwards.
        """
        leader = self.cluster.leader()
        node = self.some(True)
        if leader is None or node is None or node is leader or not (leader.runs() and node.runs()):
            return
        node.disk.slow_sync_until_ns = self.world.now_ns + 2000 * MS
        self.network.echo = node.id
        for _ in range(4):
            leader.propose(1 + self.world.below(3), 300)
        self.world.after(5 * MS, self._beyond_waits, node, node.life, 60)

    def _beyond_waits(self, node: Node, life: int, turns: int) -> None:
        if self.ended or turns == 0 or node.life != life:
            self.network.echo = 0
            return
        if node.applied < len(node.disk.terms) or self.world.chance() < 0.3:
            self.world.after(5 * MS, self._beyond_waits, node, life, turns - 1)
            return
        database = node.database.copy()
        node.crash(power_loss=True)
        if self.world.chance() < 0.7:
            node.database = database
            database.durable = database.applied  # it was written to the disk, though nobody asked for that
        node.disk.slow_sync_until_ns = 0
        self.world.after((1 + self.world.below(40)) * MS, self.cluster.start, node)
        self.world.after(200 * MS, self._echo_ends)

    def echo(self) -> None:
        """All that one node is told it is told again later, in whatever session there is then."""
        node = self.some(True)
        if node is not None:
            self.network.echo = node.id
            self.world.after((200 + self.world.below(600)) * MS, self._echo_ends)

    def _echo_ends(self) -> None:
        self.network.echo = 0

    # ------------------------------------------------------------------ reads

    def sleepy_leader(self) -> None:
        """A leader falls asleep just after it sent a round; the answers find it when others lead already."""
        self.network.trap = self._sleepy_leader

    def _sleepy_leader(self, node: Node, peer_id: int, message: Message) -> None:
        if isinstance(message, ProbeRequest):
            self.network.trap = None
            self.world.after(0, self._sleep, node, node.life)

    def _sleep(self, node: Node, life: int) -> None:
        if node.life == life and node.runs() and not self.ended:
            self.world.note(f"node {node.id} falls asleep")
            node.stopped = True
            self.world.after((700 + self.world.below(800)) * MS, self._go_on, node, life)

    # ------------------------------------------------------------------ disks

    def rotten_tail(self) -> None:
        """A leader alone makes a tail that another one contradicts; as soon as it knows of that, its tail is damaged.

        What it can say of a lost term then is the newest term that it knows: that of the other leader. At times that
        one resigns, and what is lost is to be had of other followers only.
        """
        leader = self.cluster.leader()
        if leader is None or not leader.runs() or len(self.cluster.nodes) < 3:
            return
        self.network.cut({leader.id}, both_ways=True, beats=True)
        leader.propose(3 + self.world.below(6), 600)
        self.world.after(400 * MS, self._rotten_tail_waits, leader, leader.life, leader.raft.term, 30)

    def _rotten_tail_waits(self, old: Node, life: int, term: int, turns: int) -> None:
        if self.ended or turns == 0 or old.life != life:
            return
        leader = self.cluster.leader()
        if leader is None or leader is old or leader.raft.term <= term or not leader.raft.opened:
            self.world.after(60 * MS, self._rotten_tail_waits, old, life, term, turns - 1)
            return
        leader.propose(4 + self.world.below(6) + max(0, old.raft.last_index - leader.raft.last_index), 600)
        self._rotten_tail_meets(old, life, 30 if self.world.chance() < 0.7 else 0)

    def _rotten_tail_meets(self, old: Node, life: int, turns: int) -> None:
        """Mostly when all that contradicts the tail is committed."""
        if self.ended or old.life != life:
            return
        if turns and self.cluster.truth.last < old.raft.last_index:
            self.world.after(10 * MS, self._rotten_tail_meets, old, life, turns - 1)
            return
        self.rotting = old.id
        self.network.trap = self._rotten_tail
        self.network.heal()

    def _rotten_tail(self, node: Node, peer_id: int, message: Message) -> None:
        if node.id == self.rotting and isinstance(message, AppendReply | ProbeReply):
            self.network.trap = None
            self.world.after(0, self._rot_tail, node, node.life)

    def _rot_tail(self, node: Node, life: int) -> None:
        if self.ended or node.life != life or not self.cluster.bears(node.identity):
            return
        node.crash(power_loss=False)
        disk, truth = node.disk, self.cluster.truth
        tail = [
            index for index in range(disk.base + 1, len(disk.terms))
            if index > truth.last or disk.terms[index] != truth.terms[index]
        ]  # fmt: skip
        if tail:
            skipped = self.world.below(len(tail)) if self.world.chance() < 0.5 else 0
            disk.damage(tail[skipped:], deep=self.world.chance() < 0.6)
            self.cluster.look_after(node)
        leader = self.cluster.leader()
        if leader is not None and self.world.chance() < 0.4:
            self.world.after(self.world.below(30) * MS, self._resigns, leader, leader.life)
        self.world.after((1 + self.world.below(100)) * MS, self.cluster.start, node)

    def _resigns(self, leader: Node, life: int) -> None:
        if leader.life == life and leader.runs() and leader.raft.leads:
            leader.raft.step_down(leader.now(), "the tail of another node is damaged")
            leader.turn_soon()

    def io_crash(self) -> None:
        """A process ends between a write and what it does with the news of it."""
        node = self.some(True)
        if node is not None:
            node.disk.trap = self._io_crash

    def _io_crash(self, number: int, moment: str) -> bool:
        node = self.cluster.nodes[number]
        if self.ended or not node.up:
            return False
        self.world.note(f"node {number} ends when a write is {moment}")
        self._crash_and_return(node, node.life, self.world.below(400))
        return True

    def disk_full(self) -> None:
        """No space: new work is refused, leadership is handed over; at times what was taken waits too (rule 11)."""
        node = self.some(True)
        if node is not None:
            node.disk.fill(wait=self.world.chance() < 0.5)
            self.world.after((50 + self.world.below(1500)) * MS, node.disk.make_room)

    def flush_error(self) -> None:
        """A write or a flush fails: the node takes no part any more, and its process ends some time later (rule 11)."""
        node = self.some(True)
        if node is not None:
            node.disk.failing = "written" if self.world.chance() < 0.5 else "synced"
            self.world.after(self.world.below(100) * MS, self._failed_ends, node, node.life, 20)

    def _failed_ends(self, node: Node, life: int, turns: int) -> None:
        if self.ended or node.life != life or not node.up:
            return
        if node.disk.failure:
            self._crash_and_return(node, life, self.world.below(600))
        elif turns:
            self.world.after(self.world.below(100) * MS, self._failed_ends, node, life, turns - 1)
        else:
            node.disk.failing = ""

    def _return(self, node: Node, life: int) -> None:
        if node.life == life:
            self.cluster.start(node)
