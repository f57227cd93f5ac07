"""applied <= handed <= commit <= last, synced <= written <= last, and no window grows beyond its limit.

Raft paper figure 2; consensus.md rules 14 and 16.
"""

from __future__ import annotations

from typing import Any

from hiqlite.engine.model import AppendReply

from .base import Invariant, of


class Indexes(Invariant):
    name = "indexes and limits"

    def __init__(self, cluster: Any) -> None:
        super().__init__(cluster)
        settings = cluster.profile.settings
        self.frames = settings.window_frames
        single = settings.frame_bytes_max + 6000
        self.bytes_max = settings.window_bytes + single
        self.memory = settings.memory_window_bytes
        self.memory_all = self.memory + single
        self.again: set[tuple[int, int]] = set()  # (leader, peer): in this reign it refused what it had promised

    def became_leader(self, node: Any) -> None:
        self.again = {pair for pair in self.again if pair[0] != node.id}

    @of(AppendReply)
    def receiving(self, node: Any, message: Any) -> None:
        if not message.accepted:
            peer = node.raft.progress(message.sender.id)
            if peer is not None and message.hint_index < peer.match_index:
                self.again.add((node.id, peer.peer_id))

    def stepped(self, node: Any) -> None:
        state = node.state
        outbox, last = state.outbox, state.log.last_index
        if not state.applied_index <= state.handed_index <= state.commit_index <= last:
            self.fail(
                f"node {node.id}: applied {state.applied_index}, handed {state.handed_index}, "
                f"commit {state.commit_index}, last {last}"
            )
        if not outbox.synced_index <= outbox.written_index <= last:
            self.fail(f"node {node.id}: synced {outbox.synced_index}, written {outbox.written_index}, {last}")
        if not state.leads:
            return
        if state.uncommitted_bytes > self.memory or state.window.size_bytes > self.memory_all:
            held = f"{state.uncommitted_bytes} bytes uncommitted, {state.window.size_bytes} all"
            self.fail(f"node {node.id} holds {held}")
        frames, bytes_max = self.frames, self.bytes_max
        for peer in state.peers:
            if len(peer.inflight) > frames or peer.inflight_bytes > bytes_max:
                self.fail(f"node {node.id} has {len(peer.inflight)} frames on their way to node {peer.peer_id}")
            # A probe may look below the match index when the peer says so: it cannot read what it promised any more, or
            # the refusal was overtaken by the promise. What it named is sent again.
            below = peer.match_index >= peer.next_index and peer.replicating
            if below and (node.id, peer.peer_id) not in self.again:
                self.fail(f"node {node.id}: match {peer.match_index}, next {peer.next_index} of node {peer.peer_id}")
