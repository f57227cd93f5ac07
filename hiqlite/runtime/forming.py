"""Drives the forming of a cluster over the wire: exchanges greetings, makes each step durable before it is said.

Decides nothing: `engine/forming.py` and `renouncing.py` do. Invariant: what a greeting says is on disk.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol

import msgpack

from hiqlite import observe
from hiqlite.engine.forming import Forming, Greeting, Step
from hiqlite.engine.model import Identity, Membership
from hiqlite.errors import HiqliteError, ProtocolError

from .membership_record import decode_membership, encode_membership
from .renouncing import Renouncing

ASK_EVERY_S = 0.05
ASK_TIMEOUT_S = 1.0
SAY_WHY_EVERY_S = 5.0
REQUEST = "greeting"
WAITS_TO_RETURN = (
    "this node lost what it had promised{}; it waits until a majority of the members takes it back "
    "(is that lost for good: hiqlite recover)"
)
WAY_OUT = (
    "empty the data folders of the nodes that have formed no cluster (nothing was written to them yet), and start them "
    "in the same way"
)
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
    async def renounce(self, set_id: bytes) -> None: ...


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
        learner_only: this node never votes, so it founds nothing.
        ask_in: asks, for a node that founded nothing, ids that have formed to let it in; gives why they do not.
        leaves: whether a recorded set that never will form is left; else it is kept, whatever becomes of it.
        renounced: id of the set that this node renounced last.
        lost: in which group, and where what was moved aside lies; for the log.
        why_silent: why a node that is not heard of never answers, as far as this one knows; for the log.
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
        learner_only: bool = False,
        ask_in: Callable[[Sequence[int]], Awaitable[str]] | None = None,
        leaves: bool = False,
        renounced: bytes = b"",
        lost: str = "",
        why_silent: Callable[[int], str] = lambda _number: "",
    ) -> None:
        self._lost = lost
        self._why_silent = why_silent
        self._leaves = leaves
        self._renouncing = Renouncing(forming.own.id, cluster_id_of, renounced)
        self._learner_only = {forming.own.id} if learner_only else set()
        self._ask_in = ask_in
        self._founders = founders
        self._returns = returns
        self._met = met
        self._joined = False
        self._forming = forming
        self._state = state
        self._records = records
        self._peers = peers
        self._turn = asyncio.Event()
        self._last = self._renouncing.greetings
        self._acting = asyncio.Lock()  # held while it becomes durable that this node acts
        self._answered: set[int] = set()  # in the last round
        self._told_all = False  # that this node renounced its set
        if peers is not None:
            peers.serve(REQUEST, self._greeted)

    async def run(self, in_vain: Callable[[Sequence[Identity]], bool] = lambda recorded: False) -> bool:
        """Until this node has formed, or joined.

        Args:
            in_vain: whether the set that is recorded here can never act, as far as this node knows now.

        Returns:
            False: it was given up, because it was in vain: this node has to begin as another incarnation.
        """
        said_at, why, refusal = 0.0, "", ""
        loop = asyncio.get_running_loop()
        while (step := self._step()) is not Step.DONE:
            forming = self._forming
            if step is Step.RECORD:
                voters = forming.proposal
                await self._records.record(voters, cluster_id_of(voters))
                forming.has_recorded(voters)
            elif step is Step.FORM:
                assert forming.recorded is not None
                async with self._acting:
                    await self._records.form(forming.recorded)
                    forming.has_formed()
            elif step is Step.JOIN:
                assert forming.joining is not None and forming.joining.members is not None
                # What the log says counts from its first configuration on; until then this is who it is fetched from.
                await self._records.join(replace(forming.joining.members, index=0), forming.joining.cluster_id)
                forming.has_joined()
                self._joined = True
            else:
                if forming.recorded is not None and in_vain(forming.recorded):
                    return False
                reason = refusal or self._why_it_waits()
                if reason != why or loop.time() - said_at > SAY_WHY_EVERY_S:
                    said_at, why = loop.time(), reason
                    log.info("node %d: %s%s", forming.own.id, why, self._way_out())
                if await self._gave_up():
                    return False
                await self._ask_all()
                formed = [number for number, greeting in self._last.items() if greeting.formed]
                if formed and self._ask_in is not None and forming.recorded is None and self._step() is Step.WAIT:
                    refusal = await self._ask_in(formed)
        return True

    def _why_it_waits(self) -> str:
        if self._returns:
            return WAITS_TO_RETURN.format(self._lost)
        known = (self._why_silent(number) for number in self._forming.voters if number not in self._last)
        return "; ".join([self._never() or self._forming.reason, *(one for one in known if one)])

    def _never(self) -> str:
        """Why the recorded set never forms, if it is kept all the same."""
        recorded = self._forming.recorded
        if recorded is None or self._leaves:
            return ""
        if others := self._renouncing.elsewhere(recorded):
            why = "agreed on other members than this node, and neither changes its mind"
        elif others := self._renouncing.gone(recorded, self._answered):
            why = "lost its disk before all had agreed on the members, which named who it was before"
        else:
            return ""
        return f"node {', '.join(map(str, sorted(others)))} {why}: {WAY_OUT}"

    def _way_out(self) -> str:
        """What to do if who is waited for never comes."""
        missing = [str(one) for one in self._forming.voters if one != self._forming.own.id and one not in self._last]
        if not missing or self._forming.recorded is not None or self._ask_in is None:
            return ""
        return f" (a new cluster forms without them by hiqlite serve --form-without {','.join(missing)})"

    def _step(self) -> Step:
        if self._returns:
            self._forming.configure(())
        elif self._founders is not None:
            self._forming.configure([number for number in self._founders() if number not in self._learner_only])
        return self._renouncing.allowed(self._forming.step(), self._forming.recorded)

    async def _gave_up(self) -> bool:
        """One step towards leaving the recorded set, if it is hopeless; whether it is to be left now."""
        recorded, renouncing = self._forming.recorded, self._renouncing
        if recorded is None or not self._leaves:
            return False
        if renouncing.should_renounce(recorded, self._founders() if self._founders is not None else ()):
            log.warning("node %d: the members that were to form the group cannot any more", self._forming.own.id)
            set_id = cluster_id_of(recorded)
            await self._records.renounce(set_id)
            renouncing.renounced = set_id
        # Whoever can be reached has heard of it by then, and has formed before, or never forms on this node's word.
        return self._told_all and renouncing.should_leave(recorded)

    @property
    def _known(self) -> Sequence[int]:
        """Ids of who may know more than this node."""
        return self._founders() if self._returns and self._founders is not None else self._forming.configured

    async def _ask_all(self) -> None:
        """One round of greetings; ends early when a peer greets first with news."""
        assert self._peers is not None, "a single node never waits"
        self._turn.clear()
        forming = self._forming
        # Who was to found the group may not be wanted any more; what was recorded with it still needs its word.
        wanted = {*self._known, *(one.id for one in forming.recorded or ())}
        others = sorted(wanted - {forming.own.id})
        self._answered = set()
        renounces = forming.recorded is not None and self._renouncing.renounces(forming.recorded)
        await asyncio.gather(*(self._ask(number) for number in others))
        self._told_all = renounces
        if self._step() is Step.WAIT:
            # Not `wait_for`: until Python 3.12 that loses a cancellation that comes together with the event.
            with suppress(TimeoutError):
                async with asyncio.timeout(ASK_EVERY_S):
                    await self._turn.wait()

    async def _ask(self, number: int) -> None:
        assert self._peers is not None
        try:
            answer = await self._peers.request(number, REQUEST, self._word(), ASK_TIMEOUT_S)
            self._hear(number, answer)
            self._answered.add(number)
        except HiqliteError as error:
            log.debug("node %d did not answer the greeting: %s", number, error)

    async def _greeted(self, peer_id: int, payload: Any) -> dict[str, Any]:
        if self._hear(peer_id, payload):
            self._turn.set()  # only for news: two nodes that wait would wake each other for ever
        async with self._acting:  # who is about to act says so, not that it does not act yet
            return self._word()

    def _word(self) -> dict[str, Any]:
        votes = self._forming.own.id not in self._learner_only
        return {**to_wire(self._greeting()), "votes": votes, "renounced": self._renouncing.renounced}

    def _greeting(self) -> Greeting:
        greeting = self._forming.greeting()
        if not greeting.formed:
            return greeting
        members, cluster_id = self._state()
        # Who joined acts by what others formed with: a set that it had recorded does not act by that.
        recorded = None if self._joined else greeting.recorded
        return replace(greeting, recorded=recorded, members=members, cluster_id=cluster_id)

    def _hear(self, peer_id: int, wire: Any) -> bool:
        """Takes a peer's greeting; whether it says anything that it had not said before."""
        greeting = from_wire(wire)
        if greeting.identity.id != peer_id:
            raise ProtocolError(f"node {peer_id} greets as node {greeting.identity.id}")
        renounced = renounced_in(wire)
        self._met(greeting.identity)
        news = self._last.get(peer_id) != greeting
        self._forming.hear(self._renouncing.hear(greeting, renounced))
        if (wire.get("votes") is False) != (peer_id in self._learner_only):
            self._learner_only ^= {peer_id}
            news = True
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


def renounced_in(wire: Any) -> bytes:
    """Id of the set that the peer gave up; empty for none. Raises ProtocolError."""
    try:
        return id_of(wire.get("renounced", b""))
    except ValueError as error:
        raise ProtocolError("the peer's greeting is malformed") from error


def id_of(value: Any) -> bytes:
    if type(value) is not bytes or len(value) not in (0, 32):
        raise ValueError("expected the id of a cluster")
    return value


def whole(value: Any) -> int:
    if type(value) is not int or value < 1:
        raise ValueError("expected a whole number above 0")
    return value
