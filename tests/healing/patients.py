"""Nodes as a crash left them, to be damaged and started: a member of three, and one that is alone."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import hiqlite
from hiqlite._accel.batch import Op
from hiqlite.config import NodeConfig
from hiqlite.engine.model import Identity
from hiqlite.logstore.aside import EVIDENCE, Aside
from hiqlite.node import Node
from hiqlite.runtime.group import Group
from hiqlite.runtime.mirror_record import Mirrored
from hiqlite.transport.loopback import loopback_cluster
from tests.healing.damages import (
    CACHE_NEEDLE,
    FILES,
    FOLDERS,
    NEEDLE,
    UNUSED,
    Kind,
    beside_database,
    generation,
    segment,
)

SETTINGS = {"wal_size": "64 KiB", "logs_until_snapshot": 40, "cache_storage_disk": True}
FEW = {"cache": False, "wal_size": "1 MiB"}
NOBODY = 65534
DEADLINE_S = 20.0
UNUSED_FILES = {f"log/{group}/{name}.tmp" for group in ("db", "cache") for name in UNUSED}
CACHE_ENTRIES = 30  # fewer than what makes a node purge, and enough for another segment
MANY = (1, *range(1 << 40, (1 << 40) + 252))
LOOKED_AT = ("aside", "evidence")  # with these: a node that began to come back, and whose data differed


async def cluster_with_a_row(folder: Path) -> list[NodeConfig]:
    """Three nodes that ran, and are down."""
    configs = [NodeConfig.from_mapping(one) for one in loopback_cluster(folder, 3, FEW).values()]
    nodes = await asyncio.gather(*(Node.start(config) for config in configs))
    await nodes[0].client.execute("CREATE TABLE t (x)")
    last = await nodes[0].client.execute("INSERT INTO t VALUES ('kept')")
    for node in nodes:
        await node.group.until_applied(last.log_index)
    await asyncio.gather(*(node.shutdown() for node in nodes))
    return configs


def lose(config: NodeConfig, what: str) -> None:
    folder = Path(config.data_path)
    shutil.rmtree(folder if what == "everything" else folder / what)


async def fill(db: hiqlite.Client, name: str) -> None:
    """Enough for purged logs, several segments, and a write that stands once."""
    await db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT NOT NULL)")
    for _ in range(90):
        await db.execute("UPDATE t SET text = text || ? WHERE id = 1", ["y"])
    for number in range(60):
        await db.execute_many("INSERT INTO t (text) VALUES (?)", [(f"{number} {name} " + "x" * 60,)] * 50)


async def write_last(db: hiqlite.Client, nodes: Sequence[Node]) -> None:
    """Where everything else is in the database files: what SQLite's logs and the newest segments hold alone."""
    await db.execute("INSERT INTO t (text) VALUES (?)", [NEEDLE])
    last = await db.execute("INSERT INTO t (text) VALUES ('the last one')")
    for node in nodes:
        await node.group.until_applied(last.log_index)
    last_in_cache = await fill_cache(nodes[0])
    for node in nodes:
        await node.groups[1].group.until_applied(last_in_cache)
    for node in nodes:
        await until(lambda node=node: len(segments_of_cache(node)) > 1, lambda: "the cache group's log has one segment")


async def fill_cache(node: Node) -> int:
    """Another segment of the cache group's log; gives the last index. The entries are of long ago: they leave no
    trace. The needle is not in the last one: damage there is a write that a crash cut short."""
    for _ in range(CACHE_ENTRIES - 2):
        await mirror(node.groups[1].group, Mirrored(0, MANY, ()))
    await mirror(node.groups[1].group, Mirrored(0, (*MANY, CACHE_NEEDLE), ()))
    return await mirror(node.groups[1].group, Mirrored(0, MANY, ()))


def segments_of_cache(node: Node) -> list[Path]:
    return list((Path(node.config.data_path) / "log" / "cache").glob("*.wal"))


async def mirror(group: Group, change: Mirrored) -> int:
    end_ns = group.clock.monotonic_ns() + int(DEADLINE_S * 1e9)
    op = Op(asyncio.get_running_loop(), lambda answer, index, detail: index, None, end_ns)
    group.write(change.record(), op)
    return cast("int", await op)


async def settle(node: Node) -> None:
    """Every kind of file is there: also a state of the cache group that its log does not reach behind any more, and an
    image that is being received."""
    cache, db = node.storage.cache, node.storage.db
    assert cache is not None
    group = node.groups[1].group
    cache.cache.make_durable()
    await until(lambda: cache.cache.durable_index == cache.cache.applied_index > 0)
    cache.log.purge(cache.cache.applied_index, cache.cache.applied_term)
    await asyncio.to_thread(db.images.make, db.database, threading.Event())  # one that is being sent
    made = await asyncio.to_thread(db.images.make, db.database, threading.Event())
    made.path.rename(made.path.with_name(f"in-{made.image_id.hex()}.db"))
    for ending in ("manifest", "half"):
        made.path.with_name(f"in-{made.image_id.hex()}.{ending}").write_bytes(made.offer())
    folder = Path(node.config.data_path)
    db.writer.make_durable()
    await until(lambda: db.writer.durable_index == db.writer.applied_index)
    await until(lambda: db.log.base_index > 0)
    await until(lambda: cache.meta.purge_point(1)[0] > 0 and group.failure is None)
    rest = {"log/cache/*.wal, older", *UNUSED_FILES, *LAID}
    await until(lambda: set(lacks(folder)) <= rest, lambda: lacks(folder))


def lacks(folder: Path) -> list[str]:
    """Kinds of files and folders that are not there."""

    def is_there(kind: Kind) -> bool:
        try:
            return kind.at(folder).exists()
        except (IndexError, StopIteration):
            return False

    return [kind.name for kind in (*FILES, *FOLDERS) if not is_there(kind)]


async def until(condition: Any, why: Any = None) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, why() if why is not None else "not in time"
        await asyncio.sleep(0.005)


def as_a_crash_left_it(node: Node, target: Path) -> None:
    """A copy of the running node's folder while it does nothing: what kill -9 would leave."""
    for last in (False, False, False, True):
        try:
            shutil.copytree(node.config.data_path, target)
            break
        except shutil.Error:  # a segment that was purged is taken out of use a moment later
            if last:
                raise
            shutil.rmtree(target)
    for name in UNUSED_FILES & set(lacks(target)):  # they come and go with how full the newest segment is
        if (target / name).parent.exists():
            shutil.copy(segment(-1)(target), target / name)


LAID = {
    "meta/making.tmp", "cache/state.tmp", "db/*/hiqlite.db-mark.tmp", "db/*/hiqlite.db-shm", "db/images/rehearsal-*",
    "aside/clusters", "aside/*/diverged.txt", "aside", "kept", "evidence",
}  # fmt: skip


def lay(node: Node, target: Path) -> None:
    """What a crash, or an earlier life, leaves only now and then."""
    shutil.copy(target / "meta" / "data.mdb", target / "meta" / "making.tmp")
    shutil.copy(target / "cache" / "state", target / "cache" / "state.tmp")
    shutil.copy(beside_database("-mark")(target), beside_database("-mark.tmp")(target))
    shutil.copytree(generation(target), target / "db" / "images" / "rehearsal-1")
    cluster_id = node.storage.meta.cluster_id
    assert cluster_id is not None
    Aside(target).say_whose(cluster_id.hex())
    for name in ("log", "db", "old"):
        (target / "moved" / name).mkdir(parents=True)
        (target / "moved" / name / "what it was").write_text(name)
    (target / "moved" / "db" / EVIDENCE).write_text("it differs")
    for name, place in (("log", "aside"), ("db", "aside"), ("old", "kept")):
        Aside(target, place).put(target / "moved" / name)
    (target / "evidence").mkdir()
    (target / "moved").rename(target / "evidence" / "1-db")
    lay_index(target)
    assert not lacks(target), lacks(target)


def lay_index(target: Path) -> None:
    """Of SQLite's log, as it is where other processes may read the file."""
    with TemporaryDirectory() as place:
        copy = Path(place) / "copy.db"
        for ending in ("", "-wal"):
            shutil.copy(beside_database(ending)(target), copy.with_name(f"copy.db{ending}"))
        with closing(sqlite3.connect(copy)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
            shutil.copy(copy.with_name("copy.db-shm"), beside_database("-shm")(target))


def more_for(what: str) -> dict[str, Any]:
    """In the config of a case."""
    return {"db_shared_access": True} if what.endswith("-shm") else {}


@contextmanager
def as_owner(folder: Path) -> Iterator[None]:
    """Who may look, whatever the permissions of `folder` are."""
    mode = folder.stat().st_mode
    folder.chmod(0o700)
    yield
    folder.chmod(mode)


def copy_for(source: Path, target: Path, what: str) -> None:
    """For a case: with what is looked at in some of them only."""
    shutil.copytree(source, target)
    if not what.startswith(LOOKED_AT):
        shutil.rmtree(target / "aside")
    if not what.endswith("-shm"):
        beside_database("-shm")(target).unlink()
    if what.endswith("-mark.tmp"):
        beside_database("-mark")(target).unlink()  # so that it is needed


class Prototypes:
    """Folders of nodes that ran: of three members, of another three, and of two nodes that are alone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = {name: loopback_cluster(folder / name, 3, SETTINGS) for name in ("members", "others")}

    async def make(self) -> None:
        for name, settings in self.settings.items():
            nodes = await asyncio.gather(*(Node.start(NodeConfig.from_mapping(one)) for one in settings.values()))
            await fill(nodes[0].client, name)
            for node in nodes:
                await node.groups[0].until_leader()
                await until(lambda node=node: node.groups[1].group.started and node.groups[1].group.leader_id)
            for node in nodes:
                await settle(node)
            await write_last(nodes[0].client, nodes)
            for number, node in zip(settings, nodes, strict=True):
                as_a_crash_left_it(node, self.folder / f"{name}-{number}")
                lay(node, self.folder / f"{name}-{number}")
            await asyncio.gather(*(node.shutdown() for node in nodes))
        await self.make_alone()

    async def make_alone(self) -> None:
        for name in ("alone", "stranger"):
            node = await Node.start(self.alone(self.folder / f"{name}-running"))
            await fill(node.client, name)
            await until(lambda node=node: node.groups[1].group.started and node.groups[1].group.leader_id)
            await settle(node)
            await write_last(node.client, [node])
            as_a_crash_left_it(node, self.folder / name)
            lay(node, self.folder / name)
            await node.shutdown()

    def alone(self, folder: Path, **more: Any) -> NodeConfig:
        return NodeConfig.from_mapping({"data_dir": str(folder), **SETTINGS, **more})

    def member(self, number: int, folder: Path, **more: Any) -> NodeConfig:
        return NodeConfig.from_mapping({**self.settings["members"][number], "data_dir": str(folder), **more})


@contextmanager
def as_somebody(*folders: Path) -> Iterator[None]:
    """Root may read everything; so the node runs as nobody, who owns these folders. Others are nobody special."""
    if os.geteuid() != 0:
        yield
        return
    for folder in folders:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@asynccontextmanager
async def majority(prototypes: Prototypes, folder: Path) -> AsyncIterator[dict[int, Node]]:
    """Nodes 1 and 2 as the crash left them, up and with a leader."""
    for number in (1, 2):
        copy_for(prototypes.folder / f"members-{number}", folder / str(number), "")
    nodes = await asyncio.gather(*(Node.start(prototypes.member(n, folder / str(n)), wait=False) for n in (1, 2)))
    try:
        yield dict(zip((1, 2), nodes, strict=True))
    finally:
        await asyncio.gather(*(node.shutdown() for node in nodes))


async def take_back(nodes: dict[int, Node], patient: Node) -> None:
    """Until each group counts the patient's incarnation as a voter, by itself."""
    everybody = [*nodes.values(), patient]
    lives = {number: group.storage.identity for number, group in patient.groups.items()}
    await until(lambda: all(any(is_voter(node, *life) for node in everybody) for life in lives.items()))


def is_voter(node: Node, number: int, own: Identity) -> bool:
    group = node.groups[number].group
    return group.leads and own in group.engine.membership.voters and not group.engine.membership.joint
