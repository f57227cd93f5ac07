"""Names that the original uses or used and that are called otherwise here, or are of no use any more.

What this is for: its config files are read unchanged, those of all its releases.
Must not know: where a value came from.
Invariant: a name that has no effect is told with the reason; none is dropped in silence.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

from hiqlite.config_kinds import convert

_DAY_SECONDS = 86400.0
# Where the original's encryption keys come from: `env`, or `file:<path>` of an env file.
KEYS_FROM = "HQL_ENC_KEYS_FROM"


def _days(key: str, value: Any) -> int:
    """A duration such as "30d" in whole days, rounded up: nothing is deleted early."""
    return math.ceil(float(convert("seconds", key, value)) / _DAY_SECONDS)


def _whole_seconds(key: str, value: Any) -> int:
    return math.ceil(float(convert("seconds", key, value)))


def _sync_immediate(key: str, value: Any) -> str:
    return "immediate" if convert("switch", key, value) else "interval_200"


def _same(key: str, value: Any) -> Any:
    return value


# Old name -> (key, translation).
RENAMED: MappingProxyType[str, tuple[str, Callable[[str, Any], Any]]] = MappingProxyType(
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
WITHOUT_EFFECT = MappingProxyType(
    {
        "shutdown_delay_millis": "shutting down hands leadership over; see shutdown_drain",
        "wal_ignore_lock": "the lock ends with its process",
        "HQL_SHUTDOWN_DELAY_MILLS": "shutting down hands leadership over; see HQL_SHUTDOWN_DRAIN",
        "HQL_WAL_IGNORE_LOCK": "the lock ends with its process",
        "HQL_IGNORE_WAL_LOCK": "the lock ends with its process",
        "HQL_CHECK_WAL_INTEGRITY": "every start checks the log",
    }
)
