"""Every setting, its default and its limits, once.

What this is for: `NodeConfig`, the keys of a node under the names of its TOML file. What the consensus core is told
of them stands in `config_raft`, where values come from in `config_sources`, how one is read in `config_kinds`.
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
from hiqlite.config_kinds import convert
from hiqlite.config_raft import PARTNERS
from hiqlite.config_raft import RaftSettings as RaftSettings
from hiqlite.config_rules import broken_rules, is_not_built_yet, node_id_of_host
from hiqlite.config_toml import read_toml
from hiqlite.config_values import NodeAddress
from hiqlite.errors import ConfigError

MIB = 1 << 20


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
    listen_addr_raft: str = _key("host", "0.0.0.0")
    listen_addr_api: str = _key("host", "0.0.0.0")
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
    raft_busy_poll_us: int = _key("whole", 200)
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
    backup_cron: str = _key("cron", "0 30 2 * * * *")
    backup_keep_days: int = _key("whole", 30)
    backup_keep_days_local: int = _key("whole", 3)
    s3_url: str | None = _key("url", None)
    s3_bucket: str | None = _key("optional_text", None)
    s3_region: str | None = _key("optional_text", None)
    s3_path_style: bool = _key("switch", True)
    s3_key: str | None = _key("secret", None, secret=True)
    s3_secret: str | None = _key("secret", None, secret=True)
    enc_keys: tuple[str, ...] = _key("encryption_keys", (), "ENC_KEYS", secret=True)
    enc_key_active: str | None = _key("secret", None, "ENC_KEY_ACTIVE", secret=True)
    backup_restore: str | None = _key("backup_source", None, environment_only=True)
    backup_skip_validation: bool = _key("switch", False, environment_only=True)
    danger_raft_state_reset: bool = _key("switch", False, environment_only=True)

    # HTTP
    password_dashboard: str | None = _key("password_hash", None, secret=True)
    insecure_cookie: bool = _key("switch", False)
    http_allow_plain: bool = _key("switch", False)
    metrics_public: bool = _key("switch", True, "HQL_METRICS_PUBLIC", "HQL_HTTP_METRICS_PUBLIC")
    rate_limit_db_rps: int | None = _key("optional_whole", None, "HQL_RL_DB_RPS")
    rate_limit_db_burst: int | None = _key("optional_whole", None, "HQL_RL_DB_BURST")
    rate_limit_cache_rps: int | None = _key("optional_whole", None, "HQL_RL_CACHE_RPS")
    rate_limit_cache_burst: int | None = _key("optional_whole", None, "HQL_RL_CACHE_BURST")

    # what the sources had to say (settings without effect, stray variables); told once at start
    notices: tuple[str, ...] = ()

    def __new__(cls, *_: Any, **values: Any) -> NodeConfig:
        """Only looks at the names: Python's own error for an unknown one has no suggestion."""
        sources.refuse_unknown(values, [item.name for item in dataclasses.fields(cls)])
        return object.__new__(cls)

    def __post_init__(self) -> None:
        self._read()
        self.validate()

    def _read(self) -> None:
        for item in settings():
            converted = convert(item.metadata["kind"], item.name, getattr(self, item.name))
            object.__setattr__(self, item.name, converted)
        if self.node_id_from == "k8s":
            object.__setattr__(self, "node_id", node_id_of_host(sources.host_name()))
        elif not self.nodes and self.node_id == 0:
            object.__setattr__(self, "node_id", 1)

    def validate(self) -> None:
        """Check the relations between all settings; runs on construction.

        Raises:
            ConfigError: the first rule that does not hold.
        """
        for problem in self._problems():
            raise problem

    def _problems(self) -> list[ConfigError]:
        """Every rule that does not hold."""
        found = [
            ConfigError(message, hint=hint, key=self._to_blame(*keys)) for keys, message, hint in broken_rules(self)
        ]
        if not found:
            try:
                self.raft_settings()
            except ConfigError as error:
                error.key = self._to_blame(error.key or "", PARTNERS.get(error.key or "", ""))
                found.append(error)
        return found

    def _to_blame(self, *keys: str) -> str:
        """The first that somebody wrote: not a default that it does not go with."""
        defaults = {item.name: item.default for item in settings()}
        return next((key for key in keys if key in defaults and getattr(self, key) != defaults[key]), keys[0])

    # ----------------------------------------------------------------------- sources

    @classmethod
    def from_toml(
        cls,
        path: str | os.PathLike[str],
        table: str = sources.TABLE,
        secrets: str | os.PathLike[str] | None = None,
    ) -> NodeConfig:
        """Read a table of a TOML file; the environment goes above it.

        Args:
            table: name of the table; dots lead into tables of tables.
            secrets: file that `$SECRETS` is looked up in, instead of the key `secrets_file`.
        """
        overrides = {} if secrets is None else {"secrets_file": os.fspath(secrets)}
        file = read_toml(Path(path), table)
        return cls.from_gathered(sources.gather(environment_keys(), file=file, table=table, overrides=overrides))

    @classmethod
    def from_env(
        cls, env_file: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None
    ) -> NodeConfig:
        """Read the environment of the process, above env files (later ones win), above `.env` of the current folder."""
        named = () if env_file is None else (env_file,) if isinstance(env_file, str | os.PathLike) else env_file
        return cls.from_gathered(sources.gather(environment_keys(), env_files=tuple(Path(path) for path in named)))

    @classmethod
    def from_file(
        cls,
        path: str | os.PathLike[str] | None = None,
        table: str = sources.TABLE,
        overrides: Mapping[str, Any] | None = None,
    ) -> NodeConfig:
        """Read a config file in TOML or env syntax, told apart by content; the environment goes above it.

        Args:
            path: None takes `hiqlite.toml`, then `config`, in `.hiqlite` of the home folder.
            overrides: values by key that win over all sources, as a command line gives them.
        """
        file = None if path is None else Path(path)
        return cls.from_gathered(sources.gather_file(file, environment_keys(), table=table, overrides=overrides))

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> NodeConfig:
        """Take keys and values as given; the environment has no say."""
        gathered = sources.from_mapping(mapping, environment_keys())
        sources.fill_secrets(gathered, environment_keys(), sources.TABLE)
        return cls.from_gathered(gathered)

    @classmethod
    def from_gathered(cls, gathered: sources.Gathered) -> NodeConfig:
        """What the sources said, as a config; an error says which of them was wrong."""
        for problem in gathered.problems:
            raise problem
        try:
            return cls(**gathered.raw(), notices=tuple(gathered.notices))
        except ConfigError as error:
            gathered.locate(error)
            raise

    @classmethod
    def every_problem(cls, gathered: sources.Gathered) -> list[ConfigError]:
        """All that keeps the sources from being a config: names, else values, else rules."""
        found = list(gathered.problems)
        for item in settings():
            given = gathered.values.get(item.name)
            try:
                if given is not None:
                    convert(item.metadata["kind"], item.name, given.value)
            except ConfigError as error:
                found.append(gathered.locate(error))
        if found:
            return found
        # Looks at its own rules and is gone: nobody gets hold of a config that is not valid.
        trial = object.__new__(cls)
        for item in settings():
            given = gathered.values.get(item.name)
            object.__setattr__(trial, item.name, item.default if given is None else given.value)
        try:
            trial._read()
        except ConfigError as error:
            return [gathered.locate(error)]
        return [gathered.locate(error) for error in trial._problems()]

    def with_overrides(self, **overrides: Any) -> NodeConfig:
        """A copy with some settings changed.

        Raises:
            ConfigError: an unknown key, or the result is not valid.
        """
        sources.refuse_unknown(overrides, [item.name for item in settings()])
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
        hint = "set node_id, or node_id_from = 'k8s'"
        raise ConfigError("which of the nodes is this one?", hint=hint, key="node_id")

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

    def start_notices(self) -> list[str]:
        """What is told once at a start: names without effect, keys without effect, what to be careful about."""
        found = [*self.notices, *(f"{key} has no effect in this version" for key in self.not_built_yet())]
        if self.log_statements == "params":
            found.append("log_statements = params: the log will hold what the parameters of statements hold")
        return found

    @staticmethod
    def secret_keys() -> frozenset[str]:
        """The settings that are never shown."""
        return frozenset(item.name for item in settings() if item.metadata["secret"])

    def not_built_yet(self) -> list[str]:
        """Keys that were changed from their default and that no part of this version uses."""
        changed = [item.name for item in settings() if getattr(self, item.name) != item.default]
        return [name for name in changed if is_not_built_yet(name)]

    def __repr__(self) -> str:
        """Only what differs from the defaults; a secret shows as ***."""
        shown = (
            f"{item.name}=***" if item.metadata["secret"] else f"{item.name}={getattr(self, item.name)!r}"
            for item in settings()
            if getattr(self, item.name) != item.default
        )
        return f"NodeConfig({', '.join(shown)})"


def settings() -> tuple[dataclasses.Field[Any], ...]:
    """The settings of `NodeConfig`, each with its kind, its default and its names."""
    return tuple(item for item in dataclasses.fields(NodeConfig) if item.metadata)


def environment_keys() -> tuple[sources.Key, ...]:
    """How the sources call each setting."""
    return tuple(
        sources.Key(
            item.name,
            item.metadata["environment"] or (f"{sources.PREFIX}{item.name.upper()}",),
            item.metadata["secret"],
            item.metadata["environment_only"],
        )
        for item in settings()
    )
