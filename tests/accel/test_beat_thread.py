"""The native heartbeat thread: it beats while nothing else runs, hears only authentic beats, and stops when stuck."""

import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from hiqlite._accel.beat import FRAME_BYTES, BeatThread, encode_beat

KEY = bytes(range(16))


def eventually(condition: Callable[[], object], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "condition not reached in time"
        select.select([], [], [], 0.005)


@pytest.fixture
def pair():
    """Two nodes' threads joined by one connection."""
    first, second = BeatThread(1, 10, 3000), BeatThread(2, 10, 3000)
    left, right = socket.socketpair()
    first.add_link(2, left.detach(), KEY, True)
    second.add_link(1, right.detach(), KEY, False)
    first.start()
    second.start()
    yield first, second
    first.close()
    second.close()


@pytest.fixture
def linked() -> Iterator[Callable[..., tuple[BeatThread, socket.socket]]]:
    """Makes a node's thread, not started yet, and the other end of its one connection, which the test plays."""
    with ExitStack() as stack:

        def make(interval_ms: int, stall_ms: int, *, dialed: bool = True) -> tuple[BeatThread, socket.socket]:
            left, right = socket.socketpair()
            stack.enter_context(right)
            thread = BeatThread(1, interval_ms, stall_ms)
            stack.callback(thread.close)
            thread.add_link(2, left.detach(), KEY, dialed)
            return thread, right

        yield make


def test_a_leader_is_heard_with_its_term_and_bounds(pair):
    """What the leader's word says arrives as a stamp at its peer."""
    first, second = pair
    first.set_bounds(0, 77, 41, 1234)
    first.set_word(0, 5, True)
    eventually(lambda: second.stamps(0))
    stamp = second.stamps(0)[0]
    assert stamp[:5] == (1, 5, 77, 41, 1234)  # peer, term, incarnation, commit bound, group time
    assert second.stamps(1) == []


def test_a_follower_sends_no_beats(pair):
    """Only who leads a group beats in it."""
    first, second = pair
    first.set_word(0, 5, False)
    second.set_word(1, 5, True)
    eventually(lambda: first.stamps(1))
    assert second.stamps(0) == []


def test_beats_go_on_while_python_holds_the_gil(pair):
    """A busy callback of the user delays no beat."""
    first, second = pair
    first.set_word(0, 1, True)
    eventually(lambda: second.counters["heard"] > 0)
    heard, busy, deadline = 0, 5_000_000, time.monotonic() + 30
    while heard < 10:
        assert time.monotonic() < deadline, f"{heard} beats in one call"
        before = second.counters["heard"]
        sum(range(busy))  # one call of C: the interpreter is free for nobody before its end
        heard = second.counters["heard"] - before
        busy *= 2


def test_a_stuck_loop_closes_the_gate(linked):
    """Without a tick of the loop for the stall time no beat leaves; a tick opens the gate again."""
    thread, _ = linked(5, 50)
    thread.set_word(0, 1, True)
    thread.start()
    eventually(lambda: thread.counters["gated"] > 0)
    sent = thread.counters["sent"]

    def sent_after_a_tick():
        thread.tick()
        return thread.counters["sent"] > sent

    eventually(sent_after_a_tick)


def test_a_stuck_log_closes_the_gate_though_the_loop_ticks(linked):
    """Work that has been waiting for the log since the machine booted; when it waits no more the beats go on."""
    thread, _ = linked(5, 10_000)
    thread.set_word(0, 1, True)
    thread.tick(1)
    thread.start()
    eventually(lambda: thread.counters["gated"] > 1)
    assert thread.counters["sent"] == 0
    thread.tick(0)
    eventually(lambda: thread.counters["sent"] > 0)


def test_a_beat_equals_its_golden_bytes():
    """docs/formats.md section 6, byte for byte; a difference is a new version of the protocol, never a fix."""
    frame = encode_beat(KEY, 1, True, 2, 9, 4, 7, 1234, 41)
    golden = (Path(__file__).parents[1] / "golden" / "beat.hex").read_text(encoding="ascii")
    assert frame.hex() == golden.strip()


@pytest.mark.parametrize("change", ["tag", "counter", "sender", "magic"])
def test_a_beat_that_is_not_authentic_ends_the_link(linked, change):
    """A forged, replayed or foreign beat is not heard; the link is dropped."""
    thread, right = linked(1000, 3000, dialed=False)
    thread.start()
    right.sendall(encode_beat(KEY, 0, True, 2, 9, 3, 1, 0, 0))
    eventually(lambda: thread.stamps(0))
    good = encode_beat(KEY, 0, True, 2, 9, 4, 2, 0, 0)
    bad = {
        "tag": good[:-1] + bytes([good[-1] ^ 1]),
        "counter": encode_beat(KEY, 0, True, 2, 9, 4, 1, 0, 0),
        "sender": encode_beat(KEY, 0, True, 3, 9, 4, 2, 0, 0),
        "magic": b"X" + good[1:],
    }[change]
    assert len(bad) == FRAME_BYTES
    right.sendall(bad)
    right.settimeout(5)
    assert right.recv(1) == b""
    assert thread.stamps(0)[0].term == 3


def test_a_lost_link_is_reported_once_to_who_dialled_it(linked):
    """The loop learns which peer it has to dial again."""
    thread, right = linked(5, 3000)
    thread.start()
    right.close()
    assert select.select([thread.fileno()], [], [], 5)[0]
    assert thread.lost() == [2]
    assert not select.select([thread.fileno()], [], [], 0)[0]  # else it would wake the loop in every turn from now on
    assert thread.lost() == []


def test_places_of_links_that_are_gone_are_used_again_and_none_is_leaked():
    """More peers than places come one after the other; one too many at a time is refused, and its socket closed."""
    thread = BeatThread(1, 1000, 3000)
    thread.start()
    ends = []
    for peer in range(2, 130):
        left, right = socket.socketpair()
        thread.add_link(peer, left.detach(), KEY, True)
        ends.append(right)
    left, right = socket.socketpair()
    with pytest.raises(RuntimeError):
        thread.add_link(1000, left.detach(), KEY, True)
    right.settimeout(5)
    assert right.recv(1) == b""
    right.close()
    ends.pop(0).close()
    eventually(lambda: thread.lost() == [2])
    left, right = socket.socketpair()
    thread.add_link(1000, left.detach(), KEY, False)
    right.sendall(encode_beat(KEY, 0, True, 1000, 9, 3, 1, 0, 0))
    eventually(lambda: [stamp.peer_id for stamp in thread.stamps(0)] == [1000])
    thread.close()
    for end in (*ends, right):
        end.close()
