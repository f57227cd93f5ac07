"""Applies records without a cluster: seals them, cuts them into runs in several ways, and compares what comes out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from hiqlite._accel import answers, apply, guard
from hiqlite._accel.apply import Applier
from hiqlite._accel.records import (
    Operation,
    encode_batch,
    encode_command,
    encode_migration,
    encode_record,
    seal_records,
)
from hiqlite.errors import HiqliteError
from hiqlite.statemachine.connection import open_reader, open_writer
from hiqlite.statemachine.equality import content_hash

WALL_NS = 1_700_000_000_123_456_789
ROWS_WANTED = 1


def execute(sql: str, params: Any = (), *, rows: bool = False, expect: int | None = None) -> bytes:
    return encode_command(
        Operation.EXECUTE,
        [(sql, params)],
        flags=ROWS_WANTED if rows else 0,
        expects=None if expect is None else [expect],
    )


def execute_many(sql: str, seq: Sequence[Any]) -> bytes:
    return encode_command(Operation.EXECUTE_MANY, [(sql, params) for params in seq])


def txn(*statements: Any, expects: Sequence[int | None] | None = None) -> bytes:
    pairs = [(s, ()) if isinstance(s, str) else s for s in statements]
    return encode_command(Operation.TXN, pairs, expects=None if expects is None else list(expects))


def batch(sql: str) -> bytes:
    return encode_batch(sql)


def migration(number: int, sql: str, *, foreign_keys_off: bool = False, digest: str = "ab" * 32) -> bytes:
    return encode_migration(sql, f"{number}_step.sql", digest, foreign_keys_off)


def no_op() -> bytes:
    return encode_record(1, 8, b"")


def sealed(
    records: Sequence[bytes], first: int = 1, *, term: int = 1, seed: int = 42, wall_ns: int = WALL_NS
) -> bytes:
    """The records as a leader would replicate them, from index `first` on."""
    buffer = bytearray(b"".join(records))
    seal_records(buffer, term, first, 7, wall_ns, seed)
    return bytes(buffer)


class Machine:
    """A database and its applier, driven on the calling thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open()

    def _open(self) -> None:
        self.connection = open_writer(self.path)
        apply.load(self.connection)
        self.applier = Applier(self.connection.sqlite3_pointer(), guard.api_address(), 100, self.connection)

    def close(self) -> None:
        self.applier.close()
        self.connection.close()

    def reopen(self) -> None:
        self.close()
        self._open()

    def apply(self, records: Sequence[bytes], *, term: int = 1, wall_ns: int = WALL_NS) -> list[bytes]:
        """Applies the records in as few runs as the machine makes of them; their answers."""
        if not records:
            return []
        first = self.applier.applied_index + 1
        last = first + len(records) - 1
        assert self.applier.apply_inline(first, last, term, [sealed(records, first, term=term, wall_ns=wall_ns)], True)
        assert self.applier.failure is None, self.applier.failure
        runs = self.applier.take()
        assert [run.first for run in runs][:1] == [first] and runs[-1].last == last
        return [run.answer(index) for run in runs for index in range(run.first, run.last + 1)]

    def one(self, record: bytes) -> bytes:
        return self.apply([record])[0]

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """What a reader of the database sees."""
        reader = open_reader(self.path)
        try:
            return reader.execute(sql).fetchall()
        finally:
            reader.close()

    def content(self) -> str:
        reader = open_reader(self.path)
        try:
            return content_hash(reader)
        finally:
            reader.close()


@contextmanager
def machine(path: Path) -> Iterator[Machine]:
    opened = Machine(path)
    try:
        yield opened
    finally:
        opened.close()


@dataclass(frozen=True, slots=True)
class Outcome:
    answers: list[bytes]
    content: str
    equality: int


def apply_cut(path: Path, records: Sequence[bytes], how: str, seed: int = 0) -> Outcome:
    """Applies the records, cut into runs `how`: one, each, reopen (a restart between every two), random."""
    chance = Random(seed)
    with machine(path) as made:
        found: list[bytes] = []
        at = 0
        while at < len(records):
            size = {"one": len(records), "each": 1, "reopen": 1, "random": chance.randint(1, 5)}[how]
            found += made.apply(records[at : at + size])
            at += size
            if how == "reopen" or (how == "random" and chance.random() < 0.2):
                made.reopen()
        return Outcome(found, made.content(), made.applier.equality_hash)


def apply_alike(folder: Path, records: Sequence[bytes]) -> list[bytes]:
    """Applies the records in every way of cutting; all must give the same answers, content and running hash."""
    reference = apply_cut(folder / "one.db", records, "one")
    for how in ("each", "reopen", "random"):
        found = apply_cut(folder / f"{how}.db", records, how, seed=len(records))
        for index, (mine, theirs) in enumerate(zip(reference.answers, found.answers, strict=True)):
            assert mine == theirs, f"entry {index + 1} differs between one run and {how}: {mine!r} {theirs!r}"
        assert found.content == reference.content, f"the databases differ between one run and {how}"
        assert found.equality == reference.equality
    return reference.answers


def status_of(answer: bytes) -> int:
    return answer[1]


def error_of(answer: bytes) -> HiqliteError:
    """The error of an entry of one statement (or of a failed txn)."""
    try:
        answers.decode_execute(answer, 1, None)
    except HiqliteError as error:
        return error
    raise AssertionError("the entry did not fail")


def healthy(made: Machine) -> bool:
    """No transaction is open, and the database is whole."""
    return not made.connection.in_transaction and made.rows("PRAGMA quick_check") == [("ok",)]


