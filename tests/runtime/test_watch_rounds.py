"""The watch itself: whom it asks and when, what it logs, and that nothing that peers say stops it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from hiqlite.engine.model import Identity, Membership
from hiqlite.errors import HiqliteError, PeerUnreachable, RequestTimeout
from hiqlite.runtime.split_brain import Kind
from hiqlite.runtime.watching import SETTLE_S, STRANGER_S, Asked, Watch
from hiqlite.runtime.word import GroupWord, Word

CLUSTER = b"c" * 32


class Hour(asyncio.SelectorEventLoop):
    """A loop whose clock the test moves."""

    ahead_s = 0.0

    def time(self) -> float:
        return super().time() + self.ahead_s


@dataclass
class Side:
    """One node: what it would say, and its end of the wire."""

    number: int
    wire: dict[int, Side]
    interval_s: float = 300.0
    process: int = 0
    said: GroupWord = field(default_factory=lambda: GroupWord(1))
    terms: dict[int, int] = field(default_factory=dict)  # of its log
    removed: tuple[int, ...] = ()
    answer: Callable[[int, Any], Awaitable[Any]] | None = None
    asked: int = 0
    heard: list[Word] = field(default_factory=list)  # from others
    cluster_id: bytes = CLUSTER

    def __post_init__(self) -> None:
        self.wire[self.number] = self
        self.process = self.process or 100 + self.number
        self.begin()

    def begin(self) -> None:
        loop = asyncio.get_running_loop()
        self.watch = Watch(
            self.number, self.process, self.word, self, lambda: self.removed, self.heard.append, self.interval_s, loop
        )

    def word(self, asked: Asked, twice: tuple[int, ...]) -> Word:
        index = asked.get("db", 0)
        held = (index, self.terms[index]) if index in self.terms else (0, 0)
        said = self.said
        group = GroupWord(1, said.forgets, said.term, said.leader_id, said.committed, said.members, held)
        return Word(self.number, self.process, self.cluster_id, {"db": group}, twice)

    # -- the wire

    def serve(self, name: str, handler: Callable[[int, Any], Awaitable[Any]]) -> None:
        assert name == "watch"
        self.answer = handler

    def reached(self) -> list[int]:
        return [number for number in self.wire if number != self.number]

    async def request(self, peer_id: int, name: str, payload: Any, timeout: float) -> Any:
        peer = self.wire[peer_id]
        peer.asked += 1
        assert peer.answer is not None
        return await peer.answer(self.number, payload)


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def on_moved_clock(work: Callable[[Hour], Awaitable[None]]) -> None:
    with asyncio.Runner(loop_factory=Hour) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, Hour)

        async def run() -> None:
            await work(loop)

        runner.run(run())


def test_all_are_asked_after_a_change_and_when_the_interval_is_over() -> None:
    """A change is a new term, leader or configuration; that entries are committed all the time is none."""

    async def work(loop: Hour) -> None:
        wire: dict[int, Side] = {}
        one = Side(1, wire)
        Side(2, wire)

        async def due() -> bool:
            if not one.watch.look():
                return False
            await one.watch.ask_all()
            return True

        await due()
        for change in (GroupWord(1, term=2), GroupWord(1, term=2, leader_id=1),
                       GroupWord(1, term=2, leader_id=1, members=Membership(5, (Identity(1, 1),)))):  # fmt: skip
            loop.ahead_s += 2 * SETTLE_S
            await due()
            one.said = change
            assert not await due()
            loop.ahead_s += 2 * SETTLE_S
            assert await due()
            one.said = GroupWord(1, False, change.term, change.leader_id, (77, 2), change.members)
            loop.ahead_s += 2 * SETTLE_S
            assert not await due()
        loop.ahead_s += 290
        assert not await due()
        loop.ahead_s += 11
        assert await due() and not await due()

    on_moved_clock(work)


def test_two_that_meet_compare_soon() -> None:
    async def work(loop: Hour) -> None:
        one = Side(1, {})
        one.watch.look()
        loop.ahead_s += 2 * SETTLE_S
        assert one.watch.look()
        await one.watch.ask_all()
        one.watch.connected(2)
        assert not one.watch.look()
        loop.ahead_s += 2 * SETTLE_S
        assert one.watch.look()

    on_moved_clock(work)


async def test_a_contradiction_is_logged_once_by_both_and_once_when_it_is_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One question is enough for both to know."""
    wire: dict[int, Side] = {}
    one, two = Side(1, wire), Side(2, wire)
    one.said, two.said = GroupWord(1, term=7, leader_id=1), GroupWord(1, term=7, leader_id=2)
    for _ in range(5):
        await one.watch.ask_all()
    assert [side.watch.contradictions[0].kind for side in (one, two)] == [Kind.LEADER] * 2
    assert len(errors(caplog)) == 2 and all(text.startswith("split brain: ") for text in errors(caplog))
    two.process, two.said = 999, GroupWord(1, term=8, leader_id=1)
    one.said = two.said
    two.begin()
    for _ in range(5):
        await one.watch.ask_all()
    assert one.watch.contradictions == two.watch.contradictions == ()
    (over,) = errors(caplog)[2:]
    assert over.startswith("no split brain any more: ")


async def test_two_logs_that_parted_are_found_by_the_entry_that_is_asked_about() -> None:
    """The newest entries of the two lie at different indexes."""
    wire: dict[int, Side] = {}
    one = Side(1, wire, said=GroupWord(1, committed=(50, 3)), terms={50: 3})
    two = Side(2, wire, said=GroupWord(1, committed=(90, 5)), terms={50: 4, 90: 5})
    await one.watch.ask_all()
    assert [side.watch.contradictions[0].kind for side in (one, two)] == [Kind.ENTRY] * 2


async def test_what_nodes_of_this_cluster_say_is_handed_on_by_both() -> None:
    """Who asks and who answers; a node of another cluster, or of none yet, says nothing of this one."""
    wire: dict[int, Side] = {}
    one, two = Side(1, wire), Side(2, wire)
    Side(3, wire, cluster_id=b"")
    await one.watch.ask_all()
    assert [word.node_id for word in one.heard] == [2]
    assert [word.node_id for word in two.heard] == [1]


async def test_a_removed_node_is_held_against_nobody() -> None:
    wire: dict[int, Side] = {}
    one, two = Side(1, wire), Side(2, wire)
    one.said, two.said = GroupWord(1, term=7, leader_id=1), GroupWord(1, term=7, leader_id=2)
    await one.watch.ask_all()
    assert one.watch.contradictions
    one.removed = (2,)
    del wire[2]
    await one.watch.ask_all()
    assert one.watch.contradictions == ()


@pytest.mark.parametrize("failure", [PeerUnreachable("gone"), RequestTimeout("late"), HiqliteError("no such request")])
async def test_a_peer_that_does_not_answer_stops_nothing(failure: HiqliteError) -> None:
    """One of an earlier version does not know the question."""
    wire: dict[int, Side] = {}
    one, two, three = Side(1, wire), Side(2, wire), Side(3, wire)

    async def fails(peer_id: int, payload: Any) -> Any:
        raise failure

    two.answer = fails
    one.said, three.said = GroupWord(1, term=7, leader_id=1), GroupWord(1, term=7, leader_id=2)
    await one.watch.ask_all()
    assert len(one.watch.contradictions) == 1


async def test_a_peer_that_answers_nonsense_stops_nothing() -> None:
    wire: dict[int, Side] = {}
    one, two = Side(1, wire), Side(2, wire)
    for nonsense in (None, 5, {}, {"process": 1}):

        async def answers(peer_id: int, payload: Any, nonsense: Any = nonsense) -> Any:
            return nonsense

        two.answer = answers
        await one.watch.ask_all()
        one.watch.greeted(2, {"process": nonsense})
        one.watch.greeted(2, {"process": -1, "twice": []})
        one.watch.greeted(2, {"process": 1, "twice": nonsense})
    assert one.watch.contradictions == ()


async def test_handshakes_alone_tell_of_a_node_that_runs_twice_and_tell_that_node() -> None:
    """The two take the links from each other: there is no time for questions."""
    wire: dict[int, Side] = {}
    one, two = Side(1, wire), Side(2, wire)
    for _ in range(5):
        one.watch.greeted(2, {"process": 201, "twice": []})
        one.watch.greeted(2, {"process": 202, "twice": []})
    assert one.watch.contradictions[0].kind is Kind.TWICE
    two.watch.greeted(1, one.watch.greeting())
    assert two.watch.contradictions[0].nodes == (2,)


def test_a_stranger_is_reported_until_it_is_met_or_stays_away(caplog: pytest.LogCaptureFixture) -> None:
    """Once, however often it is met; with its cluster, once that is proven."""

    async def work(loop: Hour) -> None:
        one = Side(1, {})
        for _ in range(3):
            one.watch.met_stranger(2, b"")
            one.watch.met_stranger(2, b"o" * 32)
            one.watch.met_stranger(2, b"")
            one.watch.met_stranger(3, b"")
        assert one.watch.strangers == (2, 3) and len(errors(caplog)) == 2
        assert one.watch.contradictions[0].text == (
            f"node 2 belongs to another cluster ({(b'o' * 32).hex()[:16]}), not to this one ({CLUSTER.hex()[:16]})"
        )
        one.watch.connected(2)
        await one.watch.ask_all()
        assert one.watch.strangers == (3,)
        assert [contradiction.nodes for contradiction in one.watch.contradictions] == [(3,)]
        loop.ahead_s += STRANGER_S + 1
        one.watch.look()
        assert one.watch.strangers == () == one.watch.contradictions
        assert len(errors(caplog)) == 4

    on_moved_clock(work)
