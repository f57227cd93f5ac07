"""What one turn of a leader costs (performance.md section 2): a row, not a promise."""

from __future__ import annotations

from typing import Any

from hiqlite.engine.model import AppendReply, AppendRequest, TermRun
from tests.engine.engine_group import MS, Group


def test_one_turn_of_a_leader_of_three(benchmark: Any) -> None:
    """Propose 16 entries, send them to two peers, flush, two acknowledgements, commit, apply."""
    group = Group(3)
    group.wait(2_000 * MS)
    leader = group.leader()
    raft = leader.raft
    peers = [node.own for node in group.nodes.values() if node is not leader]
    progress = {peer.id: raft.progress(peer.id) for peer in peers}
    sequences = {peer.id: progress[peer.id].sequence for peer in peers}
    now = leader.now

    def turn() -> int:
        first = raft.propose(16, 1600, now)
        ready = raft.ready()
        io = ready.appends[0].io_sequence
        raft.log_progress(io, io, now)
        for peer in peers:
            sequences[peer.id] += 1
            raft.receive(AppendReply(raft.term, peer, True, first + 15, 0, 0, 1, sequences[peer.id]), now)
        done = raft.ready()
        raft.applied(first + 15)
        raft.next_deadline()
        return len(ready.sends) + (done.apply or (0, 0))[1]

    benchmark.pedantic(turn, rounds=200, iterations=20, warmup_rounds=5)
    assert raft.commit_index == raft.last_index and isinstance(raft.ready().sends, list)


def test_one_turn_of_a_follower(benchmark: Any) -> None:
    """Take 16 entries, flush, acknowledge."""
    group = Group(3)
    group.wait(2_000 * MS)
    leader = group.leader()
    follower = next(node for node in group.nodes.values() if node is not leader)
    raft, now, term = follower.raft, follower.now, follower.raft.term

    def turn() -> int:
        last = raft.last_index
        runs = (TermRun(term, last + 1, last + 16),)
        raft.receive(AppendRequest(term, leader.own, last, term, last, last + 16, runs, 1, last), now)
        io = raft.ready().appends[0].io_sequence
        raft.log_progress(io, io, now)
        return len(raft.ready().sends)

    assert benchmark.pedantic(turn, rounds=200, iterations=20, warmup_rounds=5) == 1
