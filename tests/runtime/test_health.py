"""Healthy and ready: what each of them needs, and what the reasons say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from hiqlite.runtime.health import GroupState, Health, Surroundings, judge
from hiqlite.runtime.split_brain import Contradiction, Kind

WELL = GroupState("db")
ALONE = Surroundings(1, fellows=1, strangers=0)


def verdict(*groups: GroupState, around: Surroundings = ALONE) -> Health:
    return judge(groups, around, grace_s=3.0, lag_max=100)


def test_a_node_whose_groups_are_well_is_healthy_and_ready() -> None:
    assert verdict(WELL, replace(WELL, name="cache")) == Health(True, True, ())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"failure": "the log failed"}, "db: it takes no part any more: the log failed"),
        ({"absent": "node 1 was removed"}, "db: node 1 was removed"),
        ({"leaderless_s": 3.1}, "db: no leader is known for 3.1 s"),
        ({"leaderless_s": float("inf")}, "db: no leader is known"),
    ],
)
def test_a_group_that_takes_no_part_makes_the_node_unhealthy(change: dict[str, Any], reason: str) -> None:
    """Either group does. One reason per group: what follows from it is not told."""
    sick = replace(WELL, **change, lag=10**6, caught_up=False, refusal="x")
    assert verdict(sick) == verdict(replace(WELL, name="cache"), sick) == Health(False, False, (reason,))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"caught_up": False}, "db: it has not yet applied what was committed when it started"),
        ({"lag": 100}, "db: it lags 100 entries behind"),
        ({"refusal": "the disk is full"}, "db: it takes no writes: the disk is full"),
    ],
)
def test_a_group_that_is_behind_or_refuses_makes_the_node_unready_only(change: dict[str, Any], reason: str) -> None:
    """A restart would not make room on a disk, nor catch up any faster."""
    assert verdict(replace(WELL, **change)) == Health(True, False, (reason,))


@pytest.mark.parametrize("change", [{"lag": 99}, {"leaderless_s": 3.0}])
def test_an_election_and_a_small_lag_change_nothing(change: dict[str, Any]) -> None:
    """A balancer that dropped all nodes at each election would make an outage of a second's pause."""
    assert verdict(replace(WELL, **change)) == Health(True, True, ())


@pytest.mark.parametrize("kind", [Kind.LEADER, Kind.MEMBERS, Kind.ENTRY])
def test_a_contradiction_makes_every_node_unready_that_knows_of_it(kind: Kind) -> None:
    """Also one that others take part in: nobody can tell who is right. The process is well where it is."""
    around = replace(ALONE, fellows=3, contradictions=(Contradiction(kind, (2, 3), "text"),))
    assert verdict(WELL, around=around) == Health(True, False, ("split brain: text",))


def test_a_node_that_runs_twice_is_unready_and_its_peers_are_not() -> None:
    """They are right, whichever of the two it is."""
    for number, ready in ((1, False), (2, True)):
        around = Surroundings(number, 3, 0, (Contradiction(Kind.TWICE, (1,), "text"),))
        assert verdict(WELL, around=around).ready is ready


@pytest.mark.parametrize(
    ("fellows", "strangers", "ready"),
    [
        (2, 1, True),  # two of three met each other: the third is the stray one
        (1, 2, False),  # and this is that one
        (1, 1, False),  # two nodes, two clusters: either may be wrong
        (2, 2, False), (3, 2, True),
        (1, 0, True),  # it was met, and is in this cluster now
    ],
)  # fmt: skip
def test_the_side_with_fewer_fellows_than_strangers_is_unready(fellows: int, strangers: int, ready: bool) -> None:
    """A stray node must not take a sound cluster out of service."""
    around = Surroundings(1, fellows, strangers, (Contradiction(Kind.CLUSTER, (3,), "text"),))
    assert verdict(WELL, around=around) == Health(True, ready, () if ready else ("split brain: text",))


def test_a_node_that_is_about_to_stop_is_healthy_and_not_ready() -> None:
    """It works, until everybody has been sent elsewhere."""
    found = verdict(WELL, around=replace(ALONE, leaving=True))
    assert found == Health(True, False, ("the node is about to stop",))


def test_a_node_without_a_leader_says_whom_it_does_not_reach_and_why() -> None:
    """While one is known, who is away is no trouble of this node's."""
    around = replace(ALONE, troubles="node 2: the secrets differ")
    found = verdict(replace(WELL, leaderless_s=float("inf")), around=around)
    assert found.reasons == ("db: no leader is known", "not reached: node 2: the secrets differ")
    assert verdict(WELL, around=around) == Health(True, True, ())


def test_reasons_come_with_the_worst_first() -> None:
    around = replace(ALONE, contradictions=(Contradiction(Kind.LEADER, (1, 2), "two leaders"),))
    found = verdict(replace(WELL, name="cache", lag=200), replace(WELL, failure="gone"), around=around)
    assert found.reasons == (
        "db: it takes no part any more: gone", "split brain: two leaders", "cache: it lags 200 entries behind",
    )  # fmt: skip
