"""Calls that only the leader can answer, made from any node: it is found, followed, and asked again.

For calls that may be carried out twice without harm: an answer that is lost is asked for again. Must not know what is
asked. Invariant: a call ends with the leader's answer, with an error that no other node would answer better, or at its
deadline, with what is known of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from hiqlite.clock import Clock
from hiqlite.errors import (
    ClusterError,
    HiqliteError,
    NoLeader,
    NotLeader,
    ProtocolError,
    RequestTimeout,
    StorageError,
    TransportError,
    with_outcome,
)

from .group import Group

SLICE_S = 2.0  # of one request to the leader; what takes longer is asked for again
LEADERS_PART = 0.7  # of a slice: so the leader says why it waits before nobody listens any more
PAUSE_S = 0.02


class Peers(Protocol):
    """What the calls need of the network."""

    def serve(self, name: str, handler: Callable[[int, Any], Any]) -> None: ...
    def reached(self) -> Sequence[int]: ...
    async def request(self, peer_id: int, name: str, payload: Any, timeout: float) -> Any: ...


class LeaderCalls:
    """One kind of call, of one group of one node.

    Args:
        answer: the leader's part: (payload, seconds that it may take). Raises what the caller is to see.
    """

    def __init__(
        self, group: Group, peers: Peers, name: str, answer: Callable[[Any, float], Awaitable[None]], clock: Clock
    ) -> None:
        self._group = group
        self._peers = peers
        self._name = name
        self._answer = answer
        self._clock = clock
        peers.serve(name, self._asked)

    async def call(
        self, payload: Callable[[], Any], timeout: float | None, done: Callable[[], bool] = lambda: False
    ) -> None:
        """Until the leader has answered.

        Args:
            payload: what to ask, as it is known when it is asked.
            timeout: seconds; None: no limit.
            done: whether what was asked for is there already, as far as this node sees.

        Raises:
            RequestTimeout: not in time; the message says why, the outcome is "not_applied" only if nothing can have
            begun. What the leader's part raises for good; what this node fails or closes with.
        """
        end_ns = None if timeout is None else self._clock.monotonic_ns() + int(timeout * 1e9)
        asked = _Asked()
        while not done():
            if self._group.failure is not None:
                raise with_outcome(self._group.failure, asked.outcome)
            left_s = SLICE_S if end_ns is None else (end_ns - self._clock.monotonic_ns()) / 1e9
            if left_s <= 0:
                raise RequestTimeout(f"not done in time: {asked.reason}", outcome=asked.outcome)
            try:
                async with asyncio.timeout(left_s):
                    await self._once(payload(), min(left_s, SLICE_S), asked)
                return
            except (TimeoutError, HiqliteError) as error:
                asked.failed(error)
            await asyncio.sleep(PAUSE_S)

    async def _once(self, payload: Any, slice_s: float, asked: _Asked) -> None:
        group = self._group
        if group.leads:
            await self._answer(payload, slice_s * LEADERS_PART)
            return
        reached = list(self._peers.reached())
        if group.leader_id in reached:
            leader_id = group.leader_id
        elif asked.hint in reached:
            leader_id, asked.hint = asked.hint, 0
        elif reached:
            leader_id = reached[asked.tries % len(reached)]
        else:
            raise NoLeader("no other node is reached")
        await self._peers.request(leader_id, self._name, [slice_s * LEADERS_PART, payload], slice_s)

    async def _asked(self, peer_id: int, wire: Any) -> None:
        """A peer's call; it knows how to go on from any error."""
        match wire:
            case [int() | float() as slice_s, payload] if 0 < slice_s <= SLICE_S:
                pass
            case _:
                raise ProtocolError(f"a call of {self._name!r} that cannot be read")
        if not self._group.leads:
            raise NotLeader("this node does not lead", leader_id=self._group.leader_id or None)
        await self._answer(payload, float(slice_s))


class _Asked:
    """What became of a call so far."""

    def __init__(self) -> None:
        self.tries = 0
        self.hint = 0  # who leads, by the word of who was asked last
        self.reason = "no answer"
        self.outcome: Any = "not_applied"

    def failed(self, error: Exception) -> None:
        """Raises it again when asking once more would not help."""
        self.tries += 1
        if not isinstance(error, HiqliteError):  # the request's own end
            self.outcome = "unknown"
            return
        if isinstance(error, ProtocolError) or not isinstance(error, ClusterError | TransportError | StorageError):
            raise error
        if not isinstance(error, RequestTimeout) or error.outcome:  # else what was said before says more
            self.reason = error.message
        if isinstance(error, NotLeader):
            self.hint = error.leader_id or 0
        elif error.outcome != "not_applied":
            self.outcome = "unknown"
