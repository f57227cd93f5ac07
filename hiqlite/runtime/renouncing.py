"""A recorded set that cannot form any more is given up (semantics.md section 10), so that another one can.

A disk that is lost while a group forms takes away a word that the recorded set needs. A member of it then renounces the
set, durably: it does not form with it by itself any more, and only follows one that has formed. Once so many renounced
it, or recorded another one, that the rest are fewer than a majority, or once nobody else of it is left, the set can
never act by itself: who renounced it begins again, as another incarnation, whose votes count for nobody who formed with
the set.

Must not know how things become durable, nor how a set is named. Invariant: a set is left only if fewer than a majority
of it can act by it without being told to.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Final

from hiqlite.engine.forming import Greeting, Step
from hiqlite.engine.model import Identity

LIVES_BITS: Final = 63
LIVES: Final = 1 << LIVES_BITS  # numbers of incarnations are drawn below this
STEP: Final = 2
NOBODY: Final = 0  # no incarnation
STEPS_MAX: Final = 1000  # that may have gone unheard; far fewer than keep two drawn numbers apart
Recorded = tuple[Identity, ...]


def first_life() -> int:
    """The incarnation of a member that begins with nothing: drawn, and odd, so that it is never nobody's."""
    return secrets.randbits(LIVES_BITS) | 1


def next_life(incarnation: int) -> int:
    """The incarnation of a member that left its set."""
    return (incarnation + STEP) % LIVES


def is_later_life(incarnation: int, known: int) -> bool:
    """Whether it is one that `known` became by leaving sets, rather than an old word of an earlier one."""
    return known != 0 and 0 < (incarnation - known) % LIVES <= STEP * STEPS_MAX


class Renouncing:
    """What one node knows of sets that were given up, and whether it gives up its own.

    Args:
        own_id: this node's.
        set_id: the name under which a set is spoken of.
        renounced: the set that this node renounced last; empty: none.
    """

    def __init__(self, own_id: int, set_id: Callable[[Sequence[Identity]], bytes], renounced: bytes = b"") -> None:
        self.renounced = renounced
        self._own_id = own_id
        self._set_id = set_id
        self._renouncers: set[tuple[int, bytes]] = set()  # id of who renounced, and of which set
        self._sets: dict[Identity, Recorded] = {}  # what a peer recorded, which is true for ever
        self.greetings: dict[int, Greeting] = {}  # the newest of each peer

    def hear(self, greeting: Greeting, renounced: bytes) -> Greeting:
        """Takes a peer's word; gives what counts of it for forming.

        Nobody forms by the word of who renounced: it is as if somebody unknown had said it. What it recorded is still
        told: a member that has not recorded the set does so and gives it up too, else it would count as one who may
        act by it.
        """
        peer_id, recorded = greeting.identity.id, greeting.recorded
        if renounced:
            self._renouncers.add((peer_id, renounced))
        if recorded is not None:
            self._sets[greeting.identity] = recorded
        self.greetings[peer_id] = greeting
        if recorded is None or greeting.formed or (peer_id, self._set_id(recorded)) not in self._renouncers:
            return greeting
        return replace(greeting, identity=Identity(peer_id, NOBODY))

    def allowed(self, step: Step, recorded: Recorded | None) -> Step:
        """The step that this node may take: with a set that it renounced it only forms after another one."""
        if step is Step.FORM and recorded is not None and self.renounces(recorded) and not self.follows(recorded):
            return Step.WAIT
        return step

    def renounces(self, recorded: Recorded) -> bool:
        return self._set_id(recorded) == self.renounced

    def follows(self, recorded: Recorded) -> bool:
        """Whether somebody has formed with the set."""
        return any(one.formed and one.recorded == recorded for one in self.greetings.values())

    def should_renounce(self, recorded: Recorded, wanted: Collection[int]) -> bool:
        """Whether this node gives its recorded set up; durably, before it says so.

        Args:
            wanted: ids of who shall found the group; empty: not known.
        """
        if self.renounces(recorded) or self.follows(recorded):
            return False
        lost = self._gone(recorded) | self.elsewhere(recorded)
        return is_hopeless(recorded, wanted, lost) or self._others_gave_up(recorded)

    def should_leave(self, recorded: Recorded) -> bool:
        """Whether this node begins as another incarnation now, with the set behind it."""
        if not self.renounces(recorded) or self.follows(recorded):
            return False
        never = {self._own_id} | self._renounced_by(recorded) | self.elsewhere(recorded)
        return may_leave(recorded, never, self._gone(recorded))

    def elsewhere(self, recorded: Recorded) -> set[int]:
        """Ids of members that recorded another set as who they are in this one, so that they never act by this one."""
        return {one.id for one in recorded if self._sets.get(one, recorded) != recorded}

    def gone(self, recorded: Recorded, answered: Collection[int]) -> set[int]:
        """Ids of members without whose word the set never acts: they live as somebody else, and nobody has formed.

        Args:
            answered: who does now. While another member is silent nothing is known: that one may have formed.
        """
        others = {one.id for one in recorded} - {self._own_id}
        formed = any(self.greetings[one].formed for one in others & self.greetings.keys())
        return self._gone(recorded) if others <= set(answered) and not formed else set()

    # -- parts

    def _others_gave_up(self, recorded: Recorded) -> bool:
        """Whether the set needs the word of one who renounced it, though this node sees no reason; else that one would
        wait for ever. All have to be heard, for one that is silent may have formed."""
        heard = all(one.id in self.greetings for one in recorded if one.id != self._own_id)
        return heard and len(self._renounced_by(recorded)) > 0

    def _renounced_by(self, recorded: Recorded) -> set[int]:
        set_id = self._set_id(recorded)
        return {number for number, renounced in self._renouncers if renounced == set_id}

    def _gone(self, recorded: Recorded) -> set[int]:
        """Ids of members that live as somebody else by now."""
        newest = self.greetings
        return {one.id for one in recorded if one.id in newest and newest[one.id].identity != one}


def is_hopeless(recorded: Recorded, wanted: Collection[int], lost: Collection[int]) -> bool:
    """Whether a member of the set is lost to it, or shall not found the group any more.

    Args:
        wanted: ids of who shall found the group; empty: not known.
    """
    return len(lost) > 0 or (len(wanted) > 0 and any(one.id not in wanted for one in recorded))


def may_leave(recorded: Recorded, never: Collection[int], gone: Collection[int]) -> bool:
    """Whether fewer than a majority of the set may act by it, or nobody but such as are gone.

    One that is gone does not count otherwise: with the others, one of whom may have formed, the set can act without it.

    Args:
        never: ids of who never acts by it, having renounced it, or recorded another one.
        gone: ids of who lives as somebody else by now.
    """
    rest = [one.id for one in recorded if one.id not in never]
    return len(rest) < len(recorded) // 2 + 1 or all(number in gone for number in rest)
