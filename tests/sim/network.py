"""Links between simulated nodes: sessions with epochs that are made, reset and refused; messages that suffer.

A session exists per pair; what was sent in an ended one is dropped, or, if the profile says so, still arrives.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappush
from typing import TYPE_CHECKING, Any

from hiqlite.engine.model import (
    AppendReply,
    AppendRequest,
    Message,
    ProbeReply,
    ProbeRequest,
    RepairReply,
    RepairRequest,
    TimeoutNow,
    VoteReply,
    VoteRequest,
)

from .codec import Codec

if TYPE_CHECKING:
    from .cluster import Cluster
    from .node import Body, Node

MS = 1_000_000


class Network:
    """Who can reach whom, by which session."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.world = cluster.world
        self.profile = cluster.profile
        self.blocked: set[tuple[int, int]] = set()  # log and control links, one direction
        self.beat_blocked: set[tuple[int, int]] = set()
        self.log_blocked: set[tuple[int, int]] = set()  # the log link alone
        self.slow: dict[tuple[int, int], int] = {}  # extra delay of everything, one direction
        self.sessions: dict[tuple[int, int], int] = {}  # ordered pair -> epoch; absent: no session
        self.epoch = 0
        self.echo = 0  # what this node is told comes once more, late and in any session
        self.vote_delay_ns = 0  # requests for votes take up to this much longer
        self.calm = False
        self.handed_over_ns = 0  # when somebody was told to campaign last
        self.codec = Codec() if self.profile.codec else None
        self.trap: Callable[[Node, int, Message], None] | None = None  # a nemesis that waits for a message

    # ------------------------------------------------------------------ sessions

    def connect(self, a: int, b: int) -> None:
        """Make a session if both run and reach each other, else try again later."""
        pair = (min(a, b), max(a, b))
        nodes = self.cluster.nodes
        if pair in self.sessions or not nodes[a].up or not nodes[b].up:
            return
        if (a, b) in self.blocked or (b, a) in self.blocked:
            self.world.after(50 * MS, self.connect, a, b)
            return
        self.epoch += 1
        self.sessions[pair] = self.epoch
        for own, peer in ((a, b), (b, a)):
            node = nodes[own]
            self.world.after(self.world.below(2 * MS), self._connected, node, node.life, peer, self.epoch)

    def _connected(self, node: Node, life: int, peer_id: int, epoch: int) -> None:
        if node.life != life or self.sessions.get(_pair(node.id, peer_id)) != epoch:
            return
        if not node.runs():
            self.world.after(20 * MS, self._connected, node, life, peer_id, epoch)
            return
        node.raft.peer_connected(peer_id, epoch, node.now())
        self.cluster.checks.linked(node, peer_id)
        node.turn_soon()

    def reset(self, a: int, b: int, refused: bool) -> None:
        """The session breaks; both ends that run learn it, and dial again."""
        if self.sessions.pop(_pair(a, b), 0) == 0:
            return
        for own, peer in ((a, b), (b, a)):
            node = self.cluster.nodes[own]
            if node.up:
                self.world.after(self.world.below(MS), self._lost, node, node.life, peer, False)
                if refused:
                    self.world.after(MS + self.world.below(20 * MS), self._lost, node, node.life, peer, True)
        if not refused:
            self.world.after(5 * MS + self.world.below(30 * MS), self.connect, a, b)

    def _lost(self, node: Node, life: int, peer_id: int, refused: bool) -> None:
        if node.life != life or _pair(node.id, peer_id) in self.sessions:
            return
        if not node.runs():
            self.world.after(20 * MS, self._lost, node, life, peer_id, refused)
            return
        node.raft.peer_lost(peer_id, refused, node.now())
        self.cluster.checks.linked(node, peer_id)
        node.turn_soon()

    # ------------------------------------------------------------------ messages

    def send(self, node: Node, peer_id: int, message: Message, body: Body | None) -> None:
        """One message on its way, once, twice or never."""
        world, kind, own = self.world, type(message), node.id
        if kind is TimeoutNow:
            self.handed_over_ns = world.now_ns
        if self.trap is not None:
            self.trap(node, peer_id, message)
        if world.keep_log:
            world.note(f"    {own} -> {peer_id}  {told(message)}")
        pair = (own, peer_id)
        epoch = self.sessions.get(pair if own < peer_id else (peer_id, own))
        if epoch is None or (self.blocked and pair in self.blocked):
            return
        if self.log_blocked and (kind is AppendRequest or kind is AppendReply) and pair in self.log_blocked:
            return
        if self.codec is not None:
            message, body = self.codec.through(message, body)
        chance = world.chance
        if self.calm:
            world.after(1 + int(chance() * MS), self._arrive, peer_id, epoch, own, message, body)
            return
        profile = self.profile
        if profile.loss and chance() < profile.loss:
            return
        copies = 2 if profile.duplicate and chance() < profile.duplicate else 1
        for _ in range(copies):
            late = profile.late and chance() < profile.late
            delay = 1 + int(chance() * (profile.late_ns if late else profile.delay_ns))
            if self.slow:
                delay += self.slow.get(pair, 0)
            if self.vote_delay_ns and isinstance(message, VoteRequest) and not message.pre:
                delay += world.below(self.vote_delay_ns)
            number = world.number = world.number + 1  # as `after` does it, the busiest place of all
            heappush(world.heap, (world.now_ns + delay, number, self._arrive, (peer_id, epoch, own, message, body)))
        if peer_id == self.echo:
            world.after((5 + world.below(500)) * MS, self._arrive_again, peer_id, message, body)

    def send_bulk(self, node: Node, peer_id: int, call: Callable[..., None], *arguments: Any) -> None:
        """About an image or a read, on a connection of its own; what is lost counts as a line that was cut."""
        epoch = self.sessions.get(_pair(node.id, peer_id), 0)
        profile, world = self.profile, self.world
        if not epoch or (node.id, peer_id) in self.blocked:
            return
        if not self.calm and profile.bulk_loss and world.chance() < profile.bulk_loss:
            return
        delay = 1 + world.below(MS if self.calm else profile.delay_ns)
        peer = self.cluster.nodes[peer_id]
        world.after(delay, self._bulk_arrives, node.id, peer, peer.life, epoch, call, arguments)

    def _bulk_arrives(
        self, sender_id: int, peer: Node, life: int, epoch: int, call: Callable[..., None], arguments: tuple[Any, ...]
    ) -> None:
        if peer.life != life or (sender_id, peer.id) in self.blocked:
            return
        if self.sessions.get(_pair(sender_id, peer.id)) != epoch:
            return
        if peer.runs():
            call(*arguments)
        else:
            self.world.after(20 * MS, self._bulk_arrives, sender_id, peer, life, epoch, call, arguments)

    def _arrive_again(self, peer_id: int, message: Message, body: Body | None) -> None:
        node = self.cluster.nodes[peer_id]
        if node.up:
            node.deliver(message, body)

    def _arrive(self, peer_id: int, epoch: int, sender_id: int, message: Message, body: Body | None) -> None:
        node = self.cluster.nodes[peer_id]
        pair = (sender_id, peer_id)
        if not node.up or (self.blocked and pair in self.blocked):
            return
        session = self.sessions.get(pair if sender_id < peer_id else (peer_id, sender_id))
        if session != epoch and self.world.chance() >= self.profile.stale_session:
            return
        node.deliver(message, body)

    def beat(self, node: Node, term: int, commit: int) -> None:
        """Heartbeats on connections of their own."""
        for peer in self.cluster.nodes.values():
            if peer is not node and (node.id, peer.id) not in self.beat_blocked and peer.up:
                if not self.calm and self.profile.loss and self.world.chance() < self.profile.loss:
                    continue
                arguments = (peer, peer.life, term, node.id, node.identity.incarnation, commit)
                self.world.after(1 + self.world.below(self.profile.delay_ns), self._beat_arrives, *arguments)

    def _beat_arrives(self, peer: Node, life: int, term: int, sender: int, incarnation: int, commit: int) -> None:
        if peer.life == life and not peer.stopped and (sender, peer.id) not in self.beat_blocked:
            peer.stamp(term, sender, incarnation, commit)

    # ------------------------------------------------------------------ faults

    def cut(self, ours: set[int], both_ways: bool, beats: bool) -> None:
        """Nothing passes from the nodes in `ours` to the others, nor back if `both_ways`."""
        ids = set(self.cluster.nodes)
        pairs = {(a, b) for a in ours for b in ids - ours}
        if both_ways:
            pairs |= {(b, a) for a, b in pairs}
        self.world.note(f"cut off {sorted(ours)}, both ways {both_ways}, beats {beats}")
        self.blocked |= pairs
        if beats:
            self.beat_blocked |= pairs
        self.cluster.reach_changed()

    def heal(self) -> None:
        self.world.note("links heal")
        self.blocked.clear()
        self.beat_blocked.clear()
        self.log_blocked.clear()
        self.slow.clear()
        self.cluster.reach_changed()


def told(message: Message) -> str:
    """A message as one reads it in an event log."""
    kind, term = type(message).__name__, message.term
    if isinstance(message, AppendRequest):
        previous = f"{message.previous_index} of {message.previous_term}"
        return f"{kind} term {term}: after {previous} up to {message.last_index}, commit {message.commit_index}"
    if isinstance(message, AppendReply):
        what = f"holds {message.match_index}" if message.accepted else f"refuses, try {message.hint_index}"
        return f"{kind} term {term}: {what}"
    if isinstance(message, VoteRequest):
        pre = "pre-vote, " if message.pre else ""
        pre = "handed over, " if message.transfer else pre
        return f"{kind} term {term}: {pre}log ends at {message.last_index} of {message.last_term}"
    if isinstance(message, VoteReply):
        return f"{kind} term {term}: {'pre-vote ' if message.pre else ''}{'granted' if message.granted else 'refused'}"
    if isinstance(message, ProbeRequest | ProbeReply):
        return f"{kind} term {term}: round {message.token}"
    if isinstance(message, RepairRequest):
        return f"{kind} term {term}: [{message.first}, {message.last}] of term {message.entry_term}"
    if isinstance(message, RepairReply):
        return f"{kind} term {term}: [{message.first}, {message.last}], committed {message.committed}"
    assert isinstance(message, TimeoutNow)
    return f"{kind} term {term}"


def _pair(a: int, b: int) -> tuple[int, int]:
    return (a, b) if a < b else (b, a)
