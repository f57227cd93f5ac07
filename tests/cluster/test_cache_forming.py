"""A disk is lost while the cache group forms, the database's group having formed: it forms all the same."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest

from hiqlite.engine.model import Identity
from hiqlite.logstore.folder import CACHE, DB
from hiqlite.logstore.meta import Meta
from hiqlite.testing import cluster
from tests.cluster.agreement import eventually
from tests.cluster.growing import growing
from tests.cluster.test_two_groups import SETTINGS, members_of_started, node

LOST = 1 << 40  # an incarnation that nobody is any more


def as_when_it_formed(folder: Path, recorded: tuple[Identity, ...]) -> None:
    """What the metadata held once a node had recorded the cache group's set, and acted by none."""
    meta = Meta.open(folder / "meta")
    own = meta.incarnation(CACHE)
    assert own is not None and meta.membership(DB) is not None
    meta.begin_incarnation(CACHE, own)
    if recorded:
        assert meta.cluster_id is not None
        meta.set_formed(CACHE, meta.cluster_id, recorded)
    meta.close()


async def test_a_set_whose_member_was_lost_is_left_and_another_one_forms() -> None:
    """Who leaves it is another incarnation from then on: no vote that it gives counts for who formed with the set."""
    async with cluster(3, cache_storage_disk=True, **SETTINGS) as three:
        await three.client.execute("CREATE TABLE t (x)")
        recorded: tuple[Identity, ...] = ()

        async def known() -> bool:
            return all(len(members_of_started(node(three, number))) == 3 for number in (1, 2, 3))

        await eventually(known)
        recorded = tuple(
            Identity(number, LOST if number == 3 else node(three, number).groups[CACHE].group.identity.incarnation)
            for number in (1, 2, 3)
        )
        folders = {number: node(three, number).config.data_path for number in (1, 2, 3)}
        for number in (1, 2, 3):
            await three.stop(number)
        for number in (1, 2, 3):
            as_when_it_formed(folders[number], recorded if number != 3 else ())
        for number in (1, 2, 3):
            await three.start(number)
        await eventually(known)
        formed = members_of_started(node(three, 1))
        assert all(members_of_started(node(three, number)) == formed for number in (2, 3))
        assert not set(formed) & set(recorded)
        for number in (1, 2, 3):  # and each is that after a restart
            await three.stop(number)
            await three.start(number)
        await eventually(known)
        assert members_of_started(node(three, 1)) == formed


async def test_a_lost_majority_of_the_cache_group_begins_anew_by_way_of_memory(tmp_path: Path) -> None:
    """Two of three lost their logs, so the group waits for good. Kept in memory for one start, and on disk again, it
    begins anew: what was waited for is forgotten with the rest."""
    async with growing(tmp_path) as nodes:

        async def restarted(*, on_disk: bool) -> None:
            for number in tuple(nodes.running):
                await nodes.stop(number)
            for number in (1, 2, 3):
                await nodes.start(number, (1, 2, 3), cache_storage_disk=on_disk)

        async def acting() -> None:
            groups = [nodes.running[number].groups for number in (1, 2, 3)]
            await nodes.wait_until(lambda: all(one[CACHE].group.started for one in groups))
            await nodes.wait_until(lambda: all(one[CACHE].group.applier.applied_index > 0 for one in groups))

        await restarted(on_disk=True)
        await acting()
        for number in (1, 2, 3):
            await nodes.stop(number)
        for number in (2, 3):
            shutil.rmtree(tmp_path / f"node{number}" / "log" / "cache")
        await restarted(on_disk=True)
        assert all(nodes.running[number].groups[CACHE].storage.returns for number in (2, 3))
        for on_disk in (False, True):
            await restarted(on_disk=on_disk)
            await acting()
            await nodes.members({1, 2, 3}, set())


async def test_a_node_without_a_cache_group_is_named_to_who_waits_for_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One config switches it off: the others hear of that node, only not in this group, and say what differs."""
    with caplog.at_level(logging.INFO, "hiqlite"):
        async with growing(tmp_path) as nodes:
            for number in (1, 2, 3):
                await nodes.start(number, (1, 2, 3), cache=number != 3)
            said = "node 3 is connected and has no cache group: its config differs"
            await nodes.wait_until(lambda: said in caplog.text)
