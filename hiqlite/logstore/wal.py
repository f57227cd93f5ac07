"""The durable log of one group: ports.LogStore over the native log, the metadata and the event loop.

Must not know Raft's rules or SQL. Where the work is done: writing and syncing on the native log thread, metadata on the
node's metadata thread, reading old entries on a thread of this log, and nothing but hand-over on the loop.
Invariant: `synced` never names an io sequence before the records up to it, the term and vote among them (log and
metadata both), and the name of the segment they stand in are durable by the meaning of `log_sync`.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

from hiqlite import durable, observe
from hiqlite._accel import forks
from hiqlite._accel import wal as native
from hiqlite.ending import Ending
from hiqlite.engine.model import Identity
from hiqlite.errors import ConfigError, LogCorruption, StorageError, UsageError

from .memory import was_purged
from .meta import Meta
from .recovered import Recovered
from .recovery import recover
from .segments import SegmentFolder
from .starting import parse_log_sync, report, settle, start_native
from .worker import Worker

SEGMENT_BYTES_MIN = 16 << 10
STOP_LIMIT_S = 10.0


class WalLog:
    """The log of one group on disk; use `open`. All calls come from the loop's thread."""

    def __init__(
        self, log: native.NativeLog, meta: Meta, group: int, recovered: Recovered, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._log = log
        self._meta = meta
        self._group = group
        self._loop = loop
        self._callback: Callable[[], None] | None = None
        self._base_index, self._last_index = recovered.base_index, recovered.last_index
        self._term, self._vote = recovered.term, recovered.vote
        self._last_io = recovered.io_sequence
        self._cut_io = 0  # of the newest truncation: reads wait until the native index knows it
        self._cuts = 0
        self._purges: deque[tuple[int, int]] = deque()  # (index, term) whose mark is not durable yet, ascending
        self._resets: deque[tuple[int, int, int]] = deque()  # (io sequence, index, term) not yet durable, ascending
        self._votes: deque[int] = deque()  # io sequences whose metadata is not durable yet, ascending
        self._waiters: list[asyncio.Future[None]] = []
        self._failure: Exception | None = None
        self._reader = Worker(f"hiqlite-log-read-{group}")
        self._closed = False
        self._ending = Ending()

    @classmethod
    def open(
        cls,
        folder: Path,
        meta: Meta,
        *,
        group: int,
        identity: Identity,
        segment_bytes: int,
        log_sync: str,
        loop: asyncio.AbstractEventLoop | None = None,
        accept_loss: bool = False,
    ) -> tuple[WalLog, Recovered]:
        """Recovers the log in `folder` and starts it; what it holds is on disk when this returns.

        A log that is `lost` or `corrupt` is recovered, read only and left as it is on disk: a single node stops with
        what `Recovered` says; a member of a cluster makes a new incarnation durable first, then opens it again with
        `accept_loss=True`, which cuts it where the damage begins.

        Args:
            segment_bytes: size of a segment; a longer entry gets one of its own.
            log_sync: `immediate`, `immediate_async` or `interval_<ms>`.
            loop: the running loop when None.

        Raises:
            ConfigError: `log_sync` or `segment_bytes` make no sense.
            StorageError: the files cannot be read or written, or are of another format.
        """
        mode, interval_ns = parse_log_sync(log_sync)
        if segment_bytes < SEGMENT_BYTES_MIN:
            raise ConfigError(f"wal_size {segment_bytes} is too small", hint=f"at least {SEGMENT_BYTES_MIN} bytes")
        loop = loop or asyncio.get_running_loop()
        try:
            durable.make_folder(folder)
            if not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))  # else it stops with the next segment
            files = SegmentFolder(folder)
            plan = recover(
                files,
                group=group,
                node_id=identity.id,
                newest_named=meta.newest_segment(group),
                purge_point=meta.purge_point(group),
                incarnation=0 if accept_loss else identity.incarnation,
            )
            usable = plan.recovered.whole or accept_loss
            if usable:
                settle(files, plan)
                if meta.newest_segment(group) != max(plan.kept, default=0):
                    meta.set_newest_segment(group, max(plan.kept, default=0))
                if plan.recovered.base_index > meta.purge_point(group)[0]:
                    meta.set_purge_point(group, plan.recovered.base_index, plan.recovered.base_term)
            log = start_native(folder, plan, group, identity, segment_bytes, mode, interval_ns, usable)
        except OSError as error:
            hint = "check the disk and the permissions"
            raise StorageError(f"cannot open the log in {folder}: {error.strerror}", hint=hint) from error
        kept = meta.hard_state(group)
        recovered = plan.recovered.with_hard_state(kept.term, kept.vote)
        report(folder, recovered)
        opened = cls(log, meta, group, recovered, loop)
        forks.watch(opened)
        if usable and plan.anew:
            # Else what comes next would stand behind what the log still tells of an older history.
            recovered = replace(recovered, io_sequence=recovered.io_sequence + 1)
            opened.reset(recovered.io_sequence, recovered.base_index, recovered.base_term)
        loop.call_soon_threadsafe(opened._listen)
        return opened, recovered

    # ------------------------------------------------------------------ the port's writing half

    def append(self, io_sequence: int, first: int, last: int, records: bytes) -> None:
        """Entries `[first, last]`; `records` are their sealed records, one behind the other."""
        self._log.append(io_sequence, first, last, records)
        self._last_io, self._last_index = io_sequence, last

    def truncate(self, io_sequence: int, last_kept: int) -> None:
        """Cuts every entry behind `last_kept`."""
        self._log.truncate(io_sequence, last_kept)
        self._last_io = self._cut_io = io_sequence
        self._cuts += 1
        self._last_index = min(self._last_index, last_kept)

    def hard_state(self, io_sequence: int, term: int, vote: Identity | None) -> None:
        """Term and vote, in the log and in the metadata."""
        self._log.hard_state(io_sequence, term, vote.id if vote else 0, vote.incarnation if vote else 0)
        self._last_io = io_sequence
        self._term, self._vote = term, vote
        self._votes.append(io_sequence)
        self._put(lambda: self._votes.popleft(), self._meta.set_hard_state, self._group, term, vote)

    def append_repair(self, io_sequence: int, first: int, last: int, records: bytes) -> None:
        """Entries `[first, last]`, which this log holds but cannot read, once more: `records` as a peer sent them."""
        if first <= self._base_index or last > self._last_index:
            raise UsageError(f"entries {first} to {last} are not in the log ({self._base_index}, {self._last_index}]")
        self._log.append_repair(io_sequence, first, last, records)
        self._last_io = self._cut_io = io_sequence
        self._cuts += 1

    def purge(self, index: int, term: int) -> None:
        """Everything up to entry `index` of `term` may go; the mark, the metadata, then the files, in this order.

        The caller vouches that the database is durable up to there. Nothing of it can be read from here on. The files
        follow when nothing in them lies above `index`; some are used again.
        """
        if index <= self._base_index:
            return
        if index > self._last_index:
            raise UsageError(f"cannot purge up to entry {index}: the last one is {self._last_index}")
        vote = self._vote or Identity(0, 0)
        self._log.purge(term, index, self._term, vote.id, vote.incarnation)
        self._base_index = index
        self._purges.append((index, term))

    def reset(self, io_sequence: int, index: int, term: int) -> None:
        """Empties the log: it begins behind (index, term), which is not below its base: an image stands for all of it.

        A crash before that is durable leaves the old log behind the image; see `Storage` for what a start makes of it.
        """
        if index < self._base_index:
            raise UsageError(f"the log begins behind entry {self._base_index}, it cannot begin behind {index}")
        vote = self._vote or Identity(0, 0)
        self._log.restart(io_sequence, term, index, self._term, vote.id, vote.incarnation)
        self._last_io = self._cut_io = io_sequence
        self._cuts += 1
        self._base_index = self._last_index = index
        self._resets.append((io_sequence, index, term))

    async def restart_at(self, index: int, term: int) -> int:
        """Empties the log: it begins behind (index, term). Returns the io sequence used, durable by now.

        For a database that is ahead of its log, before the engine starts (semantics.md section 3).
        """
        # The metadata first: of two purge points the higher one rules, and this one may be lower than the last.
        await asyncio.wrap_future(self._meta.worker.submit(self._meta.set_purge_point, self._group, index, term))
        io_sequence = self._last_io + 1
        vote = self._vote or Identity(0, 0)
        self._log.restart(io_sequence, term, index, self._term, vote.id, vote.incarnation)
        self._last_io = self._cut_io = io_sequence
        self._cuts += 1
        self._base_index = self._last_index = index
        while self.synced < io_sequence:
            await self._progress()
        return io_sequence

    # ------------------------------------------------------------------ what came of it

    def on_progress(self, callback: Callable[[], None]) -> None:
        self._callback = callback

    @property
    def written(self) -> int:
        return self._log.written

    @property
    def synced(self) -> int:
        synced = self._log.synced
        return min(synced, self._votes[0] - 1) if self._votes else synced

    @property
    def base_index(self) -> int:
        """The last entry that was purged: the log begins behind it."""
        return self._base_index

    @property
    def queued_bytes(self) -> int:
        return self._log.queued_bytes

    @property
    def held_bytes(self) -> int:
        """What the segments take on the disk, but for those of giant entries."""
        return self._log.held_bytes

    @property
    def failure(self) -> Exception | None:
        if self._failure is None:
            self._failure = self._log.failure
        return self._failure

    @property
    def disk_full(self) -> bool:
        """No space ahead: refuse new work; turns false again by itself. What was taken waits and is not lost."""
        return self._log.disk_full

    @property
    def progress_stamp_ns(self) -> int:
        """Boot clock when a flush, or a slice of one, last completed."""
        return self._log.progress_stamp_ns

    @property
    def busy(self) -> bool:
        """Work waits for the disk: only then is an old `progress_stamp_ns` a stall."""
        return self._log.queued_bytes > 0

    @property
    def waiting_since_ns(self) -> int:
        """Boot clock since when work waits without progress; 0 when none waits."""
        return self._log.progress_stamp_ns if self.busy else 0

    @property
    def counters(self) -> tuple[int, int, int]:
        """(flushes, fsyncs, bytes of records) since the start."""
        return self._log.counters

    # ------------------------------------------------------------------ reading

    async def read(self, first: int, size_max: int) -> tuple[int, bytes]:
        """Records from index `first` on, up to `size_max` bytes, at least one: (last index, bytes).

        Raises:
            LogPurged: it was in this log, and is purged.
            LogCorruption: that entry is damaged on this disk.
            StorageError: it is not in this log, or the disk refuses.
        """
        while True:
            while self._log.written < self._cut_io or self._log.last_index < first <= self._last_index:
                await self._progress()
            cuts = self._cuts
            if first <= self._base_index:
                raise was_purged(first, self._base_index)
            try:
                last, records = await asyncio.wrap_future(self._reader.submit(self._log.read, first, size_max))
            except native.ReadAbsent as error:
                if first <= self._base_index:
                    raise was_purged(first, self._base_index) from error
                raise StorageError(str(error), hint="it was never written here, or cut") from error
            except native.ReadDamaged as error:
                raise LogCorruption(str(error), hint="it has to be fetched from another node") from error
            except OSError as error:
                raise StorageError(f"cannot read entry {first}: {error.strerror}", hint="check the disk") from error
            if cuts == self._cuts:
                return last, records

    async def close(self) -> None:
        """Writes and syncs what waits, ends the threads (a hanging disk gets 10 s). May be called again."""
        await self._ending.reach(self._close)

    async def _close(self) -> None:
        self._closed = True
        self._loop.remove_reader(self._log.fileno())
        in_time = await asyncio.wrap_future(self._reader.submit(self._log.stop, int(STOP_LIMIT_S * 1e6)))
        if not in_time:
            observe.logger("logstore").error("the disk did not answer for %s s; the log is left as it is", STOP_LIMIT_S)
        while self._votes and self.failure is None:
            await self._progress()
        self._name_segment()
        await asyncio.wrap_future(self._meta.worker.submit(int))  # what was put for this log is done
        self._log.drain()
        self._reader.close()
        if in_time:
            self._log.close_files()
        forks.forget(self)

    def let_go(self) -> None:
        """`close` without a loop, for who cannot wait for anything any more."""
        self._closed = True
        in_time = self._log.stop(int(STOP_LIMIT_S * 1e6))
        self._reader.close()
        if in_time:
            self._log.close_files()
        forks.forget(self)

    def left_to_parent(self) -> None:
        """In a forked child: nobody listens to what the parent's threads say."""
        self._closed = True

    # ------------------------------------------------------------------ inside

    def _listen(self) -> None:
        if not self._closed:
            self._loop.add_reader(self._log.fileno(), self._on_wake)
            self._on_wake()

    def _on_wake(self) -> None:
        if self._closed:  # only in a forked child: the wake-up is the parent's
            return
        self._log.drain()
        self._name_segment()
        self._name_purged()
        self._tell()

    def _name_segment(self) -> None:
        number = self._log.take_segment()
        if number:
            self._put(self._segment_named, self._meta.set_newest_segment, self._group, number)

    def _segment_named(self) -> None:
        self._log.segment_recorded()
        self._name_segment()
        self._name_purged()  # a reset may count as synced from here on

    def _name_purged(self) -> None:
        """Purge marks that are durable: the metadata follow, and then the files."""
        marked, points = self._log.purge_marked if self._purges else 0, []
        while self._resets and self._resets[0][0] <= self._log.synced:
            points.append(self._resets.popleft()[1:])
        while self._purges and self._purges[0][0] <= marked:
            points.append(self._purges.popleft())
        if points:
            index, term = max(points)
            self._put(lambda: self._log.recycle(index), self._meta.set_purge_point, self._group, index, term)

    def _put(self, then: Callable[[], object], call: Callable[..., None], *arguments: Any) -> None:
        """A metadata transaction off the loop; `then` on the loop when it is durable."""

        def done(future: Future[None]) -> None:
            try:
                self._loop.call_soon_threadsafe(self._put_done, future, then)
            except RuntimeError:
                observe.logger("logstore").warning("the loop closed before its log did")

        self._meta.worker.submit(call, *arguments).add_done_callback(done)

    def _put_done(self, future: Future[None], then: Callable[[], object]) -> None:
        error = future.exception()
        if error is None:
            then()
        elif self._failure is None:
            self._failure = error if isinstance(error, Exception) else StorageError(str(error))
        self._tell()

    def _tell(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
        if self._callback is not None and not self._closed:
            self._callback()

    async def _progress(self) -> None:
        """Until something is published; raises what the log failed with."""
        if self.failure is not None:
            raise self.failure
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiters.append(waiter)
        await waiter
