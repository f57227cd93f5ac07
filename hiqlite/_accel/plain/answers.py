"""Answers in plain Python: what applying an entry gave (docs/formats.md section 4).

The twin that defines the meaning of `answers.pyx`, and the one place that writes answers in Python (the apply thread
writes its own in C). Must not know SQL or who waits. Invariant: an answer is either decoded in full, or raised as the
error it carries, or refused as a ProtocolError.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from hiqlite._accel.plain.rows import Columns, Row, take_rows
from hiqlite._accel.plain.values import encode_values, opened, take
from hiqlite.errors import (
    AnswerNotKept,
    ConstraintError,
    DeterminismError,
    ExpectationFailed,
    HiqliteError,
    MigrationError,
    Outcome,
    ParameterError,
    ProtocolError,
    RowMappingError,
    SchemaError,
    SessionExpired,
    StatementError,
    UsageError,
)

VERSION: Final = 1
HEAD: Final = struct.Struct("<BBHI")
RESULT: Final = struct.Struct("<B3sIqq")
ERROR: Final = struct.Struct("<HHiII")
REPEATED: Final = 1  # flag: the answer was given before, by the entry whose index follows the results
DONE, FAILED, ROWS = range(3)
STATUS_DONE, STATUS_NOTHING_REMAINS, STATUS_PART_REMAINS = range(3)
SQL_SHOWN_MAX: Final = 200

ERROR_CLASSES: Final[dict[int, type[HiqliteError]]] = {
    1: StatementError,
    2: ConstraintError,
    3: SchemaError,
    4: ExpectationFailed,
    5: DeterminismError,
    6: UsageError,
    7: ParameterError,
    8: MigrationError,
    9: SessionExpired,
    10: AnswerNotKept,
}


# --------------------------------------------------------------------------- writing


@dataclass(frozen=True, slots=True)
class Done:
    """A statement that gave no rows."""

    rows_affected: int = 0
    last_insert_rowid: int = 0


@dataclass(frozen=True, slots=True)
class Failed:
    """A statement that failed; `error_class` as in docs/formats.md section 4, `part_remains` of one of a batch."""

    error_class: int
    message: str
    extended_code: int = 0
    statement_index: int = 0
    part_remains: bool = False


@dataclass(frozen=True, slots=True)
class Returned:
    """A statement that gave rows."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    rows_affected: int = 0
    last_insert_rowid: int = 0


def encode_answer(status: int, results: Sequence[Done | Failed | Returned]) -> bytes:
    """The answer with these results."""
    return HEAD.pack(VERSION, status, 0, len(results)) + b"".join(_encode_result(result) for result in results)


def _encode_result(result: Done | Failed | Returned) -> bytes:
    if isinstance(result, Done):
        return RESULT.pack(DONE, b"", 0, result.rows_affected, result.last_insert_rowid)
    if isinstance(result, Failed):
        message = result.message.encode()
        tail = ERROR.pack(result.error_class, 0, result.extended_code, result.statement_index, len(message)) + message
        return RESULT.pack(FAILED, b"", len(tail), 0, result.part_remains) + tail
    names = [name.encode() for name in result.columns]
    tail = struct.pack("<II", len(names), len(result.rows))
    tail += b"".join(struct.pack("<H", len(name)) + name for name in names)
    tail += b"".join(encode_values(row) for row in result.rows)
    return RESULT.pack(ROWS, b"", len(tail), result.rows_affected, result.last_insert_rowid) + tail


# --------------------------------------------------------------------------- results


@dataclass(frozen=True, slots=True)
class ExecuteResult:
    """What a write did: rows changed, the rowid of its last insert (0 if none), and its place in the log."""

    rows_affected: int
    last_insert_rowid: int
    log_index: int

    def __iter__(self) -> Iterator[int]:
        return iter((self.rows_affected, self.last_insert_rowid, self.log_index))


@dataclass(frozen=True, slots=True)
class StatementResult:
    """One statement of a txn. `rows` is None when the statement returns none by its nature."""

    result: Any
    rows: list[Any] | None


def shown(sql: Any) -> str | None:
    """A statement as an error carries it."""
    if sql is None:
        return None
    text = bytes(sql).decode("utf-8", "replace") if isinstance(sql, (bytes, bytearray, memoryview)) else str(sql)
    return text if len(text) <= SQL_SHOWN_MAX else text[: SQL_SHOWN_MAX - 1] + "…"


def error_of(
    error_class: int, extended_code: int, statement_index: int, message: str, sql: Any, status: int
) -> HiqliteError:
    """The error that a failed statement stands for."""
    kind = ERROR_CLASSES.get(error_class)
    if kind is None:
        raise ProtocolError(f"answer: unknown error class {error_class}")
    if kind is SessionExpired:  # it speaks of this entry alone: the write may stand in the log for a second time
        return kind(message)
    outcome: Outcome = "applied" if status == STATUS_PART_REMAINS else "not_applied"
    if not issubclass(kind, StatementError):
        return kind(message, outcome=outcome)
    return kind(
        message,
        outcome=outcome,
        sqlite_code=extended_code & 0xFF,
        extended_code=extended_code,
        statement_index=statement_index,
        sql=shown(sql),
    )


def sql_at(texts: Sequence[Any], statement_index: int) -> Any:
    """The statement's text, None when the index names none."""
    return texts[statement_index] if statement_index < len(texts) else None


def applied(error: RowMappingError) -> RowMappingError:
    """Rows that cannot be shown come from a write that happened: the error says so."""
    error.outcome = "applied"
    return error


# --------------------------------------------------------------------------- reading


@dataclass(frozen=True, slots=True)
class _Answer:
    """Where an answer's results begin."""

    view: memoryview
    status: int
    count: int
    first_index: int  # of the entry that gave it before; 0: of none

    @classmethod
    def open(cls, answer: Any) -> _Answer:
        view = opened(answer, 0)
        version, status, flags, count = HEAD.unpack(_take(view, 0, HEAD.size)[0])
        if version != VERSION or flags > REPEATED or status > STATUS_PART_REMAINS:
            raise ProtocolError("answer: a header that contradicts the format")
        first_index = 0
        if flags & REPEATED:
            first_index = int.from_bytes(_take(view, max(HEAD.size, len(view) - 8), 8)[0], "little")
            view = view[:-8]
        if count * RESULT.size > len(view) - HEAD.size:
            raise ProtocolError("answer: the bytes end inside it")
        return cls(view, status, count, first_index)

    def results(
        self, texts: Sequence[Any], log_index: int, *, strict_text: bool = False
    ) -> list[tuple[Any, list[Row] | None]]:
        """(ExecuteResult, rows or None) or (error, None) per result."""
        found: list[tuple[Any, list[Row] | None]] = []
        offset = HEAD.size
        for _ in range(self.count):
            head, offset = _take(self.view, offset, RESULT.size)
            kind, zero, size, affected, rowid = RESULT.unpack(head)
            if zero != b"\x00\x00\x00" or kind > ROWS or (kind == DONE and size):
                raise ProtocolError("answer: a result that contradicts the format")
            tail, offset = _take(self.view, offset, size)
            if kind == FAILED:
                status = STATUS_PART_REMAINS if rowid else self.status
                found.append((_error(tail, texts, status), None))
            else:
                rows = _rows(memoryview(tail), not strict_text) if kind == ROWS else None
                found.append((ExecuteResult(affected, rowid, self.first_index or log_index), rows))
        if offset != len(self.view):
            raise ProtocolError("answer: bytes are left over")
        return found

    def done(
        self, texts: Sequence[Any], log_index: int, *, strict_text: bool = False
    ) -> list[tuple[Any, list[Row] | None]]:
        """The results of an entry that succeeded as a whole; raises the error of one that did not."""
        found = self.results(texts, log_index, strict_text=strict_text)
        errors = [result for result, _ in found if isinstance(result, HiqliteError)]
        if self.status != STATUS_DONE:
            if len(found) != 1 or not errors:
                raise ProtocolError("answer: a failure without exactly one error")
            raise errors[0]
        if errors:
            raise ProtocolError("answer: an error in an entry that succeeded")
        return found


def _take(view: memoryview, offset: int, size: int) -> tuple[bytes, int]:
    try:
        return take(view, offset, size)
    except ProtocolError:
        raise ProtocolError("answer: the bytes end inside it") from None


def _error(tail: bytes, texts: Sequence[Any], status: int) -> HiqliteError:
    if len(tail) < ERROR.size:
        raise ProtocolError("answer: the bytes end inside it")
    error_class, reserved, extended_code, statement_index, size = ERROR.unpack_from(tail)
    if reserved or size != len(tail) - ERROR.size:
        raise ProtocolError("answer: an error that contradicts the format")
    message = tail[ERROR.size :].decode("utf-8", "replace")
    return error_of(error_class, extended_code, statement_index, message, sql_at(texts, statement_index), status)


def _rows(tail: memoryview, bytes_for_bad_text: bool) -> list[Row]:
    head, offset = _take(tail, 0, 8)
    column_count, row_count = struct.unpack("<II", head)
    if column_count * 2 > len(tail) - offset:
        raise ProtocolError("answer: the bytes end inside it")
    names: list[str] = []
    for _ in range(column_count):
        size_bytes, offset = _take(tail, offset, 2)
        name, offset = _take(tail, offset, int.from_bytes(size_bytes, "little"))
        names.append(name.decode("utf-8", "replace"))
    try:
        rows, offset = take_rows(tail, offset, row_count, Columns(names), bytes_for_bad_text)
    except RowMappingError as error:
        raise applied(error) from error.__cause__
    if offset != len(tail):
        raise ProtocolError("answer: bytes are left over")
    return rows


def _single(answer: Any, log_index: int, sql: Any, *, strict_text: bool = False) -> tuple[Any, list[Row] | None]:
    found = _Answer.open(answer).done((sql,), log_index, strict_text=strict_text)
    if len(found) != 1:
        raise ProtocolError("answer: not exactly one result")
    return found[0]


def decode_execute(answer: Any, log_index: int, sql: Any = None) -> ExecuteResult:
    """The result of one `execute`.

    Raises:
        StatementError, UsageError and their kinds: what applying it gave. ProtocolError: hostile bytes.
    """
    result: ExecuteResult = _single(answer, log_index, sql)[0]
    return result


def decode_returning(
    answer: Any, log_index: int, sql: Any = None, *, bytes_for_bad_text: bool = False
) -> tuple[list[Row], ExecuteResult]:
    """Rows and result of one `execute_returning`. RowMappingError (outcome applied): text that is not UTF-8."""
    result, rows = _single(answer, log_index, sql, strict_text=not bytes_for_bad_text)
    return rows or [], result


def decode_many(answer: Any, log_index: int, sql: Any = None) -> list[ExecuteResult]:
    """The results of one `execute_many`, whose statements share one text."""
    opened_answer = _Answer.open(answer)
    try:
        return [result for result, _ in opened_answer.done((), log_index)]
    except StatementError as error:
        error.sql = shown(sql)
        raise


def decode_counts(answer: Any, log_index: int, texts: Sequence[Any] = ()) -> list[ExecuteResult]:
    """One ExecuteResult per statement of a `txn` whose rows nobody wants; `texts` are its statements, in order."""
    return [result for result, _ in _Answer.open(answer).done(texts, log_index)]


def decode_txn(answer: Any, log_index: int, texts: Sequence[Any] = ()) -> list[StatementResult]:
    """One result per statement of a `txn`; `texts` are its statements, in order."""
    found = _Answer.open(answer).done(texts, log_index, strict_text=True)
    return [StatementResult(result, rows) for result, rows in found]


def decode_batch(answer: Any, log_index: int) -> list[Any]:
    """One ExecuteResult or error per statement of a batch; raises when the entry failed as a whole."""
    opened_answer = _Answer.open(answer)
    if opened_answer.status != STATUS_DONE:
        opened_answer.done((), log_index)
    return [result for result, _ in opened_answer.results((), log_index)]
