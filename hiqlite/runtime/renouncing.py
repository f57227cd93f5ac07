"""A recorded set that cannot form any more is given up (semantics.md section 10), so that another one can.

A disk that is lost while a group forms takes away a word that the recorded set needs. A member of it then renounces the
set, durably: it does not form with it by itself any more, and only follows one that has formed. Once so many renounced
it that the rest are fewer than a majority, the set can never act, whatever the rest says: who renounced it is fresh
again, in the same incarnation. Must not know how things become durable. Invariant: a set is left only if fewer than a
majority of it can ever act by it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from hiqlite.engine.model import Identity


def is_hopeless(recorded: Sequence[Identity], wanted: Collection[int], life_of: Callable[[int], int]) -> bool:
    """Whether a member of the set is gone, or shall not found the group any more.

    Args:
        wanted: ids of who shall found the group; empty: not known.
        life_of: the incarnation in which a node lives now; 0: not heard of.
    """
    gone = any(life_of(one.id) not in (0, one.incarnation) for one in recorded)
    return gone or (len(wanted) > 0 and any(one.id not in wanted for one in recorded))


def may_leave(recorded: Sequence[Identity], renounced: Collection[Identity]) -> bool:
    """Whether those who renounced the set leave fewer than a majority of it."""
    rest = sum(1 for one in recorded if one not in renounced)
    return rest < len(recorded) // 2 + 1
