"""Section 7 of the Raft paper and thesis chapter 5: log compaction and snapshots.

Deviation: an image is not sent by the engine. It says who needs one and what follows from having it; making, streaming
and installing are the runtime's, so InstallSnapshot has no message here.
"""

from __future__ import annotations

from hiqlite.engine.model import Membership, SendImage
from tests.paper.paper_node import (
    MEMBERS,
    ONE,
    THREE,
    TWO,
    Alone,
    AppendRequest,
    Runs,
    VoteRequest,
    a_leader,
    a_node,
    accept,
    append,
    entries,
    log,
    refuse,
    reply,
    sent,
    vote,
)

OLD: Runs = ((1, 1, 3), (2, 4, 8))
NEWER = Membership(5, (ONE, TWO, THREE), (), ())


def compacted() -> Alone:
    """A leader of term 3 whose log begins behind 6 and that needs to tell node 2 what came before."""
    node = a_leader(log=OLD, applied_index=6, applied_term=2)
    node.raft.purged(6)
    return node


def test_only_what_is_applied_is_compacted() -> None:
    """7: what stands in the state machine, and nothing else, may go from the log."""
    node = a_leader(log=OLD, applied_index=6, applied_term=2)
    assert node.raft.purge_limit == 6


def test_index_and_term_of_the_last_entry_stay_for_the_consistency_check() -> None:
    """7: "lastIncludedIndex, lastIncludedTerm ... preserved to support the AppendEntries consistency check"."""
    node = a_node(log=OLD, applied_index=6, applied_term=2)
    node.raft.purged(6)
    assert log(node) == ((2, 7, 8),)
    assert reply(node, append(3, THREE, (6, 2), (2, 7, 8), (3, 9, 9))).match_index == 9


def test_the_log_is_as_up_to_date_as_before() -> None:
    """7 with 5.4.1: compaction changes no vote."""
    node = a_node(log=OLD, applied_index=8, applied_term=2)
    node.raft.purged(8)
    assert vote(node, VoteRequest(5, TWO, False, 7, 2)) is False
    assert vote(node, VoteRequest(6, TWO, False, 8, 2)) is True


def test_the_latest_configuration_outlives_its_entry() -> None:
    """7: "the snapshot also includes the latest configuration in the log as of last included index"."""
    members = Membership(0, (ONE, TWO))
    node = a_node(log=OLD, members=members, memberships=(NEWER,), applied_index=6, applied_term=2)
    node.raft.purged(6)
    assert node.raft.membership == NEWER


def test_entries_at_or_below_the_base_are_known_to_be_equal() -> None:
    """7 with 5.5: a late request from before the compaction is still answered."""
    node = a_node(log=OLD, applied_index=6, applied_term=2)
    node.raft.purged(6)
    assert reply(node, append(3, THREE, (2, 1), (1, 3, 3), (2, 4, 7))).accepted and log(node) == ((2, 7, 8),)


def test_a_follower_that_lacks_what_is_gone_gets_a_snapshot() -> None:
    """7: "when the leader has already discarded the next log entry that it needs to send to a follower"."""
    node = compacted()
    asked = [image for ready in refuse(node, TWO, (3, 1)) for image in ready.images]
    assert asked == [SendImage(2, 0)]


def test_a_follower_that_lacks_only_what_is_there_gets_entries() -> None:
    """7: "a follower that has kept up with the leader would already have this entry"."""
    node = compacted()
    assert not any(ready.images for ready in refuse(node, TWO, (6, 2)))
    assert [one.previous_index for one in sent(node.readies, AppendRequest)][-1] == 6


def test_after_the_snapshot_the_log_goes_on_behind_it() -> None:
    """7 and figure 13: the leader sends what follows lastIncludedIndex."""
    node = compacted()
    refuse(node, TWO, (3, 1))
    assert node.raft.image_started(2, 8, node.now)
    node.raft.image_finished(2, node.now)
    (request,) = [one for one in sent(node.sync(), AppendRequest) if one.previous_index == 8]
    assert request.previous_term == 2


def test_the_log_behind_a_running_snapshot_is_kept() -> None:
    """Thesis 5.1: else the follower would need another snapshot when it has this one."""
    node = compacted()
    refuse(node, TWO, (3, 1))
    node.raft.image_started(2, 6, node.now)
    accept(node, THREE)
    node.raft.applied(9)
    assert node.raft.commit_index == 9 and node.raft.purge_limit == 6
    node.raft.image_failed(2, False, node.now)
    assert node.raft.purge_limit == 9


def test_a_snapshot_that_is_a_prefix_keeps_what_follows() -> None:
    """7 and figure 13, receiver 6: "retain log entries following it"."""
    node = a_node(log=OLD)
    assert node.raft.begin_install(6, node.now)
    node.raft.installed(6, 2, MEMBERS, node.now)
    assert node.raft.last_index == 8 and node.raft.commit_index == 6
    assert not any(ready.reset for ready in node.sync())


def test_a_snapshot_of_another_history_replaces_the_log() -> None:
    """7 and figure 13, receiver 7: "Discard the entire log", and 8: its configuration is in force."""
    node = a_node(log=OLD, term=5)
    assert node.raft.begin_install(8, node.now)
    node.raft.installed(8, 4, NEWER, node.now)
    assert (log(node), node.raft.base_index, node.raft.last_term) == ((), 8, 4)
    assert node.raft.membership == NEWER and node.raft.commit_index == 8
    assert [ready.reset.base_index for ready in node.sync() if ready.reset] == [8]
    assert reply(node, append(5, THREE, (8, 4), (5, 9, 9))).match_index == 9


def test_a_snapshot_that_ends_beyond_the_log_replaces_it() -> None:
    """7: "Usually the snapshot will contain new information not already in the recipient's log"."""
    node = a_node(log=OLD)
    node.raft.begin_install(20, node.now)
    node.raft.installed(20, 2, MEMBERS, node.now)
    assert (node.raft.base_index, node.raft.last_index, node.raft.last_term) == (20, 20, 2)


def test_a_snapshot_that_says_nothing_new_is_refused() -> None:
    """Figure 13, receiver 5 and 6: the state machine never goes back."""
    node = a_node(log=OLD, applied_index=6, applied_term=2)
    assert not node.raft.begin_install(5, node.now) and not node.raft.begin_install(6, node.now)


def test_nothing_is_applied_while_a_snapshot_takes_the_databases_place() -> None:
    """Figure 13, receiver 8: "Reset state machine using snapshot contents", and go on behind it."""
    node = a_node(log=OLD)
    node.raft.begin_install(6, node.now)
    node.receive(append(2, THREE, (8, 2), commit=8))
    assert not any(ready.apply for ready in node.sync())
    node.raft.installed(6, 2, MEMBERS, node.now)
    assert [ready.apply for ready in node.sync() if ready.apply] == [(7, 8)]


def test_a_leader_takes_no_snapshot() -> None:
    """Figure 13: InstallSnapshot comes from a leader; there is one."""
    assert not a_leader(log=OLD).raft.begin_install(50, a_leader().now)


def test_entries_go_on_to_others_while_one_waits_for_its_snapshot() -> None:
    """Thesis 5.1.1: writing goes on."""
    node = compacted()
    refuse(node, TWO, (3, 1))
    accept(node, THREE)
    assert node.raft.propose(1, 100, node.now) == 10
    assert [one.last_index for one in entries(node.sync())] == [10]
