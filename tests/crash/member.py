"""A member of a cluster as a process of its own, for tests that kill it. Obeys lines of JSON, like the bench's worker.

    {"do": "load", "acks": FILE, "tasks": 8, "start": 1}   begins to insert ids for ever; each acknowledged id goes to
                                                           FILE at once (8 bytes each; the page cache outlives kill -9);
                                                           with "takes": FILE also takes indexes of the cache group's
                                                           log, and notes these there;
    {"do": "stop_load"}
    {"do": "begin", "sql": ..., "request_id": ...}         issues a write, and answers when it has left, not when it is
                                                           answered;
    {"do": "take"}                                         one such index;
    {"do": "views"}                                        what the node tells of its groups, and the cluster's id;
    {"do": "arm", "folder": FOLDER, "k": K, ...}           the process dies at its K-th change of that folder, see
                                                           killpoint.c, which is preloaded.

A release obeys this, too: what imports from beside this file does so where it is asked for.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any

import uvloop

import hiqlite
import hiqlite.node  # before the clock runs
from hiqlite.client.local import LocalClient

INSERT = "INSERT INTO load (id, node, text) VALUES (?, ?, ?)"


class Load:
    """Closed-loop tasks that insert unique ids and note what was acknowledged; one takes indexes of the cache group."""

    def __init__(self, db: LocalClient, command: dict[str, Any]) -> None:
        self.outcomes: dict[str, int] = {}
        self._stop = False
        self._acks = open_for_ids(command["acks"])
        self._next = command["start"]
        self._db = db
        self._tasks = [asyncio.create_task(self._work(command["node"])) for _ in range(command["tasks"])]
        if takes := command.get("takes"):
            self._tasks.append(asyncio.create_task(self._take(takes)))

    async def _take(self, path: str) -> None:
        file = open_for_ids(path)
        while not self._stop:
            try:
                os.write(file, (await take(self._db)).to_bytes(8, "little"))
            except hiqlite.HiqliteError as error:
                await self._failed(error, "cache ")
        os.close(file)

    async def _failed(self, error: hiqlite.HiqliteError, group: str = "") -> None:
        key = f"{group}{type(error).__name__}:{error.outcome}"
        self.outcomes[key] = self.outcomes.get(key, 0) + 1
        await asyncio.sleep(0.01)

    async def _work(self, node: int) -> None:
        while not self._stop:
            self._next += 1
            number = self._next
            try:
                await self._db.execute(INSERT, (number, node, "x" * (number % 100)), timeout=5)
            except hiqlite.HiqliteError as error:
                if error.outcome == "applied":
                    os.write(self._acks, number.to_bytes(8, "little"))
                await self._failed(error)
            else:
                os.write(self._acks, number.to_bytes(8, "little"))

    async def end(self) -> dict[str, int]:
        self._stop = True
        await asyncio.gather(*self._tasks)
        os.close(self._acks)
        return self.outcomes


def open_for_ids(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


async def take(db: LocalClient) -> int:
    """An index of the cache group's log that nobody else is given."""
    from tests.chaos.two_groups import take_index

    return await take_index(db._services.node, 5)


def arm(command: dict[str, Any]) -> None:
    """From here on this process dies at its k-th change of the disk."""
    libraries = ctypes.CDLL(None)
    libraries.hq_kill_only(command["kinds"])
    libraries.hq_kill_arm(
        os.fsencode(command["folder"]), ctypes.c_ulong(command["k"]), command["half"], command["loss"],
        ctypes.c_ulonglong(command["seed"]),
    )  # fmt: skip


async def giant_transactions(db: LocalClient, seconds: float, tasks: int, statements: int) -> int:
    """Transactions of `statements` INSERTs by `tasks` closed-loop tasks, at least one each. Gives how many are done."""
    end, done = time.monotonic() + seconds, 0

    async def work(number: int) -> None:
        nonlocal done
        step = 0
        while not step or time.monotonic() < end:
            base = (number * 1_000_000 + step) * statements
            await db.txn(
                [("INSERT INTO giant VALUES (?, ?)", (base + k, "y" * 20)) for k in range(statements)], timeout=120
            )
            step += 1
            done += 1

    await asyncio.gather(*(work(number) for number in range(tasks)))
    return done


def keep_the_loop(seconds: float, until: str | None) -> None:
    """User code that gives nobody else a turn, for that long or until that file is there."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not (until and os.path.exists(until)):
        time.sleep(0.01)


async def forked(db: LocalClient, sql: str) -> str:
    """What becomes of a call in a child of this process."""

    async def call() -> None:
        await db.execute(sql)

    read_end, write_end = os.pipe()
    if (child := os.fork()) == 0:
        end = "done"
        try:
            asyncio.run(call())
        except BaseException as error:
            end = type(error).__name__
        os.write(write_end, end.encode())
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        told = await asyncio.to_thread(pipe.read)
    await asyncio.to_thread(os.waitpid, child, 0)
    return told.decode()


def write_of(db: LocalClient, command: dict[str, Any]) -> Any:
    options = {"request_id": command["request_id"]} if "request_id" in command else {}  # not known to each release
    return db.execute(command["sql"], command.get("params", ()), timeout=command.get("timeout", 30), **options)


async def obey(db: LocalClient, command: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    match command["do"]:
        case "status":
            group = (await db.metrics()).db
            return {
                "leader": group.leader_id, "term": group.term, "applied": group.applied_index, "role": group.role,
                "package": hiqlite.__file__,
            }  # fmt: skip
        case "network":
            network = (await db.metrics()).node["network"]
            return {
                "unproven": network["unproven"], "refusals": network["refusals"],
                "epochs": {peer_id: peer["epoch"] for peer_id, peer in network["peers"].items()},
            }  # fmt: skip
        case "execute":
            result = await write_of(db, command)
            return {"index": result.log_index, "rows": result.rows_affected, "rowid": result.last_insert_rowid}
        case "begin":
            state["begun"] = write_of(db, command)
            for _ in range(20):
                await asyncio.sleep(0)
            return {"done": state["begun"].done()}
        case "query":
            timeout = command.get("timeout", 60)
            rows = await db.query(command["sql"], consistency=command.get("consistency"), timeout=timeout)
            return {"rows": [list(row) for row in rows]}
        case "hash":
            return {"hash": await db.content_hash()}
        case "manage":
            await getattr(db, command["call"])(*command["ids"], *command.get("addresses", ()), timeout=60)
            return {}
        case "members":
            return {"roles": {str(one.id): one.role for one in await db.members()}}
        case "load":
            state["load"] = Load(db, command)
            return {}
        case "stop_load":
            return {"outcomes": await state.pop("load").end()}
        case "take":
            return {"index": await take(db)}
        case "views":
            from tests.chaos.two_groups import told_by

            return told_by(db._services.node)
        case "arm":
            arm(command)
            return {}
        case "giant":
            return {"done": await giant_transactions(db, command["seconds"], command["tasks"], command["statements"])}
        case "hold_gil":
            # ctypes.PyDLL keeps the GIL while the C call sleeps: what a badly written extension does.
            ctypes.PyDLL(None).usleep(int(command["seconds"] * 1e6))
            return {}
        case "fork":
            return {"child": await forked(db, command["sql"])}
        case "allocate":
            return {"bytes": len(b"\1" * command["bytes"])}  # touched, and given back
        case "block":
            keep_the_loop(command["seconds"], command.get("until"))
            rows = await db.query(command["sql"], consistency="linearizable", timeout=command.get("timeout", 30))
            return {"rows": [list(row) for row in rows]}
        case "rss":
            with open("/proc/self/status", encoding="ascii") as status:
                line = next(line for line in status if line.startswith("VmHWM"))
            return {"mb": int(line.split()[1]) / 1024}
    raise ValueError(command["do"])


Opened = Callable[[dict[str, Any]], AbstractAsyncContextManager[LocalClient]]
Obey = Callable[[LocalClient, dict[str, Any], dict[str, Any]], Awaitable[dict[str, Any]]]


async def serve(config: dict[str, Any], obey: Obey = obey, opened: Opened = hiqlite.open) -> None:
    """A node, until its standard input ends; `obey` answers each line."""
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    state: dict[str, Any] = {}
    begun = time.monotonic()
    async with AsyncExitStack() as stack:
        db = await stack.enter_async_context(opened(config))
        print(json.dumps({"begun": begun, "ready": time.monotonic()}), flush=True)
        while line := await lines.readline():
            command = json.loads(line)
            if command["do"] == "forget":
                stack.pop_all()
                return
            try:
                answer = await obey(db, command, state)
            except hiqlite.HiqliteError as error:
                answer = {"error": f"{type(error).__name__}: {error}", "outcome": error.outcome}
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # dies with the test
    uvloop.run(serve(json.loads(sys.argv[1])))
