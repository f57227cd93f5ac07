"""What a node says about itself, as values.

Knows numbers and names only; the node fills them in.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


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
    snapshot_index: int = 0
    millis_since_quorum: float | None = None  # leader only
    queued_bytes: int = 0  # writes that wait to be proposed
    counters: dict[str, float] = field(default_factory=dict)


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
