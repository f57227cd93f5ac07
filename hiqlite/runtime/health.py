"""Whether a node works, and whether it should be asked: two verdicts on what it sees of itself.

*Healthy*: every group takes part and knew a leader a moment ago. It says whether the process is of any use where it is;
an election does not make it false, a lost majority does. *Ready*: healthy, and what it serves is as good as anywhere:
it has caught up since its start, lags by less than a bound, takes writes, and nothing says that the cluster is split.

Pure: must not know groups, clocks or networks. Invariant: who is ready is healthy; who is not ready has a reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .split_brain import Contradiction, Kind


@dataclass(frozen=True, slots=True)
class GroupState:
    """Of one group of this node, now.

    Args:
        failure: why it takes no part any more; empty while it does.
        absent: why this node is no member; empty when it is one.
        leaderless_s: since when nobody is known to lead, in seconds; infinite: nobody ever was.
        caught_up: whether it has applied, since this start, what was committed then.
        lag: entries known to be committed that it has not applied.
        refusal: why it takes no writes; empty when it does.
    """

    name: str
    failure: str = ""
    absent: str = ""
    leaderless_s: float = 0.0
    caught_up: bool = True
    lag: int = 0
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class Health:
    """`reasons`: everything that keeps the node from being ready, the worst first; empty exactly when it is."""

    healthy: bool
    ready: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What of the rest of the cluster counts.

    Args:
        own_id: of this node.
        fellows: how many nodes are met in this cluster now, this one included.
        strangers: how many of those that are looked for belong to another one.
        troubles: which nodes are looked for and not reached, and why.
        leaving: whether this node will stop soon: who comes now may be sent away in the middle of its work.
    """

    own_id: int
    fellows: int
    strangers: int
    contradictions: Sequence[Contradiction] = ()
    leaving: bool = False
    troubles: str = ""


def judge(groups: Sequence[GroupState], around: Surroundings, *, grace_s: float, lag_max: int) -> Health:
    """The two verdicts.

    Args:
        grace_s: how long a group may know no leader.
        lag_max: entries; a group that lags by so many is not ready.
    """
    sick = [reason for group in groups if (reason := _sickness(group, grace_s))]
    unready = [reason for group in groups if not _sickness(group, grace_s) for reason in _behind(group, lag_max)]
    alone = around.troubles and any(not one.failure and _sickness(one, grace_s) for one in groups)
    unreached = [f"not reached: {around.troubles}"] if alone else []
    leaving = ["the node is about to stop"] if around.leaving else []
    reasons = (*sick, *unreached, *_split(around), *unready, *leaving)
    return Health(not sick, not reasons, reasons)


def _sickness(group: GroupState, grace_s: float) -> str:
    if group.failure:
        return f"{group.name}: it takes no part any more: {group.failure}"
    if group.absent:
        return f"{group.name}: {group.absent}"
    if group.leaderless_s > grace_s:
        since = "" if group.leaderless_s == float("inf") else f" for {group.leaderless_s:.1f} s"
        return f"{group.name}: no leader is known{since}"
    return ""


def _behind(group: GroupState, lag_max: int) -> list[str]:
    found = []
    if group.refusal:
        found.append(f"{group.name}: it takes no writes: {group.refusal}")
    if not group.caught_up:
        found.append(f"{group.name}: it has not yet applied what was committed when it started")
    if group.lag >= lag_max:
        found.append(f"{group.name}: it lags {group.lag} entries behind")
    return found


def _split(around: Surroundings) -> list[str]:
    """What of the contradictions concerns this node's own trustworthiness.

    Nobody can tell which of two leaders, logs or memberships is the true one, so no node that knows of both is ready.
    A copy of a node harms that node, a stray node of another cluster only itself: who is met by at least as many
    strangers as fellows is the stray one.
    """
    found = []
    for one in around.contradictions:
        if one.kind is Kind.TWICE:
            concerned = around.own_id in one.nodes
        elif one.kind is Kind.CLUSTER:
            concerned = around.strangers >= around.fellows
        else:
            concerned = True
        if concerned:
            found.append(f"split brain: {one.text}")
    return found
