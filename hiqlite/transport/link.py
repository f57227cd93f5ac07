"""One connection: first its handshake, then frames.

Knows a loop's transport, the handshake and the frame reader; must not know peers, redialling or what frames mean.
Invariant: a `Link` exists only with a `Session`; its `on_closed` is called exactly once, and `on_frame` never after it.
A `Greeting` (the handshake under way) ends exactly once too: as a link, handed over, or failed with a reason.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import Counter
from collections.abc import Callable, Iterable
from typing import cast

from hiqlite import observe
from hiqlite._accel import forks
from hiqlite._accel.frames import Frame, FrameReader
from hiqlite.errors import ProtocolError, TransportError

from .handshake import Dialler, Handshake
from .session import LinkKind, Session, failure
from .settings import NetworkSettings

log = observe.logger("transport")

JOIN_BYTES_MAX = 16384  # up to here header and body leave as one piece; above, copying costs more than a second write


class Refusals:
    """Counts connections that were closed for a reason, and logs each reason once."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def note(self, reason: str, error: Exception, where: str) -> None:
        self.counts[reason] += 1
        if self.counts[reason] == 1:
            log.warning("connection closed (%s): %s; further ones are only counted: %s", reason, where, error)


SETTLE_TURNS = 8


class Greeting(asyncio.Protocol):
    """A connection in the middle of its handshake. Costs little: no buffer of its own, few bytes, a deadline.

    Args:
        make: the handshake for this transport (made when it is connected, because TLS binds it).
        on_proven: takes over the transport: (greeting, session, bytes behind the handshake).
        on_failed: (greeting, reason, error); the connection is closed already.
    """

    def __init__(
        self,
        make: Callable[[asyncio.Transport], Handshake],
        on_proven: Callable[[Greeting, Session, bytes], None],
        on_failed: Callable[[Greeting, str, Exception], None],
        *,
        timeout_s: float,
        first_bytes: bytes = b"",
    ) -> None:
        self._make = make
        self._on_proven = on_proven
        self._on_failed = on_failed
        self._timeout_s = timeout_s
        self._handshake: Handshake | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._first_bytes = first_bytes
        self._ended = False
        self.transport: asyncio.Transport | None = None
        self.gone = asyncio.Event()  # the connection is closed, or belongs to somebody else

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's do not inherit from it
        if self._ended:  # given up before it was connected: one too many
            self.transport.close()
            return
        self._handshake = self._make(self.transport)
        self._deadline = asyncio.get_running_loop().call_later(self._timeout_s, self.give_up, "timeout")
        if isinstance(self._handshake, Dialler):
            self.transport.write(self._handshake.start())
        if self._first_bytes:
            self.data_received(self._first_bytes)

    def data_received(self, data: bytes) -> None:
        if self._ended:
            return
        assert self._handshake is not None and self.transport is not None
        try:
            answer = self._handshake.receive(data)
        except TransportError as error:
            if self._handshake.farewell:
                self.transport.write(self._handshake.farewell)
            self._fail(self._handshake.reason, error)
            return
        session = self._handshake.session
        if session is not None and session.kind is LinkKind.BEAT:
            self.transport.pause_reading()  # from here on the socket's bytes belong to its new owner
        if answer:
            self.transport.write(answer)
        if session is not None:
            leftover = self._handshake.leftover
            self._end()
            self.gone.set()
            # At once, not by a future: the other end's first frames may come with the next read.
            self._on_proven(self, session, leftover)

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone.set()
        if not self._ended:
            self._fail("truncated", exc or failure("truncated"))

    def give_up(self, reason: str) -> None:
        """Ends the handshake from outside: too late, or too many."""
        if not self._ended:
            self._fail(reason, failure(reason))

    def _fail(self, reason: str, error: Exception) -> None:
        self._end()
        if self.transport is not None:
            self.transport.close()
        self._on_failed(self, reason, error)

    def _end(self) -> None:
        self._ended = True
        if self._deadline is not None:
            self._deadline.cancel()


class Link(asyncio.BufferedProtocol):
    """Frames of one proven connection, both ways.

    Args:
        buffer_bytes_max: a frame that would leave more unsent bytes than this is not taken, unless nothing is unsent.
        on_frame: (link, frame), in order. A ProtocolError that it raises closes the link.
        on_read_end: once per read, after its frames.
        on_closed: (link, error or None), once.
    """

    def __init__(
        self,
        session: Session,
        transport: asyncio.Transport,
        *,
        cluster: int,
        frame_bytes_max: int,
        buffer_bytes_max: int,
        on_frame: Callable[[Link, Frame], None],
        on_read_end: Callable[[], None],
        on_closed: Callable[[Link, Exception | None], None],
    ) -> None:
        self.session = session
        self.kind = session.kind
        self.peer_id = session.peer_id
        self.dialed = session.dialed
        self.transport = transport
        self.buffer_bytes_max = buffer_bytes_max
        self.frames_out = 0
        self.bytes_out = 0
        self.dropped = 0
        self.idle_since = 0.0  # of a bulk link: the loop's time when its last transfer ended
        self.serving = 0  # requests of the other end that are being answered
        self.closed = False
        self.gone = asyncio.Event()  # the loop has let go of the socket
        self._on_frame = on_frame
        self._on_closed = on_closed
        self._error: Exception | None = None
        self.reader = FrameReader(self._frame, on_read_end, self._broken, frame_bytes_max, cluster)

    def attach(self) -> None:
        """Begins to read."""
        self.transport.set_protocol(self)

    def feed(self, leftover: bytes) -> None:
        """Takes bytes that came behind the handshake."""
        if leftover:
            self.reader.feed(leftover)

    # ---- the loop's side

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.reader.get_buffer(sizehint)

    def buffer_updated(self, nbytes: int) -> None:
        self.reader.buffer_updated(nbytes)

    def eof_received(self) -> None:
        return None  # the other end never half-closes: close

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone.set()
        self._finish(self._error or exc)

    # ---- the owner's side

    def send(self, header: bytes, body: bytes = b"") -> bool:
        """Sends a frame without waiting; False when it was dropped. Never raises for a dead connection."""
        if self.closed:
            return False
        size = len(header) + len(body)
        unsent = self.transport.get_write_buffer_size()
        if unsent and unsent + size > self.buffer_bytes_max:
            self.dropped += 1
            return False
        if len(body) <= JOIN_BYTES_MAX:
            self.transport.write(header + body if body else header)
        else:
            self.transport.write(header)
            self.transport.write(body)
        self.frames_out += 1
        self.bytes_out += size
        return True

    def close(self, error: Exception | None = None, *, flush: bool = True) -> None:
        """Ends the link: the owner hears of it at once, unsent bytes still leave when `flush`."""
        self._error = self._error or error
        if flush:
            self.transport.close()
        else:
            self.transport.abort()
        self._finish(self._error)

    def metrics(self) -> dict[str, int]:
        return {
            "version": self.session.version,
            "frames_in": self.reader.frames,
            "bytes_in": self.reader.bytes_in,
            "frames_out": self.frames_out,
            "bytes_out": self.bytes_out,
            "dropped": self.dropped,
        }

    def _frame(self, frame: Frame) -> None:
        if frame.sender != self.peer_id:
            raise ProtocolError(f"a frame of node {frame.sender} on a link of node {self.peer_id}")
        self._on_frame(self, frame)

    def _broken(self, error: ProtocolError) -> None:
        self.close(error, flush=False)

    def _finish(self, error: Exception | None) -> None:
        if self.closed:
            return
        self.closed = True
        self.reader.stop()
        self._on_closed(self, error)


async def settle() -> None:
    """Lets the loop close the sockets of transports that were cut off: it does so in its next turns.

    A connection that was accepted in the turn before still becomes a task, a transport, a protocol, and is closed then.
    """
    for _ in range(SETTLE_TURNS):
        await asyncio.sleep(0)


def tune(transport: asyncio.Transport, settings: NetworkSettings) -> None:
    """Socket options of every connection: no delay, and a dead path is noticed."""
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0:
        forks.watch_socket(sock.fileno())
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    options = [(socket.SOL_SOCKET, "SO_KEEPALIVE", 1), (socket.IPPROTO_TCP, "TCP_NODELAY", 1)]
    options.append((socket.IPPROTO_TCP, "TCP_KEEPIDLE", settings.keepalive_s))
    options.append((socket.IPPROTO_TCP, "TCP_KEEPINTVL", settings.keepalive_s))
    options.append((socket.IPPROTO_TCP, "TCP_KEEPCNT", 2))
    options.append((socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", settings.user_timeout_ms))
    for level, name, value in options:
        option = getattr(socket, name, None)  # not every system has every option
        if option is not None:
            try:
                sock.setsockopt(level, option, value)
            except OSError as error:  # the other end may be gone already; its loss is reported by the read
                log.debug("socket option %s: %s", name, error)


def hand_over(transport: asyncio.Transport) -> int:
    """Takes the socket out of the loop: a descriptor of its own, owned by the caller; the connection stays up.

    What the transport has not sent yet is sent first: closing flushes, and a duplicate keeps the connection open.
    """
    sock = transport.get_extra_info("socket")
    descriptor = os.dup(sock.fileno())
    forks.watch_socket(descriptor)
    transport.close()
    return descriptor


async def end_all(connections: Iterable[Link | Greeting], timeout_s: float) -> None:
    """Waits until the loop has let go of closed connections; what has not sent its bytes in time is cut off."""
    open_ones = [connection for connection in connections if not connection.gone.is_set()]

    def cut_off() -> None:
        for connection in open_ones:
            if connection.transport is not None:
                connection.transport.abort()

    late = asyncio.get_running_loop().call_later(timeout_s, cut_off)
    for connection in open_ones:
        await connection.gone.wait()
    late.cancel()
