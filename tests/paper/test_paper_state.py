"""Figure 2 of the Raft paper, "State": what each server keeps, and where (also thesis 3.8)."""

from __future__ import annotations

from tests.paper.paper_node import ONE, THREE, TWO, AppendRequest, VoteRequest, a_leader, a_node, accept, append, sent


def test_current_term_begins_at_zero_and_only_increases() -> None:
    """Figure 2, persistent state, currentTerm."""
    node = a_node()
    assert node.raft.term == 0
    for term in (4, 2, 4, 7, 6):
        before = node.raft.term
        node.receive(VoteRequest(term, TWO, False, 0, 0))
        assert node.raft.term == max(before, term)


def test_current_term_and_vote_are_stored_before_anything_that_rests_on_them_is_said() -> None:
    """Figure 2, persistent state: "updated on stable storage before responding to RPCs"."""
    node = a_node()
    node.receive(VoteRequest(4, TWO, False, 0, 0))
    (ready,) = node.take()
    assert ready.hard_state is not None and (ready.hard_state.term, ready.hard_state.vote) == (4, TWO)
    assert not ready.sends
    node.raft.log_progress(node.done, node.done - 1, node.now)
    assert not any(ready.sends for ready in node.take()), "written is not yet stored"
    node.raft.log_progress(node.done, node.done, node.now)
    assert any(ready.sends for ready in node.take())


def test_the_log_is_stored_before_it_is_acknowledged() -> None:
    """Figure 2, persistent state, log[]: entries are durable before the answer leaves."""
    node = a_node(term=1)
    node.receive(append(1, THREE, (0, 0), (1, 1, 2)))
    (ready,) = node.take()
    assert [(write.first, write.last) for write in ready.appends] == [(1, 2)] and not ready.sends
    node.raft.log_progress(node.done, node.done, node.now)
    assert any(ready.sends for ready in node.take())


def test_term_vote_and_log_survive_a_restart() -> None:
    """Figure 2, persistent state; what was not stored is unknown."""
    node = a_node(log=((1, 1, 3), (4, 4, 5)), term=6, vote=TWO)
    assert (node.raft.term, node.raft.vote, node.raft.last_index, node.raft.last_term) == (6, TWO, 5, 4)
    assert node.raft.leader_id == 0 and not node.raft.leads


def test_the_first_index_is_one() -> None:
    """Figure 2, persistent state, log[]."""
    assert a_leader().raft.last_index == 1


def test_commit_and_applied_index_begin_at_zero_and_only_increase() -> None:
    """Figure 2, volatile state on all servers."""
    node = a_node(log=((1, 1, 4),))
    assert (node.raft.commit_index, node.raft.applied_index) == (0, 0)
    seen = []
    for sequence, (last, commit) in enumerate([(2, 1), (4, 4), (3, 2), (4, 0)], 1):
        node.receive(append(1, THREE, (0, 0), (1, 1, last), commit=commit, sequence=sequence))
        node.sync()
        seen.append(node.raft.commit_index)
    assert seen == [1, 4, 4, 4]


def test_what_a_database_applied_is_known_committed_after_a_restart() -> None:
    """Figure 2, volatile state. Deviation: the state machine is durable here, so both begin where it ends."""
    node = a_node(log=((1, 1, 4),), applied_index=3, applied_term=1)
    assert (node.raft.commit_index, node.raft.applied_index) == (3, 3)


def test_a_leader_knows_nothing_of_its_peers_at_first() -> None:
    """Figure 2, volatile state on leaders: matchIndex 0, nextIndex behind the last entry before its own."""
    node = a_leader(log=((1, 1, 4),))
    for peer in (TWO, THREE):
        progress = node.raft.progress(peer.id)
        assert progress is not None and (progress.match_index, progress.next_index) == (0, 5)


def test_what_a_leader_knew_is_forgotten_before_it_leads_again() -> None:
    """Figure 2, volatile state on leaders: "reinitialized after election"."""
    node = a_leader()
    accept(node, TWO)
    node.receive(append(5, THREE, (1, 1), (5, 2, 2)))
    node.sync()
    progress = node.raft.progress(TWO.id)
    assert progress is not None and progress.match_index == 0


def test_every_message_names_term_and_sender() -> None:
    """Figure 2, arguments of both RPCs: term, leaderId, prevLogIndex, prevLogTerm, leaderCommit."""
    node = a_leader(log=((1, 1, 4),))
    request = sent(node.readies, AppendRequest)[-1]
    assert (request.term, request.sender, request.previous_index, request.previous_term) == (2, ONE, 4, 1)
    assert request.commit_index == 0
