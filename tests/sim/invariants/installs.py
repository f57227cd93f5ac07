"""An image takes a database forward, durably, before anybody counts on it (semantics.md section 10; Raft thesis 5)."""

from __future__ import annotations

from typing import Any

from hiqlite.engine.model import VoteRequest

from .base import Invariant, of


class Installs(Invariant):
    name = "installs"

    def __init__(self, cluster: Any) -> None:
        super().__init__(cluster)
        self.commit: dict[int, int] = {}

    def placed(self, node: Any, image: Any) -> None:
        """Nobody applies or leads while its database changes, and it never goes back behind what was committed here."""
        if node.raft.leads:
            self.fail(f"node {node.id} leads and gets another database")
        if image.index < node.state.handed_index:
            self.fail(f"node {node.id} goes from {node.state.handed_index} back to an image at {image.index}")

    def applying(self, node: Any, first: int, last: int) -> None:
        if node.receiver.installing:
            self.fail(f"node {node.id} is given [{first}, {last}] while its database changes")

    @of(VoteRequest)
    def sending(self, node: Any, message: Any, peer_id: int) -> None:
        if node.receiver.installing:
            self.fail(f"node {node.id} campaigns while its database changes")

    def image_finished(self, node: Any, peer_id: int, index: int) -> None:
        """The sender hears that the peer stands there: it does so even if the power goes now."""
        peer = self.cluster.nodes[peer_id]
        covered = max(peer.database.durable, len(peer.disk.terms) - 1, peer.raft.commit_index if peer.up else 0)
        if index > covered and peer.identity not in self.cluster.lost:
            self.fail(f"node {node.id} hears that node {peer_id} stands at {index}, durable there is {covered}")

    def installed(self, node: Any, image: Any) -> None:
        self.commit[node.id] = node.raft.commit_index

    def install_ended(self, node: Any, image: Any) -> None:
        raft = node.raft
        if raft.commit_index < max(self.commit[node.id], image.index) or raft.last_index < raft.commit_index:
            self.fail(f"node {node.id} commits {raft.commit_index} after an image at {image.index}")
        if node.terms[image.index] != image.term:
            self.fail(f"node {node.id} keeps a log of term {node.terms[image.index]} at an image of {image.term}")
