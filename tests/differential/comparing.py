"""A cluster and plain SQLite run the same programs: the same answers, the same errors, the same rows, on every node."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import hiqlite
from hiqlite.client.local import LocalClient
from hiqlite.errors import HiqliteError, RowMappingError, StatementError
from hiqlite.statemachine.connection import open_reader
from hiqlite.testing import Cluster

from .expressions import happens
from .plain import Counts, Outcome, Plain, contents, counted, in_order, multiset, not_text
from .programs import Program
from .steps import Params, Step

DEADLINE_S = 60.0
LOG_SYNCS = ("immediate", "immediate_async", "interval_20")
SETTINGS: dict[str, Any] = {
    "cache": False, "request_timeout": DEADLINE_S, "statement_timeout": DEADLINE_S, "wal_size": "1 MiB",
    "election_timeout_ms": "200-400",
}  # fmt: skip
RESTARTS = 2  # of a hundred steps
DOWN = 4  # steps that a node is down, at most


@dataclass(frozen=True, slots=True)
class Difference:
    """Where the two parted; `step`: None is what was left in the end."""

    program: Program | str
    step: Step | None
    product: Any
    plain: Any

    def __str__(self) -> str:
        """With the program up to there."""
        what = "what is left" if self.step is None else f"at {self.step}"
        return f"{self._before()}\n{what}\n  product {self.product}\n  plain   {self.plain}"

    def _before(self) -> str:
        if isinstance(self.program, str):
            return self.program
        steps = self.program.steps
        end = steps.index(self.step) if self.step in steps else len(steps)
        return "\n".join((f"program {self.program.prefix}", *map(str, steps[:end])))


async def run(client: LocalClient, step: Step) -> list[Outcome]:
    """One outcome for the call; of a batch one for each statement."""
    sql, params = step.statements[0]
    try:
        match step.kind:
            case "query":
                return [("rows", multiset(await client.query(sql, params, consistency="linearizable")))]
            case "ordered":
                return [("rows", in_order(await client.query(sql, params, consistency="linearizable")))]
            case "execute":
                return [("counts", (_counts(sql, await client.execute(sql, params)),))]
            case "returning":
                return [("rows", multiset(await client.execute_returning(sql, params)))]
            case "many":
                results = await client.execute_many(sql, [one for _, one in step.statements])
                return [("counts", tuple(_counts(sql, one) for one in results))]
            case "txn":
                results = await client.txn(step.statements)
                pairs = zip(step.statements, results, strict=True)
                return [("counts", tuple(_counts(text, one) for (text, _), one in pairs))]
            case "atomic":
                return [await _block(client, step)]
        items = await client.batch("; ".join(text for text, _ in step.statements))
        return [_item(text, one) for (text, _), one in zip(step.statements, items, strict=False)]
    except RowMappingError as error:
        return [not_text(error.outcome)]
    except HiqliteError as error:
        return [_failure(error)]


async def _block(client: LocalClient, step: Step) -> Outcome:
    made: list[Any] = []
    async with client.atomic() as block:
        for (sql, params), expected in zip(step.statements, step.expected, strict=True):
            made.append(block.execute(sql, _referring(params, made)))
            if expected is not None:
                made[-1].expect(rows=expected)
    counts = tuple(_counts(one.sql, one.result) for one in made)
    return "block", counts, tuple(multiset(one.rows) for one in made)


def _referring(params: Params, made: list[Any]) -> Params:
    """As a block has its references."""
    return tuple(made[one.statement][one.column] if isinstance(one, hiqlite.ref) else one for one in params)


def _counts(sql: str, result: Any) -> Counts:
    return counted(sql, result.rows_affected, result.last_insert_rowid)


def _item(sql: str, item: Any) -> Outcome:
    return _failure(item) if isinstance(item, HiqliteError) else ("counts", (_counts(sql, item),))


def _failure(error: HiqliteError) -> Outcome:
    if isinstance(error, StatementError):
        return "error", error.code, error.extended_code, error.statement_index, error.message, error.outcome
    return "refused", error.code, str(error), error.outcome


class Comparing:
    """Of one cluster, which may lose any node between two steps, and has it again a few steps later."""

    def __init__(self, cluster: Cluster, plain: Plain) -> None:
        self._cluster = cluster
        self._plain = plain
        self._down: tuple[int, int] | None = None  # a node, and for how many steps
        self.restarts = self.steps = self.failed_steps = 0

    @property
    def refused(self) -> int:
        """Statements that wrote the largest rowid, and were refused for it."""
        return self._plain.refused

    async def program(self, program: Program, chance: Random) -> Difference | None:
        """Runs it on both, to its end or to the first difference, and drops what it made. `chance`: which node is
        asked, and which is down for how long."""
        for step in program.steps:
            await self._restart(chance)
            if (difference := await self._step(program, step, chance)) is not None:
                return difference
        await self._all_up()
        if (difference := await self._compare_contents(program)) is not None:
            return difference
        last, drop = None, self._plain.drop(program.prefix)
        while drop is not None and drop != last:  # some may have to wait for others
            if (difference := await self._step(program, drop, chance)) is not None:
                return difference
            last, drop = drop, self._plain.drop(program.prefix)
        return None

    async def _step(self, program: Program, step: Step, chance: Random) -> Difference | None:
        client = self._cluster.nodes[chance.choice(sorted(self._cluster.nodes))]
        try:
            async with asyncio.timeout(DEADLINE_S):
                found = await run(client, step)
        except TimeoutError:
            return Difference(program, step, f"nothing within {DEADLINE_S:g} s", self._plain.run(step))
        wanted = self._plain.run(step)
        self.steps += 1
        self.failed_steps += any(one[0] == "error" for one in wanted)
        if found != wanted and not self._is_told_before(step, found, wanted):
            return Difference(program, step, found, wanted)
        return None

    async def _compare_contents(self, program: Program) -> Difference | None:
        wanted = contents(self._plain.connection, program.prefix)
        for number in list(self._cluster.nodes):
            found = await self._contents(number, program.prefix)
            if found != wanted:
                parted = [pair for pair in zip(found, wanted, strict=False) if pair[0] != pair[1]]
                return Difference(program, None, f"node {number}: {parted[:1]}", wanted)
        return None

    def _is_told_before(self, step: Step, found: list[Outcome], wanted: list[Outcome]) -> bool:
        """A leader prepares all statements of a transaction before it runs the first: one that cannot be prepared may
        be told in place of an earlier one that fails. Nothing is left of either."""
        return (
            step.kind in ("txn", "atomic") and wanted[0][0] == "error" and found == [self._plain.told_before(step)]
        )

    async def equal(self) -> bool:
        """Whether all nodes hold the same."""
        for client in self._cluster.nodes.values():
            await client.query("SELECT 1", consistency="linearizable")
        return len({await client.content_hash() for client in self._cluster.nodes.values()}) == 1

    async def _restart(self, chance: Random) -> None:
        """Or not."""
        if self._down is not None:
            number, steps = self._down
            self._down = (number, steps - 1)
            if steps == 0:
                await self._all_up()
        elif happens(chance, RESTARTS):
            number = chance.choice(sorted(self._cluster.nodes))
            self._down = (number, chance.randrange(DOWN))
            await chance.choice((self._cluster.stop, self._cluster.kill))(number)
            self.restarts += 1

    async def _all_up(self) -> None:
        if self._down is not None:
            number, self._down = self._down[0], None
            await self._cluster.start(number)

    async def _contents(self, number: int, prefix: str) -> list[tuple[str, Any]]:
        await self._cluster.nodes[number].query("SELECT 1", consistency="linearizable")
        node = self._cluster._running[number]
        connection = open_reader(node.storage.db.database)
        try:
            return contents(connection, prefix)
        finally:
            connection.close()


@asynccontextmanager
async def comparing(folder: Path, log_sync: str = LOG_SYNCS[0]) -> AsyncIterator[Comparing]:
    """A cluster of three nodes, and one database of plain SQLite."""
    async with hiqlite.testing.cluster(3, base_dir=folder, log_sync=log_sync, **SETTINGS) as cluster:
        plain = Plain(folder / "plain.db")
        try:
            yield Comparing(cluster, plain)
        finally:
            plain.close()


@dataclass(slots=True)
class Result:
    """Of programs that were begun, those that were compared to their end; `difference`: the first, nothing ran behind
    it. Beside them what they met: steps, those that failed on both sides, rowids that were refused, restarts."""

    difference: Difference | None = None
    begun: int = 0
    ended: int = 0
    steps: int = 0
    failed_steps: int = 0
    refused: int = 0
    restarts: int = 0


async def compare(folder: Path, seeds: range, end_s: float | None = None, log_sync: str = LOG_SYNCS[0]) -> Result:
    """The programs of these seeds, one after the other, in one cluster; none is begun after `end_s`."""
    result = Result()
    async with comparing(folder, log_sync) as two:
        for seed in _until(seeds, end_s):
            result.begun += 1
            result.difference = await two.program(Program.of_seed(seed), Random(f"nodes {seed}"))
            if result.difference is not None:
                break
            result.ended += 1
        if result.difference is None and not await two.equal():
            result.difference = Difference(f"one of {seeds}", None, "nodes differ", "")
        result.steps, result.failed_steps = two.steps, two.failed_steps
        result.refused, result.restarts = two.refused, two.restarts
    return result


def _until(seeds: range, end_s: float | None) -> Iterator[int]:
    for seed in seeds:
        if end_s is not None and time.monotonic() >= end_s:
            return
        yield seed
