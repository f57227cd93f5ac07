"""Section 5.3 of the Raft paper, and figure 2, "Rules for Leaders": entries from the leader to the others."""

from __future__ import annotations

from tests.paper.paper_node import (
    ELECTION_MIN,
    MS,
    THREE,
    TWO,
    AppendReply,
    AppendRequest,
    Runs,
    a_leader,
    a_node,
    accept,
    answer_rounds,
    append,
    entries,
    log,
    refuse,
    sent,
    told,
)

OLD: Runs = ((1, 1, 3), (2, 4, 6))


def test_a_command_is_appended_and_sent_to_all() -> None:
    """5.3: "appends the command to its log as a new entry, then issues AppendEntries RPCs in parallel"."""
    node = a_leader()
    accept(node, TWO, THREE)
    assert node.raft.propose(1, 100, node.now) == 2
    taken = node.take()
    assert [(write.first, write.last) for ready in taken for write in ready.appends] == [(2, 2)]
    assert [(request.previous_index, request.last_index) for request in entries(taken)] == [(1, 2)] * 2


def test_only_a_leader_takes_commands() -> None:
    """5.1: others redirect to it, so they say that they do not lead, and who does."""
    node = a_node(term=3)
    node.receive(append(3, THREE, (0, 0), (3, 1, 1)))
    assert node.raft.propose(1, 100, node.now) == 0 and node.raft.leader_id == 3


def test_an_entry_is_applied_when_a_majority_holds_it() -> None:
    """5.3: "When the entry has been safely replicated ..., the leader applies the entry"."""
    node = a_leader()
    assert not any(ready.apply for ready in node.sync())
    assert [ready.apply for ready in accept(node, TWO) if ready.apply] == [(1, 1)]


def test_committed_entries_are_applied_in_log_order() -> None:
    """Rules for all servers: "If commitIndex > lastApplied: increment lastApplied, apply"."""
    node = a_node(log=OLD)
    applied = []
    for sequence, commit in enumerate((2, 5, 6), 1):
        node.receive(append(2, THREE, (6, 2), commit=commit, sequence=sequence))
        applied += [ready.apply for ready in node.sync() if ready.apply]
    assert applied == [(1, 2), (3, 5), (6, 6)]


def test_followers_learn_what_is_committed_from_the_next_append() -> None:
    """5.3: "it includes that index in future AppendEntries RPCs"."""
    node = a_leader()
    accept(node, TWO)
    node.raft.propose(1, 100, node.now)
    assert {request.commit_index for request in entries(node.sync())} == {1}


def test_slow_followers_do_not_hinder() -> None:
    """5.3: "if followers crash or run slowly": a majority is enough, the leader goes on."""
    node = a_leader()
    for _ in range(10):
        accept(node, TWO)
        assert node.raft.commit_index == node.raft.last_index
        node.raft.propose(1, 100, node.now)
        node.sync()


def test_append_entries_are_retried_for_ever() -> None:
    """5.3: "the leader retries AppendEntries RPCs indefinitely (even after it has responded to the client)"."""
    node = a_leader()
    for _ in range(20):
        accept(node, TWO)
        before = len(node.readies)
        node.wait(ELECTION_MIN // 2)
        node.sync()
        answer_rounds(node, 2)
        assert [one for one in sent(node.readies[before:], AppendRequest) if one.previous_index == 0]


def test_a_leader_never_changes_its_own_log() -> None:
    """5.3 and figure 3, leader append-only: whatever its followers say."""
    node = a_leader(log=OLD)
    held = log(node)
    for hint in ((4, 2), (2, 1), (0, 0)):
        refuse(node, TWO, hint)
        assert log(node) == held
    assert not any(ready.truncate for ready in node.readies)


def test_a_refusal_moves_next_index_back() -> None:
    """5.3: "the leader decrements nextIndex and retries". Deviation: by the hint, past whole terms at once."""
    node = a_leader(log=((1, 1, 3), (4, 4, 5), (5, 6, 7), (6, 8, 10)))
    (probe,) = sent(refuse(node, TWO, (11, 3)), AppendRequest)
    assert (probe.previous_index, probe.previous_term) == (3, 1)
    progress = node.raft.progress(TWO.id)
    assert progress is not None and progress.match_index == 0, "a hint is no acknowledgement"


def test_next_index_never_falls_below_what_is_known_to_match() -> None:
    """5.3 with 5.5: a late refusal is not news."""
    node = a_leader(log=OLD)
    accept(node, TWO)
    refuse(node, TWO, (2, 1))
    progress = node.raft.progress(TWO.id)
    assert progress is not None and progress.match_index == 7 and progress.next_index == 8


def test_after_the_match_was_found_all_that_is_missing_is_sent() -> None:
    """5.3 and rules for leaders: "If last log index >= nextIndex ...: send AppendEntries with log entries"."""
    node = a_leader(log=OLD)
    refuse(node, TWO, (3, 1))
    fetches = [fetch for ready in accept(node, TWO, match=3) for fetch in ready.fetches]
    assert [(fetch.peer_id, fetch.first) for fetch in fetches] == [(2, 4)], "no longer in memory: asked for"
    node.raft.entries_fetched(2, 4, 7, 400, node.now)
    (request,) = entries(node.sync())
    assert (request.previous_index, request.previous_term, request.last_index) == (3, 1, 7)


def test_the_next_frame_does_not_wait_for_the_answer_to_the_last() -> None:
    """Thesis 10.2.2, pipelining: nextIndex runs ahead; a refusal or a loss brings it back."""
    node = a_leader()
    accept(node, TWO, THREE)
    frames = []
    for _ in range(3):
        node.raft.propose(1, 100, node.now)
        frames += [one.previous_index for one in entries(node.sync())]
    assert frames == [1, 1, 2, 2, 3, 3]
    refuse(node, TWO, (1, 1))
    progress = node.raft.progress(TWO.id)
    assert progress is not None and progress.next_index == 2 and not progress.replicating
    assert progress.inflight_bytes == 0 and not progress.inflight, "what was on its way is sent again"


def test_the_leader_sends_before_its_own_disk_is_done() -> None:
    """Thesis 10.2.1, writing in parallel: a majority of others may commit what the leader has not stored yet."""
    node = a_leader()
    accept(node, TWO, THREE)
    node.raft.propose(1, 100, node.now)
    assert len(entries(node.take())) == 2
    for peer in (TWO, THREE):
        known = node.raft.progress(peer.id)
        assert known is not None
        node.receive(AppendReply(1, peer, True, 2, 0, 0, 1, known.sequence))
    assert node.raft.commit_index == 2


def test_every_log_of_figure_7_becomes_the_leaders() -> None:
    """5.3, figure 7: missing entries, extra entries, or both: "conflicting entries ... will be overwritten"."""
    story = told(
        "members voters=1,2,3,4,5,6,7",
        "start 1 term=7 log=1x3,4x2,5x2,6x3",
        "start 2 term=7 log=1x3,4x2,5x2,6x2",
        "start 3 term=7 log=1x3,4x1",
        "start 4 term=7 log=1x3,4x2,5x2,6x4",
        "start 5 term=7 log=1x3,4x2,5x2,6x3,7x2",
        "start 6 term=7 log=1x3,4x4",
        "start 7 term=7 log=1x3,2x3,3x5",
        "lead 1",
    )
    logs = {number: node.disk.durable.entries for number, node in story.world.nodes.items()}
    assert all(held == logs[1] for held in logs.values()) and len(logs[1]) == 11


def test_crashed_followers_are_brought_up_when_they_come_back() -> None:
    """5.5: "If a follower or candidate crashes": "retrying indefinitely" completes the request."""
    story = told("members voters=1,2,3", "start all", "lead 1", "crash 3", "propose 1 30", "wait 10ms", "restart 3",
                 "wait 200ms")  # fmt: skip
    assert story.world.nodes[3].raft.commit_index == 31


def test_answers_count_for_their_session_only() -> None:
    """5.5. Deviation: a link that came up anew is a new session; what was said in the one before is void."""
    node = a_leader()
    node.raft.peer_lost(TWO.id, False, node.now)
    node.raft.peer_connected(TWO.id, 2, node.now)
    node.sync()
    node.receive(AppendReply(1, TWO, True, 1, 0, 0, 1, 1))
    assert node.raft.commit_index == 0
    node.wait(1 * MS)
    accept(node, TWO)
    assert node.raft.commit_index == 1
