"""A cluster that lost its majority for good goes on as a cluster of one: what that costs, and how it is done.

Part of the composition root; works on a data folder that no node uses. Invariants: nothing is written before the report
was made; everything that makes the new cluster is written in one step; it has another id than the old one, so that
nobody of the old one ever takes part in it, or it in the old one.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from dataclasses import dataclass, replace

import msgpack

from hiqlite.config import NodeConfig
from hiqlite.engine.change import members_of
from hiqlite.engine.model import Identity, Membership
from hiqlite.errors import HiqliteError, UsageError
from hiqlite.logstore.folder import CACHE
from hiqlite.node_group_storage import GroupStorage
from hiqlite.node_storage import Storage
from hiqlite.transport.rpc import call

ASK_S = 2.0


@dataclass(frozen=True, slots=True)
class RecoveryReport:
    """What a survivor has. Of two survivors the one with the higher `last_term` has more, then the higher `last_index`.

    Attributes:
        cluster_id, new_cluster_id: in hex; the new one is empty while nothing was written.
        voters, learners: ids, as this node knew them last.
        alive: ids of other nodes of the old cluster that answered.
        applied_index: what its database holds, all of it committed.
        last_index, last_term: of its log.
        damaged: closed ranges of entries that cannot be read here.
    """

    node_id: int
    cluster_id: str
    voters: tuple[int, ...]
    learners: tuple[int, ...]
    alive: tuple[int, ...]
    applied_index: int
    last_index: int
    last_term: int
    damaged: tuple[tuple[int, int], ...]
    new_cluster_id: str = ""

    @property
    def uncertain(self) -> int:
        """Entries that this node holds and does not know to be committed: with the recovery they are."""
        return max(self.last_index - self.applied_index, 0)

    @property
    def refusal(self) -> str:
        """Why this node cannot go on alone; empty when it can."""
        if self.voters == (self.node_id,):
            return f"node {self.node_id} is the only voter: nothing is lost, start it"
        living = sum(1 for one in self.voters if one in (*self.alive, self.node_id))
        if living > len(self.voters) // 2:
            return f"the majority of the voters lives ({living} of {len(self.voters)}): start this node, it joins them"
        if self.damaged:
            return f"entries of its log are damaged ({self.damaged[0][0]} is the first): take another survivor"
        return ""


async def recover(config: NodeConfig, *, write: bool) -> RecoveryReport:
    """Look at the data folder of a survivor and, if `write`, make it a cluster of its own, with its data.

    Raises:
        UsageError: it cannot be; nothing was written. DataFolderInUse, StorageError: as for a start.
    """
    storage = await Storage.open(config, asyncio.get_running_loop(), heals=False)
    try:
        report = await _look(config, storage)
        if write:
            if report.refusal:
                raise UsageError(report.refusal)
            new_id = await _begin(storage, report)
            report = replace(report, new_cluster_id=new_id.hex())
        return report
    finally:
        await storage.close()


async def _look(config: NodeConfig, storage: Storage) -> RecoveryReport:
    db, cluster_id = storage.db, storage.meta.cluster_id
    found = _newest(db)
    if found is None or cluster_id is None:
        raise UsageError(
            f"the data folder {config.data_path} is that of no cluster: there is nothing to recover",
            hint="a node whose folder is empty joins its cluster when it is started",
        )
    if storage.cache is None and storage.meta.membership(CACHE) is not None:
        raise UsageError("this node has data of a cache group that its config switches off", hint="set cache = true")
    log = db.recovered
    last_term = log.runs[-1].term if log.runs else log.base_term
    return RecoveryReport(
        node_id=config.node_id,
        cluster_id=cluster_id.hex(),
        voters=_ids(found.voters + found.outgoing),
        learners=_ids(found.learners),
        alive=await _alive(config, _ids(members_of(found)), cluster_id),
        applied_index=db.machine.applied_index,
        last_index=max(log.last_index, db.machine.applied_index),
        last_term=max(last_term, db.machine.applied_term),
        damaged=log.faulty,
    )


async def _alive(config: NodeConfig, ids: tuple[int, ...], cluster_id: bytes) -> tuple[int, ...]:
    """Members of the old cluster that answer at the addresses of the config."""

    async def answers(host: str, port: int) -> bool:
        try:
            word = await call(host, port, config.secret_api or "", "members", None, ASK_S)
        except HiqliteError:
            return False
        return isinstance(word, dict) and word.get("cluster_id") == cluster_id

    others = [node for node in config.nodes if node.id in ids and node.id != config.node_id]
    answered = await asyncio.gather(*(answers(node.api_host, node.api_port) for node in others))
    return tuple(node.id for node, alive in zip(others, answered, strict=True) if alive)


async def _begin(storage: Storage, report: RecoveryReport) -> bytes:
    """The new cluster's id, once all of it is on disk."""
    old_id = bytes.fromhex(report.cluster_id)
    packed = msgpack.packb([old_id, report.node_id, report.last_index, report.last_term, secrets.token_bytes(16)])
    new_id = hashlib.sha256(b"recovered" + packed).digest()
    # Behind all that the logs hold: no configuration of the old cluster is in force again. A group that forgets forms
    # anew among the database's voters.
    alone = {
        group.number: Membership(_last_index(group), (group.identity,))
        for group in storage.groups
        if not group.forgets and _newest(group) is not None
    }
    await storage.db.forget_cluster()
    await asyncio.wrap_future(storage.meta.worker.submit(storage.meta.begin_cluster, new_id, alone))
    return new_id


def _newest(group: GroupStorage) -> Membership | None:
    known = [one for one in (group.membership(), *group.memberships) if one is not None]
    return max(known, key=lambda one: one.index, default=None)


def _last_index(group: GroupStorage) -> int:
    newest = _newest(group)
    return max(group.recovered.last_index, group.machine.applied_index, newest.index if newest else 0)


def _ids(members: tuple[Identity, ...]) -> tuple[int, ...]:
    return tuple(sorted({one.id for one in members}))
