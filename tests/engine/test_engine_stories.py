"""What an engine does, told by its messages (Raft thesis 3 to 6 and 9.6; consensus.md section 2)."""

from __future__ import annotations

import pytest

from hiqlite.config import RaftSettings
from hiqlite.engine.model import (
    NOTHING,
    AppendReply,
    AppendRequest,
    Identity,
    Membership,
    Message,
    ProbeReply,
    ProbeRequest,
    Ready,
    RepairRequest,
    Restored,
    Role,
    TermRun,
    VoteReply,
    VoteRequest,
)
from hiqlite.engine.raft import Raft
from hiqlite.errors import ProtocolError, StorageError
from tests.engine.engine_group import MS, SECOND, Alone, Group, append, fresh, identities, log_of, messages

ONE, TWO, THREE = identities(3)
MEMBERS = Membership(0, (ONE, TWO, THREE))


def elected(restored: Restored | None = None) -> Alone:
    """Node 1, leader by the vote of node 2, its first entry durable nowhere but here."""
    node = Alone(restored or fresh(MEMBERS))
    node.wait(400 * MS)
    node.sync()
    node.receive(VoteReply(node.raft.term + 1, TWO, True, True))
    node.sync()
    node.receive(VoteReply(node.raft.term, TWO, False, True))
    assert node.raft.leads
    return node


# --------------------------------------------------------------------------- elections


def test_a_single_voter_leads_without_waiting() -> None:
    """As soon as its own vote is durable; it commits by its own flush and confirms its own reads."""
    node = Alone(fresh(Membership(0, (ONE,))))
    node.sync()
    assert node.raft.leads and node.raft.commit_index == 1
    token = node.raft.read(node.now)
    assert [(read.token, read.read_index) for ready in node.sync() for read in ready.reads] == [(token, 1)]
    first = node.raft.propose(3, 300, node.now)
    assert [ready.apply for ready in node.sync() if ready.apply] == [(first, first + 2)]


def test_three_nodes_elect_one_leader_and_apply_the_same() -> None:
    group = Group(3)
    group.wait(2 * SECOND)
    leader = group.leader()
    first = leader.raft.propose(5, 500, leader.now)
    group.wait(50 * MS)
    assert set(group.applied.values()) == {first + 4}
    assert {node.raft.leader_id for node in group.nodes.values()} == {leader.own.id}


def test_a_pre_vote_changes_nothing_durable() -> None:
    """It asks in the next term and stays in its own; answers to it do not raise anybody's term."""
    node = Alone(fresh(MEMBERS))
    node.wait(400 * MS)
    taken = node.take()
    assert {(vote.term, vote.pre) for vote in messages(taken, VoteRequest)} == {(1, True)}
    assert node.raft.term == 0 and all(ready.hard_state is None for ready in taken)
    node.receive(VoteRequest(9, TWO, True, 0, 0))
    assert node.raft.term == 0
    assert messages(node.take(), VoteReply) == [VoteReply(9, ONE, True, True)]


def test_a_campaign_leaves_when_the_own_vote_is_durable() -> None:
    """Term and vote first, then the requests (rule 1)."""
    node = Alone(fresh(MEMBERS))
    node.wait(400 * MS)
    node.take()
    node.receive(VoteReply(1, TWO, True, True))
    taken = node.take()
    assert taken[0].hard_state is not None and taken[0].hard_state.vote == ONE
    assert messages(taken, VoteRequest) == []
    assert len(messages(node.sync(), VoteRequest)) == 2


def test_a_vote_is_given_once_per_term_also_after_a_restart() -> None:
    node = Alone(fresh(MEMBERS))
    node.receive(VoteRequest(4, TWO, False, 0, 0))
    assert messages(node.take(), VoteReply) == []
    assert messages(node.sync(), VoteReply) == [VoteReply(4, ONE, False, True)]
    again = Alone(fresh(MEMBERS, term=4, vote=TWO))
    again.receive(VoteRequest(4, THREE, False, 9, 3))
    again.receive(VoteRequest(4, TWO, False, 0, 0))
    assert [reply.granted for reply in messages(again.sync(), VoteReply)] == [False, True]


@pytest.mark.parametrize(("last", "granted"), [((3, 9), False), ((4, 7), False), ((4, 8), True), ((5, 1), True)])
def test_a_vote_needs_a_log_at_least_as_up_to_date(last: tuple[int, int], granted: bool) -> None:
    """The last term decides, then the last index."""
    node = Alone(fresh(MEMBERS, term=5, runs=log_of((4, 1, 8))))
    node.receive(VoteRequest(6, TWO, False, last[1], last[0]))
    assert [reply.granted for reply in messages(node.sync(), VoteReply)] == [granted]
    assert node.raft.term == 6


def test_who_hears_its_leader_gives_no_vote() -> None:
    """Stickiness: neither a pre-vote nor a vote, and no new term, until the lower timeout has passed in silence."""
    node = Alone(fresh(MEMBERS))
    node.receive(append(3, THREE, (0, 0), (3, 1, 1)))
    node.sync()
    node.receive(VoteRequest(4, TWO, False, 9, 3))
    node.receive(VoteRequest(4, TWO, True, 9, 3))
    assert [reply.granted for reply in messages(node.sync(), VoteReply)] == [False] and node.raft.term == 3
    node.now += 500 * MS
    node.receive(VoteRequest(4, TWO, False, 9, 3))
    assert [reply.granted for reply in messages(node.sync(), VoteReply)] == [True] and node.raft.term == 4


def test_votes_of_strangers_learners_and_earlier_terms_do_not_count() -> None:
    members = Membership(0, (ONE, TWO, THREE), (Identity(4, 14),))
    node = Alone(fresh(members))
    node.wait(400 * MS)
    node.receive(VoteReply(1, TWO, True, True))
    node.sync()
    assert node.raft.role is Role.CANDIDATE
    for reply in (
        VoteReply(1, Identity(2, 99), False, True),
        VoteReply(1, Identity(4, 14), False, True),
        VoteReply(1, Identity(9, 19), False, True),
        VoteReply(1, TWO, True, True),
    ):
        node.receive(reply)
        assert not node.raft.leads
    node.receive(VoteReply(1, THREE, False, True))
    assert node.raft.leads


def test_a_learner_never_campaigns_and_votes_when_it_is_asked() -> None:
    """The candidate may know of its promotion before it does itself; whether the vote counts, the candidate says."""
    members = Membership(0, (TWO, THREE), (ONE,))
    node = Alone(fresh(members))
    node.wait(5 * SECOND)
    assert messages(node.take(), VoteRequest) == []
    node.receive(VoteRequest(4, TWO, False, 9, 3))
    assert [reply.granted for reply in messages(node.sync(), VoteReply)] == [True]
    assert node.raft.role is Role.LEARNER


def test_a_leader_whose_process_died_is_replaced_before_its_timeout() -> None:
    """Links reset and redials refused for the grace time: the pre-vote begins, stickiness ends (rule 9)."""
    node = Alone(fresh(MEMBERS))
    node.receive(append(3, THREE, (0, 0), (3, 1, 1)))
    node.sync()
    node.raft.peer_lost(3, False, node.now)
    node.wait(40 * MS)
    node.raft.peer_lost(3, True, node.now)
    node.wait(49 * MS)
    assert node.raft.leader_id == 3
    node.wait(60 * MS)
    assert node.raft.leader_id == 0 and messages(node.take(), VoteRequest)[0].pre


def test_a_beat_after_the_refusal_keeps_the_leader() -> None:
    node = Alone(fresh(MEMBERS))
    node.receive(append(3, THREE, (0, 0), (3, 1, 1)))
    node.sync()
    node.raft.peer_lost(3, True, node.now)
    node.now += 10 * MS
    node.raft.heard_beat(3, 3, THREE.incarnation, 0, node.now, node.now)
    node.wait(300 * MS)
    assert node.raft.leader_id == 3


def test_beats_count_in_their_own_term_only_and_commit_only_what_was_verified() -> None:
    """A stamp of another term, sender or incarnation is nothing; the bound is capped (rule 17)."""
    node = Alone(fresh(MEMBERS, term=3, runs=log_of((2, 1, 9))))
    node.receive(append(4, THREE, (5, 2), (4, 6, 7)))
    node.sync()
    for term, sender, incarnation in ((3, 3, 13), (5, 3, 13), (4, 2, 12), (4, 3, 99)):
        node.raft.heard_beat(term, sender, incarnation, 7, node.now, node.now)
        assert node.raft.commit_index == 0
    node.raft.heard_beat(4, 3, 13, 99, node.now, node.now)
    assert node.raft.commit_index == 7


def test_a_leader_without_answers_steps_down_in_time() -> None:
    """Within one upper timeout, keeping its term; reads fail, proposals are named as lost."""
    node = elected()
    node.sync()
    node.raft.propose(1, 100, node.now)
    token = node.raft.read(node.now)
    node.sync()
    began = node.now
    while node.raft.leads:
        node.now = node.raft.next_deadline()
        node.raft.tick(node.now)
    assert node.now - began <= SECOND and node.raft.term == 1
    (ready,) = [ready for ready in node.take() if ready.lost_from]
    assert ready.lost_from == 1 and ready.failed_reads == [token] and ready.role_changed
    assert node.raft.beat_word() == (1, False)


def test_a_leader_that_slept_asks_before_it_judges() -> None:
    """After a stall of its own loop check-quorum begins anew and every peer is asked at once (rule 17)."""
    node = elected()
    node.sync()
    node.now += 5 * SECOND
    node.raft.loop_stalled(node.now)
    node.raft.tick(node.now)
    assert node.raft.leads and len(messages(node.sync(), ProbeRequest)) >= 2


def test_a_leader_told_to_step_down_lets_others_try_first() -> None:
    node = elected()
    node.sync()
    node.raft.step_down(node.now, "disk stall")
    assert node.raft.role is Role.FOLLOWER and node.raft.propose(1, 10, node.now) == 0
    assert node.raft.next_deadline() >= node.now + 1500 * MS


# --------------------------------------------------------------------------- replication


def test_the_leader_sends_before_its_own_flush_and_counts_itself_after() -> None:
    """Two acknowledgements of three are a majority; the leader's own copy is one only when durable (rule 3)."""
    node = elected()
    taken = node.take()
    assert len(messages(taken, AppendRequest)) == 2, "sent before any flush of the entry"
    node.receive(AppendReply(1, TWO, True, 1, 0, 0, 1, 1))
    assert node.raft.commit_index == 0
    node.raft.log_progress(node.done, node.done, node.now)
    assert node.raft.commit_index == 1


def test_what_is_applied_is_written_here() -> None:
    """Committed by others, but the own log is not there yet (semantics.md section 3)."""
    node = elected()
    node.take()
    for peer in (TWO, THREE):
        node.receive(AppendReply(1, peer, True, 1, 0, 0, 1, 1))
    assert node.raft.commit_index == 1 and all(ready.apply is None for ready in node.take())
    node.raft.log_progress(node.done, node.done - 1, node.now)
    assert [ready.apply for ready in node.take()] == [(1, 1)]


def test_an_entry_of_an_older_term_is_committed_by_one_of_the_own() -> None:
    """Thesis figure 3.7: copies on a majority are not enough (rule 2)."""
    node = elected(fresh(MEMBERS, term=2, runs=log_of((2, 1, 5))))
    node.sync()
    node.receive(AppendReply(3, TWO, True, 5, 0, 0, 1, 1))
    assert node.raft.commit_index == 0
    node.receive(AppendReply(3, TWO, True, 6, 0, 0, 1, 2))
    assert node.raft.commit_index == 6


def test_answers_of_other_sessions_incarnations_and_terms_are_dropped() -> None:
    node = elected()
    node.sync()
    for reply in (
        AppendReply(1, TWO, True, 1, 0, 0, 7, 1),
        AppendReply(1, Identity(2, 99), True, 1, 0, 0, 1, 1),
        AppendReply(0, TWO, True, 1, 0, 0, 1, 1),
    ):
        node.receive(reply)
        assert node.raft.commit_index == 0 and node.raft.progress(2).match_index == 0


def test_a_follower_acknowledges_what_is_verified_and_durable() -> None:
    """Not its longer tail, and not before the flush."""
    node = Alone(fresh(MEMBERS, term=2, runs=log_of((2, 1, 9))))
    node.receive(append(2, THREE, (3, 2), (2, 4, 5), sequence=8, commit=9))
    assert [reply.match_index for reply in messages(node.sync(), AppendReply)] == [5]
    assert node.raft.commit_index == 5 and node.raft.last_index == 9
    node.receive(append(2, THREE, (9, 2), (2, 10, 11), sequence=9))
    assert messages(node.take(), AppendReply) == []
    assert [reply.match_index for reply in messages(node.sync(), AppendReply)] == [11]


def test_only_a_real_conflict_cuts_the_log() -> None:
    node = Alone(fresh(MEMBERS, term=3, runs=log_of((1, 1, 4), (3, 5, 9))))
    node.receive(append(4, THREE, (2, 1), (1, 3, 4), (4, 5, 6)))
    (first, *_) = [ready for ready in node.take() if ready.truncate]
    assert first.truncate.last_kept == 4 and [(a.first, a.last) for a in first.appends] == [(5, 6)]
    node.sync()
    node.receive(append(4, THREE, (2, 1), (1, 3, 3)))
    assert all(ready.truncate is None for ready in node.sync()) and node.raft.last_index == 6


def test_a_refusal_finds_the_common_entry_by_one_probe_per_term() -> None:
    """Forty terms on one side, two on the other: the leader probes as often as there are distinct terms."""
    group = Group(3)
    group.wait(2 * SECOND)
    leader = group.leader()
    other = next(node for node in group.nodes.values() if not node.raft.leads)
    group.cut = {other.own.id}
    leader.raft.propose(30, 3000, leader.now)
    group.wait(100 * MS)
    group.cut = set()
    leader.raft.peer_connected(other.own.id, 9, leader.now)
    group.wait(300 * MS)
    assert other.raft.last_index == leader.raft.last_index == other.raft.commit_index


def test_a_conflict_with_a_committed_entry_stops_the_node() -> None:
    """That promise was broken outside; nothing is done any more."""
    node = Alone(fresh(MEMBERS, term=2, runs=log_of((2, 1, 5)), applied_index=5, applied_term=2))
    node.receive(append(4, THREE, (3, 2), (4, 4, 6)))
    (ready,) = node.take()
    assert "committed" in ready.fatal and not ready.sends and not ready.appends
    node.receive(append(5, THREE, (5, 2)))
    assert not node.raft.has_ready() and node.raft.beat_word()[1] is False


def test_a_turn_without_anything_to_do_gives_nothing() -> None:
    """One object, whatever came before; what there is to do is never lost in it."""
    node = elected()
    node.take()
    for _ in range(3):
        node.raft.log_progress(node.done, node.done, node.now)
        assert node.raft.has_ready() and node.raft.ready() is NOTHING
    assert Ready() == NOTHING
    index = node.raft.propose(1, 100, node.now)
    ready = node.raft.ready()
    assert ready is not NOTHING and ready.appends[0].last == index


def test_the_window_limits_frames_and_bytes() -> None:
    settings = RaftSettings(frame_bytes_max=1024, window_bytes=3072, memory_window_bytes=6144)
    node = Alone(fresh(MEMBERS), settings=settings)
    node.wait(400 * MS)
    node.receive(VoteReply(1, TWO, True, True))
    node.sync()
    node.receive(VoteReply(1, TWO, False, True))
    node.sync()
    node.receive(AppendReply(1, TWO, True, 1, 0, 0, 1, 1))
    node.sync()
    accepted = sum(node.raft.propose(2, 900, node.now) > 0 for _ in range(20))
    assert accepted == 6, "memory_window_bytes of uncommitted proposals"
    frames = [frame for frame in messages(node.sync(), AppendRequest) if frame.last_index > frame.previous_index]
    assert [(frame.previous_index, frame.last_index) for frame in frames] == [(1, 3), (3, 5), (5, 7), (7, 9)]
    node.receive(AppendReply(1, TWO, True, 5, 0, 0, 1, 3))
    frames = messages(node.sync(), AppendRequest)
    assert [(frame.previous_index, frame.last_index) for frame in frames] == [(9, 11), (11, 13)]


def test_what_is_not_in_memory_is_fetched_once() -> None:
    """One Fetch at a time; the answer of an earlier leadership is never sent."""
    node = elected(fresh(MEMBERS, term=2, runs=log_of((2, 1, 5))))
    node.sync()
    node.receive(AppendReply(3, TWO, False, 0, 2, 2, 1, 1))
    node.sync()
    node.receive(AppendReply(3, TWO, True, 2, 0, 0, 1, 2))
    (fetch,) = [fetch for ready in node.sync() for fetch in ready.fetches]
    assert (fetch.peer_id, fetch.first) == (2, 3)
    node.raft.entries_fetched(2, 3, 4, 200, node.now)
    taken = node.sync()
    assert [(frame.previous_index, frame.last_index) for frame in messages(taken, AppendRequest)] == [(2, 4)]
    assert [fetch.first for ready in taken for fetch in ready.fetches] == [5]
    node.raft.step_down(node.now, "test")
    node.raft.entries_fetched(2, 5, 5, 100, node.now)
    assert messages(node.sync(), AppendRequest) == []


def test_the_commit_index_follows_after_a_delay() -> None:
    """It rides on the next frame, or on an empty one."""
    node = elected()
    node.sync()
    node.receive(AppendReply(1, TWO, True, 1, 0, 0, 1, 1))
    assert messages(node.sync(), AppendRequest) == []
    node.wait(3 * MS)
    (frame,) = messages(node.sync(), AppendRequest)
    assert (frame.previous_index, frame.last_index, frame.commit_index) == (1, 1, 1)


# --------------------------------------------------------------------------- reads


def test_a_read_waits_for_an_entry_of_the_own_term_and_for_a_quorum() -> None:
    node = elected()
    token = node.raft.read(node.now)
    node.wait(1 * MS)
    node.sync()
    node.receive(ProbeReply(1, TWO, 1))
    assert all(not ready.reads for ready in node.sync())
    node.receive(AppendReply(1, TWO, True, 1, 0, 0, 1, 1))
    rounds = messages(node.sync(), ProbeRequest)
    assert rounds and rounds[-1].token > 1
    node.receive(ProbeReply(1, Identity(2, 99), rounds[-1].token))
    node.receive(ProbeReply(1, TWO, rounds[-1].token - 1))
    assert all(not ready.reads for ready in node.sync())
    node.receive(ProbeReply(1, TWO, rounds[-1].token))
    assert [(read.token, read.read_index) for ready in node.sync() for read in ready.reads] == [(token, 1)]


def test_reads_need_a_leader() -> None:
    assert Alone(fresh(MEMBERS)).raft.read(0) == 0


# --------------------------------------------------------------------------- starts


def test_a_database_ahead_of_its_log_promises_nothing_until_confirmed() -> None:
    """semantics.md section 3: the leader's log has to hold that very entry."""
    beyond = fresh(MEMBERS, term=3, runs=log_of((2, 1, 6)), applied_index=9, applied_term=3)
    node = Alone(beyond)
    node.receive(append(3, THREE, (5, 2), (3, 6, 7)))
    (reply,) = messages(node.sync(), AppendReply)
    assert (reply.accepted, reply.hint_index, reply.hint_term) == (False, 9, 3)
    node.receive(append(3, THREE, (8, 3), (3, 9, 11), sequence=2))
    (reply,) = messages(node.sync(), AppendReply)
    assert reply.accepted and reply.match_index == 11
    other = Alone(beyond)
    other.receive(append(4, THREE, (8, 3), (4, 9, 11)))
    assert "database" in other.take()[0].fatal
    again = Alone(fresh(MEMBERS, term=3, base_index=9, base_term=3, applied_index=9, applied_term=3))
    again.receive(append(3, THREE, (5, 2), (2, 6, 7)))
    assert not messages(again.sync(), AppendReply)[0].accepted, "an empty log behind a database was never confirmed"


def test_a_database_behind_the_log_of_which_the_beginning_is_gone_is_refused() -> None:
    with pytest.raises(StorageError, match="begins after"):
        Alone(fresh(MEMBERS, base_index=9, base_term=1, applied_index=4, applied_term=1))


def test_a_node_with_damaged_entries_does_not_campaign_and_votes_by_what_it_promised() -> None:
    node = Alone(fresh(MEMBERS, term=3, runs=log_of((3, 1, 9)), faulty=((7, 8),)))
    node.wait(10 * SECOND)
    assert node.raft.role is Role.FOLLOWER and messages(node.take(), VoteRequest) == []
    node.receive(VoteRequest(9, TWO, False, 8, 3))
    node.receive(VoteRequest(9, THREE, False, 9, 3))
    assert [reply.granted for reply in messages(node.sync(), VoteReply)] == [False, True]
    node.receive(append(9, THREE, (9, 3), (9, 10, 10), commit=10))
    assert [ready.apply for ready in node.sync() if ready.apply] == [(1, 6)], "never past the damage"


@pytest.mark.parametrize(
    "message",
    [
        AppendRequest(2, THREE, 4, 9, 0, 4, (), 1, 1),
        AppendRequest(2, THREE, 0, 0, 0, 3, (TermRun(2, 1, 2),), 1, 1),
        AppendRequest(2, THREE, 0, 0, 0, 3, (TermRun(2, 2, 3),), 1, 1),
        AppendRequest(2, THREE, 0, 0, 0, 2, (TermRun(2, 1, 1), TermRun(1, 2, 2)), 1, 1),
        AppendRequest(2, THREE, 0, 0, 0, 1, (TermRun(3, 1, 1),), 1, 1),
        AppendRequest(2, THREE, -1, 0, 0, -1, (), 1, 1),
        AppendRequest(2**62, THREE, 0, 0, 0, 0, (), 1, 1),
        AppendRequest(2, THREE, 2**63, 0, 0, 2**63, (), 1, 1),
        AppendRequest(2, ONE, 0, 0, 0, 0, (), 1, 1),
        VoteRequest(-1, TWO, False, 0, 0),
        AppendReply(0, TWO, True, 2**63, 0, 0, 1, 1),
        AppendReply(0, TWO, False, 0, 2**63, 0, 1, 1),
        AppendReply(0, TWO, True, 0, 0, 0, 1, 2**64 - 1),
        ProbeReply(0, TWO, 2**63),
        RepairRequest(0, TWO, 1, 2**63, 0),
        RepairRequest(0, TWO, 0, 0, 0),
        AppendRequest(2, THREE, 0, 0, 0, 1, (TermRun(2, 1, 1),), 1, 1, (Membership(2, (ONE,)),)),
        AppendRequest(2, THREE, 0, 0, 0, 1, (TermRun(2, 1, 1),), 1, 1, (Membership(1, ()),)),
    ],
)
def test_a_message_that_no_correct_peer_sends_is_refused_and_changes_nothing(message: Message) -> None:
    node = Alone(fresh(MEMBERS))
    before = (node.raft.term, node.raft.last_index, node.raft.leader_id)
    with pytest.raises(ProtocolError):
        node.receive(message)
    assert (node.raft.term, node.raft.last_index, node.raft.leader_id) == before


def test_equal_inputs_and_seed_give_equal_deadlines() -> None:
    engines = [Raft(ONE, RaftSettings(), fresh(MEMBERS), 10**9, 42) for _ in range(2)]
    assert engines[0].next_deadline() == engines[1].next_deadline()
