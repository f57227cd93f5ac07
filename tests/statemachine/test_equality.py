"""The hash that says whether two databases are equal: of all of it, and part by part."""

from __future__ import annotations

import random
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from hiqlite.statemachine.connection import open_reader, open_writer
from hiqlite.statemachine.equality import START, Part, Place, content_hash, hash_part, one_snapshot

SCHEMA = """
CREATE TABLE plain(id INTEGER PRIMARY KEY, text, number REAL);
CREATE TABLE no_id(a, b);
CREATE TABLE sorted(word TEXT COLLATE NOCASE, number INTEGER, rest, PRIMARY KEY (word DESC, number)) WITHOUT ROWID;
CREATE TABLE taken(rowid TEXT, _rowid_ TEXT, oid TEXT);
CREATE TABLE folded(word TEXT COLLATE NOCASE, rest, PRIMARY KEY (word COLLATE BINARY)) WITHOUT ROWID;
CREATE TABLE falling(a, b, PRIMARY KEY (a DESC, b DESC)) WITHOUT ROWID;
CREATE TABLE computed(a, b AS (a || 'x'), d AS (length(a)) STORED);
CREATE TABLE failing(a);
CREATE TABLE bytes_in_text(text);
CREATE TABLE bytes_in_key(word TEXT PRIMARY KEY, rest) WITHOUT ROWID;
CREATE TABLE "quo""ted"("a b", "c""d");
CREATE TABLE no_rows(a);
CREATE VIRTUAL TABLE words USING fts5(body);
CREATE INDEX by_text ON plain(text);
CREATE TABLE _hiqlite_run(last_index INTEGER PRIMARY KEY);
"""
INVALID = "CAST(X'ff41' AS TEXT)"


def fill(connection: apsw.Connection, rows: int = 2500) -> None:
    chance = random.Random(7)
    with connection:
        for number in range(rows):
            text = f"{chance.random()} " * chance.randrange(1, 9)
            connection.execute("INSERT INTO plain VALUES (?, ?, ?)", (3 * number, text, chance.random()))
            connection.execute("INSERT INTO no_id VALUES (?, ?)", (text, bytes(chance.randrange(40))))
            connection.execute("INSERT INTO sorted VALUES (?, ?, ?)", (text[:4], number, None))
            connection.execute("INSERT INTO taken VALUES (?, ?, ?)", (text, number, None))
            connection.execute("INSERT INTO folded VALUES (?, 1)", (f"{number // 2}{'aA'[number % 2]}",))
            connection.execute("INSERT INTO falling VALUES (?, ?)", (number % 7, number))
            connection.execute("INSERT INTO computed VALUES (?)", (text,))
            connection.execute("INSERT INTO failing VALUES ('{no json')")
            odd = INVALID if number % 700 == 3 else "'sound'"
            connection.execute(f"INSERT INTO bytes_in_text VALUES ({odd} || {number})")
            connection.execute(f"INSERT INTO bytes_in_key VALUES ({odd} || {number}, {number})")
        connection.execute('INSERT INTO "quo""ted" VALUES (1, 2)')
        connection.execute("INSERT INTO words VALUES ('one two'), ('three')")
    connection.execute("ALTER TABLE failing ADD COLUMN c AS (json_extract(a, '$.x'))").fetchall()


@pytest.fixture
def made(tmp_path: Path):
    connection = apsw.Connection(str(tmp_path / "a.db"))
    connection.execute(SCHEMA).fetchall()
    fill(connection)
    yield connection
    connection.close(True)


def parts(connection: apsw.Connection, bytes_max: int) -> list[Part]:
    found = []
    place = START
    with one_snapshot(connection):
        while True:
            found.append(hash_part(connection, place, bytes_max))
            if (end := found[-1].end) is None:
                return found
            place = end


def test_the_parts_are_all_of_it(made: apsw.Connection) -> None:
    """Every row of every table is in one part, and in one only, however large they are."""
    with one_snapshot(made):
        whole = hash_part(made, START)
    for bytes_max in (1 << 10, 20_000, 1 << 30):
        found = parts(made, bytes_max)
        assert sum(one.rows for one in found) == whole.rows
    assert whole.end is None and len(parts(made, 1 << 10)) > 100
    assert len(parts(made, 1 << 30)) == 1
    names = ("plain", "no_id", "sorted", "taken", "folded", "falling", "bytes_in_text", "bytes_in_key", '"quo""ted"')
    counted = sum(made.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in names)
    counted += 2 * made.execute("SELECT count(a) FROM computed").fetchone()[0]  # and as many in `failing`
    shadows = ("words_data", "words_idx", "words_content", "words_docsize", "words_config")
    counted += sum(made.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in shadows)
    assert whole.rows == counted


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE plain SET text = text || 'x' WHERE id = 6000",
        "UPDATE plain SET number = -number WHERE id = 3",
        "UPDATE plain SET text = CAST(text AS BLOB) WHERE id = 3000",
        "DELETE FROM no_id WHERE rowid = 1700",
        "UPDATE sorted SET rest = 0 WHERE number = 2400",
        "UPDATE taken SET oid = 1 WHERE _rowid_ = '2499'",
        "UPDATE bytes_in_text SET text = CAST(text AS BLOB) WHERE rowid = 4",
        "UPDATE bytes_in_text SET text = CAST(X'fe41' AS TEXT) || 703 WHERE rowid = 704",
        "UPDATE bytes_in_key SET rest = -1 WHERE rest = 2499",
        "UPDATE bytes_in_key SET rest = -1 WHERE rest = 3",
        "DELETE FROM falling WHERE b = 2000",
        "UPDATE folded SET rest = 2 WHERE word = '700A' COLLATE BINARY",
        "UPDATE computed SET a = 'y' WHERE rowid = 10",
        "INSERT INTO words VALUES ('four')",
        "INSERT INTO no_rows VALUES (NULL)",
        "CREATE TABLE another(a)",
        "DROP INDEX by_text",
    ],
)
def test_every_change_is_seen(made: apsw.Connection, change: str) -> None:
    before, parts_before = content_hash(made), parts(made, 10_000)
    made.execute(change).fetchall()
    assert made.changes() == 1 or not change.startswith(("UPDATE", "DELETE"))
    assert content_hash(made) != before
    if not change.startswith(("CREATE", "DROP")):  # the schema is in each part
        after = parts(made, 10_000)
        assert sum(old.digest != new.digest for old, new in zip(parts_before, after, strict=False)) > 0


def test_what_is_no_content_is_not_seen(made: apsw.Connection, tmp_path: Path) -> None:
    """Where pages lie, what statistics say, what runs leave behind, and who looks how often."""
    before, parts_before = content_hash(made), parts(made, 10_000)
    made.execute("INSERT INTO _hiqlite_run VALUES (7)").fetchall()
    assert content_hash(made) == before == content_hash(made)
    assert parts(made, 10_000) == parts_before
    other = apsw.Connection(str(tmp_path / "b.db"))
    other.execute("PRAGMA page_size = 512").fetchall()
    other.execute(SCHEMA).fetchall()
    fill(other)
    assert content_hash(other) == before
    other.close(True)


def test_a_part_begins_where_it_was_told_whatever_became_of_its_table(made: apsw.Connection) -> None:
    """Between two parts a table may be dropped, or its rows deleted: the rest is read."""
    with one_snapshot(made):
        first = hash_part(made, START, 200_000)
    assert first.end is not None
    made.execute(f"DROP TABLE {first.end.table}").fetchall()
    with one_snapshot(made):
        rest = hash_part(made, first.end)
    assert rest.end is None and rest.rows > 1000


def test_a_table_of_another_kind_in_the_old_ones_place_is_read_from_its_beginning(made: apsw.Connection) -> None:
    """Its rows are told apart otherwise than those that the last part ended with."""
    with one_snapshot(made):
        end = Place("plain", (3,))
        assert hash_part(made, end, 1).end == Place("plain", (6,))
    made.execute(
        "DROP TABLE plain; CREATE TABLE plain(a, b, PRIMARY KEY (a, b)) WITHOUT ROWID; INSERT INTO plain VALUES (1, 2)"
    ).fetchall()
    with one_snapshot(made):
        assert hash_part(made, end, 1).end == Place("plain", (1, 2))
    made.execute("DROP TABLE plain; CREATE TABLE plain(rowid, oid, _rowid_)").fetchall()
    with one_snapshot(made):
        assert hash_part(made, end).rows > 0


def test_the_reader_rests_between_steps(made: apsw.Connection) -> None:
    rests: list[int] = []
    with one_snapshot(made):
        hash_part(made, START, rest=lambda: rests.append(1))
    assert len(rests) >= 2


def test_the_widest_tables_are_read_whole(tmp_path: Path) -> None:
    """As many columns as a table may have, with and without text that is not UTF-8; each part of a row counts."""
    path = tmp_path / "wide.db"
    columns = ", ".join(f"c{n}" for n in range(2000))

    def content() -> str:
        with closing(open_reader(path)) as reader:
            return content_hash(reader)

    with closing(open_writer(path)) as writer:
        for name, kind in (("wide", ""), ("keyed", " WITHOUT ROWID")):
            listed = columns if not kind else columns.replace("c0", "c0 PRIMARY KEY", 1)
            writer.execute(f"CREATE TABLE {name} ({listed}){kind}")
            writer.execute(f"INSERT INTO {name} (c0) VALUES (1), (2), (3)")
        seen = {content()}
        for change in ("c0 = c0 + 10", "c1998 = 5", "c1999 = 'x'", "c1999 = CAST(x'ff' AS TEXT)", "c7 = 1"):
            for name in ("wide", "keyed"):
                writer.execute(f"UPDATE {name} SET {change} WHERE c0 % 10 = 2")
                found = content()
                assert found not in seen
                seen.add(found)
