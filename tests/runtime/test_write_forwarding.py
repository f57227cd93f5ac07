"""Writes on their way to the leader: sent once, answered once, in order, and told truly when the leader goes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiqlite._accel.answers import Done, Failed, encode_answer
from hiqlite._accel.batch import Op
from hiqlite._accel.commands import encode_command
from hiqlite._accel.session import SessionWindow
from hiqlite.config import RaftSettings
from hiqlite.errors import (
    ConstraintError,
    HiqliteError,
    LeadershipLost,
    NoLeader,
    NotLeader,
    Overloaded,
    ProtocolError,
    RequestTimeout,
    ShuttingDown,
    StorageError,
)
from hiqlite.runtime.forwarding import (
    AGAIN_NS,
    ANSWERED,
    FORWARD,
    REFUSED,
    REPLY,
    TRIED_BEFORE,
    Forwarder,
    split_forward,
    split_replies,
)
from hiqlite.runtime.proposals import Proposals
from hiqlite.runtime.replies import ForwardedWrite, Replies

EXECUTE = 1
SECOND_NS = 1_000_000_000
NOW = 100 * SECOND_NS
PATIENCE_NS = SECOND_NS // 2
DONE = encode_answer(0, [Done(1, 7)])
DUPLICATE = encode_answer(1, [Failed(2, "UNIQUE constraint failed: t.x", 2067)])


def record(number: int) -> bytes:
    return encode_command(EXECUTE, [("INSERT INTO t VALUES (?)", [number])])


def reply(number: int, index: int = 0, status: int = ANSWERED, data: bytes = DONE) -> bytes:
    return REPLY.pack(number, index, len(data), status) + data + bytes(-len(data) % 8)


def refused(number: int, error: HiqliteError) -> bytes:
    return reply(number, 0, REFUSED, msgpack.packb(error.to_wire()))


class Follower:
    """A forwarder with a network and a state machine that the test plays."""

    def __init__(self, *, queue_bytes_max: int = 1 << 20, number: int = 0) -> None:
        self.loop = asyncio.get_running_loop()
        self.sent: list[tuple[int, bytes]] = []
        self.linked = True
        self.applied_index = 0
        self._waiting: list[tuple[int, Callable[[], None]]] = []
        self.forwarder = Forwarder(
            self.loop,
            send=self._send,
            when_applied=self._when_applied,
            queue_bytes_max=queue_bytes_max,
            patience_ns=PATIENCE_NS,
            number=number,
        )

    def _send(self, peer_id: int, body: bytes) -> bool:
        if self.linked:
            self.sent.append((peer_id, body))
        return self.linked

    def _when_applied(self, index: int, callback: Callable[[], None]) -> None:
        if index <= self.applied_index:
            callback()
        else:
            self._waiting.append((index, callback))

    def apply(self, index: int) -> None:
        self.applied_index = index
        ripe = [callback for at, callback in self._waiting if at <= index]
        self._waiting = [(at, callback) for at, callback in self._waiting if at > index]
        for callback in ripe:
            callback()

    def write(self, number: int = 1, deadline_ns: int = 0) -> Op:
        op = Op(self.loop, None, "INSERT", deadline_ns)
        self.forwarder.put(record(number), op)
        return op

    def numbers(self, frame: int = -1) -> list[int]:
        return [number for number, *_ in split_forward(self.sent[frame][1])]


async def test_writes_of_a_turn_travel_in_one_frame_in_order() -> None:
    """One frame to the leader, with the records as they were queued."""
    follower = Follower()
    for number in range(5):
        follower.write(number)
    follower.forwarder.flush(2, NOW, term=2)
    ((peer_id, body),) = follower.sent
    assert peer_id == 2
    assert [data for *_, data in split_forward(body)] == [record(number) for number in range(5)]


async def test_a_write_resolves_when_this_node_has_applied_it() -> None:
    """The leader's answer alone is not enough: the caller reads its own write here."""
    follower = Follower()
    op = follower.write()
    follower.forwarder.flush(2, NOW, term=2)
    follower.forwarder.replied(2, reply(1, index=9), NOW)
    assert not op.done() and len(follower.forwarder) == 1
    follower.apply(9)
    result = op.result()
    assert (result.rows_affected, result.last_insert_rowid, result.log_index) == (1, 7, 9)
    assert len(follower.forwarder) == 0 and follower.forwarder.waiting_bytes == 0


async def test_answers_may_come_in_any_order_and_any_grouping() -> None:
    """Each finds its caller by its number; unknown and repeated numbers are passed over."""
    follower = Follower()
    ops = [follower.write(number) for number in range(3)]
    follower.forwarder.flush(2, NOW, term=2)
    follower.apply(100)
    follower.forwarder.replied(2, reply(3, 13) + reply(77, 14) + reply(1, 11), NOW)
    follower.forwarder.replied(2, reply(1, 55) + reply(2, 12), NOW)
    assert [op.result().log_index for op in ops] == [11, 12, 13]


async def test_an_error_of_the_leader_reaches_the_caller_as_itself() -> None:
    """Class, message and outcome are those that a local call would have raised."""
    follower = Follower()
    op = follower.write()
    follower.forwarder.flush(2, NOW, term=2)
    follower.forwarder.replied(2, refused(1, Overloaded("too much", hint="wait")), NOW)
    with pytest.raises(Overloaded, match="too much") as caught:
        op.result()
    assert caught.value.outcome == "not_applied"
    assert follower.forwarder.waiting_bytes == 0


@pytest.mark.parametrize("kind", [NotLeader, ShuttingDown, NoLeader, LeadershipLost])
async def test_a_write_that_was_not_applied_goes_to_the_next_leader_before_later_ones(kind: Any) -> None:
    """The refused write is first again, so the order of one client's writes is kept."""
    follower = Follower()
    follower.write(1)
    follower.write(2)
    follower.forwarder.flush(2, NOW, term=2)
    follower.write(3)
    error = kind("not here", outcome="not_applied")
    follower.forwarder.replied(2, refused(1, error) + refused(2, error), NOW)
    follower.forwarder.flush(3, NOW, term=3)
    peer_id, body = follower.sent[-1]
    assert peer_id == 3
    assert [data for *_, data in split_forward(body)] == [record(1), record(2), record(3)]


async def test_the_node_that_refused_is_not_asked_again_at_once() -> None:
    """Between its refusal and the news of another leader nothing runs in circles."""
    follower = Follower()
    follower.write()
    follower.forwarder.flush(2, NOW, term=2)
    follower.forwarder.replied(2, refused(1, NotLeader("not here")), NOW)
    follower.forwarder.flush(2, NOW, term=2)
    assert len(follower.sent) == 1
    follower.forwarder.flush(2, NOW + AGAIN_NS, term=2)
    assert len(follower.sent) == 2


@pytest.mark.parametrize("kind", [NotLeader, LeadershipLost, ShuttingDown])
async def test_a_write_of_unknown_outcome_is_never_sent_again(kind: Any) -> None:
    """It might have happened: the caller is told so."""
    follower = Follower()
    op = follower.write()
    follower.forwarder.flush(2, NOW, term=2)
    follower.forwarder.replied(2, refused(1, kind("who knows", outcome="unknown")), NOW)
    with pytest.raises(kind) as caught:
        op.result()
    assert caught.value.outcome == "unknown"
    follower.forwarder.flush(3, NOW, term=3)
    assert len(follower.sent) == 1


async def test_writes_for_a_new_leader_wait_for_the_answers_of_the_old_one() -> None:
    """Else an earlier write that the old leader refuses would come behind a later one."""
    follower = Follower()
    follower.write(1)
    follower.forwarder.flush(2, NOW, term=2)
    follower.write(2)
    follower.forwarder.flush(3, NOW, term=3)
    assert len(follower.sent) == 1
    follower.forwarder.replied(2, refused(1, NotLeader("not here")), NOW)
    follower.forwarder.flush(3, NOW, term=3)
    assert [data for *_, data in split_forward(follower.sent[-1][1])] == [record(1), record(2)]


async def test_writes_for_a_leader_that_is_elected_again_wait_for_what_it_owes_from_before() -> None:
    """It may have refused earlier ones in between, and the refusal may come later than the news of its election."""
    follower = Follower()
    follower.write(1)
    follower.forwarder.flush(2, NOW, term=4)
    follower.write(2)
    follower.forwarder.flush(2, NOW, term=6)
    assert len(follower.sent) == 1
    follower.forwarder.replied(2, refused(1, NotLeader("not now")), NOW)
    follower.forwarder.flush(2, NOW + AGAIN_NS, term=6)
    sent = split_forward(follower.sent[-1][1])
    assert [(term, data) for _, _, term, data in sent] == [(6, record(1)), (6, record(2))]


async def test_what_comes_back_in_several_frames_stands_in_the_order_in_which_it_was_issued() -> None:
    """The first refusals wait for the others, so that none overtakes an earlier one or is overtaken by a later one."""
    follower = Follower()
    for number in range(1, 5):
        follower.write(number)
        follower.forwarder.flush(2, NOW, term=2)
    follower.write(5)
    gone = NotLeader("no longer", outcome="not_applied")
    follower.forwarder.replied(2, refused(1, gone) + refused(2, gone), NOW)
    follower.forwarder.flush(3, NOW, term=3)
    assert len(follower.sent) == 4 and follower.forwarder.holds
    follower.forwarder.replied(2, refused(4, gone) + refused(3, gone), NOW)
    follower.forwarder.flush(3, NOW, term=3)
    assert [data for *_, data in split_forward(follower.sent[-1][1])] == [record(number) for number in range(1, 6)]


async def test_a_node_that_takes_over_proposes_nothing_before_the_old_leader_has_answered() -> None:
    """What it did not apply comes before what was issued since; after a while what it owes is unknown."""
    follower = Follower()
    sent = [follower.write(number) for number in (1, 2)]
    follower.forwarder.flush(2, NOW, term=2)
    later = follower.write(3)
    assert follower.forwarder.take_queued(NOW) == []
    follower.forwarder.replied(2, refused(1, NotLeader("no longer", outcome="not_applied")), NOW)
    assert follower.forwarder.take_queued(NOW + PATIENCE_NS - 1) == []
    taken = follower.forwarder.take_queued(NOW + PATIENCE_NS)
    assert taken == [(record(1), sent[0]), (record(3), later)]
    assert isinstance(sent[1].exception(), LeadershipLost) and sent[1].exception().outcome == "unknown"
    assert not follower.forwarder.holds and follower.forwarder.waiting_bytes == 0


async def test_an_old_leader_that_never_answers_is_given_up() -> None:
    """What it owes becomes unknown, what waited behind it goes on."""
    follower = Follower()
    op = follower.write(1)
    follower.forwarder.flush(2, NOW, term=2)
    follower.write(2)
    follower.forwarder.flush(3, NOW, term=3)
    follower.forwarder.flush(3, NOW + PATIENCE_NS, term=3)
    with pytest.raises(LeadershipLost) as caught:
        op.result()
    assert caught.value.outcome == "unknown"
    assert follower.sent[-1][0] == 3


async def test_an_old_leader_is_given_up_though_nothing_waits_behind_its_answers() -> None:
    """Callers that each await their write issue no other one: they are told after the same while, not at their end."""
    follower = Follower()
    op = follower.write(1)
    follower.forwarder.flush(2, NOW, term=2)
    follower.forwarder.flush(3, NOW, term=3)
    follower.forwarder.flush(3, NOW + PATIENCE_NS - 1, term=3)
    assert not op.done()
    follower.forwarder.flush(3, NOW + PATIENCE_NS, term=3)
    with pytest.raises(LeadershipLost) as caught:
        op.result()
    assert caught.value.outcome == "unknown"
    assert not follower.forwarder.holds and follower.forwarder.waiting_bytes == 0


async def test_a_lost_link_makes_what_was_sent_unknown_and_keeps_what_was_not() -> None:
    """Only the link to the leader counts."""
    follower = Follower()
    sent = follower.write(1)
    follower.forwarder.flush(2, NOW, term=2)
    queued = follower.write(2)
    follower.forwarder.lost(3)
    assert not sent.done()
    follower.forwarder.lost(2)
    with pytest.raises(LeadershipLost) as caught:
        sent.result()
    assert caught.value.outcome == "unknown"
    assert not queued.done()
    follower.forwarder.flush(3, NOW, term=3)
    assert [data for *_, data in split_forward(follower.sent[-1][1])] == [record(2)]


async def test_what_cannot_be_sent_now_stays_queued() -> None:
    """A link that takes nothing costs nothing."""
    follower = Follower()
    follower.linked = False
    op = follower.write()
    follower.forwarder.flush(2, NOW, term=2)
    follower.linked = True
    follower.forwarder.flush(2, NOW, term=2)
    follower.apply(5)
    follower.forwarder.replied(2, reply(follower.numbers()[0], 5), NOW)
    assert op.result().log_index == 5


async def test_a_deadline_tells_how_far_the_write_has_come() -> None:
    """Not sent: not applied. Sent: unknown. Answered, but not applied on this node: applied."""
    follower = Follower()
    answered = follower.write(1, deadline_ns=NOW + 10)
    follower.forwarder.flush(2, NOW, term=2)
    follower.forwarder.replied(2, reply(1, 40), NOW)
    sent = follower.write(2, deadline_ns=NOW + 10)
    follower.forwarder.flush(2, NOW, term=2)
    queued = follower.write(3, deadline_ns=NOW + 10)
    follower.forwarder.expire(NOW + 9)
    assert not (answered.done() or sent.done() or queued.done())
    follower.forwarder.expire(NOW + 10)
    found = [(type(op.exception()), op.exception().outcome) for op in (answered, sent, queued)]
    assert found == [(RequestTimeout, "applied"), (RequestTimeout, "unknown"), (NoLeader, "not_applied")]
    assert len(follower.forwarder) == 0 and follower.forwarder.waiting_bytes == 0
    follower.apply(40)  # too late to matter


async def test_a_failed_statement_is_never_called_applied() -> None:
    """Its error is the answer, whether or not this node applies the entry in time."""
    follower = Follower()
    op = follower.write(1, deadline_ns=NOW + 10)
    follower.forwarder.flush(2, NOW, term=2)
    follower.forwarder.replied(2, reply(1, 40, data=DUPLICATE), NOW)
    follower.forwarder.expire(NOW + 10)
    with pytest.raises(ConstraintError) as caught:
        op.result()
    assert caught.value.outcome == "not_applied" and caught.value.extended_code == 2067


async def test_stopping_tells_how_far_each_write_has_come() -> None:
    """The error is the reason of the stop, the outcome is that of the write."""
    follower = Follower()
    answered = follower.write(1)
    follower.forwarder.flush(2, NOW, term=2)
    follower.forwarder.replied(2, reply(1, 40), NOW)
    sent = follower.write(2)
    follower.forwarder.flush(2, NOW, term=2)
    queued = follower.write(3)
    error = NotLeader("removed", hint="go on with the others", leader_id=3)
    follower.forwarder.fail(error)
    found = [op.exception().to_wire() for op in (answered, sent, queued)]
    assert found == [{**error.to_wire(), "outcome": outcome} for outcome in ("applied", "unknown", "not_applied")]
    assert len(follower.forwarder) == 0


async def test_more_bytes_than_the_limit_are_refused_at_once() -> None:
    """Nothing of the refused write is kept, and room comes back with answers."""
    follower = Follower(queue_bytes_max=len(record(1)))
    follower.write(1)
    with pytest.raises(Overloaded):
        follower.write(2)
    follower.forwarder.flush(2, NOW, term=2)
    with pytest.raises(Overloaded):
        follower.write(2)
    follower.forwarder.replied(2, reply(1, 1), NOW)
    with pytest.raises(Overloaded):  # its answer waits until this node has applied it
        follower.write(2)
    follower.apply(1)
    follower.write(2)
    assert follower.forwarder.waiting_bytes == len(record(2))


async def test_a_cancelled_write_that_was_not_sent_is_dropped() -> None:
    """Nobody waits for it, and it has not happened: it does not happen later."""
    follower = Follower()
    op = follower.write(1)
    follower.write(2)
    op.cancel()
    follower.forwarder.flush(2, NOW, term=2)
    assert [data for *_, data in split_forward(follower.sent[-1][1])] == [record(2)]
    follower.forwarder.lost(2)
    follower.write(3).cancel()
    assert follower.forwarder.take_queued(NOW) == []
    assert follower.forwarder.waiting_bytes == 0


async def test_remaining_time_travels_with_the_write() -> None:
    """In milliseconds, at least one; none means no deadline."""
    follower = Follower()
    for deadline_ns in (0, NOW + 2 * SECOND_NS, NOW + 1, NOW + 2**63):
        follower.write(deadline_ns=min(deadline_ns, 2**63 - 1))
    follower.forwarder.flush(2, NOW, term=2)
    assert [timeout for _, timeout, *_ in split_forward(follower.sent[0][1])] == [0, 2000, 1, 2**31 - 1]


# --------------------------------------------------------------------------- hostile bytes


@pytest.mark.parametrize(
    "body",
    [
        b"\0",
        reply(1)[:-1],
        reply(1)[: REPLY.size - 1],
        REPLY.pack(1, 5, 2**32 - 1, ANSWERED),
        reply(1, 5, status=2),
        reply(1, 0, REFUSED, b"\xc1"),
        reply(1, 0, REFUSED, b""),
        reply(1, 0, REFUSED, msgpack.packb([1, 2])),
        reply(1, 0, REFUSED, msgpack.packb({"code": "usage"}) + b"\0"),
    ],
)
async def test_a_malformed_reply_is_a_protocol_error_and_loses_no_caller(body: bytes) -> None:
    """The link is closed for it; then the writes under way are unknown, as with any lost link."""
    follower = Follower()
    op = follower.write()
    follower.forwarder.flush(2, NOW, term=2)
    with pytest.raises(ProtocolError):
        follower.forwarder.replied(2, body, NOW)
    assert not op.done()
    follower.forwarder.lost(2)
    assert op.exception().outcome == "unknown"


async def test_a_malformed_reply_keeps_what_it_said_before() -> None:
    """A refusal in front of garbage still sends the write on."""
    follower = Follower()
    follower.write(1)
    follower.write(2)
    follower.forwarder.flush(2, NOW, term=2)
    with pytest.raises(ProtocolError):
        follower.forwarder.replied(2, refused(1, NotLeader("no")) + reply(2, 0, REFUSED, b"\xc1"), NOW)
    follower.forwarder.lost(2)
    follower.forwarder.flush(3, NOW, term=3)
    assert [data for *_, data in split_forward(follower.sent[-1][1])] == [record(1)]


async def test_a_peer_that_was_asked_nothing_answers_nothing() -> None:
    """Numbers alone are no proof: only the node that was asked may answer."""
    follower = Follower()
    op = follower.write()
    follower.forwarder.flush(2, NOW, term=2)
    follower.apply(10)
    follower.forwarder.replied(3, reply(1, 5), NOW)
    assert not op.done()


@pytest.mark.parametrize(
    "body",
    [
        b"\0" * 8,
        FORWARD.pack(1, 0, 0),
        FORWARD.pack(1, 0, 0) + record(1)[:-8],
        FORWARD.pack(1, 0, 0) + bytes(64),
        FORWARD.pack(1, 0, 0) + (65).to_bytes(4, "little") + bytes(100),
        FORWARD.pack(1, 0, 0) + (2**32 - 8).to_bytes(4, "little") + bytes(100),
        FORWARD.pack(1, 0, 0) + record(1) + b"x",
    ],
)
def test_a_malformed_forward_is_a_protocol_error(body: bytes) -> None:
    """Nothing of it is believed."""
    with pytest.raises(ProtocolError):
        split_forward(body)


@given(st.binary(max_size=400))
def test_random_bytes_never_raise_anything_else(body: bytes) -> None:
    """Both directions take any bytes: a list or a ProtocolError."""
    for split in (split_forward, split_replies):
        try:
            assert isinstance(split(body), list)
        except ProtocolError:
            continue


@given(st.lists(st.integers(0, 2**64 - 1), max_size=20), st.data())
def test_a_forward_cut_anywhere_is_noticed(numbers: list[int], data: st.DataObject) -> None:
    """Whole frames come back as they were packed; cut ones are refused or are shorter whole ones."""
    parts = [FORWARD.pack(number, number % 2**32, 0) + record(number % 1000) for number in numbers]
    body = b"".join(parts)
    assert [found[0] for found in split_forward(body)] == numbers
    cut = data.draw(st.integers(0, len(body)))
    edges = [sum(len(part) for part in parts[:count]) for count in range(len(parts) + 1)]
    if cut in edges:
        assert len(split_forward(body[:cut])) == edges.index(cut)
    else:
        with pytest.raises(ProtocolError):
            split_forward(body[:cut])


async def test_no_process_uses_the_request_numbers_of_an_earlier_one() -> None:
    """A leader may still answer what a killed process had sent: to its successor that is no answer to anything."""
    follower, successor = Follower(number=7), Follower(number=70)
    follower.write(1)
    follower.forwarder.flush(2, NOW, term=2)
    op = successor.write(2)
    successor.forwarder.flush(2, NOW, term=2)
    (old,), (new,) = follower.numbers(), successor.numbers()
    successor.forwarder.replied(2, reply(old, 1), NOW)
    successor.apply(1)
    assert not op.done()
    successor.forwarder.replied(2, reply(new, 2), NOW)
    successor.apply(2)
    assert op.result().log_index == 2
    settings, loop = RaftSettings(), asyncio.get_running_loop()
    starts = set()
    for _ in range(20):
        sent: list[bytes] = []
        made = Proposals(
            settings, loop, send_forward=lambda peer, body, sent=sent: sent.append(body) or True,
            when_applied=lambda index, callback: None, wake=lambda: None, leads=lambda: False,
        )  # fmt: skip
        made.write(record(1), Op(loop))
        made.forwarder.flush(2, NOW, term=2)
        starts.add(split_forward(sent[0])[0][0])
        made.fail(ShuttingDown("the end"))
    assert len(starts) == 20


async def test_a_leader_that_is_back_is_forwarded_to_again() -> None:
    """Whatever farewell was said, and whenever it was heard, belongs to the link before."""
    follower = Follower()
    follower.forwarder.lost(2)
    follower.forwarder.hold(2)  # heard in the turn in which the link was lost
    follower.write(1)
    follower.forwarder.flush(2, NOW, term=2)
    assert follower.sent == []
    follower.forwarder.arrived(2)
    follower.forwarder.flush(2, NOW, term=2)
    assert len(follower.sent) == 1
    follower.forwarder.fail(ShuttingDown("the end"))


# --------------------------------------------------------------------------- writes of a session


def in_session(follower: Follower, numbers: range) -> list[Op]:
    window = SessionWindow(100, lambda: None)
    window.open(7)
    ops = [follower.write(number) for number in numbers]
    for op in ops:
        op.keep_in(window)
    return ops


def records_of(body: bytes) -> list[bytes]:
    return [record for *_, record in split_forward(body)]


@pytest.mark.parametrize("how", ["link lost", "other leader", "leads itself"])
async def test_writes_of_a_session_are_sent_again_before_later_ones(how: str) -> None:
    """What became of the first try decides nothing: the session makes sure that they are applied once."""
    follower = Follower()
    ops = in_session(follower, range(3))
    follower.forwarder.flush(2, NOW, term=2)
    later = in_session(follower, range(3, 5))
    if how == "link lost":
        follower.forwarder.lost(2)
    if how == "leads itself":
        taken = follower.forwarder.take_queued(NOW)
        assert [found for found, _ in taken] == [record(n) for n in range(5)]
    else:
        follower.forwarder.flush(3, NOW, term=3)
        assert records_of(follower.sent[-1][1]) == [record(n) for n in range(5)]
        assert follower.sent[-1][0] == 3
        flags = [bool(timeout & TRIED_BEFORE) for _, timeout, *_ in split_forward(follower.sent[-1][1])]
        assert flags == [True] * 3 + [False] * 2  # so that the leader looks at them by no schema that they changed
    assert [op.uncertain for op in ops] == [True] * 3 and not any(op.done() for op in (*ops, *later))
    follower.forwarder.fail(ShuttingDown("the end"))


@pytest.mark.parametrize("error", [
    LeadershipLost("gone", outcome="unknown"), StorageError("its disk", outcome="unknown"),
    ShuttingDown("it goes", outcome="unknown"),
])  # fmt: skip
async def test_a_leader_that_does_not_know_is_not_the_last_word(error: HiqliteError) -> None:
    """It is asked again, or the next one; when time is over the outcome is unknown, whatever was said last."""
    follower = Follower()
    (op,) = in_session(follower, range(1))
    follower.forwarder.flush(2, NOW, term=2)
    (number,) = follower.numbers()
    follower.forwarder.replied(2, refused(number, error), NOW)
    assert not op.done() and op.uncertain
    follower.forwarder.flush(3, NOW, term=3)
    assert len(follower.sent) == 2
    (number,) = follower.numbers()
    follower.forwarder.replied(3, refused(number, Overloaded("too much")), NOW)
    assert isinstance(op.exception(), Overloaded) and op.exception().outcome == "unknown"


async def test_a_write_that_was_sent_and_waits_for_a_leader_is_unknown_in_the_end() -> None:
    follower = Follower()
    window = SessionWindow(100, lambda: None)
    window.open(7)
    sent, queued = follower.write(0, deadline_ns=NOW + 10), follower.write(1, deadline_ns=NOW + 10)
    sent.keep_in(window)
    sent.uncertain = True
    queued.keep_in(window)
    follower.forwarder.expire(NOW + 20)
    assert isinstance(sent.exception(), RequestTimeout) and sent.exception().outcome == "unknown"
    assert isinstance(queued.exception(), NoLeader) and queued.exception().outcome == "not_applied"
    assert window.low == 3


# --------------------------------------------------------------------------- the leader's side


async def test_answers_that_find_no_room_in_the_link_wait_and_keep_their_order() -> None:
    """A large answer under way keeps later ones back; only the loss of the link loses them."""
    sent: list[tuple[int, bytes]] = []
    room = {2: False, 3: True}

    def send(peer_id: int, body: bytes) -> bool:
        if room[peer_id]:
            sent.append((peer_id, body))
        return room[peer_id]

    replies = Replies(send, asyncio.get_running_loop())
    for number in (1, 2):
        ForwardedWrite(replies, 2, number).answer(DONE, number)
        ForwardedWrite(replies, 3, number).answer(DONE, number)
        replies.flush()
    assert [peer_id for peer_id, _ in sent] == [3, 3]
    room[2] = True
    ForwardedWrite(replies, 2, 3).answer(DONE, 3)
    replies.flush()

    async def all_there() -> None:
        while len(sent) < 5:
            await asyncio.sleep(0)

    await asyncio.wait_for(all_there(), 5)
    assert [split_replies(body)[0][0] for peer_id, body in sent if peer_id == 2] == [1, 2, 3]
    room[2] = False
    ForwardedWrite(replies, 2, 4).answer(DONE, 4)
    replies.flush()
    replies.lost(2)
    room[2] = True
    ForwardedWrite(replies, 2, 5).answer(DONE, 5)
    replies.flush()
    assert split_replies(sent[-1][1])[0][0] == 5


@pytest.mark.parametrize("reads", [False, True])
async def test_answers_that_a_peer_does_not_read_end_its_link(reads: bool) -> None:
    """It forwards, and takes nothing back: what is kept for it has a bound, and it hears of the end of its link. One
    that is only slow keeps it."""
    ended: list[int] = []

    def hang_up(peer_id: int) -> None:
        ended.append(peer_id)
        replies.lost(peer_id)

    replies = Replies(
        lambda peer_id, body: False,
        asyncio.get_running_loop(),
        unsent_bytes_max=1000,
        patience_s=1000.0 if reads else 0.0,
        listens=lambda peer_id: peer_id not in ended,
        hang_up=hang_up,
    )
    for number in range(50):
        ForwardedWrite(replies, 2, number).answer(bytes(100), number)
        replies.flush()
        assert reads or sum(map(len, replies._unsent.get(2, ()))) <= 1000
    assert ended == ([] if reads else [2])
    assert reads or replies._unsent == replies._unsent_bytes == replies._moved_s == {}
    replies.lost(2)


async def test_answers_of_a_turn_go_back_in_one_frame_per_peer() -> None:
    """In the order in which they came, padded as the format says."""
    sent: list[tuple[int, bytes]] = []
    replies = Replies(lambda peer_id, body: sent.append((peer_id, body)) or True, asyncio.get_running_loop())
    first, second, third = ForwardedWrite(replies, 2, 1), ForwardedWrite(replies, 3, 1), ForwardedWrite(replies, 2, 2)
    first.answer(b"abc", 10)
    second.answer(DONE, 11)
    third.set_exception(NotLeader("no"))
    assert sent == []
    await asyncio.sleep(0)
    assert [peer_id for peer_id, _ in sent] == [2, 3]
    one, two = split_replies(sent[0][1])
    assert one == (1, 10, ANSWERED, b"abc")
    assert two[:3] == (2, 0, REFUSED) and msgpack.unpackb(two[3])["code"] == "not_leader"
    assert len(sent[0][1]) % 8 == 0


async def test_a_forwarded_write_is_answered_once() -> None:
    """Whatever is said after the first answer is not sent."""
    sent: list[bytes] = []
    replies = Replies(lambda peer_id, body: sent.append(body) or True, asyncio.get_running_loop())
    write = ForwardedWrite(replies, 2, 5)
    write.answer(DONE, 10)
    write.answer(DONE, 11)
    write.set_exception(NotLeader("no"))
    await asyncio.sleep(0)
    assert split_replies(b"".join(sent)) == [(5, 10, ANSWERED, DONE)]


async def test_a_foreign_error_is_told_as_unknown() -> None:
    """What is no error of ours says nothing about the write."""
    sent: list[bytes] = []
    replies = Replies(lambda peer_id, body: sent.append(body) or True, asyncio.get_running_loop())
    ForwardedWrite(replies, 2, 5).set_exception(RuntimeError("boom"))
    await asyncio.sleep(0)
    ((_, _, status, data),) = split_replies(sent[0])
    assert status == REFUSED and msgpack.unpackb(data)["outcome"] == "unknown"
