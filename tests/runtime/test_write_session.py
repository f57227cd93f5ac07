"""The session of a process: opened by its first write, order kept, room awaited, each write in its place."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from hiqlite._accel.batch import Op
from hiqlite._accel.plain.answers import Done, Failed, encode_answer
from hiqlite._accel.records import Operation, command_view, encode_command, header
from hiqlite._accel.session import SessionWindow
from hiqlite.errors import (
    HiqliteError,
    LeadershipLost,
    NoLeader,
    Overloaded,
    RequestTimeout,
    SessionExpired,
    ShuttingDown,
)
from hiqlite.runtime.write_session import SessionTerms, WriteSession
from hiqlite.statemachine.session_record import session_record

OPENING = session_record(4, 1000, 1000)
WELL = encode_answer(0, [Done(1, 1)])
EXPIRED = encode_answer(1, [Failed(9, "not known")])
IDLE_NS = 1000
PATIENCE_NS = 500


class Sender:
    """A session whose group is played by the test."""

    def __init__(self, *, window: int = 4, has_sessions: bool = True) -> None:
        self.loop = asyncio.get_running_loop()
        self.possible: bool | None = True
        self.refuse: Exception | None = None
        self.sent: list[tuple[bytes, Op]] = []
        terms = SessionTerms(OPENING, window, IDLE_NS, lambda: self.possible, PATIENCE_NS)
        self.seeks = True
        self.session = WriteSession(terms if has_sessions else None, self.loop, self._send, str, lambda: self.seeks)

    def _send(self, record: bytes, op: Op) -> None:
        if self.refuse is not None:
            raise self.refuse
        self.sent.append((record, op))

    def write(self, number: int, deadline_ns: int = 0) -> Op:
        op = Op(self.loop, None, "INSERT", deadline_ns)
        self.session.write(encode_command(Operation.EXECUTE, [(f"INSERT {number}", ())]), op)
        return op

    def opened(self, index: int = 9) -> None:
        """The session's entry is applied."""
        record, op = self.sent[-1]
        assert record == OPENING
        op.answer(encode_answer(0, []), index)

    @property
    def places(self) -> list[tuple[str, int, int, int]]:
        """(text, session, sequence, low end) of each write that was sent."""
        views = [command_view(record) for record, _ in self.sent if record != OPENING]
        return [(view.texts[0].decode(), view.session, view.sequence, view.window_low) for view in views]


async def test_the_first_write_opens_the_session_and_the_others_wait_in_order() -> None:
    sender = Sender()
    for number in range(3):
        sender.write(number)
    assert [record for record, _ in sender.sent] == [OPENING] and len(sender.session) == 3
    await asyncio.sleep(0)
    sender.opened(9)
    await asyncio.sleep(0)
    assert sender.places == [(f"INSERT {n}", 9, n + 1, 1) for n in range(3)]
    assert len(sender.session) == 0 and sender.session.held_bytes == 0
    sender.sent[1][1].answer(WELL, 10)
    sender.write(3)
    assert sender.places[-1] == ("INSERT 3", 9, 4, 2)  # the first is answered: nobody asks for it any more


async def test_writes_wait_for_room_and_are_not_overtaken() -> None:
    """No more of them are under way than the window holds, in whatever order they are answered."""
    chance = Random(1)
    sender = Sender(window=4)
    sender.write(0)
    sender.opened()
    await asyncio.sleep(0)
    sender.sent.pop(0)
    for number in range(1, 200):
        sender.write(number)
        waiting = [op for _, op in sender.sent if not op.done()]
        assert len(waiting) <= 4
        for op in chance.sample(waiting, chance.randint(0, len(waiting))):
            op.answer(WELL, 1)
        await asyncio.sleep(0)
    while waiting := [op for _, op in sender.sent if not op.done()]:
        chance.choice(waiting).answer(WELL, 1)
        await asyncio.sleep(0)
    assert [place[0] for place in sender.places] == [f"INSERT {n}" for n in range(200)]
    assert [place[2] for place in sender.places] == list(range(1, 201))
    assert all(0 <= sequence - low < 4 for _, _, sequence, low in sender.places)


async def test_who_stops_waiting_gives_his_place_away() -> None:
    """Cancelled, late, or refused: the window moves on."""
    sender = Sender(window=2)
    sender.write(0)
    sender.opened()
    await asyncio.sleep(0)
    sender.write(1)
    held = [sender.write(number) for number in (2, 3, 4)]
    sender.sent[1][1].cancel()
    sender.sent[2][1].set_exception(RequestTimeout("late", outcome="unknown"))
    held[0].cancel()  # never sent, so it has no place
    await asyncio.sleep(0)
    assert sender.places[2:] == [("INSERT 3", 9, 3, 3), ("INSERT 4", 9, 4, 3)]


async def test_a_session_that_cannot_be_opened_fails_those_who_wait_for_it() -> None:
    """They were not sent; the next write tries again."""
    sender = Sender()
    writes = [sender.write(0), sender.write(1)]
    sender.sent[0][1].set_exception(LeadershipLost("gone", outcome="unknown"))
    await asyncio.sleep(0)
    for op in writes:
        assert isinstance(op.exception(), LeadershipLost) and op.exception().outcome == "not_applied"
    sender.refuse = Overloaded("too much")
    refused = sender.write(2)
    await asyncio.sleep(0)
    assert isinstance(refused.exception(), Overloaded)
    sender.refuse = None
    sender.write(3)
    sender.opened()
    await asyncio.sleep(0)
    assert sender.places == [("INSERT 3", 9, 1, 1)]


@pytest.mark.parametrize(("seeks", "kind"), [(True, NoLeader), (False, RequestTimeout)])
async def test_deadlines_pass_while_the_session_is_opened(seeks: bool, kind: type[HiqliteError]) -> None:
    """It waits for a leader; or the leader has it, and tries somebody's long statement first."""
    sender = Sender()
    sender.seeks = seeks
    late, other = sender.write(0, deadline_ns=50), sender.write(1, deadline_ns=500)
    sender.session.expire(100)
    assert type(late.exception()) is kind and late.exception().outcome == "not_applied"
    assert not other.done() and len(sender.session) == 1
    sender.session.fail(ShuttingDown("the end", outcome="unknown"))
    assert isinstance(other.exception(), ShuttingDown) and other.exception().outcome == "not_applied"
    assert sender.session.held_bytes == 0


async def test_a_session_that_was_idle_is_not_used_again() -> None:
    """Before the group can have forgotten it."""
    sender = Sender()
    sender.write(0)
    sender.opened()
    await asyncio.sleep(0)
    sender.session.expire(10)
    sender.session.expire(10 + 2 * IDLE_NS)  # a write waits: it is not idle
    sender.sent[1][1].answer(WELL, 10)
    sender.session.expire(20 + 2 * IDLE_NS)
    sender.session.expire(9 + 3 * IDLE_NS)
    assert sender.session.window.free
    sender.session.expire(30 + 3 * IDLE_NS)
    sender.write(1)
    sender.opened(40)
    await asyncio.sleep(0)
    assert sender.places[-1] == ("INSERT 1", 40, 1, 1)


async def test_a_session_that_the_group_forgot_is_opened_anew() -> None:
    """Who was sent once is told that nothing happened, who was sent again that nobody knows."""
    sender = Sender()
    sender.write(0)
    sender.opened()
    await asyncio.sleep(0)
    once, again = sender.sent[1][1], sender.write(1)
    again.uncertain = True
    once.answer(EXPIRED, 11)
    again.answer(EXPIRED, 12)
    assert isinstance(once.exception(), SessionExpired) and once.exception().outcome == "not_applied"
    assert once.exception().retryable
    assert isinstance(again.exception(), SessionExpired) and again.exception().outcome == "unknown"
    sender.write(2)
    sender.opened(40)
    await asyncio.sleep(0)
    assert sender.places[-1] == ("INSERT 2", 40, 1, 1)


async def test_without_sessions_writes_pass_as_they_are() -> None:
    """A group without them, or a member of an older release: nothing waits, nothing has a place."""
    plain = Sender(has_sessions=False)
    plain.write(0)
    assert plain.places == [("INSERT 0", 0, 0, 0)]
    sender = Sender()
    sender.possible = False
    first = sender.write(0)
    assert sender.places == [("INSERT 0", 0, 0, 0)] and not first.retries
    sender.possible = True
    sender.session.expire(10)
    sender.write(1)
    sender.opened(9)
    await asyncio.sleep(0)
    assert sender.places[-1] == ("INSERT 1", 9, 1, 1)
    sender.possible = False
    sender.session.expire(20)
    sender.write(2)
    assert sender.places[-1] == ("INSERT 2", 0, 0, 0)


async def test_the_first_writes_wait_a_while_until_all_members_were_met() -> None:
    """Then they leave without a session: a member that nobody met may be of an older release."""
    sender = Sender()
    sender.possible = None
    sender.write(0)
    assert sender.sent == [] and not sender.session.possible
    sender.session.expire(10)
    sender.possible = True
    sender.session.met()
    sender.opened()
    await asyncio.sleep(0)
    assert sender.places == [("INSERT 0", 9, 1, 1)]
    alone = Sender()
    alone.possible = None
    alone.write(0)
    alone.session.expire(10)
    alone.session.expire(10 + PATIENCE_NS)
    assert alone.sent == []
    alone.session.expire(11 + PATIENCE_NS)
    assert alone.places == [("INSERT 0", 0, 0, 0)]
    alone.write(1)
    assert alone.places[-1] == ("INSERT 1", 0, 0, 0)


async def test_a_member_of_an_older_release_ends_the_session_at_once() -> None:
    """Though writes wait for room all the time: what is under way is not sent again, what was held leaves plainly."""
    sender = Sender(window=2)
    for number in range(4):
        sender.write(number)
    sender.opened()
    await asyncio.sleep(0)
    under_way = [op for record, op in sender.sent if record != OPENING]
    assert len(under_way) == 2 and all(op.retries for op in under_way)
    sender.possible = False
    sender.session.expire(10)
    assert not any(op.retries for op in under_way)
    assert sender.places[2:] == [("INSERT 2", 0, 0, 0), ("INSERT 3", 0, 0, 0)]
    opening = Sender()
    opening.write(0)
    opening.possible = False
    opening.session.expire(10)
    assert opening.sent[0][1].cancelled() and opening.places == [("INSERT 0", 0, 0, 0)]


async def test_a_write_that_cannot_be_sent_gives_its_place_back() -> None:
    sender = Sender()
    sender.write(0)
    sender.opened()
    await asyncio.sleep(0)
    sender.sent[-1][1].answer(WELL, 10)
    sender.refuse = Overloaded("too much")
    for number in range(10):
        with pytest.raises(Overloaded):
            sender.write(number)
    assert sender.session.window.waiting == 0 and sender.session.window.free


async def test_an_uncertain_write_is_never_told_that_it_was_not_applied() -> None:
    op = Op(asyncio.get_running_loop())
    op.uncertain = True
    op.set_exception(Overloaded("too much"))
    assert isinstance(op.exception(), Overloaded) and op.exception().outcome == "unknown"


async def test_a_window_moves_past_what_is_over_only() -> None:
    window = SessionWindow(3, lambda: None)
    assert not window.free
    window.open(5)
    ops = [Op(asyncio.get_running_loop()) for _ in range(3)]
    assert [op.keep_in(window) for op in ops] == [1, 2, 3]
    assert not window.free and window.waiting == 3
    ops[1].answer(WELL, 1)
    ops[2].cancel()
    assert (window.low, window.next) == (1, 4) and not window.free
    ops[0].set_exception(ShuttingDown("the end"))
    assert (window.low, window.next) == (4, 4) and window.free


@pytest.mark.parametrize("kind", [2, 1])
def test_the_opening_entry_is_of_its_own_kind(kind: int) -> None:
    record = OPENING if kind == 2 else encode_command(Operation.EXECUTE, [("INSERT", ())])
    assert header(record, 0).entry_kind == kind
