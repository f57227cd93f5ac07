"""Every setting, its default and its limits, once.

What this is for: `NodeConfig`, the keys of a node under the names of its TOML file, and `RaftSettings`, what the
consensus core needs of them. Where values come from stands in `config_sources`, how one is read in `config_values`.
Must not know: any room that uses a setting.
Invariant: an object that exists is valid; secrets never show in `repr`.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hiqlite import config_sources as sources
from hiqlite.config_rules import NOT_BUILT_YET, broken_rules, node_id_of_host
from hiqlite.config_values import NodeAddress, convert
from hiqlite.errors import ConfigError

KIB = 1 << 10
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class RaftSettings:
    """What the consensus core and its runtime are told; times in milliseconds, sizes in bytes."""

    heartbeat_interval_ms: int = 100
    election_timeout_min_ms: int = 500
    election_timeout_max_ms: int = 1000
    frame_bytes_max: int = 1 * MIB
    entry_bytes_max: int = 64 * MIB
    window_frames: int = 4  # deeper pipelines spoil batching
    window_bytes: int = 4 * MIB
    memory_window_bytes: int = 64 * MIB
    proposal_queue_bytes: int = 64 * MIB
    apply_queue_bytes: int = 64 * MIB
    stall_ms: int = 3000
    link_loss_grace_ms: int = 50
    commit_delay_ms: int = 2
    logs_until_snapshot: int = 10_000

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
                raise ConfigError(f"{item.name} = {value!r}: expected a whole number >= 0")
        for wrong, reason in self._broken_relations():
            if wrong:
                raise ConfigError(reason)

    def _broken_relations(self) -> tuple[tuple[bool, str], ...]:
        return (
            (self.heartbeat_interval_ms < 1, "heartbeat_interval_ms must be at least 1"),
            (
                # One lost heartbeat must not look like a dead leader.
                self.election_timeout_min_ms < 2 * self.heartbeat_interval_ms,
                "election_timeout_ms must begin at twice heartbeat_interval_ms or later",
            ),
            (
                # Equal bounds: all followers would campaign at once, for ever.
                self.election_timeout_max_ms <= self.election_timeout_min_ms,
                "election_timeout_ms must be a range like 500-1000",
            ),
            (self.frame_bytes_max < KIB, "raft_frame_bytes_max must be at least 1 KiB"),
            (self.window_frames < 1, "raft_window_frames must be at least 1"),
            (self.window_bytes < self.frame_bytes_max, "raft_window_bytes must hold one frame (raft_frame_bytes_max)"),
            (
                self.memory_window_bytes < self.window_bytes,
                "raft_memory_window_bytes must hold one window (raft_window_bytes)",
            ),
            (self.proposal_queue_bytes < self.frame_bytes_max, "raft_proposal_queue_bytes must hold one frame"),
            (self.apply_queue_bytes < self.frame_bytes_max, "raft_apply_queue_bytes must hold one frame"),
            (self.stall_ms < self.heartbeat_interval_ms, "raft_stall_ms must not be below heartbeat_interval_ms"),
            (
                self.link_loss_grace_ms >= self.election_timeout_min_ms,
                "link_loss_grace_ms must lie below the election timeout, else it has no effect",
            ),
            (
                self.commit_delay_ms >= self.election_timeout_min_ms,
                "raft_commit_delay_ms must lie below the election timeout",
            ),
        )


# The relations hold for the defaults, checked where they stand: an object that exists is valid.
DEFAULT_RAFT_SETTINGS = RaftSettings()


def _key(kind: str, default: Any, *environment: str, secret: bool = False, environment_only: bool = False) -> Any:
    """A field that is a setting: how it is read, its default, and its names in the environment if not HQL_<NAME>."""
    metadata = {"kind": kind, "environment": environment, "secret": secret, "environment_only": environment_only}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class NodeConfig:
    """All settings of one node, under the names of the TOML file.

    Sizes are bytes, times are seconds unless the name says otherwise. Given values may be text as in a file ("64 MiB",
    "10s", "1 host:8100 host:8200"); what stands here afterwards has the annotated type.

    Raises:
        ConfigError: a value is wrong, or values contradict each other.
    """

    # who and where
    node_id: int = _key("whole", 0)  # 0: not chosen yet; without `nodes` it is 1
    node_id_from: str | None = _key("optional_text", None)
    nodes: tuple[NodeAddress, ...] = _key("nodes", ())  # none: a single node that listens on no port
    listen_addr_raft: str = _key("text", "0.0.0.0")
    listen_addr_api: str = _key("text", "0.0.0.0")
    data_dir: str = _key("text", "data")
    filename_db: str = _key("text", "hiqlite.db")
    db: bool = _key("switch", True)
    cache: bool = _key("switch", True)
    learner_only: bool = _key("switch", False)

    # statements
    log_statements: bool | str = _key("log_statements", False)  # or "params": parameters are logged too
    prepared_statement_cache_capacity: int = _key("whole", 1000)  # per connection
    read_pool_size: int = _key("whole", 4)
    statement_timeout: float = _key("seconds", 5.0)
    migration_timeout: float = _key("seconds", 600.0)
    request_timeout: float = _key("seconds", 10.0)
    query_iter_idle: float = _key("seconds", 60.0)
    query_iter_total: float = _key("seconds", 3600.0)
    request_id_ttl: float = _key("seconds", 3600.0)
    session_ttl: float = _key("seconds", 3600.0)
    session_window: int = _key("whole", 4096)
    max_entry_size: int = _key("size", 64 * MIB)
    db_shared_access: bool = _key("switch", False)

    # log and consensus
    log_sync: str = _key("text", "immediate")
    wal_size: int = _key("size", 64 * MIB)
    logs_until_snapshot: int = _key("whole", 10_000)
    heartbeat_interval_ms: int = _key("whole", 100)
    election_timeout_ms: str = _key("text", "500-1000")
    link_loss_grace_ms: int = _key("whole", 50, "HQL_LINK_LOSS_GRACE_MS", "HQL_RAFT_LINK_LOSS_GRACE_MS")
    raft_stall_ms: int = _key("whole", 3000)
    raft_commit_delay_ms: int = _key("whole", 2)
    raft_frame_bytes_max: int = _key("size", 1 * MIB)
    raft_window_frames: int = _key("whole", 4)
    raft_window_bytes: int = _key("size", 4 * MIB)
    raft_memory_window_bytes: int = _key("size", 64 * MIB)
    raft_proposal_queue_bytes: int = _key("size", 64 * MIB)
    raft_apply_queue_bytes: int = _key("size", 64 * MIB)
    raft_install_timeout: float = _key("seconds", 600.0)
    raft_snapshot_pin_bytes: int = _key("size", 4096 * MIB)
    apply_thread: str = _key("text", "auto")
    cpu_affinity: str | tuple[int, ...] = _key("affinity", "auto")

    # cache group
    caches: tuple[str, ...] = _key("names", ())
    cache_storage_disk: bool = _key("switch", True)
    cache_max_bytes: int = _key("size", 256 * MIB)  # per cache
    cache_policy: str = _key("text", "reject")
    lock_lease_max: float = _key("seconds", 60.0)

    # secrets and TLS
    secret_raft: str | None = _key("secret", None, secret=True)
    secret_api: str | None = _key("secret", None, secret=True)
    secrets_file: str | None = _key("optional_text", None)
    tls_auto_certificates: bool = _key("switch", False, "HQL_TLS_AUTO_CERTS", "HQL_TLS_AUTO_CERTIFICATES")
    tls_raft_key: str | None = _key("optional_text", None)
    tls_raft_cert: str | None = _key("optional_text", None)
    tls_raft_ca: str | None = _key("optional_text", None)
    tls_raft_danger_tls_no_verify: bool = _key("switch", False)
    tls_api_key: str | None = _key("optional_text", None)
    tls_api_cert: str | None = _key("optional_text", None)
    tls_api_ca: str | None = _key("optional_text", None)
    tls_api_danger_tls_no_verify: bool = _key("switch", False)

    # watching and leaving
    health_check_delay_secs: int = _key("whole", 30)
    ready_max_lag: int = _key("whole", 10_000)  # entries
    shutdown_drain: float = _key("seconds", 0.0)
    scrub_interval: float = _key("seconds", 86_400.0)
    split_brain_interval: float = _key("seconds", 300.0)

    # backups
    backup_cron: str = _key("text", "0 30 2 * * * *")
    backup_keep_days: int = _key("whole", 30)
    backup_keep_days_local: int = _key("whole", 3)
    s3_url: str | None = _key("optional_text", None)
    s3_bucket: str | None = _key("optional_text", None)
    s3_region: str | None = _key("optional_text", None)
    s3_path_style: bool = _key("switch", True)
    s3_key: str | None = _key("secret", None, secret=True)
    s3_secret: str | None = _key("secret", None, secret=True)
    enc_keys: tuple[str, ...] = _key("secrets", (), "ENC_KEYS", secret=True)
    enc_key_active: str | None = _key("secret", None, "ENC_KEY_ACTIVE", secret=True)
    backup_restore: str | None = _key("optional_text", None, environment_only=True)
    backup_skip_validation: bool = _key("switch", False, environment_only=True)
    danger_raft_state_reset: bool = _key("switch", False, environment_only=True)

    # HTTP
    password_dashboard: str | None = _key("secret", None, secret=True)
    insecure_cookie: bool = _key("switch", False)
    http_allow_plain: bool = _key("switch", False)
    metrics_public: bool = _key("switch", True)
    rate_limit_db_rps: int | None = _key("optional_whole", None, "HQL_RL_DB_RPS")
    rate_limit_db_burst: int | None = _key("optional_whole", None, "HQL_RL_DB_BURST")
    rate_limit_cache_rps: int | None = _key("optional_whole", None, "HQL_RL_CACHE_RPS")
    rate_limit_cache_burst: int | None = _key("optional_whole", None, "HQL_RL_CACHE_BURST")

    # what the sources had to say (settings without effect, stray variables); told once at start
    notices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for item in _settings():
            converted = convert(item.metadata["kind"], item.name, getattr(self, item.name))
            object.__setattr__(self, item.name, converted)
        if self.node_id_from is not None:
            if self.node_id_from != "k8s":
                raise ConfigError(f"node_id_from = {self.node_id_from!r}: expected k8s")
            object.__setattr__(self, "node_id", node_id_of_host(sources.host_name()))
        elif not self.nodes and self.node_id == 0:
            object.__setattr__(self, "node_id", 1)
        self.validate()

    def validate(self) -> None:
        """Check the relations between all settings; runs on construction.

        Raises:
            ConfigError: the first rule that does not hold.
        """
        for message, hint in broken_rules(self):
            raise ConfigError(message, hint=hint)
        self.raft_settings()

    # ----------------------------------------------------------------------- sources

    @classmethod
    def from_toml(
        cls,
        path: str | os.PathLike[str],
        table: str = "hiqlite",
        secrets: str | os.PathLike[str] | None = None,
    ) -> NodeConfig:
        """Read a table of a TOML file; the environment goes above it.

        Args:
            table: name of the table; dots lead into tables of tables.
            secrets: file that `$SECRETS` is looked up in, instead of the key `secrets_file`.
        """
        file = Path(path)
        return cls._gather(sources.toml_table(file, table), f"in {file}", (), table, secrets)

    @classmethod
    def from_env(
        cls, env_file: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None
    ) -> NodeConfig:
        """Read the environment of the process, above env files (later ones win), above `.env` of the current folder."""
        named = () if env_file is None else (env_file,) if isinstance(env_file, str | os.PathLike) else env_file
        return cls._gather({}, "", tuple(Path(path) for path in named), "hiqlite", None)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str] | None = None, table: str = "hiqlite") -> NodeConfig:
        """Read a config file in TOML or env syntax, told apart by content.

        Args:
            path: None takes `hiqlite.toml`, then `config`, in `.hiqlite` of the home folder.
        """
        file = sources.default_path() if path is None else Path(path)
        if file is None:
            raise ConfigError("there is no config file", hint="name one, or write ~/.hiqlite/hiqlite.toml")
        if sources.looks_like_env(sources.read_text(file)):
            return cls.from_env(file)
        return cls.from_toml(file, table)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> NodeConfig:
        """Take keys and values as given; the environment has no say."""
        gathered = sources.from_mapping(mapping, _keys(), "")
        sources.fill_secrets(gathered.values, _keys(), "hiqlite")
        return cls(**gathered.values, notices=tuple(gathered.notices))

    @classmethod
    def _gather(
        cls,
        mapping: Mapping[str, Any],
        where: str,
        env_files: Sequence[Path],
        table: str,
        secrets: str | os.PathLike[str] | None,
    ) -> NodeConfig:
        below = sources.from_mapping(mapping, _keys(), where)
        above = sources.from_environment(_keys(), env_files)
        values = {**below.values, **above.values}
        if secrets is not None:
            values["secrets_file"] = os.fspath(secrets)
        sources.fill_secrets(values, _keys(), table)
        return cls(**values, notices=(*below.notices, *above.notices))

    def with_overrides(self, **overrides: Any) -> NodeConfig:
        """A copy with some settings changed.

        Raises:
            ConfigError: an unknown key, or the result is not valid.
        """
        known = [item.name for item in _settings()]
        for name in overrides:
            if name not in known:
                raise sources.unknown_key(name, known, "")
        if "node_id" in overrides:
            overrides.setdefault("node_id_from", None)
        return dataclasses.replace(self, **overrides)

    # ----------------------------------------------------------------------- what others read

    @property
    def listens(self) -> bool:
        """Whether this node has ports: a node without `nodes` has none."""
        return bool(self.nodes)

    @property
    def address(self) -> NodeAddress | None:
        """This node's own entry in `nodes`; None for a single node without ports.

        Raises:
            ConfigError: `nodes` are given and this node's id is not.
        """
        if not self.nodes:
            return None
        for node in self.nodes:
            if node.id == self.node_id:
                return node
        raise ConfigError("which of the nodes is this one?", hint="set node_id, or node_id_from = 'k8s'")

    @property
    def data_path(self) -> Path:
        """`data_dir` with `{node_id}` filled in."""
        return Path(self.data_dir.replace("{node_id}", str(self.node_id)))

    @property
    def log_sync_interval_ms(self) -> int | None:
        """The interval of `log_sync = interval_<ms>`; None in the other modes."""
        return int(self.log_sync.removeprefix("interval_")) if self.log_sync.startswith("interval_") else None

    def raft_settings(self) -> RaftSettings:
        """What of this the consensus core is told."""
        low, _, high = self.election_timeout_ms.partition("-")
        return RaftSettings(
            heartbeat_interval_ms=self.heartbeat_interval_ms,
            election_timeout_min_ms=int(low),
            election_timeout_max_ms=int(high),
            frame_bytes_max=self.raft_frame_bytes_max,
            entry_bytes_max=self.max_entry_size,
            window_frames=self.raft_window_frames,
            window_bytes=self.raft_window_bytes,
            memory_window_bytes=self.raft_memory_window_bytes,
            proposal_queue_bytes=self.raft_proposal_queue_bytes,
            apply_queue_bytes=self.raft_apply_queue_bytes,
            stall_ms=self.raft_stall_ms,
            link_loss_grace_ms=self.link_loss_grace_ms,
            commit_delay_ms=self.raft_commit_delay_ms,
            logs_until_snapshot=self.logs_until_snapshot,
        )

    def not_built_yet(self) -> list[str]:
        """Keys that were changed from their default and that no part of this version uses."""
        changed = [item.name for item in _settings() if getattr(self, item.name) != item.default]
        return [name for name in changed if name.startswith(NOT_BUILT_YET)]

    def __repr__(self) -> str:
        """Only what differs from the defaults; a secret shows as ***."""
        shown = (
            f"{item.name}=***" if item.metadata["secret"] else f"{item.name}={getattr(self, item.name)!r}"
            for item in _settings()
            if getattr(self, item.name) != item.default
        )
        return f"NodeConfig({', '.join(shown)})"


def _settings() -> tuple[dataclasses.Field[Any], ...]:
    return tuple(item for item in dataclasses.fields(NodeConfig) if item.metadata)


def _keys() -> tuple[sources.Key, ...]:
    return tuple(
        sources.Key(
            item.name,
            item.metadata["environment"] or (f"{sources.PREFIX}{item.name.upper()}",),
            item.metadata["secret"],
            item.metadata["environment_only"],
        )
        for item in _settings()
    )
