"""Damaged entries come back from peers (consensus.md section 3)."""

from __future__ import annotations

import pytest

from hiqlite.engine.model import (
    AppendReply,
    AppendRequest,
    Identity,
    Membership,
    RepairReply,
    RepairRequest,
    Restored,
    SendImage,
    TermRun,
    VoteReply,
    VoteRequest,
)
from hiqlite.errors import ProtocolError
from tests.engine.engine_group import SECOND, Alone, accept, append, fresh, identities, lead, log_of, messages, refuse

ONE, TWO, THREE = identities(3)
MEMBERS = Membership(0, (ONE, TWO, THREE))
LOG = log_of((1, 1, 5), (2, 6, 10))


def damaged(unknown: bool = False) -> Restored:
    """Entries 4 to 7, across two terms, or entry 5 to 6 without even their terms."""
    if unknown:
        runs = log_of((1, 1, 4), (2, 5, 10))
        return fresh(MEMBERS, term=3, runs=runs, unknown=((5, 6),), applied_index=2, applied_term=1)
    return fresh(MEMBERS, term=3, runs=LOG, faulty=((4, 7),), applied_index=2, applied_term=1)


def written(node: Alone) -> list[tuple[int, int]]:
    return [(repair.first, repair.last) for ready in node.sync() for repair in ready.repairs]


def reply(
    first: int, last: int, *runs: tuple[int, int, int], committed: bool = False, previous_term: int = 1
) -> RepairReply:
    return RepairReply(3, TWO, first, last, previous_term, log_of(*runs), committed)


def test_every_peer_is_asked_for_exactly_what_is_damaged() -> None:
    """One request per term, for an entry is known by its index and term; again and again until it came."""
    node = Alone(damaged())
    node.wait(10_000_000)
    asked = {one for one in messages(node.sync(), RepairRequest) if isinstance(one, RepairRequest)}
    assert {(one.first, one.last, one.entry_term) for one in asked} == {(4, 5, 1), (6, 7, 2)}
    node.wait(SECOND)
    assert messages(node.sync(), RepairRequest)


def test_a_leader_that_the_damaged_entries_named_is_asked_too() -> None:
    """The configuration itself may be what is lost: then nobody is known but the leader that is heard."""
    alone = Membership(0, (), (ONE,))
    node = Alone(fresh(alone, term=3, runs=LOG, faulty=((4, 7),), applied_index=2, applied_term=1))
    node.wait(SECOND)
    assert not messages(node.sync(), RepairRequest)
    node.receive(append(3, TWO, (10, 2)))
    node.wait(SECOND)
    asked = [one for one in messages(node.sync(), RepairRequest) if isinstance(one, RepairRequest)]
    assert {(one.first, one.last) for one in asked} == {(4, 5), (6, 7)}


def test_an_entry_comes_back_in_its_place_and_the_node_is_whole_again() -> None:
    """The log is never shorter than what was promised; once nothing is missing it may campaign."""
    node = Alone(damaged())
    node.receive(reply(4, 5, (1, 4, 5)))
    assert written(node) == [(4, 5)] and node.raft.faulty == ((6, 7),) and node.raft.last_index == 10
    node.wait(3 * SECOND)
    assert not messages(node.sync(), VoteRequest)
    node.receive(reply(6, 7, (2, 6, 7)))
    assert written(node) == [(6, 7)] and node.raft.faulty == ()
    node.wait(3 * SECOND)
    assert messages(node.sync(), VoteRequest)


def test_an_entry_of_another_term_is_no_repair() -> None:
    node = Alone(damaged())
    node.receive(reply(4, 5, (2, 4, 5), committed=True))
    assert written(node) == [] and node.raft.faulty == ((4, 7),)


def test_an_entry_that_came_already_or_was_not_asked_for_is_not_written() -> None:
    node = Alone(damaged())
    node.receive(reply(4, 5, (1, 4, 5)))
    node.sync()
    node.receive(reply(4, 5, (1, 4, 5)))
    node.receive(reply(1, 2, (1, 1, 2)))
    assert written(node) == []


def test_an_entry_of_lost_term_is_taken_only_from_who_knows_it_committed() -> None:
    """Two peers may hold different entries there, and of the two only the committed one was ever safe to apply."""
    node = Alone(damaged(unknown=True))
    node.receive(reply(5, 6, (1, 5, 6)))
    assert written(node) == []
    node.receive(reply(5, 6, (1, 5, 5), (2, 6, 6), committed=True))
    assert written(node) == [(5, 6)]
    assert (node.raft.term_at(5), node.raft.term_at(6), node.raft.last_index) == (1, 2, 10)


def test_committed_entries_do_not_follow_a_stale_tail() -> None:
    """Entries 3 and 4 are of a deposed leader: with what is committed behind them, a leader's check of the last entry
    would hold, and they would count as committed themselves. What follows them was never committed either: it goes."""
    node = Alone(damaged(unknown=True))
    node.receive(reply(5, 6, (2, 5, 6), committed=True, previous_term=0))
    assert written(node) == [] and node.raft.faulty == ((5, 6),), "who lost the term of entry 4 cannot tell"
    node.receive(reply(5, 6, (2, 5, 6), committed=True, previous_term=2))
    assert written(node) == [] and node.raft.faulty == ()
    assert (node.raft.last_index, node.raft.commit_index) == (3, 2)
    node.receive(append(3, TWO, (6, 2), commit=6))
    assert node.raft.commit_index == 2


def test_nothing_that_is_damaged_is_applied_or_goes_by_a_cut_that_cannot_be_judged() -> None:
    node = Alone(damaged())
    node.receive(append(3, TWO, (10, 2), commit=10))
    assert [ready.apply for ready in node.sync() if ready.apply] == [(3, 3)]
    assert node.raft.commit_index == 10 and node.raft.faulty == ((4, 7),)
    node.receive(reply(4, 5, (1, 4, 5)))
    assert [ready.apply for ready in node.sync() if ready.apply] == [(4, 5)]


def test_a_probe_at_an_entry_of_lost_term_is_led_before_it() -> None:
    """It cannot say whether it has it, so it neither accepts nor calls it absent; the leader's append repairs it."""
    node = Alone(damaged(unknown=True))
    node.receive(append(3, TWO, (6, 2)))
    refused = [one for one in messages(node.sync(), AppendReply) if isinstance(one, AppendReply)]
    assert [(one.accepted, one.hint_index, one.hint_term) for one in refused] == [(False, 4, 1)]
    node.receive(append(3, TWO, (4, 1), (1, 5, 5), (2, 6, 10), sequence=2))
    assert written(node) == [(5, 5), (6, 6)] and node.raft.faulty == () and node.raft.last_index == 10


def test_a_lost_tail_is_unknown_although_its_bound_is_the_term_before_it() -> None:
    """Entries 5 and 6 are repairs of term 3; what stood behind them was older, and nothing that can be read follows."""
    runs = log_of((1, 1, 4), (3, 5, 10))
    node = Alone(fresh(MEMBERS, term=3, runs=runs, unknown=((7, 10),), applied_index=4, applied_term=1))
    node.receive(append(3, TWO, (10, 3), commit=10))
    answers = [one for one in messages(node.sync(), AppendReply) if isinstance(one, AppendReply)]
    assert [one.accepted for one in answers] == [False]
    assert node.raft.commit_index < 7 and node.raft.faulty == ((7, 10),)
    node.receive(append(3, TWO, (6, 3), (3, 7, 7), commit=7, sequence=2))
    assert node.raft.faulty == ((8, 10),)


def test_a_real_conflict_cuts_damaged_entries_as_well() -> None:
    node = Alone(damaged())
    node.receive(append(3, TWO, (5, 1), (3, 6, 6)))
    node.sync()
    assert node.raft.faulty == ((4, 5),) and node.raft.last_index == 6


@pytest.mark.parametrize(("last", "granted"), [((9, 2), False), ((10, 2), True), ((4, 3), True)])
def test_what_is_damaged_counts_when_a_vote_is_asked_for(last: tuple[int, int], granted: bool) -> None:
    node = Alone(damaged())
    node.receive(VoteRequest(4, TWO, False, *last))
    assert [one.granted for one in messages(node.sync(), VoteReply) if isinstance(one, VoteReply)] == [granted]


def test_what_is_damaged_is_not_purged() -> None:
    """It may be a configuration: who forgets it unread would act by the one before for ever."""
    runs = log_of((1, 1, 5), (2, 6, 10))
    node = Alone(fresh(MEMBERS, term=3, runs=runs, faulty=((4, 5),), applied_index=8, applied_term=2))
    assert node.raft.purge_limit == 3
    node.receive(reply(4, 5, (1, 4, 5)))
    node.sync()
    assert node.raft.purge_limit == 8


def asked(node: Alone, first: int, last: int, entry_term: int, sender: Identity = TWO) -> list[RepairReply]:
    node.receive(RepairRequest(3, sender, first, last, entry_term))
    return [one for one in messages(node.sync(), RepairReply) if isinstance(one, RepairReply)]


def test_a_node_gives_what_it_holds_for_the_very_entry() -> None:
    """By its term, or, if that is lost, when it is known to be committed; never across what it lacks itself."""
    node = Alone(fresh(MEMBERS, term=3, runs=LOG, faulty=((8, 8),)))
    assert [one.runs for one in asked(node, 4, 5, 1)] == [(TermRun(1, 4, 5),)]
    assert asked(node, 4, 5, 2) == [] and asked(node, 5, 6, 1) == []
    assert asked(node, 7, 8, 2) == [] and asked(node, 10, 11, 2) == []
    assert asked(node, 4, 7, 0) == []
    node.receive(append(3, THREE, (7, 2), commit=7))
    node.sync()
    assert [(one.runs, one.committed) for one in asked(node, 4, 7, 0)] == [((TermRun(1, 4, 5), TermRun(2, 6, 7)), True)]


def test_a_leader_that_purged_what_is_damaged_there_sends_an_image() -> None:
    runs = log_of((2, 9, 10))
    node = lead(fresh(MEMBERS, term=2, base_index=8, base_term=2, runs=runs, applied_index=9, applied_term=2))
    accept(node, TWO, THREE)
    node.receive(RepairRequest(3, TWO, 4, 5, 1))
    assert [ready.images for ready in node.sync() if ready.images] == [[SendImage(2, 0)]]


def test_a_leader_sends_again_what_was_promised_and_is_damaged_since() -> None:
    """The peer restarted within this leader's term and names an entry below its promise, which still counts."""
    node = lead(fresh(MEMBERS, term=2, runs=LOG))
    accept(node, TWO)
    committed = node.raft.commit_index
    node.raft.peer_lost(2, True, node.now)
    node.raft.peer_connected(2, 2, node.now)
    node.sync()
    taken = refuse(node, TWO, (4, 1))
    sent = [one for one in messages(taken, AppendRequest) if isinstance(one, AppendRequest)]
    assert [(one.previous_index, one.previous_term) for one in sent] == [(4, 1)]
    accept(node, TWO, match=4)
    peer = node.raft.progress(2)
    assert peer is not None and peer.replicating and peer.next_index == 5 and peer.match_index == committed


@pytest.mark.parametrize(
    "broken",
    [
        reply(5, 6, (1, 5, 5), committed=True), reply(5, 6, (2, 5, 5), (1, 6, 6), committed=True),
        reply(5, 6, (1, 5, 7), committed=True), reply(5, 6, (1, 6, 6), committed=True), reply(5, 6, committed=True),
        reply(5, 6, (4, 5, 6), committed=True), reply(5, 6, (2**63, 5, 6), committed=True),
        reply(5, 6, (1, 5, 2**63), committed=True),
        RepairReply(3, TWO, 5, 6, 1, log_of((1, 5, 6)), True, (Membership(7, (ONE,)),)),
        RepairReply(3, TWO, 5, 6, 1, log_of((1, 5, 6)), True, (Membership(6, ()),)),
    ],
)  # fmt: skip
def test_a_repair_that_is_not_one_ascending_range_is_refused_and_changes_nothing(broken: RepairReply) -> None:
    node = Alone(damaged(unknown=True))
    with pytest.raises(ProtocolError):
        node.receive(broken)
    assert written(node) == [] and node.raft.faulty == ((5, 6),)


def test_nothing_is_applied_before_its_repair_was_handed_out() -> None:
    """A leader's append repairs two terms at once, the second by a cut: that repair waits for a Ready of its own, and
    what it brings back is not given to apply before."""
    runs = log_of((1, 1, 2), (3, 3, 10))
    node = Alone(fresh(MEMBERS, term=3, runs=runs, unknown=((3, 10),), applied_index=2, applied_term=1))
    node.receive(append(4, TWO, (2, 1), (3, 3, 5), (4, 6, 6), commit=6))
    repaired: set[int] = set()
    applied = []
    for ready in node.sync():
        for repair in ready.repairs:
            repaired.update(range(repair.first, repair.last + 1))
        if ready.apply is not None:
            applied.append(ready.apply)
            assert set(range(ready.apply[0], ready.apply[1] + 1)) <= repaired
    assert applied == [(3, 6)]
