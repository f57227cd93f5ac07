"""A disk is lost while the cache group forms, the database's group having formed: it forms all the same."""

from __future__ import annotations

from pathlib import Path

from hiqlite.engine.model import Identity
from hiqlite.logstore.folder import CACHE, DB
from hiqlite.logstore.meta import Meta
from hiqlite.testing import cluster
from tests.cluster.agreement import eventually
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
