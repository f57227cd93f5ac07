"""What calls give back beside rows: results of batches and migrations, and the builder of `atomic`.

Values and one builder; must not know how a write reaches the log.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from hiqlite._accel.answers import ExecuteResult, StatementResult
from hiqlite._accel.records import Reference
from hiqlite._accel.values import Row
from hiqlite.errors import HiqliteError, UsageError

Parameters = Sequence[Any] | Mapping[str, Any]


class BatchResult(Sequence["ExecuteResult | HiqliteError"]):
    """One item per statement of a `batch`, in order: an `ExecuteResult`, or the error it failed with.

    Errors are `StatementError`s, or `DeterminismError`s for statements whose result would differ between nodes.
    """

    __slots__ = ("_items",)

    def __init__(self, items: Sequence[ExecuteResult | HiqliteError]) -> None:
        self._items = tuple(items)

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: Any) -> Any:
        return self._items[index]

    def __iter__(self) -> Iterator[ExecuteResult | HiqliteError]:
        return iter(self._items)

    def __repr__(self) -> str:
        return f"BatchResult({list(self._items)!r})"

    @property
    def errors(self) -> list[HiqliteError]:
        """The failures, in order."""
        return [item for item in self._items if isinstance(item, HiqliteError)]

    @property
    def ok(self) -> bool:
        return not self.errors

    def raise_for_error(self) -> None:
        """Raises the first failure, if any; statements before and after it keep their effect."""
        for error in self.errors:
            raise error


@dataclass(frozen=True, slots=True)
class MigrationReport:
    """Ids of the migrations that this call applied, or as a dry run would, and of those that were there already."""

    applied: list[int]
    already_applied: list[int]


@dataclass(frozen=True, slots=True)
class BlockReference(Reference):
    """A reference that counts in its own block only."""

    block: AtomicBlock


class Statement:
    """One statement of an `atomic` block: a source of references before it ran, of rows and result after."""

    __slots__ = ("_block", "_expected", "_index", "_outcome", "params", "sql")

    def __init__(self, block: AtomicBlock, index: int, sql: str, params: Parameters) -> None:
        self._block = block
        self._index = index
        self._expected: int | None = None
        self._outcome: StatementResult | None = None
        self.sql = sql
        self.params = params

    def __getitem__(self, column: int | str) -> Any:
        """What this statement's RETURNING gives in `column`: within the block a reference to it, after it the value.

        Raises UsageError after the block when there was no row.
        """
        if self._outcome is None:
            return BlockReference(self._index, column, self._block)
        if not self.rows:
            raise UsageError("this statement returned no row")
        return self.rows[0][column]

    def expect(self, *, rows: int) -> Statement:
        """The block fails, and leaves nothing behind, unless this statement affects exactly `rows` rows."""
        self._expected = rows
        return self

    @property
    def expected(self) -> int | None:
        return self._expected

    @property
    def rows(self) -> list[Row]:
        """Rows of RETURNING. Raises UsageError before the block has ended."""
        return self._done().rows or []

    @property
    def result(self) -> ExecuteResult:
        """Counts of this statement. Raises UsageError before the block has ended."""
        return self._done().result

    def finished(self, outcome: StatementResult) -> None:
        self._outcome = outcome

    def _done(self) -> StatementResult:
        if self._outcome is None:
            raise UsageError("the block has not been sent yet", hint="read results after `async with` has ended")
        return self._outcome

    def __await__(self) -> NoReturn:
        raise UsageError(
            "t.execute() is not awaited: the statements are sent together when the block ends",
            hint="drop the `await`; read `.rows` and `.result` after the block",
        )


class AtomicBlock:
    """Collects the statements of one `async with db.atomic()` block."""

    __slots__ = ("statements",)

    def __init__(self) -> None:
        self.statements: list[Statement] = []

    def execute(self, sql: str, params: Parameters = ()) -> Statement:
        """Add a statement, with the parameters as they are now. Not a coroutine: all is sent when the block ends.

        Raises UsageError for a reference to a statement of another block.
        """
        if isinstance(params, Mapping):
            params = {name: self._taken(value) for name, value in params.items()}
        elif isinstance(params, list | tuple):
            params = tuple([self._taken(value) for value in params])
        statement = Statement(self, len(self.statements), sql, params)
        self.statements.append(statement)
        return statement

    def _taken(self, value: Any) -> Any:
        if not isinstance(value, BlockReference):
            return value
        if value.block is not self:
            raise UsageError("a reference to a statement of another block", hint="after that block it gives the value")
        return Reference(value.statement, value.column)
