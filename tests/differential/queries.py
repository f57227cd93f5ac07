"""Random SELECTs over given tables: of columns, groups, compounds, joins, CTEs and windows.

Where rows are numbered or come in an order, the order is told to the last: rows that are left equal are the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from .expressions import Expressions, happens

DIRECTIONS = ("", "DESC", "NULLS LAST", "DESC NULLS FIRST", "COLLATE NOCASE", "COLLATE RTRIM DESC")
RANKS = (
    "row_number()", "rank()", "dense_rank()", "percent_rank()", "cume_dist()", "ntile(3)", "lag({0})",
    "lead({0}, 2, 'end')", "first_value({0})", "last_value({0})", "nth_value({0}, 2)",
)  # fmt: skip
AGGREGATES = ("count(*)", "count({0})", "min({0})", "max({0})", "sum({0})", "total({0})", "group_concat(typeof({0}))")
FRAMES = (
    "", "", "ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING", "ROWS UNBOUNDED PRECEDING",
    "GROUPS BETWEEN 1 PRECEDING AND CURRENT ROW",
    "RANGE BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING EXCLUDE TIES",
    "GROUPS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING EXCLUDE CURRENT ROW",
)  # fmt: skip


@dataclass(slots=True)
class Table:
    name: str
    columns: list[str]
    writable: list[str]
    kind: str = "TABLE"  # or VIRTUAL, or VIEW


def total(column: str) -> str:
    """Terms of ORDER BY that leave no two values equal: not 1 and 1.0, not text and a blob of the same bytes."""
    return f"{column} COLLATE BINARY, typeof({column}), hex({column})"


class Queries:
    """Over `tables`, as they are when a query is made."""

    def __init__(self, chance: Random, some: Expressions, tables: list[Table]) -> None:
        self._chance = chance
        self._some = some
        self._tables = tables
        self.newest = 0  # percent of the looks at a table that are looks at the newest

    def table(self) -> Table:
        return self._tables[-1] if happens(self._chance, self.newest) else self._chance.choice(self._tables)

    def where(self, table: Table) -> str:
        if happens(self._chance, 30):
            return ""
        return f" WHERE {self._some.make(table.columns, 2)}"

    def select(self) -> str:
        """Its rows may come in any order."""
        return self._any()[0]

    def ordered(self) -> tuple[str, list[str]]:
        """(text, names of its columns); its rows come in one order only."""
        chance = self._chance
        sql, columns = self._any()
        first = f"{chance.choice(columns)} {chance.choice(DIRECTIONS)}"
        limit = chance.choice(("", "", " LIMIT 3", " LIMIT 4 OFFSET 1"))
        return f"SELECT * FROM ({sql}) ORDER BY {first}, {', '.join(map(total, columns))}{limit}", columns

    def common(self) -> str:
        """A WITH clause that gives `c (x)`; one that is recursive ends."""
        chance, some, table = self._chance, self._some, self.table()
        how = chance.choice(("", "", "MATERIALIZED ", "NOT MATERIALIZED "))
        rows = f"SELECT {some.make(table.columns, 1)} FROM {table.name}{self.where(table)}"
        match chance.randrange(3):
            case 0:
                return f"WITH c (x) AS {how}({rows})"
            case 1:
                step = f"SELECT x + 1 FROM c WHERE x < {chance.randint(1, 9)} LIMIT {chance.randint(1, 9)}"
                return f"WITH RECURSIVE c (x) AS (SELECT {some.literal()} UNION ALL {step})"
            case _:
                return f"WITH d (y) AS {how}({rows}), c (x) AS (SELECT y FROM d UNION SELECT {some.make((), 1)})"

    def few(self) -> str:
        """The SELECT behind `common` that gives at most three rows of it, always the same."""
        return f"SELECT x FROM c ORDER BY {total('x')} LIMIT 3"

    # -- the kinds

    def _any(self) -> tuple[str, list[str]]:
        """(text, names of its columns)"""
        chance, some, table, other = self._chance, self._some, self.table(), self.table()
        match chance.randrange(7):
            case 0:
                return f"SELECT {some.make(table.columns, 2)} AS x FROM {table.name}{self.where(table)}", ["x"]
            case 1:
                column, counted = chance.choice(table.columns), chance.choice(table.columns)
                what = f"{column} AS x, count(*) AS n, max({counted}) AS m"
                return f"SELECT {what} FROM {table.name} GROUP BY 1", ["x", "n", "m"]
            case 2:
                one, two = (f"SELECT {some.make(each.columns, 1)} AS x FROM {each.name}" for each in (table, other))
                return f"{one} {chance.choice(('UNION', 'UNION ALL', 'INTERSECT', 'EXCEPT'))} {two}", ["x"]
            case 3:
                on = some.make([f"a.{one}" for one in table.columns], 1)
                joined = f"{table.name} AS a LEFT JOIN {other.name} AS b ON {on}"
                return f"SELECT a.*, b.{chance.choice(other.columns)} AS z FROM {joined}", [*table.columns, "z"]
            case 4:
                what = some.make([*table.columns, "c.x"], 1)
                return f"{self.common()} SELECT c.x AS x, {what} AS w FROM c, {table.name}", ["x", "w"]
            case _:
                return self._window(table), ["x", "w"]

    def _window(self, table: Table) -> str:
        """Of one column: rows that its order leaves equal are the same in what is shown of them."""
        chance = self._chance
        column = chance.choice(table.columns)
        part = chance.choice(("", f"PARTITION BY typeof({column}) ", f"PARTITION BY {self._some.make([column], 1)} "))
        if happens(chance, 50):
            function = chance.choice(RANKS)
        else:
            function = chance.choice(AGGREGATES)
            if happens(chance, 30):
                function += f" FILTER (WHERE {self._some.make([column], 1)})"
        over = f"{part}ORDER BY {column} {chance.choice(DIRECTIONS)}, {total(column)} {chance.choice(FRAMES)}"
        return f"SELECT {column} AS x, {function.format(column)} OVER ({over}) AS w FROM {table.name}"
