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
from .plain import NO_TEXT, Counts, Outcome, Plain, contents, counted, in_order, multiset
from .programs import Params, Program, Step

DEADLINE_S = 60.0
PATIENT = {"request_timeout": DEADLINE_S, "statement_timeout": DEADLINE_S}
RESTARTS = 2  # of a hundred steps


@dataclass(frozen=True, slots=True)
class Difference:
    """Where the two parted."""

    program: str
    step: Step | None
    product: Any
    plain: Any

    def __str__(self) -> str:
        what = "what is left" if self.step is None else f"{self.step.kind} {self.step.statements} {self.step.expected}"
        return f"program {self.program}: {what}\n  product {self.product}\n  plain   {self.plain}"


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
    except RowMappingError:
        return [NO_TEXT]
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
        return "error", error.code, error.extended_code, error.statement_index, error.message
    return "refused", error.code, str(error)


class Comparing:
    """Of one cluster, which may lose and regain any node between two steps."""

    def __init__(self, cluster: Cluster, plain: Plain) -> None:
        self._cluster = cluster
        self._plain = plain
        self.restarts = self.steps = self.failed_steps = 0

    @property
    def refused(self) -> int:
        """Statements that wrote the largest rowid, and were refused for it."""
        return self._plain.refused

    async def program(self, program: Program, chance: Random) -> Difference | None:
        """Runs it on both, to its end or to the first difference. `chance`: which node is asked, and which restarts."""
        for step in program.steps:
            if happens(chance, RESTARTS):
                await self._restart(chance)
            client = chance.choice(list(self._cluster.nodes.values()))
            async with asyncio.timeout(DEADLINE_S):
                found = await run(client, step)
            wanted = self._plain.run(step)
            self.steps += 1
            self.failed_steps += any(one[0] == "error" for one in wanted)
            if found != wanted and not self._is_told_before(step, found):
                return Difference(program.prefix, step, found, wanted)
        wanted_rows = contents(self._plain.connection, program.prefix)
        for number in list(self._cluster.nodes):
            found_rows = await self._contents(number, program.prefix)
            if found_rows != wanted_rows:
                parted = [pair for pair in zip(found_rows, wanted_rows, strict=False) if pair[0] != pair[1]]
                return Difference(program.prefix, None, f"node {number}: {parted[:1]}", wanted_rows)
        return None

    def _is_told_before(self, step: Step, found: list[Outcome]) -> bool:
        """A leader prepares all statements of a transaction before it runs the first: one that cannot be prepared may
        be told in place of an earlier one that fails. Nothing is left of either."""
        return step.kind in ("txn", "atomic") and found == [self._plain.told_before(step)]

    async def equal(self) -> bool:
        """Whether all nodes hold the same."""
        for client in self._cluster.nodes.values():
            await client.query("SELECT 1", consistency="linearizable")
        return len({await client.content_hash() for client in self._cluster.nodes.values()}) == 1

    async def _restart(self, chance: Random) -> None:
        number, end = chance.choice(list(self._cluster.nodes)), chance.choice((self._cluster.stop, self._cluster.kill))
        await end(number)
        await self._cluster.start(number)
        await self._cluster.wait_until(self._cluster.settled, DEADLINE_S)
        self.restarts += 1

    async def _contents(self, number: int, prefix: str) -> list[tuple[str, Any]]:
        await self._cluster.nodes[number].query("SELECT 1", consistency="linearizable")
        node = self._cluster._running[number]
        connection = open_reader(node.storage.db.database)
        try:
            return contents(connection, prefix)
        finally:
            connection.close()


@asynccontextmanager
async def comparing(folder: Path) -> AsyncIterator[Comparing]:
    """A cluster of three nodes, and one database of plain SQLite."""
    async with hiqlite.testing.cluster(3, base_dir=folder, cache=False, **PATIENT) as cluster:
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


async def compare(folder: Path, seeds: range, end_s: float | None = None) -> Result:
    """The programs of these seeds, one after the other, in one cluster; none is begun after `end_s`."""
    result = Result()
    async with comparing(folder) as two:
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
