"""A leader hands over (Raft thesis 3.10; consensus.md rule 10)."""

from __future__ import annotations

from hiqlite.config import RaftSettings
from hiqlite.engine.model import Change, ChangeKind, Membership, ProbeReply, Role, TimeoutNow, VoteRequest
from tests.engine.engine_group import MS, SECOND, Alone, Group, accept, append, elect, fresh, identities, lead, messages

ONE, TWO, THREE, FOUR = identities(4)
MEMBERS = Membership(0, (ONE, TWO, THREE), (FOUR,))
DEADLINE_NS = RaftSettings().election_timeout_max_ms * MS


def opened() -> Alone:
    node = lead(fresh(MEMBERS))
    accept(node, TWO, THREE)
    return node


def keep_alive(node: Alone, span_ns: int) -> None:
    """Time passes while both voters answer everything."""
    for _ in range(span_ns // (10 * MS)):
        for peer in (TWO, THREE):
            if node.raft.leads:
                node.receive(ProbeReply(node.raft.term, peer, node.raft.state.reads.round))
        accept(node, TWO, THREE)
        node.wait(10 * MS)
        node.sync()


def test_the_other_is_told_to_campaign_when_it_has_the_whole_log() -> None:
    """Not before: it would lose against whoever has more, and what it lacks would be in doubt."""
    node = opened()
    node.raft.propose(3, 300, node.now)
    node.sync()
    assert node.raft.transfer_leadership(2, node.now)
    assert not messages(node.sync(), TimeoutNow)
    accept(node, THREE)
    assert not messages(node.sync(), TimeoutNow)
    taken = accept(node, TWO)
    assert [send.peer_id for ready in taken for send in ready.sends if isinstance(send.message, TimeoutNow)] == [2]
    assert node.raft.leads, "until the other's term reaches it"


def test_no_proposal_is_taken_while_leadership_is_handed_over() -> None:
    node = opened()
    last = node.raft.last_index
    assert node.raft.transfer_leadership(2, node.now) and node.raft.transfer_id == 2
    assert node.raft.propose(1, 100, node.now) == 0 and node.raft.last_index == last
    change = Change(ChangeKind.REMOVE, (FOUR,))
    assert node.raft.propose_membership(change, node.now) == 0 and node.raft.change_refusal(change)
    assert not node.raft.transfer_leadership(3, node.now), "one at a time"


def test_a_transfer_that_does_not_succeed_in_time_is_given_up() -> None:
    """The one that was told died: after the upper election timeout this leader takes proposals again."""
    node = opened()
    assert node.raft.transfer_leadership(2, node.now)
    node.sync()
    assert node.raft.next_deadline() <= node.now + DEADLINE_NS
    keep_alive(node, DEADLINE_NS - 20 * MS)
    assert node.raft.propose(1, 100, node.now) == 0
    keep_alive(node, 40 * MS)
    assert node.raft.leads and node.raft.transfer_id == 0 and node.raft.propose(1, 100, node.now) > 0


def test_a_transfer_ends_at_once_when_its_target_is_gone() -> None:
    node = opened()
    node.raft.propose(1, 100, node.now)
    assert node.raft.transfer_leadership(2, node.now)
    node.raft.peer_lost(2, True, node.now)
    node.sync()
    assert node.raft.transfer_id == 0 and node.raft.propose(1, 100, node.now) > 0


def test_the_longest_log_is_chosen_when_nobody_is_named() -> None:
    node = opened()
    node.raft.propose(1, 100, node.now)
    node.sync()
    accept(node, THREE)
    assert node.raft.transfer_leadership(0, node.now) and node.raft.transfer_id == 3


def test_only_a_connected_voter_can_take_over() -> None:
    node = opened()
    node.raft.peer_lost(3, False, node.now)
    for peer_id in (1, 3, 4, 9):
        assert not node.raft.transfer_leadership(peer_id, node.now)
    assert node.raft.propose(1, 100, node.now) > 0
    assert not Alone(fresh(MEMBERS)).raft.transfer_leadership(2, 10 * SECOND), "who does not lead hands nothing over"


def test_a_transfer_leads_to_another_leader_and_loses_nothing() -> None:
    group = Group(3)
    group.wait(2 * SECOND)
    leader = group.leader()
    target = next(node for node in group.nodes.values() if node is not leader)
    first = leader.raft.propose(5, 500, leader.now)
    assert leader.raft.transfer_leadership(target.own.id, leader.now)
    group.settle()
    assert target.raft.leads and not leader.raft.leads and target.raft.term == leader.raft.term
    group.wait(100 * MS)
    assert set(group.applied.values()) == {first + 5}, "the five, and the entry that opens the new term"


def test_who_is_told_campaigns_without_asking_and_is_answered_by_those_who_hear_the_leader() -> None:
    node = Alone(fresh(MEMBERS), 2)
    node.receive(append(1, ONE, (0, 0), (1, 1, 1)))
    node.sync()
    node.receive(TimeoutNow(1, ONE))
    asked = [one for one in messages(node.sync(), VoteRequest) if isinstance(one, VoteRequest)]
    assert {(one.term, one.pre, one.transfer) for one in asked} == {(2, False, True)}
    assert len(asked) == 2, "both other voters, the learner not"
    other = Alone(fresh(MEMBERS), 3)
    other.receive(append(1, ONE, (0, 0), (1, 1, 1)))
    other.sync()
    other.receive(asked[0])
    other.sync()
    assert (other.raft.term, other.raft.vote) == (2, TWO)


def test_a_word_to_campaign_of_another_term_or_of_nobodys_leader_is_nothing() -> None:
    node = Alone(fresh(MEMBERS), 2)
    node.receive(append(3, ONE, (0, 0)))
    node.sync()
    for stale in (TimeoutNow(2, ONE), TimeoutNow(4, ONE), TimeoutNow(3, THREE)):
        node.receive(stale)
    assert node.raft.term == 3 and not messages(node.sync(), VoteRequest)


def test_a_learner_that_is_told_to_campaign_does_not() -> None:
    node = Alone(fresh(MEMBERS), 4)
    node.receive(append(3, ONE, (0, 0)))
    node.sync()
    node.receive(TimeoutNow(3, ONE))
    assert node.raft.term == 3 and node.raft.role is Role.LEARNER


# --------------------------------------------------------------------------- disks


def test_a_full_disk_hands_leadership_over_and_takes_nothing_until_there_is_room() -> None:
    """Proposals are refused at once, by rule 11; the peers' disks may have room."""
    node = opened()
    node.raft.disk_full(True, node.now)
    assert node.raft.propose(1, 100, node.now) == 0
    assert len(messages(node.sync(), TimeoutNow)) == 1
    assert node.raft.transfer_id in (2, 3)
    keep_alive(node, DEADLINE_NS + 50 * MS)
    assert node.raft.leads and node.raft.transfer_id, "the next try"
    node.raft.disk_full(False, node.now)
    keep_alive(node, DEADLINE_NS + 50 * MS)
    assert node.raft.transfer_id == 0 and node.raft.propose(1, 100, node.now) > 0


def test_who_is_elected_with_a_full_disk_hands_leadership_over() -> None:
    """A follower whose disk is full may win, for its log is as good as any: nothing would be written under it."""
    node = Alone(fresh(MEMBERS))
    node.raft.disk_full(True, node.now)
    accept(elect(node), TWO, THREE)
    keep_alive(node, SECOND // 5)
    assert node.raft.leads and node.raft.transfer_id in (2, 3)


def test_a_leader_whose_disk_stands_still_for_a_lower_timeout_steps_down() -> None:
    node = opened()
    lower_ns = RaftSettings().election_timeout_min_ms * MS
    since = node.now
    node.raft.propose(1, 100, node.now)
    node.take()
    node.raft.disk_waits(since)
    assert node.raft.next_deadline() <= since + lower_ns
    node.now = since + lower_ns - 1
    node.raft.tick(node.now)
    assert node.raft.leads
    node.now = since + lower_ns
    node.raft.tick(node.now)
    assert not node.raft.leads
    assert [ready.lost_from for ready in node.take() if ready.lost_from] == [2]


def test_a_disk_that_went_on_is_not_judged_by_what_was() -> None:
    node = opened()
    since = node.now
    node.raft.disk_waits(since)
    node.raft.disk_waits(0)
    keep_alive(node, SECOND)
    assert node.raft.leads


def test_a_follower_is_never_deposed_by_its_own_disk() -> None:
    """It only acknowledges later, which its leader sees by itself."""
    node = Alone(fresh(MEMBERS), 2)
    node.receive(append(1, ONE, (0, 0), (1, 1, 1)))
    node.raft.disk_waits(node.now)
    node.wait(SECOND // 10)
    assert node.raft.leader_id == 1


def test_a_leader_that_left_goes_at_once_when_its_hand_over_is_given_up() -> None:
    """Not at the next round: nothing else keeps it."""
    node = opened()
    assert node.raft.propose_membership(Change(ChangeKind.REMOVE, (ONE,)), node.now)
    accept(node, TWO, THREE)
    assert node.raft.transfer_leadership(2, node.now)
    accept(node, TWO, THREE)
    assert node.raft.leads and node.raft.membership.index <= node.raft.commit_index
    node.raft.peer_lost(2, False, node.now)
    told = [send.peer_id for ready in node.sync() for send in ready.sends if isinstance(send.message, TimeoutNow)]
    assert told == [3] and not node.raft.leads
