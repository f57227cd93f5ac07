"""One configuration value at a time: from what a person wrote to what the program uses.

What this is for: sizes ("64 MiB"), durations ("500ms"), switches, node addresses, lists.
Must not know: which keys exist, nor where a value came from.
Invariant: a value that cannot mean what its key needs raises `ConfigError` naming the key and what would be right;
nothing is guessed, and a secret is never part of a message.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from hiqlite.errors import ConfigError

NODE_ID_MAX = 2**63 - 1  # also stored in SQLite and msgpack, both signed
PORT_MAX = 65535

_SIZE_UNITS = MappingProxyType(
    {
        "": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9,
        "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40,
    }
)  # fmt: skip
_SECONDS_UNITS = MappingProxyType(
    {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
)
_NUMBER_AND_UNIT = re.compile(r"\s*([0-9][0-9_]*(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*")
_BOOLEANS = MappingProxyType(
    {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
)


@dataclass(frozen=True, slots=True, order=True)
class NodeAddress:
    """A node of the cluster and where its two ports are reached.

    Hosts stand without brackets here, also IPv6 ones; `raft_address` and `api_address` put them back.
    """

    id: int
    raft_host: str
    raft_port: int
    api_host: str
    api_port: int

    def __post_init__(self) -> None:
        if isinstance(self.id, bool) or not isinstance(self.id, int) or not 1 <= self.id <= NODE_ID_MAX:
            raise ConfigError(f"node id {self.id!r} is no whole number >= 1")
        for host, port in ((self.raft_host, self.raft_port), (self.api_host, self.api_port)):
            if not isinstance(host, str) or not host or any(c.isspace() or c in "[]/@" for c in host):
                raise ConfigError(f"node {self.id}: {host!r} is no host name or IP address")
            if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= PORT_MAX:
                raise ConfigError(f"node {self.id}: port {port!r} lies outside 1 to {PORT_MAX}")

    @classmethod
    def parse(cls, text: str) -> NodeAddress:
        """Read `id raft_host:port api_host:port`; IPv6 hosts in brackets."""
        parts = text.split()
        if len(parts) != 3 or not parts[0].isascii() or not parts[0].isdigit():
            raise ConfigError(f"node {text!r} does not read `id raft_host:port api_host:port`")
        return cls(int(parts[0]), *split_address(parts[1]), *split_address(parts[2]))

    @property
    def raft_address(self) -> str:
        return join_address(self.raft_host, self.raft_port)

    @property
    def api_address(self) -> str:
        return join_address(self.api_host, self.api_port)

    def __str__(self) -> str:
        return f"{self.id} {self.raft_address} {self.api_address}"


def split_address(text: str) -> tuple[str, int]:
    """`host:port` or `[v6]:port` as (host, port); brackets are removed.

    Raises:
        ConfigError: no port, no host, or an IPv6 address without brackets.
    """
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ConfigError(f"address {text!r} is ambiguous", hint="write an IPv6 address in brackets: [::1]:8100")
    if not colon or not host or not (port.isascii() and port.isdigit()) or not 1 <= int(port) <= PORT_MAX:
        raise ConfigError(f"address {text!r} does not read host:port with a port from 1 to {PORT_MAX}")
    return host, int(port)


def join_address(host: str, port: int) -> str:
    """(host, port) as text, IPv6 hosts in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def convert(kind: str, key: str, value: Any) -> Any:
    """`value` as the type that `kind` names (one of `KINDS`); a value of that type already is returned unchanged.

    Raises:
        ConfigError: it cannot be read as that kind.
    """
    return KINDS[kind](key, value)


def _mismatch(key: str, value: Any, wanted: str) -> ConfigError:
    return ConfigError(f"{key} = {value!r}: expected {wanted}")


def _text(key: str, value: Any) -> str:
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str) or not value.strip():
        raise _mismatch(key, value, "text that is not empty")
    return value


def _optional_text(key: str, value: Any) -> str | None:
    """Text, or None where nothing was given (`KEY=` in an env file gives nothing)."""
    return None if value is None or value == "" else _text(key, value)


def _secret(key: str, value: Any) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise ConfigError(f"{key}: expected text")
    return value


def _secrets(key: str, value: Any) -> tuple[str, ...]:
    try:
        return _names(key, value)
    except ConfigError:
        raise ConfigError(f"{key}: expected a list of texts without repetition") from None


def _switch(key: str, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    found = _BOOLEANS.get(value.strip().lower()) if isinstance(value, str) else None
    if found is None:
        raise _mismatch(key, value, "true or false")
    return found


def _whole(key: str, value: Any) -> int:
    if isinstance(value, str) and re.fullmatch(r"\s*[0-9][0-9_]*\s*", value, re.ASCII):
        try:
            value = int(value)
        except ValueError:
            raise _mismatch(key, value, "a whole number") from None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 2**63 - 1:
        raise _mismatch(key, value, "a whole number >= 0")
    return value


def _optional_whole(key: str, value: Any) -> int | None:
    return None if value is None or value == "" else _whole(key, value)


def _size(key: str, value: Any) -> int:
    if isinstance(value, str):
        number = _scaled(value, _SIZE_UNITS)
        if number is None or number != int(number):
            raise _mismatch(key, value, 'a size in bytes, or like "64 MiB"')
        value = int(number)
    return _whole(key, value)


def _seconds(key: str, value: Any) -> float:
    if isinstance(value, str):
        value = _scaled(value, _SECONDS_UNITS)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise _mismatch(key, value, 'a duration in seconds >= 0, or like "500ms", "10s", "1h"')
    return float(value)


def _scaled(text: str, units: MappingProxyType[str, Any]) -> Any:
    """The number in `text` times its unit, or None where it is no such thing."""
    match = _NUMBER_AND_UNIT.fullmatch(text)
    if match is None:
        return None
    factor = units.get(match[2].lower())
    try:
        number = float(match[1]) if "." in match[1] else int(match[1])
    except ValueError:
        return None
    return None if factor is None else number * factor


def _items(key: str, value: Any) -> Sequence[Any]:
    """A list, or text with one item per line (the environment's way), blank lines dropped."""
    if isinstance(value, str):
        return [line.strip() for line in value.splitlines() if line.strip()]
    if isinstance(value, Iterable) and not isinstance(value, bytes | bytearray | dict):
        return list(value)
    raise _mismatch(key, value, "a list")


def _names(key: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str) and "\n" not in value.strip():
        value = [part.strip() for part in value.split(",") if part.strip()]
    names = tuple(_text(key, item) for item in _items(key, value))
    if len(set(names)) != len(names):
        raise _mismatch(key, list(names), "each name once")
    return names


def _nodes(key: str, value: Any) -> tuple[NodeAddress, ...]:
    found = []
    for item in _items(key, value):
        if isinstance(item, str):
            item = NodeAddress.parse(item)
        if not isinstance(item, NodeAddress):
            raise _mismatch(key, item, "`id raft_host:port api_host:port`")
        found.append(item)
    return tuple(found)


def _log_statements(key: str, value: Any) -> bool | str:
    return "params" if isinstance(value, str) and value.strip().lower() == "params" else _switch(key, value)


def _affinity(key: str, value: Any) -> str | tuple[int, ...]:
    """`auto`, `none`, or processor numbers: `[0, 2]`, `"0,2-3"`."""
    if value in ("auto", "none"):
        return str(value)
    numbers: list[int] = []
    for item in value.split(",") if isinstance(value, str) else _items(key, value):
        low, dash, high = item.partition("-") if isinstance(item, str) else (item, "", "")
        first = _whole(key, low)
        last = _whole(key, high) if dash else first
        if not first <= last < 4096:
            raise _mismatch(key, value, 'auto, none or processor numbers like "0,2-3"')
        numbers.extend(range(first, last + 1))
    if not numbers:
        raise _mismatch(key, value, 'auto, none or processor numbers like "0,2-3"')
    return tuple(sorted(set(numbers)))


KINDS: MappingProxyType[str, Callable[[str, Any], Any]] = MappingProxyType(
    {
        "text": _text,
        "optional_text": _optional_text,
        "secret": _secret,
        "secrets": _secrets,
        "switch": _switch,
        "whole": _whole,
        "optional_whole": _optional_whole,
        "size": _size,
        "seconds": _seconds,
        "names": _names,
        "nodes": _nodes,
        "log_statements": _log_statements,
        "affinity": _affinity,
    }
)
