"""In peace the loop of a leader stands still, for longer than the gate lets it send heartbeats: the others go on.

Must not decide what is right: `invariants/replaced.py` does. Invariant: when it is over everybody runs.
"""

from __future__ import annotations

from .cluster import Cluster
from .node import Node

MS = 1_000_000
REPLACED_NS = 8_000 * MS


def stand_still(cluster: Cluster) -> bool:
    """Whether there was a leader that the others can do without; it stands until it is replaced."""
    leader = cluster.leader()
    if leader is None or not dispensable(cluster, leader):
        return False
    world, checks = cluster.world, cluster.checks
    since_ns = leader.stand_still()
    gate_ns = cluster.profile.settings.stall_ms * MS
    world.run_until(since_ns + gate_ns)
    checks.stood(leader, cluster.leader(), since_ns, True)
    while cluster.leader() is leader and world.now_ns < since_ns + gate_ns + REPLACED_NS:
        world.run_until(world.now_ns + 20 * MS)
    checks.stood(leader, cluster.leader(), since_ns, False)
    leader.wake(leader.life)
    return True


def dispensable(cluster: Cluster, leader: Node) -> bool:
    """Whether the other voters are a majority without it; an incarnation that is gone votes no more."""
    voters = leader.raft.membership.voters
    others = [one for one in voters if one != leader.identity and cluster.nodes[one.id].identity == one]
    return 2 * len(others) > len(voters)
