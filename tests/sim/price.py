"""What a loss of power may take where `log_sync` is weak (docs/durability.md), and when just that has happened.

A member that forgot what it had promised on its word is the same member as before. As long as every committed entry is
held by a majority of each set of voters, nothing follows from it. When one hangs by members that forgot it, the price
of these modes may have to be paid: it is committed by too few, or a leader is elected without it, or nobody can be
elected any more. Each of these three ends a schedule, and only if those who are to blame had forgotten the very entry;
every other property holds as ever: one leader per term, one vote, logs that agree, no message before its release
condition.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hiqlite.engine.model import Identity

from .voters import voter_sets
from .world import PricePaid

if TYPE_CHECKING:
    from .cluster import Cluster
    from .node import Node


def committed_by_too_few(cluster: Cluster, voters: tuple[Identity, ...], index: int, term: int) -> None:
    """With those who forgot the entry it was on a majority."""
    disks = [cluster.disks[one] for one in voters]
    said = [one for one in disks if one.holds(index, term) or (index, term) in one.forgot]
    if 2 * len(said) > len(voters) and any((index, term) in one.forgot for one in said):
        raise PricePaid(f"entry {index} of term {term} is committed, and forgotten by some who held it")


def elected_without(cluster: Cluster, node: Node, last: int) -> None:
    """One of the voters of a leader that lacks committed entries up to `last` had forgotten one of these."""
    terms = cluster.truth.terms[: last + 1]
    lacking = {(at, term) for at, term in enumerate(terms) if at >= len(node.terms) or node.terms[at] != term}
    voters = {one for each in voter_sets(node.config) for one in each}
    forgetful = sorted(one for one in voters if lacking & cluster.disks[one].forgot)
    if forgetful:
        raise PricePaid(f"node {node.id} leads without what {forgetful} have forgotten")


def nobody_electable(cluster: Cluster) -> None:
    """Of a set of voters no majority holds what is committed, and those who do not have forgotten it."""
    truth = cluster.truth
    newest = (truth.last, truth.terms[truth.last])
    for voters in voter_sets(cluster.membership_in(truth.values, cluster.membership)):
        lacking = [one for one in voters if not cluster.disks[one].holds(*newest)]
        forgotten = all(newest in cluster.disks[one].forgot for one in lacking)
        if 2 * len(lacking) >= len(voters) and forgotten and cluster.leader() is None:
            raise PricePaid(f"nobody can be elected: {lacking} have forgotten {newest}")
