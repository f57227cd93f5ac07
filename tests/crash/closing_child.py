"""A database that is closed on a disk that fails, or loses its power. Arguments: what to do, the folder.

`fill` makes it, whole and closed; `close` opens and closes it; `fail` closes it while a checkpoint is under way whose
sync fails (faulty_disk.c is preloaded then).
"""

from __future__ import annotations

import asyncio
import errno
import mmap
import os
import sys
from pathlib import Path

from hiqlite._accel.commands import encode_command
from hiqlite._accel.records import seal_records
from hiqlite.statemachine import trust
from hiqlite.statemachine.writer import Writer, WriterSettings

EXECUTE, HOLD, DATABASE_SYNC, HELD = 1, 4, 9, 10


async def apply(writer: Writer, sql: str) -> None:
    index = writer.applied_index + 1
    record = bytearray(encode_command(EXECUTE, [(sql, ())]))
    seal_records(record, 1, index, 7, 1_700_000_000_000_000_000, 42)
    writer.submit(index, index, 1, [bytes(record)], False)
    while writer.applied_index < index:
        writer.take()
        await asyncio.sleep(0)
    writer.set_synced_index(index)


async def fail(writer: Writer) -> None:
    """The copying thread is held in a sync when the writer is told to stop; then that sync fails, once."""
    with open(os.environ["FAULTY_DISK"], "r+b") as file:
        orders = mmap.mmap(file.fileno(), 64)
    await apply(writer, "INSERT INTO t VALUES (2)")
    orders[HOLD] = 1
    writer.make_durable()
    while not orders[HELD]:
        await asyncio.sleep(0)
    closing = asyncio.create_task(writer.close())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    orders[DATABASE_SYNC] = errno.EIO
    orders[HOLD] = 0
    await closing
    assert orders[DATABASE_SYNC] == 0, "no sync failed"


async def main(what: str, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    trust.open_mark(path)
    writer = Writer.open(path, WriterSettings(apply_thread="always"))
    if what == "fill":
        await apply(writer, "CREATE TABLE t(a)")
        await apply(writer, "INSERT INTO t VALUES (1)")
    if what == "fail":
        await fail(writer)
    else:
        writer.set_synced_index(writer.applied_index)
        await writer.close()


asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
