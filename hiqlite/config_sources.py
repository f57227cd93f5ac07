"""Where settings come from: TOML tables, env files, the environment, secrets files.

What this is for: turning sources into one `Gathered`, raw values by key with the place of each, later sources winning:
TOML table < `.env` of the current folder < env files < environment of the process < what a command line says.
Must not know: what a key means or which values are right (`config`, `config_kinds`).
Invariant: this is the only module that reads the environment; an unknown key in a file that was named is an error with
a "did you mean"; contents of secrets never stand in a message.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from hiqlite.config_env import looks_like_env, parse_env
from hiqlite.config_kinds import convert
from hiqlite.config_original import KEYS_FROM, RENAMED, WITHOUT_EFFECT
from hiqlite.config_toml import TomlFile, read_text, read_toml
from hiqlite.errors import ConfigError

SECRETS_MARK = "$SECRETS"
PREFIX = "HQL_"
TABLE = "hiqlite"
ENVIRONMENT = "the environment"
_REFERENCE = re.compile(r"\$(?:\{[A-Z_a-z][A-Z_a-z0-9]*\}|[A-Z_][A-Z_0-9]*)")


@dataclass(frozen=True, slots=True)
class Key:
    """How one setting is called: in TOML, and in the environment (the first name is the documented one)."""

    name: str
    environment: tuple[str, ...]
    secret: bool = False
    environment_only: bool = False


@dataclass(frozen=True, slots=True)
class Given:
    """A raw value, and where it stands (`str` of `source` says it)."""

    value: Any = field(repr=False)  # may be a secret
    source: object


@dataclass(slots=True)
class Gathered:
    """What the sources say.

    `problems` are names and references that cannot be right; `source` is the main source, named for what is missing.
    """

    source: str | None = None
    values: dict[str, Given] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)
    problems: list[ConfigError] = field(default_factory=list)

    def raw(self) -> dict[str, Any]:
        return {name: given.value for name, given in self.values.items()}

    def locate(self, error: ConfigError) -> ConfigError:
        """The same error, saying where its key was given."""
        if error.source is None:
            given = self.values.get(error.key or "")
            source = self.source if given is None else given.source
            error.source = None if source is None else str(source)
        return error


def gather(
    keys: Sequence[Key],
    *,
    file: TomlFile | None = None,
    env_files: Sequence[Path] = (),
    table: str = TABLE,
    overrides: Mapping[str, Any] | None = None,
    environment: bool = True,
) -> Gathered:
    """Everything that the sources say, later ones above earlier ones.

    Args:
        file, env_files: the files that were named.
        table: where a secrets file holds its values.
        overrides: values by key from a command line.
        environment: whether `.env` and the environment of the process are asked.
    """
    gathered = from_mapping({} if file is None else file.content, keys, file)
    main = [file.path] if file is not None else env_files
    gathered.source = str(main[-1]) if main else ENVIRONMENT
    if environment:
        _merge_layer(gathered, _variables_of_folder(gathered), keys, strict=False)
    for path in env_files:
        _merge_layer(gathered, _variables(path), keys, strict=True)
    if environment:
        # A stray variable of the machine must not keep a node from starting: here unknown names are only told.
        process = [Variable(name, value, ENVIRONMENT) for name, value in os.environ.items()]
        _merge_layer(gathered, process, keys, strict=False)
    for name, value in (overrides or {}).items():
        gathered.values[name] = Given(value, "the command line")
        if name == "node_id":
            gathered.values.pop("node_id_from", None)
    fill_secrets(gathered, keys, table)
    return gathered


def gather_file(
    path: Path | None,
    keys: Sequence[Key],
    *,
    table: str = TABLE,
    overrides: Mapping[str, Any] | None = None,
    environment: bool = True,
) -> Gathered:
    """As `gather`, for one file in TOML or env syntax, told apart by content; None takes the one in the home folder."""
    file = default_path() if path is None else path
    if file is None:
        raise ConfigError("there is no config file", hint="name one, or write ~/.hiqlite/hiqlite.toml")
    if looks_like_env(read_text(file)):
        return gather(keys, env_files=(file,), table=table, overrides=overrides, environment=environment)
    return gather(keys, file=read_toml(file, table), table=table, overrides=overrides, environment=environment)


def default_path() -> Path | None:
    """The config file that is read when none is named: `hiqlite.toml`, then `config`, in `.hiqlite` of the home."""
    folder = Path(os.path.expanduser("~")) / ".hiqlite"
    return next((path for path in (folder / "hiqlite.toml", folder / "config") if path.is_file()), None)


# --------------------------------------------------------------------------- TOML names


def from_mapping(mapping: Mapping[str, Any], keys: Sequence[Key], file: TomlFile | None = None) -> Gathered:
    """The settings of a mapping by TOML names; where they stand is told if they come from a file."""
    known = {key.name: key for key in keys}
    gathered = Gathered()
    for name, value in mapping.items():
        source = None if file is None else file.place(name)
        try:
            if name in known:
                _refuse_in_toml(known[name])
                gathered.values[name] = Given(value, source)
            elif name in RENAMED:
                target, translate = RENAMED[name]
                gathered.values.setdefault(target, Given(translate(name, value), source))
            elif name in WITHOUT_EFFECT:
                gathered.notices.append(_told(f"{name} has no effect: {WITHOUT_EFFECT[name]}", source))
            else:
                raise unknown_key(str(name), [key.name for key in keys if not key.environment_only])
        except ConfigError as error:
            error.source = None if source is None else str(source)
            gathered.problems.append(error)
    return gathered


def _refuse_in_toml(key: Key) -> None:
    if key.environment_only:
        hint = f"set {key.environment[0]} for one start"
        raise ConfigError(f"{key.name} may come from the environment only", key=key.name, hint=hint)


def _told(sentence: str, source: object) -> str:
    return sentence if source is None else f"{source}: {sentence}"


def unknown_key(name: str, known: Iterable[str], source: str | None = None) -> ConfigError:
    """The error for a key that nobody knows, with the nearest known one as hint."""
    import difflib  # only the way into an error needs it

    known = list(known)
    spellings = (name, name.lower().removeprefix(PREFIX.lower()).replace("-", "_"))
    found = [near for spelling in spellings for near in difflib.get_close_matches(spelling, known, n=1, cutoff=0.6)]
    nearest = max(found, key=lambda near: difflib.SequenceMatcher(None, near, spellings[1]).ratio(), default=None)
    hint = "docs/configuration.md lists all keys" if nearest is None else f"did you mean {nearest}?"
    return ConfigError(f"unknown key {name}", hint=hint, key=name, source=source)


def refuse_unknown(names: Iterable[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise unknown_key(name, known)


# --------------------------------------------------------------------------- the environment's names


class Variable(NamedTuple):
    """A variable, and the file's line that sets it, or the environment."""

    name: str
    value: str
    place: str

    @property
    def source(self) -> str:
        return f"{self.name} in {self.place}"

    def __repr__(self) -> str:
        return f"Variable({self.source})"  # the value may be a secret


def _variables(path: Path) -> list[Variable]:
    # The last assignment of a name counts, as in a shell.
    assignments = parse_env(read_text(path), path)
    return list({one.name: Variable(one.name, one.value, f"{path}, line {one.line}") for one in assignments}.values())


def _variables_of_folder(gathered: Gathered) -> list[Variable]:
    """Those of `.env`. Nobody named it: one that cannot be read, or does not speak of us, is none of our business."""
    path = Path(".env")
    if not path.is_file():
        return []
    try:
        text = read_text(path)
    except ConfigError as error:
        gathered.notices.append(str(error))
        return []
    return _variables(path) if PREFIX in text or "ENC_KEY" in text else []


def _merge_layer(gathered: Gathered, layer: Sequence[Variable], keys: Sequence[Key], *, strict: bool) -> None:
    """Put the variables of one source above what was gathered; empty ones count as not given."""
    known = {name: key for key in keys for name in key.environment}
    values: dict[str, Given] = {}
    old: dict[str, Given] = {}
    for variable in layer:
        name, base = variable.name, variable.name.removesuffix("_FILE")
        if variable.value == "":
            continue
        try:
            if name in known:
                _add(values, known[name], Given(_literal(known[name], variable), variable.source))
            elif name != base and base in known and known[base].secret:
                _add(values, known[base], Given(_secret_of_file(variable), f"{variable.value} of {variable.source}"))
            elif name.startswith(PREFIX) and name in RENAMED:
                target, translate = RENAMED[name]
                old[target] = Given(translate(name, variable.value), variable.source)
            elif name.startswith(PREFIX) and name in WITHOUT_EFFECT:
                gathered.notices.append(f"{variable.place}: {name} has no effect: {WITHOUT_EFFECT[name]}")
            elif name == KEYS_FROM:
                old.update(_keys_from(variable))
            elif name.startswith(PREFIX):
                error = unknown_key(name, known, variable.place)
                if strict:
                    raise error
                gathered.notices.append(str(error))
        except ConfigError as error:
            error.source = error.source or variable.source
            gathered.problems.append(error)
    gathered.values.update({**old, **values})


def _add(values: dict[str, Given], key: Key, given: Given) -> None:
    if key.name in values:
        raise ConfigError(
            f"{key.name} is given twice, also by {values[key.name].source}", key=key.name, hint="leave one of them out"
        )
    values[key.name] = given


def _literal(key: Key, variable: Variable) -> str:
    """The value; one of a file that refers to another variable is refused: the folder `$HOME/data` is never meant."""
    reference = None if key.secret or variable.place == ENVIRONMENT else _REFERENCE.search(variable.value)
    if reference is not None and variable.value.strip() != SECRETS_MARK:
        hint = "nothing is substituted here: write the value out"
        raise ConfigError(f"{key.name} refers to {reference[0]}", key=key.name, hint=hint)
    return variable.value


def _secret_of_file(variable: Variable) -> str:
    value = read_text(Path(variable.value)).rstrip("\r\n")
    if not value:
        raise ConfigError(f"{variable.value} is empty", hint="it should hold the secret alone")
    return value


def _keys_from(variable: Variable) -> dict[str, Given]:
    """`env`, or `file:<path>` with ENC_KEYS and ENC_KEY_ACTIVE in env syntax (0.3.2's way)."""
    if variable.value == "env":
        return {}
    if not variable.value.startswith("file:"):
        raise ConfigError(f"{KEYS_FROM} cannot be read", hint="expected env or file:<path>", key=KEYS_FROM)
    path = Path(variable.value.removeprefix("file:"))
    found = {one.name: one for one in _variables(path)}
    wanted = {"ENC_KEYS": "enc_keys", "ENC_KEY_ACTIVE": "enc_key_active"}
    for name in wanted:
        if name not in found or not found[name].value:
            hint = "it should set ENC_KEYS and ENC_KEY_ACTIVE"
            raise ConfigError(f"{path} does not set {name}", hint=hint, key=KEYS_FROM)
    return {key: Given(found[name].value, found[name].source) for name, key in wanted.items()}


# --------------------------------------------------------------------------- secrets


def fill_secrets(gathered: Gathered, keys: Sequence[Key], table: str) -> None:
    """Replace each secret given as `$SECRETS` by the value of that key in `secrets_file`."""
    marked = [name for name, given in gathered.values.items() if _is_marked(given.value)]
    given_file = gathered.values.get("secrets_file")
    file: TomlFile | None = None
    if marked and given_file is not None:
        try:
            path = convert("optional_text", "secrets_file", given_file.value)
            file = None if path is None else read_toml(Path(path), table)
        except ConfigError as error:
            error.key = "secrets_file"
            gathered.problems.append(gathered.locate(error))
            return
    secret = {key.name for key in keys if key.secret}
    for name in marked:
        try:
            gathered.values[name] = _secret_of(file, name, name in secret)
        except ConfigError as error:
            gathered.problems.append(gathered.locate(error))


def _secret_of(file: TomlFile | None, name: str, is_secret: bool) -> Given:
    if not is_secret:
        raise ConfigError(f"{name} is $SECRETS, but it is no secret", hint="write its value", key=name)
    if file is None:
        hint = "set secrets_file or HQL_SECRETS_FILE"
        raise ConfigError(f"{name} is $SECRETS, but no secrets_file is given", hint=hint, key=name)
    if name not in file.content or _is_marked(file.content[name]):
        message = f"{name} is $SECRETS, but {file.path} does not hold it in [{file.table}]"
        raise ConfigError(message, hint=f"write {name} there", key=name)
    return Given(file.content[name], file.place(name))


def _is_marked(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return len(value) == 1 and _is_marked(value[0])
    return isinstance(value, str) and value.strip() == SECRETS_MARK


def host_name() -> str:
    """This machine's name, from which `node_id_from = "k8s"` takes the node's number."""
    import socket  # 5 ms of import that only this setting needs

    return socket.gethostname()
