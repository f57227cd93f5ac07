"""Only the leader of the own term is a sign of life, and who heard one gives no vote (pre-vote, stickiness).

consensus.md rules 9 and 17; Raft thesis 4.2.3 and 9.6.
"""

from __future__ import annotations

from typing import Any

from hiqlite.engine.model import AppendRequest, ProbeRequest, VoteReply, VoteRequest

from .base import Invariant, of

MS = 1_000_000


class SignsOfLife(Invariant):
    name = "signs of life"

    def __init__(self, cluster: Any) -> None:
        super().__init__(cluster)
        self.heard: dict[int, tuple[int, int]] = {}  # node -> (term, time) of the newest true sign
        self.lower_ns = cluster.profile.settings.election_timeout_min_ms * MS

    def restarted(self, node: Any) -> None:
        self.heard[node.id] = (0, 0)

    @of(AppendRequest, ProbeRequest, VoteRequest)
    def receiving(self, node: Any, message: Any) -> None:
        kind = type(message)
        self.asked: Any = None
        if kind is AppendRequest or kind is ProbeRequest:
            if message.term >= node.state.term:
                self.heard[node.id] = (message.term, node.now())
        elif message.term > node.state.term:
            raft = node.raft
            term, at_ns = self.heard[node.id]
            hears = raft.leader_id and term == raft.term and node.now() - at_ns < self.lower_ns
            handed_over = message.transfer and not message.pre  # that its sender was told, `transfers` checks
            if (raft.leads or hears) and not handed_over:
                self.asked = (raft.term, raft.vote, len(raft.state.outbox.sends))

    @of(VoteRequest)
    def received(self, node: Any, message: Any) -> None:
        if self.asked is None:
            return
        raft = node.raft
        if (raft.term, raft.vote) != self.asked[:2]:
            self.fail(f"node {node.id} hears its leader and follows node {message.sender.id} into term {message.term}")
        for send in raft.state.outbox.sends[self.asked[2] :]:
            if isinstance(send.message, VoteReply) and send.message.granted:
                self.fail(f"node {node.id} hears its leader and grants node {message.sender.id} a pre-vote")

    def beat_heard(self, node: Any, term: int, sender: Any, at_ns: int) -> None:
        peer = node.state.peers_by_id.get(sender.id)  # a stranger, or another incarnation, is nobody's leader
        if peer is None or peer.identity.incarnation != sender.incarnation:
            return
        if term == node.state.term and at_ns > self.heard[node.id][1]:
            self.heard[node.id] = (term, at_ns)

    def stepped(self, node: Any) -> None:
        heard_ns = node.state.heard_ns
        if heard_ns > self.heard[node.id][1]:
            self.fail(f"node {node.id} takes something for a sign of life {heard_ns - self.heard[node.id][1]} ns late")
