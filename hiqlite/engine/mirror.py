"""Which change brings one group's members closer to a list that another group gave (semantics.md section 1), and when
no change can help a group that forgets any more (section 12).

Values in, values out: must not know logs, time or how a change is carried out. Invariant: following what is returned,
step by step, ends with exactly the listed nodes, each in its newest incarnation, as far as they have been heard of; no
step takes away a voter before whoever takes its place is there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .change import members_of
from .model import Change, ChangeKind, Identity, Membership


def next_change(
    current: Membership, voters: Sequence[int], learners: Sequence[int], life_of: Callable[[int], int]
) -> Change | None:
    """The next step; None when there is none to make now.

    Args:
        voters, learners: ids of who shall vote and learn.
        life_of: the incarnation in which a node is known to live now; 0: it was not heard of.
    """
    if current.joint:
        return None
    wanted = {*voters, *learners}
    voting = {one.id: one for one in current.voters}
    learning = {one.id: one for one in current.learners}
    for number in sorted(wanted):
        life = life_of(number)
        known = (voting.get(number), learning.get(number))
        if life and all(one is None or one.incarnation != life for one in known):
            return Change(ChangeKind.ADD_LEARNER, (Identity(number, life),))
    for number in sorted(wanted & voting.keys() & learning.keys()):  # the old incarnation votes, the new one learns
        return Change(ChangeKind.REPLACE, (voting[number], learning[number]))
    for number in sorted(wanted & learning.keys()):
        if number in voters:
            return Change(ChangeKind.PROMOTE, (learning[number],))
    staying = [number for number in voting if number in voters]
    # Who is gone leaves first: while others of the majority leave, it would come to count for more than it can.
    for number in sorted(voting.keys() - set(voters), key=lambda number: (_lives(voting[number], life_of), number)):
        if staying:
            kind = ChangeKind.DEMOTE if number in wanted else ChangeKind.REMOVE
            return Change(kind, (voting[number],))
    for number in sorted(learning.keys() - wanted):
        return Change(ChangeKind.REMOVE, (learning[number],))
    return None


def _lives(one: Identity, life_of: Callable[[int], int]) -> int:
    """0: it is gone; 1: nobody knows; 2: it is there."""
    life = life_of(one.id)
    return 1 if life == 0 else 2 * (life == one.incarnation)


def is_over(members: Membership, life_of: Callable[[int], int]) -> bool:
    """Whether this configuration can never agree on anything any more: too many of its voters live on as others."""
    for voters in (members.voters, members.outgoing):
        living = sum(1 for one in voters if life_of(one.id) in (0, one.incarnation))
        if voters and living <= len(voters) // 2:
            return True
    return False


def is_of_the_past(members: Membership, sender: Identity) -> bool:
    """Whether a sender is an incarnation that a member had before: where groups begin anew, of a group that is over.

    Only where each incarnation of a node is a higher number than the one before.
    """
    known = members_of(members)
    return sender not in known and any(one.id == sender.id and one.incarnation > sender.incarnation for one in known)
