"""Answers to peers that ask for entries which are damaged on their disk.

Knows ranges and bytes; must not know what is wrong with whom. Invariant: what is sent are exactly the entries that the
engine vouched for: a log that has changed meanwhile gives no answer.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from hiqlite import observe
from hiqlite._accel.records import scan, slice_records
from hiqlite.engine.model import RepairReply, TermRun
from hiqlite.engine.ports import LogStore
from hiqlite.errors import StorageError

from .links import Links

log = observe.logger("runtime")

# One answer's bytes, or one entry's; who needs more asks again for the rest.
ANSWER_BYTES = 1 << 20
# Answers being read; who asks beyond that asks again later.
ANSWERS_MAX = 16


class Repairs:
    """Entries read from this node's log for peers."""

    def __init__(self, log_store: LogStore, links: Links, loop: asyncio.AbstractEventLoop) -> None:
        self._log_store = log_store
        self._links = links
        self._loop = loop
        self._tasks: set[asyncio.Task[None]] = set()

    def answer(self, peer_id: int, reply: RepairReply) -> None:
        """Send what `reply` names, or its first part."""
        if len(self._tasks) < ANSWERS_MAX:
            task = self._loop.create_task(self._answer(peer_id, reply), name="hiqlite-repair")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _answer(self, peer_id: int, reply: RepairReply) -> None:
        try:
            last, records = await self._log_store.read(reply.first, ANSWER_BYTES)
        except StorageError as error:
            log.warning("entries from %d cannot be given to node %d: %s", reply.first, peer_id, error)
            return
        if last > reply.last:
            last, records = reply.last, slice_records(records, reply.first, reply.first, reply.last)
        found = [TermRun(*run) for run in scan(records, reply.first)]
        if found == _up_to(reply.runs, last):
            held = tuple([one for one in reply.memberships if one.index <= last])
            self._links.send(peer_id, replace(reply, last=last, runs=tuple(found), memberships=held), records)


def _up_to(runs: tuple[TermRun, ...], last: int) -> list[TermRun]:
    return [TermRun(run.term, run.first, min(run.last, last)) for run in runs if run.first <= last]
