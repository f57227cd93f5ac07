"""Figure 2 of the Raft paper, "RequestVote RPC", and sections 5.2 and 5.4.1, seen from the voter."""

from __future__ import annotations

import pytest

from hiqlite.engine.model import Identity
from tests.paper.paper_node import (
    ELECTION_MIN,
    ONE,
    THREE,
    TWO,
    VoteReply,
    VoteRequest,
    a_leader,
    a_node,
    answers,
    append,
    vote,
)


def test_an_older_term_gets_no_vote_and_is_told_of_the_newer_one() -> None:
    """Receiver 1: "Reply false if term < currentTerm"."""
    node = a_node(term=5)
    node.receive(VoteRequest(4, TWO, False, 99, 4))
    assert answers(node, VoteReply) == [VoteReply(5, ONE, False, False)] and node.raft.vote is None


def test_one_vote_in_a_term_first_come_first_served() -> None:
    """Receiver 2: "If votedFor is null or candidateId"; 5.2: "at most one candidate in a given term"."""
    node = a_node()
    assert [vote(node, VoteRequest(1, one, False, 0, 0)) for one in (TWO, THREE, TWO)] == [True, False, True]
    assert vote(node, VoteRequest(2, THREE, False, 0, 0)), "a new term, a new vote"


def test_a_vote_is_remembered_over_a_restart() -> None:
    """Receiver 2 and figure 2, persistent state, votedFor."""
    node = a_node(term=1, vote=TWO)
    assert [vote(node, VoteRequest(1, one, False, 0, 0)) for one in (THREE, TWO)] == [False, True]


def test_a_vote_belongs_to_an_incarnation() -> None:
    """Receiver 2. Deviation: who lost its disk is somebody else (consensus.md rule 8), and did not get this vote."""
    node = a_node(term=1, vote=TWO)
    assert vote(node, VoteRequest(1, Identity(2, 99), False, 9, 1)) is False


@pytest.mark.parametrize(
    ("candidate", "granted"),
    [((3, 9), False), ((4, 7), False), ((4, 8), True), ((4, 9), True), ((5, 1), True)],
)
def test_the_candidates_log_is_at_least_as_up_to_date(candidate: tuple[int, int], granted: bool) -> None:
    """5.4.1: the later last term wins, of equal ones the longer log."""
    node = a_node(log=((2, 1, 3), (4, 4, 8)), term=5)
    assert vote(node, VoteRequest(6, TWO, False, candidate[1], candidate[0])) is granted


def test_a_newer_term_is_entered_also_when_the_vote_is_refused() -> None:
    """Rules for all servers: "If RPC request ... contains term T > currentTerm"."""
    node = a_node(log=((4, 1, 8),), term=5)
    assert vote(node, VoteRequest(6, TWO, False, 1, 1)) is False
    assert (node.raft.term, node.raft.vote) == (6, None)


def test_who_gave_a_vote_waits_a_whole_timeout_before_it_campaigns() -> None:
    """Rules for followers: "without ... granting vote to candidate"."""
    node = a_node()
    assert vote(node, VoteRequest(1, TWO, False, 0, 0))
    assert node.raft.next_deadline() >= node.now + ELECTION_MIN


def test_who_refused_a_vote_does_not_wait_longer_for_it() -> None:
    """Rules for followers, the other way: only a granted vote resets the timeout."""
    node = a_node(log=((4, 1, 8),), term=5)
    deadline = node.raft.next_deadline()
    assert vote(node, VoteRequest(6, TWO, False, 1, 1)) is False
    assert node.raft.next_deadline() == deadline


def test_who_hears_its_leader_does_not_listen_to_candidates() -> None:
    """Section 6 and thesis 4.2.3: "servers disregard RequestVote RPCs when they believe a current leader exists"."""
    node = a_node(term=3)
    node.receive(append(3, THREE, (0, 0), (3, 1, 1)))
    node.sync()
    assert vote(node, VoteRequest(9, TWO, False, 9, 9)) is None and node.raft.term == 3
    node.now += ELECTION_MIN
    assert vote(node, VoteRequest(9, TWO, False, 9, 9)) is True


def test_a_leader_does_not_listen_to_candidates() -> None:
    """Thesis 4.2.3: it believes in itself, until check-quorum says otherwise."""
    node = a_leader()
    assert vote(node, VoteRequest(9, TWO, False, 9, 9)) is None and node.raft.leads


def test_damaged_entries_count_for_what_they_were() -> None:
    """5.4.1. Deviation: a damaged entry was promised, so a candidate without it gets no vote (consensus.md 3)."""
    node = a_node(log=((4, 1, 8),), faulty=((7, 8),))
    assert vote(node, VoteRequest(6, TWO, False, 7, 4)) is False
    assert vote(node, VoteRequest(7, TWO, False, 8, 4)) is True
