"""What an error about a config says: the key, where it was given, what to do; never a secret."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

import hiqlite
from hiqlite.config import NodeConfig
from hiqlite.config_env import Assignment
from hiqlite.config_sources import Gathered, Given, Variable
from hiqlite.config_toml import read_toml
from hiqlite.errors import ConfigError
from tests.config.other_machine import Loader, Machine

NODES = 'nodes = ["1 a:1 a:2"]\nsecret_raft = "0123456789abcdef"\nsecret_api = "0123456789abcdef"\n'
HIDDEN = "hunter2"


class Wrong(NamedTuple):
    """Sources of which one is wrong, and what the error must say."""

    key: str
    source: str
    hint: str
    toml: str = ""
    env_file: str = ""
    secrets: str = ""
    variables: Mapping[str, str] = MappingProxyType({})


TABLE = {
    "an unknown key": Wrong("wal_siz", "h.toml, line 2", "did you mean wal_size?", toml="wal_siz = 1"),
    "a key with dashes": Wrong("wal-size", "h.toml, line 2", "did you mean wal_size?", toml="wal-size = 1"),
    "a variable in TOML": Wrong("HQL_WAL_SIZE", "h.toml, line 2", "did you mean wal_size?", toml="HQL_WAL_SIZE = 1"),
    "a key unlike any": Wrong("zzz", "h.toml, line 2", "docs/configuration.md", toml="zzz = 1"),
    "an unknown variable of a file": Wrong(
        "HQL_LOG_SYCN", "e.env, line 3", "did you mean HQL_LOG_SYNC?", env_file="# a\n\nHQL_LOG_SYCN=x"
    ),
    "a wrong value": Wrong("read_pool_size", "h.toml, line 3", "whole number", toml='\nread_pool_size = "x"'),
    "a wrong value of a file": Wrong(
        "wal_size", "HQL_WAL_SIZE in e.env, line 2", "64 MiB", env_file="HQL_DB=true\nHQL_WAL_SIZE=big"
    ),
    "a wrong variable": Wrong("wal_size", "HQL_WAL_SIZE in the environment", "64 MiB", variables={"HQL_WAL_SIZE": "x"}),
    "a value out of range": Wrong(
        "read_pool_size", "HQL_READ_POOL_SIZE in the environment", "from 1 to 64", toml="read_pool_size = 3",
        variables={"HQL_READ_POOL_SIZE": "65"},
    ),
    "values that do not go together": Wrong(
        "heartbeat_interval_ms", "h.toml, line 2", "at least 8000", toml="heartbeat_interval_ms = 4000"
    ),
    "a given one and a default": Wrong(
        "max_entry_size", "h.toml, line 2", "lower max_entry_size", toml='max_entry_size = "65 MiB"'
    ),
    "a missing secret": Wrong("secret_raft", "h.toml", "HQL_SECRET_RAFT", toml='nodes = ["1 a:1 a:2"]'),
    "a missing secret without a file": Wrong(
        "secret_raft", "the environment", "HQL_SECRET_RAFT", variables={"HQL_NODES": "1 a:1 a:2"}
    ),
    "a short secret": Wrong("secret_api", "h.toml, line 2", "16 characters", toml=f'secret_api = "{HIDDEN}"'),
    "a short secret of a secrets file": Wrong(
        "secret_api", "s.toml, line 3", "16 characters", toml='secrets_file = "s.toml"\nsecret_api = "$SECRETS"',
        secrets=f'[hiqlite]\n\nsecret_api = "{HIDDEN}"',
    ),
    "a short secret of a file of its own": Wrong(
        "secret_api", "s.toml of HQL_SECRET_API_FILE in the environment", "16 characters", secrets=HIDDEN,
        variables={"HQL_SECRET_API_FILE": "s.toml"},
    ),
    "a secret of another type": Wrong("secret_api", "h.toml, line 2", "text", toml=f'secret_api = ["{HIDDEN}"]'),
    "a secret that the file lacks": Wrong(
        "s3_key", "h.toml, line 3", "write s3_key there", toml='secrets_file = "s.toml"\ns3_key = "$SECRETS"',
        secrets=f'[hiqlite]\nsecret_api = "{HIDDEN}"',
    ),
    "a secret that refers to itself": Wrong(
        "s3_key", "h.toml, line 3", "write s3_key there", toml='secrets_file = "s.toml"\ns3_key = "$SECRETS"',
        secrets='[hiqlite]\ns3_key = "$SECRETS"',
    ),
    "a secrets file that is not there": Wrong(
        "secrets_file", "h.toml, line 2", "check the path",
        toml='secrets_file = "s.toml"\nsecret_api = "$SECRETS"\ns3_key = "$SECRETS"',
    ),
    "a secrets file that is no TOML": Wrong(
        "secrets_file", "s.toml, line 2", "quotes", toml='secrets_file = "s.toml"\nsecret_api = "$SECRETS"',
        secrets=f"[hiqlite]\nsecret_api = {HIDDEN}",
    ),
    "a secrets file of a wrong type": Wrong(
        "secrets_file", "h.toml, line 2", "text", toml='secrets_file = 7\ns3_key = "$SECRETS"'
    ),
    "a secret without a secrets file": Wrong(
        "s3_key", "HQL_S3_KEY in the environment", "HQL_SECRETS_FILE", variables={"HQL_S3_KEY": "$SECRETS"}
    ),
    "a setting that is no secret": Wrong(
        "data_dir", "h.toml, line 3", "write its value", toml='secrets_file = "s.toml"\ndata_dir = "$SECRETS"',
        secrets="[hiqlite]",
    ),
    "a secret given twice": Wrong(
        "secret_api", "HQL_SECRET_API_FILE in the environment", "leave one", secrets="x" * 16,
        variables={"HQL_SECRET_API": HIDDEN * 3, "HQL_SECRET_API_FILE": "s.toml"},
    ),
    "a setting given by both its names": Wrong(
        "tls_auto_certificates", "HQL_TLS_AUTO_CERTIFICATES in e.env, line 2", "leave one",
        env_file="HQL_TLS_AUTO_CERTS=true\nHQL_TLS_AUTO_CERTIFICATES=false",
    ),
    "a wrong encryption key": Wrong("enc_keys", "h.toml, line 2", "id/base64", toml=f'enc_keys = ["ab/{HIDDEN}"]'),
    "a password for its hash": Wrong(
        "password_dashboard", "h.toml, line 2", "Argon2id", toml=f'password_dashboard = "{HIDDEN}"'
    ),
    "an address with a password": Wrong(
        "s3_url", "h.toml, line 2", "s3_secret", toml=f's3_url = "https://me:{HIDDEN}@example.com"'
    ),
    "a wrong cron line": Wrong("backup_cron", "h.toml, line 2", "hours", toml='backup_cron = "every night"'),
    "a wrong old name": Wrong("backup_keep_for", "h.toml, line 2", "10s", toml='backup_keep_for = "x30"'),
    "a reference to a variable": Wrong(
        "data_dir", "HQL_DATA_DIR in e.env, line 1", "write the value out", env_file="HQL_DATA_DIR=${HOME}/data"
    ),
    "a restore in a file": Wrong(
        "backup_restore", "h.toml, line 2", "HQL_BACKUP_RESTORE", toml='backup_restore = "s3:x"'
    ),
    "two nodes with one id": Wrong(
        "nodes", "h.toml, line 2", "an id of its own", toml='nodes = ["1 a:1 a:2", "1 b:1 b:2"]'
    ),
    "a node that is none": Wrong("nodes", "h.toml, line 2", "raft_host", toml='nodes = [\n"1 a:1"\n]'),
    "a node id that no node has": Wrong("node_id", "h.toml, line 5", "ids there: 1", toml=f"{NODES}node_id = 4"),
    "another way to an id": Wrong("node_id_from", "h.toml, line 2", "expected k8s", toml='node_id_from = "nomad"'),
    "broken TOML": Wrong("", "h.toml, line 3", "quotes", toml=f"\nsecret_api = {HIDDEN}"),
    "a broken env file": Wrong("", "e.env, line 2", "NAME=value", env_file=f"HQL_DB=true\n{HIDDEN}"),
    "a quote that does not end": Wrong("", "e.env, line 2", "close", env_file=f'A=1\nHQL_SECRET_API="{HIDDEN}'),
}  # fmt: skip


@pytest.mark.parametrize("wrong", TABLE.values(), ids=TABLE.keys())
def test_an_error_says_the_key_its_place_and_what_to_do(tmp_path: Path, loader: Loader, wrong: Wrong) -> None:
    """In attributes for programs, and in the one sentence that people read."""
    machine = Machine(tmp_path, loader)
    if wrong.secrets:
        machine.write("s.toml", wrong.secrets)
    if wrong.toml:
        machine.write("h.toml", f"[hiqlite]\n{wrong.toml}\n")
    if wrong.env_file:
        machine.write("e.env", wrong.env_file)
    named = "h.toml" if wrong.toml else "e.env"
    expression = f"NodeConfig.from_file({named!r})" if wrong.toml or wrong.env_file else "NodeConfig.from_env()"
    found = machine.load(expression, **wrong.variables)
    assert (found.get("key") or "", found.get("source")) == (wrong.key, wrong.source), found
    assert wrong.hint in found["hint"]
    assert found["error"].startswith(f"{wrong.source}: ") and found["error"].endswith(f"({found['hint']})")
    assert HIDDEN not in str(found)


TOML_SPELLINGS = [
    ("[hiqlite]\nread_pool_size = 0", 2),
    ("hiqlite.wal_size = 100000\nhiqlite.read_pool_size = 0", 2),
    ("hiqlite = { wal_size = 100000, read_pool_size = 0 }", 1),
    ('[hiqlite]\n"read_pool_size" = 0', 2),
    ("[other]\nread_pool_size = 0\n[hiqlite]\nread_pool_size = 0", 4),
    ('[hiqlite]\ndata_dir = """\nread_pool_size = 0\n"""\nread_pool_size = 0', 5),
    ("[hiqlite]\n# read_pool_size = 0\ncaches = [\n'read_pool_size'\n]\nread_pool_size\t= 0", 6),
    ("\r\n[hiqlite]\r\nread_pool_size = 0\r\n", 3),
]


@pytest.mark.parametrize(("text", "line"), TOML_SPELLINGS)
def test_the_line_is_found_in_every_way_of_writing_toml(tmp_path: Path, text: str, line: int) -> None:
    """Comments, other tables and texts that look like the key do not mislead."""
    file = tmp_path / "h.toml"
    file.write_bytes(text.encode())
    assert str(read_toml(file, "hiqlite").place("read_pool_size")) == f"{file}, line {line}"
    assert str(read_toml(file, "hiqlite").place("absent")) == str(file)


@pytest.mark.parametrize("text", ["x = " + "9" * 5000, "x = " + "[" * 100_000, "x = " + "{a=" * 50_000])
def test_toml_that_is_too_much_for_its_reader_is_a_config_error(tmp_path: Path, text: str) -> None:
    """Numbers and depths beyond all reason do not end in a traceback."""
    file = tmp_path / "h.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match="no valid TOML"):
        NodeConfig.from_toml(file)


def test_a_config_error_travels_whole() -> None:
    """Key, source and hint survive a process border and a wire."""
    before = ConfigError("it is wrong", hint="mend it", key="wal_size", source="h.toml, line 3")
    after = pickle.loads(pickle.dumps(before))
    assert (str(after), after.key, after.source) == (str(before), "wal_size", "h.toml, line 3")
    assert str(before) == "h.toml, line 3: it is wrong (mend it)"


def secret_values() -> dict[str, Any]:
    key = "ab/" + "A" * 43
    return {
        "secret_raft": f"{HIDDEN}-raft-secret", "secret_api": f"{HIDDEN}-api-secret", "s3_key": HIDDEN,
        "s3_secret": HIDDEN, "enc_keys": [key], "enc_key_active": "ab", "nodes": ["1 127.0.0.1:1 127.0.0.1:2"],
        "node_id": 1,
    }  # fmt: skip


def test_secrets_are_in_no_text_form_of_a_config_or_its_parts(tmp_path: Path) -> None:
    """repr, str, format of the config, and of what carries raw values before it exists."""
    file = tmp_path / "h.toml"
    file.write_text(f'[hiqlite]\nsecret_api = "{HIDDEN}"\n')
    toml = read_toml(file, "hiqlite")
    parts = [
        NodeConfig(**secret_values()), Given(HIDDEN, "here"), Variable("HQL_SECRET_API", HIDDEN, "there"),
        Assignment("HQL_SECRET_API", HIDDEN, 1), toml, toml.place("secret_api"),
        Gathered(values={"secret_api": Given(HIDDEN, toml.place("secret_api"))}),
    ]  # fmt: skip
    for part in parts:
        for text in (repr(part), str(part), f"{part}", f"{[part]}"):
            assert HIDDEN not in text and "AAAA" not in text, type(part)


async def test_secrets_are_not_logged_by_a_node(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A start and a stop with all secrets set, at the most talkative level."""
    settings = {**secret_values(), "data_dir": str(tmp_path / "data"), "nodes": []}
    with caplog.at_level(logging.DEBUG):
        async with hiqlite.open(settings) as db:
            await db.execute("CREATE TABLE t (x)")
    assert "s3_key has no effect in this version" in caplog.text
    assert HIDDEN not in caplog.text and "AAAA" not in caplog.text


async def test_what_has_no_effect_is_said_once_at_the_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One warning per key that was changed and that no part of this version uses; none for defaults."""
    settings = {"data_dir": str(tmp_path / "data"), "caches": ["a"], "db": True, "tls_auto_certificates": True}
    with caplog.at_level(logging.WARNING, "hiqlite"):
        async with hiqlite.open(settings) as db:
            await db.execute("CREATE TABLE t (x)")
    told = [line for record in caplog.records if "no effect" in (line := record.getMessage())]
    assert told == ["caches has no effect in this version", "tls_auto_certificates has no effect in this version"]
