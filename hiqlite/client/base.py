"""The one `Client` interface: embedded, remote and proxied clients differ in how a call travels, never in its meaning.

Here stand the calls and what can be said of them once. Must not know transports, groups or SQLite.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from hiqlite._accel.answers import ExecuteResult, StatementResult
from hiqlite._accel.values import Row
from hiqlite.errors import RowNotFound, TooManyRows, UsageError

from .management import Management
from .results import AtomicBlock, BatchResult, MigrationReport, Parameters

Consistency = Literal["local", "session", "linearizable"]
Into = Callable[..., Any] | type | None


class Client(Management):
    """A database of a cluster, from wherever it is reached.

    Every call takes `timeout` in seconds (default `request_timeout`, 10). Errors stand in `hiqlite.errors`; those of
    writes carry `outcome`.
    """

    # -- writes: one log entry each

    @abstractmethod
    def execute(
        self, sql: str, params: Parameters = (), *, timeout: float | None = None, request_id: str | None = None
    ) -> Awaitable[ExecuteResult]:
        """Run one statement. Resolves when this node has applied it.

        Returns: `ExecuteResult(rows_affected, last_insert_rowid, log_index)`.
        Raises: StatementError and its kinds, ParameterError, UsageError, ClusterError.
        """

    @abstractmethod
    def execute_many(
        self,
        sql: str,
        seq_of_params: Iterable[Parameters],
        *,
        timeout: float | None = None,
        request_id: str | None = None,
    ) -> Awaitable[list[ExecuteResult]]:
        """Run one statement with each set of parameters, all or nothing."""

    @abstractmethod
    def execute_returning(
        self,
        sql: str,
        params: Parameters = (),
        *,
        into: Into = None,
        timeout: float | None = None,
        request_id: str | None = None,
    ) -> Awaitable[list[Any]]:
        """Run one statement with RETURNING; the rows, or objects of type `into`."""

    async def execute_returning_one(
        self,
        sql: str,
        params: Parameters = (),
        *,
        into: Into = None,
        timeout: float | None = None,
        request_id: str | None = None,
    ) -> Any:
        """Exactly one row. The write has happened also when this raises RowNotFound or TooManyRows."""
        rows = await self.execute_returning(sql, params, into=into, timeout=timeout, request_id=request_id)
        return single(rows, "applied")

    @abstractmethod
    def transact(
        self,
        statements: Sequence[tuple[str, Parameters]],
        expected: Sequence[int | None] | None,
        *,
        rows: bool,
        timeout: float | None,
        request_id: str | None,
    ) -> Awaitable[list[Any]]:
        """The entry behind `txn` and `atomic`: all statements or none.

        Returns: per statement a `StatementResult` (counts and rows), or only its `ExecuteResult` without `rows`.
        """

    async def txn(
        self,
        statements: Iterable[tuple[str, Parameters]],
        *,
        timeout: float | None = None,
        request_id: str | None = None,
    ) -> list[ExecuteResult]:
        """Run statements as one transaction; `hiqlite.ref(i, column)` stands for a value of an earlier RETURNING."""
        listed = pairs(statements)
        counts: list[ExecuteResult] = await self.transact(
            listed, None, rows=False, timeout=timeout, request_id=request_id
        )
        return counts

    @asynccontextmanager
    async def atomic(
        self, *, timeout: float | None = None, request_id: str | None = None
    ) -> AsyncIterator[AtomicBlock]:
        """Collect statements and send them as one transaction when the block ends; nothing when it raises."""
        self.check_process()
        block = AtomicBlock()
        yield block
        if not block.statements:
            return
        outcomes: list[StatementResult] = await self.transact(
            [(statement.sql, statement.params) for statement in block.statements],
            [statement.expected for statement in block.statements],
            rows=True,
            timeout=timeout,
            request_id=request_id,
        )
        for statement, outcome in zip(block.statements, outcomes, strict=True):
            statement.finished(outcome)

    @abstractmethod
    def batch(
        self, sql_text: str, *, timeout: float | None = None, request_id: str | None = None
    ) -> Awaitable[BatchResult]:
        """Run the statements of a text one by one; a failed one does not undo earlier ones."""

    @abstractmethod
    async def migrate(
        self,
        source: str | Path | Mapping[str, str],
        *,
        dry_run: bool = False,
        timeout: float | None = None,
        request_id: str | None = None,
    ) -> MigrationReport:
        """Bring the schema up to date from a folder, a package name, or a mapping file name -> text.

        Args:
            dry_run: on a copy of this node's database, which is thrown away: the report says what would be applied,
                or the error that would be raised is. Needs room for the copy, and the time to make it. Nothing of it is
                remembered under a request id.
        """

    # -- reads

    @abstractmethod
    async def query(
        self,
        sql: str,
        params: Parameters = (),
        *,
        into: Into = None,
        consistency: Consistency | None = None,
        timeout: float | None = None,
    ) -> list[Any]:
        """All rows, or objects of type `into`."""

    @abstractmethod
    def query_iter(
        self, sql: str, params: Parameters = (), *, into: Into = None, consistency: Consistency | None = None
    ) -> AsyncIterator[Any]:
        """Rows of one consistent snapshot, in bounded memory."""

    async def query_one(
        self,
        sql: str,
        params: Parameters = (),
        *,
        into: Into = None,
        consistency: Consistency | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Exactly one row, else RowNotFound or TooManyRows."""
        return single(await self.query(sql, params, into=into, consistency=consistency, timeout=timeout), None)

    async def query_optional(
        self,
        sql: str,
        params: Parameters = (),
        *,
        into: Into = None,
        consistency: Consistency | None = None,
        timeout: float | None = None,
    ) -> Any | None:
        """One row or None; TooManyRows if there are several."""
        rows = await self.query(sql, params, into=into, consistency=consistency, timeout=timeout)
        return single(rows, None) if rows else None

    async def query_value(
        self,
        sql: str,
        params: Parameters = (),
        *,
        consistency: Consistency | None = None,
        timeout: float | None = None,
    ) -> Any:
        """The first column of exactly one row."""
        row: Row = single(await self.query(sql, params, consistency=consistency, timeout=timeout), None)
        return row[0]

    # -- life

    inherited = False  # whether it lives in the parent of this process

    @abstractmethod
    def check_process(self) -> None:
        """Raises UsageError in a process that cannot use this client."""

    @abstractmethod
    async def shutdown(self, *, timeout: float | None = None) -> None:
        """Stop. Idempotent. No limit if none is given; RequestTimeout: not in time; it goes on."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Shuts down; a forked child that leaves the block does not, its parent will."""
        if not self.inherited:
            await self.shutdown()


def pairs(statements: Iterable[tuple[str, Parameters]]) -> list[tuple[str, Parameters]]:
    """The statements of a `txn` as a list; UsageError when they are no pairs of text and parameters."""
    listed = list(statements) if isinstance(statements, Iterable) else [statements]
    for number, each in enumerate(listed):
        if not isinstance(each, tuple | list) or len(each) != 2:
            raise UsageError(f"statement {number} is no pair", hint='give pairs of text and parameters: ("...", [])')
    return listed


def single(rows: list[Any], outcome: Literal["applied"] | None) -> Any:
    """The only one of `rows`."""
    if len(rows) == 1:
        return rows[0]
    if not rows:
        raise RowNotFound("the statement gave no row", outcome=outcome)
    raise TooManyRows(f"the statement gave {len(rows)} rows, one was asked for", outcome=outcome)
