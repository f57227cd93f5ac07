"""Values that have a grammar of their own: cron lines, encryption keys, password hashes, addresses of services.

What this is for: refusing at the start what would fail at night, when the backup runs, or at the first log-in.
Must not know: which keys exist, nor what is done with the values.
Invariant: as in `config_values`: a wrong value raises `ConfigError`; a secret is never part of a message.
"""

from __future__ import annotations

import base64
import binascii
import re
from types import MappingProxyType
from typing import Any

from hiqlite.config_values import hidden_mismatch, items, mismatch, optional_text, secret, text
from hiqlite.errors import ConfigError

ENCRYPTION_KEY_BYTES = 32

_KEY_ID = re.compile(r"[a-zA-Z0-9_-]{2,20}")
_KEYS_WANTED = "a list of id/base64: ids of 2 to 20 letters, digits, _ and -, each once; keys of 32 bytes"
_CRON_WANTED = "seconds minutes hours day-of-month month day-of-week [year], like 0 30 2 * * * *"
# Lowest and highest number of each field of a cron line, in their order; the year may be left out.
_CRON_RANGES = ((0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (1, 7), (1970, 2199))
_CRON_NAMES = MappingProxyType(
    {
        4: ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"),
        5: ("sun", "mon", "tue", "wed", "thu", "fri", "sat"),
    }
)
_CRON_ITEM = re.compile(r"(?:\*|\?|(?P<low>\w{1,4})(?:-(?P<high>\w{1,4}))?)(?:/(?P<step>[0-9]{1,4}))?", re.ASCII)
_CRON_WORDS = ("@yearly", "@monthly", "@weekly", "@daily", "@hourly")


def cron(key: str, value: Any) -> str:
    """A line of the seconds-first cron: lists, ranges, steps and names; Sunday is day 1."""
    line = text(key, value).strip()
    fields = line.lower().split()
    right = line.lower() in _CRON_WORDS or (
        len(fields) in (6, 7) and all(_is_cron_field(number, field) for number, field in enumerate(fields))
    )
    if not right:
        raise mismatch(key, value, _CRON_WANTED)
    return line


def _is_cron_field(number: int, field: str) -> bool:
    lowest, highest = _CRON_RANGES[number]
    names = _CRON_NAMES.get(number, ())

    def index(word: str) -> int:
        return int(word) if word.isdigit() else names.index(word) + lowest if word in names else -1

    for item in field.split(","):
        match = _CRON_ITEM.fullmatch(item)
        if match is None or (match["step"] is not None and int(match["step"]) == 0):
            return False
        if match["low"] is not None:
            low = index(match["low"])
            high = low if match["high"] is None else index(match["high"])
            if not lowest <= low <= high <= highest:
                return False
    return True


def encryption_keys(key: str, value: Any) -> tuple[str, ...]:
    """Keys as `id/base64`; the base64 of such lines, as container platforms carry it, is read too."""
    if value is None or not isinstance(value, str | list | tuple):
        raise hidden_mismatch(key, _KEYS_WANTED)
    found: list[str] = []
    for item in items(key, value):
        if not isinstance(item, str):
            raise hidden_mismatch(key, _KEYS_WANTED)
        found.extend([item.strip()] if _is_key(item.strip()) else _wrapped_keys(item))
    ids = [key_id(item) for item in found]
    if not all(_is_key(item) for item in found) or len(set(ids)) != len(ids):
        raise hidden_mismatch(key, _KEYS_WANTED)
    return tuple(found)


def key_id(item: str) -> str:
    """The part of an encryption key that names it, and is no secret."""
    return item.partition("/")[0]


def _is_key(item: str) -> bool:
    name, slash, encoded = item.partition("/")
    decoded = _decoded(encoded)
    return bool(slash) and _KEY_ID.fullmatch(name) is not None and decoded is not None and (
        len(decoded) == ENCRYPTION_KEY_BYTES
    )  # fmt: skip


def _wrapped_keys(item: str) -> list[str]:
    """The lines within base64, or what cannot be one of them."""
    decoded = _decoded("".join(item.split()))
    try:
        lines = "" if decoded is None else decoded.decode("ascii")
    except UnicodeDecodeError:
        lines = ""
    return [line.strip() for line in lines.splitlines() if line.strip()] or [""]


def _decoded(encoded: str) -> bytes | None:
    """What base64 stands for, with or without its padding; None where it is none."""
    try:
        return base64.b64decode(encoded.rstrip("=") + "=" * (-len(encoded.rstrip("=")) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None


def password_hash(key: str, value: Any) -> str | None:
    """Base64 of an Argon2id hash in its PHC text form, `$argon2id$v=19$...`."""
    found = secret(key, value)
    if found is None:
        return None
    decoded = _decoded(found.strip())
    if decoded is None or not re.fullmatch(rb"\$argon2id\$v=[0-9]+\$[a-z0-9=,]+\$[^$\s]+\$[^$\s]+", decoded):
        raise hidden_mismatch(key, "base64 of an Argon2id hash ($argon2id$v=19$...), never the password itself")
    return found.strip()


def url(key: str, value: Any) -> str | None:
    """An http or https address; who logs in stands in keys of its own, which are secrets."""
    found = optional_text(key, value)
    if found is None:
        return None
    if "@" in found:  # nothing of it is shown: what stands before the @ may be a password
        raise ConfigError(f"{key} holds a user or password", hint="name them in s3_key and s3_secret")
    if not re.fullmatch(r"https?://[^/\s]+(?:/\S*)?", found.strip()):
        raise mismatch(key, value, "an address like https://s3.example.com")
    return found.strip()


def backup_source(key: str, value: Any) -> str | None:
    """Where a restore takes its data: `s3:<name>` or `file:<path>`."""
    found = optional_text(key, value)
    if found is not None and not re.fullmatch(r"(?:s3|file):.+", found, re.DOTALL):
        raise mismatch(key, value, "s3:<name> or file:<path>")
    return found
