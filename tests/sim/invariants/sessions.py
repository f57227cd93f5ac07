"""An answer of another session, incarnation or term changes nothing a leader knows of a peer.

consensus.md rules 8 and 15.
"""

from __future__ import annotations

from typing import Any

from hiqlite.engine.model import AppendReply, ProbeReply

from .base import Invariant, of


class Sessions(Invariant):
    name = "stale answers change nothing"

    def __init__(self, cluster: Any) -> None:
        super().__init__(cluster)
        self.before: Any = None

    def view(self, node: Any, peer_id: int) -> tuple[Any, ...]:
        peer = node.raft.progress(peer_id)
        flow = (peer.match_index, peer.next_index, len(peer.inflight), peer.replicating, peer.probe_sent_ns)
        return (*flow, peer.confirmed_round, peer.round_trip_ns)

    @of(AppendReply, ProbeReply)
    def receiving(self, node: Any, message: Any) -> None:
        self.before = None
        state = node.state
        if not state.leads or message.term > state.term:
            return
        sender = message.sender
        peer = state.peers_by_id.get(sender.id)
        if peer is None:
            return
        fresh = message.term == state.term and (sender is peer.identity or sender == peer.identity)
        if not fresh or (type(message) is AppendReply and message.epoch != peer.epoch):
            self.before = self.view(node, sender.id)

    @of(AppendReply, ProbeReply)
    def received(self, node: Any, message: Any) -> None:
        if self.before is not None and self.view(node, message.sender.id) != self.before:
            self.fail(f"a stale answer of node {message.sender.id} moved what node {node.id} knows")
