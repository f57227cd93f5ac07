"""Which pairs of (what a peer is, how its leader sees it) the schedules went through: what was never seen is untested.

So are reads, sizes of memberships and troubles of disks that never came to pass.

Must not influence a run: it draws no chance.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from hiqlite.engine.model import Identity, Membership, Role
from hiqlite.engine.progress import Progress

if TYPE_CHECKING:
    from .cluster import Cluster
    from .node import Node

MS = 1_000_000
EVERY_NS = 40 * MS
STANDS_NS = 100 * MS  # a disk that shows no progress for so long

ROLES = {role: role.name.lower().replace("_", "-") for role in Role}

NOWHERE: tuple[Identity | None, Membership | None, str] = (None, None, "")

Pairs = Counter[tuple[str, str]]


class Coverage:
    """Looks at all nodes again and again."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.pairs: Pairs = Counter()
        self.places: dict[int, tuple[Identity | None, Membership | None, str]] = {}  # of nodes, as last looked up
        self.met: Pairs = Counter()  # (about what, what came to pass)

    def note(self, about: str, what: str) -> None:
        """Something came to pass that no look at a moment would see."""
        self.met[(about, what)] += 1

    def changing(self, membership: Membership) -> None:
        """How many vote by a configuration that a leader appends, and who has to agree meanwhile."""
        voters = str(len(membership.voters))
        told = f"{len(membership.outgoing)} become {voters}" if membership.joint else voters
        self.note("voters", f"{told}, others learn" if membership.learners else told)

    def disk(self, node: Node, what: str) -> None:
        """What a node learns of its disk, and who it is then."""
        self.note("disks", f"{what}, {ROLES[node.state.role]}")

    def look(self) -> None:
        cluster = self.cluster
        now_ns = cluster.world.now_ns
        for leader in cluster.leaders():
            if leader.disk.waiting_since_ns and now_ns - leader.disk.waiting_since_ns > STANDS_NS:
                self.disk(leader, "stands still")
            frames, membership = cluster.profile.settings.window_frames, leader.raft.membership
            for peer in leader.state.peers:
                what = self._what(cluster.nodes[peer.peer_id], membership)
                self.pairs[what, _seen(peer, leader, frames)] += 1
        cluster.world.after(EVERY_NS, self.look)

    def _what(self, node: Node, membership: Membership) -> str:
        if not node.up:
            return "down"
        if node.failed:
            return "failed"
        if node.stopped:
            return "stopped"
        if node.stalled:
            return "stalled"
        state = node.state
        if node.receiver.installing:
            return "installing"
        if state.faulty:
            return "damaged"
        if state.unconfirmed:
            return "unconfirmed"
        identity, known, place = self.places.get(node.id, NOWHERE)
        if identity is not node.identity or known is not membership:
            place = _place(node.identity, membership)
            self.places[node.id] = (node.identity, membership, place)
        return place + ROLES[state.role]


def _place(identity: Identity, membership: Membership) -> str:
    if identity in membership.outgoing and identity not in membership.voters:
        return "outgoing "
    if identity in membership.learners:
        return "learning "
    return "" if identity in membership.voters else "departed "


def _seen(peer: Progress, leader: Node, frames: int) -> str:
    if not peer.connected:
        return "unlinked"
    if leader.state.transfer_id == peer.peer_id:
        return "told to campaign" if leader.state.transfer_sent else "to be handed over to"
    if peer.needs_image:
        if peer.image_runs:
            return "image on its way"
        return "image to be resumed" if peer.image_index else "image asked for"
    if peer.fetch_outstanding:
        return "fetching"
    if not peer.replicating:
        return "probe sent" if peer.probe_sent_ns else "probing"
    if peer.learner and peer.catch_up_goal and not peer.caught_up:
        return "catching up"
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
        lines.append(f"{what:20} " + ", ".join(f"{state} {count}" for count, state in seen))
    return "\n".join(lines)
