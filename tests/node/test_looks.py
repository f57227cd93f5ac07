"""A node's looks at its database: at exactly one entry, and nothing is left of one that nobody asks for."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

import hiqlite
from hiqlite._accel.batch import Op
from hiqlite.config import NodeConfig
from hiqlite.node import Node
from hiqlite.node_looks import LOOKS_MAX, READING_MAX, Looks
from hiqlite.runtime.scrub_record import Found, ScrubMark

DEADLINE_S = 30.0
MANY_ROWS = """
INSERT INTO t (text) WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
SELECT hex(zeroblob(500)) FROM n
"""


@pytest.fixture
async def node(tmp_path: Path):
    made = await Node.start(NodeConfig.from_mapping({"data_dir": str(tmp_path / "data"), "cache": False}))
    await made.client.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, text)")
    yield made
    await made.shutdown()


def looks_of(node: Node) -> Looks:
    return node.equality._looks


async def put(node: Node, mark: ScrubMark) -> int:
    op = Op(asyncio.get_running_loop(), lambda answer, index, detail: index, None, 0)
    node.group.proposals.mark(mark.record(), op)
    return await op


async def found(node: Node, number: int) -> Found:
    async with asyncio.timeout(DEADLINE_S):
        while (one := looks_of(node).found(number)) is None:
            await asyncio.sleep(0)
        return one


def threads() -> list[str]:
    return [one.name for one in threading.enumerate() if "scrub" in one.name]


async def test_a_look_is_at_its_mark_whatever_is_written_around_it(node: Node) -> None:
    """Writes issued in the same turn, before and behind it, go into one batch."""
    digests = []
    for number in range(20):
        await looks_of(node).expect(number, DEADLINE_S)
        before = [node.client.execute("INSERT INTO t (text) VALUES ('before')") for _ in range(5)]
        mark = asyncio.ensure_future(put(node, ScrubMark(number)))
        await asyncio.sleep(0)
        behind = [node.client.execute("INSERT INTO t (text) VALUES ('behind')") for _ in range(5)]
        await asyncio.gather(*before, *behind)
        one = await found(node, number)
        assert one.index == await mark and one.end is None
        await node.client.execute("DELETE FROM t WHERE text = 'behind'")
        digests.append(one.digest)
        assert one.digest == bytes.fromhex(await node.client.content_hash())
    assert len(set(digests)) == 20


async def test_a_mark_that_nobody_expects_changes_nothing(node: Node) -> None:
    before = await node.client.content_hash()
    await put(node, ScrubMark(7))
    await node.client.execute("INSERT INTO t (text) VALUES ('x')")
    await node.client.execute("DELETE FROM t")
    assert await node.client.content_hash() == before
    with pytest.raises(hiqlite.StorageError, match="did not look"):
        looks_of(node).found(7)
    assert not node.group.applier.marks.expected


async def test_marks_that_never_come_stop_nothing_and_are_forgotten(node: Node) -> None:
    """A leader may be lost between asking and the mark: applying goes on, and at most a few connections are open."""
    looks = looks_of(node)
    for number in range(3 * LOOKS_MAX):
        await looks.expect(number, DEADLINE_S)
    await node.client.execute("INSERT INTO t (text) VALUES ('x')")
    assert looks.found(3 * LOOKS_MAX - 1) is None
    with pytest.raises(hiqlite.StorageError):
        looks.found(0)
    await looks.expect(100, 0.01)
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                looks.found(100)
            except hiqlite.StorageError:
                break
            await asyncio.sleep(0)


async def test_who_gives_up_asking_ends_the_reading(node: Node) -> None:
    """Else each retry on a large database would keep one more snapshot, and SQLite's log would grow."""
    await node.client.execute(MANY_ROWS)
    looks = looks_of(node)
    looks.duty = 0.01
    for number in range(READING_MAX + 1):
        await looks.expect(number, DEADLINE_S)
        await put(node, ScrubMark(number))
    with pytest.raises(hiqlite.StorageError, match="busy"):
        looks.found(READING_MAX)
    reading = [one.reading for one in looks._looks.values() if one.reading is not None]
    assert len(reading) == READING_MAX and not any(one.done() for one in reading)
    for number in range(READING_MAX):
        looks._forget(number)
    async with asyncio.timeout(DEADLINE_S):
        ends = await asyncio.gather(*reading, return_exceptions=True)
    assert all(isinstance(one, Exception) for one in ends)


async def test_a_shutdown_waits_for_no_reading(node: Node) -> None:
    await node.client.execute(MANY_ROWS)
    looks = looks_of(node)
    looks.duty = 0.01
    await looks.expect(1, DEADLINE_S)
    await put(node, ScrubMark(1))
    assert looks.found(1) is None and threads()
    await node.shutdown()
    assert not threads()
    with pytest.raises(hiqlite.StorageError, match="about to stop"):
        await looks.expect(2, DEADLINE_S)


async def test_a_mark_is_no_other_leaders(node: Node) -> None:
    """A node that does not lead proposes none, and hands none on."""
    group = node.group
    group.proposals._leads = lambda: False
    with pytest.raises(hiqlite.NotLeader):
        group.proposals.mark(ScrubMark(1).record(), Op(asyncio.get_running_loop(), None, None, 0))
    group.proposals._leads = lambda: True
    op = Op(asyncio.get_running_loop(), None, None, 0)
    group.proposals.mark(ScrubMark(1).record(), op)
    group.proposals.follow()
    with pytest.raises(hiqlite.NotLeader):
        await op
    assert not group.proposals.forwarder.holds
