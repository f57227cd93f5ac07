"""Which pairs of (what a peer is, how its leader sees it) the schedules went through: what was never seen is untested.

Must not influence a run: it draws no chance.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from hiqlite.engine.progress import Progress

if TYPE_CHECKING:
    from .cluster import Cluster
    from .node import Node

MS = 1_000_000
EVERY_NS = 40 * MS

Pairs = Counter[tuple[str, str]]


class Coverage:
    """Looks at all nodes again and again."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.pairs: Pairs = Counter()

    def look(self) -> None:
        for leader in self.cluster.leaders():
            frames = self.cluster.profile.settings.window_frames
            for peer in leader.state.peers:
                node = self.cluster.nodes[peer.peer_id]
                self.pairs[(_what(node), _seen(peer, leader, frames))] += 1
        self.cluster.world.after(EVERY_NS, self.look)


def _what(node: Node) -> str:
    if not node.up:
        return "down"
    if node.stopped:
        return "stopped"
    if node.stalled:
        return "stalled"
    if node.state.faulty:
        return "damaged"
    if node.state.unconfirmed:
        return "unconfirmed"
    return node.raft.role.name.lower().replace("_", "-")


def _seen(peer: Progress, leader: Node, frames: int) -> str:
    if not peer.connected:
        return "unlinked"
    if peer.needs_image:
        return "needs an image"
    if peer.fetch_outstanding:
        return "fetching"
    if not peer.replicating:
        return "probe sent" if peer.probe_sent_ns else "probing"
    if len(peer.inflight) >= frames:
        return "window full"
    if peer.inflight:
        return "in flight"
    return "level" if peer.match_index == leader.state.log.last_index else "behind"


def table(pairs: Pairs) -> str:
    """One line per role, all states of progress in it."""
    lines = []
    for what in sorted({what for what, _ in pairs}):
        seen = sorted(((count, state) for (other, state), count in pairs.items() if other == what), reverse=True)
        lines.append(f"{what:14} " + ", ".join(f"{state} {count}" for count, state in seen))
    return "\n".join(lines)
