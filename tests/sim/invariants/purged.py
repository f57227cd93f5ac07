"""The log lets go only of what is durable elsewhere: purged <= checkpoint <= applied <= commit <= last.

consensus.md section 5; Raft thesis 5.1.
"""

from __future__ import annotations

from typing import Any

from .base import Invariant


class Purged(Invariant):
    name = "purged is durable in the database"

    def purging(self, node: Any, index: int) -> None:
        database = node.database
        if not index <= database.durable <= database.applied <= node.raft.commit_index <= node.raft.last_index:
            self.fail(
                f"node {node.id} purges up to {index}: durable {database.durable}, applied {database.applied}, "
                f"commit {node.raft.commit_index}, last {node.raft.last_index}"
            )

    def may_purge(self, node: Any, limit: int) -> None:
        """Nothing goes that is not applied, nor what a peer needs behind the image that is on its way to it."""
        if limit > node.database.applied:
            self.fail(f"node {node.id} may purge up to {limit}, applied is {node.database.applied}")
        for peer_id, transfer in node.sender.transfers.items():
            peer = node.raft.progress(peer_id)
            if node.raft.leads and peer is not None and peer.image_runs and limit > transfer.image.index:
                index = transfer.image.index
                self.fail(f"node {node.id} may purge up to {limit}, node {peer_id} gets an image at {index}")

    def restarted(self, node: Any) -> None:
        if node.raft.base_index != node.disk.base:
            self.fail(f"node {node.id} begins behind {node.raft.base_index}, its log at {node.disk.base}")
        if node.database.applied < node.disk.base:
            self.fail(f"node {node.id} has purged up to {node.disk.base}, its database ends at {node.database.applied}")
