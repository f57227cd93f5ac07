"""What users ask of the members, and which change brings one group closer to it (api.md section 6).

Values in, values out: must not know logs, time or how a change is carried out. Invariants: a wish that is fulfilled
asks for nothing, so asking again is harmless; following what is returned, step by step, fulfils it; no step takes a
voter away before whoever takes its place is there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from hiqlite.engine.change import members_of
from hiqlite.engine.model import Change, ChangeKind, Identity, Membership
from hiqlite.errors import Overloaded, ProtocolError, UsageError

NODES_MAX = 256
LifeOf = Callable[[int], int]  # the incarnation in which a node lives now; 0: it was not heard of
WhySilent = Callable[[int], str]  # why a node is not reached, as far as that is known


class WishKind(StrEnum):
    """`ids` of the wish in brackets."""

    ADD_LEARNER = "add_learner"  # [who]
    PROMOTE = "promote"  # [who]
    DEMOTE = "demote"  # [who]
    REMOVE = "remove"  # [who]
    REPLACE = "replace"  # [who leaves, who takes the place]
    SET_VOTERS = "set_voters"  # all who vote from now on; a voter that is not named leaves
    # Asked by a node for itself, [who]; one that was removed stays so.
    LEARN = "learn"  # be a member at all, in the incarnation in which it lives
    JOIN = "join"  # vote, in the place of an earlier incarnation if there is one
    JOIN_AS_LEARNER = "join_as_learner"  # learn and never vote


@dataclass(frozen=True, slots=True)
class Wish:
    kind: WishKind
    ids: tuple[int, ...]

    def __post_init__(self) -> None:
        wanted = {WishKind.REPLACE: 2, WishKind.SET_VOTERS: len(self.ids)}.get(self.kind, 1)
        if not self.ids or len(self.ids) != wanted or len(set(self.ids)) != len(self.ids):
            raise UsageError(f"{self.kind} names its nodes, each once, not {list(self.ids)}")
        if len(self.ids) > NODES_MAX or not all(type(one) is int and 0 < one < 1 << 63 for one in self.ids):
            raise UsageError(f"a node's id is a whole number above 0, not {list(self.ids)}")

    def to_wire(self) -> list[Any]:
        return [self.kind.value, list(self.ids)]

    @classmethod
    def from_wire(cls, wire: Any) -> Self:
        """Raises ProtocolError for anything that is no wish."""
        try:
            kind, ids = wire
            return cls(WishKind(kind), tuple(ids))
        except (TypeError, ValueError) as error:  # UsageError is a ValueError
            raise ProtocolError(f"a wish about the members that cannot be read: {error}") from error


def next_change(
    members: Membership, wish: Wish, life_of: LifeOf, why_silent: WhySilent = lambda _number: ""
) -> Change | None:
    """The next step; None when the wish is fulfilled.

    Raises:
        UsageError: it makes no sense. Overloaded: it has to wait, and for what.
    """
    if members.joint:
        raise Overloaded("an earlier change of members is not through")
    one = wish.ids[0]
    match wish.kind:
        case WishKind.ADD_LEARNER:
            return _present(members, one, life_of, why_silent)
        case WishKind.LEARN | WishKind.JOIN | WishKind.JOIN_AS_LEARNER:
            return _joining(members, wish, life_of, why_silent)
        case WishKind.PROMOTE:
            return _voting(members, one)
        case WishKind.DEMOTE:
            return _learning(members, one)
        case WishKind.REMOVE:
            return _gone(members, one)
        case WishKind.REPLACE:
            return _replaced(members, one, wish.ids[1], life_of, why_silent)
        case WishKind.SET_VOTERS:
            return _voters(members, wish.ids)


def left_over(members: Membership, life_of: LifeOf) -> Change | None:
    """Takes out a learner with the id of a voter that lives; None when there is none, or nothing can change now.

    Another node had that id for a while, and was taken for one that lost its disk. As long as it is a member nothing is
    sent to the voter: what one node is sent is sent to its newest incarnation.
    """
    for one in () if members.joint else members.learners:
        voting = _of(members.voters, one.id)
        if voting is not None and life_of(one.id) == voting.incarnation:
            return Change(ChangeKind.REMOVE, (one,))
    return None


def was_removed(number: int) -> UsageError:
    """What a node is told that shall not come back by itself."""
    return UsageError(
        f"node {number} was removed from this cluster", hint=f"add_learner({number}, ...) on a member brings it back"
    )


def _of(found: Sequence[Identity], number: int) -> Identity | None:
    """The one that came last stands last."""
    return next((one for one in reversed(found) if one.id == number), None)


def _known(members: Membership, number: int) -> None:
    if all(one.id != number for one in members_of(members)):
        raise UsageError(f"node {number} is no member", hint="add it as a learner first")


def _present(members: Membership, number: int, life_of: LifeOf, why_silent: WhySilent) -> Change | None:
    """A member in the incarnation in which it lives; as a learner if it was none."""
    life = life_of(number)
    known = [one for one in members_of(members) if one.id == number]
    if known and (life == 0 or Identity(number, life) in known):
        return None
    if life == 0:
        why = why_silent(number)
        raise Overloaded(f"node {number} has not been reached{why and f': {why}'}")
    return Change(ChangeKind.ADD_LEARNER, (Identity(number, life),))


def _joining(members: Membership, wish: Wish, life_of: LifeOf, why_silent: WhySilent) -> Change | None:
    one = wish.ids[0]
    if one in members.removed:
        raise was_removed(one)
    change = _present(members, one, life_of, why_silent)
    if change is not None or wish.kind is WishKind.LEARN:
        return change
    return _voting(members, one) if wish.kind is WishKind.JOIN else _learning(members, one)


def _voting(members: Membership, number: int) -> Change | None:
    _known(members, number)
    voting, learning = _of(members.voters, number), _of(members.learners, number)
    if learning is None:
        return None
    if voting is not None:
        return Change(ChangeKind.REPLACE, (voting, learning))
    return Change(ChangeKind.PROMOTE, (learning,))


def _learning(members: Membership, number: int) -> Change | None:
    _known(members, number)
    voting, learning = _of(members.voters, number), _of(members.learners, number)
    if voting is None:
        return None
    # With a later incarnation that learns already, the one that votes leaves.
    return Change(ChangeKind.REMOVE if learning is not None else ChangeKind.DEMOTE, (voting,))


def _gone(members: Membership, number: int) -> Change | None:
    found = _of(members.learners, number) or _of(members.voters, number)
    if found is None:
        if number not in members.removed:
            raise UsageError(f"node {number} is no member")
        return None
    if {one.id for one in members.voters} == {number}:
        raise UsageError("the last voter cannot leave", hint="promote another node first")
    return Change(ChangeKind.REMOVE, (found,))


def _replaced(
    members: Membership, old: int, new: int, life_of: LifeOf, why_silent: WhySilent
) -> Change | None:
    known = {one.id for one in members_of(members)}
    if old not in known:
        if old not in members.removed or new not in known:
            raise UsageError(f"node {old} is no member")
        return None
    if new not in known:
        return _present(members, new, life_of, why_silent)
    voting, learning = _of(members.voters, old), _of(members.learners, new)
    if voting is not None and learning is not None and _of(members.voters, new) is None:
        return Change(ChangeKind.REPLACE, (voting, learning))
    return _gone(members, old)


def _voters(members: Membership, ids: Sequence[int]) -> Change | None:
    wanted = []
    for number in ids:
        _known(members, number)
        wanted.append(_of(members.learners, number) or _of(members.voters, number))
    voters = tuple(one for one in wanted if one is not None)
    return None if set(voters) == set(members.voters) else Change(ChangeKind.SET_VOTERS, voters)
