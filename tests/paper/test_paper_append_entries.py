"""Figure 2 of the Raft paper, "AppendEntries RPC", and section 5.3, seen from the receiver."""

from __future__ import annotations

import pytest

from hiqlite.engine.model import ProbeReply, ProbeRequest
from tests.paper.paper_node import THREE, TWO, Runs, a_node, answers, append, log, reply

OLD: Runs = ((1, 1, 3), (2, 4, 6))


def test_an_older_term_is_refused_and_told_of_the_newer_one() -> None:
    """Receiver 1: "Reply false if term < currentTerm"; results: "currentTerm, for leader to update itself"."""
    node = a_node(log=OLD, term=5)
    answer = reply(node, append(4, THREE, (6, 2), (4, 7, 7)))
    assert (answer.accepted, answer.term) == (False, 5) and log(node) == OLD
    assert node.raft.leader_id == 0


@pytest.mark.parametrize("previous", [(7, 2), (9, 3), (6, 3), (3, 2)])
def test_entries_without_their_predecessor_are_refused(previous: tuple[int, int]) -> None:
    """Receiver 2: "Reply false if log doesn't contain an entry at prevLogIndex whose term matches prevLogTerm"."""
    node = a_node(log=OLD)
    answer = reply(node, append(4, THREE, previous, (4, previous[0] + 1, previous[0] + 2)))
    assert not answer.accepted and log(node) == OLD


def test_a_conflicting_entry_goes_with_all_that_follow_it() -> None:
    """Receiver 3: "delete the existing entry and all that follow it"."""
    node = a_node(log=OLD)
    node.receive(append(4, THREE, (3, 1), (2, 4, 4), (4, 5, 5)))
    truncates = [ready.truncate.last_kept for ready in node.sync() if ready.truncate]
    assert truncates == [4] and log(node) == ((1, 1, 3), (2, 4, 4), (4, 5, 5))


def test_what_does_not_conflict_stays() -> None:
    """Receiver 3, the other way: a short request, late or repeated, cuts nothing that it does not contradict."""
    node = a_node(log=OLD)
    assert reply(node, append(2, THREE, (3, 1), (2, 4, 4))).accepted
    assert log(node) == OLD and not any(ready.truncate for ready in node.readies)


def test_only_entries_that_are_missing_are_appended() -> None:
    """Receiver 4: "Append any new entries not already in the log"."""
    node = a_node(log=OLD)
    node.receive(append(2, THREE, (3, 1), (2, 4, 8)))
    writes = [(write.first, write.last) for ready in node.sync() for write in ready.appends]
    assert writes == [(7, 8)]


@pytest.mark.parametrize(("commit", "expected"), [(0, 0), (3, 3), (5, 5), (6, 5), (99, 5)])
def test_the_commit_index_follows_the_leader_up_to_the_last_new_entry(commit: int, expected: int) -> None:
    """Receiver 5: "commitIndex = min(leaderCommit, index of last new entry)": the tail behind was not verified."""
    node = a_node(log=OLD)
    node.receive(append(3, THREE, (3, 1), (2, 4, 5), commit=commit))
    node.sync()
    assert node.raft.commit_index == expected


def test_what_is_acknowledged_was_verified() -> None:
    """Results, success: it speaks of the entries of this request, not of a longer log."""
    node = a_node(log=OLD)
    assert reply(node, append(3, THREE, (3, 1), (2, 4, 5))).match_index == 5


def test_the_same_request_twice_changes_nothing_the_second_time() -> None:
    """5.5: "Raft RPCs are idempotent, so this causes no harm"."""
    node = a_node(log=OLD)
    request = append(3, THREE, (6, 2), (3, 7, 9))
    first = reply(node, request)
    held = log(node)
    done = node.done
    assert reply(node, request) == first and log(node) == held and node.done == done


def test_requests_in_the_wrong_order_do_no_harm() -> None:
    """5.3: what overtook its predecessor is refused, what was overtaken cuts nothing."""
    node = a_node(log=OLD)
    assert not reply(node, append(3, THREE, (8, 3), (3, 9, 9), sequence=2)).accepted
    assert reply(node, append(3, THREE, (6, 2), (3, 7, 8), sequence=1)).accepted
    assert reply(node, append(3, THREE, (8, 3), (3, 9, 9), sequence=3)).match_index == 9
    assert reply(node, append(3, THREE, (6, 2), (3, 7, 8), sequence=1)).match_index == 8
    assert log(node) == (*OLD, (3, 7, 9))


def test_a_refusal_names_where_the_logs_may_still_be_one() -> None:
    """5.3, the optimisation: "include the term of the conflicting entry": one probe for each conflicting term."""
    node = a_node(log=((1, 1, 3), (2, 4, 6), (3, 7, 9)))
    answer = reply(node, append(5, THREE, (9, 2), (5, 10, 10)))
    assert (answer.hint_index, answer.hint_term) == (6, 2), "nothing of a term above 2 can be the leader's"
    answer = reply(node, append(5, THREE, (20, 5), (5, 21, 21)))
    assert (answer.hint_index, answer.hint_term) == (9, 3), "the log is too short"


def test_an_empty_request_verifies_its_predecessor() -> None:
    """Figure 2, entries[]: "empty for heartbeat"; an empty one is answered by the same rules."""
    node = a_node(log=OLD)
    assert reply(node, append(3, THREE, (6, 2), commit=6)).match_index == 6
    assert node.raft.commit_index == 6
    assert not reply(node, append(3, THREE, (7, 3), commit=7)).accepted


def test_heartbeats_are_rounds_that_verify_nothing() -> None:
    """5.2. Deviation: the heartbeat has a message of its own; it keeps the leader and says nothing of the log."""
    node = a_node(log=OLD)
    node.receive(ProbeRequest(3, TWO, 1))
    assert answers(node, ProbeReply)[0].term == 3 and node.raft.leader_id == 2
    assert node.raft.commit_index == 0


def test_what_a_beat_says_commits_only_what_was_verified() -> None:
    """Receiver 5 once more. Deviation: heartbeats of the native thread carry a commit index, capped by what an append
    of this term verified here."""
    node = a_node(log=OLD)
    node.receive(append(3, THREE, (3, 1), (2, 4, 5)))
    node.sync()
    node.raft.heard_beat(3, THREE.id, THREE.incarnation, 99, node.now, node.now)
    assert node.raft.commit_index == 5


def test_a_committed_entry_is_never_cut() -> None:
    """Figure 3, state machine safety: who asks for that broke a promise, and the node stops rather than follow."""
    node = a_node(log=OLD, applied_index=5, applied_term=2)
    node.receive(append(4, THREE, (3, 1), (4, 4, 6)))
    (ready,) = node.take()
    assert ready.fatal and ready.truncate is None and not ready.sends
