"""Which writes a leader may propose without a trial (semantics.md section 4, point 5).

Cheap is a write whose statements are all bounded by their text (the inspector asks SQLite's bytecode), or ran quickly
the last eight times and have no loop within a loop, whose time another parameter could multiply; neither a recursive
query, nor a virtual table, nor much data. A batch and a migration are tried always, CREATE INDEX only where it calls a
function. Must not know Raft, nor how a trial is made. Invariant: a judgement counts for one schema.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from random import SystemRandom
from typing import Final

from hiqlite._accel.apply import TRIAL_WRITES_MAX, Trial
from hiqlite._accel.commands import Operation, command_texts
from hiqlite._accel.records import EntryKind, stamp
from hiqlite.engine.ports import Cost, Run, Verdict
from hiqlite.errors import HiqliteError, RequestTimeout, StorageError

from .authorizer import Seen
from .inspector import Inspector, StatementInfo
from .trial import refusal_of

CHANCE: Final = SystemRandom()
QUICK_NS: Final = 10_000_000
QUICK_RUNS: Final = 8
PER_STATEMENT_NS: Final = 100_000  # more for each statement of a write
STATEMENTS_MAX: Final = 1 << 15  # of a write that needs no trial
DATA_BYTES_MAX: Final = 1 << 20  # of a write that needs no trial, unless its statements are small
SMALL_BYTES: Final = 1 << 12
TEXT_KEPT_MAX: Final = 1 << 14
TELLING_NS: Final = 200_000_000  # what it takes, at most, to tell a caller why
TEXTS_MAX: Final = 10_000  # past it the table starts anew
ENTRY_KIND_AT: Final = 6  # in a record
NEVER_CHEAP: Final = Seen.VIRTUAL | Seen.RECURSIVE | Seen.SCHEMA | Seen.RELOAD


class Judge:
    """Of one database.

    Args:
        try_out: runs records and undoes them, each under a limit in ns.
        now_ns, wall_ns: a monotonic clock, and that of the wall.
        statement_timeout_s: limit of a trial; a caller who waits for longer than `request_timeout_s` raises it.
        migration_timeout_s: that of a migration.
    """

    def __init__(
        self,
        inspector: Inspector,
        try_out: Callable[[list[bytes], list[int]], Awaitable[Trial]],
        now_ns: Callable[[], int],
        wall_ns: Callable[[], int],
        *,
        statement_timeout_s: float,
        migration_timeout_s: float,
        request_timeout_s: float,
    ) -> None:
        self.cheap: dict[str, StatementInfo] = {}  # texts that a single `execute` may propose without any look
        self.cheap_returning: dict[str, StatementInfo] = {}  # the same of `execute_returning`
        self._inspector = inspector
        self._try_out = try_out
        self._now_ns = now_ns
        self._wall_ns = wall_ns
        self._statement_ns = int(statement_timeout_s * 1e9)
        self._migration_ns = int(migration_timeout_s * 1e9)
        self._request_ns = int(request_timeout_s * 1e9)
        self._bounded: set[str] = set()
        self._quick: dict[str, int] = {}  # how often a text that is not bounded was quick, since it last was not

    # -- before

    def cost(self, record: bytes) -> Cost:
        operation, count, texts = asked_by(record)
        if operation in (Operation.BATCH, Operation.MIGRATION) or count > STATEMENTS_MAX:
            return Cost.UNKNOWN
        if len(record) > DATA_BYTES_MAX and len(record) > SMALL_BYTES * count:
            return Cost.UNKNOWN
        costs = [self._cost_of(text, alone=len(texts) == 1) for text in texts]
        if len(costs) > 1 and Cost.CHANGES_SCHEMA in costs:
            return Cost.UNKNOWN  # what stands behind it is not judged by its schema
        return max(costs, default=Cost.CHEAP)

    def is_cheap(self, sql: str) -> bool:
        """Whether a statement of this text, without much data, is known to be cheap; more are than this tells."""
        return sql in self._bounded or self._quick.get(sql, 0) >= QUICK_RUNS

    def _cost_of(self, sql: str, *, alone: bool) -> Cost:
        if self.is_cheap(sql):
            return Cost.CHEAP
        try:
            info = self._inspector.look(sql, lenient=True)
        except StorageError:
            return Cost.UNKNOWN
        except HiqliteError:
            return Cost.CHEAP  # so it fails where it is applied, too
        if info.uncertain:
            return Cost.CHEAP if alone else Cost.UNKNOWN
        if info.bounded:
            self._remember(sql, info)
            return Cost.CHEAP
        is_plain_index = Seen.CREATE_INDEX in info.seen and info.plain
        return Cost.CHANGES_SCHEMA if is_plain_index else Cost.UNKNOWN

    def _remember(self, sql: str, info: StatementInfo) -> None:
        if len(sql) > TEXT_KEPT_MAX:
            return
        if len(self._bounded) >= TEXTS_MAX:
            self._bounded.clear()
            self._disallow_all()
        self._bounded.add(sql)
        self._allow(sql, info)

    def _allow(self, sql: str, info: StatementInfo) -> None:
        """Whoever may take it may propose it at once from now on."""
        if not info.readonly:
            (self.cheap_returning if info.returns_rows else self.cheap)[sql] = info

    def _disallow_all(self) -> None:
        self.cheap.clear()
        self.cheap_returning.clear()

    # -- the trial

    async def try_out(self, records: Sequence[bytes], deadlines_ns: Sequence[int]) -> Verdict:
        """Tries the first few of the writes; see `Judge` in engine/ports."""
        # What is applied has to be what was tried, its clock and its chance included.
        wall_ns = self._wall_ns()
        tried = [stamp(record, wall_ns, 1 + CHANCE.getrandbits(63)) for record in self._behind_each_other(records)]
        limits = [self._limit_ns(record, end) for record, end in zip(tried, deadlines_ns, strict=False)]
        if limits[0] <= 0:
            return Verdict((), refusal=RequestTimeout("the write was not tried in time", outcome="not_applied"))
        try:
            trial = await self._try_out(tried, limits)
        except HiqliteError as error:
            return Verdict((), refusal=error)
        passed = len(trial.spent_ns)
        for record, spent_ns in zip(tried, trial.spent_ns, strict=False):
            if not self._may_change_schema(record):
                self._learn(record, spent_ns)
        refusal = refusal_of(trial, limits[passed]) if passed < len(tried) else None
        assert passed or refusal is not None, "a trial that ran nothing to its end says why"
        changes_schema = passed == len(tried) and self._may_change_schema(tried[-1])
        return Verdict(tried[:passed], changes_schema or trial.changes_schema, refusal)

    def _behind_each_other(self, records: Sequence[bytes]) -> list[bytes]:
        """So many as can be judged by one schema, whatever the last of them does when it is applied."""
        for count, record in enumerate(records[:TRIAL_WRITES_MAX], 1):
            if self._may_change_schema(record):
                return list(records[:count])
        return list(records[:TRIAL_WRITES_MAX])

    def _may_change_schema(self, record: bytes) -> bool:
        operation, _, texts = asked_by(record)
        if operation in (Operation.BATCH, Operation.MIGRATION):
            return True
        return not all(self.is_cheap(sql) or self._keeps_schema(sql) for sql in texts)

    def _keeps_schema(self, sql: str) -> bool:
        try:
            return not self._inspector.look(sql, lenient=True).changes_schema  # what is uncertain counts as a change
        except HiqliteError:
            return True  # it fails where it is applied, too

    def _learn(self, record: bytes, spent_ns: int) -> None:
        _, count, texts = asked_by(record)
        quick = spent_ns < QUICK_NS + count * PER_STATEMENT_NS
        for text in texts:
            if text not in self._bounded:
                self._note(text, quick)

    def _limit_ns(self, record: bytes, deadline_ns: int) -> int:
        """Below the time of who waits, so that he is told why, and that nothing happened."""
        migrates = asked_by(record)[0] == Operation.MIGRATION
        usual_ns = self._migration_ns if migrates else self._statement_ns
        if not deadline_ns:
            return usual_ns
        left_ns = deadline_ns - self._now_ns()
        limit_ns = left_ns - min(left_ns // 10, TELLING_NS)
        return limit_ns if migrates or left_ns > self._request_ns else min(limit_ns, usual_ns)

    def _note(self, sql: str, quick: bool) -> None:
        if not quick:
            self._doubt(sql)
            return
        with suppress(HiqliteError):  # it failed in its trial, and will where it is applied
            info = self._inspector.look(sql, lenient=True)
            if info.seen & NEVER_CHEAP or info.uncertain or not info.level or len(sql) > TEXT_KEPT_MAX:
                return
            if len(self._quick) >= TEXTS_MAX:
                self._quick.clear()
            self._quick[sql] = runs = self._quick.get(sql, 0) + 1
            if runs >= QUICK_RUNS:
                self._allow(sql, info)

    def _doubt(self, sql: str) -> None:
        if self._quick.pop(sql, 0) >= QUICK_RUNS:
            self.cheap.pop(sql, None)
            self.cheap_returning.pop(sql, None)

    # -- after

    def applied(self, run: Run) -> None:
        if run.changed_schema:
            self.forget()
        for told in run.slow_texts:
            begin = told.rstrip("; \t\r\n")  # a statement is told without what stands behind it in its text
            for sql in [one for one in self._quick if one.startswith(begin)]:
                self._doubt(sql)

    def forget(self) -> None:
        """The schema is another one."""
        self._inspector.schema_changed()
        self._disallow_all()
        self._bounded.clear()
        self._quick.clear()


def asked_by(record: bytes) -> tuple[int, int, list[str]]:
    """(operation, number of statements, texts) of a write; what opens a session, or is a mark, has none of them."""
    is_command = record[ENTRY_KIND_AT] in (EntryKind.COMMAND, EntryKind.MIGRATION)
    return command_texts(record) if is_command else (0, 0, [])
