"""Section 6 of the Raft paper and thesis chapter 4: changes of members, always through joint consensus (4.3).

Deviation: every change of voters is joint, also that of a single one (4.1 allows the short way); adding and removing
learners needs no joint configuration, because no quorum changes.
"""

from __future__ import annotations

import pytest

from hiqlite.config import RaftSettings
from hiqlite.engine.model import Change, ChangeKind, Identity, Membership, Role
from hiqlite.engine.raft import Raft
from hiqlite.errors import UsageError
from tests.engine.engine_group import fresh
from tests.paper.paper_node import (
    ELECTION_MAX,
    ELECTION_MIN,
    FIVE,
    FOUR,
    MEMBERS,
    MS,
    ONE,
    THREE,
    TWO,
    Alone,
    AppendRequest,
    TimeoutNow,
    VoteReply,
    VoteRequest,
    a_leader,
    a_node,
    accept,
    answer_rounds,
    append,
    lead,
    refuse,
    sent,
    told,
    vote,
)

WITH_LEARNERS = Membership(0, (ONE, TWO, THREE), (FOUR, FIVE))
TO_345 = Change(ChangeKind.SET_VOTERS, (THREE, FOUR, FIVE))
JOINT = Membership(2, (THREE, FOUR, FIVE), (), (ONE, TWO, THREE))


def an_open_leader(members: Membership = WITH_LEARNERS) -> Alone:
    """Node 1, the entry of its term committed, everybody caught up."""
    node = lead(fresh(members))
    accept(node, *[one for one in members.voters + members.learners if one != ONE])
    return node


def in_joint() -> Alone:
    """A leader that appended the joint configuration from {1,2,3} to {3,4,5} at index 2."""
    node = an_open_leader()
    assert node.raft.propose_membership(TO_345, node.now) == 2
    node.sync()
    return node


# --------------------------------------------------------------------------- joint consensus (paper 6, thesis 4.3)


def test_a_change_begins_with_both_configurations() -> None:
    """6: "the cluster first switches to a transitional configuration we call joint consensus"."""
    assert in_joint().raft.membership == JOINT


def test_entries_go_to_the_servers_of_both_configurations() -> None:
    """6: "Log entries are replicated to all servers in both configurations"."""
    node = in_joint()
    node.raft.propose(1, 100, node.now)
    taken = node.take()
    reached = {send.peer_id for ready in taken for send in ready.sends if isinstance(send.message, AppendRequest)}
    assert reached == {2, 3, 4, 5}


@pytest.mark.parametrize(
    ("holders", "committed"),
    [((TWO, THREE), False), ((FOUR, FIVE), False), ((THREE,), False), ((TWO, FOUR), False), ((THREE, FOUR), True)],
)
def test_agreement_needs_a_majority_of_each_configuration(holders: tuple[Identity, ...], committed: bool) -> None:
    """6: "Agreement (for elections and entry commitment) requires separate majorities from both": here, an entry."""
    node = in_joint()
    accept(node, *holders)
    assert (node.raft.commit_index >= 2) is committed


@pytest.mark.parametrize(
    ("voters", "won"),
    [((TWO, THREE), False), ((FOUR, FIVE), False), ((THREE, FOUR), True), ((TWO, FOUR, FIVE), True)],
)
def test_an_election_needs_a_majority_of_each_configuration(voters: tuple[Identity, ...], won: bool) -> None:
    """6, the other half of the same rule: here, an election; node 1 is a voter of the old one only."""
    node = a_node(log=((1, 1, 2),), members=Membership(0, (ONE, TWO, THREE), (FOUR, FIVE)), memberships=(JOINT,))
    node.wait(ELECTION_MAX)
    for pre in (True, False):
        for voter in (TWO, THREE, FOUR, FIVE) if pre else voters:
            node.receive(VoteReply(node.raft.term + pre, voter, pre, True))
        node.sync()
    assert node.raft.leads is won


def test_any_server_of_either_configuration_may_lead() -> None:
    """6: "Any server from either configuration may serve as leader": a leader that will leave goes on for now."""
    node = in_joint()
    assert node.raft.leads and node.raft.propose(1, 100, node.now) == 3


def test_a_configuration_is_in_force_as_soon_as_it_is_appended() -> None:
    """6: "a server always uses the latest configuration in its log, regardless of whether the entry is committed"."""
    node = a_node(term=1, members=WITH_LEARNERS)
    node.receive(append(1, THREE, (0, 0), (1, 1, 2), memberships=(JOINT,)))
    assert node.raft.membership == JOINT and node.raft.commit_index == 0


def test_a_configuration_that_is_cut_was_never_in_force() -> None:
    """Thesis 4.1: "a server must be prepared to fall back to the previous configuration in its log"."""
    node = a_node(term=1, members=WITH_LEARNERS)
    node.receive(append(1, THREE, (0, 0), (1, 1, 2), memberships=(JOINT,)))
    node.sync()
    node.receive(append(2, TWO, (1, 1), (2, 2, 2)))
    assert node.raft.membership == WITH_LEARNERS


def test_the_new_configuration_follows_once_the_joint_one_is_committed() -> None:
    """6: once C-old,new is committed it is "safe for the leader to create a log entry describing C-new"."""
    node = in_joint()
    accept(node, FOUR, FIVE)
    assert node.raft.membership.joint
    accept(node, THREE)
    assert node.raft.membership == Membership(3, (THREE, FOUR, FIVE))


def test_a_new_leader_goes_on_with_a_change_that_is_in_its_log() -> None:
    """6: whichever leader holds C-old,new completes it, without being asked."""
    members = Membership(0, (ONE, TWO, THREE), (FOUR,))
    joint = Membership(2, (ONE, THREE, FOUR), (), (ONE, TWO, THREE))
    node = a_leader(log=((1, 1, 2),), members=members, memberships=(joint,))
    accept(node, THREE, match=3)
    assert node.raft.membership == Membership(4, (ONE, THREE, FOUR)) and node.raft.leads


# --------------------------------------------------------------------------- when a change is taken (4.1)


def test_one_change_at_a_time() -> None:
    """Thesis 4.1: the next one waits until the one before is committed."""
    node = in_joint()
    another = Change(ChangeKind.REMOVE, (FIVE,))
    assert node.raft.change_refusal(another) and node.raft.propose_membership(another, node.now) == 0


def test_no_change_before_an_entry_of_the_own_term_is_committed() -> None:
    """The correction to thesis 4.1: else two majorities that do not meet may commit."""
    node = lead(fresh(WITH_LEARNERS))
    change = Change(ChangeKind.REMOVE, (THREE,))
    assert node.raft.propose_membership(change, node.now) == 0
    accept(node, TWO)
    assert node.raft.propose_membership(change, node.now) == 2


def test_a_learner_comes_and_goes_without_a_joint_configuration() -> None:
    """Thesis 4.2.1: non-voting members; deviation as told above."""
    node = an_open_leader()
    node.raft.propose_membership(Change(ChangeKind.REMOVE, (FIVE,)), node.now)
    assert node.raft.membership == Membership(2, (ONE, TWO, THREE), (FOUR,))


def test_a_change_without_meaning_is_refused_for_good() -> None:
    """Thesis 4.1: the leader appends only what makes a configuration."""
    node = an_open_leader(Membership(0, (ONE,)))
    for change in (Change(ChangeKind.REMOVE, (ONE,)), Change(ChangeKind.PROMOTE, (TWO,))):
        with pytest.raises(UsageError):
            node.raft.propose_membership(change, node.now)


def test_votes_are_asked_and_entries_taken_across_configurations() -> None:
    """Thesis 4.1: "servers process incoming RPC requests without consulting their current configurations"."""
    stranger = Identity(9, 19)
    node = a_node(term=1)
    node.receive(append(1, stranger, (0, 0), (1, 1, 1)))
    assert node.raft.last_index == 1 and node.raft.leader_id == 9
    assert vote(a_node(), VoteRequest(1, stranger, False, 0, 0)) is True


# --------------------------------------------------------------------------- catching up new servers (4.2.1)


def test_a_learner_counts_for_nothing() -> None:
    """6 and thesis 4.2.1: "not yet counted towards majorities for voting or commitment purposes"."""
    node = lead(fresh(WITH_LEARNERS))
    accept(node, FOUR, FIVE)
    assert node.raft.commit_index == 0
    accept(node, TWO)
    assert node.raft.commit_index == 1


def test_a_learner_does_not_campaign() -> None:
    """Thesis 4.2.1: it is no voter."""
    node = a_node(members=Membership(0, (TWO, THREE), (ONE,)))
    node.wait(10 * ELECTION_MAX)
    assert node.raft.role is Role.LEARNER and not sent(node.take(), VoteRequest)


def test_a_learner_that_does_not_answer_is_not_promoted() -> None:
    """Thesis 4.2.1: "The leader should also abort the change if the new server is unavailable"."""
    node = lead(fresh(WITH_LEARNERS))
    accept(node, TWO, THREE)
    change = Change(ChangeKind.PROMOTE, (FOUR,))
    assert "caught up" in node.raft.change_refusal(change)
    accept(node, FOUR)
    assert node.raft.change_refusal(change) == ""


def test_a_learner_is_promoted_when_a_round_was_short() -> None:
    """Thesis 4.2.1: rounds; "if the last round lasts less than an election timeout" it is added, else not."""
    node = an_open_leader()
    change = Change(ChangeKind.PROMOTE, (FOUR,))

    def round_of(span_ns: int) -> str:
        node.raft.propose(1, 100, node.now)
        node.sync()
        accept(node, FOUR, match=node.raft.last_index - 1)  # the round before ends, this one begins
        goal, end = node.raft.last_index, node.now + span_ns
        while node.now < end:
            answer_rounds(node, 2, 3)
            accept(node, TWO, THREE)
            node.wait(min(50 * MS, end - node.now))
            node.sync()
        node.raft.propose(1, 100, node.now)  # what came meanwhile is for the next round
        node.sync()
        accept(node, FOUR, match=goal)
        return node.raft.change_refusal(change)

    assert round_of(ELECTION_MIN + 100 * MS)
    assert not round_of(ELECTION_MIN // 2)


def test_a_new_server_takes_the_whole_log() -> None:
    """Thesis 4.2.1: it begins empty, and joins when it has everything."""
    story = told("members voters=1,2,3", "start all", "lead 1", "propose 1 40", "start 4", "change 1 add 4",
                 "wait 50ms", "change 1 promote 4", "wait 50ms")  # fmt: skip
    raft = story.world.nodes[4].raft
    assert raft.role is Role.FOLLOWER and raft.commit_index == story.world.nodes[1].raft.last_index


# --------------------------------------------------------------------------- removing the leader (6, 4.2.2)


def removed_leader() -> Alone:
    """A leader whose new configuration, without itself, is appended and not yet committed."""
    node = an_open_leader(MEMBERS)
    node.raft.propose_membership(Change(ChangeKind.REMOVE, (ONE,)), node.now)
    node.sync()
    accept(node, TWO, match=2)
    accept(node, THREE, match=2)
    assert node.raft.membership == Membership(3, (TWO, THREE))
    return node


def test_a_removed_leader_leads_until_its_removal_is_committed() -> None:
    """6: "the leader steps down (returns to follower state) once it has committed the C-new log entry"."""
    node = removed_leader()
    assert node.raft.leads
    accept(node, TWO, THREE)
    assert not node.raft.leads and node.raft.commit_index == 3


def test_a_removed_leader_does_not_count_itself() -> None:
    """6: "it replicates log entries but does not count itself in majorities"."""
    node = removed_leader()
    accept(node, TWO)
    assert node.raft.commit_index == 2 and node.raft.leads


def test_a_removed_leader_hands_over() -> None:
    """Thesis 4.2.2 with 3.10: nobody has to wait for an election timeout."""
    node = removed_leader()
    accept(node, TWO)
    assert len(sent(accept(node, THREE), TimeoutNow)) == 1


def test_who_leaves_campaigns_until_its_leaving_is_committed() -> None:
    """Thesis 4.2.2: "a server that is not part of its own latest configuration should still start new elections"."""
    leaving = Membership(3, (TWO, THREE))
    node = a_node(log=((1, 1, 3),), memberships=(Membership(2, (TWO, THREE), (), (ONE, TWO, THREE)), leaving))
    node.wait(ELECTION_MAX)
    assert sent(node.take(), VoteRequest)
    gone = a_node(log=((1, 1, 3),), memberships=(leaving,), applied_index=3, applied_term=1)
    gone.wait(10 * ELECTION_MAX)
    assert not sent(gone.take(), VoteRequest)


# --------------------------------------------------------------------------- disruptive servers (6, 4.2.3)


def test_a_removed_server_does_not_disturb() -> None:
    """6 and thesis 4.2.3: it hears nothing any more and campaigns; nobody's term rises."""
    story = told("members voters=1,2,3", "start all", "lead 1", "isolate 3", "change 1 remove 3", "wait 300ms",
                 "hold 1->3", "heal", "campaign 3", "wait 3000ms")  # fmt: skip
    assert story.world.nodes[1].raft.leads and story.world.nodes[1].raft.term == 1
    assert story.world.nodes[3].raft.term == 1


# --------------------------------------------------------------------------- identities (deviation)


def test_who_lost_its_disk_counts_for_nobody() -> None:
    """Consensus.md rule 8, beyond the paper: answers of another incarnation are nobody's."""
    node = a_leader()
    lost = Identity(TWO.id, 99)
    node.receive(VoteReply(1, lost, False, True))
    refuse(node, lost, (0, 0))
    accept(node, lost)
    assert node.raft.commit_index == 0


def test_a_new_incarnation_is_no_voter() -> None:
    """Consensus.md rule 8: the place in the configuration is that of who lost its promises."""
    raft = Raft(Identity(ONE.id, 99), RaftSettings(), fresh(MEMBERS), 0, 7)
    assert raft.role is Role.LEARNER
    for peer in (TWO, THREE):
        raft.peer_connected(peer.id, 1, 0)
    raft.tick(10 * ELECTION_MAX)
    assert raft.role is Role.LEARNER and raft.term == 0
