"""Futures in bulk and the proposal buffer: every write is resolved exactly once, batches keep order and size."""

import asyncio
import contextvars

import pytest

from hiqlite._accel import answers, commands, records
from hiqlite._accel.batch import Op, ProposalBuffer
from hiqlite._accel.pending import Pending
from hiqlite.errors import ParameterError, ProtocolError, RequestTimeout

TEXT = b"INSERT INTO t VALUES (?)"


class Answers:
    """A run whose answer to each index is the index itself, as text."""

    def __init__(self, first: int, last: int) -> None:
        self.first = first
        self.last = last

    def answer(self, index: int) -> bytes:
        return b"%d" % index


def op_of(text: bool = True) -> Op:
    return Op(asyncio.get_running_loop(), (lambda answer, index, detail: answer.decode()) if text else None)


async def test_an_op_can_be_awaited_gathered_and_given_to_create_task_and_wait_for():
    """A write passes for a future and for a coroutine."""
    ops = [op_of() for _ in range(4)]
    task = asyncio.create_task(ops[0])
    gathered = asyncio.gather(ops[1], ops[2])
    waited = asyncio.create_task(asyncio.wait_for(ops[3], 5))
    await asyncio.sleep(0)
    for number, op in enumerate(ops):
        asyncio.get_running_loop().call_soon(op.set_result, number)
    assert await task == 0
    assert await gathered == [1, 2]
    assert await waited == 3
    assert await ops[0] == 0


async def test_an_op_that_is_done_before_it_is_awaited_gives_its_result():
    """Awaiting after completion returns or raises at once."""
    good, bad = op_of(), op_of()
    good.set_result(7)
    bad.set_exception(RequestTimeout("late"))
    assert await good == 7
    with pytest.raises(RequestTimeout):
        await bad


async def test_a_cancelled_task_stops_waiting_and_a_later_answer_does_nothing():
    """Cancelling is the caller's; the write goes on without him."""
    op = op_of()

    async def wait() -> object:
        return await op

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    op.set_result(1)
    assert op.cancelled()


async def test_waiters_keep_their_context():
    """A task that is woken directly still sees its own context variables."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    op = op_of()

    async def wait() -> str:
        variable.set("mine")
        await op
        return variable.get()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_soon(op.set_result, None)
    assert await task == "mine"


async def test_setting_a_result_inside_a_task_does_not_step_other_tasks():
    """Inside a task's step the waiters are scheduled, not run."""
    op = op_of()
    seen = []

    async def wait() -> None:
        seen.append(await op)

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    op.set_result(3)
    assert seen == []
    await task
    assert seen == [3]


async def test_a_batch_holds_the_writes_of_a_turn_in_order():
    """Sealed records carry ascending indexes and the parameters as given."""
    buffer = ProposalBuffer(1 << 20)
    ops = [op_of() for _ in range(5)]
    for number, op in enumerate(ops):
        buffer.execute(TEXT, (number,), op)
    batch = buffer.peek()
    assert batch is not None and batch.count == 5 and batch.ops == ops
    assert buffer.pop() is batch and not buffer and buffer.queued_bytes == 0
    sealed = batch.seal(3, 100, 1, 2, 4)
    assert [(run[0], run[1], run[2]) for run in records.scan(sealed, 100)] == [(3, 100, 104)]
    with pytest.raises(ValueError, match="once"):
        batch.seal(3, 100, 1, 2, 4)


async def test_batches_are_cut_at_the_limit_and_a_larger_record_stands_alone():
    """No batch passes the limit unless one record alone does."""
    buffer = ProposalBuffer(1000)
    record = commands.encode_command(1, [(TEXT.decode(), ("x" * 300,))])
    large = commands.encode_command(1, [(TEXT.decode(), ("x" * 5000,))])
    for data in (record, record, large, record):
        buffer.put(data, op_of())
    counts = []
    while buffer:
        batch = buffer.peek()
        assert batch is not None
        assert batch.size_bytes <= 1000 or batch.count == 1
        counts.append(batch.count)
        buffer.pop()
    assert sum(counts) == 4 and len(counts) >= 3


async def test_a_parameter_that_cannot_be_encoded_leaves_the_buffer_as_it_was():
    """A refused write is not half in the batch."""
    buffer = ProposalBuffer(1 << 20)
    buffer.execute(TEXT, (1,), op_of())
    before = buffer.queued_bytes
    with pytest.raises(ParameterError):
        buffer.execute(TEXT, (object(),), op_of())
    assert buffer.queued_bytes == before and len(buffer) == 1


async def test_pending_resolves_a_run_that_ends_inside_a_batch():
    """Runs and batches are cut differently; each op gets the answer of its own index."""
    pending = Pending()
    ops = [op_of() for _ in range(6)]
    pending.add(10, ops[:4])
    pending.add(14, ops[4:])
    pending.complete(11, Answers(10, 11))
    assert [op.done() for op in ops] == [True, True, False, False, False, False]
    pending.complete(15, Answers(12, 15))
    assert [op.result() for op in ops] == ["10", "11", "12", "13", "14", "15"]
    assert len(pending) == 0


@pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt, asyncio.CancelledError])
async def test_what_a_callers_own_decoding_raises_is_his_alone(kind: type[BaseException]):
    """Whatever it is: he is told by it, and the others of the run by their answers."""

    def decode(answer: bytes, index: int, detail: object) -> object:
        raise kind

    ops = [op_of(), Op(asyncio.get_running_loop(), decode), op_of()]
    pending = Pending()
    pending.add(10, ops)
    pending.complete(12, Answers(10, 12))
    assert (ops[0].result(), ops[2].result()) == ("10", "12")
    assert isinstance(ops[1].exception(), kind)


async def test_cutting_pending_gives_back_what_waits_above():
    """A truncated log leaves the writes below it waiting."""
    pending = Pending()
    ops = [op_of() for _ in range(6)]
    pending.add(1, ops[:3])
    pending.add(4, ops[3:])
    assert pending.cut_from(3) == [(b"", op) for op in ops[2:]]
    assert len(pending) == 2
    pending.complete(2, Answers(1, 2))
    assert ops[0].result() == "1" and ops[1].result() == "2"


async def test_deadlines_are_found_per_batch():
    """Only pending ops whose time has passed are late."""
    loop = asyncio.get_running_loop()
    early, late, never = Op(loop, None, None, 10), Op(loop, None, None, 30), Op(loop)
    pending = Pending()
    pending.add(1, [early, late, never])
    assert pending.expired(20) == [early]
    early.set_exception(RequestTimeout("late"))
    assert pending.expired(20) == []


async def test_an_execute_answer_becomes_an_execute_result():
    """Without a decoder the answer is that of a single statement."""
    op = Op(asyncio.get_running_loop(), None, TEXT.decode())
    op.answer(b"garbage", 5)
    with pytest.raises(ProtocolError):
        await op
    assert answers.ExecuteResult(1, 2, 3) == answers.ExecuteResult(1, 2, 3)
