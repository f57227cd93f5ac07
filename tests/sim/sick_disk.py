"""In peace a disk fills up or fails for good: within bounded time somebody leads whose disk does neither.

Must not decide what is right: `invariants/disk_full.py` does. Invariant: when it is over every disk is well and
everybody runs.
"""

from __future__ import annotations

from .cluster import Cluster
from .node import Node
from .standstill import dispensable

MS = 1_000_000
HEALTHY_NS = 8_000 * MS


def fall_sick(cluster: Cluster, how: str) -> bool:
    """Whether there was a leader that the others can do without; it is over when one leads that can write."""
    leader = cluster.leader()
    if leader is None or not dispensable(cluster, leader) or not leader.propose(1, 100):
        return False
    world = cluster.world
    sick, since_ns = leader, world.now_ns
    if how == "fails":
        leader.disk.failing = "written" if world.chance() < 0.5 else "synced"
    elif how == "fills up":
        leader.disk.fill(wait=world.chance() < 0.5)
    else:
        sick = _follower(cluster, leader)  # and may be elected
        sick.disk.fill(wait=False)
        world.after(50 * MS, leader.crash, False)
        world.after(100 * MS, cluster.start, leader)
    world.run_until(since_ns + 100 * MS)
    while not _led_by_healthy(cluster) and world.now_ns < since_ns + HEALTHY_NS:
        world.run_until(world.now_ns + 20 * MS)
    cluster.checks.fell_sick(sick, cluster.leader(), since_ns)
    if sick.disk.failure:
        sick.crash(power_loss=False)
        cluster.start(sick)
    sick.disk.make_room()
    return True


def _follower(cluster: Cluster, leader: Node) -> Node:
    voters = [cluster.nodes[one.id] for one in leader.raft.membership.voters if one != leader.identity]
    return voters[cluster.world.below(len(voters))]


def _led_by_healthy(cluster: Cluster) -> bool:
    leader = cluster.leader()
    return leader is not None and not leader.disk.full and not leader.disk.failing
