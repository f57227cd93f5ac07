"""The state machine of the `db` group: committed entries in, answers out, each run one SQLite transaction.

A native thread owns the writer connection (`_accel/apply`); this room opens it, decides which thread applies a run,
tells the loop, and closes it. Must not know: Raft, peers, futures, what an answer means. Invariant: entries are applied
in the order of their indexes, and where the database stands is written in the transaction that changed it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import apsw

from hiqlite import observe
from hiqlite._accel import apply, forks, guard
from hiqlite._accel.apply import HASH_EVERY, AppliedRun, Applier, Trial
from hiqlite.ending import Ending
from hiqlite.errors import ShuttingDown, StorageError

from .connection import ConnectionSettings, open_reader, open_writer, translated
from .cpus import cpus_of
from .outcome import SYNC_FAILED, failure_of
from .trial import Trials

# A run that is predicted to end within this time is applied on the loop in mode `auto`: waking a thread costs as much.
INLINE_NS_MAX = 250_000
# How long `close` waits for a run that is under way before it interrupts it; nothing is lost, the log repeats the run.
CLOSE_PATIENCE_S = 0.5
CLOSE_RETRY_S = 0.05
HASHES_MAX = 64

ApplyThread = Literal["auto", "always", "inline"]


@dataclass(frozen=True, slots=True)
class WriterSettings:
    """How a state machine is opened.

    Args:
        apply_thread: `always` the native thread; `inline` always the loop; `auto` the loop for short runs while the
            thread is idle.
        cpu_affinity: CPUs that the thread is bound to: `auto` (one core from 4 cores up, else free), `none`, or their
            numbers.
        kept_bytes: of the disk that no trial may take.
    """

    connection: ConnectionSettings = field(default_factory=ConnectionSettings)
    apply_thread: str = "auto"
    cpu_affinity: str | Sequence[int] = "none"
    kept_bytes: int = 0


class Writer:
    """A database and the thread that applies entries to it; implements `engine.ports.StateMachine`."""

    def __init__(
        self,
        path: Path,
        connections: Sequence[apsw.Connection],
        applier: Applier,
        settings: WriterSettings,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._path = path
        self._connections = connections
        self._applier = applier
        self._settings = settings
        self._mode: ApplyThread = settings.apply_thread  # type: ignore[assignment]  # checked in `open`
        self._loop = loop
        self._callback: Callable[[], None] | None = None
        self._taken: list[AppliedRun] = []
        self._announced = False
        self._stopped: asyncio.Event = asyncio.Event()
        self._ending = Ending()  # of what is open now
        self._trials = Trials(applier, path.parent, loop, settings.kept_bytes)
        self._given_up = False  # `close` was called: nothing is opened any more
        self._closed = False
        self._final_index = 0
        self._final_term = 0
        self._final_group_time_ns = 0
        self._synced_index = 0
        loop.add_reader(applier.fileno, self._wake)
        forks.watch(self, applier.fileno)

    @classmethod
    def open(
        cls, path: Path, settings: WriterSettings | None = None, loop: asyncio.AbstractEventLoop | None = None
    ) -> Writer:
        """Opens (or makes) the database and starts the thread.

        Raises:
            DataFolderInUse, DiskFull, StorageError: as `connection.open_writer`.
        """
        settings = settings or WriterSettings()
        if settings.apply_thread not in ("auto", "always", "inline"):
            raise ValueError(f"apply_thread must be auto, always or inline, not {settings.apply_thread!r}")
        connections, applier = start_applier(path, settings)
        return cls(path, connections, applier, settings, loop or asyncio.get_running_loop())

    # -- the port

    @property
    def applied_index(self) -> int:
        """Index of the last entry that is committed in the database."""
        return self._final_index if self._closed else self._applier.applied_index

    @property
    def applied_term(self) -> int:
        return self._final_term if self._closed else self._applier.applied_term

    @property
    def applied_group_time_ns(self) -> int:
        """The newest group time of an entry that is committed in the database."""
        return self._final_group_time_ns if self._closed else self._applier.group_time_ns

    @property
    def durable_index(self) -> int:
        """Everything up to here is in the database file, and that is synced; at most `applied_index`."""
        return 0 if self._closed else self._applier.durable_index

    def make_durable(self) -> None:
        """Move what is applied into the database file soon, however little it is; `durable_index` tells when."""
        if not self._closed:
            self._applier.ask_checkpoint()

    @property
    def queued_bytes(self) -> int:
        return 0 if self._closed else self._applier.queued_bytes

    @property
    def failure(self) -> StorageError | None:
        """Why applying stopped by itself; `resume` tries again."""
        failure = None if self._closed else self._applier.failure
        return None if failure is None else failure_of(*failure)

    @property
    def broken(self) -> bool:
        """A sync failed: the next one would succeed, whatever is on the disk."""
        return not self._closed and (self._applier.failure or (0,))[0] in SYNC_FAILED

    def submit(self, first: int, last: int, last_term: int, records: Sequence[bytes], answers: bool) -> bool:
        """Hand over the committed entries `[first, last]`, `last` being of `last_term`.

        Args:
            records: bytes objects of whole records, in order.
            answers: whether somebody here waits for what the entries give.

        Returns:
            Whether it was applied, or failed, within this call.
        """
        pieces = list(records)
        if self._closed:
            return False  # what is committed is in the log
        if not self._here(pieces):
            self._applier.submit(first, last, last_term, pieces, answers)
            return False
        # In mode `auto` a statement that was never seen, or was slow of late, is the thread's.
        is_over = self._applier.apply_inline(first, last, last_term, pieces, answers, self._mode == "auto")
        if is_over:
            self._announce()
        return is_over

    def on_progress(self, callback: Callable[[], None]) -> None:
        """`callback` runs on the loop when there is something to take, or `failure` is set."""
        self._callback = callback
        self._announce()

    def take(self) -> list[AppliedRun]:
        """Runs that were applied since the last call, in order."""
        self._announced = False
        self._collect()
        runs, self._taken = self._taken, []
        return runs

    async def close(self) -> None:
        """Applies what is queued, moves everything into the database file if that is synced, closes. Idempotent."""
        self._given_up = True
        await self._ending.reach(self._close)

    async def _close(self) -> None:
        self._applier.stop()
        await self._leave()

    async def switch(self, path: Path) -> None:
        """Goes on with another database, an image that was installed; nothing may be submitted meanwhile.

        A run under way on the old one ends or is undone, what waits behind it is given up: the image stands for it.

        Raises:
            DataFolderInUse, DiskFull, StorageError: the other cannot be opened; this writer is closed then.
            ShuttingDown: it was closed meanwhile.
        """
        await self._ending.reach(self._abandon)
        if self._given_up:
            raise ShuttingDown("the state machine is closed")
        self._connections, self._applier = start_applier(path, self._settings)
        self._path = path
        self._synced_index = 0  # of the log that led to the other database; its owner tells anew
        self._stopped = asyncio.Event()
        self._ending = Ending()
        self._closed = False
        self._trials = Trials(self._applier, path.parent, self._loop, self._settings.kept_bytes)
        self._loop.add_reader(self._applier.fileno, self._wake)
        forks.watch(self, self._applier.fileno)

    async def _abandon(self) -> None:
        self._applier.stop(now=True)
        await self._leave(checkpoint=False)

    async def abandon(self) -> None:
        """`close`, by who needs nothing of the database any more: what runs is interrupted. Idempotent."""
        self._given_up = True
        await self._ending.reach(self._abandon)

    def let_go(self) -> None:
        """`close` without a loop, for who cannot wait for anything any more: what is queued is left to the log."""
        self._given_up = self._closed = True
        self._trials.close()
        self._applier.close()
        close_all(self._connections)
        forks.forget(self)

    def left_to_parent(self) -> None:
        """In a forked child: nothing is applied, taken or closed."""
        self._given_up = self._closed = True

    async def _leave(self, *, checkpoint: bool = True) -> None:
        """Waits for the thread that was told to stop, and lets go of the database."""
        await self._ended(noted=checkpoint)
        self._loop.remove_reader(self._applier.fileno)
        self._collect()
        self._trials.close()
        self._final_index, self._final_term = self._applier.applied_index, self._applier.applied_term
        self._final_group_time_ns = self._applier.group_time_ns
        self._closed = True
        try:
            if checkpoint:
                self._checkpoint_at_end()
        finally:
            self._applier.close()
            close_all(self._connections)
            if self._given_up:
                forks.forget(self)

    # -- beyond the port

    async def try_out(self, records: list[bytes], limits_ns: list[int]) -> Trial:
        """Runs writes behind all that was submitted, and undoes them; see `Trials.run`."""
        return await self._trials.run(records, limits_ns)

    def set_synced_index(self, index: int) -> None:
        """This node's own log is durable up to `index`. Without this no checkpoint is made: the database file must
        never hold what the log may lose."""
        self._synced_index = index
        if not self._closed:
            self._applier.set_synced_index(index)

    def resume(self) -> None:
        """Go on after a failure whose cause is gone."""
        self._applier.resume()

    def hash_at(self, index: int) -> int | None:
        """Running equality hash at `index`, a multiple of `apply.HASH_EVERY`, while it is remembered."""
        return None if self._closed else self._applier.hash_at(index)

    def hashes(self) -> dict[int, int]:
        """The newest that are remembered: index -> running equality hash."""
        last = self.applied_index // HASH_EVERY
        found = {one * HASH_EVERY: self.hash_at(one * HASH_EVERY) for one in range(last, max(0, last - HASHES_MAX), -1)}
        return {index: value for index, value in found.items() if value is not None}

    @property
    def equality_hash(self) -> int:
        """Running equality hash at `applied_index`; of meaning while nothing is being applied."""
        return self._applier.equality_hash

    @property
    def has_sessions(self) -> bool:
        """Whether a session was ever opened in this database."""
        return not self._closed and self._applier.has_sessions

    def metrics(self) -> dict[str, int]:
        """Counters by name, `apply_` in front."""
        if self._closed:
            return {}
        return {f"apply_{name}": value for name, value in self._applier.stats().items()}

    # -- inside

    def _here(self, pieces: list[bytes]) -> bool:
        if self._mode == "auto":
            return self._applier.predict_ns(sum(map(len, pieces))) < INLINE_NS_MAX
        return self._mode == "inline"

    def _announce(self) -> None:
        """Tell the owner in a turn of its own: it may be in the middle of the call that led here."""
        if not self._announced:
            self._announced = True
            self._loop.call_soon(self._progress)

    def _progress(self) -> None:
        announced, self._announced = self._announced, False
        if announced and self._callback is not None and not self._closed:
            self._callback()

    def _wake(self) -> None:
        if self._closed:  # only in a forked child: the wake-up is the parent's
            return
        self._collect()
        if self._callback is not None:
            self._callback()

    def _collect(self) -> None:
        """Makes the file descriptor quiet again: all that it may have stood for is looked at here, whoever asked."""
        if self._closed:
            return
        self._taken += self._applier.take()
        self._trials.ended()
        if self._applier.stopped:
            self._stopped.set()

    async def _ended(self, *, noted: bool) -> None:
        """Waits until the thread has ended; interrupts what runs too long, and says so if that is worth a note."""
        self._late = self._loop.call_later(CLOSE_PATIENCE_S, self._too_long if noted else self._interrupt)
        if not self._applier.stopped:
            await self._stopped.wait()
        self._late.cancel()

    def _too_long(self) -> None:
        observe.logger("statemachine").warning("a run is interrupted because the node stops; the log repeats it")
        self._interrupt()

    def _interrupt(self) -> None:
        """Again and again: an interrupt between two statements is lost."""
        self._applier.stop(now=True)
        self._late = self._loop.call_later(CLOSE_RETRY_S, self._interrupt)

    def _checkpoint_at_end(self) -> None:
        if self._synced_index < self._final_index or self._applier.failure is not None:
            return
        try:
            self._applier.checkpoint()
        except OSError as error:
            # The data is safe in SQLite's own log and in ours; the next start reads both.
            observe.logger("statemachine").warning("%s: no checkpoint at the end: %s", self._path, error.strerror)


def start_applier(path: Path, settings: WriterSettings) -> tuple[list[apsw.Connection], Applier]:
    """The connections of a database, the writer's first, and the thread that runs on it; see `Writer.open`."""
    connection = open_writer(path, settings.connection)
    connections = [connection]
    try:
        with translated(path):
            apply.load(connection)
        applier = Applier(
            connection.sqlite3_pointer(), guard.api_address(), settings.connection.statement_cache, connection
        )
        try:
            connections.append(open_reader(path, settings.connection))
            applier.checkpoint_beside(connections[1])
            applier.start(cpus_of(settings.cpu_affinity))
        except BaseException:
            applier.close()
            raise
    except OSError as error:
        close_all(connections)
        raise failure_of(error.errno or apsw.SQLITE_INTERNAL, str(error.strerror), 0) from error
    except BaseException:
        close_all(connections)
        raise
    return connections, applier


def close_all(connections: Sequence[apsw.Connection]) -> None:
    """The writer's own last: what it leaves in SQLite's log is then nobody else's."""
    for connection in reversed(connections):
        connection.close(True)
