"""What must be true of a cluster after every test: the nodes live, and their databases are equal."""

from __future__ import annotations

from hiqlite.client.local import LocalClient
from hiqlite.testing import Cluster
from tests.waiting import eventually


async def same_index(nodes: list[LocalClient]) -> None:
    """All nodes have applied all that any of them knows to be committed."""

    async def level() -> bool:
        groups = [(await node.metrics()).db for node in nodes]
        newest = max(group.commit_index for group in groups)
        return all(group.applied_index == newest for group in groups)

    await eventually(level)


async def same_content(nodes: list[LocalClient]) -> None:
    """The databases are equal once all nodes have applied the same."""
    await same_index(nodes)
    hashes = [await node.content_hash() for node in nodes]
    assert len(set(hashes)) == 1, hashes


async def check_equal(cluster: Cluster) -> None:
    """Every running node takes a write and serves reads of each kind, and contradicts no other one; all databases are
    the same."""
    await cluster.wait_for_leader()
    nodes = list(cluster.nodes.values())
    for node in nodes:
        await node.execute("CREATE TABLE IF NOT EXISTS alive (id INTEGER PRIMARY KEY, n INTEGER)")
        number = (await node.execute("INSERT INTO alive (n) VALUES (?)", [len(nodes)])).last_insert_rowid
        assert await node.query_value("SELECT count(*) FROM alive WHERE id = ?", [number]) == 1
        assert await node.query_value("SELECT max(id) FROM alive", consistency="linearizable") == number
    await same_content(nodes)
    assert [(await node.metrics()).node["split_brain"] for node in nodes] == [[] for _ in nodes]


async def everywhere(cluster: Cluster, sql: str) -> list[list[tuple[object, ...]]]:
    """The rows of a local read on each node, after all have applied the same."""
    nodes = list(cluster.nodes.values())
    await same_index(nodes)
    return [[tuple(row) for row in await node.query(sql)] for node in nodes]
