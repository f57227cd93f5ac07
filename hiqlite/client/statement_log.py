"""The client of a node that logs its statements (`log_statements`).

What this is for: one line per call, before it is sent; a client without the setting has none of this in its way.
Must not know: what becomes of a call.
Invariant: parameters are logged only where the setting is `params`; a line is bounded.
"""

from __future__ import annotations

import reprlib
from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hiqlite import observe
from hiqlite._accel.answers import ExecuteResult

from .base import Consistency, Into
from .local import LocalClient
from .results import BatchResult, MigrationReport, Parameters
from .services import Services

SQL_CHARACTERS_MAX = 2_000

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 200
_SHORT.maxtuple = _SHORT.maxlist = _SHORT.maxdict = 50

log = observe.logger("statements")


class LoggingClient(LocalClient):
    """As `LocalClient`, telling each statement."""

    def __init__(self, services: Services, with_parameters: bool) -> None:
        super().__init__(services)
        self._with_parameters = with_parameters

    def _tell(self, call: str, sql: object, params: object = ()) -> None:
        text = sql if isinstance(sql, str) else type(sql).__name__
        if len(text) > SQL_CHARACTERS_MAX:
            text = f"{text[:SQL_CHARACTERS_MAX]}..."
        if self._with_parameters:
            log.info("%s: %s with %s", call, text, _SHORT.repr(params))
        else:
            log.info("%s: %s", call, text)

    def execute(
        self, sql: str, params: Parameters = (), *, timeout: float | None = None, request_id: str | None = None
    ) -> Awaitable[ExecuteResult]:
        self._tell("execute", sql, params)
        return super().execute(sql, params, timeout=timeout, request_id=request_id)

    def execute_many(
        self,
        sql: str,
        seq_of_params: Iterable[Parameters],
        *,
        timeout: float | None = None,
        request_id: str | None = None,
    ) -> Awaitable[list[ExecuteResult]]:
        rows = list(seq_of_params) if isinstance(seq_of_params, Iterable) else seq_of_params
        self._tell("execute_many", sql, rows)
        return super().execute_many(sql, rows, timeout=timeout, request_id=request_id)

    def execute_returning(
        self,
        sql: str,
        params: Parameters = (),
        *,
        into: Into = None,
        timeout: float | None = None,
        request_id: str | None = None,
    ) -> Awaitable[list[Any]]:
        self._tell("execute_returning", sql, params)
        return super().execute_returning(sql, params, into=into, timeout=timeout, request_id=request_id)

    def transact(
        self,
        statements: Sequence[tuple[str, Parameters]],
        expected: Sequence[int | None] | None,
        *,
        rows: bool,
        timeout: float | None,
        request_id: str | None,
    ) -> Awaitable[list[Any]]:
        for sql, params in statements:
            self._tell("transaction", sql, params)
        return super().transact(statements, expected, rows=rows, timeout=timeout, request_id=request_id)

    def batch(
        self, sql_text: str, *, timeout: float | None = None, request_id: str | None = None
    ) -> Awaitable[BatchResult]:
        self._tell("batch", sql_text)
        return super().batch(sql_text, timeout=timeout, request_id=request_id)

    async def migrate(
        self,
        source: str | Path | Mapping[str, str],
        *,
        dry_run: bool = False,
        timeout: float | None = None,
        request_id: str | None = None,
    ) -> MigrationReport:
        files = str(source) if isinstance(source, str | Path) else ", ".join(source)
        self._tell("migrate on a copy" if dry_run else "migrate", files)
        return await super().migrate(source, dry_run=dry_run, timeout=timeout, request_id=request_id)

    async def query(
        self,
        sql: str,
        params: Parameters = (),
        *,
        into: Into = None,
        consistency: Consistency | None = None,
        timeout: float | None = None,
    ) -> list[Any]:
        self._tell("query", sql, params)
        return await super().query(sql, params, into=into, consistency=consistency, timeout=timeout)

    def query_iter(
        self, sql: str, params: Parameters = (), *, into: Into = None, consistency: Consistency | None = None
    ) -> AsyncIterator[Any]:
        self._tell("query_iter", sql, params)
        return super().query_iter(sql, params, into=into, consistency=consistency)
