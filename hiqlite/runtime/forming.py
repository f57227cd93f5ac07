"""Drives the forming of a cluster over the wire: exchanges greetings, makes each step durable before it is said.

Decides nothing: `engine/forming.py` does. Invariant: what a greeting says is on disk.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol

import msgpack

from hiqlite import observe
from hiqlite.engine.forming import Forming, Greeting, Step
from hiqlite.engine.model import Identity, Membership
from hiqlite.errors import HiqliteError, ProtocolError

from .membership_record import decode_membership, encode_membership

ASK_EVERY_S = 0.05
ASK_TIMEOUT_S = 1.0
SAY_WHY_EVERY_S = 5.0
REQUEST = "greeting"
WAITS_TO_RETURN = "this node lost what it had promised; it waits until a majority of the members takes it back"
log = observe.logger("runtime")


class Peers(Protocol):
    """What forming needs of the network."""

    def serve(self, name: str, handler: Callable[[int, Any], Any]) -> None: ...
    async def request(self, peer_id: int, name: str, payload: Any, timeout: float) -> Any: ...


class Records(Protocol):
    """Where the steps become durable; each returns when it is."""

    async def record(self, voters: tuple[Identity, ...], cluster_id: bytes) -> None: ...
    async def form(self, voters: tuple[Identity, ...]) -> None: ...
    async def join(self, members: Membership, cluster_id: bytes) -> None: ...


def cluster_id_of(voters: Sequence[Identity]) -> bytes:
    """The cluster's id: nobody mints it, it follows from the recorded set (docs/formats.md section 8)."""
    packed: bytes = msgpack.packb([[one.id, one.incarnation] for one in sorted(voters)])
    return hashlib.sha256(packed).digest()


class Former:
    """One node's forming; answers peers' greetings as long as the node lives.

    Args:
        state: of a node that has formed, the configuration in force and the cluster's id, for those who want to join.
        founders: ids of who shall found the group, as far as this node knows now; None: they stay what they are.
        met: told who a peer says that it is now, which may be news since its handshake.
        returns: this node had data before and lost them. It founds nothing, nor may it seem fresh to anybody: with
            others who lost theirs it would form a second cluster, an empty one. It names no founders, so nobody
            agrees with it; a member takes it back.
    """

    def __init__(
        self,
        forming: Forming,
        records: Records,
        peers: Peers | None,
        state: Callable[[], tuple[Membership | None, bytes]] = lambda: (None, b""),
        founders: Callable[[], Sequence[int]] | None = None,
        met: Callable[[Identity], None] = lambda _identity: None,
        *,
        returns: bool = False,
    ) -> None:
        self._founders = founders
        self._returns = returns
        self._met = met
        self._forming = forming
        self._state = state
        self._records = records
        self._peers = peers
        self._turn = asyncio.Event()
        self._last: dict[int, Greeting] = {}
        if peers is not None:
            peers.serve(REQUEST, self._greeted)

    async def run(self, in_vain: Callable[[Sequence[Identity]], bool] = lambda recorded: False) -> bool:
        """Until this node has formed, or joined.

        Args:
            in_vain: whether the set that is recorded here can never act, as far as this node knows now.

        Returns:
            False: it was given up, because it was in vain.
        """
        forming = self._forming
        said_at, why = 0.0, ""
        loop = asyncio.get_running_loop()
        while (step := self._step()) is not Step.DONE:
            if step is Step.RECORD:
                voters = forming.proposal
                await self._records.record(voters, cluster_id_of(voters))
                forming.has_recorded(voters)
            elif step is Step.FORM:
                assert forming.recorded is not None
                await self._records.form(forming.recorded)
                forming.has_formed()
            elif step is Step.JOIN:
                assert forming.joining is not None and forming.joining.members is not None
                # What the log says counts from its first configuration on; until then this is who it is fetched from.
                await self._records.join(replace(forming.joining.members, index=0), forming.joining.cluster_id)
                forming.has_joined()
            else:
                reason = WAITS_TO_RETURN if self._returns else forming.reason
                if reason != why or loop.time() - said_at > SAY_WHY_EVERY_S:
                    said_at, why = loop.time(), reason
                    log.info("node %d: %s", forming.own.id, why)
                if forming.recorded is not None and in_vain(forming.recorded):
                    return False
                await self._ask_all()
        return True

    def _step(self) -> Step:
        if self._returns:
            self._forming.configure(())
        elif self._founders is not None:
            self._forming.configure(self._founders())
        return self._forming.step()

    @property
    def _known(self) -> Sequence[int]:
        """Ids of who may know more than this node."""
        return self._founders() if self._returns and self._founders is not None else self._forming.configured

    async def _ask_all(self) -> None:
        """One round of greetings; ends early when a peer greets first with news."""
        assert self._peers is not None, "a single node never waits"
        self._turn.clear()
        others = [number for number in self._known if number != self._forming.own.id]
        await asyncio.gather(*(self._ask(number) for number in others))
        if self._step() is Step.WAIT:
            # Not `wait_for`: until Python 3.12 that loses a cancellation that comes together with the event.
            with suppress(TimeoutError):
                async with asyncio.timeout(ASK_EVERY_S):
                    await self._turn.wait()

    async def _ask(self, number: int) -> None:
        assert self._peers is not None
        try:
            answer = await self._peers.request(number, REQUEST, to_wire(self._greeting()), ASK_TIMEOUT_S)
            self._hear(number, answer)
        except HiqliteError as error:
            log.debug("node %d did not answer the greeting: %s", number, error)

    async def _greeted(self, peer_id: int, payload: Any) -> dict[str, Any]:
        if self._hear(peer_id, payload):
            self._turn.set()  # only for news: two nodes that wait would wake each other for ever
        return to_wire(self._greeting())

    def _greeting(self) -> Greeting:
        greeting = self._forming.greeting()
        if not greeting.formed:
            return greeting
        members, cluster_id = self._state()
        return replace(greeting, members=members, cluster_id=cluster_id)

    def _hear(self, peer_id: int, wire: Any) -> bool:
        """Takes a peer's greeting; whether it says anything that it had not said before."""
        greeting = from_wire(wire)
        if greeting.identity.id != peer_id:
            raise ProtocolError(f"node {peer_id} greets as node {greeting.identity.id}")
        self._met(greeting.identity)
        self._forming.hear(greeting)
        news = self._last.get(peer_id) != greeting
        self._last[peer_id] = greeting
        return news


def to_wire(greeting: Greeting) -> dict[str, Any]:
    recorded = greeting.recorded
    return {
        "id": greeting.identity.id,
        "incarnation": greeting.identity.incarnation,
        "configured": list(greeting.configured),
        "recorded": None if recorded is None else [[one.id, one.incarnation] for one in recorded],
        "formed": greeting.formed,
        "members": None if greeting.members is None else encode_membership(greeting.members),
        "cluster_id": greeting.cluster_id,
    }


def from_wire(wire: Any) -> Greeting:
    """Raises ProtocolError for anything that is no greeting."""
    try:
        recorded = wire["recorded"]
        return Greeting(
            Identity(whole(wire["id"]), whole(wire["incarnation"])),
            tuple(whole(number) for number in wire["configured"]),
            None if recorded is None else tuple(Identity(whole(one), whole(life)) for one, life in recorded),
            wire["formed"] is True,
            None if wire["members"] is None else decode_membership(wire["members"]),
            id_of(wire["cluster_id"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ProtocolError("the peer's greeting is malformed") from error


def id_of(value: Any) -> bytes:
    if type(value) is not bytes or len(value) not in (0, 32):
        raise ValueError("expected the id of a cluster")
    return value


def whole(value: Any) -> int:
    if type(value) is not int or value < 1:
        raise ValueError("expected a whole number above 0")
    return value
