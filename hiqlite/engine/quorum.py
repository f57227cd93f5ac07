"""Majorities of one or more voter sets (joint consensus needs a majority of each, thesis 4.3).

Knows slots and integers only: a voter set is a list of slots, a slot is a place in a list of values. Must not know
peers, terms or messages. Invariant: an answer holds for every voter set at once; an empty set never reaches anything.
"""

from __future__ import annotations


def reached(voter_sets: list[list[int]], values: list[int]) -> int:
    """The highest value that a majority of every voter set has reached, 0 when there is none.

    With match indexes as values this is the commit candidate; with confirmed rounds the confirmed round; with
    "alive until" times the time at which the quorum is lost. Values are not negative.
    """
    lowest = -1
    for slots in voter_sets:
        need = len(slots) // 2 + 1
        best = 0
        for slot in slots:
            value = values[slot]
            if value > best:
                count = 0
                for other in slots:
                    if values[other] >= value:
                        count += 1
                if count >= need:
                    best = value
        if lowest < 0 or best < lowest:
            lowest = best
    return max(lowest, 0)


def won(voter_sets: list[list[int]], granted: list[int]) -> bool:
    """Whether the slots with a value above 0 are a majority of every voter set."""
    return reached(voter_sets, granted) > 0
