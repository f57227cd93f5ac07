"""Section 5.4 of the Raft paper and figure 3: what makes replication safe; sections 5.5 and 5.6: crashes and timing."""

from __future__ import annotations

import pytest

from hiqlite.config import RaftSettings
from hiqlite.engine.model import Membership
from hiqlite.errors import ConfigError
from tests.paper.paper_node import (
    ELECTION_MAX,
    FIVE,
    FOUR,
    ONE,
    THREE,
    TWO,
    AppendReply,
    VoteRequest,
    a_leader,
    a_node,
    accept,
    append,
    log,
    reply,
    sent,
    told,
    vote,
)

FIVE_MEMBERS = Membership(0, (ONE, TWO, THREE, FOUR, FIVE))


def test_who_lacks_a_committed_entry_is_not_elected() -> None:
    """5.4.1: "every committed entry must be present in at least one of those servers" that vote."""
    story = told("members voters=1,2,3", "start all", "lead 1", "isolate 3", "propose 1 2", "crash 1", "heal",
                 "campaign 3")  # fmt: skip
    assert not story.world.nodes[3].raft.leads
    story.run(["campaign 2"])
    assert story.world.nodes[2].raft.leads and story.world.nodes[2].raft.last_index == 4


def test_entries_of_older_terms_are_not_committed_by_counting() -> None:
    """5.4.2, figure 8 (c): a majority holds the entry of term 2, and still it may be overwritten."""
    node = a_leader(log=((1, 1, 1), (2, 2, 2)), members=FIVE_MEMBERS)
    for peer in (TWO, THREE, FOUR, FIVE):
        accept(node, peer, match=2)
    assert node.raft.commit_index == 0


def test_an_entry_of_the_own_term_commits_all_before_it() -> None:
    """5.4.2, figure 8 (e), and rules for leaders: "log[N].term == currentTerm: set commitIndex = N"."""
    node = a_leader(log=((1, 1, 1), (2, 2, 2)), members=FIVE_MEMBERS)
    accept(node, TWO, match=3)
    assert node.raft.commit_index == 0, "two of five"
    accept(node, THREE, match=3)
    assert node.raft.commit_index == 3


def test_an_entry_that_was_copied_but_never_committed_may_be_overwritten() -> None:
    """5.4.2, figure 8 (d): node 5 wins by its newer last term, and its log rules."""
    story = told(
        "members voters=1,2,3,4,5",
        "start 1 term=4 log=1x1,2x1",
        "start 2 term=4 log=1x1,2x1",
        "start 3 term=4 log=1x1,2x1",
        "start 4 term=4 log=1x1",
        "start 5 term=4 log=1x1,3x1",
        "lead 5",
    )
    assert {node.disk.durable.entries[1].term for node in story.world.nodes.values()} == {3}


@pytest.mark.parametrize(("holders", "commit"), [((), 0), ((TWO,), 0), ((TWO, THREE), 3), ((TWO, THREE, FOUR), 3)])
def test_the_leader_commits_what_a_majority_holds(holders: tuple[object, ...], commit: int) -> None:
    """Rules for leaders: "a majority of matchIndex[i] >= N"; of five, two others and the leader."""
    node = a_leader(log=((1, 1, 1), (2, 2, 2)), members=FIVE_MEMBERS)
    for peer in (TWO, THREE, FOUR, FIVE):
        if peer in holders:
            accept(node, peer)
    assert node.raft.commit_index == commit


def test_the_leaders_own_copy_counts_when_it_is_stored() -> None:
    """5.4.2 with figure 2: the leader is one of the majority only with what is on its disk."""
    node = a_leader()
    accept(node, TWO, THREE)
    node.raft.propose(1, 100, node.now)
    node.take()
    before = node.raft.commit_index
    known = node.raft.progress(TWO.id)
    assert known is not None
    node.receive(AppendReply(1, TWO, True, 2, 0, 0, known.epoch, known.sequence))
    assert node.raft.commit_index == before
    node.raft.log_progress(node.done, node.done, node.now)
    assert node.raft.commit_index == 2


def test_what_is_applied_was_written_here() -> None:
    """Figure 3, state machine safety. Deviation: committed by others is not enough, the own log has it first."""
    node = a_node(term=1)
    node.receive(append(1, THREE, (0, 0), (1, 1, 3), commit=3))
    assert node.raft.commit_index == 3 and not any(ready.apply for ready in node.take())
    node.raft.log_progress(node.done, 0, node.now)
    assert [ready.apply for ready in node.take()] == [(1, 3)]


def test_no_two_entries_are_applied_at_one_index() -> None:
    """Figure 3, state machine safety, through three changes of the leader with a tail cut each time."""
    story = told("members voters=1,2,3", "start all", "lead 1", "propose 1 3", "wait 10ms")
    for old, new in ((1, 2), (2, 3), (3, 1)):
        story.run([f"isolate {old}", f"propose {old} 2", f"campaign {new}", f"propose {new} 3", "heal", "wait 3000ms"])
        leader = story.world.leader()
        assert leader is not None
        if leader.own.id != new:
            story.run([f"transfer {leader.own.id}->{new}", "wait 50ms"])
    story.run(["check"])
    databases = [node.database for node in story.world.nodes.values()]
    assert databases[0] == databases[1] == databases[2] and len(databases[0]) > 12


def test_a_vote_and_a_log_outlive_a_crash_together() -> None:
    """5.5: a server that comes back completes what it promised: here it still refuses the shorter log."""
    node = a_node(log=((1, 1, 3),), term=4, vote=TWO)
    assert vote(node, VoteRequest(4, THREE, False, 9, 3)) is False
    assert vote(node, VoteRequest(5, THREE, False, 2, 1)) is False
    assert log(node) == ((1, 1, 3),)


def test_time_does_not_decide_what_is_true() -> None:
    """5.6: "safety must not depend on timing": a clock that jumps makes elections, no second history."""
    story = told("members voters=1,2,3", "start all", "lead 1", "propose 1 3", "wait 20ms")
    for number in (2, 3, 2):
        if not story.world.nodes[number].raft.leads:
            story.run([f"campaign {number}"])
    story.run(["check"])


def test_the_heartbeat_is_much_shorter_than_the_election_timeout() -> None:
    """5.6: "broadcastTime << electionTimeout"; other settings are refused."""
    with pytest.raises(ConfigError):
        RaftSettings(heartbeat_interval_ms=300, election_timeout_min_ms=500)
    with pytest.raises(ConfigError):
        RaftSettings(election_timeout_min_ms=500, election_timeout_max_ms=500)


def test_a_database_ahead_of_its_log_promises_nothing_until_a_leader_confirms_it() -> None:
    """5.5. Deviation: a loss of power may leave the state machine further than the log (consensus.md rule 4)."""
    node = a_node(log=((1, 1, 2),), applied_index=5, applied_term=1)
    answer = reply(node, append(1, THREE, (2, 1), (1, 3, 4)))
    assert (answer.accepted, answer.hint_index) == (False, 5)
    assert reply(node, append(1, THREE, (4, 1), (1, 5, 6))).match_index == 6


def test_a_server_with_damaged_entries_does_not_campaign() -> None:
    """5.4.1. Deviation (consensus.md section 3): it could not give out what its log promises."""
    node = a_node(log=((1, 1, 6),), faulty=((4, 5),))
    node.wait(10 * ELECTION_MAX)
    assert not sent(node.take(), VoteRequest) and node.raft.term == 1
