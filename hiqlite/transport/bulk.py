"""Images over bulk links: the one end offers, the other asks for chunks and says at the end where it stands.

The receiver leads the talk: it asks for a chunk when it has room for it, so what is under way is bounded at both ends
by its window, a slow disk slows the stream down and nothing else, and after a cut line it just asks on from where it
was. An ask is an acknowledgement of all bytes below it but the window. Chunks are read, compressed, unpacked and
written on a thread of this room's own; log frames and beats have connections of their own, so no chunk delays them.

Knows links and chunks; must not know what an image is or where its bytes lie: a `ImageSource` gives them and an
`ImageSink` takes them. Invariant: a sink is written in order, each chunk once, by one call at a time, and closed once
nobody writes to it; whatever a peer does, it can end its own link and nothing else; of the images to one peer, of
whatever group, one is under way and the others wait for their turn.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from hiqlite import observe
from hiqlite._accel import forks
from hiqlite._accel.frames import Frame
from hiqlite.ending import Undisturbed
from hiqlite.errors import HiqliteError, PeerUnreachable, ProtocolError, StorageError, UsageError

from . import bulk_wire
from .bulk_wire import Chunk, Sender, Stream
from .link import Link
from .settings import NetworkSettings
from .wire import FrameType

log = observe.logger("transport")

WANTED_MAX = 1024  # asks of one peer that wait to be answered


class ImageSource(Protocol):
    """An image that is given away, chunk by chunk. `read` is called on a thread.

    `chunk_bytes` cuts it; every chunk but the last has that size.
    """

    @property
    def image_id(self) -> bytes: ...
    @property
    def size_bytes(self) -> int: ...
    @property
    def chunk_bytes(self) -> int: ...
    def offer(self) -> bytes:
        """The manifest."""
        ...

    def read(self, offset: int) -> bytes: ...


class ImageSink(Protocol):
    """An image that is taken in. `write` is called on a thread, in order; the rest on the loop, `close` once."""

    @property
    def offset(self) -> int:
        """Everything below it is here already."""
        ...

    @property
    def size_bytes(self) -> int: ...
    @property
    def chunk_bytes(self) -> int: ...
    def watch(self, wake: Callable[[], None]) -> None:
        """`wake` is to be called when `check` begins to raise."""
        ...

    def check(self) -> None:
        """Raises an error of this product when the image is not wanted any more."""
        ...

    def write(self, offset: int, data: bytes) -> None: ...
    async def finish(self) -> tuple[int, int]:
        """All bytes were written. Returns where this node stands then, durably: (index, term)."""
        ...

    def close(self) -> None: ...


# Given (peer id, group, term of the sender, image id, manifest); an error of this product refuses the offer.
OnOffer = Callable[[int, int, int, bytes, bytes], Awaitable[ImageSink]]


async def _takes_none(*_: Any) -> ImageSink:
    raise UsageError("this node takes no images")


class Bulk:
    """All transfers of one node, both ways.

    Args:
        connect: gives the bulk link to a peer, dialled if need be.
        sender: what the own frames carry about this node.
    """

    def __init__(
        self,
        settings: NetworkSettings,
        *,
        connect: Callable[[int], Awaitable[Link]],
        sender: Callable[[], Sender],
    ) -> None:
        self.on_offer: OnOffer = _takes_none
        self._settings = settings
        self._connect = connect
        self._sender = sender
        self._offers = 0
        self._outgoing: dict[Link, Outgoing] = {}
        self._turns: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)  # by peer
        self._incoming: dict[Link, Incoming] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._pool: ThreadPoolExecutor | None = None

    async def offer(
        self,
        peer_id: int,
        group: int,
        term: int,
        source: ImageSource,
        heard: Callable[[int], None] = lambda _offset: None,
    ) -> tuple[int, int]:
        """Offers an image and serves it until the peer says where it stands. Cancelling takes the offer back.

        One image at a time goes to a peer: its other groups' wait until that one's transfer has ended, however it did.

        Args:
            heard: told the offset of each ask: the peer lives and takes.

        Returns:
            (index, term) up to which the peer has everything, durably.

        Raises:
            PeerUnreachable: there is no link, or it was lost; offer again, and it goes on from where it was.
            ProtocolError: the peer broke the rules. StorageError: the image cannot be read.
            Others: why the peer refused it.
        """
        async with self._turns[peer_id]:
            return await self._transfer(await self._connect(peer_id), group, term, source, heard)

    async def _transfer(
        self, link: Link, group: int, term: int, source: ImageSource, heard: Callable[[int], None]
    ) -> tuple[int, int]:
        assert link not in self._outgoing, "its turn has come"
        self._offers += 1
        stream = Stream(self._offers, source.image_id)
        outgoing = self._outgoing[link] = Outgoing(stream, source, heard)
        frame = bulk_wire.encode_offer(self._sender(), stream, group, term, source.offer())
        try:
            if not link.send(*frame):
                raise PeerUnreachable(f"the link to node {link.peer_id} ended")
            while not outgoing.over:
                await self._serve(link, outgoing)
            return outgoing.result()
        except BaseException:
            if not outgoing.over:
                link.send(*bulk_wire.encode_gone(self._sender(), stream))
            raise
        finally:
            del self._outgoing[link]
            self._close_when_idle(link)

    async def _serve(self, link: Link, outgoing: Outgoing) -> None:
        """The next chunk that was asked for; or waits for news."""
        if not outgoing.wanted:
            await outgoing.news.wait()
            outgoing.news.clear()
            return
        offset = outgoing.wanted.popleft()
        size_bytes, data, compressed = await self._on_thread(outgoing.pack, offset)
        frame = bulk_wire.encode_chunk(self._sender(), outgoing.stream, offset, size_bytes, data, compressed)
        if not link.send(*frame) and not link.closed:
            link.close(ProtocolError("the peer asks for more than it reads"), flush=False)

    # ---- what links tell

    def frame(self, link: Link, frame: Frame) -> None:
        """One frame of a bulk link. Raises ProtocolError, which closes it."""
        stream = bulk_wire.stream_of(frame)
        if link.dialed:
            self._answered(self._outgoing.get(link), stream, frame)
            return
        if frame.type == FrameType.IMAGE_OFFER:
            self._offered(link, stream, frame)
            return
        incoming = self._incoming.get(link)
        if incoming is None or incoming.stream != stream:
            raise ProtocolError("a frame about an image that was not offered")
        if frame.type == FrameType.IMAGE_CHUNK:
            incoming.arrived(bulk_wire.decode_chunk(frame))
        elif frame.type == FrameType.IMAGE_GONE:
            self._given_up(link)
        else:
            raise ProtocolError(f"a frame of type {frame.type} on the wrong end of a bulk link")

    def _answered(self, outgoing: Outgoing | None, stream: Stream, frame: Frame) -> None:
        if frame.type == FrameType.IMAGE_WANT:
            offset = bulk_wire.offset_of(frame)
            if outgoing is not None and outgoing.stream == stream:
                outgoing.want(offset)
        elif frame.type == FrameType.IMAGE_DONE:
            result = bulk_wire.decode_done(frame)
            if outgoing is not None and outgoing.stream == stream:
                outgoing.end(result)
        else:
            raise ProtocolError(f"a frame of type {frame.type} on the wrong end of a bulk link")

    def closed(self, link: Link, error: Exception | None) -> None:
        """A bulk link ended, and with it what was under way on it."""
        outgoing = self._outgoing.get(link)
        if outgoing is not None:
            outgoing.end(PeerUnreachable(f"the bulk link to node {link.peer_id} ended: {error or 'closed'}"))
        self._given_up(link)

    def _given_up(self, link: Link) -> None:
        incoming = self._incoming.pop(link, None)
        if incoming is not None and incoming.task is not None:
            incoming.task.cancel()

    async def close(self) -> None:
        """Ends what is being received; offers end with their links."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def close_thread(self) -> None:
        """After all links are closed."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    # ---- receiving

    def _offered(self, link: Link, stream: Stream, frame: Frame) -> None:
        manifest = bulk_wire.decode_offer(frame)
        before = self._incoming.get(link)
        if before is not None and not before.over:
            raise ProtocolError("an offer while another image is under way")
        incoming = self._incoming[link] = Incoming(stream)
        task = asyncio.get_running_loop().create_task(
            self._receive(link, incoming, frame.group, frame.term, manifest), name="hiqlite-bulk"
        )
        incoming.task = task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _receive(self, link: Link, incoming: Incoming, group: int, term: int, manifest: bytes) -> None:
        stream = incoming.stream
        try:
            sink = await self.on_offer(link.peer_id, group, term, stream.image_id, manifest)
            try:
                await self._fill(link, incoming, sink)
                index, its_term = await sink.finish()
            finally:
                sink.close()
        except ProtocolError as error:
            link.close(error, flush=False)
            return
        except HiqliteError as error:
            log.warning("an image of node %d is not taken: %s", link.peer_id, error)
            answer = bulk_wire.encode_refused(self._sender(), stream, error)
        except Exception as error:
            log.exception("taking an image of node %d failed", link.peer_id)
            internal = StorageError(f"internal error: {error!r}")
            answer = bulk_wire.encode_refused(self._sender(), stream, internal)
        else:
            answer = bulk_wire.encode_done(self._sender(), stream, index, its_term)
        incoming.over = True
        link.send(*answer)

    async def _fill(self, link: Link, incoming: Incoming, sink: ImageSink) -> None:
        """Keeps a window of asks open until the sink has everything."""
        chunk_bytes, end = sink.chunk_bytes, sink.size_bytes
        window_bytes = max(self._settings.bulk_window_bytes, chunk_bytes)
        asked = written = sink.offset
        sink.watch(incoming.news.set)
        while written < end:
            sink.check()
            while asked < end and asked + chunk_bytes - written <= window_bytes:
                size_bytes = min(chunk_bytes, end - asked)
                incoming.asked.append((asked, size_bytes))
                link.send(*bulk_wire.encode_want(self._sender(), incoming.stream, asked))
                asked += size_bytes
            if not incoming.chunks:
                await incoming.news.wait()
                incoming.news.clear()
                continue
            chunk = incoming.chunks.popleft()
            await self._on_thread(_unpack_and_write, sink, chunk)
            written += chunk.size_bytes

    # ---- parts

    async def _on_thread(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """Who is cancelled here still waits for the call: a file must not be closed under the thread."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, "hiqlite-bulk")
        process = forks.count()
        job = asyncio.get_running_loop().run_in_executor(self._pool, call, *arguments)
        try:
            return await asyncio.shield(job)
        except asyncio.CancelledError:
            if process != forks.count():
                raise  # the thread is the parent's
            await Undisturbed(_until_done(job))
            if not job.cancelled() and (error := job.exception()) is not None:
                log.debug("a chunk that nobody waited for: %s", error)
            raise

    def _close_when_idle(self, link: Link) -> None:
        def look() -> None:
            if not link.closed and link not in self._outgoing and link.idle_since == mark:
                link.close()

        mark = link.idle_since = asyncio.get_running_loop().time()
        if not link.closed:
            asyncio.get_running_loop().call_later(self._settings.bulk_idle_s, look)


class Outgoing:
    """One image on its way to a peer."""

    def __init__(self, stream: Stream, source: ImageSource, heard: Callable[[int], None]) -> None:
        self.stream = stream
        self.source = source
        self.wanted: deque[int] = deque()
        self.news = asyncio.Event()
        self._heard = heard
        self._next = 0  # asks ascend, so a peer cannot have the same bytes read for ever
        self._result: HiqliteError | tuple[int, int] | None = None

    @property
    def over(self) -> bool:
        return self._result is not None

    def want(self, offset: int) -> None:
        source = self.source
        if offset % source.chunk_bytes or not self._next <= offset < source.size_bytes:
            raise ProtocolError(f"an ask for {offset} of an image of {source.size_bytes} bytes")
        if len(self.wanted) >= WANTED_MAX:
            raise ProtocolError("too many asks at once")
        self._next = offset + 1
        self.wanted.append(offset)
        self.news.set()
        self._heard(offset)

    def pack(self, offset: int) -> tuple[int, bytes, bool]:
        """Runs on the thread: (size, bytes to send, compressed) of a chunk."""
        data = self.source.read(offset)
        packed, compressed = bulk_wire.compress(data)
        return len(data), packed, compressed

    def end(self, result: HiqliteError | tuple[int, int]) -> None:
        if self._result is None:
            self._result = result
            self.news.set()

    def result(self) -> tuple[int, int]:
        assert self._result is not None
        if isinstance(self._result, HiqliteError):
            raise self._result
        return self._result


class Incoming:
    """One image on its way here."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.asked: deque[tuple[int, int]] = deque()  # (offset, size) in the order of asking, not answered yet
        self.chunks: deque[Chunk] = deque()  # answered, not written yet
        self.news = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self.over = False

    def arrived(self, chunk: Chunk) -> None:
        if not self.asked or self.asked.popleft() != (chunk.offset, chunk.size_bytes):
            raise ProtocolError("a chunk that was not asked for")
        if not self.over:
            self.chunks.append(chunk)
            self.news.set()


def _unpack_and_write(sink: ImageSink, chunk: Chunk) -> None:
    sink.write(chunk.offset, chunk.unpack())


async def _until_done(job: asyncio.Future[Any]) -> None:
    await asyncio.wait([job])
