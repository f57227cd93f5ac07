"""Two nodes with one id: the one that is connected stays, and a dead one keeps nobody out."""

from __future__ import annotations

import asyncio
import logging

import pytest

from hiqlite.errors import Overloaded, RequestTimeout
from hiqlite.transport.lives import Lives
from hiqlite.transport.session import Claims

CONNECTED, DOUBLE = Claims(incarnations={0: 7, 1: 8}), Claims(incarnations={0: 70, 1: 80})
MEMBER = Claims(incarnations={0: 700, 1: 800})


class Other:
    """A peer; `answers`: it gives a sign of life."""

    def __init__(self) -> None:
        self.has_links = True
        self.answers = True
        self.busy = False
        self.asked = 0

    def drop(self) -> None:
        self.has_links = False

    async def ask(self, _peer_id: int) -> None:
        self.asked += 1
        await asyncio.sleep(0)
        if self.busy:
            raise Overloaded("too many requests")
        if not self.answers:
            raise RequestTimeout("no answer")


def made() -> tuple[Lives, Other]:
    other = Other()
    lives = Lives({3: other}, other.ask, lambda *one: one == (3, MEMBER.incarnations))
    assert lives.admits(3, CONNECTED) == ""
    lives.proven(3, CONNECTED.incarnations)
    return lives, other


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_second_node_stays_outside_while_the_first_one_lives(caplog: pytest.LogCaptureFixture) -> None:
    """However often it tries; people are told once."""
    lives, other = made()
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            assert lives.admits(3, DOUBLE) == "double"
            await settled()
    assert other.has_links and other.asked == 3
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "gives the id 3" in caplog.text


async def test_whoever_gives_no_sign_of_life_keeps_nobody_out() -> None:
    """Its links are closed; the next try of the other one succeeds. Meanwhile it is asked once."""
    lives, other = made()
    other.answers = False
    assert [lives.admits(3, DOUBLE) for _ in range(3)] == ["double"] * 3
    await settled()
    assert other.asked == 1 and not other.has_links
    assert lives.admits(3, DOUBLE) == ""


async def test_a_node_that_was_started_anew_is_the_same_one() -> None:
    """With what it kept of any group; and without links that stand nobody is in its way."""
    lives, other = made()
    assert lives.admits(3, Claims(incarnations={0: 7, 1: 90})) == ""
    assert lives.admits(3, Claims(incarnations={0: 70, 1: 8})) == ""
    assert lives.admits(3, Claims(incarnations={})) == ""
    other.has_links = False
    assert lives.admits(3, DOUBLE) == "" and other.asked == 0


async def test_a_member_takes_the_place_of_a_stranger(caplog: pytest.LogCaptureFixture) -> None:
    """Who came in while the member was away must not keep it out, however lively."""
    lives, other = made()
    with caplog.at_level(logging.INFO):
        assert lives.admits(3, MEMBER) == ""
    assert not other.has_links and other.asked == 0
    assert "takes the place" in caplog.text


async def test_only_who_is_known_comes_in() -> None:
    """Whatever it claims."""
    lives, _ = made()
    assert lives.admits(4, CONNECTED) == "unknown_node"


async def test_closing_ends_what_is_asked() -> None:
    """Nothing is left behind."""
    lives, other = made()
    assert lives.admits(3, DOUBLE) == "double"
    await lives.close()
    assert other.has_links and len(asyncio.all_tasks()) == 1


async def test_a_node_that_cannot_be_asked_now_keeps_its_links() -> None:
    """That this end is busy says nothing about the other one."""
    lives, other = made()
    other.busy = True
    assert lives.admits(3, DOUBLE) == "double"
    await settled()
    assert other.asked == 1 and other.has_links
