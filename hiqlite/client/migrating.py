"""One call of `migrate`: what is still to do, file by file, in the cluster or on a copy of this node's database.

Must not know nodes or Raft. Invariant: an error tells what became of the file it is about, whatever the others did.

With a request id the call is remembered as it is made: an entry that changes nothing, under the id itself, says which
files it was given for, and each file's entry carries an id made of both. Whoever asks again sends all of them, applied
or not: the answers of the first time say which files that call applied.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from hiqlite._accel.answers import decode_batch, decode_execute
from hiqlite._accel.batch import Op
from hiqlite._accel.commands import encode_batch, encode_migration
from hiqlite.errors import HiqliteError, MigrationError, Outcome, RequestTimeout, with_outcome
from hiqlite.statemachine.migrations import Migration, validate

from .results import MigrationReport
from .services import Services
from .timing import deadline

TRIED_SHARE: Final = 0.9  # of a dry run's time; the rest is for applying what was tried, and for telling


class Migrating:
    """Of one client.

    Args:
        given: from `load`.
        end_ns: monotonic time at which the whole call has to end; what is tried later has less time.
        barrier: waits until this node has applied all that was committed before.
        sized: gives a record back if it may be replicated.
        request_id: None: whoever asks again is told what is left to do then.
    """

    def __init__(
        self,
        services: Services,
        given: list[Migration],
        end_ns: int,
        barrier: Callable[[], Awaitable[object]],
        sized: Callable[[bytes], bytes],
        request_id: str | None = None,
    ) -> None:
        self._services = services
        self._given = given
        self._end_ns = end_ns
        self._barrier = barrier
        self._sized = sized
        self._request_id = request_id
        self._request = ""  # what the ids of the files' entries begin with

    async def run(self) -> MigrationReport:
        """Applies what is missing; safe to be called on all nodes at once."""
        todo = await self._missing("not_applied")
        if self._request_id is not None:
            await self._claim(self._request_id)
            todo = self._given
        applied: list[int] = []
        for one in todo:
            op = Op(asyncio.get_running_loop(), None, one.text, self._end_ns)  # when time is over it knows its outcome
            self._services.group.write(self._record(one), op)
            try:
                if (await op).rows_affected:  # 0: another call has applied it
                    applied.append(one.id)
            except MigrationError as error:
                if self._request_id is not None:
                    raise  # whoever asks again is told the same, whatever was applied since
                await self._unless_applied(one, error)
        return self._report(applied)

    async def _claim(self, request_id: str) -> None:
        """The id stands for these files from now on. Raises UsageError if it was given to another write."""
        files = "\n".join(f"{one.sha256_hex} {one.name}" for one in self._given)
        digest = hashlib.sha256(files.encode(errors="surrogatepass")).hexdigest()
        op = Op(asyncio.get_running_loop(), lambda answer, index, _: decode_batch(answer, index), None, self._end_ns)
        record = self._sized(encode_batch(f"-- migrate {digest}", request_id=request_id))
        try:
            self._services.group.write(record, op)
            await op
        except HiqliteError as error:  # whatever became of this entry, no file is applied
            raise with_outcome(error, "not_applied") from error
        self._request = f"migrate {hashlib.sha256(request_id.encode() + digest.encode()).hexdigest()}"

    async def rehearse(self) -> MigrationReport:
        """Raises what `run` would, and reports what it would."""
        missing = await self._missing("not_applied")
        applied: list[int] = []
        rehearsed: list[Migration] = []

        def check(number: int, answer: bytes) -> None:
            one = missing[number]
            rehearsed.append(one)
            if decode_execute(answer, 0, one.text).rows_affected:
                applied.append(one.id)

        try:
            if missing:
                async with deadline(self._left_s()) as late:
                    late.outcome = "not_applied"
                    records = (self._record(one) for one in missing)
                    await self._services.rehearse(records, self._left_s() * TRIED_SHARE, check)
        except MigrationError as error:
            await self._unless_applied(rehearsed[-1], error)
        return self._report(applied)

    async def _unless_applied(self, one: Migration, error: MigrationError) -> None:
        """Raises the error, unless another call has applied this one meanwhile, and perhaps later ones."""
        with suppress(RequestTimeout):  # then nobody knows better
            if one not in await self._missing("unknown"):
                return
        raise error

    def _report(self, applied: list[int]) -> MigrationReport:
        return MigrationReport(applied, [one.id for one in self._given if one.id not in applied])

    def _record(self, one: Migration) -> bytes:
        request_id = f"{self._request} {one.id}" if self._request else ""
        return self._sized(
            encode_migration(one.text, one.name, one.sha256_hex, one.foreign_keys_off, request_id=request_id)
        )

    def _left_s(self) -> float:
        return max(0, self._end_ns - self._services.clock.monotonic_ns()) / 1e9

    async def _missing(self, outcome: Outcome) -> list[Migration]:
        """Those still to do. `outcome`: of the call, if it ends with what this part of it meets, which only reads."""
        try:
            async with deadline(self._left_s()):
                await self._barrier()
                return validate(self._given, await self._applied())
        except HiqliteError as error:
            if error.outcome is not None:
                raise
            raise with_outcome(error, outcome) from error

    async def _applied(self) -> list[tuple[int, str, str]]:
        """(id, name, hash) of each, by this node's database."""
        reader = self._services.reader
        if not await reader.query("SELECT 1 FROM sqlite_master WHERE name = '_migrations'", (), timeout=None):
            return []
        rows = await reader.query("SELECT id, name, hash FROM _migrations ORDER BY id", (), timeout=None)
        return [(row[0], row[1], row[2]) for row in rows]
