"""Links between nodes that come and go while writes travel over others."""

from __future__ import annotations

import asyncio
from pathlib import Path

import hiqlite.testing
from hiqlite.logstore.folder import DB
from hiqlite.transport.session import LinkKind


async def test_an_answer_is_not_lost_with_a_link_that_does_not_carry_it(tmp_path: Path) -> None:
    """The leader's own log link goes in the turn in which it answers; the peer's link with the answer stands."""
    async with hiqlite.testing.cluster(3, base_dir=tmp_path) as cluster:
        await cluster.client.execute("CREATE TABLE t (x)")
        number = cluster.followers[0]
        network = cluster._running[cluster.leader].network
        assert network is not None
        peer, remote = network._peers[number], cluster._running[cluster.leader].groups[DB].remote
        write = asyncio.ensure_future(cluster.nodes[number].execute("INSERT INTO t VALUES (1)"))
        cut = False
        while not write.done():
            if number in remote._replies._parts and not cut:
                cut = True
                peer.out[LinkKind.LOG].close()
                await cluster.wait_until(lambda: peer.connected)
            await asyncio.sleep(0)
        assert cut and (await write).rows_affected == 1
