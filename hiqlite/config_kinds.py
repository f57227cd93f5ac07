"""The kinds that settings are of: each name stands for one way of reading a value.

What this is for: `convert`, the only way from a raw value to one that the program uses.
Must not know: which keys exist, nor where a value came from.
Invariant: what was read once reads as itself again; nothing but `ConfigError` comes out of a wrong value.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import Any

from hiqlite import config_formats as formats
from hiqlite import config_values as values
from hiqlite.errors import ConfigError

KINDS: MappingProxyType[str, Callable[[str, Any], Any]] = MappingProxyType(
    {
        "affinity": values.affinity,
        "backup_source": formats.backup_source,
        "cron": formats.cron,
        "encryption_keys": formats.encryption_keys,
        "host": values.host,
        "log_statements": values.log_statements,
        "names": values.names,
        "nodes": values.nodes,
        "optional_text": values.optional_text,
        "optional_whole": values.optional_whole,
        "password_hash": formats.password_hash,
        "secret": values.secret,
        "seconds": values.seconds,
        "size": values.size,
        "switch": values.switch,
        "text": values.text,
        "url": formats.url,
        "whole": values.whole,
    }
)


def convert(kind: str, key: str, value: Any) -> Any:
    """`value` as the type that `kind` names (one of `KINDS`); a value of that type already is returned unchanged.

    Raises:
        ConfigError: it cannot be read as that kind.
    """
    try:
        return KINDS[kind](key, value)
    except ConfigError as error:
        error.key = key
        raise
