"""What peers ask of this node's group: to propose their writes, and to confirm a read.

Knows records as bytes; what may be proposed is told by a checker given from outside. Invariant: every forwarded write
is answered once, with its answer or with an error that says what became of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from hiqlite._accel.records import EntryKind, RecordKind
from hiqlite.errors import (
    ClusterError,
    HiqliteError,
    LeadershipLost,
    NotLeader,
    ProtocolError,
    StorageError,
    TransportError,
    UsageError,
)

from .forwarding import TERM_MASK, TRIED_BEFORE, split_forward
from .group import Group
from .replies import ForwardedWrite, Replies

KIND_AT, ENTRY_KIND_AT = 5, 6  # offsets in a record, docs/formats.md section 2


class Requests(Protocol):
    def send_forward_reply(self, peer_id: int, body: bytes) -> bool: ...
    def answers(self, peer_id: int) -> bool: ...
    def hang_up(self, peer_id: int) -> None: ...
    async def request(self, peer_id: int, name: str, payload: Any, timeout: float) -> Any: ...


class RemoteWrites:
    """The leader's side of forwarding.

    Args:
        kinds: of entries that a peer may ask for.
        check: the leader's look at a command before it is proposed, told whether an earlier try may have been applied;
            raises what the caller is to see.
    """

    def __init__(
        self,
        group: Group,
        kinds: tuple[EntryKind, ...],
        check: Callable[[bytes, bool], object],
        network: Requests,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._group = group
        self._kinds = kinds
        self._check = check
        self._replies = Replies(
            network.send_forward_reply,
            loop,
            group.settings.entry_bytes_max,
            unsent_bytes_max=group.settings.proposal_queue_bytes,
            listens=network.answers,
            hang_up=network.hang_up,
        )

    def received(self, peer_id: int, body: bytes) -> None:
        """One frame of writes; the link is closed when it is malformed (ProtocolError)."""
        now_ns = self._group.clock.monotonic_ns()
        for number, timeout, term, record in split_forward(body):
            timeout_ms, tried_before = timeout & ~TRIED_BEFORE, bool(timeout & TRIED_BEFORE)
            deadline_ns = now_ns + timeout_ms * 1_000_000 if timeout_ms else 0
            write = ForwardedWrite(self._replies, peer_id, number, deadline_ns)
            if record[KIND_AT] != RecordKind.ENTRY or record[ENTRY_KIND_AT] not in self._kinds:
                raise ProtocolError("a peer forwarded something that is no write")
            if not self._takes(term):
                leader_id = self._group.engine.leader_id if self._group.started else 0
                write.set_exception(NotLeader("this node does not lead", leader_id=leader_id or None))
                continue
            try:
                self._check(record, tried_before)
                self._group.proposals.put(record, write)
            except HiqliteError as error:
                write.set_exception(error)

    def _takes(self, term: int) -> bool:
        """Whether a write that was sent in `term` may be proposed.

        One of an earlier term may not, though this node leads again: what the peer sent before it was refused perhaps.
        """
        group = self._group
        return group.leads and group.proposals.taking and term == group.engine.term & TERM_MASK

    async def read_index(self, peer_id: int, payload: object) -> int:
        """A follower's linearizable reads: the index they have to wait for.

        A disk that fails here is no reason to fail there: the next leader confirms them.
        """
        try:
            return await self._group.read_index()
        except StorageError as error:
            raise LeadershipLost(f"the leader cannot go on: {error.message}") from error

    def lost(self, peer_id: int) -> None:
        """The link that carries answers to a peer is gone: what it was to be told goes with it."""
        self._replies.lost(peer_id)


async def read_index_of(group: Group, network: Requests | None, timeout_s: float) -> int | None:
    """The read index from whoever leads now; None when nobody does or leadership moved: ask again."""
    try:
        if group.leads:
            return await group.read_index()
        if network is not None and group.started and group.engine.leader_id:
            index = await network.request(group.engine.leader_id, "read_index", None, timeout_s)
            if not isinstance(index, int) or index < 0:
                raise UsageError("the leader's read index is no index")
            return index
    except (ClusterError, TransportError):
        return None
    return None
