"""The parts of the engine by themselves: quorums, the trail of terms, the window, a peer's progress, the outbox."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiqlite.engine import quorum
from hiqlite.engine.log import UNKNOWN_TERM, Log
from hiqlite.engine.membership import Configuration
from hiqlite.engine.model import AppendKind, Identity, Membership, ProbeReply, TermRun
from hiqlite.engine.progress import Progress
from hiqlite.engine.reads import Reads
from hiqlite.engine.ready import Outbox
from hiqlite.engine.window import Window

ME = Identity(1, 11)


@given(st.lists(st.integers(0, 100), min_size=1, max_size=7))
def test_a_value_is_reached_when_a_majority_has_it(values: list[int]) -> None:
    """Equal to the middle of the descending list, whatever the order of the slots."""
    expected = sorted(values, reverse=True)[len(values) // 2]
    assert quorum.reached([list(range(len(values)))], values) == expected


def test_a_joint_configuration_needs_both_majorities() -> None:
    """Each voter set is counted by itself; the lower one decides."""
    old, new = [0, 1, 2], [2, 3, 4]
    assert quorum.reached([old, new], [9, 9, 9, 1, 1]) == 1
    assert not quorum.won([old, new], [1, 1, 0, 0, 1])
    assert quorum.won([old, new], [1, 0, 1, 1, 0])
    assert quorum.reached([[]], [5]) == 0 and quorum.reached([], [5]) == 0


def test_another_incarnation_has_no_slot() -> None:
    """Progress and votes are counted for the identity in the configuration only."""
    config = Configuration(Membership(0, (ME, Identity(2, 12)), (Identity(3, 13),)), ME)
    assert config.slot_of(Identity(2, 12)) == 1 and config.slot_of(Identity(2, 99)) == -1
    assert config.voter_sets == [[0, 1]] and config.is_voter and not config.is_single


@st.composite
def trails(draw: st.DrawFn) -> list[int]:
    """Terms by index, ascending."""
    return sorted(draw(st.lists(st.integers(1, 6), max_size=30)))


def log_from(terms: list[int], base: int = 0, base_term: int = 0) -> Log:
    log = Log(base, base_term, ())
    for offset, term in enumerate(terms):
        log.extend(term, base + offset + 1, base + offset + 1)
    return log


@given(trails(), st.data())
def test_the_trail_is_a_list_of_terms(terms: list[int], data: st.DataObject) -> None:
    """term_at, slice, truncate and floor_of_term agree with the plain list at every index."""
    log = log_from(terms, base=5)
    for index in range(len(terms) + 8):
        inside = 5 < index <= 5 + len(terms)
        expected = terms[index - 6] if inside else (0 if index == 5 else UNKNOWN_TERM)
        assert log.term_at(index) == expected
    low = data.draw(st.integers(6, 6 + len(terms)))
    high = data.draw(st.integers(low - 1, 5 + len(terms))) if terms else low - 1
    flat = [run.term for run in log.slice(low, high) for _ in range(run.first, run.last + 1)]
    assert flat == terms[low - 6 : high - 5]
    term = data.draw(st.integers(0, 7))
    floor = log.floor_of_term(high, term)
    assert floor == max([5, *(i for i in range(6, high + 1) if terms[i - 6] <= term)])
    kept = data.draw(st.integers(5, 5 + len(terms)))
    log.truncate(kept)
    assert log.last_index == kept and log.last_term == (terms[kept - 6] if kept > 5 else 0)
    assert [run.term for run in log.runs() for _ in range(run.first, run.last + 1)] == terms[: kept - 5]


@given(trails(), trails())
def test_the_first_conflict_is_where_two_trails_part(mine: list[int], theirs: list[int]) -> None:
    """A missing entry is a conflict at its index; entries held with the same term are none."""
    other = log_from(theirs)
    pairs = enumerate(theirs, start=1)
    expected = next((i for i, term in pairs if i > len(mine) or mine[i - 1] != term), 0)
    assert log_from(mine).first_conflict(other.runs()) == expected


def test_a_trail_refuses_gaps_and_falling_terms() -> None:
    log = log_from([1, 1, 3])
    for run in ((3, 5, 6), (2, 4, 4), (3, 4, 3)):
        with pytest.raises(ValueError, match="does not follow"):
            log.extend(*run)
    with pytest.raises(ValueError, match="cannot cut"):
        log.truncate(4)


def test_a_frame_is_made_of_whole_batches() -> None:
    """At least one, then as many as fit; what fell out of memory has to be fetched."""
    window = Window(1000)
    for first in (1, 11, 21):
        window.push(first, first + 9, 300)
    assert window.frame(1, 600) == 20 and window.frame_bytes == 600
    assert window.frame(15, 100) == 20 and window.frame_bytes == 300
    window.push(31, 40, 300)
    assert window.frame(1, 600) == 0 and window.frame(11, 5000) == 40
    window.starts_at(15)
    assert window.frame(15, 100) == 0 and window.frame(21, 100) == 30
    window.push(90, 91, 10)
    assert window.frame(21, 100) == 0 and window.frame(90, 100) == 91 and window.size_bytes == 10


def test_a_peer_is_probed_then_fed_through_a_window() -> None:
    """Answers free the window, a refusal empties it, an answer to nothing changes nothing."""
    peer = Progress(Identity(2, 12), 1)
    peer.connect(4)
    peer.lead_from(10)
    assert not peer.replicating
    assert not peer.acknowledged(peer.sent_probe(100) + 7, 9) or not peer.replicating
    peer.acknowledged(peer.probe_sequence, 9)
    assert peer.replicating and peer.match_index == 9 and peer.unacked_since_ns == 0
    first = peer.sent_frame(19, 500, 200)
    second = peer.sent_frame(29, 500, 300)
    assert not peer.has_room(2, 10_000) and not peer.has_room(9, 1000) and peer.next_index == 30
    peer.acknowledged(first, 19)
    assert peer.has_room(2, 10_000) and peer.unacked_since_ns == 300
    peer.rejected(first, 5)
    assert peer.replicating, "what is no longer on its way cannot be refused"
    peer.rejected(second, 5)
    assert not peer.replicating and peer.next_index == 20 and peer.inflight_bytes == 0


def test_messages_wait_for_the_hard_state_and_acknowledgements_for_the_entries() -> None:
    """Nothing leaves before its io sequence is durable; of several acknowledgements the highest says it all."""
    outbox = Outbox(ME, 40, 7)
    outbox.write_hard_state(3, None)
    outbox.send(3, 2, ProbeReply(3, ME, 1))
    outbox.write_append(8, 9, AppendKind.RECEIVED, 3)
    outbox.acknowledge(3, 2, 9, 1, 1)
    outbox.acknowledge(3, 2, 9, 1, 2)
    assert outbox.take_writes()[0] is not None
    outbox.release(3)
    assert outbox.take_sends() == []
    outbox.progress(42, 41)
    outbox.release(3)
    assert [send.message for send in outbox.take_sends()] == [ProbeReply(3, ME, 1)]
    assert outbox.written_index == 9 and outbox.synced_index == 7
    outbox.progress(42, 42)
    outbox.release(3)
    (reply,) = [send.message for send in outbox.take_sends()]
    assert (reply.match_index, reply.sequence, outbox.synced_index) == (9, 2, 9)


def test_a_completion_counts_only_for_what_was_not_cut_since() -> None:
    """Entries written, cut and written again: the first write's completion says nothing about the second."""
    outbox = Outbox(ME, 0, 5)
    outbox.write_append(6, 9, AppendKind.RECEIVED, 2)
    outbox.write_truncate(5)
    outbox.write_append(6, 8, AppendKind.RECEIVED, 3)
    outbox.progress(1, 1)
    assert (outbox.written_index, outbox.synced_index) == (5, 5)
    outbox.progress(3, 3)
    assert (outbox.written_index, outbox.synced_index) == (8, 8)


def test_writes_of_one_ready_are_in_its_order() -> None:
    """A hard state after an append waits for the next Ready, so that io sequences ascend."""
    outbox = Outbox(ME, 0, 0)
    outbox.write_append(1, 1, AppendKind.RECEIVED, 1)
    outbox.write_hard_state(2, None)
    outbox.write_truncate(0)
    outbox.write_append(1, 2, AppendKind.RECEIVED, 2)
    first, second = outbox.take_writes(), outbox.take_writes()
    assert first[0] is None and [write.io_sequence for write in first[3]] == [1]
    assert [second[0].io_sequence, second[1].io_sequence, second[3][0].io_sequence] == [2, 3, 4]


def test_a_round_confirms_the_reads_queued_before_it() -> None:
    """Not those queued after it was sent, and none before the term is opened."""
    reads = Reads()
    early = reads.queue()
    reads.begin_round(0, 100)
    first = reads.begin_round(8, 200)
    late = reads.queue()
    second = reads.begin_round(9, 300)
    reads.confirm(first)
    assert [(read.token, read.read_index) for read in reads.take_confirmed()] == [(early, 8)]
    assert reads.sent_time(second) == 300 and reads.sent_time(second + 1) == 0
    reads.fail()
    assert reads.take_failed() == [late] and reads.take_confirmed() == []


def test_runs_are_values() -> None:
    """Hot values are hashable and comparable like frozen ones."""
    assert TermRun(1, 2, 3) == TermRun(1, 2, 3) and len({TermRun(1, 2, 3), TermRun(1, 2, 3)}) == 1
