"""The api port: client protocol and HTTP on one socket, told apart by their first bytes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from conftest import Run, quick, until

from hiqlite._accel.frames import encode_header
from hiqlite.errors import AuthenticationError, ConfigError, NoLeader, PeerUnreachable, RequestTimeout, UsageError
from hiqlite.transport.handshake import MAGIC, Dialler
from hiqlite.transport.listener import ApiListener
from hiqlite.transport.rpc import RpcClient, call, dial
from hiqlite.transport.session import Claims, LinkKind

SECRET = "a secret of the api port"


async def metrics(peer_id: int, payload: Any) -> Any:
    return {"role": "leader", "asked": payload}


async def fail(peer_id: int, payload: Any) -> Any:
    raise NoLeader("nobody leads")


async def never(peer_id: int, payload: Any) -> Any:
    await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def listening(**options: Any) -> AsyncIterator[ApiListener]:
    handlers = {"metrics": metrics, "fail": fail, "never": never}
    listener = ApiListener("127.0.0.1", 0, options.pop("secret", SECRET), handlers, **options)
    await listener.start()
    try:
        yield listener
    finally:
        await listener.close()


async def say(port: int, data: bytes) -> bytes:
    """Sends bytes, gives all that comes back until the other end hangs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    try:
        async with asyncio.timeout(20):
            return await reader.read()
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def test_a_client_proves_itself_and_asks(run: Run) -> None:
    """One call, many calls at once on one connection, an error as it was raised, a deadline, an unknown name."""

    async def work() -> None:
        async with listening() as api:
            assert await call("127.0.0.1", api.port, SECRET, "metrics", 1) == {"role": "leader", "asked": 1}
            async with await RpcClient.connect("127.0.0.1", api.port, SECRET, timeout=5) as client:
                answers = await asyncio.gather(*(client.call("metrics", number) for number in range(100)))
                assert [answer["asked"] for answer in answers] == list(range(100))
                with pytest.raises(NoLeader):
                    await client.call("fail")
                with pytest.raises(UsageError):
                    await client.call("unknown")
                with pytest.raises(RequestTimeout):
                    await client.call("never", timeout=0.01)
            await until(lambda: api.metrics()["clients"] == 0)
            assert api.refusals.counts == {}

    run(work())


def test_a_wrong_secret_is_an_authentication_error(run: Run) -> None:
    """Also the raft port's secret is none here: another port, another key."""

    async def work() -> None:
        async with listening(secret=(SECRET, "the next secret of it")) as api:
            with pytest.raises(AuthenticationError):
                await call("127.0.0.1", api.port, "not the secret at all", "metrics")
            assert await call("127.0.0.1", api.port, "the next secret of it", "metrics")
            assert api.refusals.counts == {"wrong_secret": 1}

    run(work())


def test_nobody_there_is_peer_unreachable(run: Run) -> None:
    """A refused connection, and one that is never answered."""

    async def work() -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            with pytest.raises(PeerUnreachable):
                await call("127.0.0.1", silent.getsockname()[1], SECRET, "metrics", timeout=0.05)
            port = silent.getsockname()[1]
        with pytest.raises(PeerUnreachable):
            await call("127.0.0.1", port, SECRET, "metrics")

    run(work())


def test_a_connection_that_ends_fails_what_waits(run: Run) -> None:
    async def work() -> None:
        async with listening() as api:
            client = await RpcClient.connect("127.0.0.1", api.port, SECRET, timeout=5)
            waiting = asyncio.ensure_future(client.call("never", timeout=30))
            await until(lambda: api._services._tasks)
            await api.close()
            with pytest.raises(PeerUnreachable):
                await waiting
            with pytest.raises(PeerUnreachable):
                await client.call("metrics")
            await client.close()

    run(work())


def test_a_ping_is_answered_and_everything_else_is_not_found(run: Run) -> None:
    """A small HTTP answer with a JSON body, whatever portions the request came in."""

    async def work() -> None:
        async with listening() as api:
            pong = await say(api.port, b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
            assert pong.startswith(b"HTTP/1.1 200 OK\r\n") and pong.endswith(b'{"status": "ok"}')
            assert (await say(api.port, b"HEAD /ping?x=1 HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.1 200")
            for request in (b"GET /other HTTP/1.1\r\n\r\n", b"POST /ping HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}"):
                missing = await say(api.port, request)
                assert missing.startswith(b"HTTP/1.1 404 Not Found\r\n")
                assert json.loads(missing.split(b"\r\n\r\n", 1)[1])["code"] == "not_found"
            assert (await say(api.port, b"GET nonsense\r\n\r\n")).startswith(b"HTTP/1.1 400")
            assert (await say(api.port, b"GET /" + b"x" * 10_000)).startswith(b"HTTP/1.1 431")

    run(work())


def test_another_protocol_may_serve_http(run: Run) -> None:
    """The HTTP room's protocol gets the connection with all bytes that were sniffed."""

    class Echo(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            self.transport.write(b"echo " + data)
            self.transport.close()

    async def work() -> None:
        async with listening(http=Echo) as api:
            assert await say(api.port, b"GET /x") == b"echo GET /x"

    run(work())


@pytest.mark.parametrize("data", [b"\x00", b"\x16\x03\x01", b"get /", b"HQH\x00", b" GET", b"1234"])
def test_bytes_of_no_protocol_are_hung_up_on(run: Run, data: bytes) -> None:
    async def work() -> None:
        async with listening() as api:
            assert await say(api.port, data) == b""
            assert api.refusals.counts == {"garbage": 1}
            assert await call("127.0.0.1", api.port, SECRET, "metrics")

    run(work())


def test_what_dawdles_before_it_proves_itself_is_given_up(run: Run) -> None:
    """Silence, half a magic, half a request, half a handshake: each has a deadline."""

    async def work() -> None:
        async with listening(settings=quick(handshake_timeout_s=0.1)) as api:
            hello = Dialler((SECRET,), "api", LinkKind.CLIENT, 0, 0, Claims).start()
            said = await asyncio.gather(*(say(api.port, data) for data in (b"", b"HQ", b"GET /ping", hello)))
            assert said[:2] == [b"", b""]
            assert said[2].startswith(b"HTTP/1.1 408")
            assert said[3].startswith(MAGIC)
            assert len(api.gate) == 0

    run(work())


def test_five_hundred_connections_of_all_kinds_are_survived(run: Run) -> None:
    """Sniffing, HTTP and handshakes share one bound; a client comes in through the crowd."""

    async def work() -> None:
        async with listening(settings=quick(unauthenticated_max=64)) as api:
            hello = Dialler((SECRET,), "api", LinkKind.CLIENT, 0, 0, Claims).start()
            crowd = []
            for number in range(500):
                _reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
                writer.write((b"", b"HQ", b"GET /ping", hello)[number % 4])
                crowd.append(writer)
            assert await call("127.0.0.1", api.port, SECRET, "metrics")
            assert 0 < len(api.gate) <= 64
            for writer in crowd:
                writer.close()
            await until(lambda: len(api.gate) == 0)

    run(work())


def test_a_client_that_sends_nonsense_is_hung_up_on(run: Run) -> None:
    """A proven client may only ask; it cannot speak as a node."""

    async def work() -> None:
        async with listening() as api:
            taken: list[asyncio.Transport] = []
            await dial(
                "127.0.0.1", api.port, lambda _t: Dialler((SECRET,), "api", LinkKind.CLIENT, 0, 0, Claims),
                lambda session, transport, leftover: taken.append(transport), quick(),
            )  # fmt: skip
            taken[0].write(encode_header(1, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, b""))
            await until(lambda: api.refusals.counts["frame"] == 1)
            assert api.metrics()["clients"] == 0
            taken[0].abort()

    run(work())


def test_clients_beyond_the_limit_are_hung_up_on(run: Run) -> None:
    """Who is connected stays connected."""

    async def work() -> None:
        async with (
            listening(settings=quick(clients_max=1)) as api,
            await RpcClient.connect("127.0.0.1", api.port, SECRET, timeout=5) as client,
        ):
            with pytest.raises(PeerUnreachable):
                await call("127.0.0.1", api.port, SECRET, "metrics")
            assert await client.call("metrics", 1) == {"role": "leader", "asked": 1}

    run(work())


def test_a_taken_port_is_a_config_error_that_names_it(run: Run) -> None:
    async def work() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(ConfigError, match=f"127.0.0.1:{port}"):
                await ApiListener("127.0.0.1", port, SECRET, {}).start()

    run(work())


def test_a_request_that_unpacks_to_far_more_than_its_bytes_ends_its_own_connection_only(run: Run) -> None:
    """The loop beats, votes and answers others: no client may hold it for seconds with one frame."""

    async def work() -> None:
        async with listening() as api:
            async with await RpcClient.connect("127.0.0.1", api.port, SECRET, timeout=5) as client:
                fits = [[] for _ in range(api._settings.client_frame_bytes_max - 1000)]
                assert (await client.call("metrics", fits))["asked"] == fits
                with pytest.raises(PeerUnreachable):
                    await client.call("metrics", [[]] * (1 << 18))
            await until(lambda: api.refusals.counts["frame"] == 1)
            assert await call("127.0.0.1", api.port, SECRET, "metrics")

    run(work())
