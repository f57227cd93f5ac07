"""Requests with an answer, over links: who asks, who serves, and a small client of the api port.

Knows frames of the types request and response; must not know peers or consensus. Invariant: each request ends exactly
once: with its answer, with the error that the other end sent, with RequestTimeout, or with PeerUnreachable when its
link ended; both sides hold a bounded number of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Self

from hiqlite import observe
from hiqlite._accel.frames import Frame
from hiqlite.errors import (
    HiqliteError,
    Overloaded,
    PeerUnreachable,
    ProtocolError,
    RequestTimeout,
    UsageError,
)

from . import wire
from .handshake import Dialler
from .link import Greeting, Link, Refusals, end_all, tune
from .session import Claims, LinkKind, Session
from .settings import NetworkSettings
from .tls import channel_binding
from .wire import FrameType

log = observe.logger("transport")

Handler = Callable[[int, Any], Awaitable[Any]]


class Calls:
    """Requests of this end that wait for their answers, over any number of links."""

    def __init__(self, node_id: int, limit: int) -> None:
        self._node_id = node_id
        self._limit = limit
        self._sequence = 0
        self._waiting: dict[int, tuple[Link, asyncio.Future[Any]]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    async def ask(self, link: Link, cluster: int, name: str, payload: Any, timeout: float) -> Any:
        """Sends a request over `link` and waits for its answer."""
        if timeout <= 0:
            raise UsageError(f"timeout must be positive, not {timeout}")
        if len(self._waiting) >= self._limit:
            raise Overloaded(f"{len(self._waiting)} requests wait for an answer already")
        self._sequence += 1
        sequence = self._sequence
        body = wire.pack_request(name, timeout, payload)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if not link.send(*wire.encode_plain(FrameType.REQUEST, cluster, self._node_id, body, sequence=sequence)):
            if link.closed:
                raise PeerUnreachable(f"the link to node {link.peer_id} is down")
            raise Overloaded(f"the link to node {link.peer_id} has too many unsent bytes")
        self._waiting[sequence] = (link, answer)
        try:
            async with asyncio.timeout(timeout):
                return await answer
        except TimeoutError:
            raise RequestTimeout(f"no answer to {name!r} within {timeout:g} s") from None
        finally:
            self._waiting.pop(sequence, None)

    def answered(self, frame: Frame) -> None:
        """Takes a response; one that nobody waits for any more is dropped."""
        failed = bool(frame.flags & wire.FAILED)
        value = wire.unpack_failure(frame.body) if failed else wire.unpack(frame.body)
        _link, answer = self._waiting.get(frame.sequence, (None, None))
        if answer is None or answer.done():
            return
        if failed:
            answer.set_exception(value)
        else:
            answer.set_result(value)

    def lost(self, link: Link, error: Exception | None) -> None:
        """Fails all that was asked over `link`."""
        text = f"the link ended: {error}" if error else "the link ended"
        for other, answer in list(self._waiting.values()):
            if other is link and not answer.done():
                answer.set_exception(PeerUnreachable(text))


class Services:
    """Handlers by name, and the requests that they are answering right now.

    Args:
        limit: requests of one link.
        bytes_max: of the bodies of all links' requests; one alone may have more.
    """

    def __init__(self, node_id: int, limit: int, bytes_max: int) -> None:
        self._node_id = node_id
        self._limit = limit
        self._bytes_max = bytes_max
        self._handlers: dict[str, Handler] = {}
        self._tasks: dict[asyncio.Task[None], tuple[Link, int]] = {}
        self._bytes = 0

    def add(self, name: str, handler: Handler) -> None:
        assert name not in self._handlers, f"{name!r} is served already"
        self._handlers[name] = handler

    def asked(self, link: Link, cluster: int, frame: Frame) -> None:
        """Answers a request in a task of its own."""
        name, timeout_s, payload = wire.unpack_request(frame.body)
        handler = self._handlers.get(name)
        if handler is None:
            self._answer(link, cluster, frame.sequence, UsageError(f"nothing here answers {name[:60]!r}"))
        elif link.serving >= self._limit:
            self._answer(link, cluster, frame.sequence, Overloaded(f"{link.serving} requests are being served already"))
        elif self._tasks and self._bytes + len(frame.body) > self._bytes_max:
            self._answer(link, cluster, frame.sequence, Overloaded(f"requests of {self._bytes} bytes are being served"))
        else:
            link.serving += 1
            self._bytes += len(frame.body)
            work = self._serve(link, cluster, frame.sequence, handler, payload, timeout_s)
            task = asyncio.get_running_loop().create_task(work)
            self._tasks[task] = link, len(frame.body)
            task.add_done_callback(self._served)

    def lost(self, link: Link) -> None:
        """Stops what is being served for a link that ended: nobody could hear the answer."""
        for task, (other, _) in self._tasks.items():
            if other is link:
                task.cancel()

    async def close(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(
        self, link: Link, cluster: int, sequence: int, handler: Handler, payload: Any, timeout_s: float
    ) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                value = await handler(link.peer_id, payload)
            self._answer(link, cluster, sequence, value)
        except TimeoutError:
            self._answer(link, cluster, sequence, RequestTimeout("the request's deadline passed where it was served"))
        except HiqliteError as error:
            self._answer(link, cluster, sequence, error)
        except Exception:
            log.exception("a request's handler failed")
            self._answer(link, cluster, sequence, HiqliteError("internal error", hint="see the log of the node asked"))

    def _served(self, task: asyncio.Task[None]) -> None:
        # A callback, because a task that is cancelled before its first step runs none of its own code.
        link, size_bytes = self._tasks.pop(task)
        link.serving -= 1
        self._bytes -= size_bytes

    def _answer(self, link: Link, cluster: int, sequence: int, value: Any) -> None:
        flags = 0
        if isinstance(value, HiqliteError):
            flags, value = wire.FAILED, value.to_wire()
        body = wire.pack(value)
        link.send(
            *wire.encode_plain(FrameType.RESPONSE, cluster, self._node_id, body, sequence=sequence, flags=flags)
        )


class RpcClient:
    """A connection to a node's api port. Use as an async context manager."""

    def __init__(self, settings: NetworkSettings) -> None:
        self._settings = settings
        self._calls = Calls(0, settings.requests_max)
        self._link: Link | None = None

    @classmethod
    async def connect(
        cls,
        host: str,
        port: int,
        secret: str | Sequence[str],
        *,
        timeout: float,
        settings: NetworkSettings | None = None,
    ) -> Self:
        """Connects and proves both ends.

        Raises:
            PeerUnreachable: nobody answers there in time.
            AuthenticationError: the secrets differ.
            ProtocolError: something else answers there.
        """
        settings = settings or NetworkSettings()
        client = cls(settings)
        secrets = (secret,) if isinstance(secret, str) else tuple(secret)

        def handshake(transport: asyncio.Transport) -> Dialler:
            binding = channel_binding(transport, dialed=True)
            return Dialler(secrets, "api", LinkKind.CLIENT, 0, 0, Claims, binding=binding)

        try:
            async with asyncio.timeout(timeout):
                await dial(host, port, handshake, client._take, settings)
        except (OSError, TimeoutError) as error:
            raise PeerUnreachable(f"{host}:{port} does not answer: {error or 'timeout'}") from error
        return client

    async def call(self, name: str, payload: Any = None, *, timeout: float = 10.0) -> Any:
        """One request and its answer; an error of the other end is raised as it was there."""
        assert self._link is not None
        return await self._calls.ask(self._link, 0, name, payload, timeout)

    async def close(self) -> None:
        assert self._link is not None
        self._link.close()
        await end_all([self._link], self._settings.close_timeout_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _take(self, session: Session, transport: asyncio.Transport, leftover: bytes) -> None:
        self._link = Link(
            session, transport, cluster=0, frame_bytes_max=self._settings.frame_bytes_max,
            buffer_bytes_max=self._settings.control_buffer_bytes, on_frame=self._frame, on_read_end=_nothing,
            on_closed=self._calls.lost,
        )  # fmt: skip
        self._link.attach()
        self._link.feed(leftover)

    def _frame(self, link: Link, frame: Frame) -> None:
        if frame.type != FrameType.RESPONSE:
            raise ProtocolError(f"a frame of type {frame.type} on a client's connection")
        self._calls.answered(frame)


async def call(
    host: str, port: int, secret: str | Sequence[str], name: str, payload: Any = None, timeout: float = 10.0
) -> Any:
    """Connects to a node's api port, asks one thing, and hangs up."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    async with await RpcClient.connect(host, port, secret, timeout=timeout) as client:
        return await client.call(name, payload, timeout=max(deadline - loop.time(), 0.001))


async def dial(
    host: str,
    port: int,
    make: Callable[[asyncio.Transport], Dialler],
    take: Callable[[Session, asyncio.Transport, bytes], None],
    settings: NetworkSettings,
    refusals: Refusals | None = None,
) -> None:
    """Opens a connection and proves both ends; `take` gets it at once: (session, transport, bytes behind).

    Raises:
        OSError, TimeoutError: the connection failed.
        TransportError: the handshake failed.
    """
    loop = asyncio.get_running_loop()
    proven: asyncio.Future[None] = loop.create_future()

    def succeed(greeting: Greeting, session: Session, leftover: bytes) -> None:
        assert greeting.transport is not None
        if proven.done():  # nobody waits any more
            greeting.transport.abort()
            return
        try:
            take(session, greeting.transport, leftover)
        except Exception as error:
            proven.set_exception(error)
            greeting.transport.abort()
        else:
            proven.set_result(None)

    def fail(_greeting: Greeting, reason: str, error: Exception) -> None:
        if refusals is not None and reason != "truncated":  # the loss of a connection is no refusal
            refusals.note(reason, error, f"dialling {host}:{port}")
        if not proven.done():
            proven.set_exception(error)

    def begin(transport: asyncio.Transport) -> Dialler:
        tune(transport, settings)
        return make(transport)

    greeting = Greeting(begin, succeed, fail, timeout_s=settings.handshake_timeout_s)
    try:
        async with asyncio.timeout(settings.connect_timeout_s):
            await loop.create_connection(lambda: greeting, host, port)
        await proven
    except BaseException:
        if not proven.cancel() and not proven.cancelled():
            proven.exception()  # it is on its way to the caller, or came too late to matter
        if greeting.transport is not None:
            greeting.transport.abort()
        raise


def _nothing() -> None:
    return None
