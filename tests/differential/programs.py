"""Random programs of SQL: schemas of many kinds, then writes and reads, right ones and wrong ones.

Statements whose result follows from SQLite's rules alone: no clock, no chance, nothing that a write may not say. All
names begin with the program's own prefix, so that programs follow each other in one database.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

import hiqlite

from .expressions import Expressions, happens
from .plain import Plain
from .queries import Table
from .schemas import Schema
from .steps import RETURNED, Params, Step

CONFLICTS = ("", "", "", "OR IGNORE", "OR REPLACE", "OR ABORT", "OR FAIL", "OR ROLLBACK")


class Program:
    """Of what `chance` gives; the same chance makes the same steps. Each is run on plain SQLite when it is made, so
    that the next one speaks of what there is.

    Args:
        chance: is asked while this is made, and not later.
        name: in front of all names; no other program in the same database may have it.
        length: steps between the first tables and the last look at all tables.
    """

    def __init__(self, chance: Random, name: str, length: int = 25) -> None:
        self.prefix = f"{name}_"
        self._chance = chance
        self._some = Expressions(chance)
        self._schema = Schema(chance, self._some, self.prefix)
        self._queries = self._schema.queries
        self._plain = Plain()
        self.steps: list[Step] = []
        for step in self._steps(length):
            self.steps.append(step)
            self._plain.run(step)
            self._schema.look(self._plain.connection)
        self._plain.close()

    @classmethod
    def of_seed(cls, seed: int) -> Program:
        return cls(Random(f"program {seed}"), f"p{seed}")

    def __str__(self) -> str:
        return "\n".join(map(str, self.steps))

    def _steps(self, length: int) -> Iterator[Step]:
        chance = self._chance
        yield self._call("execute", self._schema.first())
        for _ in range(chance.randint(1, 3)):
            yield self._call("execute", self._schema.table())
        for _ in range(length):
            yield self._step()
        for name in self._schema.sources():
            yield self._call("query", f"SELECT * FROM {name}")

    def _step(self) -> Step:
        chance = self._chance
        match chance.randrange(17):
            case 0:
                return self._call("execute", self._schema.change())
            case 1:
                return self._call("query", self._queries.select())
            case 2:
                return self._call("ordered", self._queries.ordered()[0])
            case 3 | 4:
                writes = (self._calm() if happens(chance, 50) else self._write() for _ in range(chance.randint(1, 5)))
                return Step("txn", tuple(writes))
            case 5 | 6:
                return self._referring_step()
            case 7:
                return Step("batch", tuple((self._text(), ()) for _ in range(chance.randint(1, 5))))
            case 8:
                sql, width = self._insert_bound()
                return Step("many", tuple((sql, self._values(width)) for _ in range(chance.randint(1, 6))))
            case 9 | 10:
                sql, params = self._write()
                return Step("returning", ((f"{sql} RETURNING *", params),))
            case 11 | 12:
                return self._changing_step()
            case _:
                return Step("execute", (self._write(),))

    def _call(self, kind: str, sql: str) -> Step:
        return Step(kind, ((sql, ()),))

    # -- writes

    def _table(self) -> Table:
        return self._queries.table()

    def _where(self, table: Table) -> str:
        return self._queries.where(table)

    def _insert_bound(self) -> tuple[str, int]:
        table, columns, names = self._into()
        marks = ", ".join("?" * len(columns))
        return f"INSERT {self._chance.choice(CONFLICTS)} INTO {table.name} ({names}) VALUES ({marks})", len(columns)

    def _into(self) -> tuple[Table, list[str], str]:
        chance, table = self._chance, self._table()
        names = table.writable[1:] if len(table.writable) > 1 and happens(chance, 50) else table.writable
        columns = chance.sample(names, chance.randint(1, len(names)))
        return table, columns, ", ".join(columns)

    def _values(self, width: int) -> Params:
        return tuple(self._some.value() for _ in range(width))

    def _write(self) -> tuple[str, Params]:
        chance, some, table = self._chance, self._some, self._table()
        how = chance.choice(CONFLICTS)
        if happens(chance, 3):
            return self._wrong(table, chance.choice(table.writable)), ()
        match chance.randrange(12):
            case 0 | 1 | 2:
                sql, width = self._insert_bound()
                return sql, self._values(width)
            case 3 | 4:
                table, columns, names = self._into()
                rows = (", ".join(some.make((), 1) for _ in columns) for _ in range(chance.randint(1, 4)))
                values = ", ".join(f"({row})" for row in rows)
                return f"INSERT {how} INTO {table.name} ({names}) VALUES {values}", ()
            case 5:
                column = chance.choice(table.writable)
                do = chance.choice(("DO NOTHING", f"DO UPDATE SET {column} = {some.make(table.columns, 1)}"))
                values = f"({some.literal()}), ({some.literal()})"
                return f"INSERT INTO {table.name} ({column}) VALUES {values} ON CONFLICT {do}", ()
            case 6:
                other, column = self._table(), chance.choice(table.writable)
                what = some.make(other.columns, 1)
                source = f"SELECT {what} FROM {other.name}{self._where(other)} ORDER BY 1 LIMIT 3"
                return f"INSERT {how} INTO {table.name} ({column}) {source}", ()
            case 7 | 8:
                return self._with(table, chance.choice(table.writable)), ()
            case 9 | 10:
                column = chance.choice(table.writable)
                return f"UPDATE {how} {table.name} SET {column} = {some.make(table.columns, 2)}{self._where(table)}", ()
            case _:
                return f"DELETE FROM {table.name}{self._where(table)}", ()

    def _with(self, table: Table, column: str) -> str:
        """A write that reads a CTE."""
        chance, queries = self._chance, self._queries
        how, common = chance.choice(CONFLICTS), queries.common()
        match chance.randrange(5):
            case 0:
                return f"{common} INSERT {how} INTO {table.name} ({column}) {queries.few()}"
            case 1:
                return f"INSERT {how} INTO {table.name} ({column}) {common} {queries.few()}"
            case 2:
                value = f"(SELECT {chance.choice(('max(x)', 'min(x)', 'count(x)'))} FROM c)"
                return f"{common} UPDATE {how} {table.name} SET {column} = {value}{self._where(table)}"
            case 3:
                one = "(SELECT count(*) AS n, typeof(max(x)) AS k FROM c) AS s"
                value = self._some.make([*table.columns, "s.n", "s.k"], 1)
                return f"{common} UPDATE {how} {table.name} SET {column} = {value} FROM {one}{self._where(table)}"
            case _:
                return f"{common} DELETE FROM {table.name} WHERE {column} IN ({queries.few()})"

    def _wrong(self, table: Table, column: str) -> str:
        """Told when it is prepared."""
        return self._chance.choice((
            f"INSERT INTO {table.name} ({column}) VALUE (1)",
            f"INSERT INTO {table.name} ({column}) VALUES (1, 2)",
            f"UPDATE {table.name} SET {column} = absent",
            f"DELETE FROM {self.prefix}nothing",
        ))  # fmt: skip

    def _text(self) -> str:
        """A statement without parameters, of a batch."""
        if happens(self._chance, 20):
            return self._schema.change()
        for _ in range(9):
            sql, params = self._write()
            if not params:
                return sql
        return f"DELETE FROM {self._table().name}"

    # -- transactions whose statements know of each other

    def _changing_step(self) -> Step:
        """What changes the schema, and writes by the new one; where the last of it fails nothing is left of any."""
        chance = self._chance
        self._queries.newest = 50
        statements = self._changing()
        if happens(chance, 25):
            statements.append((self._failing(), ()))
        self._queries.newest = 0
        if happens(chance, 25):
            return Step("atomic", tuple(statements), (None,) * len(statements))
        return Step("txn", tuple(statements))

    def _changing(self) -> list[tuple[str, Params]]:
        chance = self._chance
        statements = [self._calm() for _ in range(chance.randint(0, 1))]
        returning: list[int] = []
        for _ in range(chance.randint(1, 3)):
            statements += [(sql, ()) for sql in self._schema.changes()]
            for _ in range(chance.randint(0, 2)):
                match chance.randrange(6):
                    case 0:
                        statements.append(self._write_returning(returning))
                        returning.append(len(statements) - 1)
                    case 1:
                        statements.append(self._write())
                    case _:
                        statements.append(self._calm())
        return statements

    def _calm(self) -> tuple[str, Params]:
        """It seldom fails, so that what stands behind it is reached."""
        chance, table = self._chance, self._table()
        if happens(chance, 30):
            column = chance.choice(table.writable)
            return f"UPDATE OR IGNORE {table.name} SET {column} = {column}{self._where(table)}", ()
        names, marks = ", ".join(table.writable), ", ".join("?" * len(table.writable))
        how = chance.choice(("OR IGNORE", "OR REPLACE"))
        values = tuple(chance.randint(1, 9) for _ in table.writable)
        return f"INSERT {how} INTO {table.name} ({names}) VALUES ({marks})", values

    def _failing(self) -> str:
        """Told when it is prepared, whatever the schema is, or by this schema; or when it runs."""
        log, table = f"{self.prefix}log", self._table()
        return self._chance.choice((
            self._wrong(table, self._chance.choice(table.writable)),
            f"INSERT INTO {log} (id) VALUES (77), (77)",
            f"INSERT OR ROLLBACK INTO {log} (id) VALUES (77), (77)",
            f"INSERT INTO {log} (what) SELECT abs(-9223372036854775807 - 1)",
            f"CREATE TABLE {log} (x)",
            f"ALTER TABLE {log} DROP COLUMN id",
            f"DROP TABLE {self.prefix}nothing",
        ))  # fmt: skip

    def _referring_step(self) -> Step:
        """Parameters that are values of an earlier RETURNING, and in a block numbers of rows that are expected."""
        chance = self._chance
        statements = [self._write_returning()]
        for _ in range(chance.randint(1, 3)):
            statements.append(self._write_returning(range(len(statements))))
        if happens(chance, 40):
            return Step("txn", tuple(statements))
        expected = (chance.choice((0, 1, 1, 2)) if happens(chance, 25) else None for _ in statements)
        return Step("atomic", tuple(statements), tuple(expected))

    def _write_returning(self, earlier: Sequence[int] = ()) -> tuple[str, Params]:
        """Its RETURNING gives plain text and numbers, whatever bytes the columns hold."""
        chance = self._chance
        table, columns, names = self._into()
        column = chance.choice(table.columns)
        shown = zip((f"hex({column})", f"typeof({column})", f"length({column})"), RETURNED, strict=True)
        returning = f"RETURNING {', '.join(f'{what} AS {name}' for what, name in shown)}"
        how = chance.choice(CONFLICTS)
        if happens(chance, 70):
            marks = ", ".join("?" * len(columns))
            sql = f"INSERT {how} INTO {table.name} ({names}) VALUES ({marks}) {returning}"
            return sql, tuple(self._referring(earlier) for _ in columns)
        sql = f"UPDATE {how} {table.name} SET {columns[0]} = ?{self._where(table)} {returning}"
        return sql, (self._referring(earlier),)

    def _referring(self, earlier: Sequence[int]) -> object:
        chance = self._chance
        if not earlier or happens(chance, 40):
            return self._some.value()
        return hiqlite.ref(chance.choice(earlier), chance.choice((*range(len(RETURNED)), *RETURNED)))
