"""How a cluster comes to be, without a command and without a special node (semantics.md section 10).

A node is *fresh*, then it has *recorded* a set of voters, then it has *formed* with that set. It records the set of all
configured voters once each of them has said that it is fresh (or has recorded that very set), or adopts a set that a
peer recorded and that names this very incarnation. It has formed, and acts as a voter, once every member of the set has
recorded it, or once a member says that it has formed. A node that is no member yet *joins* instead when a formed one
says that it is named among its learners by now; nobody begins as a voter of a group that he did not found.

Why no second cluster can arise: an incarnation records one set and keeps it; to act, a set needs all of its members to
have recorded it. Two sets over the same ids that both act would need every node in two incarnations, which means that
every volume was lost in between, and with them all data. What a peer said may be old: "has recorded S" and "has formed
with S" stay true for ever, and "is fresh" alone never lets anybody act. Who joins acts by the configurations of a group
that has formed, and brings none of its own.

Must not know time, sockets or hashing: the driver exchanges greetings and makes things durable before it says so here.
Invariant: `recorded` changes once, from None; `formed` only from False to True. A node that joined has formed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from .model import Identity, Membership


@dataclass(frozen=True, slots=True)
class Greeting:
    """What a node says about itself to a peer.

    Attributes:
        configured: ids of the voters in its config, ascending.
        members: of a node that has formed, the configuration that is in force there now.
        cluster_id: of a node that has formed.
    """

    identity: Identity
    configured: tuple[int, ...]
    recorded: tuple[Identity, ...] | None = None
    formed: bool = False
    members: Membership | None = None
    cluster_id: bytes = b""


class Step(Enum):
    """What the driver has to do next."""

    WAIT = "wait"  # and say why: `Forming.reason`
    RECORD = "record"  # make `Forming.proposal` durable, then call `has_recorded`
    JOIN = "join"  # make `Forming.joining` durable, then call `has_joined`
    FORM = "form"  # make it durable that the recorded set acts, then call `has_formed`
    DONE = "done"


class Forming:
    """One node's way from fresh to formed.

    Args:
        own: this node's identity.
        configured: see `configure`.
        recorded, formed: what an earlier start made durable.
        without: configured voters that are not waited for, by command; they join later.
    """

    def __init__(
        self,
        own: Identity,
        configured: Sequence[int],
        *,
        recorded: tuple[Identity, ...] | None = None,
        formed: bool = False,
        without: Sequence[int] = (),
    ) -> None:
        self.own = own
        self.configured: tuple[int, ...] = ()
        self.voters: tuple[int, ...] = ()
        self._without = tuple(without)
        self.configure(configured)
        self.recorded = recorded
        self.formed = formed
        self.proposal: tuple[Identity, ...] = ()
        self.joining: Greeting | None = None  # of who says that this node is named; its `members` are not None
        self.reason = ""
        self._heard: dict[int, Greeting] = {}

    def configure(self, configured: Sequence[int]) -> None:
        """Ids of all who shall found the group, this node's usually among them; may be told anew while it waits."""
        self.configured = tuple(sorted(configured))
        self.voters = tuple(number for number in self.configured if number not in self._without)

    def greeting(self) -> Greeting:
        return Greeting(self.own, self.configured, self.recorded, self.formed)

    def hear(self, greeting: Greeting) -> None:
        """The newest word of a peer."""
        if greeting.identity.id != self.own.id:
            self._heard[greeting.identity.id] = greeting

    def step(self) -> Step:
        """What to do now, given all that was heard."""
        if self.formed:
            return Step.DONE
        for greeting in self._heard.values():
            if greeting.formed and greeting.members is not None and self.own in greeting.members.learners:
                self.joining = greeting
                return Step.JOIN
        return self._when_fresh() if self.recorded is None else self._when_recorded(self.recorded)

    def has_recorded(self, voters: tuple[Identity, ...]) -> None:
        assert self.recorded is None and self.own in voters
        self.recorded = voters

    def has_joined(self) -> None:
        assert self.joining is not None
        self.formed = True

    def has_formed(self) -> None:
        assert self.recorded is not None
        self.formed = True

    # -- parts

    def _when_fresh(self) -> Step:
        for greeting in self._heard.values():
            if greeting.recorded is not None and self.own in greeting.recorded:
                self.proposal = greeting.recorded
                return Step.RECORD
        if self.own.id not in self.voters:
            self.reason = self._why_it_founds_nothing()
            return Step.WAIT
        others = [number for number in self.voters if number != self.own.id]
        missing = [number for number in others if number not in self._heard]
        if missing:
            self.reason = f"waiting to hear of node {', '.join(map(str, missing))}"
            return Step.WAIT
        for number in others:
            peer = self._heard[number]
            if peer.configured != self.configured:
                theirs = f"that of node {number} {peer.configured}"
                if not peer.configured:  # nobody's config says that
                    theirs = f"node {number} founds nothing: it lost what it had, or does not know the members yet"
                self.reason = f"this node's config names {self.configured}, {theirs}"
                return Step.WAIT
            if peer.recorded is not None or peer.formed:  # who joined has formed, and recorded nothing
                state = "has formed" if peer.formed else "is forming"
                self.reason = f"node {number} {state} with other members, this node is not one of them"
                return Step.WAIT
        identities = [self.own, *(self._heard[number].identity for number in others)]
        self.proposal = tuple(sorted(identities))
        return Step.RECORD

    def _why_it_founds_nothing(self) -> str:
        if not self.configured:
            return "no node of the config votes (learner_only): no cluster forms of learners alone"
        if self.own.id in self.configured:
            return "this node was left out when the cluster formed, it has to be added"
        return f"this node is not among those that found the cluster {self.configured}, and waits to be let in"

    def _when_recorded(self, recorded: tuple[Identity, ...]) -> Step:
        agreed = {self.own}
        for greeting in self._heard.values():
            if greeting.recorded == recorded and greeting.identity in recorded:
                if greeting.formed:
                    return Step.FORM
                agreed.add(greeting.identity)
        missing = [one.id for one in recorded if one not in agreed]
        if not missing:
            return Step.FORM
        self.reason = f"waiting for node {', '.join(map(str, missing))} to agree on the members"
        return Step.WAIT
