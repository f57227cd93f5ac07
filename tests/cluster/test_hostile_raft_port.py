"""A cluster whose raft ports are attacked while it is written to: nobody who has no secret changes anything."""

from __future__ import annotations

import asyncio
import contextlib
import random
from pathlib import Path

from hiqlite.testing import Cluster, cluster
from hiqlite.transport.handshake import MAGIC, Dialler
from hiqlite.transport.session import Claims, LinkKind
from tests.cluster.agreement import check_equal, eventually

CONNECTIONS = 5000
AT_ONCE = 350
KINDS = (LinkKind.LOG, LinkKind.CONTROL, LinkKind.BEAT, LinkKind.BULK)


class Attacker:
    """Of one node: every visit is one connection, ended by the node."""

    def __init__(self, node_id: int, address: str, seed: int) -> None:
        self.node_id = node_id
        self.host, _, port = address.rpartition(":")
        self.port = int(port)
        self.random = random.Random(seed)
        self.visits = (self.silence, self.garbage, self.oversized, self.truncated, self.wrong_secret, self.reflected)

    async def visit(self, number: int, places: asyncio.Semaphore) -> None:
        async with places:
            # A node that is crowded resets connections that it has not even looked at.
            with contextlib.suppress(ConnectionError):
                reader, writer = await asyncio.open_connection(self.host, self.port)
                try:
                    await self.visits[number % len(self.visits)](reader, writer)
                    async with asyncio.timeout(30):
                        while await reader.read(4096):
                            continue
                finally:
                    writer.close()
                    with contextlib.suppress(ConnectionError):
                        await writer.wait_closed()

    async def silence(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        return

    async def garbage(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self.random.randbytes(self.random.randint(1, 3000)))

    async def oversized(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(MAGIC + b"\x01\x01\xff\xff" + bytes(70_000))

    async def truncated(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = self.dialler("no secret at all").start()
        writer.write(first[: self.random.randrange(len(first))])
        writer.write_eof()

    async def wrong_secret(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        dialler = self.dialler("a secret that somebody guessed")
        writer.write(dialler.start())
        writer.write(dialler.receive(await reader.read(4096)))

    async def reflected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self.dialler("no secret at all").start())
        writer.write(await reader.read(4096))

    def dialler(self, secret: str) -> Dialler:
        peer = self.random.choice([number for number in (1, 2, 3) if number != self.node_id])
        return Dialler((secret,), "raft", self.random.choice(KINDS), peer, self.node_id, Claims)


async def attack(three: Cluster, visits: int) -> None:
    """Equally on all nodes."""
    places = asyncio.Semaphore(AT_ONCE)
    attackers = [Attacker(number, raft, number) for number, (raft, _) in three.addresses.items()]
    work = [one.visit(number, places) for number in range(visits // len(attackers)) for one in attackers]
    outcomes = await asyncio.gather(*work, return_exceptions=True)
    failed = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    # Before the challenge came the node may have thrown somebody out: then there is nothing to answer to.
    assert [error for error in failed if type(error).__name__ not in ("AuthenticationError", "PeerUnreachable")] == []


async def test_five_thousand_hostile_connections_change_nothing(tmp_path: Path) -> None:
    """Every write meanwhile is acknowledged and there; the leader stays, the nodes stay ready, and a node that is
    restarted in the middle of it finds its way back. What came is counted by its reason."""
    async with cluster(3, base_dir=tmp_path, cache=False) as three:
        await three.client.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)")

        async def ready() -> bool:
            return all([await db.is_ready() for db in three.nodes.values()])

        await eventually(ready)
        leader, term = three.leader, (await three.client.metrics()).db.term
        attacking = asyncio.create_task(attack(three, CONNECTIONS))
        written = 0
        restarted = False
        while not attacking.done():
            await three.nodes[1 + written % 3 if restarted else leader].execute("INSERT INTO t VALUES (?)", [written])
            written += 1
            if written == 100:
                away = three.followers[0]
                await three.stop(away)
                await three.start(away)
                await eventually(ready)
                restarted = True
        await attacking
        assert restarted and written > 100
        assert (three.leader, (await three.client.metrics()).db.term) == (leader, term)
        assert await ready()
        assert await three.client.query_value("SELECT count(*) FROM t") == written
        counts = (await three.client.metrics()).node["network"]["refusals"]
        assert min(counts[reason] for reason in ("garbage", "oversized", "wrong_secret", "timeout")) > 0
        await check_equal(three)
