"""A process that writes to a log until it is killed; what is acknowledged stands in a shared file.

Argument: the folder. Each round votes, sometimes truncates, and appends; before it goes on it notes the term, and the
term of each entry, that `synced` covers. It never ends by itself.
"""

from __future__ import annotations

import asyncio
import mmap
import random
import struct
import sys
from functools import partial
from pathlib import Path

from hiqlite.logstore.meta import Meta
from hiqlite.logstore.wal import WalLog
from tests.logstore.log_runs import open_log, until
from tests.logstore.log_twin import NODE, entries, terms_of

NOTES_BYTES = 1 << 20


def note(notes: mmap.mmap, term: int, terms: list[int]) -> None:
    """Two places in turn, the number of the valid one last: a kill in the middle leaves the other one whole."""
    place = (notes[0] + 1) % 2
    at = 8 + place * (NOTES_BYTES // 2 - 8)
    body = struct.pack("<II", term, len(terms)) + struct.pack(f"<{len(terms)}I", *terms)
    notes[at : at + len(body)] = body
    notes[0] = place


def all_synced(log: WalLog, io_sequence: int) -> bool:
    return log.synced == io_sequence


async def main(folder: Path) -> None:
    chance = random.Random()
    with (folder / "notes").open("r+b") as file:
        notes = mmap.mmap(file.fileno(), NOTES_BYTES)
    meta = Meta.open(folder / "meta")
    log, recovered = open_log(folder, meta, segment_bytes=32 << 10)
    terms, io, term = list(terms_of(recovered.runs)), recovered.io_sequence, recovered.term
    note(notes, term, terms)  # what was recovered is durable: else two lives may each cut a little that nobody noted
    print("ready", flush=True)
    while True:
        term += 1
        io += 1
        log.hard_state(io, term, NODE)
        if terms and chance.random() < 0.5:
            io += 1
            del terms[max(len(terms) - chance.randrange(1, 4), 0) :]
            log.truncate(io, len(terms))
        await until(partial(all_synced, log, io))
        note(notes, term, terms)
        for _ in range(chance.randrange(1, 12)):
            io += 1
            first, count = len(terms) + 1, chance.randrange(1, 4)
            log.append(io, first, first + count - 1, entries(term, first, first + count - 1))
            terms += [term] * count
        await until(partial(all_synced, log, io))
        note(notes, term, terms)


asyncio.run(main(Path(sys.argv[1])))
