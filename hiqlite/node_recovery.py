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
from hiqlite.engine.model import Membership
from hiqlite.errors import LogCorruption, SnapshotCorruption, UsageError
from hiqlite.logstore.folder import DataFolder
from hiqlite.node_findings import Findings, findings
from hiqlite.node_group_storage import GroupStorage
from hiqlite.node_repair import repair_survivor
from hiqlite.node_storage import Storage
from hiqlite.node_survivors import survivors


@dataclass(frozen=True, slots=True)
class RecoveryReport:
    """What a survivor has. Of two survivors the one with the higher `last_term` has more, then the higher `last_index`.

    Attributes:
        cluster_id, new_cluster_id: in hex; empty where it is not known, and while nothing was written.
        voters, learners: ids, by the newest word of this node and of those that answered.
        alive: ids of other nodes of the old cluster that answered; `voting`: of these, the voters. Who began anew under
            a voter's id is none.
        not_asked: ids of other members whose address nobody knows.
        applied_index: what its database holds, all of it committed.
        last_index, last_term: of its log.
        damaged: closed ranges of entries that cannot be read here.
        missing: what of this node's data is damaged or gone, a sentence each: another survivor may have it.
    """

    node_id: int
    cluster_id: str
    voters: tuple[int, ...]
    learners: tuple[int, ...]
    alive: tuple[int, ...]
    voting: tuple[int, ...]
    not_asked: tuple[int, ...]
    applied_index: int
    last_index: int
    last_term: int
    damaged: tuple[tuple[int, int], ...]
    missing: tuple[str, ...] = ()
    new_cluster_id: str = ""

    @property
    def uncertain(self) -> int:
        """Entries that this node holds and does not know to be committed: with the recovery they are."""
        return max(self.last_index - self.applied_index, 0)

    @property
    def refusal(self) -> str:
        """Why this node cannot go on alone; empty when it can."""
        if self.voters == (self.node_id,) and not self.missing:
            return f"node {self.node_id} is the only voter: nothing is lost, start it"
        if self.voters == (self.node_id,):
            return ""  # nobody else ever had its data
        living = sum(1 for one in self.voters if one in (*self.voting, self.node_id))
        if living > len(self.voters) // 2:
            return f"the majority of the voters lives ({living} of {len(self.voters)}): start this node, it joins them"
        return ""


async def recover(config: NodeConfig, *, write: bool) -> RecoveryReport:
    """Look at the data folder of a survivor and, if `write`, make it a cluster of its own, with its data.

    Raises:
        UsageError: it cannot be; nothing was written. DataFolderInUse, StorageError: as for a start.
    """
    if not config.data_path.is_dir():
        raise UsageError(f"there is no data folder {config.data_path}: it is that of no cluster", hint="check data_dir")
    with DataFolder(config.data_path) as folder:
        found = await asyncio.to_thread(findings, config, folder)
    report = await _report(config, found)
    if not write:
        return report
    if report.refusal:
        raise UsageError(report.refusal)
    packed = msgpack.packb(
        [report.cluster_id, report.node_id, report.last_index, report.last_term, secrets.token_bytes(16)]
    )
    new_id = hashlib.sha256(b"recovered" + packed).digest()
    missing = report.missing
    if not missing:
        try:
            await _begin(config, new_id)
        except (LogCorruption, SnapshotCorruption) as damage:  # of what is not looked at without need
            missing = (damage.message,)
    if missing:
        done = await repair_survivor(config, new_id)
        missing = (*missing, *(one for one in done.lost if one not in missing))
    return replace(report, new_cluster_id=new_id.hex(), missing=missing)


async def _report(config: NodeConfig, found: Findings) -> RecoveryReport:
    def is_it(cluster_id: bytes) -> bool:
        if found.cluster_id is None:  # and where nothing says it anybody may be of the same one
            return len(cluster_id) > 0 and found.cluster in ("", cluster_id.hex())
        return cluster_id == found.cluster_id

    known = await survivors(config, found.members, found.book, is_it)
    applied_index, applied_term = found.applied
    last_term = found.log.runs[-1].term if found.log.runs else found.log.base_term
    return RecoveryReport(
        node_id=config.node_id,
        cluster_id=found.cluster_id.hex() if found.cluster_id is not None else "",
        voters=known.voters,
        learners=known.learners,
        alive=known.alive,
        voting=known.voting,
        not_asked=known.not_asked,
        applied_index=applied_index,
        last_index=found.readable_index,
        last_term=max(last_term, applied_term),
        damaged=found.log.faulty,
        missing=found.missing,
    )


async def _begin(config: NodeConfig, new_id: bytes) -> None:
    """It is the new cluster, once all of it is on disk."""
    storage = await Storage.open(config, asyncio.get_running_loop(), heals=False)
    try:
        # Behind all that the logs hold: no configuration of the old cluster is in force again. A group that forgets
        # forms anew among the database's voters.
        alone = {
            group.number: Membership(_last_index(group), (group.identity,))
            for group in storage.groups
            if not group.forgets and _newest(group) is not None
        }
        await storage.db.forget_cluster()
        await asyncio.wrap_future(storage.meta.worker.submit(storage.meta.begin_cluster, new_id, alone))
    finally:
        await storage.close()


def _newest(group: GroupStorage) -> Membership | None:
    known = [one for one in (group.membership(), *group.memberships) if one is not None]
    return max(known, key=lambda one: one.index, default=None)


def _last_index(group: GroupStorage) -> int:
    newest = _newest(group)
    return max(group.recovered.last_index, group.machine.applied_index, newest.index if newest else 0)
