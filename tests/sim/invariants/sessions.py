"""An answer of another session, incarnation or term changes nothing a leader knows of a peer.

consensus.md rules 8 and 15.
"""

from __future__ import annotations

from typing import Any

from hiqlite.engine.model import AppendReply, ProbeReply

from .base import Invariant


class Sessions(Invariant):
    name = "stale answers change nothing"

    def __init__(self, cluster: Any) -> None:
        super().__init__(cluster)
        self.before: Any = None

    def view(self, node: Any, peer_id: int) -> tuple[Any, ...]:
        peer = node.raft.progress(peer_id)
        flow = (peer.match_index, peer.next_index, len(peer.inflight), peer.replicating, peer.probe_sent_ns)
        return (*flow, peer.confirmed_round, peer.round_trip_ns)

    def receiving(self, node: Any, message: Any) -> None:
        self.before = None
        if not node.state.leads:
            return
        kind = type(message)
        if kind is AppendReply and message.term <= node.raft.term:
            peer = node.raft.progress(message.sender.id)
            if peer is None:
                return
            if message.epoch != peer.epoch or message.sender != peer.identity or message.term != node.raft.term:
                self.before = self.view(node, message.sender.id)
        elif kind is ProbeReply and message.term <= node.raft.term:
            peer = node.raft.progress(message.sender.id)
            if peer is None:
                return
            if message.sender != peer.identity or message.term != node.raft.term:
                self.before = self.view(node, message.sender.id)

    def received(self, node: Any, message: Any) -> None:
        if self.before is not None and self.view(node, message.sender.id) != self.before:
            self.fail(f"a stale answer of node {message.sender.id} moved what node {node.id} knows")
