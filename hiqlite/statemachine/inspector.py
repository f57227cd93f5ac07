"""The leader's look at every new text before it is proposed.

A text is prepared once per schema, never stepped: wrong SQL, a read in a write call, several statements, parameters
that do not fit are told to the caller before anything is replicated. Must not know records' bytes, Raft, or other
threads: one thread uses it. Invariant: what passes here may still fail when it is applied (the schema may have changed
by then), but what fails here would have failed on every node.

`lenient`: the text may depend on a schema change that is not in this database yet (an earlier statement of the same
transaction, or an entry in flight). Errors of SQLite other than bad syntax then pass, with `uncertain=True`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import apsw

from hiqlite._accel.commands import ROWS_WANTED, CommandView, Operation
from hiqlite._accel.guard import Guard, Program
from hiqlite._accel.plain.commands import PARAMETERS_MAX, too_many_parameters
from hiqlite.errors import HiqliteError, ParameterError, StorageError, UsageError

from .authorizer import Role, Seen, error_of, shortened

CACHED_TEXT_CHARACTERS_MAX: Final = 64 * 1024  # longer texts are prepared each time, so that the cache is bounded
SYNTAX_WORDS: Final = ("syntax error", "incomplete input", "unrecognized token")
# NOMEM, BUSY, LOCKED, INTERRUPT, READONLY, IOERR, CORRUPT, FULL, CANTOPEN, PROTOCOL, NOTADB: this node's trouble.
ENVIRONMENTAL_CODES: Final = frozenset({5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 26})
NOTHING_SEEN: Final = Seen(0)
UNBOUNDED: Final = Seen.SCHEMA | Seen.RELOAD | Seen.VIRTUAL | Seen.RECURSIVE | Seen.EXPLAIN
Parameters = Sequence[Any] | Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class StatementInfo:
    """What preparing one text told; counts for `schema_epoch`."""

    text_utf8: bytes
    parameter_count: int
    parameter_names: tuple[str | None, ...]  # without prefix; None for `?` and `?1`
    readonly: bool
    returns_rows: bool
    column_names: tuple[str, ...]
    changes_schema: bool
    touches_virtual: bool
    schema_epoch: int
    seen: Seen = NOTHING_SEEN
    bounded: bool = False  # its work is known to be bounded by its text
    level: bool = False  # or is linear in the tables, whatever its parameters are
    plain: bool = False  # it calls no function
    uncertain: bool = False  # could not be prepared against this schema; only the text is known


class Inspector:
    """Prepares texts under the writer's rules.

    Args:
        connection: from `open_inspector`; stays the caller's to close.
        capacity: texts remembered.
    """

    def __init__(self, connection: apsw.Connection, capacity: int = 1000) -> None:
        self._guard = Guard(connection, Role.INSPECTOR)
        self._capacity = max(1, capacity)
        self._known: OrderedDict[str, StatementInfo] = OrderedDict()
        self._epoch = 1

    @property
    def schema_epoch(self) -> int:
        return self._epoch

    def schema_changed(self) -> None:
        """An entry that changed the schema was applied here: forget what was learnt."""
        self._epoch += 1
        self._known.clear()
        self._guard.schema_changed()
        self._guard.own_writes(True)
        try:  # as the writer does: ANALYZE changes how it plans, and leaves the schema's cookie as it is
            self._guard.connection.execute("PRAGMA writable_schema = RESET").fetchall()
        finally:
            self._guard.own_writes(False)

    def reopen(self, connection: apsw.Connection) -> None:
        """Judges by another database from now on; the connection before it may be closed then."""
        self._guard = Guard(connection, Role.INSPECTOR)
        self.schema_changed()

    # -- texts

    def inspect(
        self, sql: str, *, expects_rows: bool | None = None, reads: bool = False, lenient: bool = False, index: int = 0
    ) -> StatementInfo:
        """What is known of a text that was given to a write call (or to a read call).

        Args:
            sql: one statement.
            expects_rows: the call wants rows (True), wants none (False), or takes both (None).
            reads: the call reads.
            lenient: see above.
            index: of the statement within its call, for errors.

        Raises:
            UsageError: no statement, several, or one of the wrong kind; the hint names the right call.
            StatementError, SchemaError, DeterminismError: SQLite or the guard refuses it.
            StorageError: this node could not read its schema.
        """
        info = self.look(sql, lenient=lenient, index=index)
        if not info.uncertain:
            check_kind(info, expects_rows, reads)
        return info

    def look(self, sql: str, *, lenient: bool = False, index: int = 0) -> StatementInfo:
        """The same of a text of any kind, whatever it was given to."""
        info = self._known.get(sql) if isinstance(sql, str) else None
        if info is None:
            return self._learn(sql, lenient, index)
        self._known.move_to_end(sql)
        return info

    def _learn(self, sql: str, lenient: bool, index: int) -> StatementInfo:
        text = text_utf8(sql)
        program = self._guard.prepare(text)
        if program.code:
            if not (lenient and may_pass_later(program)):
                raise refusal(program, sql, index)
            return StatementInfo(text, -1, (), False, False, (), True, True, self._epoch, uncertain=True)
        if program.empty:
            raise UsageError("the text holds no statement")
        if self._has_more(text, program.end):
            raise UsageError("the text holds several statements", hint="use batch(), or txn() for all or nothing")
        seen = Seen(program.seen)
        may_be_cheap = not (seen & UNBOUNDED)
        bounded = may_be_cheap and self._guard.is_bounded(text)
        level, plain = bounded, False
        if (may_be_cheap and not bounded) or Seen.CREATE_INDEX in seen:  # nobody asks of others
            level, plain = self._guard.shape(text)
        info = StatementInfo(
            text_utf8=text,
            parameter_count=program.parameter_count,
            parameter_names=program.parameter_names,
            readonly=Seen.READS in seen,
            returns_rows=bool(program.column_names),
            column_names=program.column_names,
            changes_schema=Seen.SCHEMA in seen,
            touches_virtual=Seen.VIRTUAL in seen,
            schema_epoch=self._epoch,
            seen=seen,
            bounded=bounded,
            level=level,
            plain=plain,
        )
        self._remember(sql, info)
        return info

    def _has_more(self, text: bytes, end: int) -> bool:
        """Whether anything but blanks, comments and semicolons follows."""
        if end >= len(text):
            return False
        rest = self._guard.prepare(text, end)
        return rest.code != 0 or not rest.empty

    def _remember(self, sql: str, info: StatementInfo) -> None:
        if len(sql) > CACHED_TEXT_CHARACTERS_MAX:
            return
        self._known[sql] = info
        if len(self._known) > self._capacity:
            self._known.popitem(last=False)

    # -- parameters

    def check_parameters(self, info: StatementInfo, params: Parameters) -> None:
        """ParameterError when these parameters do not fit the statement; values are not looked at."""
        if isinstance(params, Mapping):
            self._check_binding(info, len(params), params.keys())
        elif isinstance(params, (str, bytes, bytearray, memoryview)) or not isinstance(params, Sequence):
            kind = type(params).__name__
            raise ParameterError(
                f"parameters must be a sequence or a mapping, not {kind}", hint="write [value] for one"
            )
        else:
            self._check_binding(info, len(params), None)

    def _check_binding(self, info: StatementInfo, count: int, names: Iterable[str] | None) -> None:
        if count > PARAMETERS_MAX:
            raise too_many_parameters(count)
        if info.uncertain:
            return
        if names is not None:
            check_names(info.parameter_names, names)
        elif count != info.parameter_count:
            raise ParameterError(f"the statement takes {info.parameter_count} parameters, {count} are given")

    # -- whole calls

    def check_statements(
        self, statements: Sequence[tuple[str, Parameters]], *, expects_rows: bool | None = None, lenient: bool = False
    ) -> list[StatementInfo]:
        """Every statement of an `execute_many`, a `txn` or one write, in order; what is known of each.

        A statement behind one that changes the schema is inspected leniently.
        """
        infos: list[StatementInfo] = []
        changes_schema = lenient
        last: StatementInfo | None = None
        last_sql = ""
        for index, (sql, params) in enumerate(statements):
            # The same text with as many parameters as a moment ago: what bulk writes consist of.
            plain = sql is last_sql and type(params) in (tuple, list)
            if plain and last is not None and len(params) == last.parameter_count:
                infos.append(last)
                continue
            if isinstance(params, (tuple, list, dict)) and len(params) > PARAMETERS_MAX:
                raise too_many_parameters(len(params))  # as a follower is told, which encodes them first
            info = self.inspect(sql, expects_rows=expects_rows, lenient=changes_schema, index=index)
            with_index(self.check_parameters, info, params, index=index, count=len(statements))
            changes_schema = changes_schema or info.changes_schema
            infos.append(info)
            last, last_sql = (None if info.changes_schema else info), sql
        return infos

    def check_command(self, view: CommandView, *, lenient: bool = False) -> list[StatementInfo]:
        """The same for a record that came from elsewhere; a batch or a migration is looked at when it runs.

        An `execute` that does not want rows may not return any: its caller would never see them.
        """
        if view.operation in (Operation.BATCH, Operation.MIGRATION):
            return []
        rows_unwanted = view.operation == Operation.EXECUTE and not view.flags & ROWS_WANTED
        texts = [text.decode() for text in view.texts]
        infos: list[StatementInfo] = []
        changes_schema = lenient
        for index, statement in enumerate(view.statements):
            info = self.inspect(
                texts[statement.text_number],
                expects_rows=False if rows_unwanted else None,
                lenient=changes_schema,
                index=index,
            )
            count, names = statement.parameter_count, statement.names
            with_index(self._check_binding, info, count, names, index=index, count=len(view.statements))
            changes_schema = changes_schema or info.changes_schema
            infos.append(info)
        return infos


# --------------------------------------------------------------------------- parts


def text_utf8(sql: Any) -> bytes:
    """The text as SQLite gets it; UsageError for what it could not take as a whole."""
    if not isinstance(sql, str):
        raise UsageError(f"SQL must be text, not {type(sql).__name__}")
    if "\0" in sql:
        raise UsageError("SQL holds a NUL character")
    try:
        return sql.encode()
    except UnicodeEncodeError as error:
        raise UsageError("SQL holds a lone surrogate, which UTF-8 cannot hold") from error


def check_kind(info: StatementInfo, expects_rows: bool | None, reads: bool) -> None:
    """UsageError naming the right call when the statement is not of the kind that the call takes."""
    if reads:
        if not info.readonly:
            name = "execute_returning" if info.returns_rows else "execute"
            error = UsageError("this statement writes, and was given to a read", hint=f"use {name}()")
            error.outcome = None
            raise error
        return
    if info.readonly:
        raise UsageError("this statement only reads, and was given to a write", hint="use query()")
    if expects_rows is True and not info.returns_rows:
        raise UsageError("this statement returns no rows", hint="use execute(), or add RETURNING")
    if expects_rows is False and info.returns_rows:
        raise UsageError("this statement returns rows", hint="use execute_returning()")


def check_names(wanted: tuple[str | None, ...], given: Iterable[str]) -> None:
    """ParameterError when names are missing, left over, or the statement has parameters without one."""
    names = set(given)
    for position, name in enumerate(wanted, 1):
        if name is None:
            raise ParameterError(f"parameter {position} has no name", hint="give a sequence instead of a mapping")
        if name not in names:
            raise ParameterError(f"no value is given for parameter {name!r}")
    for name in sorted(names.difference(name for name in wanted if name is not None), key=str):
        raise ParameterError(f"too many parameters: the statement has none named {name!r}")


def with_index(check: Any, *arguments: Any, index: int, count: int) -> None:
    """Runs a check; its ParameterError names the statement when there are several."""
    try:
        check(*arguments)
    except ParameterError as error:
        if count == 1:
            raise
        raise ParameterError(f"statement {index}: {error.message}", hint=error.hint) from error


def may_pass_later(program: Program) -> bool:
    """Whether a change of the schema could make this text right."""
    if program.refused or program.code & 0xFF in ENVIRONMENTAL_CODES:
        return False
    return not any(words in program.message for words in SYNTAX_WORDS)


def refusal(program: Program, sql: str, index: int) -> HiqliteError:
    """The exception for a text that could not be prepared."""
    if not program.refused and program.code & 0xFF in ENVIRONMENTAL_CODES:
        return StorageError(
            f"the schema could not be read for {shortened(sql)!r}: {program.message} (SQLite code {program.code})",
            outcome="not_applied",
        )
    return error_of(program.error_class, program.message, extended_code=program.code, sql=sql, index=index)
