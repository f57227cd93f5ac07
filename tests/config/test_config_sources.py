"""Where settings come from, and who wins."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiqlite.config import NodeConfig, environment_keys, settings
from hiqlite.config_env import looks_like_env, parse_env
from hiqlite.errors import ConfigError
from tests.config.other_machine import Loader, Machine

KEY = "ab/" + base64.b64encode(bytes(32)).decode()
PASSWORD_HASH = base64.b64encode(b"$argon2id$v=19$m=32,t=2,p=1$c2FsdHNhbHQ$aGFzaGhhc2g").decode()
OTHER_KEY = "cd/" + base64.b64encode(bytes(range(32))).decode()


@pytest.fixture
def machine(tmp_path: Path, loader: Loader) -> Machine:
    return Machine(tmp_path, loader)


def test_the_environment_wins_over_toml_which_wins_over_defaults(machine: Machine) -> None:
    """Later sources replace single keys, not everything."""
    machine.write("h.toml", '[hiqlite]\nread_pool_size = 7\nwal_size = "2 MiB"\n')
    found = machine.load("NodeConfig.from_toml('h.toml')", HQL_READ_POOL_SIZE="9")
    assert (found["read_pool_size"], found["wal_size"], found["log_sync"]) == (9, 2 << 20, "immediate")


def test_env_files_are_layered_below_the_environment(machine: Machine) -> None:
    """`.env` < first file < second file < the process; other programs' variables do not matter."""
    machine.write(".env", "HQL_READ_POOL_SIZE=1\nHQL_WAL_SIZE=1MiB\nHQL_LOG_SYNC=interval_5\nHQL_DATA_DIR=d\nPATH=x\n")
    machine.write("one", "HQL_WAL_SIZE=2MiB\nHQL_LOG_SYNC=interval_6\nHQL_DATA_DIR=e\nUNRELATED=1\n")
    machine.write("two", "HQL_LOG_SYNC=interval_7\nHQL_DATA_DIR=f\n")
    found = machine.load("NodeConfig.from_env(['one', 'two'])", HQL_DATA_DIR="g")
    assert [found[key] for key in ("read_pool_size", "wal_size", "log_sync", "data_dir")] == [
        1, 2 << 20, "interval_7", "g"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("key", "environment", "value", "expected"),
    [
        ("tls_auto_certificates", "HQL_TLS_AUTO_CERTS", "true", True),
        ("tls_api_danger_tls_no_verify", "HQL_TLS_API_DANGER_TLS_NO_VERIFY", "true", True),
        ("rate_limit_db_rps", "HQL_RL_DB_RPS", "100", 100),
        ("heartbeat_interval_ms", "HQL_HEARTBEAT_INTERVAL_MS", "50", 50),
        ("raft_stall_ms", "HQL_RAFT_STALL_MS", "4000", 4000),
        ("link_loss_grace_ms", "HQL_RAFT_LINK_LOSS_GRACE_MS", "60", 60),
        ("backup_restore", "HQL_BACKUP_RESTORE", "file:x", "file:x"),
        ("danger_raft_state_reset", "HQL_DANGER_RAFT_STATE_RESET", "true", True),
        ("db", "HQL_DB", "false", False),
        ("caches", "HQL_CACHES", "a,b", ["a", "b"]),
        ("cpu_affinity", "HQL_CPU_AFFINITY", "0-1", [0, 1]),
    ],
)
def test_keys_have_their_documented_names(
    machine: Machine, key: str, environment: str, value: str, expected: object
) -> None:
    """The environment's names that do not simply repeat the key are among them."""
    assert machine.load("NodeConfig.from_env()", **{environment: value})[key] == expected


def another(item: Any) -> tuple[str, str]:
    """A value that is not the default: as an environment holds it, and as TOML does."""
    name, kind, default = item.name, item.metadata["kind"], item.default
    words = {
        "node_id": "3", "node_id_from": "k8s", "nodes": "\n3 a:1 a:2\n5 [::1]:1 [::1]:2\n", "log_sync": "interval_7",
        "election_timeout_ms": "700-900", "apply_thread": "inline", "cache_policy": "lru", "enc_key_active": "cd",
        "raft_proposal_queue_bytes": "65 MiB", "raft_memory_window_bytes": "65 MiB", "raft_frame_bytes_max": "2 MiB",
    }  # fmt: skip
    kinds = {
        "text": "other", "optional_text": "other", "secret": "s" * 20, "host": "127.0.0.1", "log_statements": "params",
        "switch": str(not default).lower(), "optional_whole": "7", "seconds": "77s",
        "whole": str(default + 1) if kind == "whole" else "", "size": "32 MiB", "names": "a,b", "affinity": "0",
        "cron": "1 2 3 * * *", "url": "https://s3.example.com",
        "encryption_keys": f"{KEY}\n{OTHER_KEY}", "backup_source": "s3:x", "password_hash": PASSWORD_HASH,
    }  # fmt: skip
    word = words.get(name, kinds.get(kind, ""))
    return word, json.dumps(word)


@pytest.mark.parametrize("names", [0, 1], ids=["documented names", "other names"])
def test_every_key_is_read_from_its_variables_and_from_toml_alike(machine: Machine, names: int) -> None:
    """All at once: the value arrives under its key, and differs from the default, in both ways."""
    left_out = {"node_id_from", "secrets_file", "db"}  # what decides about others; the last group that is left
    values = {item.name: another(item) for item in settings() if item.name not in left_out}
    keys = [key for key in environment_keys() if key.name in values]
    variables = {key.environment[min(names, len(key.environment) - 1)]: values[key.name][0] for key in keys}
    from_environment = machine.load("NodeConfig.from_env()", **variables)
    toml = "".join(f"{key.name} = {values[key.name][1]}\n" for key in keys if not key.environment_only)
    machine.write("h.toml", f"[hiqlite]\n{toml}")
    from_toml = machine.load("NodeConfig.from_toml('h.toml')")
    assert "error" not in from_environment and "error" not in from_toml, (from_environment, from_toml)
    defaults = machine.load("NodeConfig()")
    for key in keys:
        assert from_environment[key.name] != defaults[key.name], key.name
        if not key.environment_only:
            assert from_toml[key.name] == from_environment[key.name], key.name


def test_every_secret_may_stand_in_a_secrets_file_or_a_file_of_its_own(machine: Machine) -> None:
    """`$SECRETS` in TOML and in variables, `<VARIABLE>_FILE`: the same value arrives."""
    secrets = {key.name: key for key in environment_keys() if key.secret}
    values = {item.name: another(item) for item in settings() if item.name in secrets}
    machine.write("s.toml", "[hiqlite]\n" + "".join(f"{name} = {toml}\n" for name, (_, toml) in values.items()))
    machine.write("h.toml", '[hiqlite]\nsecrets_file = "s.toml"\n' + "".join(f'{n} = "$SECRETS"\n' for n in values))
    marked = {secrets[name].environment[0]: "\n $SECRETS\n" for name in values}
    files = {
        f"{secrets[name].environment[0]}_FILE": machine.write(f"files/{name}", f"{word}\n")
        for name, (word, _) in values.items()
    }
    plain = {secrets[name].environment[0]: word for name, (word, _) in values.items()}
    found = [
        machine.load("NodeConfig.from_toml('h.toml')"),
        machine.load("NodeConfig.from_env()", HQL_SECRETS_FILE="s.toml", **marked),
        machine.load("NodeConfig.from_env()", **files),
        machine.load("NodeConfig.from_env()", **plain),
    ]
    for name in values:
        assert found[0][name] and [one.get(name) for one in found] == [found[0][name]] * 4, (name, found)


def test_a_command_line_wins_over_all_sources(machine: Machine) -> None:
    """`serve --node-id --data-dir`; a chosen node also wins over what the host's name says."""
    machine.write("h.toml", '[hiqlite]\nnode_id_from = "k8s"\ndata_dir = "x"\n')
    found = machine.load("NodeConfig.from_file('h.toml', overrides={'node_id': 7, 'data_dir': 'y'})", HQL_DATA_DIR="z")
    assert (found["node_id"], found["node_id_from"], found["data_dir"]) == (7, None, "y")
    wrong = machine.load("NodeConfig.from_file('h.toml', overrides={'node_id': 0, 'data_dir': ''})")
    assert wrong["source"] == "the command line" and wrong["key"] == "data_dir"


def test_the_env_file_of_a_folder_that_is_not_about_us_does_not_matter(machine: Machine) -> None:
    """Another program's syntax, or bytes, keep no node from starting; a broken one that names our keys does."""
    machine.write(".env", "what: ever\n'quoted\n")
    assert machine.load("NodeConfig.from_env()")["notices"] == []
    machine.write(".env", "what: ever\nHQL_READ_POOL_SIZE=2\n")
    assert machine.load("NodeConfig.from_env()")["source"] == ".env, line 1"
    (machine.folder / ".env").write_bytes(b"A=\xff\n")
    assert "not UTF-8" in machine.load("NodeConfig.from_env()")["notices"][0]
    (machine.folder / ".env").unlink()
    (machine.folder / ".env").mkdir()
    assert machine.load("NodeConfig.from_env()")["notices"] == []


def test_unknown_keys_of_files_are_errors_with_a_suggestion(machine: Machine) -> None:
    """A typo is never a silent default, in TOML nor in env files."""
    machine.write("h.toml", "[hiqlite]\nread_pool_siz = 7\n")
    machine.write("e", "HQL_LOG_SYCN=immediate\n")
    toml, env = machine.load("NodeConfig.from_toml('h.toml')"), machine.load("NodeConfig.from_env('e')")
    assert toml["error"] == "h.toml, line 2: unknown key read_pool_siz (did you mean read_pool_size?)"
    assert env["error"] == "e, line 1: unknown key HQL_LOG_SYCN (did you mean HQL_LOG_SYNC?)"


def test_a_stray_variable_of_the_machine_is_told_not_refused(machine: Machine) -> None:
    """Somebody else may have set it; the node says so once."""
    found = machine.load("NodeConfig.from_env()", HQL_LOG_SYCN="immediate", OTHER="1")
    assert found["notices"] == ["the environment: unknown key HQL_LOG_SYCN (did you mean HQL_LOG_SYNC?)"]


def test_secrets_come_from_files_named_by_the_environment(machine: Machine) -> None:
    """<ENV>_FILE is read without its last line end; naming a secret both ways is refused; others have no _FILE."""
    path = machine.write("raft.secret", "s" * 20 + "\n")
    assert machine.load("NodeConfig.from_env()", HQL_SECRET_RAFT_FILE=path)["secret_raft"] == "s" * 20
    both = machine.load("NodeConfig.from_env()", HQL_SECRET_RAFT_FILE=path, HQL_SECRET_RAFT="x" * 16)
    assert "secret_raft is given twice" in both["error"]
    missing = machine.load("NodeConfig.from_env()", HQL_SECRET_RAFT_FILE="nowhere")
    assert missing["error"].startswith(
        "HQL_SECRET_RAFT_FILE in the environment: cannot read nowhere: No such file or directory"
    )
    empty = machine.load("NodeConfig.from_env()", HQL_SECRET_RAFT_FILE=machine.write("empty", "\n"))
    assert "is empty" in empty["error"] and "HQL_SECRET_RAFT_FILE" in empty["error"]
    assert machine.load("NodeConfig.from_env()", HQL_DATA_DIR_FILE=path)["notices"] != []


def test_secrets_file_fills_in_what_is_marked(machine: Machine) -> None:
    """`$SECRETS` is looked up in the same table of secrets_file, or of the file named in the call."""
    text = '[hiqlite]\nsecret_raft = "$SECRETS"\nsecret_api = "$SECRETS"\nenc_keys = ["$SECRETS"]\n'
    machine.write("h.toml", text + 'secrets_file = "s.toml"\n')
    secrets = '[hiqlite]\nsecret_raft = "{0}"\nsecret_api = "{0}"\nenc_keys = ["{1}"]\n'
    machine.write("s.toml", secrets.format("s" * 16, KEY))
    machine.write("t.toml", secrets.format("t" * 16, KEY))
    found = machine.load("NodeConfig.from_toml('h.toml')")
    assert (found["secret_raft"], found["enc_keys"]) == ("s" * 16, [KEY])
    assert machine.load("NodeConfig.from_toml('h.toml', secrets='t.toml')")["secret_api"] == "t" * 16
    assert machine.load("NodeConfig.from_env()", HQL_SECRET_API="$SECRETS")["error"] == (
        "HQL_SECRET_API in the environment: secret_api is $SECRETS, but no secrets_file is given "
        "(set secrets_file or HQL_SECRETS_FILE)"
    )
    machine.write("empty.toml", "[hiqlite]\n")
    lacking = machine.load("NodeConfig.from_toml('h.toml')", HQL_SECRETS_FILE="empty.toml")
    assert "does not hold it" in lacking["error"]


def test_keys_may_come_from_a_file_of_their_own(machine: Machine) -> None:
    """HQL_ENC_KEYS_FROM=file:<path> of 0.3.2; a file without keys is refused."""
    machine.write("keys", f'ENC_KEYS="\n{KEY}\n{OTHER_KEY}\n"\nENC_KEY_ACTIVE=cd\n')
    machine.write("nokeys", "OTHER=1\n")
    assert machine.load("NodeConfig.from_env()", HQL_ENC_KEYS_FROM="file:keys")["enc_keys"] == [KEY, OTHER_KEY]
    assert "ENC_KEYS" in machine.load("NodeConfig.from_env()", HQL_ENC_KEYS_FROM="file:nokeys")["error"]
    assert "expected env or file" in machine.load("NodeConfig.from_env()", HQL_ENC_KEYS_FROM="vault")["error"]


def test_tables_of_other_names_and_tables_in_tables_are_found(machine: Machine) -> None:
    """An application keeps our table in its own file; a missing one names those that are there."""
    machine.write("app.toml", "[web]\nport = 1\n[store.db]\nread_pool_size = 3\n")
    assert machine.load("NodeConfig.from_toml('app.toml', 'store.db')")["read_pool_size"] == 3
    assert machine.load("NodeConfig.from_toml('app.toml')")["error"] == (
        "app.toml: there is no table [hiqlite] (tables there: web, store)"
    )


def test_config_files_are_told_apart_by_content(machine: Machine) -> None:
    """The name says nothing: TOML in `a`, env syntax in `b.toml`."""
    machine.write("a", "# comment\n\n[hiqlite]\nread_pool_size = 2\n")
    machine.write("b.toml", "# comment\n\nHQL_READ_POOL_SIZE=3\n")
    assert machine.load("NodeConfig.from_file('a')")["read_pool_size"] == 2
    assert machine.load("NodeConfig.from_file('b.toml')")["read_pool_size"] == 3
    assert looks_like_env("export HQL_NODE_ID=1") and not looks_like_env("node_id = 1") and not looks_like_env("")


def test_without_a_name_the_file_in_the_home_folder_is_read(machine: Machine) -> None:
    """`~/.hiqlite/hiqlite.toml`, else `~/.hiqlite/config`, else an error that says where to write one."""
    assert "there is no config file" in machine.load("NodeConfig.from_file()")["error"]
    machine.write(".hiqlite/config", "HQL_READ_POOL_SIZE=5\n")
    assert machine.load("NodeConfig.from_file()")["read_pool_size"] == 5
    machine.write(".hiqlite/hiqlite.toml", "[hiqlite]\nread_pool_size = 6\n")
    assert machine.load("NodeConfig.from_file()")["read_pool_size"] == 6


def test_unreadable_files_are_config_errors(machine: Machine) -> None:
    """Missing, a folder, broken TOML, not UTF-8: the path and the reason."""
    machine.write("broken.toml", "[hiqlite\n")
    (machine.folder / "latin").write_bytes(b"[hiqlite]\n# \xe9\n")
    reasons = {"none": "No such file", ".": "directory", "broken.toml": "no valid TOML", "latin": "UTF-8"}
    for name, reason in reasons.items():
        error = machine.load(f"NodeConfig.from_toml({name!r})")["error"]
        assert name in error and reason in error


def test_what_only_the_environment_may_say_is_refused_in_toml(machine: Machine) -> None:
    """A restore or reset left in a file would repeat for ever."""
    machine.write("h.toml", "[hiqlite]\ndanger_raft_state_reset = true\n")
    assert "HQL_DANGER_RAFT_STATE_RESET" in machine.load("NodeConfig.from_toml('h.toml')")["error"]


def test_a_mapping_is_taken_as_given(machine: Machine) -> None:
    """The environment has no say where a program states its settings."""
    found = machine.load("NodeConfig.from_mapping({'read_pool_size': 2})", HQL_READ_POOL_SIZE="9")
    assert found["read_pool_size"] == 2
    with pytest.raises(ConfigError, match="did you mean data_dir"):
        NodeConfig.from_mapping({"datadir": "x"})


ENV_TEXTS = [
    ("A=1", {"A": "1"}),
    ("  export A = b c  # d", {"A": "b c"}),
    ("A=b#c", {"A": "b#c"}),
    ("A=#c", {"A": ""}),
    ("A=", {"A": ""}),
    ("A='x\\n\"y\"'  # c", {"A": 'x\\n"y"'}),
    ('A="x\\n\\"\\\\\\$z\\q"', {"A": 'x\n"\\$z\\q'}),
    ('A="\n1\n2\n"\nB=3', {"A": "\n1\n2\n", "B": "3"}),
    ("A=$SECRETS\r\nB=2\r\n", {"A": "$SECRETS", "B": "2"}),
    ("A=1\nA=2", {"A": "2"}),
    ("# A=1\n\n", {}),
]


@pytest.mark.parametrize(("text", "expected"), ENV_TEXTS)
def test_env_syntax_is_read(text: str, expected: dict[str, str]) -> None:
    """Comments, quotes, several lines, escapes; no substitution."""
    assert {one.name: one.value for one in parse_env(text, "here")} == expected


@pytest.mark.parametrize("text", ["just words", "=1", "A='x", 'A="x\n', 'A="x" y', "1A=2"])
def test_broken_env_syntax_is_refused_without_showing_the_line(text: str) -> None:
    """The line may hold a secret, so only its place is told."""
    with pytest.raises(ConfigError) as caught:
        parse_env(f"OK=1\n{text}", "here")
    assert str(caught.value).startswith("here") and "words" not in str(caught.value)


@given(st.text())
def test_any_text_is_read_as_env_or_refused(text: str) -> None:
    """Nothing but ConfigError comes out of nonsense."""
    try:
        found = parse_env(text, "here")
    except ConfigError:
        return
    lines = text.count("\n") + 1
    assert [one.line for one in found] == sorted({one.line for one in found} & set(range(1, lines + 1)))


@given(st.dictionaries(st.from_regex(r"[A-Z][A-Z0-9_]{0,8}", fullmatch=True), st.text(), max_size=5))
def test_quoted_values_survive_being_written(values: dict[str, str]) -> None:
    """Whatever a value holds, double quotes with escapes carry it."""
    escaped = {k: v.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$") for k, v in values.items()}
    found = parse_env("\n".join(f'{k}="{v}"' for k, v in escaped.items()), "here")
    assert {one.name: one.value for one in found} == values
