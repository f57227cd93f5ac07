"""What the configs of one cluster's nodes must share, and what must be each node's own."""

from __future__ import annotations

from typing import Any

import pytest

from hiqlite.config import NodeConfig, settings
from hiqlite.config_compare import BETTER_EQUAL, EQUAL, Member, advice, disagreements

NODES = ["1 a:8100 a:8200", "2 b:8100 b:8200", "3 c:8100 c:8200"]
ONE_HOST = ["1 localhost:8100 localhost:8200", "2 127.0.0.1:8101 127.0.0.1:8201"]
KEY = "ab/" + "A" * 43


def members(*changes: dict[str, Any], **shared: Any) -> list[Member]:
    """Nodes 1, 2, ... of one cluster, each with changes of its own."""
    common: dict[str, Any] = {"nodes": NODES, "secret_raft": "r" * 16, "secret_api": "a" * 16, **shared}
    return [
        Member(f"n{number}.toml", NodeConfig(**{**common, "node_id": number, **own}))
        for number, own in enumerate(changes, 1)
    ]


def test_nodes_that_differ_in_what_is_their_own_are_one_cluster() -> None:
    """Id, folder, bind address, threads: no problem, no advice; the order of nodes does not matter."""
    found = members(
        {"data_dir": "x", "listen_addr_raft": "127.0.0.1"},
        {"data_dir": "x", "read_pool_size": 9, "nodes": NODES[::-1]},
        {"log_statements": True, "nodes": ["1 A:8100 A.:8200", *NODES[1:]]},
    )
    assert disagreements(found) == [] and advice(found) == []


DISAGREEING: list[tuple[list[dict[str, Any]], str, str]] = [
    ([{}, {"node_id": 1}], "node_id", "both are node 1"),
    ([{}, {"nodes": NODES[:2]}], "nodes", "node 3 is only in nodes of n1.toml"),
    ([{"nodes": NODES[:2]}, {}], "nodes", "node 3 is only in nodes of n2.toml"),
    ([{}, {"nodes": [NODES[0], "2 b:8100 b:9", NODES[2]]}], "nodes", "node 2 is `2 b:8100 b:8200` and `2 b:8100 b:9`"),
    ([{}, {"secret_raft": "R" * 16}], "secret_raft", "secret_raft differs"),
    ([{}, {"secret_api": "A" * 16}], "secret_api", "secret_api differs"),
    ([{}, {"max_entry_size": "1 MiB"}], "max_entry_size", "max_entry_size is 67108864 and 1048576"),
    (
        [{}, {"raft_frame_bytes_max": "65 MiB", "raft_window_bytes": "65 MiB", "raft_memory_window_bytes": "65 MiB",
              "raft_proposal_queue_bytes": "65 MiB", "raft_apply_queue_bytes": "65 MiB"}],
        "raft_frame_bytes_max",
        "n1.toml refuses messages of the size that n2.toml sends",
    ),
    ([{}, {"cache": False}], "cache", "cache is True and False"),
    ([{}, {"db": False}], "db", "db is True and False"),
    ([{"caches": ["a"]}, {"caches": ["b"]}], "caches", "('a',) and ('b',)"),
    ([{}, {"cache_policy": "lru"}], "cache_policy", "'reject' and 'lru'"),
    ([{}, {"cache_max_bytes": 5}], "cache_max_bytes", "268435456 and 5"),
    ([{}, {"tls_auto_certificates": True}], "tls_raft_key", "one speaks TLS on the raft port"),
    ([{}, {"tls_api_key": "k", "tls_api_cert": "c"}], "tls_api_key", "one speaks TLS on the api port"),
    ([{"learner_only": True}, {"learner_only": True}], "learner_only", "all nodes are learners"),
    (
        [{"heartbeat_interval_ms": 400, "election_timeout_ms": "900-1200"}, {}],
        "election_timeout_ms",
        "election_timeout_ms of n2.toml begins below twice the heartbeat_interval_ms of n1.toml",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "key", "message"), DISAGREEING)
def test_what_keeps_nodes_from_being_one_cluster_is_found(
    changes: list[dict[str, Any]], key: str, message: str
) -> None:
    """One error, which names the key, both files, and what to do; secrets are not shown."""
    found = members(*changes)
    problems = [error for error in disagreements(found) if error.key == key]
    assert len(problems) == 1, disagreements(found)
    assert message in problems[0].message and problems[0].hint
    assert str(problems[0].source).startswith(("n1.toml and ", "n2.toml and "))
    assert "rrrr" not in str(problems) and "RRRR" not in str(problems) and "aaaa" not in str(problems)


def test_each_file_that_differs_is_told_once() -> None:
    """Beside the first file, not beside every other one."""
    found = disagreements(members({}, {"max_entry_size": "1 MiB"}, {"max_entry_size": "1 MiB"}))
    assert [error.source for error in found] == ["n1.toml and n2.toml", "n1.toml and n3.toml"]


def test_nodes_of_one_host_have_ports_and_folders_of_their_own() -> None:
    """Names of the loopback address are one host; `{node_id}` makes folders differ; other hosts may have the same."""
    shared = members({}, {}, nodes=ONE_HOST, data_dir="data")
    assert [error.key for error in disagreements(shared)] == ["data_dir"]
    assert "both nodes keep their data in data" in str(disagreements(shared)[0])
    assert disagreements(members({}, {}, nodes=ONE_HOST, data_dir="data/{node_id}")) == []
    own_address = ["1 127.0.0.1:8100 127.0.0.1:8200", "2 127.0.0.2:8100 127.0.0.2:8200"]
    assert disagreements(members({}, {}, nodes=own_address, data_dir="data/{node_id}")) == []
    assert [error.key for error in disagreements(members({}, {}, nodes=own_address, data_dir="data"))] == ["data_dir"]
    assert disagreements(members({"data_dir": "x/../data"}, {"data_dir": "data"}, nodes=ONE_HOST)) != []
    assert disagreements(members({}, {}, data_dir="data")) == []
    meet = members({}, {"nodes": ["1 localhost:1 localhost:2", "2 127.0.0.1:8100 [::1]:7"]}, nodes=ONE_HOST)
    assert "both nodes listen on port 8100 of 127.0.0.1" in str(disagreements(meet))


def test_what_had_better_be_equal_is_advice() -> None:
    """No error, a sentence with the reason; and which nodes no file was given for."""
    found = members({}, {"log_sync": "interval_9", "enc_keys": [KEY], "s3_key": "hunter2"})
    assert disagreements(found) == []
    told = advice(found)
    assert told[0] == (
        "n1.toml and n2.toml: log_sync is 'immediate' and 'interval_9' "
        "(a cluster is as durable as its weakest majority)"
    )
    assert [line.split(": ")[1].split()[0] for line in told[:-1]] == ["log_sync", "s3_key", "enc_keys"]
    assert told[-1] == "no file was given for node 3"
    assert "hunter2" not in str(told) and "AAAA" not in str(told)


def test_the_compared_keys_are_settings() -> None:
    """None is compared twice, none that does not exist; what `max_entry_size` bounds must be equal."""
    known = {item.name for item in settings()}
    assert set(EQUAL) <= known and set(BETTER_EQUAL) <= known and not set(EQUAL) & set(BETTER_EQUAL)
    assert "max_entry_size" in EQUAL
