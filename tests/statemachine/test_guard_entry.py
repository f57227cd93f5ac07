"""Time and chance of an entry: clock by VFS, seeded random(), time zones refused."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import apsw
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hiqlite._accel import guard as native
from hiqlite._accel.guard import Guard
from hiqlite.statemachine.authorizer import Role
from hiqlite.statemachine.connection import ConnectionSettings, open_reader, open_writer
from hiqlite.statemachine.determinism import JULIAN_MS_OF_1970, Chance, entry_context, julian_ms

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
WALL_NS = 1_700_000_000_123_456_789
GOLDEN_SEED_0 = -8886734526302766400
GOLDEN_SEED_7 = 5478278237059175447
GOLDEN_SEED_7_STATEMENT_1 = -2043637479732974583
GOLDEN_BLOB = "1754aa0c08c1064cd5"


@pytest.fixture(params=[False, True], ids=["exclusive", "shared"])
def connection(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[apsw.Connection]:
    connection = open_writer(tmp_path / "db", ConnectionSettings(shared_access=request.param))
    yield connection
    connection.close()


def value(connection: apsw.Connection, sql: str) -> object:
    return connection.execute(sql).fetchall()[0][0]


def test_every_way_to_ask_for_now_gives_the_entrys_wall_time(connection: apsw.Connection) -> None:
    """Functions, CURRENT_*, column defaults and triggers read the same clock."""
    connection.execute(
        "CREATE TABLE t(a, at DEFAULT CURRENT_TIMESTAMP, unix DEFAULT (unixepoch()));"
        "CREATE TABLE seen(at);"
        "CREATE TRIGGER note AFTER INSERT ON t BEGIN INSERT INTO seen VALUES(strftime('%Y-%m-%d %H:%M:%f', 'now')); END"
    ).fetchall()
    with entry_context(WALL_NS, 1):
        connection.execute("INSERT INTO t(a) VALUES(1)").fetchall()
        assert value(connection, "SELECT datetime('now')") == "2023-11-14 22:13:20"
        assert value(connection, "SELECT CURRENT_DATE || ' ' || CURRENT_TIME") == "2023-11-14 22:13:20"
        assert value(connection, "SELECT julianday()") == pytest.approx(2460263.4259273547)
    assert connection.execute("SELECT at, unix FROM t").fetchall() == [("2023-11-14 22:13:20", 1_700_000_000)]
    assert value(connection, "SELECT at FROM seen") == "2023-11-14 22:13:20.123"


def test_the_clock_runs_outside_an_entry(connection: apsw.Connection) -> None:
    """After the block, and on other threads during it, SQL sees real time."""
    before = int(time.time())
    seen: list[object] = []
    with entry_context(WALL_NS, 1):
        other = threading.Thread(target=lambda: seen.append(native.in_entry()))
        other.start()
        other.join()
        assert native.in_entry()
    assert seen == [False]
    assert not native.in_entry()
    assert int(str(value(connection, "SELECT unixepoch()"))) >= before


@given(st.integers(-(2**63), 2**63 - 1))
@example(0)
@example(-1)
@example(999_999)
@example(1_000_000)
@example(-(2**63))
@example(2**63 - 1)
def test_the_vfs_agrees_with_the_twin(wall_ns: int) -> None:
    """Milliseconds, rounded down; also before 1970."""
    native.register_vfs()
    memory = apsw.Connection(":memory:", vfs="hiqlite")
    with entry_context(wall_ns, 0):
        shown = str(value(memory, "SELECT strftime('%Y-%m-%d %H:%M:%f', 'now')"))
    memory.close()
    moment = EPOCH + timedelta(milliseconds=julian_ms(wall_ns) - JULIAN_MS_OF_1970)
    assert shown == moment.strftime("%Y-%m-%d %H:%M:%S.") + f"{moment.microsecond // 1000:03d}"


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1))
def test_sql_draws_what_the_twin_draws(seed: int, ordinal: int) -> None:
    """random() and randomblob() come from (seed, ordinal) alone."""
    native.register_vfs()
    connection = apsw.Connection(":memory:")
    native.load(connection)
    Guard(connection, Role.WRITER)
    native.entry_begin(0, seed)
    native.entry_statement(ordinal)
    row = connection.execute("SELECT random(), randomblob(3), randomblob(17), randomblob(-1), random()").fetchall()[0]
    native.entry_end()
    connection.close()
    twin = Chance(seed, ordinal)
    assert row == (twin.random(), twin.randomblob(3), twin.randomblob(17), twin.randomblob(-1), twin.random())


def test_the_generator_has_not_changed() -> None:
    """Golden values: nodes of two versions must draw the same."""
    assert [Chance(0).random(), Chance(7).random(), Chance(7, 1).random()] == [
        GOLDEN_SEED_0,
        GOLDEN_SEED_7,
        GOLDEN_SEED_7_STATEMENT_1,
    ]
    assert Chance(7).randomblob(9).hex() == GOLDEN_BLOB


def test_two_nodes_store_the_same_rows(tmp_path: Path) -> None:
    """Defaults, ORDER BY random() and RETURNING agree, whatever ran before on each."""
    rows = []
    for name, warm_up in (("one", 0), ("two", 17)):
        connection = open_writer(tmp_path / name)
        connection.execute("CREATE TABLE t(a, r DEFAULT (random()), b DEFAULT (hex(randomblob(6))))").fetchall()
        connection.execute("SELECT random()" + ", random()" * warm_up).fetchall()
        with entry_context(WALL_NS, 99):
            connection.execute("INSERT INTO t(a) VALUES(1), (2), (3)").fetchall()
            returned = connection.execute("INSERT INTO t(a) VALUES(4), (5) RETURNING r, b, random()").fetchall()
            order = connection.execute("SELECT a FROM t ORDER BY random()").fetchall()
        rows.append((connection.execute("SELECT * FROM t").fetchall(), returned, order))
        connection.close()
    assert rows[0] == rows[1]
    stored, returned, _ = rows[0]
    assert [row[1:] for row in stored[3:]] == [row[:2] for row in returned]
    assert len({row[1] for row in stored} | {row[2] for row in returned}) == 7


def test_a_statement_draws_the_same_when_its_neighbour_is_skipped(connection: apsw.Connection) -> None:
    """A replay that leaves out a failed statement gives the others what they had."""
    with entry_context(WALL_NS, 5):
        connection.execute("SELECT random(), random()").fetchall()
        native.entry_statement(1)
        second = value(connection, "SELECT random()")
    with entry_context(WALL_NS, 5):
        native.entry_statement(1)
        assert value(connection, "SELECT random()") == second


def test_outside_an_entry_chance_is_real(connection: apsw.Connection) -> None:
    """Reads get SQLite's own generator."""
    drawn = {value(connection, "SELECT random()") for _ in range(20)}
    assert len(drawn) == 20
    assert len(bytes(value(connection, "SELECT randomblob(100)"))) == 100  # type: ignore[call-overload]


def test_randomblob_keeps_sqlites_limits(connection: apsw.Connection) -> None:
    """Longer than a value may be: the error that SQLite gives."""
    with entry_context(WALL_NS, 5), pytest.raises(apsw.TooBigError):
        connection.execute("SELECT randomblob(1000000000000)").fetchall()


@pytest.mark.parametrize("modifier", ["localtime", "utc", "LocalTime"])
def test_time_zones_are_refused_in_an_entry_even_from_data(connection: apsw.Connection, modifier: str) -> None:
    """Nodes may live in different time zones; the modifier may come from a row."""
    guard = Guard(connection, Role.WRITER)
    connection.execute("CREATE TABLE m(word)").fetchall()
    connection.execute("INSERT INTO m VALUES(?)", (modifier,)).fetchall()
    with entry_context(WALL_NS, 5):
        guard.statement_begin()
        with pytest.raises(apsw.SQLError):
            connection.execute("SELECT datetime('2023-06-01 12:00', word) FROM m").fetchall()
        assert guard.refusal_class == 5
        assert "localtime" in (guard.refusal or "")
        guard.statement_begin()
        assert guard.refusal is None
        assert value(connection, "SELECT datetime('now', '+1 day', 'subsec')") == "2023-11-15 22:13:20.123"
    assert value(connection, "SELECT datetime('2023-06-01 12:00', word) FROM m")


def test_readers_have_real_time_zones(tmp_path: Path) -> None:
    """Nothing is replicated from a read."""
    open_writer(tmp_path / "db").close()
    reader = open_reader(tmp_path / "db")
    assert value(reader, "SELECT datetime(0, 'unixepoch', 'localtime')") == time.strftime(
        "%Y-%m-%d %H:%M:%S", time.localtime(0)
    )
    reader.close()


def test_the_entry_ends_when_the_block_raises() -> None:
    """The context is the thread's: what follows must not see it."""
    with pytest.raises(ZeroDivisionError), entry_context(WALL_NS, 5):
        raise ZeroDivisionError
    assert not native.in_entry()
