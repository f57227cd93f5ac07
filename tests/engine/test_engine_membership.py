"""Changes of members as one engine sees them (Raft thesis 4; consensus.md rules 6 and 7)."""

from __future__ import annotations

import pytest

from hiqlite.engine.model import (
    AppendKind,
    AppendRequest,
    Change,
    ChangeKind,
    Identity,
    Membership,
    Role,
    TimeoutNow,
    VoteReply,
    VoteRequest,
)
from hiqlite.errors import UsageError
from tests.engine.engine_group import MS, SECOND, Alone, Group, accept, append, fresh, identities, lead, messages

ONE, TWO, THREE, FOUR = identities(4)
MEMBERS = Membership(0, (ONE, TWO, THREE))
WITH_LEARNER = Membership(0, (ONE, TWO, THREE), (FOUR,))


def opened(members: Membership = MEMBERS) -> Alone:
    """Node 1 leads, and the entry that opens its term is committed; every learner caught up."""
    node = lead(fresh(members))
    accept(node, *[one for one in (TWO, THREE) if one in members.voters], *members.learners)
    assert node.raft.opened
    return node


def change(node: Alone, kind: ChangeKind, *members: Identity) -> int:
    return node.raft.propose_membership(Change(kind, members), node.now)


def in_force(node: Alone) -> Membership:
    return node.raft.membership


# --------------------------------------------------------------------------- joint configurations


def test_a_voter_comes_through_a_joint_configuration_that_ends_by_itself() -> None:
    """Both configurations are entries; the second is appended as soon as the first is committed by both majorities."""
    node = opened(WITH_LEARNER)
    index = change(node, ChangeKind.PROMOTE, FOUR)
    taken = node.sync()
    assert in_force(node) == Membership(index, (ONE, TWO, THREE, FOUR), (), (ONE, TWO, THREE))
    kinds = [made.kind for ready in taken for made in ready.appends]
    assert kinds == [AppendKind.MEMBERSHIP]
    accept(node, TWO)
    assert in_force(node).joint, "two of four are no majority of the new set"
    accept(node, FOUR)
    assert in_force(node) == Membership(index + 1, (ONE, TWO, THREE, FOUR))
    assert node.raft.commit_index == index
    accept(node, TWO, FOUR)
    assert node.raft.commit_index == index + 1


def test_the_outgoing_majority_is_needed_as_well() -> None:
    """A change to a set that agrees by itself does not commit while the old set is silent."""
    node = opened()
    index = change(node, ChangeKind.SET_VOTERS, ONE)
    node.sync()
    assert in_force(node).joint and node.raft.commit_index < index
    accept(node, THREE)
    assert in_force(node) == Membership(index + 1, (ONE,))


def test_the_entries_travel_with_what_they_say() -> None:
    node = opened(WITH_LEARNER)
    index = change(node, ChangeKind.PROMOTE, FOUR)
    sent = [one for one in messages(node.sync(), AppendRequest) if isinstance(one, AppendRequest)]
    assert [[one.index for one in request.memberships] for request in sent] == [[index]] * 3


def test_a_leader_elected_in_a_joint_configuration_leaves_it() -> None:
    """Whoever began it may be gone: the successor goes on as soon as it has committed in its own term."""
    joint = Membership(1, (ONE, TWO), (), (ONE, TWO, THREE))
    node = Alone(fresh(MEMBERS))
    node.receive(append(1, THREE, (0, 0), (1, 1, 1), memberships=(joint,)))
    node.sync()
    assert in_force(node) == joint
    node.wait(2 * SECOND)
    node.receive(VoteReply(2, TWO, True, True))
    node.sync()
    node.receive(VoteReply(2, TWO, False, True))
    node.sync()
    assert node.raft.leads and in_force(node) == joint
    accept(node, TWO)
    assert in_force(node) == Membership(3, (ONE, TWO))


# --------------------------------------------------------------------------- one at a time


def test_a_change_waits_for_an_entry_of_the_own_term() -> None:
    node = lead(fresh(WITH_LEARNER))
    assert change(node, ChangeKind.REMOVE, FOUR) == 0
    assert "no committed entry" in node.raft.change_refusal(Change(ChangeKind.REMOVE, (FOUR,)))
    accept(node, TWO)
    assert change(node, ChangeKind.REMOVE, FOUR) > 0


def test_a_change_waits_for_the_one_before_it() -> None:
    node = opened(WITH_LEARNER)
    assert change(node, ChangeKind.REMOVE, FOUR)
    node.sync()
    assert change(node, ChangeKind.REMOVE, TWO) == 0, "not committed"
    accept(node, TWO)
    index = change(node, ChangeKind.REMOVE, THREE)
    accept(node, TWO)
    assert index and in_force(node).index == index + 1
    assert change(node, ChangeKind.DEMOTE, TWO) == 0, "the entry that leaves the joint set is not committed"
    accept(node, TWO)
    assert change(node, ChangeKind.DEMOTE, TWO)


def test_only_a_leader_changes_members() -> None:
    node = Alone(fresh(WITH_LEARNER))
    assert change(node, ChangeKind.PROMOTE, FOUR) == 0
    assert node.raft.change_refusal(Change(ChangeKind.PROMOTE, (FOUR,)))


@pytest.mark.parametrize(
    ("kind", "members"),
    [
        (ChangeKind.ADD_LEARNER, (TWO,)), (ChangeKind.ADD_LEARNER, (FOUR,)), (ChangeKind.PROMOTE, (TWO,)),
        (ChangeKind.DEMOTE, (FOUR,)), (ChangeKind.REMOVE, (Identity(9, 1),)), (ChangeKind.REMOVE, (Identity(2, 99),)),
        (ChangeKind.REPLACE, (TWO,)), (ChangeKind.REPLACE, (FOUR, TWO)), (ChangeKind.SET_VOTERS, (ONE, Identity(9, 1))),
        (ChangeKind.SET_VOTERS, (ONE, TWO, THREE)), (ChangeKind.SET_VOTERS, ()), (ChangeKind.REMOVE, (TWO, THREE)),
        (ChangeKind.SET_VOTERS, (ONE, ONE)),
    ],
)  # fmt: skip
def test_a_change_that_makes_no_sense_is_an_error_and_changes_nothing(
    kind: ChangeKind, members: tuple[Identity, ...]
) -> None:
    node = opened(WITH_LEARNER)
    last = node.raft.last_index
    with pytest.raises(UsageError):
        change(node, kind, *members)
    assert (node.raft.last_index, in_force(node)) == (last, WITH_LEARNER)


def test_the_last_voter_cannot_leave() -> None:
    node = lead(fresh(Membership(0, (ONE,), (FOUR,))))
    with pytest.raises(UsageError, match="last voter"):
        change(node, ChangeKind.REMOVE, ONE)


# --------------------------------------------------------------------------- learners


def test_learners_alone_change_without_a_joint_configuration() -> None:
    """The quorums stay the same, so one entry does it; the learner is fed from then on and counts nowhere."""
    node = opened()
    index = change(node, ChangeKind.ADD_LEARNER, FOUR)
    assert in_force(node) == Membership(index, (ONE, TWO, THREE), (FOUR,))
    node.sync()
    node.raft.peer_connected(4, 1, node.now)
    assert 4 in [send.peer_id for ready in node.sync() for send in ready.sends]
    accept(node, FOUR)
    assert node.raft.commit_index < index
    accept(node, TWO)
    assert node.raft.commit_index == index


def test_a_learner_is_promoted_after_a_short_round() -> None:
    """A round reaches what the log held when it began (thesis 4.2.1); one that took too long does not count."""
    node = lead(fresh(WITH_LEARNER))
    accept(node, TWO, THREE)
    assert change(node, ChangeKind.PROMOTE, FOUR) == 0, "never heard of"
    node.raft.propose(5, 500, node.now)
    node.sync()
    accept(node, FOUR, match=1)
    assert change(node, ChangeKind.PROMOTE, FOUR) == 0, "its first round is under way"
    accept(node, FOUR)
    assert change(node, ChangeKind.PROMOTE, FOUR) > 0


def test_a_learner_whose_round_takes_longer_than_an_election_is_not_promoted() -> None:
    node = lead(fresh(WITH_LEARNER))
    accept(node, TWO, THREE)
    node.raft.propose(5, 500, node.now)
    node.sync()
    accept(node, FOUR, match=1)
    node.now += 5 * SECOND
    goal = node.raft.last_index
    node.raft.propose(5, 500, node.now)
    node.sync()
    accept(node, FOUR, match=goal)
    assert node.raft.leads and change(node, ChangeKind.PROMOTE, FOUR) == 0
    assert "caught up" in node.raft.change_refusal(Change(ChangeKind.PROMOTE, (FOUR,)))


def test_a_learner_that_has_everything_is_promoted_though_it_took_long() -> None:
    """Nobody writes: there is nothing for another round to reach, and no other answer that could end one."""
    node = lead(fresh(WITH_LEARNER))
    accept(node, TWO, THREE)
    node.raft.propose(5, 500, node.now)
    node.sync()
    accept(node, FOUR, match=1)
    node.now += 5 * SECOND
    accept(node, FOUR)
    assert node.raft.leads and change(node, ChangeKind.PROMOTE, FOUR) > 0


def test_a_lost_link_ends_what_was_known_of_catching_up() -> None:
    node = opened(WITH_LEARNER)
    node.raft.peer_lost(4, False, node.now)
    assert change(node, ChangeKind.PROMOTE, FOUR) == 0
    node.raft.peer_connected(4, 2, node.now)
    assert change(node, ChangeKind.PROMOTE, FOUR) == 0


def test_a_demoted_voter_stays_as_a_learner() -> None:
    node = opened()
    index = change(node, ChangeKind.DEMOTE, THREE)
    assert in_force(node) == Membership(index, (ONE, TWO), (THREE,), (ONE, TWO, THREE))
    accept(node, TWO, THREE)
    accept(node, TWO)
    assert in_force(node) == Membership(index + 1, (ONE, TWO), (THREE,))


def test_a_replacement_is_one_change() -> None:
    """The number of voters is the same before, between and after: no majority is ever smaller than it was."""
    node = opened(WITH_LEARNER)
    index = change(node, ChangeKind.REPLACE, TWO, FOUR)
    assert in_force(node) == Membership(index, (ONE, FOUR, THREE), (), (ONE, TWO, THREE))
    accept(node, THREE)
    assert in_force(node) == Membership(index + 1, (ONE, FOUR, THREE))


def test_a_node_that_lost_its_log_comes_back_under_its_id_as_somebody_else() -> None:
    """The new incarnation learns beside the old one, which goes when the new one is promoted (rule 8)."""
    again = Identity(2, 99)
    node = opened()
    change(node, ChangeKind.ADD_LEARNER, again)
    accept(node, THREE)
    node.raft.peer_connected(2, 2, node.now)
    node.sync()
    accept(node, again)
    index = change(node, ChangeKind.PROMOTE, again)
    assert in_force(node) == Membership(index, (ONE, THREE, again), (), (ONE, TWO, THREE))


# --------------------------------------------------------------------------- who leaves


def test_a_leader_that_removes_itself_leads_until_that_is_committed() -> None:
    """It counts nothing of its own meanwhile, then hands over to the voter with the longest log (thesis 4.2.2)."""
    node = opened()
    index = change(node, ChangeKind.REMOVE, ONE)
    accept(node, TWO, THREE)
    assert in_force(node) == Membership(index + 1, (TWO, THREE)) and node.raft.leads
    accept(node, TWO)
    assert node.raft.leads, "one of two"
    taken = accept(node, THREE)
    assert node.raft.commit_index == index + 1 and not node.raft.leads
    assert len(messages(taken, TimeoutNow)) == 1
    node.wait(10 * SECOND)
    assert not node.raft.leads and node.raft.role is Role.LEARNER
    assert not messages(node.sync(), VoteRequest)


def test_who_was_removed_is_told_so() -> None:
    """It still gets the entry by which it left, and rests as soon as it holds it committed."""
    group = Group(3)
    group.wait(2 * SECOND)
    leader = group.leader()
    gone = next(node for node in group.nodes.values() if node is not leader)
    assert leader.raft.propose_membership(Change(ChangeKind.REMOVE, (gone.own,)), leader.now)
    group.wait(SECOND)
    assert gone.own not in gone.raft.membership.voters and not gone.raft.membership.joint
    term = leader.raft.term
    gone_id = gone.own.id
    group.cut = {gone_id}
    group.wait(5 * SECOND)
    group.cut = set()
    group.wait(SECOND)
    assert leader.raft.leads and leader.raft.term == term and gone.raft.term == term


# --------------------------------------------------------------------------- followers


def test_a_configuration_is_in_force_when_appended_and_goes_with_its_entry() -> None:
    """A follower acts by the newest one of its log, and by the one before when that entry is cut (rule 6)."""
    joint = Membership(2, (ONE, TWO, THREE, FOUR), (), (ONE, TWO, THREE))
    node = Alone(fresh(MEMBERS))
    node.receive(append(1, TWO, (0, 0), (1, 1, 3), memberships=(joint,)))
    assert [ready.membership for ready in node.sync() if ready.membership][-1] == joint
    node.receive(append(2, THREE, (1, 1), (2, 2, 2)))
    assert [ready.membership for ready in node.sync() if ready.membership] == [MEMBERS]
    assert in_force(node) == MEMBERS


def test_the_newest_configuration_of_the_log_is_in_force_after_a_restart() -> None:
    """Below a purged beginning it is the stored one; one that lies beyond the log is nobody's."""
    later = Membership(2, (ONE, TWO))
    beyond = Membership(9, (ONE,))
    runs = append(1, TWO, (0, 0), (1, 1, 3)).runs
    node = Alone(fresh(MEMBERS, term=1, runs=runs, memberships=(later, beyond)))
    assert in_force(node) == later


def test_a_learner_that_was_promoted_without_knowing_gives_its_vote() -> None:
    """The candidate's configuration counts it and may be newer: without this vote no majority may be found."""
    node = Alone(fresh(WITH_LEARNER), 4)
    node.receive(VoteRequest(1, TWO, True, 5, 0))
    node.receive(VoteRequest(1, TWO, False, 5, 0))
    given = [reply for reply in messages(node.sync(), VoteReply) if isinstance(reply, VoteReply)]
    assert [(reply.pre, reply.granted) for reply in given] == [(True, True), (False, True)]
    node.receive(VoteRequest(1, THREE, False, 5, 0))
    assert [reply.granted for reply in messages(node.sync(), VoteReply) if isinstance(reply, VoteReply)] == [False]


def test_a_learner_that_hears_its_leader_gives_no_vote() -> None:
    node = Alone(fresh(WITH_LEARNER), 4)
    node.receive(append(1, ONE, (0, 0)))
    node.sync()
    node.now += 20 * MS
    node.receive(VoteRequest(2, TWO, False, 5, 1))
    assert node.raft.term == 1 and not messages(node.sync(), VoteReply)
