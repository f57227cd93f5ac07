"""What one group of a node keeps: who it is here, its log and its membership; and what they say together at a start.

Part of the composition root: it connects the log store and a state machine, and decides only what their joint state
means for a start. Invariant: what a node says about itself afterwards is durable before it is said.
"""

from __future__ import annotations

import asyncio
import random
from abc import ABC, abstractmethod
from contextlib import AsyncExitStack, ExitStack
from dataclasses import replace
from pathlib import Path

from hiqlite import durable, observe
from hiqlite._accel import forks
from hiqlite._accel.records import header
from hiqlite.config import NodeConfig
from hiqlite.ending import Ending
from hiqlite.engine.model import Identity, Membership, Restored
from hiqlite.engine.ports import LogStore, StateMachine
from hiqlite.errors import LogCorruption, SnapshotCorruption, StorageError
from hiqlite.logstore.aside import Aside
from hiqlite.logstore.folder import DB, GROUP_NAMES, DataFolder
from hiqlite.logstore.memory import MemoryLog
from hiqlite.logstore.meta import Meta
from hiqlite.logstore.recovered import Recovered
from hiqlite.logstore.wal import SEGMENT_BYTES_MIN, WalLog
from hiqlite.runtime.membership_record import memberships_in
from hiqlite.runtime.renouncing import first_life

HINT_ALONE = "nobody else has these data: restore a backup, or keep what can be read: `hiqlite recover --repair`"
HINT_BACKUP = "nobody else has these data: restore a backup"
HINT_REFUSED = "check the disk and the permissions"
log = observe.logger("node")


def cluster_of(meta: Meta) -> tuple[str, ...]:
    """As `Aside` names it; empty: of none yet."""
    return (meta.cluster_id.hex(),) if meta.cluster_id is not None else ()


class GroupStorage(ABC):
    """Of one group; the kinds of groups differ by their state machine, which they open between the two steps here.

    Args:
        number: of the group.
        in_memory: its log is not kept, and each start is a new incarnation of this node.
    """

    log: LogStore
    recovered: Recovered

    def __init__(
        self,
        number: int,
        config: NodeConfig,
        folder: DataFolder,
        meta: Meta,
        loop: asyncio.AbstractEventLoop,
        *,
        in_memory: bool = False,
    ) -> None:
        self.number = number
        self.config = config
        self.meta = meta
        self.newest_group_time_ns = 0
        self.memberships: tuple[Membership, ...] = ()  # that the log holds, ascending
        self._folder = folder
        self._loop = loop
        self._aside = Aside(folder.path)
        self.forgets = in_memory  # whether this node's part of the group ends with the process
        self._stack = AsyncExitStack()
        self._machine_stack = AsyncExitStack()  # ends before the log
        self._abrupt, self._machine_abrupt = ExitStack(), ExitStack()  # the same without a loop
        self._ending = Ending()
        forks.watch(self)
        self.identity = self._identify()

    @property
    @abstractmethod
    def machine(self) -> StateMachine:
        """The state machine, once it is open."""

    def open_log(self) -> None:
        """Raises LogCorruption when it lost what had been synced, and other kinds of StorageError."""
        config = self.config
        if self.forgets:
            self.log, self.recovered = MemoryLog(self._loop), Recovered()
            self._stack.push_async_callback(self.log.close)
            return
        folder = self._folder.log(self.number)
        for place in (self._folder.log_folder, folder):
            try:
                is_right = durable.is_folder(place) or not durable.exists(place)
            except OSError as error:
                raise StorageError(f"cannot use {place}: {error.strerror}", hint=HINT_REFUSED) from error
            if not is_right:
                raise LogCorruption(f"{place} is no folder", hint=HINT_ALONE)
        self.log, self.recovered = WalLog.open(
            folder,
            self.meta,
            group=self.number,
            identity=self.identity,
            segment_bytes=max(config.wal_size, SEGMENT_BYTES_MIN),
            log_sync=config.log_sync,
            loop=self._loop,
        )
        self._stack.push_async_callback(self.log.close)
        self._abrupt.callback(self.log.let_go)
        if not self.recovered.whole:
            raise LogCorruption(
                f"the log in {folder} lost what had been synced: {self.recovered.corrupt or 'segments'}",
                hint=HINT_ALONE,
            )
        if self.recovered.faulty and self.is_alone:
            low, high = self.recovered.faulty[0]
            raise LogCorruption(f"entries {low} to {high} of the log in {folder} are damaged", hint=HINT_ALONE)

    @property
    def is_alone(self) -> bool:
        """Whether nobody else can give what is damaged here."""
        members = self.membership()
        voters = members.voters + members.outgoing if members is not None else ()
        return not any(one.id != self.config.node_id for one in voters)

    @abstractmethod
    def open_machine(self) -> None:
        """Raises SnapshotCorruption when its state is damaged or missing, and other kinds of StorageError."""

    @abstractmethod
    def drop_state(self) -> None:
        """Moves the state machine's state out of the way; it begins empty."""

    @abstractmethod
    def distrust(self, evidence: str = "") -> None:
        """The state was found damaged in use: the next start does not trust it. `evidence`: it is to be kept, and this
        is written beside it."""

    async def open_parts(self) -> None:
        """Log and state machine, each as far as it can be trusted.

        Raises:
            LogCorruption, SnapshotCorruption: nothing here makes up for what is damaged. StorageError.
        """
        self.open_log()
        self._stack.push_async_callback(self._machine_stack.aclose)
        self._abrupt.callback(self._machine_abrupt.close)
        try:
            self.open_machine()
            await self._compare()
        except SnapshotCorruption as damage:
            if self.recovered.base_index > 0:
                damage.hint = HINT_BACKUP if self.number == DB else HINT_ALONE
                raise
            log.error("%s: %s; all of it is applied anew from the log", GROUP_NAMES[self.number], damage.message)
            await self._machine_stack.aclose()
            self._machine_abrupt.pop_all()
            self.drop_state()
            self.open_machine()
        await self._look_at_log()

    async def _compare(self) -> None:
        """The state must be one that this log leads to. Raises SnapshotCorruption."""
        found, machine = self.recovered, self.machine
        index, what = machine.applied_index, f"the state of the {GROUP_NAMES[self.number]} group in {self._folder.path}"
        if index < found.base_index:
            raise SnapshotCorruption(f"{what} ends at entry {index}, the log begins behind entry {found.base_index}")
        term = next((run.term for run in found.runs if run.first <= index <= run.last), 0)
        if term == 0 or term != machine.applied_term or any(low <= index <= high for low, high in found.faulty):
            return  # there is nothing to compare: it is ahead of its log, or the log holds something else there
        _, record = await self.log.read(index, 1)
        if header(record, 0).group_time_ns != machine.applied_group_time_ns:
            raise SnapshotCorruption(f"{what} is not one that its log leads to: entry {index} is another one")

    async def _look_at_log(self) -> None:
        """With the state machine open: where the log begins anew, and what it says of time and members."""
        if self._log_lacks_what_is_applied():
            await self._begin_behind_the_machine()
        self.newest_group_time_ns = self.machine.applied_group_time_ns
        newest = self.recovered.newest_readable
        if newest > self.recovered.base_index:
            _, record = await self.log.read(newest, 1)
            self.newest_group_time_ns = max(self.newest_group_time_ns, header(record, 0).group_time_ns)
        for index in self.recovered.memberships:
            _, record = await self.log.read(index, 1)
            self.memberships += memberships_in(record)

    def _log_lacks_what_is_applied(self) -> bool:
        """The log ends before what is applied, or holds another entry there: one that never was committed, from
        before an image was installed (a crash came between that and the log's own cut)."""
        index, found = self.machine.applied_index, self.recovered
        if index > found.last_index:
            return True
        terms = [run.term for run in found.runs if run.first <= index <= run.last]
        if index == found.base_index:
            terms = [found.base_term]
        return bool(terms) and index > 0 and terms[0] != self.machine.applied_term

    async def _begin_behind_the_machine(self) -> None:
        """The state machine is ahead of its log: a loss of power took what only the log had (semantics.md section 3).

        The log begins anew behind what is applied; the engine acknowledges nothing until a leader's log confirms that
        entry, or this node is elected. The state stands in synced files, and moves into the database's own soon.
        """
        index, term = self.machine.applied_index, self.machine.applied_term
        log.warning(
            "the log ends at %d, the database is at %d: the log begins anew there", self.recovered.last_index, index
        )
        assert isinstance(self.log, WalLog), "what is in memory only begins with nothing applied"
        io_sequence = await self.log.restart_at(index, term)
        self.machine.set_synced_index(index)
        self.machine.make_durable()
        self.recovered = replace(
            self.recovered, runs=(), base_index=index, base_term=term, io_sequence=io_sequence, faulty=(),
            memberships=(),
        )  # fmt: skip

    def _identify(self) -> Identity:
        """This node's identity in the group: durable before anybody hears of it."""
        incarnation, forgot = self.meta.incarnation(self.number), self.meta.in_memory(self.number)
        if incarnation is None or self.forgets or forgot:
            incarnation = self._new_incarnation()
            # It never got so far as to come back; to a group that forgets nobody does.
            returns = self.meta.returns(self.number) and not self.forgets and not forgot
            self.meta.begin_incarnation(self.number, incarnation, in_memory=self.forgets, returns=returns)
        return Identity(self.config.node_id, incarnation)

    def _new_incarnation(self) -> int:
        return first_life()

    @property
    def returns(self) -> bool:
        """Whether this node comes back without what it had promised: it founds no group, it is taken back."""
        return not self.forgets and self.meta.returns(self.number)

    @property
    def lost(self) -> str:
        """Of a node that comes back: in which group, and where it lies; for the log."""
        try:
            place = f" (see {self._aside.folder})" if self._aside.holds_anything else ""
        except StorageError as error:
            place = f" ({error.message})"
        return f" in the {GROUP_NAMES[self.number]} group{place}"

    def _put_aside(self, path: Path) -> None:
        """Out of the way; whose it is, is said first. Raises StorageError."""
        self._aside.say_whose(*cluster_of(self.meta))
        self._aside.put(path)

    # -- members

    def membership(self) -> Membership | None:
        """The membership in force, as far as this node knows; None while it has not formed or joined."""
        return self.meta.membership(self.number)

    async def record(self, voters: tuple[Identity, ...], cluster_id: bytes) -> None:
        """The set that forms; durable when this returns."""
        await asyncio.wrap_future(self.meta.worker.submit(self.meta.set_formed, self.number, cluster_id, voters))

    async def form(self, voters: tuple[Identity, ...]) -> None:
        """The recorded set acts from now on; durable when this returns."""
        await self.record_membership(Membership(0, voters))

    async def join(self, members: Membership, cluster_id: bytes) -> None:
        """A member of a group that has formed without this incarnation; durable when this returns."""
        await asyncio.wrap_future(self.meta.worker.submit(self.meta.set_joined, self.number, cluster_id, members))

    async def renounce(self, set_id: bytes) -> None:
        """A recorded set that this node does not form with by itself any more; durable when this returns."""
        await asyncio.wrap_future(self.meta.worker.submit(self.meta.set_renounced, self.number, set_id))

    async def record_membership(self, membership: Membership) -> None:
        """A committed configuration; durable when this returns."""
        await asyncio.wrap_future(self.meta.worker.submit(self.meta.set_membership, self.number, membership))

    # -- the engine's start

    async def restored(self, membership: Membership) -> Restored:
        """What the engine starts from. An incarnation that began behind a database knows the term of its last entry:
        none behind that is of an older one."""
        found = self.recovered
        term, vote = found.term, found.vote
        if term < self.machine.applied_term:
            term, vote = self.machine.applied_term, None
        return Restored(
            term=term,
            vote=vote,
            membership=membership,
            runs=found.runs,
            base_index=found.base_index,
            base_term=found.base_term,
            applied_index=self.machine.applied_index,
            applied_term=self.machine.applied_term,
            io_sequence=found.io_sequence,
            faulty=found.faulty,
            memberships=self.memberships,
        )

    def chance(self) -> int:
        """A seed for the engine's timeouts, different on every start."""
        return random.SystemRandom().getrandbits(48)

    async def close(self) -> None:
        await self._ending.reach(self._close)

    async def _close(self) -> None:
        await self._stack.aclose()
        self._abrupt.pop_all()
        forks.forget(self)

    def let_go(self) -> None:
        """`close` without a loop, for who cannot wait for anything any more."""
        self._abrupt.close()
        forks.forget(self)

    def left_to_parent(self) -> None:
        """In a forked child: what is open here is told by itself; this is only kept from being freed."""
        return
