"""Random logs, cut into runs in random ways, with restarts: always the same answers, content and running hash."""

from __future__ import annotations

import tempfile
from pathlib import Path

from apply_harness import apply_alike, apply_cut, batch, execute, execute_many, no_op, txn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_apply_poison import PARTIAL, POISON, SCHEMA

KEYS = st.integers(1, 12)

GOOD = st.one_of(
    KEYS.map(lambda k: f"INSERT INTO item VALUES ({k}, 'n{k}', {k})"),
    KEYS.map(lambda k: f"INSERT OR REPLACE INTO item VALUES ({k}, 'm{k}', {k}) RETURNING id, name"),
    KEYS.map(lambda k: f"DELETE FROM item WHERE id = {k}"),
    KEYS.map(lambda k: f"UPDATE item SET amount = amount + changes() + random() % 3, name = name || 1 WHERE id >= {k}"),
    KEYS.map(lambda k: f"INSERT INTO parent VALUES ({k})"),
    KEYS.map(lambda k: f"INSERT INTO child(parent) VALUES ({k})"),
    KEYS.map(lambda k: f"DELETE FROM parent WHERE id = {k}"),
    KEYS.map(lambda k: f"INSERT INTO words VALUES ('w{k} common word')"),
    KEYS.map(lambda k: f"DELETE FROM words WHERE words MATCH 'w{k}'"),
    KEYS.map(lambda k: f"INSERT INTO box VALUES ({k}, {k}, {k} + 1)"),
    KEYS.map(lambda k: f"CREATE TABLE made{k}(x)"),
    KEYS.map(lambda k: f"DROP TABLE made{k}"),
    KEYS.map(lambda k: f"CREATE INDEX ix{k} ON item(amount, name)"),
    KEYS.map(lambda k: f"DROP INDEX ix{k}"),
    st.just("INSERT INTO noted SELECT id FROM item ORDER BY random()"),
    st.just("INSERT INTO noted VALUES (random()), (unixepoch('subsec'))"),
    st.just("INSERT INTO noted SELECT amount FROM item WHERE amount > 2"),
    st.just("INSERT INTO counted(x) VALUES (last_insert_rowid())"),
    st.just("INSERT INTO touchy(how) VALUES ('keep'), ('ignore'), ('keep')"),
    st.just("ANALYZE"),
    st.just("REINDEX"),
)
STATEMENT = st.one_of(GOOD, GOOD, GOOD, st.sampled_from([*POISON.values(), *PARTIAL.values()]))
ENTRY = st.one_of(
    STATEMENT.map(lambda sql: execute(sql, rows=True)),
    st.lists(STATEMENT, min_size=1, max_size=4).map(lambda statements: txn(*statements)),
    st.lists(STATEMENT, min_size=1, max_size=5).map(lambda statements: batch("; ".join(statements))),
    st.lists(KEYS, min_size=1, max_size=4).map(
        lambda keys: execute_many("INSERT INTO child(id, parent) VALUES (?, 3)", [[key] for key in keys])
    ),
    st.just(no_op()),
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(ENTRY, min_size=1, max_size=25))
def test_any_log_gives_the_same_however_it_is_cut(entries: list[bytes]) -> None:
    """One run, one run each, a restart between every two, random: all alike."""
    with tempfile.TemporaryDirectory() as folder:
        apply_alike(Path(folder), [batch(SCHEMA), *entries])


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(ENTRY, min_size=1, max_size=25))
def test_of_an_entry_that_failed_nothing_remains(entries: list[bytes]) -> None:
    """Where the answer says so (docs/formats.md, status 1) an entry without content in its place gives the same."""
    records = [batch(SCHEMA), *entries]
    with tempfile.TemporaryDirectory() as folder:
        found = apply_cut(Path(folder) / "all.db", records, "random", seed=len(records))
        failed = [answer[1:2] == b"\x01" for answer in found.answers]
        others = [no_op() if fails else record for record, fails in zip(records, failed, strict=True)]
        assert apply_cut(Path(folder) / "others.db", others, "one").content == found.content
