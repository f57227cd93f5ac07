"""A leader whose appends a majority leaves unanswered stops within one upper election timeout (rule 17).

Rounds and heartbeats that still pass do not save it: such a leader commits nothing.
"""

from __future__ import annotations

from typing import Any

from hiqlite.engine.model import AppendReply, AppendRequest

from .base import Invariant

MS = 1_000_000


class Unanswered(Invariant):
    name = "a leader whose appends are not answered steps down"

    def __init__(self, cluster: Any) -> None:
        super().__init__(cluster)
        self.limit_ns = (cluster.profile.settings.election_timeout_max_ms + 5) * MS * 1000 // min(cluster.profile.rates)
        self.waiting: dict[int, dict[int, int]] = {node: {} for node in cluster.membership_ids()}

    def restarted(self, node: Any) -> None:
        self.waiting[node.id].clear()

    def became_leader(self, node: Any) -> None:
        self.waiting[node.id].clear()

    def linked(self, node: Any, peer_id: int) -> None:
        self.waiting[node.id].pop(peer_id, None)

    def sending(self, node: Any, message: Any, peer_id: int) -> None:
        if type(message) is AppendRequest:
            self.waiting[node.id].setdefault(peer_id, self.world.now_ns)

    def received(self, node: Any, message: Any) -> None:
        if type(message) is AppendReply and message.sender.id in self.waiting[node.id]:
            peer = node.raft.progress(message.sender.id)
            if peer.unacked_since_ns:
                self.waiting[node.id][message.sender.id] = self.world.now_ns
            else:
                del self.waiting[node.id][message.sender.id]

    def stepped(self, node: Any) -> None:
        if not node.state.leads:
            return
        waiting = self.waiting[node.id]
        if not waiting or min(waiting.values()) + self.limit_ns > self.world.now_ns:
            return
        now_ns = self.world.now_ns
        if node.now() <= node.state.quorum_floor_ns + 5 * MS:
            return
        voters = self.cluster.voter_ids
        late = sum(now_ns - waiting.get(voter, now_ns) > self.limit_ns for voter in voters)
        if 2 * (len(voters) - late) <= len(voters):
            self.fail(f"node {node.id} leads, {late} of {len(voters)} voters do not answer: {waiting}")
