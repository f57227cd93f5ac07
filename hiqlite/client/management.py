"""The calls about a cluster's members and its leaders (api.md section 6), for every kind of client.

Each acts on whole nodes, in both groups, from any node; each may be called again with the same wish, which is a success
that changes nothing. Must not know how a wish travels. Invariant: what cannot be meant is refused before it travels.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Protocol

from hiqlite.clock import monotonic_ns
from hiqlite.errors import NoLeader, UsageError
from hiqlite.runtime.addresses import split_address
from hiqlite.runtime.wishes import Wish, WishKind

from .timing import timeout_ns, timeout_s

if TYPE_CHECKING:
    from hiqlite.runtime.metrics import Member, Metrics

HEALTH_PAUSE_S = 0.01
Addresses = Mapping[int, tuple[str, str]]  # id -> (raft, api), each `host:port`


class MembersCalls(Protocol):
    """What a node knows and does about members."""

    def members(self) -> list[Member]: ...
    async def fulfil(self, wish: Wish, addresses: Addresses, timeout: float | None) -> None: ...


class Management(ABC):
    """A call that ends without an error has happened, in both groups. UsageError: it makes no sense. RequestTimeout:
    not in time; the message says what it waits for, and `outcome` is "unknown" when it may happen yet.
    """

    async def add_learner(self, id: int, raft_addr: str, api_addr: str, *, timeout: float | None = None) -> None:
        """Let a node in: it gets all data and serves reads. Waits until it is reached; no limit if none is given.

        A node that was removed comes back by this call only.
        """
        await self._wish(WishKind.ADD_LEARNER, (id,), timeout, {id: (raft_addr, api_addr)})

    async def promote(self, id: int, *, timeout: float | None = None) -> None:
        """Make a learner a voter. Waits until it has caught up, without a limit if none is given."""
        await self._wish(WishKind.PROMOTE, (id,), timeout)

    async def demote(self, id: int, *, timeout: float | None = None) -> None:
        """Make a voter a learner. A leader hands over first."""
        await self._wish(WishKind.DEMOTE, (id,), timeout)

    async def remove_member(self, id: int, *, timeout: float | None = None) -> None:
        """Take a node out, for good: it stops, and does not come back by itself. Also the leader, and a dead node."""
        await self._wish(WishKind.REMOVE, (id,), timeout)

    async def replace_member(
        self, old: int, id: int, raft_addr: str, api_addr: str, *, timeout: float | None = None
    ) -> None:
        """Let a node in and, once it has caught up, take another one out, in one step. No limit if none is given.

        The new one gets the place of the old one: a voter's, or a learner's.
        """
        await self._wish(WishKind.REPLACE, (old, id), timeout, {id: (raft_addr, api_addr)})

    async def set_voters(self, ids: Iterable[int], *, timeout: float | None = None) -> None:
        """Exactly these members vote from now on; a voter that is not among them is removed."""
        await self._wish(WishKind.SET_VOTERS, tuple(sorted(ids)), timeout)

    async def transfer_leadership(
        self, to: int | None = None, group: str | None = None, *, timeout: float | None = None
    ) -> None:
        """Make another voter lead: `to`, or the one that is furthest.

        Args:
            group: "db" or "cache"; None: both.
        """
        if to is not None and (type(to) is not int or to < 1):
            raise UsageError(f"a node's id is a whole number above 0, not {to!r}")
        await self._transfer(to or 0, group, timeout_s(timeout))

    @abstractmethod
    async def snapshot(self, *, timeout: float | None = None) -> int:
        """Move what the node that is asked has applied into its database file, durably, and let its log begin behind
        it, but for the tail of `logs_until_snapshot` entries. No limit if none is given: a long read holds it up.

        Nothing needs this call: a node does so by itself. It makes the next start short, and a copy of the disk small.

        Returns:
            The newest log index that is in the file. RequestTimeout: not in time; it goes on.
        """

    @abstractmethod
    async def metrics(self, *, timeout: float | None = None) -> Metrics:
        """What the node that is asked says about itself, in numbers: `.db`, `.cache`, `.groups`, `.node`.

        Works while a node starts, and after its end too.
        """

    @abstractmethod
    async def is_healthy(self, *, timeout: float | None = None) -> bool:
        """Whether the node that is asked works: it takes part in its groups, and knew their leaders a moment ago.

        An election does not make it False; a lost majority does, after three of the longest election timeouts. Before
        the cluster has formed, and once the node shuts down, it is False. A full disk, or a lag, is no illness.
        """

    @abstractmethod
    async def is_ready(self, *, timeout: float | None = None) -> bool:
        """Whether the node that is asked should be given work: it is healthy, has applied what was committed when it
        started, lags less than `ready_max_lag` entries, has room on its disk, and knows of no split brain.

        Why not: `metrics().node["reasons"]`.
        """

    async def wait_until_healthy(self, timeout: float = 30) -> None:
        """Wait, `timeout` seconds at most. Raises NoLeader when the node is not healthy by then."""
        end_ns = monotonic_ns() + timeout_ns(timeout)
        while not await self.is_healthy():
            if monotonic_ns() > end_ns:
                reasons = (await self.metrics()).node["reasons"]
                raise NoLeader("the node did not become healthy in time", hint="; ".join(reasons), outcome=None)
            await asyncio.sleep(HEALTH_PAUSE_S)

    @abstractmethod
    async def members(self, *, timeout: float | None = None) -> list[Member]:
        """The cluster's members, as the node that is asked knows them."""

    @abstractmethod
    async def is_leader(self, group: str = "db", *, timeout: float | None = None) -> bool:
        """Whether the node that is asked leads `group`, as far as it knows."""

    # -- how a call travels

    @abstractmethod
    async def _fulfil(self, wish: Wish, addresses: Addresses, timeout: float | None, waits: bool) -> None:
        """`waits`: without a timeout it has no limit."""

    @abstractmethod
    async def _transfer(self, to: int, group: str | None, timeout: float | None) -> None: ...

    async def _wish(
        self, kind: WishKind, ids: tuple[int, ...], timeout: float | None, addresses: Addresses | None = None
    ) -> None:
        for raft, api in (addresses or {}).values():
            split_address(raft)
            split_address(api)
        waits = kind not in (WishKind.DEMOTE, WishKind.REMOVE)
        await self._fulfil(Wish(kind, ids), addresses or {}, timeout_s(timeout), waits)
