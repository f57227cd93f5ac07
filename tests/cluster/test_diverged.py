"""A node whose data are other than the others': it is found, serves nothing, and comes back with what they have."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import apsw
import pytest

import hiqlite
from hiqlite.runtime.agreement import Standing
from hiqlite.server import doctor
from hiqlite.server.demo import toml
from hiqlite.server.members import ask_any
from tests.cluster.growing import Growing, growing

ALL = (1, 2, 3)
ROWS = 200


def watched(folder: Path, **settings: Any) -> AbstractAsyncContextManager[Growing]:
    """Nodes that look at each other all the time."""
    return growing(folder, split_brain_interval="1 s", cache=False, **settings)


async def filled(nodes: Growing) -> None:
    await nodes.form(*ALL)
    await nodes.members(set(ALL), set())
    client = nodes.client(1)
    await client.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER)")
    await client.execute_many("INSERT INTO t VALUES (?, 0)", [(number,) for number in range(ROWS)])


async def tamper(nodes: Growing, number: int, sql: str) -> None:
    """As bytes that change on a disk: nobody is told, and SQLite finds its file sound."""
    await nodes.client(number).query("SELECT 1", consistency="linearizable")
    database = nodes.running[number].storage.db.database
    await nodes.stop(number)
    connection = apsw.Connection(str(database))
    connection.execute(sql).fetchall()
    assert connection.total_changes() > 0
    connection.close(True)
    await nodes.start(number, ALL, wait=True)


async def lead(nodes: Growing, number: int) -> None:
    await nodes.client(number).transfer_leadership(to=number)
    await nodes.wait_until(lambda: nodes.running[number].group.leads)


async def check_refused(nodes: Growing, number: int) -> None:
    """Neither reads nor writes, and it says why."""
    await nodes.wait_until(lambda: isinstance(nodes.running[number].group.failure, hiqlite.Diverged))
    client = nodes.client(number)
    for call in (
        lambda: client.query("SELECT n FROM t"),
        lambda: client.query("SELECT n FROM t", consistency="linearizable"),
        lambda: client.execute("INSERT INTO t VALUES (1000, 1)"),
        lambda: client.txn([("DELETE FROM t", ())]),
        lambda: client.migrate({"1_made.sql": "CREATE TABLE made (x)"}),
        lambda: anext(client.query_iter("SELECT n FROM t")),
    ):
        with pytest.raises(hiqlite.Diverged, match="cannot be trusted") as caught:
            await call()
        assert "evidence" in (caught.value.hint or "")
    health = nodes.running[number].health()
    assert not health.healthy and any("cannot be trusted" in reason for reason in health.reasons)


async def check_comes_back(nodes: Growing, number: int, evidence: str) -> None:
    """With what the others have, as a member; what it had is kept for people to look at."""
    folder = Path(nodes.config(number, ALL).data_path)
    await nodes.stop(number)
    await nodes.start(number, ALL, wait=True)
    await nodes.members(set(ALL), set())
    await nodes.wait_until(lambda: not (folder / "aside").exists())
    (kept,) = (folder / "evidence").iterdir()
    assert "another one than" in (kept / "diverged.txt").read_text()
    connection = apsw.Connection(str(kept / "hiqlite.db"))
    assert connection.execute(evidence).fetchall() == [(1,)]
    connection.close()
    await nodes.check_equal()
    await nodes.wait_until(lambda: nodes.leader)
    assert (await nodes.running[nodes.leader].equality.compare()).equal


@pytest.mark.parametrize("leads", [False, True])
async def test_a_row_that_changed_on_a_disk_is_found_by_a_comparison(tmp_path: Path, leads: bool) -> None:
    """Of a follower or of the leader, which hands over first; nothing that was acknowledged is lost. The log may reach
    back to the first entry, or only the others can give what came before it."""
    async with watched(tmp_path, **({"logs_until_snapshot": 20} if leads else {})) as nodes:
        await filled(nodes)
        for _ in range(100):
            await nodes.client(1).execute("UPDATE t SET n = 1 WHERE id = 1")
        if leads:
            await nodes.wait_until(lambda: nodes.running[3].group.engine.base_index > 0)
        await tamper(nodes, 3, "UPDATE t SET n = 7 WHERE id = 150")
        await lead(nodes, 3 if leads else 1)
        assert await nodes.client(3).query("SELECT n FROM t WHERE id = 150") == [(7,)]  # nobody knows yet
        done = await nodes.running[3 if leads else 1].equality.compare()
        assert not done.equal and done.silent == {}
        assert done.digests[1] == done.digests[2] != done.digests[3]
        await check_refused(nodes, 3)
        await nodes.wait_until(lambda: nodes.leader in (1, 2))
        await nodes.client(1).execute("INSERT INTO t VALUES (1001, 1)")
        await check_comes_back(nodes, 3, "SELECT count(*) FROM t WHERE n = 7")


async def test_the_scrub_finds_it_by_itself_part_by_part(tmp_path: Path) -> None:
    """Nobody has to ask: the leader's passes go on, over parts of a bounded size, and find it where it is."""
    async with watched(tmp_path, scrub_interval="10 ms") as nodes:
        await filled(nodes)
        await lead(nodes, 1)
        scrub = nodes.running[1].equality
        scrub.part_bytes = 1 << 8
        await nodes.wait_until(lambda: scrub.passes >= 2)
        assert scrub.parts > 2 * scrub.passes and scrub.judgement.others == ()
        await tamper(nodes, 3, "DELETE FROM t WHERE id = 199")
        await check_refused(nodes, 3)
        assert nodes.running[1].metrics().node["equality"]["differs"]
        assert nodes.running[1].health().ready
        await check_comes_back(nodes, 3, "SELECT count(*) = 199 FROM t")


async def test_outcomes_that_differ_are_found_without_reading_anything(tmp_path: Path) -> None:
    """The running hash of what entries gave: it is another one for ever once a write met another row."""
    async with watched(tmp_path) as nodes:
        await filled(nodes)
        await tamper(nodes, 2, "DELETE FROM t WHERE id = 5")
        await lead(nodes, 1)
        client = nodes.client(1)
        await client.execute("UPDATE t SET n = n + 1 WHERE id = 5")
        await asyncio.gather(*(client.execute("UPDATE t SET n = n + 1 WHERE id = 6") for _ in range(1100)))
        await check_refused(nodes, 2)
        assert "state" in str(nodes.running[2].group.failure)
        await check_comes_back(nodes, 2, "SELECT count(*) = 0 FROM t WHERE id = 5")


async def test_where_no_majority_agrees_writes_stop_and_people_are_asked(tmp_path: Path) -> None:
    """Each of three has something else: nobody throws anything away, reads go on."""
    async with watched(tmp_path) as nodes:
        await filled(nodes)
        for number in (2, 3):
            await tamper(nodes, number, f"UPDATE t SET n = {number} WHERE id = 9")
        await lead(nodes, 1)
        done = await nodes.running[1].equality.compare()
        assert len(set(done.digests.values())) == 3
        for number in ALL:
            assert nodes.running[number].equality.judgement.standing is Standing.SPLIT
            with pytest.raises(hiqlite.Diverged, match="no majority") as caught:
                await nodes.client(number).execute("UPDATE t SET n = 1")
            assert caught.value.outcome == "not_applied" and "operations.md" in (caught.value.hint or "")
            assert not nodes.running[number].health().ready
            assert len(await nodes.client(number).query("SELECT n FROM t")) == ROWS
            assert nodes.running[number].group.failure is None
        # Node 1 is right: a node that comes back empty takes what it has, and then there is a majority.
        await nodes.stop(2)
        nodes.lose(2)
        await nodes.start(2, ALL, wait=True)
        await nodes.members(set(ALL), set())
        await lead(nodes, 1)
        await nodes.running[1].equality.compare()
        await check_refused(nodes, 3)
        await nodes.client(2).execute("UPDATE t SET n = 1")


async def doctor_says(nodes: Growing) -> tuple[int | None, list[str], str]:
    """How `hiqlite doctor equality` ends when a user types it, the lines that it prints, and its errors."""
    config, file = nodes.config(2, (2, 3, 1)), nodes.folder / "hiqlite.toml"
    named = [f"{number} {' '.join(nodes.addresses(number))}" for number in (2, 3, 1)]
    file.write_text(toml({"nodes": named, "secret_raft": config.secret_raft, "secret_api": config.secret_api}))
    command = [sys.executable, "-m", "hiqlite.server.main", "doctor", "equality", "-c", str(file), "--timeout", "30"]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    output, errors = await process.communicate()
    return process.returncode, output.decode().splitlines(), errors.decode()


async def test_the_doctor_tells_of_all_nodes(tmp_path: Path) -> None:
    """Through any node; one that is down is named, and is no proof of anything. The command ends with 0 exactly when
    all is well."""
    async with watched(tmp_path) as nodes:
        await filled(nodes)
        await lead(nodes, 1)
        config = nodes.config(2, (2, 3, 1))
        code, said, errors = await doctor_says(nodes)
        assert (code, errors) == (0, "") and said[-1].startswith("the databases are equal behind entry "), said
        found = [line.split() for line in said[1:-2]]
        assert [words[:2] for words in found] == [["1", "yes"], ["2", "yes"], ["3", "yes"]]
        assert len({words[2] for words in found}) == 1
        await nodes.stop(3)
        answer = await ask_any(config, "equality", {"timeout": 30.0}, 30.0)
        assert not doctor.is_well(answer) and "2 of 3 nodes are equal" in doctor.lines(answer)[-1]
        await nodes.start(3, ALL, wait=True)
        await tamper(nodes, 3, "UPDATE t SET n = 3 WHERE id = 9")
        code, said, errors = await doctor_says(nodes)
        assert (code, errors) == (1, "") and said[-1].startswith("the databases are not equal behind entry "), said
        first, second, third = (line.split()[2] for line in said[1:-2])
        assert first == second != third


async def test_comparing_beside_writes_finds_them_equal(tmp_path: Path) -> None:
    """The look is at exactly one entry, on every node, however fast others follow."""
    async with watched(tmp_path) as nodes:
        await filled(nodes)
        await lead(nodes, 1)
        stopped = asyncio.Event()

        async def write(client: hiqlite.Client) -> None:
            while not stopped.is_set():
                await client.execute("UPDATE t SET n = n + random() % 1000 WHERE id = abs(random()) % 200")

        writers = [asyncio.create_task(write(nodes.client(number))) for number in ALL for _ in range(4)]
        for _ in range(20):
            done = await nodes.running[1].equality.compare()
            assert done.equal and set(done.digests) == set(ALL), done
        stopped.set()
        await asyncio.gather(*writers)
