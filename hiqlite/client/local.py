"""The client of a node in this process: writes go to its group or through it to the leader, reads to its own file.

Must not know sockets or how a group works inside. Invariant: a write is encoded once, here; whether it is sent again
the group decides.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from math import inf
from pathlib import Path
from typing import Any, NoReturn

from hiqlite._accel.answers import (
    ExecuteResult,
    decode_batch,
    decode_counts,
    decode_many,
    decode_returning,
    decode_txn,
)
from hiqlite._accel.batch import Op
from hiqlite._accel.commands import encode_batch, encode_command
from hiqlite.errors import (
    HiqliteError,
    Outcome,
    Overloaded,
    RowMappingError,
    ShuttingDown,
    SnapshotCorruption,
    UsageError,
    with_outcome,
)
from hiqlite.runtime.metrics import Member, Metrics
from hiqlite.runtime.wishes import Wish
from hiqlite.statemachine.migrations import load

from .base import Client, Consistency, Into
from .management import Addresses
from .mapping import map_rows, mapped, mapper_of
from .migrating import Migrating
from .results import BatchResult, MigrationReport, Parameters
from .services import Services
from .timing import TIMEOUT_S_MAX, deadline, timeout_ns, timeout_s

EXECUTE, EXECUTE_MANY, TXN = 1, 2, 3
ROWS_WANTED = 1


class LocalClient(Client):
    """Client of an embedded node; see `Client` for the calls."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._group = services.group
        self._reader = services.reader
        self._inspector = services.inspector
        self._loop = asyncio.get_running_loop()
        self._cheap = services.cheap
        self._cheap_returning = services.cheap_returning
        self._now_ns = services.clock.monotonic_ns
        self._timeout_s = services.request_timeout_s
        self._timeout_ns = int(services.request_timeout_s * 1e9)
        self._closed = False
        self._why_closed: HiqliteError = ShuttingDown("the client is closed")

    # -- writes

    def execute(
        self, sql: str, params: Parameters = (), *, timeout: float | None = None, request_id: str | None = None
    ) -> Awaitable[ExecuteResult]:
        return self._single(None, sql, params, timeout, request_id, 0)

    def execute_many(
        self,
        sql: str,
        seq_of_params: Iterable[Parameters],
        *,
        timeout: float | None = None,
        request_id: str | None = None,
    ) -> Awaitable[list[ExecuteResult]]:
        def decode(answer: bytes, index: int, detail: object) -> list[ExecuteResult]:
            return decode_many(answer, index, sql)

        def record() -> bytes:
            rows = list(seq_of_params) if isinstance(seq_of_params, Iterable) else []
            if not rows:
                raise UsageError("execute_many was given no parameters")
            self._inspect_all([(sql, params) for params in rows], request_id, expects_rows=False)
            return encode_command(EXECUTE_MANY, [(sql, params) for params in rows], request_id=request_id or "")

        return self._write(record, decode, timeout, request_id)

    def execute_returning(
        self,
        sql: str,
        params: Parameters = (),
        *,
        into: Into = None,
        timeout: float | None = None,
        request_id: str | None = None,
    ) -> Awaitable[list[Any]]:
        def decode(answer: bytes, index: int, detail: object) -> list[Any]:
            rows, _ = decode_returning(answer, index, sql, bytes_for_bad_text=into is not None)
            try:
                return map_rows(rows, into)
            except RowMappingError as error:
                error.outcome = "applied"
                raise

        return self._single(decode, sql, params, timeout, request_id, ROWS_WANTED)

    def transact(
        self,
        statements: Sequence[tuple[str, Parameters]],
        expected: Sequence[int | None] | None,
        *,
        rows: bool,
        timeout: float | None,
        request_id: str | None,
    ) -> Awaitable[list[Any]]:
        texts = [sql for sql, _ in statements]

        def decode(answer: bytes, index: int, detail: object) -> list[Any]:
            return decode_txn(answer, index, texts) if rows else decode_counts(answer, index, texts)

        def record() -> bytes:
            if not statements:
                raise UsageError("a transaction needs at least one statement")
            self._inspect_all(statements, request_id)
            flags = ROWS_WANTED if rows else 0
            return encode_command(TXN, statements, flags=flags, expects=expected, request_id=request_id or "")

        return self._write(record, decode, timeout, request_id)

    def batch(
        self, sql_text: str, *, timeout: float | None = None, request_id: str | None = None
    ) -> Awaitable[BatchResult]:
        def decode(answer: bytes, index: int, detail: object) -> BatchResult:
            return BatchResult(decode_batch(answer, index))

        return self._write(lambda: encode_batch(sql_text, request_id=request_id or ""), decode, timeout, request_id)

    async def migrate(
        self,
        source: str | Path | Mapping[str, str],
        *,
        dry_run: bool = False,
        timeout: float | None = None,
        request_id: str | None = None,
    ) -> MigrationReport:
        self._check(request_id)
        end_ns = self._deadline(self._services.migration_timeout_s if timeout is None else timeout)
        migrating = Migrating(self._services, load(source), end_ns, self._barrier, self._sized, request_id)
        return await (migrating.rehearse() if dry_run else migrating.run())

    # -- reads

    async def query(
        self,
        sql: str,
        params: Parameters = (),
        *,
        into: Into = None,
        consistency: Consistency | None = None,
        timeout: float | None = None,
    ) -> list[Any]:
        limit_s = self._timeout_s if timeout is None else timeout_ns(timeout, outcome=None) / 1e9
        if consistency is not None:
            end_s = self._loop.time() + limit_s
            await self._consistent(consistency, end_s)
            limit_s = max(0.0, end_s - self._loop.time())  # what waiting has left of it is the reader's
        if self._closed:
            self._raise_why(None)
        # With `into`, text that is not UTF-8 comes as bytes, and the mapping decides.
        as_bytes = into is not None
        try:
            rows = self._reader.query_now(sql, params, bytes_for_bad_text=as_bytes)
            if rows is None:
                rows = await self._reader.query(sql, params, timeout=limit_s, bytes_for_bad_text=as_bytes)
        except SnapshotCorruption as damage:
            self._services.damaged(damage)
            raise
        return rows if into is None else await mapped(rows, into)

    async def query_iter(
        self, sql: str, params: Parameters = (), *, into: Into = None, consistency: Consistency | None = None
    ) -> AsyncIterator[Any]:
        self.check_process()
        if self._closed:
            self._raise_why(None)
        if consistency is not None:
            await self._consistent(consistency, self._loop.time() + self._timeout_s)
        services = self._services
        chunks = self._reader.iterate(
            sql,
            params,
            idle_s=services.query_iter_idle_s,
            total_s=services.query_iter_total_s,
            bytes_for_bad_text=into is not None,
        )
        try:
            async with aclosing(chunks):  # leaving early frees the reader thread at once
                async for chunk in chunks:
                    convert = mapper_of(chunk, into)
                    for row in chunk:
                        yield convert(row)
                        chunks.touch()
        except SnapshotCorruption as damage:
            services.damaged(damage)
            raise

    async def _consistent(self, consistency: str, end_s: float) -> None:
        """`end_s`: when it has to be reached, in the loop's time."""
        self.check_process()
        if consistency == "linearizable":
            await self._barrier(end_s)
        elif consistency == "session":
            # A write resolves after this node applied it; but one may have been told "applied" when its time was over.
            await self._until_applied(self._group.proposals.forwarder.answered_index, end_s)
        elif consistency != "local":
            hint = "local, session or linearizable"
            raise UsageError(f"unknown consistency {consistency!r}", hint=hint, outcome=None)

    async def _barrier(self, end_s: float = inf) -> None:
        """Wait until this node has applied everything that was committed before the call."""
        index = await self._services.read_round.index(end_s)
        await self._until_applied(index, end_s)

    async def _until_applied(self, index: int, end_s: float) -> None:
        if index > self._group.applier.applied_index:
            async with deadline(min(TIMEOUT_S_MAX, max(0.0, end_s - self._loop.time()))):
                await self._group.until_applied(index)

    # -- life

    async def shutdown(self, *, timeout: float | None = None) -> None:
        self.check_process()
        async with deadline(timeout):
            await self._services.node.shutdown()
        self._closed = True

    async def closed(self) -> None:
        """Wait until this node has shut down, for whatever reason."""
        self.check_process()
        await self._services.node.closed.wait()
        self.check_process()

    async def snapshot(self, *, timeout: float | None = None) -> int:
        if self._closed:
            self._raise_why(None)
        async with deadline(timeout):
            return await self._services.node.snapshot()

    async def metrics(self, *, timeout: float | None = None) -> Metrics:
        self._answers_at_once(timeout)
        return self._services.node.metrics()

    async def is_healthy(self, *, timeout: float | None = None) -> bool:
        self._answers_at_once(timeout)
        return not self._closed and self._services.node.health().healthy

    async def is_ready(self, *, timeout: float | None = None) -> bool:
        self._answers_at_once(timeout)
        return not self._closed and self._services.node.health().ready

    async def members(self, *, timeout: float | None = None) -> list[Member]:
        self._answers_at_once(timeout)
        return self._services.node.members.members()

    async def is_leader(self, group: str = "db", *, timeout: float | None = None) -> bool:
        self._answers_at_once(timeout)
        return self._services.node.leads(group)

    async def _fulfil(self, wish: Wish, addresses: Addresses, timeout: float | None, waits: bool) -> None:
        self.check_process()
        limit = timeout if waits or timeout is not None else self._timeout_s
        await self._services.node.members.fulfil(wish, addresses, limit)

    async def _transfer(self, to: int, group: str | None, timeout: float | None) -> None:
        self.check_process()
        await self._services.node.transfer_leadership(to, group, self._timeout_s if timeout is None else timeout)

    async def content_hash(self) -> str:
        """Hash of the schema and all rows of this node's database: equal on equal nodes (a scan of everything)."""
        self.check_process()
        return await self._services.content_hash()

    def refuse(self, error: HiqliteError) -> None:
        """Nothing of this node's database is given any more: each call raises this."""
        self._closed, self._why_closed = True, error

    def left_to_parent(self) -> None:
        """In a forked child: each call raises UsageError."""
        self.inherited = self._closed = True

    # -- helpers

    def _deadline(self, timeout: float | None) -> int:
        return self._now_ns() + (self._timeout_ns if timeout is None else timeout_ns(timeout))

    def _inspect_all(
        self, statements: Sequence[tuple[str, Parameters]], request_id: str | None, expects_rows: bool | None = None
    ) -> None:
        """What the leader can tell before anything is replicated; a follower's leader does it for him."""
        if self._group.leads:
            # With a request id it may be applied already, and have changed the schema that it is looked at by.
            lenient = request_id is not None or self._group.behind
            self._inspector.check_statements(statements, expects_rows=expects_rows, lenient=lenient)

    def _answers_at_once(self, timeout: float | None) -> None:
        """A call that waits for nothing: what it is given for a timeout only has to be one."""
        self.check_process()
        timeout_s(timeout)

    def check_process(self) -> None:
        self._services.node.check_process()

    def _raise_why(self, outcome: Outcome | None) -> NoReturn:
        self.check_process()
        raise with_outcome(self._why_closed, outcome)

    def _check(self, request_id: str | None) -> None:
        if self._closed:
            self._raise_why("not_applied")
        if request_id is not None and (not isinstance(request_id, str) or not request_id):
            raise UsageError(f"a request id is text, and not empty, not {request_id!r}")
        if request_id is not None and not self._group.proposals.session.possible:
            hint = "wait until all members were met, and none is of an older release"
            raise Overloaded("request ids are not possible now", hint=hint)

    def _sized(self, record: bytes) -> bytes:
        if len(record) > self._services.max_entry_bytes:
            raise UsageError(
                f"the write has {len(record)} bytes, the limit is {self._services.max_entry_bytes}",
                hint="split it, or raise max_entry_size",
            )
        return record

    def _single(
        self,
        decode: Callable[[bytes, int, object], Any] | None,
        sql: str,
        params: Parameters,
        timeout: float | None,
        request_id: str | None,
        flags: int,
    ) -> Op:
        """One statement; one that is known here, as a cheap one, is proposed at once where nothing waits."""
        op = Op(self._loop, decode, sql, self._deadline(timeout))
        try:
            info = (self._cheap_returning if flags else self._cheap).get(sql)
            if info is not None and request_id is None and self._group.proposes and not self._closed:
                if type(params) not in (tuple, list) or len(params) != info.parameter_count:
                    self._inspector.check_parameters(info, params)
                if self._group.proposals.execute(info.text_utf8, params, op, flags):
                    return op
            self._check(request_id)
            self._inspect_all([(sql, params)], request_id, expects_rows=flags == ROWS_WANTED)
            record = encode_command(EXECUTE, [(sql, params)], flags=flags, request_id=request_id or "")
            self._group.write(self._sized(record), op)
        except HiqliteError as error:
            if self.inherited:
                raise
            op.set_exception(error)
        except TypeError:
            if isinstance(sql, str):
                raise
            op.set_exception(UsageError(f"SQL must be text, not {type(sql).__name__}"))
        return op

    def _write(
        self,
        record: Callable[[], bytes],
        decode: Callable[[bytes, int, object], Any],
        timeout: float | None,
        request_id: str | None,
    ) -> Op:
        op = Op(self._loop, decode, None, self._deadline(timeout))
        try:
            self._check(request_id)
            self._group.write(self._sized(record()), op)
        except HiqliteError as error:
            if self.inherited:
                raise
            op.set_exception(error)
        return op
