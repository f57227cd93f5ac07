"""What a node is in the cache group, from one incarnation to the next.

Part of the composition root: it makes the group, joins it once the database's members are known, keeps its members
those of the database's, and where the group is in memory only begins anew when too many nodes forgot it. Invariant:
there is one incarnation at a time; the one before it has ended, with everything it had, before the next is made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hiqlite import observe
from hiqlite._accel.records import EntryKind
from hiqlite.errors import HiqliteError, LeadershipLost, RequestTimeout, ShuttingDown
from hiqlite.logstore.folder import CACHE
from hiqlite.node_group import NodeGroup, Surroundings
from hiqlite.node_links import GroupLinks, takes_none
from hiqlite.node_storage import Storage
from hiqlite.runtime import mirror_record
from hiqlite.runtime.group import Group
from hiqlite.runtime.mirroring import Mirroring
from hiqlite.transport.network import Network

log = observe.logger("node")


class CacheLife:
    """Of one node.

    Args:
        groups: of the node, by number; the cache group's place in it is kept here.
        source: the database's group, whose members this one follows.
        formed: called when the group has formed.
    """

    def __init__(
        self,
        groups: dict[int, NodeGroup],
        storage: Storage,
        source: Group,
        links: GroupLinks,
        network: Network | None,
        around: Surroundings,
        formed: Callable[[], None],
    ) -> None:
        self._groups = groups
        self._storage = storage
        self._source = source
        self._links = links
        self._network = network
        self._around = around
        self._formed = formed
        self._interval_s = around.config.heartbeat_interval_ms / 1000
        self._closed = False
        self._make()

    async def live(self, joining: asyncio.Task[None]) -> None:
        """Until it is cancelled. The members are those of the database's group, so that one is joined first; nobody
        who only wants the database waits for this one."""
        await asyncio.wait([joining])
        if joining.cancelled() or joining.exception() is not None:
            return
        try:
            await self._join()
            while self._group.storage.forgets and self._network is not None:
                await asyncio.sleep(self._interval_s)
                if self._group.is_over:
                    log.warning("too many nodes forgot the cache group: it begins anew, empty")
                    await self._renew(self._network)
                    await self._join()
        except Exception as error:
            self._group.fail(error)

    async def until_mirrored(self, index: int, timeout: float) -> None:
        """Until this group's members are those of the database's configuration at `index`, or of a newer one.

        Raises:
            RequestTimeout, ShuttingDown: it did not come to that; the database's members changed all the same.
        """
        try:
            async with asyncio.timeout(timeout):
                while not await self._mirroring.until_mirrored(index):
                    if self._closed:  # otherwise the group begins anew
                        raise ShuttingDown("the node is shutting down", outcome="applied")
        except TimeoutError:
            reason = "the members changed, the cache group has not followed yet"
            raise RequestTimeout(reason, outcome="applied") from None

    async def close(self) -> None:
        """After `live` was cancelled, before the groups are stopped."""
        self._closed = True
        await self._mirroring.close()

    # -- inside

    @property
    def _group(self) -> NodeGroup:
        return self._groups[CACHE]

    def _make(self) -> None:
        storage, source = self._storage.cache, self._source
        assert storage is not None, "this node has a cache group"

        def founders() -> list[int]:
            return sorted({one.id for one in source.engine.membership.voters}) if source.started else []

        def check(group: Group, record: bytes, tried_before: bool) -> None:
            mirror_record.check(record)

        made = self._groups[CACHE] = NodeGroup(
            storage, storage, self._links, self._around, founders=founders, kinds=(EntryKind.MIRROR,), check=check
        )
        around = self._around
        self._mirroring = Mirroring(
            source, made.group, lambda: storage.cache.state, made.who_lives, around.clock, around.loop
        )

    async def _join(self) -> None:
        while not await self._group.join(self._formed):
            assert self._network is not None, "nobody else can keep a single node from forming"
            await self._renew(self._network)
        self._mirroring.start()

    async def _renew(self, network: Network) -> None:
        """Another incarnation takes the place of what this node was in the group."""
        error: HiqliteError = LeadershipLost("the cache group began anew, empty", outcome="unknown")
        await self._mirroring.close()
        await self._group.stop(error)
        await self._group.close_images()
        self._links.on_offer = takes_none
        await self._storage.renew_cache(self._around.loop)
        self._make()
        network.identify(incarnations=self._storage.incarnations)
        for peer_id, epoch in network.epochs().items():  # links that stand are no news to anybody else
            self._group.connected(peer_id, epoch)
