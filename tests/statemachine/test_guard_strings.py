"""instr, replace and trim are ours: the results are SQLite's, the time is linear."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hiqlite.statemachine.connection import open_reader, open_writer

# Characters of one to four bytes, a NUL, and pieces of broken ones, so that places and sets meet by chance.
PIECES = st.sampled_from(["a", "b", " ", "\0", "ä", "€", "𝄞"])
BROKEN = st.sampled_from([b"a", b"b", b"\x80", b"\xbf", b"\xc3", b"\xa4", b"\xe2\x82", b"\xf0", b"\xff", b"\0"])
TEXT = st.lists(PIECES, max_size=8).map("".join)
BLOB = st.lists(BROKEN, max_size=8).map(b"".join)
VALUE = st.one_of(TEXT, TEXT, BLOB, st.none(), st.integers(-20, 300), st.floats(-2, 2))
CALLS = [
    ("instr", 2), ("replace", 3), ("trim", 1), ("trim", 2), ("ltrim", 1), ("ltrim", 2), ("rtrim", 1), ("rtrim", 2),
]  # fmt: skip


@pytest.fixture(scope="module")
def connections(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[apsw.Connection]]:
    path: Path = tmp_path_factory.mktemp("strings") / "db"
    opened = [apsw.Connection(":memory:"), open_writer(path)]
    opened.append(open_reader(path))
    yield opened
    for connection in opened:
        connection.close()


def asked(connection: apsw.Connection, sql: str, values: list[object]) -> object:
    try:
        return list(connection.execute(sql, values))
    except apsw.Error as error:
        return type(error)


@settings(max_examples=3000, deadline=None)
@given(st.sampled_from(CALLS), st.lists(VALUE, min_size=3, max_size=3), st.lists(st.booleans(), min_size=3, max_size=3))
def test_they_give_what_sqlite_gives(
    connections: list[apsw.Connection], call: tuple[str, int], values: list[object], as_text: list[bool]
) -> None:
    """Of texts, blobs, numbers and NULL, texts that are no UTF-8 included; what was given stays what it was."""
    name, count = call
    places = [f"CAST(?{n} AS TEXT)" if as_text[n - 1] else f"?{n}" for n in range(1, count + 1)]
    result = f"{name}({', '.join(places)})"
    types = ", ".join(f"typeof(?{n}), hex(?{n})" for n in range(1, count + 1))
    sql = f"SELECT typeof({result}), hex({result}), {types}"
    plain, *guarded = [asked(connection, sql, values[:count]) for connection in connections]
    assert guarded == [plain, plain]


def test_their_time_does_not_grow_with_the_product_of_their_arguments(connections: list[apsw.Connection]) -> None:
    """SQLite's own would take hours for each."""
    megabytes = 8_000_000
    worst = "a" * megabytes
    needle = "a" * (megabytes // 2) + "b"
    for connection in connections[1:]:
        assert list(connection.execute("SELECT instr(?, ?)", (worst, needle))) == [(0,)]
        assert list(connection.execute("SELECT length(replace(?, ?, 'x'))", (worst, needle))) == [(megabytes,)]
        assert list(connection.execute("SELECT trim(?, ?)", (worst, needle))) == [("",)]


def test_trim_takes_so_many_characters_beyond_ascii(connections: list[apsw.Connection]) -> None:
    """More would take too long; those of ASCII are any number."""
    many = "".join(chr(0x100 + n) for n in range(100)) + "abc" * 1000
    for connection in connections[1:]:
        assert list(connection.execute("SELECT trim(?, ?)", (many, many))) == [("",)]
        with pytest.raises(apsw.SQLError, match="too many characters"):
            connection.execute("SELECT trim(?, ?)", ("a", many + chr(0x300)))


def test_a_result_that_is_too_long_is_refused(connections: list[apsw.Connection]) -> None:
    """As by SQLite, before any memory is asked for."""
    for connection in connections:
        connection.limit(apsw.SQLITE_LIMIT_LENGTH, 1_000_000)
        with pytest.raises(apsw.TooBigError):
            connection.execute("SELECT replace(?, 'a', 'bbb')", ("a" * 400_000,))
        assert list(connection.execute("SELECT length(replace(?, 'a', 'bb'))", ("a" * 400_000,))) == [(800_000,)]
