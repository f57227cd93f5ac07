"""One schedule: a seed becomes a cluster, faults, then peace; in peace it must elect, converge, and stay as it is."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from random import Random
from traceback import format_exception

from .cluster import Cluster
from .coverage import Pairs
from .faults import Faults
from .node import Node
from .profile import Profile, Strike, draw, draw_gate, draw_strikes
from .sick_disk import fall_sick
from .standstill import stand_still
from .world import PricePaid, Violation, World

MS = 1_000_000
CONVERGE_NS = 8_000 * MS
QUIET_NS = 300 * MS
HANDED_OVER_NS = 1_200 * MS


@dataclass(frozen=True, slots=True)
class Script:
    """All that a run depends on: equal scripts give equal runs."""

    seed: int
    profile: Profile
    strikes: tuple[Strike, ...]


@dataclass(slots=True)
class Outcome:
    """What one schedule did; `violation` is empty when every property held.

    `paid`: how it ended before its time, because a weak mode of `log_sync` lost what it may lose.
    """

    seed: int
    events: int
    committed: int
    terms: int
    violation: str = ""
    log: tuple[str, ...] = ()
    pairs: Pairs = field(default_factory=Counter)
    met: Pairs = field(default_factory=Counter)
    paid: str = ""


def script_of(seed: int) -> Script:
    random = Random(seed)
    profile = draw(random)
    strikes = draw_strikes(random, profile)
    return Script(seed, draw_gate(random, profile), strikes)


def run_schedule(seed: int, keep_log: bool = False) -> Outcome:
    """Run the schedule of a seed."""
    return run_script(script_of(seed), keep_log)


def run_script(script: Script, keep_log: bool = False) -> Outcome:
    """Run a schedule. Any exception counts as a violation: the engine may not fail either."""
    world = World(Random(script.seed), keep_log)
    violation = paid = ""
    cluster: Cluster | None = None
    try:
        cluster = Cluster(world, script.profile)
        world.after(0, cluster.coverage.look)
        _run(cluster, script)
    except Violation as broken:
        violation = str(broken)
    except PricePaid as price:
        paid = str(price)
    except Exception as error:  # an exception out of the engine is as bad as a broken invariant
        violation = f"{type(error).__name__}: {error}"
        if keep_log:
            world.note("".join(format_exception(error)))
    if cluster is None:
        return Outcome(script.seed, world.events, 0, 0, violation, tuple(world.log))
    term = max((node.raft.term for node in cluster.nodes.values() if node.life), default=0)
    told, seen = tuple(world.log), cluster.coverage
    return Outcome(script.seed, world.events, cluster.truth.last, term, violation, told, seen.pairs, seen.met, paid)


def _run(cluster: Cluster, script: Script) -> None:
    world, profile = cluster.world, cluster.profile
    for node in cluster.nodes.values():
        world.after(world.below(20 * MS), cluster.start, node)
        if profile.purge_every_ns:
            world.after(100 * MS + world.below(profile.purge_every_ns), node.tidy)
    faults = Faults(cluster, script.strikes)
    faults.plan()
    world.after(100 * MS, cluster.client, 1_000 * MS // profile.proposals_per_s, False)
    if profile.reads_per_s:
        world.after(100 * MS, cluster.client, 1_000 * MS // profile.reads_per_s, True)
    if not script.strikes:
        world.run_until(world.now_ns + 1_000 * MS)
        deadline = world.now_ns + CONVERGE_NS
        # Two voters may split their votes more than once before anybody reigns: nothing is unstable until then.
        while _reign(cluster) == (0, 0) and world.now_ns < deadline:
            world.run_until(world.now_ns + 50 * MS)
        before = _reign(cluster)
        world.run_until(world.now_ns + profile.duration_ns)
        cluster.checks.reigned("without a fault", before, _reign(cluster))
    else:
        world.run_until(world.now_ns + profile.duration_ns)
    faults.end()
    cluster.clients_end = True
    _converge(cluster)
    before = _reign(cluster)
    world.run_until(world.now_ns + QUIET_NS)
    cluster.checks.reigned("in peace", before, _reign(cluster))
    if profile.stands_still and stand_still(cluster):
        _converge(cluster)
    if profile.sick and fall_sick(cluster, profile.sick):
        _converge(cluster)


def _converge(cluster: Cluster) -> None:
    """A leader, the same log and database everywhere, an answered write and an answered read: within bounded time."""
    world = cluster.world
    deadline = world.now_ns + CONVERGE_NS
    written = 0
    reign = (0, 0)
    while world.now_ns < deadline:
        world.run_until(world.now_ns + 20 * MS)
        leader = cluster.leader()
        if leader is None:
            continue
        if reign != _reign(cluster) or not written:
            reign = _reign(cluster)
            written = leader.propose(1, 100)
            leader.read()
            reader = leader.raft.membership.voters[world.below(len(leader.raft.membership.voters))]
            cluster.nodes[reader.id].reader.begin()
        elif _agree(cluster, leader, written):
            return
        elif any(node.raft.faulty for node in cluster.nodes.values()):
            # A tail of lost terms may be longer than any log: only what is written in its place ends the doubt.
            leader.propose(1, 100)
    cluster.checks.unsettled(CONVERGE_NS)


def _agree(cluster: Cluster, leader: Node, written: int) -> bool:
    last, membership = cluster.truth.last, leader.raft.membership
    if last < written or leader.raft.last_index != last or membership.joint or leader.raft.transfer_id:
        return False
    members = membership.voters + membership.learners
    if leader.identity not in membership.voters:
        return False  # it leaves
    if cluster.world.now_ns - cluster.network.handed_over_ns < HANDED_OVER_NS:
        return False  # somebody may be told to campaign only now
    for node in cluster.nodes.values():
        if node.raft.term > leader.raft.term and leader.raft.progress(node.id) is not None:
            return False  # a candidate whose request waited for its disk is yet to be heard, though removed by now
        if node.identity not in members:
            continue
        if node.applied != last or node.raft.last_index != last or node.raft.leader_id != leader.id:
            return False
        if node.disk.waiting_since_ns or node.receiver.installing:
            return False
        if node.proposals or node.reads or node.reader.busy or node.raft.membership != membership or node.raft.faulty:
            return False  # every proposal and every read is answered
        cluster.checks.settled(node)
    return True


def _reign(cluster: Cluster) -> tuple[int, int]:
    leader = cluster.leader()
    return (leader.id, leader.raft.term) if leader is not None else (0, 0)
