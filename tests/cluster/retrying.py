"""A node as a process of its own whose clients retry as a user's would; ready as soon as it listens. Lines of JSON:

    {"do": "write", "acks": FILE, "tasks": 2, "start": 1}   begins to write unique ids for ever, each until it is
                                                            acknowledged; those stand in FILE, 8 bytes each;
    {"do": "stop_writing"}                                  ends that; what a retry did not heal is in the answer;
    {"do": "views"}                                         what it tells of its groups, and the cluster's id.

When its standard input ends, it shuts down under its clients, and its last line is what they were told.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import sys
import time
from typing import Any

import uvloop

import hiqlite
from hiqlite.client.local import LocalClient
from hiqlite.node import Node
from tests.chaos.two_groups import told_by
from tests.crash.member import INSERT, obey, open_for_ids

HEAL_S = 40.0  # a retry has so long to succeed; while two nodes are away, none can
PAUSE_S = 0.01


class Writers:
    """Closed-loop tasks. An error is healed by writing the same row again, unless the node itself is going."""

    def __init__(self, db: LocalClient, command: dict[str, Any]) -> None:
        self.unhealed: list[str] = []
        self._stop = False
        self._acks = open_for_ids(command["acks"])
        self._next = command["start"]
        self._db = db
        self._node = command["node"]
        self._tasks = [asyncio.create_task(self._work()) for _ in range(command["tasks"])]

    async def _work(self) -> None:
        while not self._stop:
            self._next += 1
            number = self._next
            if not await self._written(number):
                return
            os.write(self._acks, number.to_bytes(8, "little"))

    async def _written(self, number: int) -> bool:
        """Whether this id is in the table. Notes an error that no retry heals."""
        end = time.monotonic() + HEAL_S
        while True:
            try:
                await self._db.execute(INSERT, (number, self._node, "x"), timeout=5)
                return True
            except hiqlite.ConstraintError:
                return True  # the try before was applied, and its answer lost
            except hiqlite.ShuttingDown:
                return False  # an application's node goes with it
            except hiqlite.HiqliteError as error:
                if not error.retryable or time.monotonic() > end:
                    self.unhealed.append(f"{type(error).__name__}:{error.outcome}: {error}")
                    return False
            await asyncio.sleep(PAUSE_S)

    async def end(self) -> list[str]:
        self._stop = True
        await asyncio.gather(*self._tasks)
        os.close(self._acks)
        return self.unhealed


async def answer_to(node: Node, command: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    match command["do"]:
        case "write":
            state["writers"] = Writers(node.client, command)
            return {}
        case "stop_writing":
            return {"unhealed": await state.pop("writers").end()}
        case "views":
            return told_by(node)
    return await obey(node.client, command, state)


async def serve(config: dict[str, Any]) -> None:
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    state: dict[str, Any] = {}
    node = await Node.start(hiqlite.NodeConfig.from_mapping(config), wait=False)
    print(json.dumps({"ready": True}), flush=True)
    while line := await lines.readline():
        try:
            answer = await answer_to(node, json.loads(line), state)
        except hiqlite.HiqliteError as error:
            answer = {"error": f"{type(error).__name__}: {error}", "outcome": error.outcome}
        print(json.dumps(answer), flush=True)
    await node.shutdown()
    print(json.dumps({"unhealed": await state["writers"].end() if "writers" in state else []}), flush=True)


if __name__ == "__main__":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # dies with the test
    uvloop.run(serve(json.loads(sys.argv[1])))
