"""What a node says about itself, as values, and how they are read off a group.

Reading takes no lock and waits for nothing. Invariant: values, once made, never change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from hiqlite.engine.model import Identity, Role

from .group import Group


@dataclass(frozen=True, slots=True)
class Member:
    """One node of the cluster's membership."""

    id: int
    role: str  # voter or learner
    raft_addr: str
    api_addr: str


@dataclass(frozen=True, slots=True)
class GroupMetrics:
    """One Raft group of one node. Indexes are the highest of their kind, inclusive; 0 means none."""

    id: int
    role: str
    term: int
    leader_id: int  # 0: unknown
    first_index: int
    last_log_index: int
    commit_index: int
    applied_index: int
    members: tuple[int, ...]
    learners: tuple[int, ...]
    snapshot_index: int = 0  # what the database holds durably, without the log
    millis_since_quorum: float | None = None  # leader only: how old the newest answer of a majority is at most
    millis_since_leader: float | None = None  # since the leader was heard; 0 for itself, None: nobody leads
    queued_bytes: int = 0  # writes that wait to be proposed
    lag: int = 0  # entries that this node knows to be committed and has not applied
    follower_lag: Mapping[int, int] = field(default_factory=dict)  # leader only: id -> entries of its log not there yet
    counters: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Metrics:
    """Of one node. `groups` by name; also as attributes `db` and `cache`.

    `node`: id, version, cluster_id (hex, empty before there is one), uptime_s, healthy, ready, reasons (texts: why it
    is not ready), split_brain (texts: contradictions), strangers (ids), disk_low, equality (differs: texts,
    other_builds: ids, parts and passes that this leader compared), and maps of counters: network (peers, refusals),
    reads.
    """

    groups: dict[str, GroupMetrics]
    node: dict[str, Any] = field(default_factory=dict)

    @property
    def db(self) -> GroupMetrics:
        return self.groups["db"]

    @property
    def cache(self) -> GroupMetrics:
        return self.groups["cache"]

    def as_dict(self) -> dict[str, Any]:
        """The same as maps, lists and numbers only."""
        return asdict(self)


def metrics_of(group: Group, node_id: int, committed_index: int, counters: Mapping[str, float]) -> GroupMetrics:
    """A look at a group's engine and queues. `committed_index`: the highest that is committed as far as is known."""
    applied_index = group.applier.applied_index
    if not group.started:
        return GroupMetrics(node_id, "forming", 0, 0, 0, 0, 0, applied_index, (), (), counters=dict(counters))
    engine, membership = group.engine, group.engine.membership
    return GroupMetrics(
        id=node_id,
        role=Role(engine.role).name.lower(),
        term=engine.term,
        leader_id=engine.leader_id,
        first_index=engine.base_index + 1,
        last_log_index=engine.last_index,
        commit_index=engine.commit_index,
        applied_index=applied_index,
        members=tuple(one.id for one in membership.voters),
        learners=tuple(one.id for one in membership.learners),
        snapshot_index=group.machine.durable_index,
        millis_since_quorum=_millis_since_quorum(group),
        millis_since_leader=_millis_since_leader(group),
        queued_bytes=group.proposals.buffer.queued_bytes,
        lag=max(0, committed_index - applied_index),
        follower_lag=_follower_lag(group),
        counters=dict(counters),
    )


def _millis_since_quorum(group: Group) -> float | None:
    """Since the newest round of questions that a majority of the voters (of each half, while they change) answered."""
    engine = group.engine
    if not engine.leads:
        return None
    now_ns = group.clock.monotonic_ns()
    oldest_ns = now_ns
    membership = engine.membership
    for voters in filter(None, (membership.voters, membership.outgoing)):
        asked = sorted((_asked_ns(group, one, now_ns) for one in voters), reverse=True)
        oldest_ns = min(oldest_ns, asked[len(voters) // 2])
    return (now_ns - oldest_ns) / 1e6 if oldest_ns else None


def _asked_ns(group: Group, voter: Identity, now_ns: int) -> int:
    """When the newest question that this voter has answered was sent; 0: it answered none."""
    progress = group.engine.progress(voter.id)
    if voter == group.identity:
        return now_ns
    return 0 if progress is None or progress.identity != voter else progress.round_trip_ns


def _millis_since_leader(group: Group) -> float | None:
    engine = group.engine
    if engine.leads:
        return 0.0
    heard_ns = engine.state.heard_ns
    return max(0, group.clock.monotonic_ns() - heard_ns) / 1e6 if engine.leader_id and heard_ns else None


def _follower_lag(group: Group) -> dict[int, int]:
    engine = group.engine
    if not engine.leads:
        return {}
    membership = engine.membership
    ids = {one.id for one in (*membership.voters, *membership.learners)} - {group.identity.id}
    known = {number: engine.progress(number) for number in sorted(ids)}
    return {
        number: engine.last_index - (progress.match_index if progress is not None else 0)
        for number, progress in known.items()
    }
