"""A process that applies entries until it is killed, or under a limit of memory or file size; for test_apply_crash.

Usage: apply_child.py kill PATH SEED | runs PATH | memory PATH | filesize PATH
"""

from __future__ import annotations

import resource
import select
import signal
import sys
from pathlib import Path
from random import Random

import apsw
from apply_harness import Machine, batch, execute, sealed, txn

from hiqlite._accel.apply import Applier
from hiqlite._accel.records import encode_record

LAST = 300
STOPPING = (apsw.SQLITE_NOMEM, apsw.SQLITE_IOERR, apsw.SQLITE_FULL, apsw.SQLITE_CANTOPEN)
SCHEMA = "CREATE TABLE t(id INTEGER PRIMARY KEY, entry INTEGER, a); CREATE INDEX i ON t(a)"


def entry_at(index: int) -> bytes:
    """What entry `index` (from 2 on) is: the same in every process."""
    chance = Random(index)
    kind = chance.randrange(6)
    insert = "INSERT INTO t(entry, a) VALUES (?, ?)"
    if kind == 0:
        return txn(*[(insert, [index, chance.random()]) for _ in range(3)])
    if kind == 1:
        return batch(f"INSERT INTO t(entry, a) VALUES ({index}, random()); INSERT OR ROLLBACK INTO t(id) VALUES (1);"
                     f"INSERT INTO t(entry, a) VALUES ({index}, 'after')")
    if kind == 2:
        return execute("INSERT OR ROLLBACK INTO t(id, entry) VALUES (1, ?)", [index])
    if kind == 3:
        return encode_record(1, 8, b"")
    return execute(insert, [index, "x" * chance.randrange(200)])


def log(first: int, last: int) -> bytes:
    return sealed([batch(SCHEMA) if index == 1 else entry_at(index) for index in range(first, last + 1)], first)


def apply_for_ever(path: Path, seed: int) -> None:
    chance = Random(seed)
    made = Machine(path)
    while True:
        first = made.applier.applied_index + 1
        last = first + chance.randint(0, 60)
        made.applier.apply_inline(first, last, 1, [log(first, last)], False)
        made.applier.take()
        print(made.applier.applied_index, flush=True)


def apply_runs(path: Path) -> None:
    """A few runs, the same ones in every process."""
    made = Machine(path)
    for first, last in ((1, 2), (3, 9), (10, 10), (11, 30)):
        made.applier.apply_inline(first, last, 1, [log(first, last)], False)
        made.applier.take()
    made.close()


def apply_under_limits(path: Path, kind: str) -> None:
    """Runs into the limit again and again, each time a little further; every stop must be resumable."""
    made = Machine(path)
    made.applier.start()
    stops = 0
    tighten(kind, stops)
    made.applier.submit(1, LAST, 1, [log(1, LAST)], True)
    while not finished(made.applier):
        failure = made.applier.failure
        assert failure is not None and failure[0] & 0xFF in STOPPING, failure
        assert not made.connection.in_transaction, failure
        stops += 1
        assert stops < 5000, failure
        tighten(kind, stops)
        made.applier.resume()
    loosen(kind)
    print(stops, LAST, made.applier.equality_hash, flush=True)
    made.close()


def finished(applier: Applier) -> bool:
    """Waits until everything is applied (True) or the applier has stopped (False)."""
    while applier.applied_index < LAST:
        if applier.failure is not None:
            return False
        select.select([applier.fileno], [], [], 10)
        applier.take()
    return True


def tighten(kind: str, step: int) -> None:
    if kind == "memory":
        used = int(apsw.memory_used())
        apsw.hard_heap_limit(used + 200 + step * 350)
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000 + step * 3000, resource.RLIM_INFINITY))


def loosen(kind: str) -> None:
    if kind == "memory":
        apsw.hard_heap_limit(0)
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


if __name__ == "__main__":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    what, where, *more = sys.argv[1:]
    if what == "kill":
        apply_for_ever(Path(where), int(more[0]))
    elif what == "runs":
        apply_runs(Path(where))
    else:
        apply_under_limits(Path(where), what)
