"""Random programs of SQL: schemas of many kinds, then writes and reads, right ones and wrong ones.

Statements whose result follows from SQLite's rules alone: no clock, no chance, nothing that a write may not say. All
names begin with the program's own prefix, so that programs follow each other in one database.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from .expressions import TYPES, Expressions

Params = tuple[object, ...]
RESOLUTIONS = ("REPLACE", "IGNORE", "FAIL", "ROLLBACK")
DEFAULTS = ("7", "NULL", "'d'", "(1 + 1)")
ACTIONS = ("", "ON DELETE CASCADE", "ON DELETE SET NULL", "ON UPDATE CASCADE", "ON DELETE RESTRICT")
RAISES = ("ABORT", "FAIL", "ROLLBACK")
CONFLICTS = ("", "", "", "OR IGNORE", "OR REPLACE", "OR ABORT", "OR FAIL", "OR ROLLBACK")


@dataclass(frozen=True, slots=True)
class Step:
    """One call. `kind`: execute, returning, many, txn, batch, query; `statements` with their parameters."""

    kind: str
    statements: tuple[tuple[str, Params], ...]


@dataclass(slots=True)
class Table:
    name: str
    columns: list[str]
    writable: list[str]
    has_rowid: bool = True


class Program:
    """Made from a seed; its steps are always the same."""

    def __init__(self, seed: int, length: int = 25) -> None:
        self.seed = seed
        self.prefix = f"p{seed}_"
        self._length = length
        self._chance = Random(f"program {seed}")
        self._some = Expressions(self._chance)
        self._tables: list[Table] = []
        self._made = 0

    def steps(self) -> Iterator[Step]:
        chance = self._chance
        yield self._call("execute", f"CREATE TABLE {self.prefix}log (id INTEGER PRIMARY KEY, what, value)")
        for _ in range(chance.randint(1, 3)):
            yield self._call("execute", self._new_table())
        for _ in range(self._length):
            match chance.randrange(12):
                case 0:
                    yield self._call("execute", self._definition())
                case 1:
                    yield self._call("query", self._select())
                case 2 | 3:
                    yield Step("txn", tuple(self._write() for _ in range(chance.randint(1, 5))))
                case 4:
                    yield Step("batch", tuple((self._write_or_definition(), ()) for _ in range(chance.randint(1, 5))))
                case 5:
                    sql, width = self._insert_bound()
                    yield Step("many", tuple((sql, self._values(width)) for _ in range(chance.randint(1, 6))))
                case 6 | 7:
                    sql, params = self._write()
                    yield Step("returning", ((f"{sql} RETURNING *", params),))
                case _:
                    yield Step("execute", (self._write(),))
        for table in self._tables:
            yield self._call("query", f"SELECT * FROM {table.name}")

    # -- definitions

    def _call(self, kind: str, sql: str) -> Step:
        return Step(kind, ((sql, ()),))

    def _name(self, what: str) -> str:
        self._made += 1
        return f"{self.prefix}{what}{self._made}"

    def _new_table(self) -> str:
        chance, name = self._chance, self._name("t")
        strict = chance.random() < 0.2
        columns = [f"c{number}" for number in range(chance.randint(1, 4))]
        texts, writable = [], []
        for column in columns:
            kind = chance.choice((*TYPES[:4], "ANY")) if strict else chance.choice((*TYPES, "", "VARCHAR(5)"))
            if chance.random() < 0.12 and writable:
                how = chance.choice(("STORED", "VIRTUAL"))
                texts.append(f"{column} {kind} GENERATED ALWAYS AS ({self._some.make(writable, 1)}) {how}")
                continue
            texts.append(f"{column} {kind} {self._constraint(column)}")
            writable.append(column)
        if not writable:
            columns, texts, writable = ["c0"], ["c0 INTEGER"], ["c0"]
        key = chance.choice(("id INTEGER PRIMARY KEY", "id INTEGER PRIMARY KEY AUTOINCREMENT", "", "PRIMARY KEY"))
        without = key == "PRIMARY KEY" and chance.random() < 0.6
        if key == "PRIMARY KEY":
            order = chance.choice(("", " DESC", " COLLATE NOCASE"))
            texts.append(f"PRIMARY KEY ({writable[0]}{order})")
        elif key:
            columns, texts, writable = ["id", *columns], [key, *texts], ["id", *writable]
        if chance.random() < 0.2:
            texts.append(f"CHECK ({self._some.make(writable, 1)})")
        options = ", ".join(["STRICT"] * strict + ["WITHOUT ROWID"] * without)
        self._tables.append(Table(name, columns, writable, not without))
        return f"CREATE TABLE {name} ({', '.join(texts)}) {options}"

    def _constraint(self, column: str) -> str:
        chance = self._chance
        parents = [one for one in self._tables if one.columns[0] == "id"]
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
        match chance.randrange(12):
            case 0 | 1:
                return self._new_table()
            case 2 | 3:
                unique = chance.choice(("", "", "UNIQUE "))
                what = chance.choice((column, f"{column} DESC", f"{column} COLLATE NOCASE", f"length({column})"))
                where = chance.choice(("", "", f" WHERE {column} IS NOT NULL"))
                return f"CREATE {unique}INDEX {self._name('i')} ON {table.name} ({what}){where}"
            case 4 | 5 | 6:
                return self._trigger(table)
            case 7:
                return f"CREATE VIEW {self._name('v')} AS {self._select()}"
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
            case _:
                name = self._name("f")
                self._tables.append(Table(name, ["body"], ["body"]))
                return f"CREATE VIRTUAL TABLE {name} USING fts5 (body)"

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
        return f"CREATE TRIGGER {self._name('g')} {when} {event} ON {table.name} BEGIN {body}; END"

    # -- writes and reads

    def _table(self) -> Table:
        return self._chance.choice(self._tables)

    def _where(self, table: Table) -> str:
        chance = self._chance
        if chance.random() < 0.3:
            return ""
        return f" WHERE {self._some.make(table.columns, 2)}"

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
        match chance.randrange(10):
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
                column = chance.choice(table.writable)
                return f"UPDATE {how} {table.name} SET {column} = {some.make(table.columns, 2)}{self._where(table)}", ()
            case _:
                return f"DELETE FROM {table.name}{self._where(table)}", ()

    def _write_or_definition(self) -> str:
        if self._chance.random() < 0.2:
            return self._definition()
        while True:
            sql, params = self._write()
            if not params:
                return sql

    def _select(self) -> str:
        chance, some, table = self._chance, self._some, self._table()
        other = self._table()
        match chance.randrange(4):
            case 0:
                return f"SELECT {some.make(table.columns, 2)} AS x FROM {table.name}{self._where(table)}"
            case 1:
                column, counted = chance.choice(table.columns), chance.choice(table.columns)
                return f"SELECT {column} AS x, count(*) AS n, max({counted}) AS m FROM {table.name} GROUP BY 1"
            case 2:
                one, two = (f"SELECT {some.make(each.columns, 1)} AS x FROM {each.name}" for each in (table, other))
                return f"{one} {chance.choice(('UNION', 'UNION ALL', 'INTERSECT', 'EXCEPT'))} {two}"
            case _:
                on = some.make([f"a.{one}" for one in table.columns], 1)
                joined = f"{table.name} AS a LEFT JOIN {other.name} AS b ON {on}"
                return f"SELECT a.*, b.{chance.choice(other.columns)} AS z FROM {joined}"
