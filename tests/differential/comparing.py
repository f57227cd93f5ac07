"""A cluster and plain SQLite run the same programs: the same answers, the same errors, the same rows, on every node."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import apsw

import hiqlite
from hiqlite.client.local import LocalClient
from hiqlite.errors import HiqliteError, RowMappingError, StatementError
from hiqlite.statemachine.connection import open_reader
from hiqlite.testing import Cluster

from .plain import NO_TEXT, Outcome, Plain, contents, counted, multiset
from .programs import Program, Step

DEADLINE_S = 60.0
PATIENT = {"request_timeout": DEADLINE_S, "statement_timeout": DEADLINE_S}
# It is refused: behind it plain SQLite chooses rowids by chance.
LARGEST_ROWID: Outcome = ("error", apsw.SQLITE_CONSTRAINT_ROWID)
RESTARTS = 0.02  # how often, per step


@dataclass(frozen=True, slots=True)
class Difference:
    """Where the two parted."""

    seed: int
    step: Step | None
    product: Any
    plain: Any

    def __str__(self) -> str:
        what = "what is left" if self.step is None else f"{self.step.kind} {self.step.statements}"
        return f"program {self.seed}: {what}\n  product {self.product}\n  plain   {self.plain}"


async def run(client: LocalClient, step: Step) -> list[Outcome]:
    """One outcome for the call; of a batch one for each statement."""
    sql, params = step.statements[0]
    try:
        match step.kind:
            case "query":
                return [("rows", multiset(await client.query(sql, params, consistency="linearizable")))]
            case "execute":
                return [("counts", (counted(sql, (await client.execute(sql, params)).rows_affected),))]
            case "returning":
                return [("rows", multiset(await client.execute_returning(sql, params)))]
            case "many":
                results = await client.execute_many(sql, [one for _, one in step.statements])
                return [("counts", tuple(one.rows_affected for one in results))]
            case "txn":
                results = await client.txn(step.statements)
                return [("counts", tuple(one.rows_affected for one in results))]
        items = await client.batch("; ".join(text for text, _ in step.statements))
        return [_item(text, one) for (text, _), one in zip(step.statements, items, strict=True)]
    except RowMappingError:
        return [NO_TEXT]
    except HiqliteError as error:
        return [_failure(error)]


def _item(sql: str, item: Any) -> Outcome:
    return _failure(item) if isinstance(item, HiqliteError) else ("counts", (counted(sql, item.rows_affected),))


def _failure(error: HiqliteError) -> Outcome:
    if isinstance(error, StatementError):
        return "error", error.extended_code
    return "refused", str(error)


def _is_told_before(step: Step, found: list[Outcome], wanted: list[Outcome]) -> bool:
    """A leader looks at all statements of a transaction before it runs the first: of two that are wrong it may name
    the later one. Nothing is left of either."""
    return step.kind == "txn" and found == [("error", apsw.SQLITE_ERROR)] and wanted[0][0] == "error"


class Comparing:
    """Of one cluster, which may lose and regain any node between two steps."""

    def __init__(self, cluster: Cluster, folder: Path, seed: int) -> None:
        self._cluster = cluster
        self._plain = Plain(folder / "plain.db")
        self._chance = Random(f"restarts {seed}")
        self.restarts = 0

    def close(self) -> None:
        self._plain.close()

    async def program(self, program: Program) -> Difference | None:
        """Runs it on both; the first difference."""
        for step in program.steps():
            if self._chance.random() < RESTARTS:
                await self._restart()
            async with asyncio.timeout(DEADLINE_S):
                found = await run(self._client(), step)
            wanted = self._plain.run(step)
            if LARGEST_ROWID in found:
                return None
            if wanted == [NO_TEXT] and found[0][0] == "error":
                continue  # plain SQLite was given up in the middle of its rows, and could not say how it ended
            if found != wanted and not _is_told_before(step, found, wanted):
                return Difference(program.seed, step, found, wanted)
        wanted_rows = contents(self._plain.connection, program.prefix)
        for number in list(self._cluster.nodes):
            found_rows = await self._contents(number, program.prefix)
            if found_rows != wanted_rows:
                parted = [pair for pair in zip(found_rows, wanted_rows, strict=False) if pair[0] != pair[1]]
                return Difference(program.seed, None, f"node {number}: {parted[:1]}", wanted_rows)
        return None

    async def equal(self) -> bool:
        """Whether all nodes hold the same."""
        for client in self._cluster.nodes.values():
            await client.query("SELECT 1", consistency="linearizable")
        return len({await client.content_hash() for client in self._cluster.nodes.values()}) == 1

    def _client(self) -> LocalClient:
        return self._chance.choice(list(self._cluster.nodes.values()))

    async def _restart(self) -> None:
        number = self._chance.choice(list(self._cluster.nodes))
        await (self._cluster.stop if self._chance.random() < 0.5 else self._cluster.kill)(number)
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


@dataclass(frozen=True, slots=True)
class Result:
    """`difference`: the first one; nothing was run behind it. `programs` that ran, `restarts` of nodes meanwhile."""

    difference: Difference | None
    programs: int
    restarts: int


async def compare(folder: Path, programs: list[Program], seed: int) -> Result:
    """All of these, one after the other, in one cluster."""
    async with hiqlite.testing.cluster(3, base_dir=folder, cache=False, **PATIENT) as cluster:
        comparing = Comparing(cluster, folder, seed)
        try:
            for ran, program in enumerate(programs, 1):
                if (difference := await comparing.program(program)) is not None:
                    return Result(difference, ran, comparing.restarts)
            difference = None if await comparing.equal() else Difference(seed, None, "nodes differ", "")
            return Result(difference, len(programs), comparing.restarts)
        finally:
            comparing.close()
