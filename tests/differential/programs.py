"""Random programs of SQL: schemas of many kinds, then writes and reads, right ones and wrong ones.

Statements whose result follows from SQLite's rules alone: no clock, no chance, nothing that a write may not say. All
names begin with the program's own prefix, so that programs follow each other in one database.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import hiqlite

from .expressions import TYPES, Expressions, happens
from .queries import Queries, Table

Params = tuple[object, ...]
RETURNED = ("a", "b", "c")  # columns of the RETURNING that a later statement may refer to
RESOLUTIONS = ("REPLACE", "IGNORE", "FAIL", "ROLLBACK")
DEFAULTS = ("7", "NULL", "'d'", "(1 + 1)")
ACTIONS = ("", "ON DELETE CASCADE", "ON DELETE SET NULL", "ON UPDATE CASCADE", "ON DELETE RESTRICT")
RAISES = ("ABORT", "FAIL", "ROLLBACK")
CONFLICTS = ("", "", "", "OR IGNORE", "OR REPLACE", "OR ABORT", "OR FAIL", "OR ROLLBACK")


@dataclass(frozen=True, slots=True)
class Step:
    """One call. `kind`: execute, returning, many, txn, atomic, batch, query, ordered (a query whose ORDER BY leaves
    nothing open); `statements` with their parameters, and of an atomic block how many rows each is expected to change.
    """

    kind: str
    statements: tuple[tuple[str, Params], ...]
    expected: tuple[int | None, ...] = ()


class Program:
    """Of what `chance` gives; the same chance makes the same steps.

    Args:
        chance: is asked while this is made, and not later.
        name: in front of all names; no other program in the same database may have it.
        length: steps between the first tables and the last look at all tables.
    """

    def __init__(self, chance: Random, name: str, length: int = 25) -> None:
        self.prefix = f"{name}_"
        self._chance = chance
        self._some = Expressions(chance)
        self._tables: list[Table] = []
        self._queries = Queries(chance, self._some, self._tables)
        self._made = 0
        self._others: list[tuple[str, str]] = []  # (kind, name) of indexes, triggers and views
        self.steps = list(self._steps(length))

    @classmethod
    def of_seed(cls, seed: int) -> Program:
        return cls(Random(f"program {seed}"), f"p{seed}")

    def __str__(self) -> str:
        return "\n".join(f"{step.kind} {step.statements} {step.expected or ''}" for step in self.steps)

    def _steps(self, length: int) -> Iterator[Step]:
        chance = self._chance
        yield self._call("execute", f"CREATE TABLE {self.prefix}log (id INTEGER PRIMARY KEY, what, value)")
        for _ in range(chance.randint(1, 3)):
            yield self._call("execute", self._new_table())
        for _ in range(length):
            yield self._step()
        for table in self._tables:
            yield self._call("query", f"SELECT * FROM {table.name}")

    def _step(self) -> Step:
        chance = self._chance
        match chance.randrange(15):
            case 0:
                return self._call("execute", self._definition())
            case 1:
                return self._call("query", self._queries.select())
            case 2:
                return self._call("ordered", self._queries.ordered())
            case 3 | 4:
                return Step("txn", tuple(self._write() for _ in range(chance.randint(1, 5))))
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
            case _:
                return Step("execute", (self._write(),))

    # -- definitions

    def _call(self, kind: str, sql: str) -> Step:
        return Step(kind, ((sql, ()),))

    def _name(self, what: str) -> str:
        self._made += 1
        return f"{self.prefix}{what}{self._made}"

    def _other(self, kind: str) -> str:
        self._others.append((kind, self._name({"INDEX": "i", "VIEW": "v", "TRIGGER": "g"}[kind])))
        return self._others[-1][1]

    def _new_virtual(self, module: str) -> str:
        name = self._name(module[0])
        if module == "fts5":
            columns = definitions = ["body"]
        else:
            columns = ["id", "low", "high"]
            definitions = [*columns, "+c0"] if happens(self._chance, 40) else columns
        columns = [column.lstrip("+") for column in definitions]
        self._tables.append(Table(name, columns, list(columns), is_virtual=True))
        return f"CREATE VIRTUAL TABLE {name} USING {module} ({', '.join(definitions)})"

    def _new_table(self) -> str:
        chance = self._chance
        if happens(chance, 8):
            return self._new_virtual(chance.choice(("rtree", "rtree_i32", "fts5")))
        name = self._name("t")
        strict = happens(chance, 20)
        columns = [f"c{number}" for number in range(chance.randint(1, 4))]
        texts: list[str] = []
        writable: list[str] = []
        for column in columns:
            kind = chance.choice((*TYPES[:4], "ANY")) if strict else chance.choice((*TYPES, "", "VARCHAR(5)"))
            if happens(chance, 12) and writable:
                how = chance.choice(("STORED", "VIRTUAL"))
                texts.append(f"{column} {kind} GENERATED ALWAYS AS ({self._some.make(writable, 1)}) {how}")
                continue
            texts.append(f"{column} {kind} {self._constraint(column)}")
            writable.append(column)
        if not writable:
            columns, texts, writable = ["c0"], ["c0 INTEGER"], ["c0"]
        own = "id INTEGER PRIMARY KEY"
        key = chance.choice((own, f"{own} AUTOINCREMENT", "", "PRIMARY KEY", "PRIMARY KEY"))
        without = key == "PRIMARY KEY" and happens(chance, 60)
        if key == "PRIMARY KEY":
            order = chance.choice(("", " DESC", " COLLATE NOCASE"))
            texts.append(f"PRIMARY KEY ({writable[0]}{order})")
        elif key:
            columns, texts, writable = ["id", *columns], [key, *texts], ["id", *writable]
        if happens(chance, 20):
            texts.append(f"CHECK ({self._some.make(writable, 1)})")
        options = ", ".join(["STRICT"] * strict + ["WITHOUT ROWID"] * without)
        self._tables.append(Table(name, columns, writable))
        return f"CREATE TABLE {name} ({', '.join(texts)}) {options}"

    def _constraint(self, column: str) -> str:
        chance = self._chance
        parents = [one for one in self._tables if one.columns[0] == "id" and not one.is_virtual]
        choices = [
            "", "", "", "", "NOT NULL", "UNIQUE", f"UNIQUE ON CONFLICT {chance.choice(RESOLUTIONS)}",
            f"DEFAULT {chance.choice(DEFAULTS)}", f"CHECK ({self._some.make([column], 1)} IS NOT 0)", "COLLATE NOCASE",
            "NOT NULL ON CONFLICT REPLACE DEFAULT 3",
        ]  # fmt: skip
        if parents:
            action = chance.choice(ACTIONS)
            when = chance.choice(("", "DEFERRABLE INITIALLY DEFERRED"))
            choices += [f"REFERENCES {chance.choice(parents).name} (id) {action} {when}"] * 3
        return chance.choice(choices)

    def _definition(self) -> str:
        chance = self._chance
        table = self._table()
        column = chance.choice(table.columns)
        match chance.randrange(14):
            case 0 | 1:
                return self._new_table()
            case 2 | 3:
                unique = chance.choice(("", "", "UNIQUE "))
                what = chance.choice((column, f"{column} DESC", f"{column} COLLATE NOCASE", f"length({column})"))
                where = chance.choice(("", "", f" WHERE {column} IS NOT NULL"))
                return f"CREATE {unique}INDEX {self._other('INDEX')} ON {table.name} ({what}){where}"
            case 4 | 5 | 6:
                return self._trigger(table)
            case 7:
                return f"CREATE VIEW {self._other('VIEW')} AS {self._queries.select()}"
            case 8:
                new = self._name("n")
                table.columns.append(new)
                table.writable.append(new)
                default = chance.choice(("", "DEFAULT 5", "NOT NULL DEFAULT 'x'"))
                return f"ALTER TABLE {table.name} ADD COLUMN {new} {chance.choice(TYPES)} {default}"
            case 9:
                old, table.name = table.name, self._name("r")
                return f"ALTER TABLE {old} RENAME TO {table.name}"
            case 10:
                return f"ALTER TABLE {table.name} DROP COLUMN {column}"
            case 11 | 12:
                return self._drop()
            case _:
                return self._new_virtual(chance.choice(("rtree", "fts5")))

    def _drop(self) -> str:
        """One table is kept to write to."""
        chance = self._chance
        if self._others and happens(chance, 60):
            kind, name = self._others.pop(chance.randrange(len(self._others)))
            return f"DROP {kind} {name}"
        if len(self._tables) == 1:
            return f"DROP TABLE {self.prefix}nothing"
        return f"DROP TABLE {self._tables.pop(chance.randrange(len(self._tables))).name}"

    def _trigger(self, table: Table) -> str:
        chance = self._chance
        event = chance.choice(("INSERT", "UPDATE", "DELETE"))
        row = "old" if event == "DELETE" else "new"
        columns = [f"{row}.{column}" for column in table.columns]
        body = chance.choice((
            f"INSERT INTO {self.prefix}log (what, value) VALUES ('{event}', {self._some.make(columns, 1)})",
            f"UPDATE {self.prefix}log SET value = {self._some.make(columns, 1)} WHERE id % 3 = 0",
            f"SELECT CASE WHEN {self._some.make(columns, 1)} THEN RAISE({chance.choice(RAISES)}, 'no') END",
            "SELECT RAISE(IGNORE)",
        ))  # fmt: skip
        when = chance.choice(("BEFORE", "AFTER"))
        return f"CREATE TRIGGER {self._other('TRIGGER')} {when} {event} ON {table.name} BEGIN {body}; END"

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
        columns = chance.sample(table.writable, chance.randint(1, len(table.writable)))
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
            return self._definition()
        for _ in range(9):
            sql, params = self._write()
            if not params:
                return sql
        return f"DELETE FROM {self._table().name}"

    # -- transactions whose statements know of each other

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

    def _write_returning(self, earlier: range = range(0)) -> tuple[str, Params]:
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

    def _referring(self, earlier: range) -> object:
        chance = self._chance
        if not earlier or happens(chance, 40):
            return self._some.value()
        return hiqlite.ref(chance.choice(earlier), chance.choice((*range(len(RETURNED)), *RETURNED)))
