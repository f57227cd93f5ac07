"""Where settings come from: TOML tables, env files, the environment, secrets files.

What this is for: turning sources into one mapping `key -> raw value` for `NodeConfig`, later sources winning:
`.env` of the current folder < env file < environment of the process, all of them above the TOML table.
Must not know: what a key means or which values are right (`config`, `config_values`).
Invariant: this is the only module that reads the environment; an unknown key in a file that was named is an error with
a "did you mean"; contents of secrets never stand in a message.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hiqlite.config_values import convert
from hiqlite.errors import ConfigError

SECRETS_MARK = "$SECRETS"
PREFIX = "HQL_"
_ENV_LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=[ \t]*")
_ENV_FIRST_LINE = re.compile(r"\s*(?:export\s+)?(?:HQL_[A-Z0-9_]*|ENC_[A-Z0-9_]*|[A-Z][A-Z0-9_]*)\s*=")
_ESCAPES = MappingProxyType({"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\", "$": "$"})
_DAY_SECONDS = 86400.0


@dataclass(frozen=True, slots=True)
class Key:
    """How one setting is called: in TOML, and in the environment (the first name is the documented one)."""

    name: str
    environment: tuple[str, ...]
    secret: bool = False
    environment_only: bool = False


@dataclass(slots=True)
class Gathered:
    """Raw values by key, and what the user should be told once."""

    values: dict[str, Any] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)


# --------------------------------------------------------------------------- names of the original that changed


def _days(key: str, value: Any) -> int:
    """A duration such as "30d" in whole days, rounded up: nothing is deleted early."""
    return math.ceil(float(convert("seconds", key, value)) / _DAY_SECONDS)


def _whole_seconds(key: str, value: Any) -> int:
    return math.ceil(float(convert("seconds", key, value)))


def _sync_immediate(key: str, value: Any) -> str:
    return "immediate" if convert("switch", key, value) else "interval_200"


def _same(key: str, value: Any) -> Any:
    return value


# Old name -> (key, translation). All spellings that a release of the original understood.
_RENAMED = MappingProxyType(
    {
        "health_check_delay": ("health_check_delay_secs", _whole_seconds),
        "backup_keep_for": ("backup_keep_days", _days),
        "backup_keep_for_local": ("backup_keep_days_local", _days),
        "backup_config": ("backup_cron", _same),
        "HQL_SYNC_IMMEDIATE": ("log_sync", _sync_immediate),
        "HQL_HEALTH_CHECK_DELAY": ("health_check_delay_secs", _whole_seconds),
        "HQL_BACKUP_KEEP_FOR": ("backup_keep_days", _days),
        "HQL_BACKUP_KEEP_FOR_LOCAL": ("backup_keep_days_local", _days),
        "HQL_TLS_RAFT_NO_VERIFY": ("tls_raft_danger_tls_no_verify", _same),
        "HQL_TLS_API_NO_VERIFY": ("tls_api_danger_tls_no_verify", _same),
    }
)
# Old name -> why it has no effect any more.
_WITHOUT_EFFECT = MappingProxyType(
    {
        "shutdown_delay_millis": "shutting down hands leadership over; see shutdown_drain",
        "wal_ignore_lock": "the lock ends with its process",
        "HQL_SHUTDOWN_DELAY_MILLS": "shutting down hands leadership over; see HQL_SHUTDOWN_DRAIN",
        "HQL_WAL_IGNORE_LOCK": "the lock ends with its process",
        "HQL_IGNORE_WAL_LOCK": "the lock ends with its process",
        "HQL_CHECK_WAL_INTEGRITY": "every start checks the log",
    }
)
_KEYS_FROM = "HQL_ENC_KEYS_FROM"


# --------------------------------------------------------------------------- mappings and TOML


def from_mapping(mapping: Mapping[str, Any], keys: Sequence[Key], where: str) -> Gathered:
    """The settings of a mapping by TOML names.

    Args:
        where: what to call the source in errors ("in cluster.toml").

    Raises:
        ConfigError: a key nobody knows, or one that only the environment may set.
    """
    known = {key.name: key for key in keys}
    gathered = Gathered()
    for name, value in mapping.items():
        if name in known:
            if known[name].environment_only:
                raise ConfigError(f"{name} {where} may come from the environment only: {known[name].environment[0]}")
            gathered.values[name] = value
        elif name in _RENAMED:
            target, translate = _RENAMED[name]
            gathered.values.setdefault(target, translate(name, value))
        elif name in _WITHOUT_EFFECT:
            gathered.notices.append(f"{name} {where} has no effect: {_WITHOUT_EFFECT[name]}")
        else:
            raise unknown_key(str(name), [key.name for key in keys if not key.environment_only], where)
    return gathered


def unknown_key(name: str, known: Iterable[str], where: str) -> ConfigError:
    """The error for a key that nobody knows, with the nearest known one as hint."""
    import difflib  # only the way into an error needs it

    nearest = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    hint = f"did you mean {nearest[0]}?" if nearest else ""
    return ConfigError(f"unknown key {name} {where}".rstrip(), hint=hint)


def toml_table(path: Path, table: str) -> dict[str, Any]:
    """One table of a TOML file; `table` may be dotted, and empty for the whole file.

    Raises:
        ConfigError: the file cannot be read, is no TOML, or has no such table.
    """
    import tomllib  # 5 ms that an application without a TOML file does not pay

    try:
        found: Any = tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is no valid TOML: {error}") from None
    for part in table.split(".") if table else []:
        names = [name for name, value in found.items() if isinstance(value, dict)]
        found = found.get(part)
        if not isinstance(found, dict):
            raise ConfigError(f"{path} has no table [{table}]", hint=f"tables there: {', '.join(names) or 'none'}")
    return dict(found)


def read_text(path: Path) -> str:
    """A whole UTF-8 file, its failures as `ConfigError`."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"cannot read {path}: it is not UTF-8 text") from None


def looks_like_env(text: str) -> bool:
    """Whether a config file is in env syntax: its first line that says something reads NAME=value, NAME in capitals."""
    for line in text.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            return _ENV_FIRST_LINE.match(line) is not None
    return False


def default_path() -> Path | None:
    """The config file that is read when none is named: `hiqlite.toml`, then `config`, in `.hiqlite` of the home."""
    folder = Path(os.path.expanduser("~")) / ".hiqlite"
    return next((path for path in (folder / "hiqlite.toml", folder / "config") if path.is_file()), None)


# --------------------------------------------------------------------------- the environment


def from_environment(keys: Sequence[Key], env_files: Sequence[Path] = ()) -> Gathered:
    """What the environment says: the process's own above the named files (later ones win) above `./.env`."""
    gathered = Gathered()
    implicit = Path(".env")
    if implicit.is_file():
        _merge_layer(gathered, parse_env(read_text(implicit), ".env"), keys, ".env", strict=False)
    for path in env_files:
        _merge_layer(gathered, parse_env(read_text(path), str(path)), keys, f"in {path}", strict=True)
    # A stray variable of the machine must not keep a node from starting: here unknown names are only told.
    _merge_layer(gathered, dict(os.environ), keys, "in the environment", strict=False)
    return gathered


def _merge_layer(gathered: Gathered, layer: Mapping[str, str], keys: Sequence[Key], where: str, strict: bool) -> None:
    known = {name: key for key in keys for name in key.environment}
    values: dict[str, Any] = {}
    old: dict[str, Any] = {}
    for name, value in layer.items():
        base = name.removesuffix("_FILE")
        if value == "":
            continue  # `KEY=` means: not given
        if name in known:
            values[known[name].name] = value
        elif name != base and base in known and known[base].secret:
            if layer.get(base):
                raise ConfigError(f"both {base} and {name} are given {where}")
            values[known[base].name] = read_text(Path(value)).rstrip("\r\n")
        elif name in _RENAMED and name.startswith(PREFIX):
            target, translate = _RENAMED[name]
            old[target] = translate(name, value)
        elif name == _KEYS_FROM:
            old.update(_keys_from(value, where))
        elif name in _WITHOUT_EFFECT and name.startswith(PREFIX):
            gathered.notices.append(f"{name} {where} has no effect: {_WITHOUT_EFFECT[name]}")
        elif name.startswith(PREFIX):
            error = unknown_key(name, known, where)
            if strict:
                raise error
            gathered.notices.append(str(error))
    gathered.values.update({**old, **values})


def _keys_from(value: str, where: str) -> dict[str, str]:
    """`env`, or `file:<path>` with ENC_KEYS and ENC_KEY_ACTIVE in env syntax (0.3.2's way)."""
    if value == "env":
        return {}
    if not value.startswith("file:"):
        raise ConfigError(f"{_KEYS_FROM} {where}: expected env or file:<path>")
    path = Path(value.removeprefix("file:"))
    found = parse_env(read_text(path), str(path))
    if not found.get("ENC_KEYS") or not found.get("ENC_KEY_ACTIVE"):
        raise ConfigError(f"{path} does not set ENC_KEYS and ENC_KEY_ACTIVE")
    return {"enc_keys": found["ENC_KEYS"], "enc_key_active": found["ENC_KEY_ACTIVE"]}


def parse_env(text: str, where: str) -> dict[str, str]:
    """The variables of a text in env syntax.

    `NAME=value`, optionally behind `export`; `#` begins a comment at the start of a line or behind a space; values in
    double quotes may span lines and know the escapes n t r " $ and backslash; those in single quotes are taken as they
    are. Nothing is substituted, so `$SECRETS` stays itself.

    Raises:
        ConfigError: a line that is no assignment, or a quote that does not end.
    """
    found: dict[str, str] = {}
    position = 0
    while position < len(text):
        end = text.find("\n", position)
        end = len(text) if end < 0 else end
        line = text[position:end].strip()
        if not line or line.startswith("#"):
            position = end + 1
            continue
        match = _ENV_LINE.match(text, position, end)
        if match is None:
            number = text.count("\n", 0, position) + 1
            raise ConfigError(f"{where}, line {number}: expected NAME=value")  # not the line: it may be a secret
        found[match[1]], position = _env_value(text, match.end(), f"{where}: {match[1]}")
    return found


def _env_value(text: str, start: int, where: str) -> tuple[str, int]:
    """The value that begins at `start`, and where the next line begins."""
    quote = text[start : start + 1]
    if quote not in ('"', "'"):
        line, _, _ = text[start:].partition("\n")
        value = re.split(r"(?:^|\s)#", line, maxsplit=1)[0]
        return value.strip(), start + len(line) + 1
    parts: list[str] = []
    position = start + 1
    while position < len(text) and text[position] != quote:
        if quote == '"' and text[position] == "\\" and text[position + 1 : position + 2] in _ESCAPES:
            parts.append(_ESCAPES[text[position + 1]])
            position += 2
        else:
            parts.append(text[position])
            position += 1
    if position >= len(text):
        raise ConfigError(f"{where}: the quote does not end")
    rest, _, _ = text[position + 1 :].partition("\n")
    if rest.strip() and not rest.lstrip().startswith("#"):
        raise ConfigError(f"{where}: text behind the closing quote")
    return "".join(parts), position + 1 + len(rest) + 1


# --------------------------------------------------------------------------- secrets


def fill_secrets(values: dict[str, Any], keys: Sequence[Key], table: str) -> None:
    """Replace each secret given as `$SECRETS` by the value of that key in `secrets_file`.

    Raises:
        ConfigError: no secrets file, or it lacks the key.
    """
    wanted = [key.name for key in keys if key.secret and values.get(key.name) in (SECRETS_MARK, [SECRETS_MARK])]
    if not wanted:
        return
    path = values.get("secrets_file")
    if not path:
        raise ConfigError(f"{wanted[0]} is $SECRETS, but no secrets_file is given")
    secrets = toml_table(Path(path), table)
    for name in wanted:
        if name not in secrets:
            raise ConfigError(f"{name} is $SECRETS, but {path} does not hold it in [{table}]")
        values[name] = secrets[name]


def host_name() -> str:
    """This machine's name, from which `node_id_from = "k8s"` takes the node's number."""
    import socket  # 5 ms of import that only this setting needs

    return socket.gethostname()
