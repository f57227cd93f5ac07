"""Which settings of a node go together.

What this is for: the rules that need more than one value, or a range; each broken one is said in one sentence.
Must not know: where values came from.
Invariant: pure; a message never shows a secret.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from hiqlite.config_formats import key_id
from hiqlite.config_values import join_address
from hiqlite.errors import ConfigError

if TYPE_CHECKING:
    from hiqlite.config import NodeConfig

SECRET_CHARACTERS_MIN = 16
ENTRY_BYTES_MAX = 256 << 20  # the longest value that SQL may hold on every node
ENTRY_BYTES_MIN = 1 << 10
WAL_BYTES_MIN = 8 << 10  # the original's minimum: its files must load
WAL_BYTES_MAX = 1 << 40
INTERVAL_MS_MAX = 60_000
READERS_MAX = 64
ELECTION_MS_MAX = 3_600_000
BUSY_POLL_US_MAX = 10_000

# Changed keys of these names are accepted and said once at start: the parts that use them come later. A name that ends
# in _ stands for all keys that begin so.
NOT_BUILT_YET = (
    "db",
    "tls_",
    "backup_",
    "s3_",
    "enc_keys",
    "enc_key_active",
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
    "danger_raft_state_reset",
    "raft_install_timeout",
    "raft_snapshot_pin_bytes",
)

Broken = Iterator[tuple[tuple[str, ...], str, str]]  # (keys that do not go together, what is wrong, what to do)


def broken_rules(config: NodeConfig) -> Broken:
    """Every rule that does not hold, the most basic first."""
    yield from _identity(config)
    yield from _places(config)
    yield from _modes(config)
    yield from _limits(config)
    yield from _secrets(config)
    yield from _pairs(config)


def is_not_built_yet(key: str) -> bool:
    """Whether a key is accepted, for the configs that hold it, and has no effect in this version."""
    return key in NOT_BUILT_YET or key.startswith(tuple(name for name in NOT_BUILT_YET if name.endswith("_")))


def node_id_of_host(host_name: str) -> int:
    """The id of a pod of a StatefulSet: the number at the end of its name, plus 1.

    Raises:
        ConfigError: the name does not end in a number.
    """
    match = re.search(r"([0-9]{1,9})$", host_name.partition(".")[0])
    if match is None:
        raise ConfigError(
            f"node_id_from = k8s, but the host name {host_name!r} does not end in a number",
            hint="pods of a StatefulSet are named name-0, name-1; elsewhere set node_id",
            key="node_id_from",
        )
    return int(match[1]) + 1


def _identity(config: NodeConfig) -> Broken:
    nodes = config.nodes
    ids = [node.id for node in nodes]
    if config.node_id_from not in (None, "k8s"):
        yield ("node_id_from",), f"node_id_from = {config.node_id_from!r} is unknown", "expected k8s, or set node_id"
    for node_id in sorted({node_id for node_id in ids if ids.count(node_id) > 1}):
        yield ("nodes",), f"node id {node_id} stands twice in nodes", "each node has an id of its own"
    if nodes and config.node_id and config.node_id not in ids:
        keys = ("node_id_from", "node_id", "nodes")
        yield keys, f"node_id {config.node_id} is not in nodes", f"ids there: {', '.join(map(str, ids))}"
    seen: set[tuple[str, int]] = set()
    for host, port in [pair for node in nodes for pair in node.places]:
        if (one_name(host), port) in seen:
            address = join_address(host, port)
            yield ("nodes",), f"address {address} stands twice in nodes", "each port of each node has one of its own"
        seen.add((one_name(host), port))
    if not config.db and not config.cache:
        yield ("db", "cache"), "db and cache are both switched off", "leave one of them on"


def one_name(host: str) -> str:
    """The same text for names of one address: in any case of letters, and what localhost stands for.

    Other addresses of the loopback network are addresses of their own: several nodes may have the same port there.
    """
    low = host.lower().rstrip(".")
    return "localhost" if low == "127.0.0.1" else low


def _places(config: NodeConfig) -> Broken:
    name = config.filename_db
    if name in (".", "..") or any(c in name for c in "/\\\0"):
        yield ("filename_db",), f"filename_db = {name!r} is no file name", "name a file; data_dir is its folder"
    if "\0" in config.data_dir:
        yield ("data_dir",), "data_dir holds a NUL character", "name a folder"
    for key in ("listen_addr_raft", "listen_addr_api"):
        host = getattr(config, key)
        if host.count(":") == 1 or any(c.isspace() or c in "/@[]" for c in host):
            yield (key,), f"{key} = {host!r} is no address to bind", "the port comes from this node's entry in nodes"


def _modes(config: NodeConfig) -> Broken:
    for key, allowed in (("apply_thread", ("auto", "always", "inline")), ("cache_policy", ("reject", "lru"))):
        if getattr(config, key) not in allowed:
            yield (key,), f"{key} = {getattr(config, key)!r} is unknown", f"expected {', '.join(allowed)}"
    interval = re.fullmatch(r"interval_([1-9][0-9]{0,9})", config.log_sync, re.ASCII)
    if config.log_sync not in ("immediate", "immediate_async") and interval is None:
        hint = "expected immediate, immediate_async or interval_<ms>"
        yield ("log_sync",), f"log_sync = {config.log_sync!r} is unknown", hint
    if interval is not None and int(interval[1]) > INTERVAL_MS_MAX:
        yield ("log_sync",), f"log_sync = {config.log_sync} is too long", f"at most interval_{INTERVAL_MS_MAX}"
    election = re.fullmatch(r"([0-9]{1,7})-([0-9]{1,7})", config.election_timeout_ms, re.ASCII)
    if election is None or int(election[2]) > ELECTION_MS_MAX:
        text = f"election_timeout_ms = {config.election_timeout_ms!r} is no range"
        yield ("election_timeout_ms",), text, f"expected a range like 500-1000, up to {ELECTION_MS_MAX}"


def _limits(config: NodeConfig) -> Broken:
    ranges = (
        ("read_pool_size", 1, READERS_MAX),
        ("prepared_statement_cache_capacity", 1, 1_000_000),
        ("wal_size", WAL_BYTES_MIN, WAL_BYTES_MAX),
        ("max_entry_size", ENTRY_BYTES_MIN, ENTRY_BYTES_MAX),
        ("logs_until_snapshot", 1, 1 << 40),
        ("session_window", 1, 1 << 16),
        ("raft_busy_poll_us", 0, BUSY_POLL_US_MAX),
        ("cache_max_bytes", 1, 1 << 50),
    )
    for key, low, high in ranges:
        if not low <= getattr(config, key) <= high:
            yield (key,), f"{key} = {getattr(config, key)} is out of its range", f"from {low} to {high}"
    for key in ("statement_timeout", "migration_timeout", "request_timeout", "query_iter_idle", "query_iter_total",
                "session_ttl", "request_id_ttl", "lock_lease_max", "scrub_interval", "split_brain_interval",
                "raft_install_timeout"):  # fmt: skip
        if getattr(config, key) <= 0:
            yield (key,), f"{key} is 0", "it must be above 0"
    if config.raft_proposal_queue_bytes < config.max_entry_size:
        keys = ("max_entry_size", "raft_proposal_queue_bytes")
        text = "raft_proposal_queue_bytes must hold one entry (max_entry_size)"
        yield keys, text, "raise it, or lower max_entry_size"


def _secrets(config: NodeConfig) -> Broken:
    for key in ("secret_raft", "secret_api"):
        secret = getattr(config, key)
        if secret is None:
            if config.nodes:
                hint = f"nodes are given, so ports listen; set {key} or HQL_{key.upper()}"
                yield (key,), f"{key} is missing", hint
        elif len(secret) < SECRET_CHARACTERS_MIN:
            hint = f"at least {SECRET_CHARACTERS_MIN} characters, the same on all nodes"
            yield (key,), f"{key} is shorter than {SECRET_CHARACTERS_MIN} characters", hint
    ids = [key_id(item) for item in config.enc_keys]
    if config.enc_key_active is not None and config.enc_key_active not in ids:
        hint = f"ids there: {', '.join(ids) or 'none'}"
        yield ("enc_key_active",), "enc_key_active names no key of enc_keys", hint


def _pairs(config: NodeConfig) -> Broken:
    for port in ("raft", "api"):
        key, cert = f"tls_{port}_key", f"tls_{port}_cert"
        if (getattr(config, key) is None) != (getattr(config, cert) is None):
            yield (key, cert), f"{key} and {cert} go together", "set both or none"
    for group in ("db", "cache"):
        rps, burst = f"rate_limit_{group}_rps", f"rate_limit_{group}_burst"
        if getattr(config, burst) is not None and getattr(config, rps) is None:
            yield (burst,), f"{burst} needs {rps}", f"set {rps} too"
    if config.s3_url is not None:
        for key in ("s3_bucket", "s3_region", "s3_key", "s3_secret", "enc_keys", "enc_key_active"):
            if not getattr(config, key):
                yield (key, "s3_url"), f"{key} is missing", "s3_url is given, so backups are encrypted and uploaded"
