"""The original's own files mean here what they mean there."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from tests.config import original_files as original
from tests.config.other_machine import Loader, Machine

WITHOUT_EFFECT = {
    "shutdown_delay_millis", "wal_ignore_lock", "HQL_SHUTDOWN_DELAY_MILLS", "HQL_IGNORE_WAL_LOCK",
    "HQL_WAL_IGNORE_LOCK", "HQL_CHECK_WAL_INTEGRITY",
}  # fmt: skip
COMMON: dict[str, Any] = {
    "node_id": 1, "log_sync": "interval_200", "logs_until_snapshot": 10_000, "health_check_delay_secs": 30,
    "backup_cron": "0 30 2 * * * *", "backup_keep_days": 30, "backup_keep_days_local": 3, "wal_size": 2 << 20,
    "enc_keys": [original.KEY], "enc_key_active": original.ACTIVE, "password_dashboard": original.PASSWORD_HASH,
    "secret_raft": original.SECRET, "secret_api": original.SECRET, "log_statements": True, "insecure_cookie": True,
    "data_dir": "data", "filename_db": "hiqlite.db", "read_pool_size": 4, "listen_addr_api": "0.0.0.0",
    "prepared_statement_cache_capacity": 1000, "cache_storage_disk": True,
}  # fmt: skip
SAFE = {"log_sync": "immediate", "wal_size": 64 << 20}  # what is not said is durable here
FILES = [
    ("config", original.ENV_FILE, {**COMMON, **SAFE}, 1, ["HQL_SHUTDOWN_DELAY_MILLS"]),
    (
        "generated",
        original.GENERATED_ENV_FILE,
        {
            "node_id": 1, "data_dir": "/var/lib/hiqlite/data", "insecure_cookie": False, "log_statements": False,
            "enc_keys": [original.KEY, original.OTHER_KEY], "enc_key_active": "q6u26onRvXVG4427", **SAFE,
        },
        1,
        [],
    ),
    ("older.toml", original.OLDER_TOML_FILE, COMMON, 3, ["shutdown_delay_millis", "wal_ignore_lock"]),
    (
        "hiqlite.toml",
        original.TOML_FILE,
        {**COMMON, "tls_auto_certificates": True, "rate_limit_db_rps": 100_000, "rate_limit_cache_burst": 100_000},
        0,
        [],
    ),
    (
        "reference.toml",
        original.REFERENCE_TOML_FILE,
        {
            "node_id": 0, "secret_raft": "SuperSecureRaftSecret1337", "s3_secret": "my_secret",
            "enc_keys": [original.KEY], "enc_key_active": original.ACTIVE, "backup_keep_days": 30,
        },
        1,
        [],
    ),
]  # fmt: skip


@pytest.fixture
def machine(tmp_path_factory: pytest.TempPathFactory, loader: Loader) -> Machine:
    return Machine(tmp_path_factory.mktemp("machine"), loader)


@pytest.mark.parametrize(("name", "text", "expected", "nodes", "without_effect"), FILES, ids=[row[0] for row in FILES])
def test_a_file_of_the_original_is_understood_unchanged(
    machine: Machine, name: str, text: str, expected: dict[str, Any], nodes: int, without_effect: list[str]
) -> None:
    """Told apart by content; each value arrives, and what has no effect any more is told with its line."""
    machine.write(name, text)
    machine.write("secrets.toml", original.SECRETS_FILE)
    found = machine.load(f"NodeConfig.from_file({name!r})")
    assert {key: found.get(key) for key in expected} == expected
    assert len(found["nodes"]) == nodes
    lines = text.splitlines()
    told = [notice.partition(" has no effect")[0] for notice in found["notices"]]
    assert told == [
        f"{name}, line {next(n for n, line in enumerate(lines, 1) if line.startswith(key))}: {key}"
        for key in without_effect
    ]


def test_every_variable_of_the_original_is_known(machine: Machine) -> None:
    """All at once: nothing is refused, nothing unknown, and those without effect say so."""
    found = machine.load("NodeConfig.from_env()", **original.VARIABLES)
    assert "error" not in found, found
    told = {notice.split()[2] for notice in found["notices"]}
    assert told == {name for name in original.VARIABLES if name in WITHOUT_EFFECT}
    assert found["tls_raft_danger_tls_no_verify"] is True and found["split_brain_interval"] == 300.0


@pytest.mark.parametrize(
    ("name", "value", "key", "expected"),
    [
        ("HQL_SYNC_IMMEDIATE", "true", "log_sync", "immediate"),
        ("HQL_SYNC_IMMEDIATE", "false", "log_sync", "interval_200"),
        ("HQL_HEALTH_CHECK_DELAY", "1m", "health_check_delay_secs", 60),
        ("HQL_HEALTH_CHECK_DELAY", "1500ms", "health_check_delay_secs", 2),
        ("HQL_BACKUP_KEEP_FOR", "36h", "backup_keep_days", 2),
        ("HQL_BACKUP_KEEP_FOR_LOCAL", "1d", "backup_keep_days_local", 1),
        ("HQL_TLS_API_NO_VERIFY", "true", "tls_api_danger_tls_no_verify", True),
        ("HQL_SPLIT_BRAIN_INTERVAL", "60", "split_brain_interval", 60.0),
    ],
)
def test_old_names_are_translated(machine: Machine, name: str, value: str, key: str, expected: object) -> None:
    """Parts of days and seconds are rounded up: nothing is deleted early. A value that cannot be meant is refused."""
    assert machine.load("NodeConfig.from_env()", **{name: value})[key] == expected
    wrong = machine.load("NodeConfig.from_env()", **{name: "potatoes"})
    assert name in wrong["error"] and wrong["hint"]


def test_the_newer_name_wins_over_the_older_one_of_the_same_source(machine: Machine) -> None:
    """In either order, in TOML as in the environment."""
    for lines in itertools.permutations(['backup_keep_for = "9d"', "backup_keep_days = 4"]):
        machine.write("h.toml", "\n".join(["[hiqlite]", *lines]))
        assert machine.load("NodeConfig.from_toml('h.toml')")["backup_keep_days"] == 4
    both = {"HQL_BACKUP_KEEP_FOR": "9d", "HQL_BACKUP_KEEP_DAYS": "4"}
    assert machine.load("NodeConfig.from_env()", **both)["backup_keep_days"] == 4
    machine.write("e", "HQL_BACKUP_KEEP_DAYS=4\n")
    assert machine.load("NodeConfig.from_env('e')", HQL_BACKUP_KEEP_FOR="9d")["backup_keep_days"] == 9


def test_keys_as_container_platforms_carry_them_are_read(machine: Machine) -> None:
    """The original's tools also print base64 of the whole list."""
    import base64

    wrapped = base64.b64encode(f"{original.KEY}\n{original.OTHER_KEY}\n".encode()).decode()
    found = machine.load("NodeConfig.from_env()", ENC_KEYS=wrapped, ENC_KEY_ACTIVE=original.ACTIVE)
    assert found["enc_keys"] == [original.KEY, original.OTHER_KEY]
