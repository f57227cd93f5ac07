"""Images of a group's database on their way to peers: made on demand, shared, kept while they are of use.

Sees ports only: a store that makes image files, links that hand them over, and the engine's words about it. Must not
know files, sockets or SQL. Invariants: an image file that is being sent is not removed; each file is removed once; at
most `IMAGES_MAX` exist; a transfer that the engine agreed to is reported once, as finished or failed, unless stopped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

from hiqlite import observe
from hiqlite.clock import Clock
from hiqlite.errors import HiqliteError, Overloaded, StorageError

log = observe.logger("runtime")

IMAGES_MAX: Final = 2  # an older one that is still on its way, and a newer one for whoever needs more
KEPT_S: Final = 60.0  # how long an image waits for a peer whose line was cut


class ImageFile(Protocol):
    """A complete image; `read` blocks and is called on a thread of the transport."""

    @property
    def image_id(self) -> bytes: ...
    @property
    def applied_index(self) -> int: ...
    @property
    def size_bytes(self) -> int: ...
    @property
    def chunk_bytes(self) -> int: ...
    def offer(self) -> bytes: ...
    def read(self, offset: int) -> bytes: ...


class OutgoingStore(Protocol):
    """Makes and removes image files; both on a thread."""

    async def make(self, membership_at: Callable[[int], bytes]) -> ImageFile:
        """An image of what is applied now; `membership_at` tells, on the loop, who was in force at its index."""
        ...

    async def remove(self, image: ImageFile) -> None: ...


class ImageLinks(Protocol):
    """The transport, bound to this group."""

    async def offer_image(
        self, peer_id: int, term: int, image: ImageFile, heard: Callable[[int], None]
    ) -> tuple[int, int]:
        """Returns where the peer stands when it is done; raises what the peer or the line said."""
        ...


class SendReports(Protocol):
    """What the engine wants to hear, in the words of its own methods."""

    @property
    def applied_index(self) -> int: ...

    def image_started(self, peer_id: int, index: int, now_ns: int) -> bool:
        """False: nobody needs it; do not send it."""
        ...

    def image_progressed(self, peer_id: int, oldest_sent_ns: int) -> None: ...
    def image_finished(self, peer_id: int, now_ns: int) -> None: ...
    def image_failed(self, peer_id: int, resumable: bool, now_ns: int) -> None: ...


class ImageSender:
    """All images that this node sends for one group.

    Args:
        membership_at: bytes of the membership in force at an index.
        changed: called after each report, so that the engine is turned.
    """

    def __init__(
        self,
        store: OutgoingStore,
        links: ImageLinks,
        reports: SendReports,
        *,
        membership_at: Callable[[int], bytes],
        changed: Callable[[], None],
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
        kept_s: float = KEPT_S,
    ) -> None:
        self._store = store
        self._links = links
        self._reports = reports
        self._membership_at = membership_at
        self._changed = changed
        self._clock = clock
        self._loop = loop
        self._kept_s = kept_s
        self._images: list[Shared] = []  # newest last
        self._making: asyncio.Task[Shared] | None = None
        self._making_from = 0  # applied when the one that is being made was begun
        self._sending: dict[int, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._removing: set[asyncio.Task[None]] = set()

    def send(self, peer_id: int, resume_index: int, term: int) -> None:
        """Begin to send an image to a peer.

        Args:
            resume_index: index of the image that the peer has a part of; 0: none. That one is preferred if it is there.
            term: of this leader; the peer refuses an older one.
        """
        if peer_id not in self._sending:
            task = self._loop.create_task(self._send(peer_id, resume_index, term), name="hiqlite-image")
            self._sending[peer_id] = task
            self._tasks.add(task)
            task.add_done_callback(partial(self._ended, peer_id))

    def stop(self, peer_id: int | None = None) -> None:
        """Send no more to a peer (None: to nobody, this node leads no longer). Nothing is reported of it."""
        for known in list(self._sending):
            if peer_id is None or known == peer_id:
                self._sending.pop(known).cancel()

    @property
    def pinned_index(self) -> int:
        """The log is needed behind this index: else an image is of no use by the time it is there. -1: no image is."""
        indexes = [image.file.applied_index for image in self._images if not image.spoilt]
        if self._making is not None:
            indexes.append(self._making_from)
        return min(indexes, default=-1)

    @property
    def images(self) -> int:
        """How many image files exist."""
        return len(self._images)

    async def close(self) -> None:
        """Ends all of it; the files are gone when this returns."""
        self.stop()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._making is not None:
            self._making.cancel()
            await asyncio.gather(self._making, return_exceptions=True)
        for image in list(self._images):
            self._remove(image)
        await asyncio.gather(*self._removing, return_exceptions=True)

    # -- one peer

    async def _send(self, peer_id: int, resume_index: int, term: int) -> None:
        try:
            image = await self._start(peer_id, resume_index)
            if image is None:
                return
        except Exception as error:  # whatever it is, the engine is told
            log.warning("no image for node %d: %s", peer_id, error, exc_info=not isinstance(error, HiqliteError))
            self._failed(peer_id, resumable=False)
            return
        resumable = False
        try:
            log.info("an image at index %d goes to node %d", image.file.applied_index, peer_id)
            heard = partial(self._heard, peer_id, image.file)
            index, _ = await self._links.offer_image(peer_id, term, image.file, heard)
            if index < image.file.applied_index:
                raise StorageError(f"node {peer_id} stands at {index} after an image at {image.file.applied_index}")
        except Exception as error:
            # A cut line, a busy or full peer: the same image serves the next try. Else that one is another image.
            resumable = isinstance(error, HiqliteError) and error.retryable
            image.spoilt = image.spoilt or not resumable
            log.warning("the image to node %d failed: %s", peer_id, error)
            self._failed(peer_id, resumable=resumable)
        else:
            self._sending.pop(peer_id)
            self._reports.image_finished(peer_id, self._clock.monotonic_ns())
            self._changed()
        finally:
            self._release(image, keep=resumable)

    async def _start(self, peer_id: int, resume_index: int) -> Shared | None:
        """An image that the engine agrees to, held for this peer; None when nobody needs one."""
        image = self._known(resume_index)
        if image is not None:
            image.users += 1
            if self._reports.image_started(peer_id, image.file.applied_index, self._clock.monotonic_ns()):
                return image
            self._release(image, keep=False)  # older than what the log still holds
        image = await self._make()
        while image not in self._images:  # whoever waited for it too was first, and had no use for it
            image = await self._make()
        image.users += 1
        try:
            if self._reports.image_started(peer_id, image.file.applied_index, self._clock.monotonic_ns()):
                return image
        except BaseException:
            self._release(image, keep=False)
            raise
        self._release(image, keep=False)
        return None

    def _known(self, resume_index: int) -> Shared | None:
        """The one that the peer has a part of, else the newest."""
        usable = [image for image in self._images if not image.spoilt]
        same = [image for image in usable if resume_index and image.file.applied_index == resume_index]
        candidates = same or usable
        return candidates[-1] if candidates else None

    def _heard(self, peer_id: int, image: ImageFile, offset: int) -> None:
        """The peer asks for more: what it asked for before has arrived. Behind its last ask nothing is outstanding."""
        last = offset + image.chunk_bytes >= image.size_bytes
        self._reports.image_progressed(peer_id, 0 if last else self._clock.monotonic_ns())

    def _failed(self, peer_id: int, *, resumable: bool) -> None:
        self._sending.pop(peer_id)  # before the report: the engine may ask again at once
        self._reports.image_failed(peer_id, resumable, self._clock.monotonic_ns())
        self._changed()

    def _ended(self, peer_id: int, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._sending.get(peer_id) is task:
            del self._sending[peer_id]

    # -- files

    async def _make(self) -> Shared:
        """A new image; all that ask meanwhile share it."""
        if self._making is None:
            for image in [image for image in self._images if image.users == 0]:
                self._remove(image)
            if len(self._images) >= IMAGES_MAX:
                raise Overloaded(f"{IMAGES_MAX} images are on their way already")
            self._making_from = self._reports.applied_index
            self._making = self._loop.create_task(self._make_one(), name="hiqlite-image")
            self._making.add_done_callback(self._made)
        return await asyncio.shield(self._making)

    async def _make_one(self) -> Shared:
        image = Shared(await self._store.make(self._membership_at))
        self._images.append(image)
        image.expiry = self._loop.call_later(self._kept_s, self._expire, image)
        return image

    def _made(self, task: asyncio.Task[Shared]) -> None:
        self._making = None
        if not task.cancelled() and (error := task.exception()) is not None:
            log.debug("no image was made: %s", error)  # whoever asked for it says so

    def _release(self, image: Shared, *, keep: bool) -> None:
        image.users -= 1
        if image.users == 0 and image in self._images:
            if image.expiry is not None:
                image.expiry.cancel()
            if keep and not image.spoilt:
                image.expiry = self._loop.call_later(self._kept_s, self._expire, image)
            else:
                self._remove(image)

    def _expire(self, image: Shared) -> None:
        if image.users == 0 and image in self._images:
            self._remove(image)

    def _remove(self, image: Shared) -> None:
        self._images.remove(image)
        if image.expiry is not None:
            image.expiry.cancel()
        task = self._loop.create_task(self._store.remove(image.file), name="hiqlite-image")
        self._removing.add(task)
        task.add_done_callback(self._removed)

    def _removed(self, task: asyncio.Task[None]) -> None:
        self._removing.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("an image file is left behind, the next start removes it: %s", error)


class Shared:
    """An image file and who needs it."""

    def __init__(self, file: ImageFile) -> None:
        self.file = file
        self.users = 0
        self.spoilt = False
        self.expiry: asyncio.TimerHandle | None = None
