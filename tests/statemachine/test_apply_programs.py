"""Random programs of SQL, cut into runs in random ways, with restarts and trials: all nodes come to the same.

The programs are those that a cluster and plain SQLite run (tests/differential). Without a cluster there can be a
restart between every two calls, and so what a connection remembers beside the database is found where it matters.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from apply_harness import ROWS_WANTED, apply_alike, apply_cut, batch, execute, execute_many
from writer_driver import tried_and_applied

from hiqlite._accel.records import Operation, encode_command
from tests.differential.programs import Program
from tests.differential.steps import Step

FIRST = 1_000_000
SLICE = 40
PROGRAMS = int(os.environ.get("PROGRAMS", "3000"))
SEED = int(os.environ.get("SEED", "4000000"))


def record_of(step: Step) -> bytes | None:
    """The entry of this call; a query has none."""
    sql, params = step.statements[0]
    match step.kind:
        case "execute" | "returning":
            return execute(sql, params, rows=step.kind == "returning")
        case "many":
            return execute_many(sql, [one for _, one in step.statements])
        case "txn":
            return encode_command(Operation.TXN, list(step.statements))
        case "atomic":
            return encode_command(Operation.TXN, list(step.statements), flags=ROWS_WANTED, expects=list(step.expected))
        case "batch":
            return batch("; ".join(text for text, _ in step.statements))
    return None


def records_of(seed: int) -> list[bytes]:
    return [record for step in Program.of_seed(seed).steps if (record := record_of(step)) is not None]


def folders(folder: Path, seeds: range) -> Iterator[tuple[int, Path]]:
    """One for each seed, which goes once the program has passed."""
    for seed in seeds:
        made = folder / str(seed)
        made.mkdir()
        yield seed, made
        shutil.rmtree(made)


async def hold(folder: Path, seeds: range) -> None:
    """One run, one run each, a restart between every two, random, and with a trial before each: all alike."""
    for seed, made in folders(folder, seeds):
        records = records_of(seed)
        apply_alike(made, records)
        reference = apply_cut(made / "again.db", records, "one")
        tried = await tried_and_applied(made / "tried.db", records)
        assert tried == (reference.content, reference.equality), f"program {seed} differs where it is tried before"


async def test_a_program_gives_the_same_however_it_is_cut(tmp_path: Path) -> None:
    await hold(tmp_path, range(FIRST, FIRST + SLICE))


@pytest.mark.long
@pytest.mark.timeout(0)
async def test_thousands_of_programs_give_the_same_however_they_are_cut(tmp_path: Path) -> None:
    """`PROGRAMS` of them, from `SEED` on."""
    await hold(tmp_path, range(SEED, SEED + PROGRAMS))
