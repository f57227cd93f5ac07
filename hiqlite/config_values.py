"""One configuration value at a time: from what a person wrote to what the program uses.

What this is for: sizes ("64 MiB"), durations ("500ms"), switches, node addresses, lists; forms with a grammar of their
own (cron, keys, hashes) stand in `config_formats`.
Must not know: which keys exist, nor where a value came from.
Invariant: a value that cannot mean what its key needs raises `ConfigError` naming the key and what would be right;
nothing is guessed, and a secret is never part of a message.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from hiqlite.errors import ConfigError

SECONDS_MAX = 1e12  # finite, and in nanoseconds still a number that clocks carry
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


_ADDRESS_HINT = f"expected host:port with a port from 1 to {PORT_MAX}"
_SHOWN_CHARACTERS_MAX = 80


def shown(value: Any) -> str:
    """`value` as an error shows it: never more than one line of it."""
    try:
        text = repr(value)
    except ValueError:  # a whole number of more digits than Python writes
        return "a number with thousands of digits"
    return text if len(text) <= _SHOWN_CHARACTERS_MAX else f"{text[:_SHOWN_CHARACTERS_MAX]}..."


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
            raise ConfigError(f"node id {self.id!r} is no whole number >= 1", hint="ids count from 1; gaps are allowed")
        for host, port in ((self.raft_host, self.raft_port), (self.api_host, self.api_port)):
            if not isinstance(host, str) or not host or any(c.isspace() or c in "[]/@" for c in host):
                raise ConfigError(f"node {self.id}: {host!r} is no host name or IP address", hint=_ADDRESS_HINT)
            if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= PORT_MAX:
                raise ConfigError(f"node {self.id}: port {port!r} lies outside 1 to {PORT_MAX}", hint=_ADDRESS_HINT)

    @classmethod
    def parse(cls, text: str) -> NodeAddress:
        """Read `id raft_host:port api_host:port`; IPv6 hosts in brackets."""
        parts = text.split()
        if len(parts) != 3 or not parts[0].isascii() or not parts[0].isdigit():
            raise ConfigError(f"node {shown(text)} cannot be read", hint="expected `id raft_host:port api_host:port`")
        return cls(int(parts[0]), *split_address(parts[1]), *split_address(parts[2]))

    @property
    def places(self) -> tuple[tuple[str, int], tuple[str, int]]:
        """(host, port) of both ports."""
        return (self.raft_host, self.raft_port), (self.api_host, self.api_port)

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
    if "://" in text:
        raise ConfigError(f"address {shown(text)} is a URL", hint="write host:port alone; tls_* keys decide about TLS")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ConfigError(f"address {shown(text)} is ambiguous", hint="write an IPv6 address in brackets: [::1]:8100")
    if not colon or not host or not (port.isascii() and port.isdigit()) or not 1 <= int(port) <= PORT_MAX:
        raise ConfigError(f"address {shown(text)} cannot be read", hint=_ADDRESS_HINT)
    return host, int(port)


def join_address(host: str, port: int) -> str:
    """(host, port) as text, IPv6 hosts in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def mismatch(key: str, value: Any, wanted: str) -> ConfigError:
    return ConfigError(f"{key} = {shown(value)} cannot be read", hint=f"expected {wanted}")


def hidden_mismatch(key: str, wanted: str) -> ConfigError:
    """As `mismatch`, for secrets: the value is not shown."""
    return ConfigError(f"{key} cannot be read", hint=f"expected {wanted}")


def text(key: str, value: Any) -> str:
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str) or not value.strip():
        raise mismatch(key, value, "text that is not empty")
    return value


def optional_text(key: str, value: Any) -> str | None:
    """Text, or None where nothing was given (`KEY=` in an env file gives nothing)."""
    return None if value is None or value == "" else text(key, value)


def secret(key: str, value: Any) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise hidden_mismatch(key, "text")
    return value


def switch(key: str, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    found = _BOOLEANS.get(value.strip().lower()) if isinstance(value, str) else None
    if found is None:
        raise mismatch(key, value, "true or false")
    return found


def whole(key: str, value: Any) -> int:
    if isinstance(value, str) and re.fullmatch(r"\s*[0-9][0-9_]*\s*", value, re.ASCII):
        try:
            value = int(value)
        except ValueError:
            raise mismatch(key, value, "a whole number") from None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 2**63 - 1:
        raise mismatch(key, value, "a whole number >= 0")
    return value


def optional_whole(key: str, value: Any) -> int | None:
    return None if value is None or value == "" else whole(key, value)


def size(key: str, value: Any) -> int:
    if isinstance(value, str):
        number = _scaled(value, _SIZE_UNITS)
        if number is None or number != int(number):
            raise mismatch(key, value, 'a size in bytes, or like "64 MiB"')
        value = int(number)
    return whole(key, value)


def seconds(key: str, value: Any) -> float:
    number = _scaled(value, _SECONDS_UNITS) if isinstance(value, str) else value
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number <= SECONDS_MAX:
        raise mismatch(key, value, 'a duration in seconds >= 0, or like "500ms", "10s", "1h"')
    return float(number)


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


def items(key: str, value: Any) -> Sequence[Any]:
    """A list, or text with one item per line (the environment's way), blank lines dropped."""
    if isinstance(value, str):
        return [line.strip() for line in value.splitlines() if line.strip()]
    if isinstance(value, Iterable) and not isinstance(value, bytes | bytearray | dict):
        return list(value)
    raise mismatch(key, value, "a list")


def names(key: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str) and "\n" not in value.strip():
        value = [part.strip() for part in value.split(",") if part.strip()]
    found = tuple(text(key, item) for item in items(key, value))
    if len(set(found)) != len(found):
        raise mismatch(key, list(found), "each name once")
    return found


def nodes(key: str, value: Any) -> tuple[NodeAddress, ...]:
    found = []
    for item in items(key, value):
        if isinstance(item, str):
            item = NodeAddress.parse(item)
        if not isinstance(item, NodeAddress):
            raise mismatch(key, item, "`id raft_host:port api_host:port`")
        found.append(item)
    return tuple(found)


def host(key: str, value: Any) -> str:
    """A host name or address; an IPv6 one may stand in brackets."""
    found = text(key, value).strip()
    return found[1:-1] if found.startswith("[") and found.endswith("]") and ":" in found else found


def log_statements(key: str, value: Any) -> bool | str:
    return "params" if isinstance(value, str) and value.strip().lower() == "params" else switch(key, value)


def affinity(key: str, value: Any) -> str | tuple[int, ...]:
    """`auto`, `none`, or processor numbers: `[0, 2]`, `"0,2-3"`."""
    if value in ("auto", "none"):
        return str(value)
    numbers: list[int] = []
    for item in value.split(",") if isinstance(value, str) else items(key, value):
        low, dash, high = item.partition("-") if isinstance(item, str) else (item, "", "")
        first = whole(key, low)
        last = whole(key, high) if dash else first
        if not first <= last < 4096:
            raise mismatch(key, value, 'auto, none or processor numbers like "0,2-3"')
        numbers.extend(range(first, last + 1))
    if not numbers:
        raise mismatch(key, value, 'auto, none or processor numbers like "0,2-3"')
    return tuple(sorted(set(numbers)))
