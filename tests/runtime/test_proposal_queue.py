"""The writes of one node between caller and log: admitted, batched, handed over when leadership moves, told truly."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from hiqlite._accel.answers import Done, encode_answer
from hiqlite._accel.batch import Op
from hiqlite._accel.commands import encode_command
from hiqlite._accel.records import offsets
from hiqlite._accel.session import SessionWindow
from hiqlite.config import RaftSettings
from hiqlite.errors import (
    HiqliteError,
    LeadershipLost,
    NotLeader,
    Overloaded,
    RequestTimeout,
    ShuttingDown,
    StorageError,
)
from hiqlite.runtime.forwarding import split_forward
from hiqlite.runtime.proposals import NOT_HERE, Proposals

EXECUTE = 1
MIB = 1 << 20
NOW = 10**12


def record(number: int) -> bytes:
    return encode_command(EXECUTE, [("INSERT INTO t VALUES (?)", [number])])


@dataclass
class Run:
    first: int
    last: int
    changed_schema: bool = False
    slow_texts: tuple[str, ...] = ()

    def answer(self, index: int) -> bytes:
        return encode_answer(0, [Done(1, index * 10)])


class PeersWrite:
    """What stands for a peer's write in this leader's queue."""

    def __init__(self) -> None:
        self.error: HiqliteError | None = None
        self.deadline_ns = 0

    def answer(self, answer: bytes, log_index: int) -> None: ...

    def set_exception(self, error: BaseException) -> None:
        assert isinstance(error, HiqliteError)
        self.error = error


class Queue:
    """Proposals whose world is played by the test."""

    def __init__(self, **settings: int) -> None:
        self.loop = asyncio.get_running_loop()
        self.sent: list[bytes] = []
        self.woken = 0
        self.leads = True
        self.proposals = Proposals(
            RaftSettings(**settings),
            self.loop,
            send_forward=lambda peer_id, body: self.sent.append(body) is None,
            when_applied=lambda index, callback: callback(),
            wake=self._wake,
            leads=lambda: self.leads,
        )

    def _wake(self) -> None:
        self.woken += 1

    def write(self, number: int, *, forward: bool = False, deadline_ns: int = 0) -> Op:
        op = Op(self.loop, None, "INSERT", deadline_ns)
        self.leads = not forward
        self.proposals.write(record(number), op)
        return op

    def propose(self, first: int) -> int:
        """All batches that may leave now; the index behind the last one."""
        for batch in self.proposals.batches():
            self.proposals.proposed(batch, first)
            first += batch.count
        return first


async def test_writes_of_a_turn_are_one_batch_and_resolve_by_their_index() -> None:
    """Each gets the answer of its own entry."""
    queue = Queue()
    ops = [queue.write(number) for number in range(5)]
    assert queue.woken == 5
    assert queue.propose(7) == 12
    queue.proposals.applied(Run(7, 9))
    assert [op.done() for op in ops] == [True, True, True, False, False]
    queue.proposals.applied(Run(10, 11))
    assert [op.result().last_insert_rowid for op in ops] == [70, 80, 90, 100, 110]
    assert not queue.proposals.busy


async def test_only_a_few_batches_are_under_way() -> None:
    """The rest waits, and so becomes larger batches."""
    queue = Queue(window_frames=2)
    first = 1
    for number in range(4):
        queue.write(number)
        first = queue.propose(first)
    assert first == 3 and len(queue.proposals.buffer) == 2
    queue.proposals.applied(Run(1, 2))
    assert queue.propose(first) == 5


async def test_the_queue_is_bounded_in_bytes() -> None:
    """Overloaded at once, not applied; room comes back with progress."""
    queue = Queue(frame_bytes_max=1024, window_frames=1, proposal_queue_bytes=4096)
    with pytest.raises(Overloaded) as caught:
        for number in range(1000):
            queue.write(number)
    assert caught.value.outcome == "not_applied" and caught.value.retryable
    end = queue.propose(1)
    queue.proposals.applied(Run(1, end - 1))
    queue.write(1)


async def test_what_was_not_proposed_goes_to_the_next_leader_in_order() -> None:
    """Own writes that were issued before leadership went stand before those issued since; a peer's are sent back."""
    queue = Queue()
    peers = PeersWrite()
    queue.write(1)
    queue.proposals.put(record(50), peers)
    queue.write(2)
    queue.write(3, forward=True)  # leadership has gone in the same turn
    queue.proposals.follow()
    queue.proposals.forwarder.flush(2, NOW, term=2)
    assert [data for *_, data in split_forward(queue.sent[0])] == [record(1), record(2), record(3)]
    assert isinstance(peers.error, NotLeader) and peers.error.outcome == "not_applied"


async def test_what_was_not_sent_is_proposed_by_a_new_leader() -> None:
    """In order, without the writes whose callers have left."""
    queue = Queue()
    ops = [queue.write(number, forward=True) for number in range(3)]
    ops[1].cancel()
    assert queue.proposals.pass_on(True, 1, 1, NOW)
    batch = queue.proposals.buffer.peek()
    assert batch is not None and batch.count == 2 == len(offsets(batch.data))
    assert queue.propose(5) == 7
    queue.proposals.applied(Run(5, 6))
    assert (ops[0].result().log_index, ops[2].result().log_index) == (5, 6)


async def test_truncated_writes_are_unknown_and_kept_ones_resolve() -> None:
    """An entry cut from this log may still exist elsewhere."""
    queue = Queue()
    ops = [queue.write(number) for number in range(4)]
    queue.propose(1)
    queue.proposals.truncated(2)
    queue.proposals.applied(Run(1, 2))
    assert [op.result().log_index for op in ops[:2]] == [1, 2]
    for op in ops[2:]:
        with pytest.raises(LeadershipLost) as caught:
            op.result()
        assert caught.value.outcome == "unknown"


async def test_deadlines_end_the_waiting_only() -> None:
    """RequestTimeout with an unknown outcome for what is under way; the others are not touched."""
    queue = Queue()
    late, patient = queue.write(1, deadline_ns=NOW), queue.write(2)
    queue.propose(1)
    queue.proposals.expire(NOW - 1)
    assert not late.done()
    queue.proposals.expire(NOW)
    with pytest.raises(RequestTimeout) as caught:
        late.result()
    assert caught.value.outcome == "unknown"
    queue.proposals.applied(Run(1, 2))
    assert patient.result().log_index == 2


@pytest.mark.parametrize(
    "error", [ShuttingDown("closing"), StorageError("the disk broke", hint="mend it"), NotLeader("gone", leader_id=3)]
)
async def test_a_failure_tells_each_caller_what_is_known(error: HiqliteError) -> None:
    """Under way: unknown. Not proposed, or new: not applied. Peers hear that another node may take their writes."""
    queue = Queue()
    under_way, peers_under_way = queue.write(1), PeersWrite()
    queue.proposals.put(record(2), peers_under_way)
    queue.propose(1)
    waiting, peers_waiting = queue.write(3), PeersWrite()
    queue.proposals.put(record(4), peers_waiting)
    queue.proposals.fail(error)
    found = [op.exception().to_wire() for op in (under_way, waiting)]  # type: ignore[union-attr]
    assert found == [{**error.to_wire(), "outcome": outcome} for outcome in ("unknown", "not_applied")]
    assert isinstance(peers_under_way.error, LeadershipLost) and peers_under_way.error.outcome == "unknown"
    assert isinstance(peers_waiting.error, NotLeader) and peers_waiting.error.outcome == "not_applied"
    for forward in (False, True):
        with pytest.raises(type(error)) as caught:
            queue.write(5, forward=forward)
        assert caught.value.outcome == "not_applied"


async def test_each_caller_is_told_by_an_error_of_its_own() -> None:
    """One that many share would grow with each traceback, and be raised from what another caller was doing."""
    queue = Queue()
    ops = [queue.write(number) for number in range(2)]
    queue.propose(1)
    ops += [queue.write(number) for number in range(2)]
    queue.proposals.fail(StorageError("the disk broke"))
    other = Queue()
    marks = [Op(other.loop), Op(other.loop)]
    for mark in marks:
        other.proposals.mark(record(1), mark)
    other.proposals.follow()
    assert [type(op.exception()) for op in (*ops, *marks)] == [StorageError] * 4 + [NotLeader] * 2
    assert len({id(op.exception()) for op in (*ops, *marks)}) == 6
    assert not any(op.exception() is NOT_HERE for op in marks)


async def test_draining_takes_nothing_new_and_waits_for_what_is_under_way() -> None:
    """It ends with the last answer, or at its limit."""
    queue = Queue()
    op = queue.write(1)
    queue.propose(1)
    draining = asyncio.create_task(queue.proposals.drain(30))
    await asyncio.sleep(0)
    with pytest.raises(ShuttingDown):
        queue.write(2)
    assert not draining.done() and not queue.proposals.taking
    queue.proposals.applied(Run(1, 1))
    await draining
    assert op.done()
    queue = Queue()
    queue.write(1)
    await queue.proposals.drain(0)


# --------------------------------------------------------------------------- writes of a session


async def in_session(queue: Queue, numbers: range) -> list[Op]:
    ops = [queue.write(number) for number in numbers]
    window = SessionWindow(100, lambda: None)
    window.open(7)
    for op in ops:
        op.keep_in(window)
    return ops


def sealed(queue: Queue, first: int) -> int:
    for batch in queue.proposals.batches():
        queue.proposals.proposed(batch, first)
        batch.seal(3, first, 5, 6, 8)
        first += batch.count
    return first


async def test_what_was_cut_off_is_sent_again_before_what_came_later() -> None:
    """As it was before it was sealed; nothing that came later leaves before its fate is known."""
    queue = Queue()
    cut = await in_session(queue, range(5))
    assert sealed(queue, 10) == 15
    queue.leads = False
    later = await in_session(queue, range(5, 7))
    queue.proposals.follow()
    assert not queue.proposals.pass_on(False, 2, 4, 1)
    assert queue.sent == []
    queue.proposals.applied(Run(10, 11))
    queue.proposals.truncated(13)
    assert not queue.proposals.pass_on(False, 2, 4, 1)
    assert queue.sent == []  # two are still open
    queue.proposals.truncated(11)
    queue.proposals.pass_on(False, 2, 4, 1)
    assert [found for *_, found in split_forward(queue.sent[0])] == [record(n) for n in range(2, 7)]
    assert [op.done() for op in cut] == [True, True, False, False, False]
    assert [op.uncertain for op in (*cut, *later)] == [False, False, True, True, True, False, False]
    queue.proposals.fail(ShuttingDown("the end"))
    assert [op.exception().outcome for op in (*cut[2:], *later)] == ["unknown"] * 5  # they were sent


async def test_what_was_cut_off_goes_before_what_was_never_proposed() -> None:
    """Also when the log is cut before the group has looked at what waited to be proposed; and before a new write."""
    queue = Queue()
    (cut,) = await in_session(queue, range(1))
    plain = Op(queue.loop)
    queue.proposals.write(record(90), plain)  # of no session: it is told
    sealed(queue, 10)
    await in_session(queue, range(1, 3))
    queue.leads = False
    plain.add_done_callback(lambda op: queue.write(3, forward=True), context=None)
    queue.proposals.truncated(9)
    await asyncio.sleep(0)
    queue.proposals.pass_on(False, 2, 4, 1)
    assert [found for *_, found in split_forward(queue.sent[0])] == [record(n) for n in range(4)]
    assert isinstance(plain.exception(), LeadershipLost) and not cut.done()
    queue.proposals.fail(ShuttingDown("the end"))


async def test_what_an_image_passed_over_is_sent_again() -> None:
    """The answer is in the image: the session in it knows what was applied."""
    queue = Queue()
    (op,) = await in_session(queue, range(1))
    sealed(queue, 1)
    queue.leads = False
    queue.proposals.passed_over()
    queue.proposals.pass_on(False, 2, 4, 1)
    assert [found for *_, found in split_forward(queue.sent[0])] == [record(0)]
    assert op.uncertain and not op.done()
    queue.proposals.fail(ShuttingDown("the end"))
