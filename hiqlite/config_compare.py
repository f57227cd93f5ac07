"""What the configs of the nodes of one cluster must have in common, and what must differ.

What this is for: finding before the start what would keep nodes from talking, or would make two of them one.
Must not know: where the configs came from, beyond the names they are called by.
Invariant: pure; a secret that differs is named, never shown.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Sequence
from types import MappingProxyType
from typing import NamedTuple

from hiqlite.config import NodeConfig
from hiqlite.config_rules import one_name
from hiqlite.config_values import NodeAddress, shown
from hiqlite.errors import ConfigError

# Key -> what happens where it differs.
EQUAL = MappingProxyType(
    {
        "secret_raft": "nodes with another secret refuse each other",
        "secret_api": "nodes and clients with another secret are refused",
        "max_entry_size": "a client is refused a write at one node that it may make at another",
        "db": "all nodes take part in the same groups",
        "cache": "all nodes take part in the same groups",
        "caches": "a cache exists on all nodes or on none",
        "cache_max_bytes": "nodes would disagree about what a full cache still holds",
        "cache_policy": "nodes would disagree about what a full cache still holds",
    }
)
# Key -> why it had better be equal. Nothing breaks, but the cluster behaves otherwise after the next change of leaders.
BETTER_EQUAL = MappingProxyType(
    {
        **dict.fromkeys(("heartbeat_interval_ms", "election_timeout_ms"), "elections are timed otherwise"),
        **dict.fromkeys(("log_sync", "cache_storage_disk"), "a cluster is as durable as its weakest majority"),
        **dict.fromkeys(
            ("raft_frame_bytes_max", "statement_timeout", "request_id_ttl", "session_ttl", "session_window",
             "lock_lease_max"),
            "the leader's value counts",
        ),
        **dict.fromkeys(
            ("backup_cron", "backup_keep_days", "s3_url", "s3_bucket", "s3_region", "s3_key", "s3_secret", "enc_keys",
             "enc_key_active"),
            "the leader makes the backups, and every node may have to read them",
        ),
    }
)  # fmt: skip


class Member(NamedTuple):
    """One node's config, and what to call it in errors: its file."""

    name: str
    config: NodeConfig


def disagreements(members: Sequence[Member]) -> list[ConfigError]:
    """Everything that keeps these configs from being those of one cluster."""
    return [
        ConfigError(message, hint=hint, key=key, source=f"{one.name} and {other.name}")
        for key, one, other, message, hint in itertools.chain(
            _identities(members), _node_lists(members), _places(members), _equal_keys(members), _frames(members),
            _timing(members),
        )
    ]


def advice(members: Sequence[Member]) -> list[str]:
    """What works, but had better be otherwise."""
    found = []
    for key, reason in BETTER_EQUAL.items():
        for one, other in _against_first(members):
            if getattr(one.config, key) != getattr(other.config, key):
                found.append(f"{one.name} and {other.name}: {_difference(key, one, other)} ({reason})")
    given = {member.config.node_id for member in members}
    absent = [node.id for node in members[0].config.nodes if node.id not in given]
    if absent:
        found.append(f"no file was given for node {', '.join(map(str, absent))}")
    return found


_Found = Iterator[tuple[str, Member, Member, str, str]]  # key, the two, what is wrong, what to do


def _against_first(members: Sequence[Member]) -> Iterator[tuple[Member, Member]]:
    """Each but the first beside the first: one line per file that differs, not one per pair."""
    return ((members[0], other) for other in members[1:])


def _difference(key: str, one: Member, other: Member) -> str:
    first, second = getattr(one.config, key), getattr(other.config, key)
    return f"{key} differs" if key in NodeConfig.secret_keys() else f"{key} is {shown(first)} and {shown(second)}"


def _identities(members: Sequence[Member]) -> _Found:
    for one, other in itertools.combinations(members, 2):
        if one.config.node_id == other.config.node_id:
            hint = "each file is that of another node"
            yield "node_id", one, other, f"both are node {one.config.node_id}", hint
    if all(member.config.learner_only for member in members):
        yield "learner_only", members[0], members[-1], "all nodes are learners", "without voters no cluster forms"


def _node_lists(members: Sequence[Member]) -> _Found:
    hint = "nodes is the same list in all files"
    for one, other in _against_first(members):
        here, there = ({node.id: node for node in member.config.nodes} for member in (one, other))
        for node_id in sorted({*here, *there}):
            first, second = here.get(node_id), there.get(node_id)
            if first is None or second is None:
                message = f"node {node_id} is only in nodes of {one.name if second is None else other.name}"
                yield "nodes", one, other, message, hint
            elif not _same_places(first, second):
                yield "nodes", one, other, f"node {node_id} is `{first}` and `{second}`", hint


def _same_places(one: NodeAddress, other: NodeAddress) -> bool:
    return [(one_name(host), port) for host, port in one.places] == [
        (one_name(host), port) for host, port in other.places
    ]


def _places(members: Sequence[Member]) -> _Found:
    for one, other in itertools.combinations(members, 2):
        here, there = one.config.address, other.config.address
        if here is None or there is None or here.id == there.id:
            continue
        taken = {(one_name(host), port) for host, port in here.places}
        for host, port in there.places:
            if (one_name(host), port) in taken:
                yield "nodes", one, other, f"both nodes listen on port {port} of {host}", "give each its own ports"
        folders = [os.path.normpath(member.config.data_path) for member in (one, other)]
        if _machine(here.raft_host) == _machine(there.raft_host) and folders[0] == folders[1]:
            hint = "on one host each node has a folder of its own, like data/{node_id}"
            yield "data_dir", one, other, f"both nodes keep their data in {folders[0]}", hint


def _machine(host: str) -> str:
    """The same text for all addresses by which a machine reaches itself."""
    name = one_name(host)
    return "localhost" if name == "::1" or re.fullmatch(r"127(?:\.[0-9]{1,3}){3}", name) else name


def _equal_keys(members: Sequence[Member]) -> _Found:
    for key, reason in EQUAL.items():
        for one, other in _against_first(members):
            if getattr(one.config, key) != getattr(other.config, key):
                yield key, one, other, _difference(key, one, other), reason
    for port in ("raft", "api"):
        for one, other in _against_first(members):
            if _speaks_tls(one, port) != _speaks_tls(other, port):
                message = f"one speaks TLS on the {port} port, the other does not"
                yield f"tls_{port}_key", one, other, message, "TLS is on for all nodes or for none"


def _speaks_tls(member: Member, port: str) -> bool:
    return member.config.tls_auto_certificates or getattr(member.config, f"tls_{port}_key") is not None


def _frames(members: Sequence[Member]) -> _Found:
    """A node refuses messages above its greatest entry and its own greatest message."""
    for one, other in itertools.permutations(members, 2):
        takes = max(other.config.max_entry_size, other.config.raft_frame_bytes_max)
        if one.config.raft_frame_bytes_max > takes:
            message = f"{other.name} refuses messages of the size that {one.name} sends"
            yield "raft_frame_bytes_max", one, other, message, "give both the same raft_frame_bytes_max"


def _timing(members: Sequence[Member]) -> _Found:
    """A leader's heartbeats must reach a follower before it loses patience, whichever of them leads."""
    slowest = max(members, key=lambda member: member.config.heartbeat_interval_ms)
    for member in members:
        settings = member.config.raft_settings()
        if settings.election_timeout_min_ms < 2 * slowest.config.heartbeat_interval_ms:
            message = (
                f"election_timeout_ms of {member.name} begins below twice the heartbeat_interval_ms of {slowest.name}"
            )
            yield "election_timeout_ms", member, slowest, message, "give all nodes the same two values"
