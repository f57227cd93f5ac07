"""What differs from process to process, or by how runs were cut, never gets into the database."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest
from apply_harness import apply_alike, error_of, execute, healthy, machine, status_of, txn

from hiqlite.errors import DeterminismError
from hiqlite.statemachine.connection import open_reader, open_writer

TABLES = [execute("CREATE TABLE r(a)"), execute("CREATE TABLE v(a)")]


@pytest.mark.parametrize(
    "sql, params",
    [
        ("INSERT INTO r VALUES (fts3_tokenizer('simple', ?))", [b"AAAAAAAA"]),
        ("INSERT INTO r VALUES (hex(fts3_tokenizer(?)))", ["simple"]),
        ("INSERT INTO r VALUES (FTS3_TOKENIZER(:name))", {"name": "simple"}),
        ("CREATE VIRTUAL TABLE pages USING dbstat(main)", ()),
        ("CREATE VIRTUAL TABLE pages USING DBSTAT", ()),
    ],
)
def test_addresses_and_page_counts_are_refused_in_writes(sql: str, params: object, tmp_path: Path) -> None:
    """Alone and in a transaction, with the parameter that makes SQLite itself let it pass."""
    with machine(tmp_path / "a.db") as made:
        made.apply(TABLES)
        assert isinstance(error_of(made.one(execute(sql, params))), DeterminismError)
        failed = made.one(txn(("INSERT INTO r VALUES (1)", ()), (sql, params)))
        assert status_of(failed) != 0
        assert made.rows("SELECT count(*) FROM r") == [(0,)] and healthy(made)


def test_a_reader_cannot_put_an_address_in_the_place_of_a_tokenizer(tmp_path: Path) -> None:
    """The next full-text query would jump to it."""
    path = tmp_path / "a.db"
    open_writer(path).close()
    reader = open_reader(path)
    with pytest.raises(apsw.Error, match="not authorized to use function: fts3_tokenizer"):
        reader.execute("SELECT fts3_tokenizer('simple', ?)", (b"AAAAAAAA",)).fetchall()
    assert reader.execute("SELECT token FROM fts3tokenize WHERE input = 'a b'").fetchall() == [("a",), ("b",)]
    reader.close()


def test_where_pages_begin_is_nothing_that_a_write_can_see(tmp_path: Path) -> None:
    """In a query, through a view, in CREATE TABLE AS: NULL on every node, however its runs were cut."""
    fill = [execute("INSERT INTO r VALUES (?)", [bytes(400)]) for _ in range(120)]
    late = [
        execute("CREATE TABLE u(a)"),
        execute("CREATE VIEW roots AS SELECT name, rootpage FROM sqlite_master"),
        execute("INSERT INTO v SELECT rootpage FROM sqlite_schema WHERE name = 'u'"),
        execute("INSERT INTO v SELECT rootpage FROM roots"),
        execute("CREATE TABLE x AS SELECT * FROM sqlite_schema"),
        execute("DROP TABLE u"),
        execute("ALTER TABLE v RENAME TO w"),
    ]
    answers = apply_alike(tmp_path, [*TABLES, *fill, *late])
    assert all(status_of(answer) == 0 for answer in answers)
    with machine(tmp_path / "b.db") as made:
        made.apply([*TABLES, execute("CREATE TABLE gone(a)"), execute("DROP TABLE gone"), *late])
        assert made.rows("SELECT DISTINCT a FROM w") == [(None,)]
        assert made.rows("SELECT count(*) FROM sqlite_schema WHERE rootpage > 0")[0][0] > 3  # readers may look
        assert healthy(made)
