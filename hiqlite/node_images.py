"""What a group's snapshots need of this node's disk: images made, received and put in place, on a thread.

Part of the composition root: it implements the ports of `runtime/snapshots.py` and `runtime/receiving.py` over the
storage. Invariant: who gives up waiting gets back control only after the thread has let go of the file, and what was
made for him is gone.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from hiqlite import observe
from hiqlite._accel import forks
from hiqlite.ending import Undisturbed
from hiqlite.engine.model import Membership
from hiqlite.errors import ShuttingDown
from hiqlite.node_database import DatabaseStorage
from hiqlite.runtime.receiving import IncomingFile
from hiqlite.runtime.snapshots import ImageFile
from hiqlite.statemachine.image import GivenUp
from hiqlite.statemachine.image_files import IncomingImage, OutgoingImage

T = TypeVar("T")
log = observe.logger("node")


class NodeImages:
    """The image files of one node, as its groups' runtime sees them. One image is made, and one checked, at a time."""

    def __init__(self, storage: DatabaseStorage) -> None:
        self._storage = storage
        self._stops: set[threading.Event] = set()  # of what is being made
        self._making = ThreadPoolExecutor(1, "hiqlite-image-out")
        self._receiving = ThreadPoolExecutor(1, "hiqlite-image-in")

    async def make(self, membership_at: Callable[[int], bytes]) -> OutgoingImage:
        """An image of what is applied now, made beside running writes.

        Raises:
            DiskFull, StorageError: it cannot be made. ShuttingDown.
        """
        files, database = self._storage.images, self._storage.database
        stop = threading.Event()
        self._stops.add(stop)
        try:
            image = await self._on_thread(
                self._making, stop, lambda: files.make(database, stop), undo=OutgoingImage.remove
            )
        finally:
            self._stops.discard(stop)
        return image.with_membership(membership_at(image.applied_index))

    async def remove(self, image: ImageFile) -> None:
        assert isinstance(image, OutgoingImage), "one of those that were made here"
        await self._on_thread(self._making, threading.Event(), image.remove)

    async def begin(self, manifest: bytes, stop: threading.Event) -> IncomingImage:
        """The image of this manifest, from where it was left."""
        files = self._storage.images
        return await self._on_thread(
            self._receiving, stop, lambda: files.begin(manifest, stop), undo=IncomingImage.close
        )

    async def place(self, image: IncomingFile, membership: Membership) -> Path:
        assert isinstance(image, IncomingImage), "one of those that were begun here"
        return await self._storage.place(image, membership)

    async def open_placed(self, placed: Path) -> None:
        await self._storage.open_placed(placed)

    async def finish(self, image: IncomingFile, stop: threading.Event) -> None:
        """Whole and durable when this returns; see `IncomingImage.finish`."""
        assert isinstance(image, IncomingImage), "one of those that were begun here"
        await self._on_thread(self._receiving, stop, lambda: image.finish(stop))

    def close_images(self) -> None:
        """Ends what is being made; the owner has ended what is being received."""
        for stop in self._stops:
            stop.set()
        self._making.shutdown()
        self._receiving.shutdown()

    async def _on_thread(
        self,
        pool: ThreadPoolExecutor,
        stop: threading.Event,
        call: Callable[[], T],
        undo: Callable[[T], object] = lambda result: None,
    ) -> T:
        """What `call` gives; `undo` is for what it gave too late."""
        loop = asyncio.get_running_loop()
        process = forks.count()
        job = loop.run_in_executor(pool, call)
        try:
            return await asyncio.shield(job)
        except GivenUp as error:
            raise ShuttingDown("the image was given up") from error
        except asyncio.CancelledError:
            if process != forks.count():
                raise  # the thread is the parent's
            stop.set()
            await Undisturbed(_undo(job, lambda result: loop.run_in_executor(pool, undo, result)))
            raise


async def _undo(job: asyncio.Future[T], undo: Callable[[T], asyncio.Future[object]]) -> None:
    """Until the thread has let go of the file, and what it made for nobody is gone."""
    await asyncio.wait([job])
    if job.cancelled() or job.exception() is not None:
        return
    undone = undo(job.result())
    await asyncio.wait([undone])
    if (left := undone.exception()) is not None:
        log.warning("a file of an image is left behind, the next start removes it: %s", left)
