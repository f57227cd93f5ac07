"""Sections 5.1 and 5.2 of the Raft paper, and figure 2, "Rules for Servers": terms, timeouts, campaigns.

Deviation: before it raises its term a node asks whether it would win (pre-vote, thesis 9.6); see
test_thesis_elections.py. Where a test says "campaigns", the pre-vote has passed.
"""

from __future__ import annotations

import pytest

from hiqlite.engine.model import Membership, Message, ProbeReply, ProbeRequest, Role
from hiqlite.errors import ProtocolError
from tests.paper.paper_node import (
    ELECTION_MAX,
    ELECTION_MIN,
    FIVE,
    FOUR,
    HEARTBEAT,
    MEMBERS,
    MS,
    ONE,
    THREE,
    TWO,
    Alone,
    AppendReply,
    AppendRequest,
    VoteReply,
    VoteRequest,
    a_leader,
    a_node,
    answers,
    append,
    sent,
    told,
)


def a_candidate(members: Membership = MEMBERS) -> Alone:
    """Node 1 in term 1, its vote for itself stored, its requests sent."""
    node = a_node(members=members)
    node.wait(ELECTION_MAX)
    node.take()
    for voter in members.voters[1 : len(members.voters) // 2 + 1]:
        node.receive(VoteReply(1, voter, True, True))
    node.sync()
    assert node.raft.role is Role.CANDIDATE
    return node


NEWER: list[Message] = [
    append(7, THREE, (0, 0)),
    AppendReply(7, TWO, True, 0, 0, 0, 1, 1),
    AppendReply(7, TWO, False, 0, 0, 0, 1, 1),
    VoteReply(7, TWO, False, False),
    VoteReply(7, TWO, True, False),
    ProbeRequest(7, THREE, 1),
    ProbeReply(7, TWO, 1),
]


@pytest.mark.parametrize("message", NEWER, ids=lambda message: type(message).__name__)
def test_a_newer_term_makes_a_leader_a_follower(message: Message) -> None:
    """Rules for all servers: "If RPC request or response contains term T > currentTerm: ... convert to follower"."""
    node = a_leader()
    node.receive(message)
    assert (node.raft.term, node.raft.vote, node.raft.role) == (7, None, Role.FOLLOWER)
    assert any(ready.hard_state and ready.hard_state.term == 7 for ready in node.sync())


@pytest.mark.parametrize("message", NEWER, ids=lambda message: type(message).__name__)
def test_a_newer_term_makes_a_candidate_a_follower(message: Message) -> None:
    """5.1: "If a candidate or leader discovers that its term is out of date, it immediately reverts to follower"."""
    node = a_candidate()
    node.receive(message)
    assert (node.raft.term, node.raft.role) == (7, Role.FOLLOWER)


def test_a_server_begins_as_a_follower() -> None:
    """5.2: "When servers start up, they begin as followers"."""
    assert a_node().raft.role is Role.FOLLOWER


def test_who_hears_a_leader_stays_a_follower() -> None:
    """5.2: "A server remains in follower state as long as it receives valid RPCs from a leader or candidate"."""
    node = a_node(term=3)
    for number in range(30):
        node.receive(ProbeRequest(3, THREE, number + 1))
        node.sync()
        node.wait(ELECTION_MIN - 1)
        assert node.raft.role is Role.FOLLOWER and not sent(node.take(), VoteRequest)


def test_who_hears_nobody_for_a_timeout_begins_an_election() -> None:
    """5.2 and rules for followers: "If election timeout elapses without receiving AppendEntries"."""
    node = a_node(term=3)
    node.receive(append(3, THREE, (0, 0)))
    node.sync()
    node.wait(ELECTION_MAX)
    assert sent(node.take(), VoteRequest)


def test_rpcs_of_older_leaders_do_not_keep_a_follower() -> None:
    """Rules for followers: "from current leader"."""
    node = a_node(term=3)
    deadline = node.raft.next_deadline()
    node.receive(append(2, THREE, (0, 0)))
    assert node.raft.next_deadline() == deadline and node.raft.leader_id == 0


def test_a_campaign_raises_the_term_votes_for_itself_and_asks_all() -> None:
    """5.2 and rules for candidates: increment currentTerm, vote for self, reset timer, RequestVote to all others."""
    node = a_candidate()
    assert (node.raft.term, node.raft.vote) == (1, ONE)
    requests = [vote for vote in sent(node.readies, VoteRequest) if not vote.pre]
    assert requests == [VoteRequest(1, ONE, False, 0, 0)] * 2
    assert node.raft.next_deadline() >= node.now + ELECTION_MIN


@pytest.mark.parametrize("voters", [(ONE, TWO, THREE), (ONE, TWO, THREE, FOUR), (ONE, TWO, THREE, FOUR, FIVE)])
def test_a_majority_of_votes_makes_a_leader(voters: tuple[object, ...]) -> None:
    """5.2: "if it receives votes from a majority of the servers in the full cluster for the same term"."""
    node = a_candidate(Membership(0, (ONE, TWO, THREE, FOUR, FIVE)[: len(voters)]))
    needed = len(voters) // 2  # besides its own
    for count, voter in enumerate((TWO, THREE, FOUR, FIVE)[: len(voters) - 1], 1):
        node.receive(VoteReply(1, voter, False, True))
        assert node.raft.leads is (count >= needed)


def test_one_voter_counts_once() -> None:
    """5.2: a repeated answer is one vote."""
    node = a_candidate(Membership(0, (ONE, TWO, THREE, FOUR, FIVE)))
    for _ in range(3):
        node.receive(VoteReply(1, TWO, False, True))
    assert not node.raft.leads


def test_votes_of_another_term_do_not_count() -> None:
    """5.2: "for the same term"."""
    node = a_candidate()
    node.receive(VoteReply(0, TWO, False, True))
    assert not node.raft.leads


def test_the_own_vote_counts_when_it_is_stored() -> None:
    """5.2. With figure 2, votedFor: nothing rests on a vote that may be forgotten."""
    node = a_node(members=Membership(0, (ONE,)))
    node.take()
    assert node.raft.term == 1 and not node.raft.leads
    node.sync()
    assert node.raft.leads


def test_a_candidate_yields_to_a_leader_of_its_term() -> None:
    """5.2: "If the leader's term ... is at least as large as the candidate's current term"."""
    node = a_candidate()
    node.receive(append(1, THREE, (0, 0), (1, 1, 1)))
    assert (node.raft.role, node.raft.leader_id, node.raft.vote) == (Role.FOLLOWER, 3, ONE)
    node.receive(VoteReply(1, TWO, False, True))
    assert not node.raft.leads, "that campaign is over"


def test_a_candidate_goes_on_against_a_leader_of_an_older_term() -> None:
    """5.2: "then the candidate rejects the RPC and continues in candidate state"."""
    node = a_candidate()
    node.receive(append(0, THREE, (0, 0)))
    assert node.raft.role is Role.CANDIDATE
    assert [(one.accepted, one.term) for one in answers(node, AppendReply)] == [(False, 1)]


def test_a_split_vote_is_followed_by_a_new_election() -> None:
    """5.2 and rules for candidates: "If election timeout elapses: start new election"."""
    node = a_candidate()
    node.wait(ELECTION_MAX)
    assert [(vote.term, vote.pre) for vote in answers(node, VoteRequest)][:2] == [(2, True), (2, True)]
    node.receive(VoteReply(2, TWO, True, True))
    node.sync()
    assert (node.raft.term, node.raft.role) == (2, Role.CANDIDATE)


def test_who_cannot_win_any_more_asks_again_soon() -> None:
    """5.2, split votes. Deviation: once all who are linked have voted no timeout is awaited, there are pre-votes."""
    node = a_candidate()
    after = node.raft.next_deadline()
    node.receive(VoteReply(1, TWO, False, False))
    assert node.raft.next_deadline() == after, "node 3 may give its vote yet"
    node.receive(VoteReply(0, THREE, False, False))
    node.receive(VoteReply(1, THREE, True, False))
    assert node.raft.next_deadline() == after, "of an earlier term, or about no vote"
    node = a_candidate()
    node.raft.peer_lost(THREE.id, False, node.now)
    node.receive(VoteReply(1, TWO, False, False))
    assert HEARTBEAT <= node.raft.next_deadline() - node.now <= 3 * HEARTBEAT < ELECTION_MIN
    node.wait(3 * HEARTBEAT)
    assert {(vote.term, vote.pre) for vote in answers(node, VoteRequest)} == {(2, True)}


def test_timeouts_are_random_in_a_range() -> None:
    """5.2: "election timeouts are chosen randomly from a fixed interval", anew for each election."""
    node = a_node(term=1)
    waits = set()
    for term in range(2, 60):
        node.now += 1 * MS
        node.receive(append(term, THREE, (0, 0)))
        waits.add(node.raft.next_deadline() - node.now)
        node.sync()
    assert len(waits) > 40 and min(waits) >= ELECTION_MIN and max(waits) <= ELECTION_MAX
    assert max(waits) - min(waits) > (ELECTION_MAX - ELECTION_MIN) // 2


def test_a_new_leader_makes_itself_known_at_once() -> None:
    """Rules for leaders: "Upon election: send initial empty AppendEntries RPCs". Deviation: an entry and a round."""
    node = a_leader()
    assert len(sent(node.readies, AppendRequest)) == 2
    node.wait(1)
    assert len(sent(node.sync(), ProbeRequest)) == 2


def test_a_leader_repeats_its_heartbeat() -> None:
    """Rules for leaders: "repeat during idle periods to prevent election timeouts"."""
    story = told("members voters=1,2,3", "start all", "lead 1", "wait 10000ms")
    assert story.world.nodes[1].raft.leads and story.world.nodes[1].raft.term == 1


def test_two_leaders_of_one_term_cannot_be() -> None:
    """Figure 3, election safety: a leader that meets another one of its term stops, and so does nothing wrong."""
    node = a_leader()
    node.receive(append(1, THREE, (0, 0), (1, 1, 1)))
    assert any(ready.fatal for ready in node.take())


def test_a_message_of_nobody_is_refused() -> None:
    """5.1: servers speak for themselves; a message that claims to come from here is an error."""
    with pytest.raises(ProtocolError):
        a_node().receive(VoteRequest(4, ONE, False, 0, 0))


def test_a_request_that_was_lost_is_sent_again() -> None:
    """5.1: "Servers retry RPCs if they do not receive a response in a timely manner"."""
    node = a_leader()
    node.wait(ELECTION_MIN)
    again = [request for request in answers(node, AppendRequest) if request.last_index == 1]
    assert len(again) >= 2 and node.raft.leads


def test_a_beat_of_another_term_keeps_nobody() -> None:
    """Rules for followers: "from current leader". Deviation: beats of the native thread, term for term."""
    node = a_node(term=4)
    deadline = node.raft.next_deadline()
    for term, incarnation in ((3, THREE.incarnation), (5, THREE.incarnation), (4, 99)):
        node.raft.heard_beat(term, THREE.id, incarnation, 0, node.now, node.now)
        assert node.raft.leader_id == 0 and node.raft.next_deadline() == deadline and node.raft.term == 4
    node.raft.heard_beat(4, THREE.id, THREE.incarnation, 0, node.now, node.now)
    assert node.raft.leader_id == 3
