"""A configuration that exists is valid; one that cannot be right says why in one sentence."""

from __future__ import annotations

import dataclasses
import pickle
import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiqlite.config import NodeConfig, RaftSettings
from hiqlite.config_rules import node_id_of_host
from hiqlite.errors import ConfigError

NODES = ["1 a:8100 a:8200", "2 b:8100 b:8200", "5 [::1]:8100 [::1]:8200"]
KEYS = {item.name for item in dataclasses.fields(NodeConfig)}
WORDS = ["immediate", "interval_5", "500-1000", "²-³", "interval_²", "auto", "params", "$SECRETS", "k8s", "1 a:1 a:2"]
CLUSTER: dict[str, Any] = {"node_id": 2, "nodes": NODES, "secret_raft": "r" * 16, "secret_api": "a" * 16}


def config(**changes: Any) -> NodeConfig:
    return NodeConfig.from_mapping({**CLUSTER, **changes})


def test_the_defaults_are_the_documented_ones() -> None:
    """Durable, one local node without ports, both groups on."""
    found = NodeConfig()
    assert (found.node_id, found.nodes, found.listens, found.address) == (1, (), False, None)
    assert (found.log_sync, found.log_sync_interval_ms, found.apply_thread) == ("immediate", None, "auto")
    assert (found.wal_size, found.max_entry_size, found.request_timeout) == (64 << 20, 64 << 20, 10.0)
    assert (found.db, found.cache, found.cache_storage_disk, found.cache_max_bytes) == (True, True, True, 256 << 20)
    assert (found.statement_timeout, found.migration_timeout, found.session_window) == (5.0, 600.0, 4096)
    assert found.not_built_yet() == [] and found.notices == ()
    assert found.raft_settings() == RaftSettings()
    assert repr(found) == "NodeConfig(node_id=1)"


def test_a_member_finds_its_own_address() -> None:
    """By id, not by position; gaps between ids are allowed."""
    found = config(node_id=5)
    assert found.address is not None
    assert (found.address.raft_address, found.address.api_host, found.listens) == ("[::1]:8100", "::1", True)


def test_the_node_may_be_chosen_later() -> None:
    """One file for all nodes, the id given at open: asking before that is an error, choosing a wrong one too."""
    shared = config(node_id=0)
    with pytest.raises(ConfigError, match="which of the nodes"):
        assert shared.address
    assert shared.with_overrides(node_id=2).address == config().address
    with pytest.raises(ConfigError, match="node_id 3 is not in nodes"):
        shared.with_overrides(node_id=3)


def test_the_data_folder_may_name_the_node() -> None:
    """`{node_id}` is replaced, so that one file serves several nodes of a machine."""
    assert str(config(data_dir="data/{node_id}/x").data_path) == "data/2/x"
    assert str(NodeConfig(data_dir="data{node_id}").data_path) == "data1"


def test_the_node_id_of_a_pod_is_its_number_plus_one() -> None:
    """StatefulSets count from 0, nodes from 1; a domain behind the name does not matter."""
    assert (node_id_of_host("db-0"), node_id_of_host("db-11"), node_id_of_host("db-2.svc.local")) == (1, 12, 3)
    for name in ("db", "db-", "", ".example"):
        with pytest.raises(ConfigError, match="does not end in a number"):
            node_id_of_host(name)


def test_k8s_takes_the_id_from_this_host() -> None:
    """`node_id` beside it is ignored; anything but k8s is refused."""
    try:
        expected = node_id_of_host(socket.gethostname())
    except ConfigError:
        with pytest.raises(ConfigError, match="node_id_from = k8s"):
            NodeConfig(node_id_from="k8s")
    else:
        assert NodeConfig(node_id=77, node_id_from="k8s").node_id == expected
    with pytest.raises(ConfigError, match="expected k8s"):
        NodeConfig(node_id_from="nomad")


REFUSED = [
    ({"secret_raft": None}, "secret_raft is missing"),
    ({"secret_api": ""}, "secret_api is missing"),
    ({"secret_api": "x" * 15}, "secret_api is shorter than 16"),
    ({"node_id": 3}, "node_id 3 is not in nodes"),
    ({"nodes": [*NODES, "2 c:1 c:2"]}, "node id 2 stands twice"),
    ({"nodes": [*NODES, "3 c:1 a:8200"]}, "address a:8200 stands twice"),
    ({"nodes": [*NODES, "3 c:1 c:1"]}, "address c:1 stands twice"),
    ({"db": False, "cache": False}, "both switched off"),
    ({"filename_db": "../x.db"}, "no file name"),
    ({"filename_db": ".."}, "no file name"),
    ({"data_dir": ""}, "data_dir"),
    ({"data_dir": "a\0b"}, "NUL"),
    ({"listen_addr_api": "0.0.0.0:8200"}, "no address to bind"),
    ({"apply_thread": "sometimes"}, "apply_thread"),
    ({"cache_policy": "lfu"}, "cache_policy"),
    ({"log_sync": "never"}, "log_sync"),
    ({"log_sync": "interval_0"}, "log_sync"),
    ({"log_sync": "interval_60001"}, "log_sync"),
    ({"election_timeout_ms": "500"}, "election_timeout_ms"),
    ({"election_timeout_ms": "1000-500"}, "election_timeout_ms"),
    ({"election_timeout_ms": "500-500"}, "election_timeout_ms"),
    ({"election_timeout_ms": "500-9999999"}, "election_timeout_ms"),
    ({"heartbeat_interval_ms": 400}, "election_timeout_ms"),
    ({"heartbeat_interval_ms": 0}, "heartbeat_interval_ms"),
    ({"link_loss_grace_ms": 500}, "link_loss_grace_ms"),
    ({"raft_stall_ms": 50}, "raft_stall_ms"),
    ({"raft_window_frames": 0}, "raft_window_frames"),
    ({"raft_window_bytes": "512 KiB"}, "raft_window_bytes"),
    ({"raft_memory_window_bytes": "2 MiB"}, "raft_memory_window_bytes"),
    ({"raft_frame_bytes_max": 100}, "raft_frame_bytes_max"),
    ({"raft_apply_queue_bytes": 100}, "raft_apply_queue_bytes"),
    ({"raft_commit_delay_ms": 500}, "raft_commit_delay_ms"),
    ({"raft_busy_poll_us": 10_001}, "raft_busy_poll_us"),
    ({"max_entry_size": "128 MiB"}, "raft_proposal_queue_bytes"),
    ({"max_entry_size": 2_000_000_000}, "max_entry_size"),
    ({"wal_size": 4096}, "wal_size"),
    ({"read_pool_size": 0}, "read_pool_size"),
    ({"request_timeout": 0}, "request_timeout"),
    ({"tls_api_key": "k.pem"}, "go together"),
    ({"rate_limit_db_burst": 5}, "rate_limit_db_rps"),
    ({"s3_url": "https://s3"}, "s3_bucket is missing"),
    ({"enc_key_active": "abc"}, "enc_key_active names no key"),
    ({"nodes": [*NODES, "3 127.0.0.1:1 c:1", "4 LOCALHOST.:1 d:1"]}, "address LOCALHOST.:1 stands twice"),
    ({"node_id_from": "nomad"}, "expected k8s"),
    ({"read_pool_size": 65}, "read_pool_size = 65 is out of its range"),
    ({"listen_addr_raft": "[::1]:8100"}, "no address to bind"),
]


@pytest.mark.parametrize(("changes", "reason"), REFUSED)
def test_settings_that_cannot_be_right_are_refused(changes: dict[str, Any], reason: str) -> None:
    """Before a file is opened or a port is bound; the message names the key."""
    with pytest.raises(ConfigError) as caught:
        config(**changes)
    assert reason in str(caught.value)
    assert caught.value.outcome is None
    assert caught.value.key in KEYS and caught.value.hint and caught.value.source is None


@given(
    st.dictionaries(
        st.sampled_from(sorted(KEYS - {"notices"})),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text())
        | st.sampled_from(WORDS),
        max_size=6,
    )
)  # fmt: skip
def test_any_settings_make_a_config_or_a_config_error(values: dict[str, Any]) -> None:
    """Nothing else comes out of nonsense, and the error names one of the keys."""
    try:
        found = NodeConfig.from_mapping(values)
    except ConfigError as error:
        assert error.key in KEYS and error.hint
    else:
        assert NodeConfig(**{key: getattr(found, key) for key in values}) == found


def test_the_messages_about_secrets_do_not_show_them() -> None:
    """Neither refused ones nor those of a valid config."""
    with pytest.raises(ConfigError) as caught:
        config(secret_api="hunter2")
    assert "hunter2" not in str(caught.value)
    key = "hunter/" + "A" * 43
    shown = repr(config(s3_key="hunter2", enc_keys=[key], enc_key_active="hunter"))
    assert "hunter" not in shown and "AAAA" not in shown and "r" * 16 not in shown
    assert shown.count("***") == 5


def test_every_secret_is_marked_as_one() -> None:
    """Names that sound secret are hidden; what is hidden is named here."""
    hidden = {item.name for item in dataclasses.fields(NodeConfig) if item.metadata.get("secret")}
    assert hidden == {
        "secret_raft", "secret_api", "s3_key", "s3_secret", "enc_keys", "enc_key_active", "password_dashboard"
    }  # fmt: skip


def test_overrides_make_a_checked_copy() -> None:
    """The original stays; unknown keys are refused with a suggestion; values are read as in a file."""
    before = config()
    after = before.with_overrides(log_sync="interval_50", wal_size="1 MiB", nodes=NODES[:2])
    assert (after.log_sync_interval_ms, after.wal_size, len(after.nodes)) == (50, 1 << 20, 2)
    assert before == config()
    with pytest.raises(ConfigError, match="did you mean log_sync"):
        before.with_overrides(logsync="immediate")
    with pytest.raises(ConfigError, match="log_sync"):
        before.with_overrides(log_sync="often")


def test_the_constructor_refuses_unknown_keys_as_files_do() -> None:
    """With a suggestion, instead of Python's TypeError; the names that are no settings are not suggested."""
    wrong: dict[str, Any] = {"datadir": "x"}
    with pytest.raises(ConfigError, match=r"unknown key datadir \(did you mean data_dir\?\)"):
        NodeConfig(**wrong)


def test_what_is_set_but_not_built_yet_is_listed() -> None:
    """Only keys that were changed, so that a node can say so once."""
    found = config(caches=["a"], tls_auto_certificates=True, backup_keep_days=30, read_pool_size=2)
    assert found.not_built_yet() == ["caches", "tls_auto_certificates"]


def test_configs_are_values() -> None:
    """Equal by content, hashable, immutable, and they survive pickling."""
    one, other = config(), config()
    assert one == other and hash(one) == hash(other)
    assert pickle.loads(pickle.dumps(one)) == one
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.node_id = 3  # type: ignore[misc]  # that it fails is the point


def test_raft_settings_follow_the_keys() -> None:
    """Each limit of the engine is a key."""
    found = config(
        heartbeat_interval_ms=20, election_timeout_ms="100-200", raft_stall_ms=900, link_loss_grace_ms=10,
        raft_commit_delay_ms=1, raft_frame_bytes_max="64 KiB", raft_window_frames=2, raft_window_bytes="128 KiB",
        raft_memory_window_bytes="1 MiB", raft_proposal_queue_bytes="65 MiB", raft_apply_queue_bytes="3 MiB",
            logs_until_snapshot=123,
    ).raft_settings()  # fmt: skip
    sizes = (65536, 64 << 20, 2, 131072, 1 << 20, 65 << 20, 3 << 20)
    assert dataclasses.astuple(found) == (20, 100, 200, *sizes, 900, 10, 1, 123)
    with pytest.raises(ConfigError, match="window_frames"):
        RaftSettings(window_frames=-1)
    with pytest.raises(ConfigError, match="stall_ms"):
        RaftSettings(stall_ms=1.5)  # type: ignore[arg-type]  # that it fails is the point


@pytest.mark.parametrize("item", [f for f in dataclasses.fields(NodeConfig) if f.metadata], ids=lambda item: item.name)
def test_every_key_survives_being_given_as_its_own_default(item: dataclasses.Field[Any]) -> None:
    """The default of each key is a value of its kind, unchanged by reading."""
    expected = getattr(NodeConfig(), item.name)
    assert getattr(NodeConfig(**{item.name: item.default}), item.name) == expected
    assert expected == item.default or item.name == "node_id"
