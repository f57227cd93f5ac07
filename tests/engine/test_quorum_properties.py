"""Quorums of any voter sets, compared with the definition."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hiqlite.engine import quorum

VALUES = st.lists(st.integers(0, 6), min_size=1, max_size=9)


def is_reached(voters: set[int], values: list[int], value: int) -> bool:
    return 2 * sum(values[slot] >= value for slot in voters) > len(voters)


@given(values=VALUES, data=st.data())
def test_reached_is_the_highest_value_of_a_majority_of_every_set(values: list[int], data: st.DataObject) -> None:
    """One set, or the two of a joint configuration, overlapping or not (thesis 4.3)."""
    slots = st.sets(st.integers(0, len(values) - 1), min_size=1)
    sets = data.draw(st.lists(slots, min_size=1, max_size=2))
    reached = quorum.reached([sorted(voters) for voters in sets], values)
    assert reached == 0 or all(is_reached(voters, values, reached) for voters in sets)
    assert not all(is_reached(voters, values, reached + 1) for voters in sets)
    assert quorum.won([sorted(voters) for voters in sets], values) == (reached > 0)
