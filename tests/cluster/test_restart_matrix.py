"""A cluster that forms in any order, and each subset of its nodes ended in any way and started again in any order."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import pytest

from tests.cluster.restarting import Case, Restarting, all_cases, pairs, pairwise

ORDERS = [
    ((1, 2, 3),),
    *(((one,), others) for one, others in ((1, (2, 3)), (2, (1, 3)), (3, (1, 2)))),
    *((others, (one,)) for one, others in ((1, (2, 3)), (2, (1, 3)), (3, (1, 2)))),
    *(tuple((number,) for number in order) for order in itertools.permutations((1, 2, 3))),
]
PAUSE_S = 90.0
SLICE = (((1, 2, 3),), ((3,), (2,), (1,)))


@pytest.mark.parametrize(
    "blocks",
    [pytest.param(blocks, marks=() if blocks in SLICE else pytest.mark.long, id=str(blocks)) for blocks in ORDERS],
)
async def test_three_empty_nodes_form_one_cluster_in_whatever_order_they_start(
    tmp_path: Path, blocks: tuple[tuple[int, ...], ...]
) -> None:
    """At once, or each when the ones before it wait: three voters in both groups, one id, and it takes writes."""
    async with Restarting(tmp_path) as nodes:
        await nodes.form(*blocks)
        await nodes.begin()


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_three_empty_nodes_form_one_cluster_though_they_start_minutes_apart(tmp_path: Path) -> None:
    """Who waits is up and answers all the time, and forms with the last one as with one that came at once."""
    async with Restarting(tmp_path) as nodes:
        for number in (2, 3):
            await nodes.members.start(number)
            process = nodes.members.all[number].process
            assert process is not None
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(process.wait(), PAUSE_S)
        await nodes.members.start(1)
        await nodes.members.in_order()
        await nodes.begin()


@pytest.mark.timeout(300)
async def test_pairs_of_restarts_lose_nothing_and_rebuild_nothing(tmp_path: Path) -> None:
    """Under load, whose retries heal every error: all that was acknowledged is there, on three equal nodes."""
    async with Restarting(tmp_path) as nodes:
        await nodes.form((1, 2, 3))
        await nodes.begin()
        for case in pairwise(all_cases()):
            await shown(nodes, case)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("size", [1, 2, 3])
async def test_every_restart_loses_nothing_and_rebuilds_nothing(tmp_path: Path, size: int) -> None:
    """The whole matrix: of one node, of two, of all. Both groups are kept."""
    async with Restarting(tmp_path) as nodes:
        await nodes.form((1, 2, 3))
        await nodes.begin()
        for case in all_cases():
            if len(case.ends) == size:
                await shown(nodes, case)


@pytest.mark.long
@pytest.mark.timeout(3600)
async def test_restarts_with_a_cache_in_memory_lose_nothing_and_rebuild_nothing(tmp_path: Path) -> None:
    """Of one node and of two in every way, of all in pairs: the cache group is there again each time."""
    async with Restarting(tmp_path, cache_on_disk=False) as nodes:
        await nodes.form((1, 2, 3))
        await nodes.begin()
        few = [case for case in all_cases() if len(case.ends) < 3]
        for case in dict.fromkeys([*few, *pairwise(all_cases())]):
            await shown(nodes, case)


async def shown(nodes: Restarting, case: Case) -> None:
    """The case; whatever it raises names it."""
    try:
        await nodes.run(case)
    except BaseException as error:
        error.add_note(f"restart: {case}")
        raise


def test_the_selection_has_every_pair_of_the_matrix() -> None:
    """Few cases, and whatever two things can meet do meet in one of them."""
    everything, chosen = all_cases(), list(pairwise(all_cases()))
    assert len(everything) == len(set(everything)) == 6 + 72 + 336
    assert set().union(*map(pairs, chosen)) == set().union(*map(pairs, everything))
    assert len(chosen) < 25
