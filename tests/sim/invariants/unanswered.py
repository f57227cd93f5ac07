"""A leader whose appends a majority leaves unanswered stops within one upper election timeout.

consensus.md rule 17. Rounds and heartbeats that still pass do not save it: such a leader commits nothing.
"""

from __future__ import annotations

from typing import Any

from hiqlite.engine.model import AppendReply, AppendRequest
from tests.sim.voters import voter_sets

from .base import Invariant, of

MS = 1_000_000


class Unanswered(Invariant):
    name = "a leader whose appends are not answered steps down"

    def __init__(self, cluster: Any) -> None:
        super().__init__(cluster)
        self.limit_ns = (cluster.profile.settings.election_timeout_max_ms + 5) * MS * 1000 // min(cluster.profile.rates)
        self.waiting: dict[int, dict[int, int]] = {node: {} for node in cluster.nodes}
        self.config: dict[int, tuple[Any, int]] = dict.fromkeys(cluster.nodes, (None, 0))
        self.patient_ns = dict.fromkeys(cluster.nodes, 0)  # node -> until when nothing can have waited too long

    def restarted(self, node: Any) -> None:
        self.waiting[node.id].clear()

    def became_leader(self, node: Any) -> None:
        self.waiting[node.id].clear()
        self.config[node.id] = (None, 0)

    def linked(self, node: Any, peer_id: int) -> None:
        self.waiting[node.id].pop(peer_id, None)

    @of(AppendRequest)
    def sending(self, node: Any, message: Any, peer_id: int) -> None:
        self.waiting[node.id].setdefault(peer_id, self.world.now_ns)

    def image_finished(self, node: Any, peer_id: int, index: int) -> None:
        """The image answered for what was sent before it; what is sent behind it waits from then on."""
        peer = node.raft.progress(peer_id)
        if peer is not None and peer.image_runs:
            self.waiting[node.id].pop(peer_id, None)

    @of(AppendReply)
    def received(self, node: Any, message: Any) -> None:
        waiting, sender = self.waiting[node.id], message.sender
        if sender.id not in waiting:
            return
        peer = node.state.peers_by_id.get(sender.id)
        if peer is None:
            del waiting[sender.id]
            return
        if message.term != node.state.term or message.epoch != peer.epoch:
            return  # it answers nothing that this leader said in this session
        if sender is not peer.identity and sender != peer.identity:
            return
        if peer.unacked_since_ns:
            waiting[sender.id] = self.world.now_ns
        else:
            del waiting[sender.id]

    def led(self, node: Any) -> None:
        now_ns, membership = self.world.now_ns, node.state.config.membership
        known, since_ns = self.config[node.id]
        if known is not membership:
            since_ns = now_ns if known is not None else 0
            self.config[node.id] = (membership, since_ns)
        if self.patient_ns[node.id] > now_ns:
            return  # since then appends were sent and answered: what waits now began to wait later
        waiting = self.waiting[node.id]
        patient_ns = self.patient_ns[node.id] = min(waiting.values(), default=now_ns) + self.limit_ns
        if not waiting or patient_ns > now_ns or now_ns - since_ns <= self.limit_ns:
            return
        if node.now() <= node.state.quorum_floor_ns + 5 * MS:
            return
        own = node.identity
        for voters in voter_sets(membership):
            late = sum([one != own and self.late(node, one.id, waiting) for one in voters if one is not own])
            if 2 * (len(voters) - late) <= len(voters):
                self.fail(f"node {node.id} leads, {late} of {len(voters)} voters do not answer: {waiting}")

    def late(self, node: Any, peer_id: int, waiting: dict[int, int]) -> bool:
        """Whether an append has waited too long; where an image is on its way instead, that answers for it."""
        peer = node.raft.progress(peer_id)
        if peer is None or peer.needs_image:
            waiting.pop(peer_id, None)
            return False
        return bool(self.world.now_ns - waiting.get(peer_id, self.world.now_ns) > self.limit_ns)
