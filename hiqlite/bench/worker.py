"""One node of a bench as a process of its own: opens a member, then obeys lines of JSON on standard input.

Each command is one line `{"do": ..., ...}`, each answer one line. The process ends with its parent.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import json
import resource
import signal
import sys
import time
from typing import Any

from hiqlite.client.local import LocalClient
from hiqlite.errors import HiqliteError
from hiqlite.node_opening import open as open_node

from . import phases
from .gap_writer import GapWriter

PR_SET_PDEATHSIG = 1


def usage() -> dict[str, float]:
    """CPU seconds of this process so far, and its greatest resident size in MB."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    return {"cpu_s": own.ru_utime + own.ru_stime, "rss_mb": own.ru_maxrss / 1024}


async def catch_up(db: LocalClient, index: int) -> None:
    """Wait until this node has applied `index`."""
    deadline = time.monotonic() + 60
    while (await db.metrics()).db.applied_index < index:
        if time.monotonic() > deadline:
            raise TimeoutError(f"index {index} was not applied in time")
        await asyncio.sleep(0.01)


class Worker:
    """An open node, and what runs on it between two commands."""

    def __init__(self, db: LocalClient) -> None:
        self._db = db
        self._writer: GapWriter | None = None

    async def obey(self, command: dict[str, Any]) -> dict[str, Any]:
        db = self._db
        match command["do"]:
            case "status":
                metrics = (await db.metrics()).db
                return {"leader_id": metrics.leader_id, "applied_index": metrics.applied_index, "term": metrics.term}
            case "prepare":
                await phases.prepare(db)
                return {}
            case "phase":
                gc.collect()
                gc.freeze()
                result = await phases.PHASES[command["phase"]](db, command["c"], command["rows"])
                return {**result.wire(), "applied_index": (await db.metrics()).db.applied_index}
            case "snapshot":
                return {"index": await db.snapshot()}
            case "fill":
                await phases.fill(db, command["start"], command["end"])
                return {}
            case "append":
                result = await phases.insert(db, command["c"], command["rows"], command["start"])
                return {**result.wire(), "applied_index": (await db.metrics()).db.applied_index}
            case "write":
                self._writer = GapWriter(db, command["c"], command["start"])
                return {}
            case "written":
                return {"n": self._writing().count}
            case "end_writing":
                writer, self._writer = self._writing(), None
                return await writer.end()
            case "hash":
                await catch_up(db, command["index"])
                rows = await db.query_value(f"SELECT count(*) FROM {phases.TABLE}")
                return {"rows": rows, "hash": await db.content_hash()}
            case "usage":
                return dict(usage())
            case "metrics":
                return (await db.metrics()).as_dict()
        raise ValueError(f"unknown command {command['do']!r}")

    def _writing(self) -> GapWriter:
        if self._writer is None:
            raise ValueError("nothing is being written")
        return self._writer


async def serve(config: dict[str, Any]) -> None:
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader(limit=1 << 20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async with open_node(config) as db:
        worker = Worker(db)
        print(json.dumps({"ready": True}), flush=True)
        while line := await lines.readline():
            try:
                answer = await worker.obey(json.loads(line))
            except (HiqliteError, AssertionError, TimeoutError, ValueError) as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            print(json.dumps(answer), flush=True)


def main() -> None:
    with contextlib.suppress(OSError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # a bench never leaves nodes behind
    import uvloop

    uvloop.run(serve(json.loads(sys.argv[1])))


if __name__ == "__main__":
    main()
