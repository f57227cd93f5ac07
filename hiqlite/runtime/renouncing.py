"""A recorded set that cannot form any more is given up (semantics.md section 10), so that another one can.

A disk that is lost while a group forms takes away a word that the recorded set needs. A member of it then renounces the
set, durably: it does not form with it by itself any more, and only follows one that has formed. Once so many renounced
it that the rest are fewer than a majority, the set can never act, whatever the rest says: who renounced it begins
again, as another incarnation, whose votes count for nobody who formed with the set. Must not know how things become
durable. Invariant: a set is left only if fewer than a majority of it can ever act by it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Final

from hiqlite.engine.model import Identity

LIVES: Final = 1 << 63  # numbers of incarnations are drawn below this
STEP: Final = 2
STEPS_MAX: Final = 1000  # that may have gone unheard; far fewer than keep two drawn numbers apart


def next_life(incarnation: int) -> int:
    """The incarnation of a member that left its set."""
    return (incarnation + STEP) % LIVES


def is_later_life(incarnation: int, known: int) -> bool:
    """Whether it is one that `known` became by leaving sets, rather than an old word of an earlier one."""
    return known != 0 and 0 < (incarnation - known) % LIVES <= STEP * STEPS_MAX


def is_hopeless(recorded: Sequence[Identity], wanted: Collection[int], life_of: Callable[[int], int]) -> bool:
    """Whether a member of the set is gone, or shall not found the group any more.

    Args:
        wanted: ids of who shall found the group; empty: not known.
        life_of: the incarnation in which a node lives now; 0: not heard of.
    """
    gone = any(life_of(one.id) not in (0, one.incarnation) for one in recorded)
    return gone or (len(wanted) > 0 and any(one.id not in wanted for one in recorded))


def may_leave(recorded: Sequence[Identity], renounced: Collection[int]) -> bool:
    """Whether those who renounced the set, by their ids, leave fewer than a majority of it."""
    rest = sum(1 for one in recorded if one.id not in renounced)
    return rest < len(recorded) // 2 + 1
