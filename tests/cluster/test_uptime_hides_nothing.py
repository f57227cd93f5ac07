"""What a connection remembers may not decide about results: the same SQL before and after a restart of one node.

A node that runs for long has plans, caches, counters and a schema in memory that one which was just started lacks. Each
program is cut in two; in between one node is stopped and started. Then all hold the same, and a program of the second
half behaves on them as one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from hiqlite import ConstraintError
from hiqlite.client.local import LocalClient
from hiqlite.testing import Cluster, cluster
from tests.cluster.uptime import STORIES, Call, End, Story, batch, refused, sql, together, txn


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def three() -> AsyncIterator[Cluster]:
    async with cluster(3, cache=False, statement_timeout=0.2, migration_timeout=0.5) as running:
        yield running


async def restart(three: Cluster, *meanwhile: Call) -> int:
    """Stop a follower, do what is to be done without it, and start it; its number."""
    await three.wait_until(three.settled)
    number = three.followers[0]
    await three.stop(number)
    for call in meanwhile:
        await call(three.client)
    await three.start(number)
    await three.wait_until(three.settled)
    return number


async def rows_of_all(three: Cluster, query: str) -> list[tuple[object, ...]]:
    """The nodes are equal, and each gives these rows."""
    found = []
    for client in three.nodes.values():
        rows = await client.query(query, consistency="linearizable")
        found.append([tuple(row) for row in rows])
        assert found[-1] == found[0]
    assert len({await client.content_hash() for client in three.nodes.values()}) == 1
    return found[0]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
async def test_a_restart_changes_no_result(three: Cluster, story: Story) -> None:
    await three.wait_until(three.settled)
    for call in story.before:
        await call(three.client)
    restarted = await restart(three)
    for number, call in enumerate(story.after):
        await call(three.nodes[restarted] if number % 2 else three.client)
    found = await rows_of_all(three, story.query)
    assert story.rows is None or found == list(story.rows)


def words(number: int) -> str:
    return " ".join(f"w{(number * 7 + n) % 50}" for n in range(40))


def around_full_text(number: int) -> list[tuple[Call, End]]:
    """Plain writes, which join a run, before each of a full-text table; seldom what undoes a run or a part of it: it
    is applied again in a way of its own then, beside which nothing else could be seen."""
    calls: list[tuple[Call, End]] = [
        (sql("INSERT INTO cu VALUES (?)", 2 * number), None),
        (sql("INSERT INTO cu5 (rowid, body) VALUES (?, ?)", number, words(number)), None),
        (sql("INSERT INTO cu VALUES (?)", 2 * number + 1), None),
        (sql("INSERT INTO cu4 VALUES (?)", words(number)), None),
    ]
    if number % 16 == 3:
        calls += [
            (sql("INSERT OR ROLLBACK INTO cu VALUES (?)", number), ConstraintError),
            (txn("INSERT INTO cu5 VALUES ('never')", f"INSERT INTO cu VALUES ({number})"), ConstraintError),
            (sql("DELETE FROM cu5 WHERE rowid = ?", number - 1), None),
        ]
    return calls


def one_by_one(numbers: range) -> list[Call]:
    both = [one for number in numbers for one in around_full_text(number)]
    return [call if end is None else refused(call, end) for call, end in both]


def in_bulk(numbers: range) -> Call:
    both = [one for number in numbers for one in around_full_text(number)]
    return together(*[call for call, _ in both], ends=[end for _, end in both])


async def runs_since(client: LocalClient, index: int) -> int:
    """How many transactions it made of what was written after `index`."""
    runs = "SELECT count(*) FROM _hiqlite_run WHERE last_index > ?"
    return int(await client.query_value(runs, [index], consistency="linearizable"))


@pytest.mark.asyncio(loop_scope="module")
async def test_full_text_tables_do_not_depend_on_how_runs_are_cut(three: Cluster) -> None:
    """A node that was away makes few runs of what came to the others write by write, or in bulk: the tables that keep
    an index are the same."""
    await batch(
        "CREATE TABLE cu (x UNIQUE); CREATE VIRTUAL TABLE cu4 USING fts4 (body);"
        "CREATE VIRTUAL TABLE cu5 USING fts5 (body); INSERT INTO cu4 (cu4) VALUES ('automerge=2');"
        "INSERT INTO cu5 (cu5, rank) VALUES ('automerge', 2)"
    )(three.client)
    begun = (await three.client.metrics()).db.applied_index
    singles = one_by_one(range(16))
    restarted = await restart(three, *singles)
    cuts = {number: await runs_since(client, begun) for number, client in three.nodes.items()}
    assert cuts[three.leader] >= len(singles) > cuts[restarted], cuts
    await rows_of_all(three, "SELECT * FROM cu")
    restarted = await restart(three, in_bulk(range(16, 32)))
    await in_bulk(range(32, 48))(three.nodes[restarted])
    await sql("INSERT INTO cu5 (cu5) VALUES ('integrity-check')")(three.nodes[restarted])
    left = [number for number in range(48) if number % 16 != 2]
    found = sum("w1" in words(number).split() for number in left)
    assert await rows_of_all(three, "SELECT count(*) FROM cu5 WHERE cu5 MATCH 'w1'") == [(found,)]
