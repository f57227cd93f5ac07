"""The two listening sockets: the raft port takes handshakes of nodes, the api port sniffs client protocol or HTTP.

Knows connections until they are proven; must not know what links carry. Invariant: a connection that has not proved
itself holds few bytes, has a deadline, and is one of a bounded number; past it the oldest is closed, so a flood cannot
keep out a node whose handshake takes a millisecond.
"""

from __future__ import annotations

import asyncio
import errno
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, cast

from hiqlite._accel import forks
from hiqlite.ending import Ending
from hiqlite.errors import ConfigError, ProtocolError

from .handshake import MAGIC, Acceptor, Handshake
from .link import Greeting, Link, Refusals, end_all, settle, tune
from .rpc import Handler, Services
from .session import Claims, LinkKind, Session
from .settings import NetworkSettings
from .tls import channel_binding
from .wire import FrameType

BACKLOG = 1024
HTTP_HEAD_BYTES_MAX = 8192


class Waiting(Protocol):
    """A connection that has not proved itself yet."""

    transport: asyncio.Transport | None

    def give_up(self, reason: str) -> None: ...


class Gate:
    """The connections of one port that have not proved themselves, oldest first."""

    def __init__(self, limit: int, refusals: Refusals) -> None:
        self._limit = limit
        self._refusals = refusals
        self._waiting: dict[Waiting, None] = {}
        self._closed = False

    def __len__(self) -> int:
        return len(self._waiting)

    def enter(self, connection: Waiting) -> None:
        self._waiting[connection] = None
        if self._closed:  # accepted in the turn in which the port was closed
            connection.give_up("closed")
        elif len(self._waiting) > self._limit:
            next(iter(self._waiting)).give_up("crowded")

    def leave(self, connection: Waiting) -> None:
        self._waiting.pop(connection, None)

    def refused(self, connection: Waiting, reason: str, error: Exception) -> None:
        self.leave(connection)
        if self._closed:
            return
        address = connection.transport.get_extra_info("peername") if connection.transport else None
        self._refusals.note(reason, error, f"from {address}")

    async def close(self) -> None:
        """Cuts all of them off, and whatever the loop has accepted but not handed over yet."""
        self._closed = True
        for connection in list(self._waiting):
            connection.give_up("closed")
        await settle()


async def listen(
    host: str, port: int, factory: Callable[[], asyncio.BaseProtocol], what: str
) -> tuple[asyncio.Server, int]:
    """A listening socket and its port (of interest when 0 was asked for).

    Raises:
        ConfigError: the address cannot be bound; it names the address.
    """
    loop = asyncio.get_running_loop()
    try:
        # Two steps: between binding and listening it waits, and who is cancelled there would leave the socket behind.
        server = await loop.create_server(
            factory, host, port, backlog=BACKLOG, reuse_address=True, start_serving=False
        )
        try:
            await server.start_serving()
        except BaseException:
            server.close()
            raise
    except OSError as error:
        hint = "choose another port, or stop what uses it" if error.errno == errno.EADDRINUSE else ""
        message = f"cannot listen on {host}:{port} ({what} port): {error.strerror or error}"
        raise ConfigError(message, hint=hint) from error
    for listening in server.sockets:
        forks.watch_socket(listening.fileno())
    return server, server.sockets[0].getsockname()[1]


async def stop_listening(server: asyncio.Server) -> None:
    """Closes the listening sockets. What was accepted before is in the gate when this returns.

    asyncio before 3.12 leaks a connection that it accepted in the turn of `Server.close()`: the task that makes its
    transport finds no server to attach to. So it stops accepting first, and closes once those tasks have run.
    """
    loop = asyncio.get_running_loop()
    if isinstance(loop, asyncio.SelectorEventLoop):
        for listening in server.sockets:
            loop.remove_reader(listening.fileno())
        await settle()
    server.close()


class RaftListener:
    """The raft port: every connection is a handshake of a node, or closed.

    Args:
        make: the handshake of a new connection.
        on_proven: takes the connection: (session, transport).
    """

    def __init__(
        self,
        host: str,
        port: int,
        make: Callable[[asyncio.Transport], Acceptor],
        on_proven: Callable[[Session, asyncio.Transport], None],
        settings: NetworkSettings,
        refusals: Refusals,
    ) -> None:
        self._host = host
        self.port = port
        self._make = make
        self._on_proven = on_proven
        self._settings = settings
        self.gate = Gate(settings.unauthenticated_max, refusals)
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server, self.port = await listen(self._host, self.port, self._connection, "raft")

    async def close(self) -> None:
        if self._server is not None:
            await stop_listening(self._server)
            await self.gate.close()
            await self._server.wait_closed()

    def _connection(self) -> Greeting:
        greeting = Greeting(self._begin, self._proven, self.gate.refused, timeout_s=self._settings.handshake_timeout_s)
        self.gate.enter(greeting)
        return greeting

    def _begin(self, transport: asyncio.Transport) -> Handshake:
        tune(transport, self._settings)
        return self._make(transport)

    def _proven(self, greeting: Greeting, session: Session, leftover: bytes) -> None:
        assert not leftover, "an acceptor refuses early bytes"
        self.gate.leave(greeting)
        assert greeting.transport is not None
        self._on_proven(session, greeting.transport)


class ApiListener:
    """The api port. Use as: construct, `start()`, ... `close()`.

    Args:
        secret: of clients; two while one is being rotated.
        handlers: name of a request -> what answers it, given (peer id, payload).
        http: makes the protocol that serves HTTP on a connection; by default only `/ping` is answered.
        node_id: told to clients in the handshake.
    """

    def __init__(
        self,
        host: str,
        port: int,
        secret: str | Sequence[str],
        handlers: Mapping[str, Callable[[int, Any], Awaitable[Any]]],
        *,
        http: Callable[[], asyncio.Protocol] | None = None,
        node_id: int = 0,
        settings: NetworkSettings | None = None,
    ) -> None:
        self._host = host
        self.port = port
        self._secrets = (secret,) if isinstance(secret, str) else tuple(secret)
        self._node_id = node_id
        self._settings = settings or NetworkSettings()
        self.refusals = Refusals()
        self._services = Services(node_id, self._settings.requests_max, self._settings.requests_bytes_max)
        for name, handler in handlers.items():
            self._services.add(name, handler)
        self._http = http
        self.gate = Gate(self._settings.unauthenticated_max, self.refusals)
        self._links: set[Link] = set()
        self._ending = Ending()
        self._server: asyncio.Server | None = None

    def serve(self, name: str, handler: Handler) -> None:
        self._services.add(name, handler)

    async def start(self) -> None:
        self._server, self.port = await listen(self._host, self.port, lambda: Sniffer(self), "api")

    async def close(self) -> None:
        await self._ending.reach(self._close)

    async def _close(self) -> None:
        if self._server is None:
            return
        await stop_listening(self._server)
        links = list(self._links)
        for link in links:
            link.close()
        await self._services.close()
        await self.gate.close()
        await end_all(links, self._settings.close_timeout_s)
        await self._server.wait_closed()

    def metrics(self) -> dict[str, Any]:
        return {"clients": len(self._links), "unproven": len(self.gate), "refusals": dict(self.refusals.counts)}

    # ---- what a sniffed connection becomes

    @property
    def deadline_s(self) -> float:
        return self._settings.handshake_timeout_s

    def client(self, transport: asyncio.Transport, first: bytes) -> None:
        greeting = Greeting(
            self._handshake, self._proven, self.gate.refused, timeout_s=self.deadline_s, first_bytes=first
        )
        self.gate.enter(greeting)
        transport.set_protocol(greeting)
        greeting.connection_made(transport)

    def http(self, transport: asyncio.Transport, first: bytes) -> None:
        protocol = self._http() if self._http else PlainHttp(self.gate, self.deadline_s)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        protocol.data_received(first)

    def _handshake(self, transport: asyncio.Transport) -> Handshake:
        tune(transport, self._settings)
        binding = channel_binding(transport, dialed=False)
        return Acceptor(self._secrets, "api", frozenset((LinkKind.CLIENT,)), self._node_id, Claims, binding=binding)

    def _proven(self, greeting: Greeting, session: Session, leftover: bytes) -> None:
        self.gate.leave(greeting)
        assert greeting.transport is not None
        if len(self._links) >= self._settings.clients_max:
            greeting.transport.abort()
            self.refusals.note("clients", ProtocolError("too many clients are connected already"), "api port")
            return
        link = Link(
            session, greeting.transport, cluster=0, frame_bytes_max=self._settings.client_frame_bytes_max,
            buffer_bytes_max=self._settings.control_buffer_bytes, on_frame=self._frame, on_read_end=_nothing,
            on_closed=self._closed,
        )  # fmt: skip
        self._links.add(link)
        link.attach()

    def _frame(self, link: Link, frame: Any) -> None:
        if frame.type != FrameType.REQUEST:
            raise ProtocolError(f"a client sent a frame of type {frame.type}")
        self._services.asked(link, 0, frame)

    def _closed(self, link: Link, error: Exception | None) -> None:
        self._links.discard(link)
        self._services.lost(link)
        if isinstance(error, ProtocolError):
            self.refusals.note("frame", error, "a client")


class Sniffer(asyncio.Protocol):
    """A new connection of the api port, until its first four bytes are here."""

    def __init__(self, owner: ApiListener) -> None:
        self._owner = owner
        self._first = b""
        self._deadline: asyncio.TimerHandle | None = None
        self.transport: asyncio.Transport | None = None
        self._ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's do not inherit from it
        forks.watch_socket(transport.get_extra_info("socket").fileno())
        self._deadline = asyncio.get_running_loop().call_later(self._owner.deadline_s, self.give_up, "timeout")
        self._owner.gate.enter(self)

    def data_received(self, data: bytes) -> None:
        if self._ended:
            return
        assert self.transport is not None
        self._first += data
        first = self._first[: len(MAGIC)]
        if first == MAGIC:
            self._end()
            self._owner.client(self.transport, self._first)
        elif len(first) == len(MAGIC) and _looks_like_http(first):
            self._end()
            self._owner.http(self.transport, self._first)
        elif len(first) == len(MAGIC) or not (MAGIC.startswith(first) or _looks_like_http(first)):
            self.give_up("garbage")

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._ended:
            self.give_up("truncated")

    def give_up(self, reason: str) -> None:
        self._end()
        self._owner.gate.refused(self, reason, ProtocolError(f"{len(self._first)} bytes of no known protocol"))
        if self.transport is not None:
            self.transport.close()

    def _end(self) -> None:
        self._ended = True
        self._owner.gate.leave(self)
        if self._deadline is not None:
            self._deadline.cancel()


class PlainHttp(asyncio.Protocol):
    """One HTTP/1 request and its answer, for liveness probes; everything but `GET /ping` is 404."""

    def __init__(self, gate: Gate, deadline_s: float) -> None:
        self._gate = gate
        self._deadline_s = deadline_s
        self._deadline: asyncio.TimerHandle | None = None
        self._head = b""
        self.transport: asyncio.Transport | None = None
        self._ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's do not inherit from it
        self._gate.enter(self)
        self._deadline = asyncio.get_running_loop().call_later(self._deadline_s, self.give_up, "timeout")

    def data_received(self, data: bytes) -> None:
        if self._ended:
            return
        self._head += data
        if b"\r\n\r\n" in self._head:
            self._answer(*_http_answer(self._head))
        elif len(self._head) > HTTP_HEAD_BYTES_MAX:
            body = _json_error("too_large", "the request's head is too long")
            self._answer("431 Request Header Fields Too Large", body)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()

    def give_up(self, reason: str) -> None:
        self._answer("408 Request Timeout", _json_error("timeout", "the request did not arrive in time"))

    def _answer(self, status: str, body: bytes) -> None:
        self._end()
        assert self.transport is not None
        fields = ("Content-Type: application/json", f"Content-Length: {len(body)}", "Connection: close")
        head = "\r\n".join((f"HTTP/1.1 {status}", *fields, "", ""))
        self.transport.write(head.encode() + body)
        self.transport.close()

    def _end(self) -> None:
        self._ended = True
        self._gate.leave(self)
        if self._deadline is not None:
            self._deadline.cancel()


def _looks_like_http(first: bytes) -> bool:
    return all(65 <= byte <= 90 or byte == 32 for byte in first) and not first.startswith(b" ")


def _http_answer(head: bytes) -> tuple[str, bytes]:
    words = head.split(b"\r\n", 1)[0].split(b" ")
    if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
        return "400 Bad Request", _json_error("bad_request", "the first line is no HTTP/1 request")
    path = words[1].split(b"?", 1)[0]
    if path == b"/ping" and words[0] in (b"GET", b"HEAD"):
        return "200 OK", b"" if words[0] == b"HEAD" else b'{"status": "ok"}'
    return "404 Not Found", _json_error("not_found", "nothing answers at this path")


def _json_error(code: str, message: str) -> bytes:
    return json.dumps({"code": code, "message": message, "hint": "", "outcome": None}).encode()


def _nothing() -> None:
    return None
