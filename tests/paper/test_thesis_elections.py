"""Thesis 9.6 and 4.2.3: pre-vote and stickiness together, so that nobody is deposed without need."""

from __future__ import annotations

import pytest

from hiqlite.engine.model import Membership, Role
from tests.paper.paper_node import (
    ELECTION_MAX,
    ELECTION_MIN,
    MS,
    ONE,
    THREE,
    TWO,
    VoteReply,
    VoteRequest,
    a_leader,
    a_node,
    answers,
    append,
    sent,
    told,
)


def test_a_pre_vote_raises_no_term() -> None:
    """9.6: a candidate first asks whether its log would get it the votes; nothing is stored."""
    node = a_node(term=3)
    node.wait(ELECTION_MAX)
    taken = node.take()
    assert {(vote.term, vote.pre) for vote in sent(taken, VoteRequest)} == {(4, True)}
    assert (node.raft.term, node.raft.vote) == (3, None) and not any(ready.hard_state for ready in taken)


def test_the_term_rises_when_a_majority_would_vote() -> None:
    """9.6: it raises its term only when it learned from a majority that they would be willing."""
    node = a_node(term=3)
    node.wait(ELECTION_MAX)
    node.take()
    node.receive(VoteReply(4, TWO, True, False))
    assert node.raft.term == 4 and node.raft.role is Role.FOLLOWER, "a refusal may tell of a newer term"
    node = a_node(term=3)
    node.wait(ELECTION_MAX)
    node.receive(VoteReply(3, TWO, True, False))
    assert node.raft.term == 3
    node.receive(VoteReply(4, THREE, True, True))
    assert node.raft.term == 4 and node.raft.role is Role.CANDIDATE


@pytest.mark.parametrize(("last", "granted"), [((2, 9), False), ((3, 4), False), ((3, 5), True), ((4, 1), True)])
def test_a_pre_vote_is_given_by_the_same_rule_as_a_vote(last: tuple[int, int], granted: bool) -> None:
    """9.6: an up-to-date log, and nothing changes in who answers."""
    node = a_node(log=((3, 1, 5),), term=6)
    node.receive(VoteRequest(7, TWO, True, last[1], last[0]))
    assert [one.granted for one in answers(node, VoteReply)] == [granted]
    assert (node.raft.term, node.raft.vote) == (6, None)


def test_pre_votes_may_be_given_to_several() -> None:
    """9.6: it is no vote; the vote itself goes to one."""
    node = a_node(term=6)
    for candidate in (TWO, THREE):
        node.receive(VoteRequest(7, candidate, True, 0, 0))
    assert [one.granted for one in answers(node, VoteReply)] == [True, True]


def test_who_hears_a_leader_would_not_vote() -> None:
    """9.6 with 4.2.3: "have not received heartbeats from a valid leader for at least a baseline election timeout"."""
    node = a_node(term=3)
    node.receive(append(3, THREE, (0, 0), (3, 1, 1)))
    node.sync()
    node.now += ELECTION_MIN - 1
    node.receive(VoteRequest(4, TWO, True, 9, 3))
    assert [one.granted for one in answers(node, VoteReply)] == [False]
    node.now += 1
    node.receive(VoteRequest(4, TWO, True, 9, 3))
    assert [one.granted for one in answers(node, VoteReply)] == [True]


def test_a_leader_would_not_vote() -> None:
    """9.6 with 4.2.3: it leads."""
    node = a_leader()
    node.receive(VoteRequest(2, TWO, True, 9, 9))
    assert [one.granted for one in answers(node, VoteReply)] == [False] and node.raft.leads


def test_who_was_cut_off_comes_back_without_an_election() -> None:
    """9.6: the case that pre-vote is for: nobody's term rose."""
    story = told("members voters=1,2,3", "start all", "lead 1", "isolate 3", "propose 1 3", "wait 5000ms")
    assert story.world.nodes[3].raft.role is Role.PRE_CANDIDATE
    story.run(["heal", "wait 1000ms"])
    assert story.world.nodes[1].raft.leads and {node.raft.term for node in story.world.nodes.values()} == {1}


def test_an_answer_to_an_earlier_pre_vote_does_not_count() -> None:
    """9.6: of its own term and its own campaign."""
    node = a_node(term=3)
    node.wait(ELECTION_MAX)
    node.take()
    node.receive(append(6, THREE, (0, 0)))
    node.sync()
    node.receive(VoteReply(4, TWO, True, True))
    assert node.raft.role is Role.FOLLOWER and node.raft.term == 6


def test_a_leader_whose_process_died_is_not_waited_for() -> None:
    """9.6. Deviation (consensus.md rule 9): links that are reset and refused end the wait before the timeout does."""
    node = a_node(term=3)
    node.receive(append(3, THREE, (0, 0), (3, 1, 1)))
    node.sync()
    node.raft.peer_lost(THREE.id, True, node.now)
    node.wait(150 * MS)
    assert sent(node.take(), VoteRequest) and node.raft.term == 3


def test_a_single_voter_does_not_ask_itself() -> None:
    """9.6. Deviation: with one voter there is nobody to disturb, so it campaigns at once."""
    node = a_node(term=3, members=Membership(0, (ONE,)))
    node.sync()
    assert node.raft.leads and node.raft.term == 4


def test_who_reaches_no_majority_does_not_even_ask() -> None:
    """9.6. Deviation: with links to less than a majority no campaign can be won, so none is begun."""
    node = a_node(term=3)
    for peer in (TWO, THREE):
        node.raft.peer_lost(peer.id, False, node.now)
    node.wait(5 * ELECTION_MAX)
    assert node.raft.role is Role.FOLLOWER and not sent(node.take(), VoteRequest)
