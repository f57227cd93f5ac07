"""Which settings of a node go together.

What this is for: the rules that need more than one value, or a range; each broken one is said in one sentence.
Must not know: where values came from.
Invariant: pure; a message never shows a secret.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from hiqlite.errors import ConfigError

if TYPE_CHECKING:
    from hiqlite.config import NodeConfig

SECRET_CHARACTERS_MIN = 16
ENTRY_BYTES_MAX = 1_000_000_000  # SQLite's own limit on the length of a value
ENTRY_BYTES_MIN = 1 << 10
WAL_BYTES_MIN = 8 << 10  # the original's minimum: its files must load
WAL_BYTES_MAX = 1 << 40
INTERVAL_MS_MAX = 60_000
READERS_MAX = 1024
ELECTION_MS_MAX = 3_600_000

# Changed keys that begin so are accepted and said once at start: the parts that use them come later.
NOT_BUILT_YET = (
    "tls_",
    "backup_",
    "s3_",
    "enc_key",
    "rate_limit_",
    "cache_max_bytes",
    "cache_policy",
    "caches",
    "lock_lease_max",
    "password_dashboard",
    "insecure_cookie",
    "http_allow_plain",
    "metrics_public",
    "health_check_delay_secs",
    "ready_max_lag",
    "shutdown_drain",
    "scrub_interval",
    "split_brain_interval",
    "danger_raft_state_reset",
    "raft_install_timeout",
    "raft_snapshot_pin_bytes",
    "request_id_ttl",
    "session_",
    "statement_timeout",
)

Broken = Iterator[tuple[str, str]]  # (what is wrong, what to do)


def broken_rules(config: NodeConfig) -> Broken:
    """Every rule that does not hold, as (message, hint), the most basic first."""
    yield from _identity(config)
    yield from _places(config)
    yield from _modes(config)
    yield from _limits(config)
    yield from _secrets(config)
    yield from _pairs(config)


def node_id_of_host(host_name: str) -> int:
    """The id of a pod of a StatefulSet: the number at the end of its name, plus 1.

    Raises:
        ConfigError: the name does not end in a number.
    """
    match = re.search(r"([0-9]{1,9})$", host_name.partition(".")[0])
    if match is None:
        raise ConfigError(f"node_id_from = k8s, but the host name {host_name!r} does not end in a number")
    return int(match[1]) + 1


def _identity(config: NodeConfig) -> Broken:
    nodes = config.nodes
    ids = [node.id for node in nodes]
    for node_id in ids:
        if ids.count(node_id) > 1:
            yield f"node id {node_id} stands twice in nodes", "each node has an id of its own"
    if nodes and config.node_id and config.node_id not in ids:
        yield f"node_id {config.node_id} is not in nodes", f"ids there: {', '.join(map(str, ids))}"
    seen: set[str] = set()
    for address in [address for node in nodes for address in (node.raft_address, node.api_address)]:
        if address in seen:
            yield f"address {address} stands twice in nodes", "each port of each node has an address of its own"
        seen.add(address)
    if not config.db and not config.cache:
        yield "db and cache are both switched off", "leave one of them on"


def _places(config: NodeConfig) -> Broken:
    name = config.filename_db
    if name in (".", "..") or any(c in name for c in "/\\\0"):
        yield f"filename_db = {name!r} is no file name", "name a file, not a path; data_dir is the folder"
    if "\0" in config.data_dir:
        yield "data_dir holds a NUL character", ""
    for key in ("listen_addr_raft", "listen_addr_api"):
        host = getattr(config, key)
        if host.count(":") == 1 or any(c.isspace() or c in "/@" for c in host):
            yield f"{key} = {host!r} is no address to bind", "the port comes from this node's entry in nodes"


def _modes(config: NodeConfig) -> Broken:
    for key, allowed in (("apply_thread", ("auto", "always", "inline")), ("cache_policy", ("reject", "lru"))):
        if getattr(config, key) not in allowed:
            yield f"{key} = {getattr(config, key)!r}: expected {', '.join(allowed)}", ""
    interval = re.fullmatch(r"interval_([1-9][0-9]{0,9})", config.log_sync, re.ASCII)
    if config.log_sync not in ("immediate", "immediate_async") and interval is None:
        yield f"log_sync = {config.log_sync!r}: expected immediate, immediate_async or interval_<ms>", ""
    if interval is not None and int(interval[1]) > INTERVAL_MS_MAX:
        yield f"log_sync = {config.log_sync}: the interval may be {INTERVAL_MS_MAX} ms at most", ""
    election = re.fullmatch(r"([0-9]{1,7})-([0-9]{1,7})", config.election_timeout_ms, re.ASCII)
    if election is None or int(election[2]) > ELECTION_MS_MAX:
        yield f"election_timeout_ms = {config.election_timeout_ms!r}: expected a range like 500-1000", ""


def _limits(config: NodeConfig) -> Broken:
    ranges = (
        ("read_pool_size", 1, READERS_MAX),
        ("prepared_statement_cache_capacity", 1, 1_000_000),
        ("wal_size", WAL_BYTES_MIN, WAL_BYTES_MAX),
        ("max_entry_size", ENTRY_BYTES_MIN, ENTRY_BYTES_MAX),
        ("logs_until_snapshot", 1, 1 << 40),
        ("session_window", 1, 1 << 20),
        ("cache_max_bytes", 1, 1 << 50),
    )
    for key, low, high in ranges:
        if not low <= getattr(config, key) <= high:
            yield f"{key} = {getattr(config, key)} lies outside {low} to {high}", ""
    for key in ("statement_timeout", "migration_timeout", "request_timeout", "query_iter_idle", "query_iter_total",
                "session_ttl", "request_id_ttl", "lock_lease_max", "scrub_interval", "split_brain_interval",
                "raft_install_timeout"):  # fmt: skip
        if getattr(config, key) <= 0:
            yield f"{key} must be above 0", ""
    if config.raft_proposal_queue_bytes < config.max_entry_size:
        yield "raft_proposal_queue_bytes must hold one entry (max_entry_size)", "raise it, or lower max_entry_size"


def _secrets(config: NodeConfig) -> Broken:
    for key in ("secret_raft", "secret_api"):
        secret = getattr(config, key)
        if secret is None:
            if config.nodes:
                yield f"{key} is missing", f"nodes are given, so ports listen; set {key} or HQL_{key.upper()}"
        elif len(secret) < SECRET_CHARACTERS_MIN:
            yield f"{key} is shorter than {SECRET_CHARACTERS_MIN} characters", ""


def _pairs(config: NodeConfig) -> Broken:
    for port in ("raft", "api"):
        if (getattr(config, f"tls_{port}_key") is None) != (getattr(config, f"tls_{port}_cert") is None):
            yield f"tls_{port}_key and tls_{port}_cert go together", ""
    for group in ("db", "cache"):
        rps, burst = (getattr(config, f"rate_limit_{group}_{part}") for part in ("rps", "burst"))
        if burst is not None and rps is None:
            yield f"rate_limit_{group}_burst needs rate_limit_{group}_rps", ""
    if config.s3_url is not None:
        for key in ("s3_bucket", "s3_region", "s3_key", "s3_secret", "enc_keys", "enc_key_active"):
            if not getattr(config, key):
                yield f"{key} is missing", "s3_url is given, so backups are encrypted and uploaded"
