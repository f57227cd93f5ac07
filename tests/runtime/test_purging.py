"""What of a log may go, and when."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from hiqlite.runtime.purging import ASKED_AGAIN_TURNS, PINNED_BYTES_MAX, Purger


@dataclass
class World:
    """A log, a state machine and an engine by what they say of themselves."""

    base_index: int = 0
    held_bytes: int = 0
    durable_index: int = 0
    applied_index: int = 0
    purge_limit: int = 1 << 40
    needed_from: int = 1 << 40
    pinned_index: int = -1
    faulty: tuple[tuple[int, int], ...] = ()
    asked: int = 0
    purges: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.purger = Purger(self, self, 100)  # type: ignore[arg-type]  # it is all three of them

    def term_at(self, index: int) -> int:
        return 7

    def make_durable(self) -> None:
        self.asked += 1

    def purge(self, index: int, term: int) -> None:
        self.purges.append((index, term))

    def purged(self, index: int) -> None:
        assert self.purges[-1][0] == index, "the log first: the engine may be asked at once"
        self.base_index = index

    def turn(self, **changes: int) -> list[tuple[int, int]]:
        for name, value in changes.items():
            setattr(self, name, value)
        self.purger.pinned_index = lambda: self.pinned_index
        self.purger.turn(self)
        return self.purges


def test_a_tail_stays_behind_what_is_durable() -> None:
    """As many entries as make a purge worth while."""
    world = World()
    assert world.turn(applied_index=199, durable_index=199) == []
    assert world.turn(applied_index=500, durable_index=200) == [(100, 7)]
    assert world.turn(durable_index=299) == [(100, 7)]
    assert world.turn(durable_index=500) == [(100, 7), (400, 7)]


def test_the_database_is_asked_for_when_it_lags() -> None:
    """However few pages the entries have changed."""
    world = World()
    world.turn(applied_index=99)
    assert world.asked == 0
    world.turn(applied_index=100)
    world.turn(applied_index=199)  # a reader stands in the way of the checkpoint: it is not asked for again and again
    assert (world.asked, world.purges) == (1, [])
    world.turn(applied_index=200)
    assert world.asked == 2
    for _ in range(ASKED_AGAIN_TURNS):
        world.turn()
    assert world.asked == 3, "without further writes nobody else would ask"


@pytest.mark.parametrize("pin", ["purge_limit", "needed_from", "pinned_index"])
def test_what_a_peer_or_an_image_needs_stays_until_the_log_is_too_large(pin: str) -> None:
    """Then they begin anew."""
    world = World()
    lowest = 151 if pin == "needed_from" else 150
    assert world.turn(applied_index=5000, durable_index=5000, **{pin: lowest}) == [(150, 7)]
    assert world.turn(held_bytes=PINNED_BYTES_MAX) == [(150, 7)]
    assert world.turn(held_bytes=PINNED_BYTES_MAX + 1) == [(150, 7), (4900, 7)]


def test_nothing_goes_that_is_not_applied_here() -> None:
    """A database that an image has just replaced may be durable beyond what the engine knows."""
    assert World().turn(applied_index=250, durable_index=5000) == [(150, 7)]


def test_what_is_damaged_stays_however_large_the_log_is() -> None:
    """It is not known what it says, and so not whether the log may begin behind it."""
    world = World()
    world.faulty = ((160, 165), (400, 410))
    assert world.turn(applied_index=5000, durable_index=5000, held_bytes=PINNED_BYTES_MAX + 1) == [(159, 7)]
