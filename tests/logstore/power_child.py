"""A process that says what its log holds, and then writes to it until it is killed. Argument: the folder.

Nothing of what it writes is synced by itself: whatever survives a loss of power, recovery has synced.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from functools import partial
from pathlib import Path

from hiqlite.logstore.meta import Meta
from hiqlite.logstore.wal import WalLog
from tests.logstore.log_runs import open_log, until
from tests.logstore.log_twin import NODE, entries, terms_of


def all_written(log: WalLog, io_sequence: int) -> bool:
    return log.written == io_sequence


async def main(folder: Path) -> None:
    chance = random.Random()
    log, recovered = open_log(folder, Meta.open(folder / "meta"), segment_bytes=32 << 10, log_sync="interval_600000")
    terms, io, term = list(terms_of(recovered.runs)), recovered.io_sequence, recovered.term
    print(json.dumps([recovered.whole, recovered.term, terms]), flush=True)
    writes = False
    while len(terms) < 2000:
        term += chance.random() < 0.2
        io += 1
        log.hard_state(io, term, NODE)
        for _ in range(chance.randrange(1, 8)):
            io += 1
            first, count = len(terms) + 1, chance.randrange(1, 4)
            log.append(io, first, first + count - 1, entries(term, first, first + count - 1))
            terms += [term] * count
        await until(partial(all_written, log, io))
        if not writes:
            print("writes", flush=True)
        writes = True
    print("wrote enough", flush=True)
    await asyncio.Event().wait()


asyncio.run(main(Path(sys.argv[1])))
