"""The image that a group receives: one at a time, resumed, abandoned when its sender leads no longer.

Sees ports only: a store of image files, and an installer that puts a complete one in the database's place. Must not
know files, sockets or SQL. Invariant: an image is installed only after the store has found it whole and made it
durable, and the sender hears that it is here only after it was installed.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Protocol

from hiqlite import observe
from hiqlite.errors import HiqliteError, LeadershipLost, Overloaded, ShuttingDown

log = observe.logger("runtime")


class IncomingFile(Protocol):
    """An image file that is being filled; `write` blocks and is called on a thread."""

    @property
    def offset(self) -> int: ...
    @property
    def size_bytes(self) -> int: ...
    @property
    def chunk_bytes(self) -> int: ...
    @property
    def applied_index(self) -> int: ...
    @property
    def applied_term(self) -> int: ...
    @property
    def membership(self) -> bytes: ...
    def write(self, offset: int, data: bytes) -> None: ...
    def close(self) -> None: ...


class IncomingStore(Protocol):
    """Keeps what was received, over restarts; works on a thread and gives up once `stop` is set."""

    async def begin(self, manifest: bytes, stop: threading.Event) -> IncomingFile: ...
    async def finish(self, image: IncomingFile, stop: threading.Event) -> None:
        """Checks the whole of it and makes it durable. Raises SnapshotCorruption when it is not what it says."""
        ...


class Installer(Protocol):
    """The group that is to stand where the image stands."""

    def check_sender(self, peer_id: int, term: int) -> None:
        """Raises an error of this product when that peer is not to send images in that term."""
        ...

    def standing(self, image: IncomingFile) -> tuple[int, int] | None:
        """Where this node stands, (index, term), when it needs no such image; None when it needs it."""
        ...

    async def install(self, image: IncomingFile) -> tuple[int, int]:
        """Puts it in the database's place. Returns where this node stands then, durably."""
        ...


class ImageReceiver:
    """Takes the offers of peers for one group."""

    def __init__(self, store: IncomingStore, installer: Installer) -> None:
        self._store = store
        self._installer = installer
        self._now: Reception | None = None
        self._lock = asyncio.Lock()
        self._closed = False

    async def offered(self, peer_id: int, term: int, manifest: bytes) -> Reception:
        """An offer is taken: what it returns is to be filled, finished and closed.

        Raises:
            SnapshotCorruption: the manifest is none. Overloaded: an image of a newer or equal term is being received.
            what `Installer.check_sender` and the store raise.
        """
        self._installer.check_sender(peer_id, term)
        before = self._now if self._now is not None and not self._now.closed.is_set() else None
        if before is not None and before.peer_id != peer_id and before.term >= term:
            raise Overloaded(f"an image of node {before.peer_id} is being received")
        if before is not None:
            before.abandon(LeadershipLost(f"node {peer_id} offers another image"))
        async with self._lock:  # the next in line waits until the one before has let go of its file
            if self._now is not None:
                await self._now.closed.wait()
            if self._closed:
                raise ShuttingDown("the node is shutting down")
            self._installer.check_sender(peer_id, term)  # another one may lead by now, and shall not wait for this
            reception = Reception(peer_id, term, self._store, self._installer)
            self._now = reception
            try:
                await reception.begin(manifest)
            except BaseException:
                reception.close()
                raise
            return reception

    def leader_changed(self, leader_id: int, term: int) -> None:
        """Who leads now; an image of anybody else is given up. What was received of it stays for a later offer."""
        now = self._now
        if now is not None and term >= now.term and leader_id not in (0, now.peer_id):
            now.abandon(LeadershipLost(f"node {now.peer_id} leads no longer"))

    async def close(self) -> None:
        """Gives up what is being received; an install that has begun is waited for."""
        self._closed = True
        if self._now is not None:
            self._now.abandon(ShuttingDown("the node is shutting down"))
            await self._now.closed.wait()


class Reception:
    """One image on its way in, as the transport fills it."""

    def __init__(self, peer_id: int, term: int, store: IncomingStore, installer: Installer) -> None:
        self.peer_id = peer_id
        self.term = term
        self.closed = asyncio.Event()
        self._store = store
        self._installer = installer
        self._stop = threading.Event()
        self._reason: HiqliteError | None = None
        self._wake: Callable[[], None] = lambda: None
        self._installing: asyncio.Task[tuple[int, int]] | None = None
        self._image: IncomingFile | None = None
        self._position: tuple[int, int] | None = None

    async def begin(self, manifest: bytes) -> None:
        self._image = await self._store.begin(manifest, self._stop)
        self._position = self._installer.standing(self._image)
        self.check()

    # -- what the transport sees; an image that is not needed has no bytes

    @property
    def offset(self) -> int:
        return self._file.offset if self._position is None else 0

    @property
    def size_bytes(self) -> int:
        return self._file.size_bytes if self._position is None else 0

    @property
    def chunk_bytes(self) -> int:
        return self._file.chunk_bytes

    def watch(self, wake: Callable[[], None]) -> None:
        self._wake = wake

    def check(self) -> None:
        """Raises why it was abandoned."""
        if self._reason is not None:
            raise self._reason

    def write(self, offset: int, data: bytes) -> None:
        """On a thread: one chunk, in order."""
        self.check()
        self._file.write(offset, data)

    async def finish(self) -> tuple[int, int]:
        """All bytes are here: checked, installed, and where this node stands then."""
        if self._position is not None:
            return self._position
        self.check()
        try:
            await self._store.finish(self._file, self._stop)
        except asyncio.CancelledError:
            self._stop.set()
            raise
        except Exception as error:
            if self._reason is not None:
                raise self._reason from error
            raise
        self.check()
        # From here on it is not given up: half an install would be neither the old database nor the new one.
        self._installing = asyncio.get_running_loop().create_task(self._install(), name="hiqlite-install")
        return await asyncio.shield(self._installing)

    def close(self) -> None:
        """Lets go of the file, behind an install that has begun; what is there stays for a later offer."""
        if self._installing is None:
            self._let_go()
        else:
            self._installing.add_done_callback(lambda _task: self._let_go())

    def _let_go(self) -> None:
        if self._image is not None:
            self._image.close()
        self.closed.set()

    # -- the owner's side

    def abandon(self, reason: HiqliteError) -> None:
        """The next thing that anybody does with it raises `reason`."""
        self._reason = self._reason or reason
        self._stop.set()
        self._wake()

    @property
    def _file(self) -> IncomingFile:
        assert self._image is not None
        return self._image

    async def _install(self) -> tuple[int, int]:
        image = self._file
        log.info("an image at index %d of node %d takes the database's place", image.applied_index, self.peer_id)
        try:
            return await self._installer.install(image)
        except Exception as error:  # whoever offered it may be gone by now and tell nobody
            log.error("the image was not installed: %s", error)
            raise
