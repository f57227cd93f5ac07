"""Random schemas: tables of many kinds, indexes, triggers, views that can be written, virtual tables, and their ends.

Within a transaction what it makes is taken to be there; what there is in truth is looked at behind it.
"""

from __future__ import annotations

from random import Random

import apsw

from .expressions import TYPES, Expressions, happens
from .queries import Queries, Table

RESOLUTIONS = ("REPLACE", "IGNORE", "FAIL", "ROLLBACK")
DEFAULTS = ("7", "NULL", "'d'", "(1 + 1)")
ACTIONS = ("", "ON DELETE CASCADE", "ON DELETE SET NULL", "ON UPDATE CASCADE", "ON DELETE RESTRICT")
RAISES = ("ABORT", "FAIL", "ROLLBACK")
MODULES = ("rtree", "rtree_i32", "fts5")
HIDDEN = 1  # of a column, in table_xinfo; more: it is computed
LETTERS = {"INDEX": "i", "VIEW": "v", "TRIGGER": "g"}


class Schema:
    """Of one program; all names begin with `prefix`."""

    def __init__(self, chance: Random, some: Expressions, prefix: str) -> None:
        self.tables: list[Table] = []
        self.queries = Queries(chance, some, self.tables)
        self._chance = chance
        self._some = some
        self._prefix = prefix
        self._log = f"{prefix}log"
        self._written: set[str] = set()  # views that have triggers
        self._made = 0
        self._others: list[tuple[str, str]] = []  # (kind, name) of indexes, triggers and views

    def first(self) -> str:
        """The table that triggers write to."""
        return f"CREATE TABLE {self._log} (id INTEGER PRIMARY KEY, what, value)"

    def table(self) -> str:
        """A new one, or a virtual one."""
        if happens(self._chance, 8):
            return self._virtual(self._chance.choice(MODULES))
        return self._table(self._name("t"))

    def change(self) -> str:
        """One statement."""
        chance = self._chance
        table = self.queries.table()
        column = chance.choice(table.columns)
        match chance.randrange(17):
            case 0 | 1:
                return self.table()
            case 2 | 3:
                unique = chance.choice(("", "", "UNIQUE "))
                what = chance.choice((column, f"{column} DESC", f"{column} COLLATE NOCASE", f"length({column})"))
                where = chance.choice(("", "", f" WHERE {column} IS NOT NULL"))
                return f"CREATE {unique}INDEX {self._other('INDEX')} ON {table.name} ({what}){where}"
            case 4 | 5 | 6:
                return self._trigger(table)
            case 7:
                return f"CREATE VIEW {self._other('VIEW')} AS {self.queries.select()}"
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
            case 13:
                return self._of_rows()
            case 14:
                return self._renamed_column(table, column)
            case 15:
                return self._again(table)
            case _:
                return self._virtual(chance.choice(("rtree", "fts5")))

    def changes(self) -> list[str]:
        """Statements that belong together, and are one transaction."""
        chance = self._chance
        match chance.randrange(8):
            case 0:
                return self._written_view(self.queries.table())
            case 1:
                return [self._virtual(chance.choice(MODULES))]
            case 2:
                return self._replaced(chance.randrange(len(self.tables)))
            case 3:
                return [self._table(self._name("t")), self._trigger(self.tables[-1])]
            case _:
                return [self.change()]

    def look(self, connection: apsw.Connection) -> None:
        """What there is now, the newest last; where nothing is, the table that triggers write to."""
        made = connection.execute(
            "SELECT type, name FROM sqlite_schema WHERE name GLOB ? ORDER BY rowid", (f"{self._prefix}*",)
        ).fetchall()
        kinds = {str(one[1]): str(one[2]).upper() for one in connection.execute("PRAGMA table_list")}
        self.tables.clear()
        self._others.clear()
        for kind, name in made:
            if kind != "table" and name not in self._written:
                self._others.append((str(kind).upper(), str(name)))
            elif kinds.get(str(name)) in ("TABLE", "VIRTUAL", "VIEW") and name != self._log:
                self.tables += _described(connection, str(name), kinds[str(name)])
        if not self.tables:
            self.tables.append(Table(self._log, ["id", "what", "value"], ["id", "what", "value"]))

    def sources(self) -> list[str]:
        """Of rows: tables and views."""
        return [one.name for one in self.tables] + [name for kind, name in self._others if kind == "VIEW"]

    # -- tables

    def _name(self, what: str) -> str:
        self._made += 1
        return f"{self._prefix}{what}{self._made}"

    def _other(self, kind: str) -> str:
        self._others.append((kind, self._name(LETTERS[kind])))
        return self._others[-1][1]

    def _virtual(self, module: str) -> str:
        name = self._name(module[0])
        if module == "fts5":
            columns = definitions = ["body"]
        else:
            columns = ["id", "low", "high"]
            definitions = [*columns, "+c0"] if happens(self._chance, 40) else columns
        columns = [column.lstrip("+") for column in definitions]
        self.tables.append(Table(name, columns, list(columns), "VIRTUAL"))
        return f"CREATE VIRTUAL TABLE {name} USING {module} ({', '.join(definitions)})"

    def _table(self, name: str) -> str:
        chance = self._chance
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
        self.tables.append(Table(name, columns, writable))
        return f"CREATE TABLE {name} ({', '.join(texts)}) {options}"

    def _constraint(self, column: str) -> str:
        chance = self._chance
        parents = [one for one in self.tables if one.columns[0] == "id" and one.kind == "TABLE"]
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

    def _of_rows(self) -> str:
        """In one order only, which makes their rowids."""
        sql, columns = self.queries.ordered()
        self.tables.append(Table(self._name("a"), columns, list(columns)))
        return f"CREATE TABLE {self.tables[-1].name} AS {sql}"

    # -- what there is already

    def _again(self, table: Table) -> str:
        """Nothing happens, or there is such a name."""
        chance = self._chance
        exists = chance.choice(("", "IF NOT EXISTS ", "IF NOT EXISTS "))
        if self._others and happens(chance, 50):
            kind, name = chance.choice(self._others)
            rest = {
                "INDEX": f"ON {table.name} ({chance.choice(table.columns)})",
                "TRIGGER": f"AFTER DELETE ON {table.name} BEGIN SELECT 1; END",
                "VIEW": "AS SELECT 1",
            }
            return f"CREATE {kind} {exists}{name} {rest[kind]}"
        if happens(chance, 30):
            return f"CREATE VIRTUAL TABLE {exists}{table.name} USING fts5 (body)"
        return f"CREATE TABLE {exists}{table.name} (other)"

    def _renamed_column(self, table: Table, column: str) -> str:
        new = self._name("m")
        for columns in (table.columns, table.writable):
            if column in columns:
                columns[columns.index(column)] = new
        return f"ALTER TABLE {table.name} RENAME COLUMN {column} TO {new}"

    def _drop(self) -> str:
        """One table is kept to write to."""
        chance = self._chance
        if self._others and happens(chance, 60):
            kind, name = self._others.pop(chance.randrange(len(self._others)))
            return f"DROP {kind} {name}"
        if len(self.tables) == 1:
            exists = chance.choice(("", "IF EXISTS "))
            return f"DROP {chance.choice(('TABLE', 'VIEW', 'INDEX', 'TRIGGER'))} {exists}{self._prefix}nothing"
        return self._dropped(chance.randrange(len(self.tables)))

    def _dropped(self, number: int) -> str:
        table = self.tables.pop(number)
        return f"DROP {'VIEW' if table.kind == 'VIEW' else 'TABLE'} {table.name}"

    def _replaced(self, number: int) -> list[str]:
        """Another table of its name: it is dropped, or has another name from now on."""
        table = self.tables[number]
        name = table.name
        if happens(self._chance, 50):
            return [self._dropped(number), self._table(name)]
        table.name = self._name("r")
        return [f"ALTER TABLE {name} RENAME TO {table.name}", self._table(name)]

    # -- triggers

    def _trigger(self, table: Table) -> str:
        chance = self._chance
        event = chance.choice(("INSERT", "UPDATE", "DELETE"))
        row = "old" if event == "DELETE" else "new"
        columns = [f"{row}.{column}" for column in table.columns]
        kind = chance.choice(RAISES)
        body = chance.choice((
            f"INSERT INTO {self._log} (what, value) VALUES ('{event}', {self._some.make(columns, 1)})",
            f"UPDATE {self._log} SET value = {self._some.make(columns, 1)} WHERE id % 3 = 0",
            f"SELECT CASE WHEN {self._some.make(columns, 1)} THEN RAISE({kind}, 'no {kind}') END",
            "SELECT RAISE(IGNORE)",
        ))  # fmt: skip
        when = "INSTEAD OF" if table.kind == "VIEW" else chance.choice(("BEFORE", "AFTER"))
        return f"CREATE TRIGGER {self._other('TRIGGER')} {when} {event} ON {table.name} BEGIN {body}; END"

    def _written_view(self, table: Table) -> list[str]:
        """Of one column of a table, which its triggers write."""
        column = self._chance.choice(table.writable)
        view = Table(self._name("w"), ["x"], ["x"], "VIEW")
        self.tables.append(view)
        self._written.add(view.name)
        bodies = {
            "INSERT": f"INSERT INTO {table.name} ({column}) VALUES (new.x)",
            "UPDATE": f"UPDATE {table.name} SET {column} = new.x WHERE {column} IS old.x",
            "DELETE": f"DELETE FROM {table.name} WHERE {column} IS old.x",
        }
        events = self._chance.sample(list(bodies), self._chance.randint(1, 3))
        return [
            f"CREATE VIEW {view.name} (x) AS SELECT {column} FROM {table.name}",
            *(
                f"CREATE TRIGGER {self._other('TRIGGER')} INSTEAD OF {event} ON {view.name} BEGIN {bodies[event]}; END"
                for event in events
            ),
        ]


def _described(connection: apsw.Connection, name: str, kind: str) -> list[Table]:
    """One, or none where it is a view of what is gone."""
    try:
        columns = connection.execute(f'PRAGMA table_xinfo("{name}")').fetchall()
    except apsw.Error:
        return []
    seen = [(str(one[1]), int(one[6] or 0)) for one in columns]
    shown = [column for column, hidden in seen if hidden != HIDDEN]
    writable = [column for column, hidden in seen if hidden == 0]
    return [Table(name, shown, writable, kind)] if writable else []
