"""Thesis 3.10: leadership transfer."""

from __future__ import annotations

from hiqlite.engine.model import Role
from tests.paper.paper_node import (
    ELECTION_MAX,
    MS,
    ONE,
    THREE,
    TWO,
    Alone,
    TimeoutNow,
    VoteReply,
    VoteRequest,
    a_leader,
    a_node,
    accept,
    answer_rounds,
    answers,
    append,
    sent,
    told,
    vote,
)


def an_open_leader() -> Alone:
    node = a_leader()
    accept(node, TWO, THREE)
    return node


def test_the_prior_leader_stops_accepting_requests() -> None:
    """3.10, step 1."""
    node = an_open_leader()
    assert node.raft.transfer_leadership(2, node.now)
    assert node.raft.propose(1, 100, node.now) == 0


def test_the_target_gets_the_whole_log_first() -> None:
    """3.10, step 2: the prior leader "fully updates the target server's log to match its own"."""
    node = an_open_leader()
    node.raft.propose(2, 200, node.now)
    node.raft.transfer_leadership(2, node.now)
    assert not sent(node.sync(), TimeoutNow)
    assert not sent(accept(node, THREE), TimeoutNow)
    assert len(sent(accept(node, TWO), TimeoutNow)) == 1


def test_the_target_campaigns_at_once() -> None:
    """3.10, step 3: as if its timeout had elapsed; no pre-vote, for the leader itself wants it."""
    node = a_node(term=3)
    node.receive(append(3, THREE, (0, 0), (3, 1, 1)))
    node.sync()
    node.receive(TimeoutNow(3, THREE))
    assert (node.raft.term, node.raft.role, node.raft.vote) == (4, Role.CANDIDATE, ONE)
    assert [(one.pre, one.transfer) for one in answers(node, VoteRequest)] == [(False, True)] * 2


def test_only_the_leader_of_the_term_makes_somebody_campaign() -> None:
    """3.10, step 3: a late or foreign TimeoutNow is nothing."""
    node = a_node(term=3)
    node.receive(append(3, THREE, (0, 0), (3, 1, 1)))
    for message in (TimeoutNow(2, THREE), TimeoutNow(3, TWO)):
        node.receive(message)
        assert node.raft.term == 3 and node.raft.role is Role.FOLLOWER


def test_who_hears_the_prior_leader_answers_the_target() -> None:
    """Thesis 4.2.3: "a special flag: I have permission to disrupt the leader, it told me to"."""
    node = a_node(term=3)
    node.receive(append(3, THREE, (0, 0), (3, 1, 1)))
    node.sync()
    assert vote(node, VoteRequest(4, TWO, False, 1, 3)) is None
    assert vote(node, VoteRequest(4, TWO, False, 1, 3, True)) is True


def test_the_prior_leader_steps_down_when_the_new_term_reaches_it() -> None:
    """3.10: the request of the target carries the new term."""
    node = an_open_leader()
    node.raft.transfer_leadership(2, node.now)
    node.sync()
    assert node.raft.leads
    assert vote(node, VoteRequest(2, TWO, False, 1, 1, True)) is True and not node.raft.leads


def test_a_transfer_that_fails_is_aborted_after_an_election_timeout() -> None:
    """3.10: "if leadership transfer does not complete after about an election timeout, the prior leader aborts"."""
    node = an_open_leader()
    node.raft.transfer_leadership(2, node.now)
    end = node.now + ELECTION_MAX
    while node.now < end:
        assert node.raft.propose(1, 100, node.now) == 0
        answer_rounds(node, 2, 3)
        node.wait(min(50 * MS, end - node.now))
        node.sync()
    assert node.raft.leads and node.raft.propose(1, 100, node.now) > 0


def test_the_target_may_lose() -> None:
    """3.10: it campaigns like anybody else, and needs a majority."""
    node = a_node(term=3)
    node.receive(append(3, THREE, (0, 0), (3, 1, 1)))
    node.receive(TimeoutNow(3, THREE))
    node.sync()
    node.receive(VoteReply(4, THREE, False, False))
    assert node.raft.role is Role.CANDIDATE and not node.raft.leads


def test_leadership_moves_within_a_round_trip() -> None:
    """3.10, all of it: no election timeout passes, no entry is lost."""
    story = told("members voters=1,2,3", "start all", "lead 1", "propose 1 5", "transfer 1->3")
    leader = story.world.leader()
    assert leader is not None and leader.own.id == 3 and leader.raft.term == 2 and leader.raft.commit_index == 7
