"""What a node says about itself, as values, and how they are read off a group.

Reading takes no lock and waits for nothing. Invariant: values, once made, never change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from hiqlite.engine.model import Role

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
    millis_since_quorum: float | None = None  # leader only
    queued_bytes: int = 0  # writes that wait to be proposed
    counters: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Metrics:
    """Of one node. `groups` by name; also as attributes `db` and `cache`."""

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


def metrics_of(group: Group, node_id: int, counters: Mapping[str, float]) -> GroupMetrics:
    """A look at a group's engine and queues."""
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
        queued_bytes=group.proposals.buffer.queued_bytes,
        counters=dict(counters),
    )
