"""Section 8 of the Raft paper and thesis chapter 6: what clients rest on. Sessions (6.3): test_thesis_sessions.py."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from hiqlite.engine.model import Identity, ProbeReply, ProbeRequest
from hiqlite.errors import LeadershipLost
from hiqlite.runtime.waiting import AppliedWaiters, ReadRound, ReadTokens
from tests.paper.paper_node import (
    ELECTION_MAX,
    MEMBERS,
    MS,
    ONE,
    THREE,
    TWO,
    Alone,
    Ready,
    a_leader,
    a_node,
    accept,
    answer_rounds,
    append,
    fresh,
    sent,
    told,
)


def confirmed(readies: list[Ready]) -> list[tuple[int, int]]:
    """(token, read index) of the reads that may be answered."""
    return [(read.token, read.read_index) for ready in readies for read in ready.reads]


def an_open_leader() -> Alone:
    node = a_leader()
    accept(node, TWO, THREE)
    return node


def test_others_say_who_leads() -> None:
    """8: they "supply information about the most recent leader" they have heard from."""
    node = a_node(term=3)
    assert node.raft.leader_id == 0
    node.receive(append(3, THREE, (0, 0)))
    assert node.raft.leader_id == 3 and node.raft.propose(1, 10, node.now) == 0 and node.raft.read(node.now) == 0


def test_a_leader_that_reaches_no_majority_steps_down() -> None:
    """Thesis 6.2: "if an election timeout elapses without a successful round of heartbeats to a majority"."""
    node = an_open_leader()
    for _ in range(20):
        node.wait(100 * MS)
        node.sync()
        answer_rounds(node, 2)
        accept(node, TWO, THREE)
    assert node.raft.leads
    node.wait(ELECTION_MAX + 1 * MS)
    assert not node.raft.leads and node.raft.term == 1
    assert node.raft.beat_word() == (1, False), "and sends no heartbeat any more"


def test_a_leader_whose_entries_are_not_answered_steps_down() -> None:
    """Thesis 6.2. Deviation (consensus.md rule 17): rounds that come back are not enough while appends do not."""
    node = an_open_leader()
    node.raft.propose(1, 100, node.now)
    for _ in range(12):
        node.sync()
        answer_rounds(node, 2, 3)
        node.wait(100 * MS)
    assert not node.raft.leads


def test_a_leader_that_reaches_a_majority_stays() -> None:
    """Thesis 6.2, the other way; one of two others is enough."""
    node = an_open_leader()
    for _ in range(100):
        node.wait(100 * MS)
        node.sync()
        answer_rounds(node, 2)
        accept(node, TWO)
    assert node.raft.leads


def test_leaving_leadership_says_which_proposals_are_in_doubt() -> None:
    """8: the client cannot know what became of them, so the leader says that it does not, either."""
    node = an_open_leader()
    node.raft.propose(3, 300, node.now)
    node.sync()
    node.raft.step_down(node.now, "test")
    assert [ready.lost_from for ready in node.take() if ready.lost_from] == [2]


def test_a_leader_opens_its_term_with_an_entry() -> None:
    """8: "each leader commit a blank no-op entry into the log at the start of its term"."""
    node = a_leader(log=((1, 1, 4),))
    assert node.raft.last_index == 5 and node.raft.last_term == 2 and not node.raft.opened
    accept(node, TWO)
    assert node.raft.opened and node.raft.commit_index == 5


def test_a_read_waits_for_the_entry_that_opens_the_term() -> None:
    """8 and thesis 6.4, step 1: before it the leader does not know which entries are committed."""
    node = a_leader(log=((1, 1, 4),), applied_index=2, applied_term=1)
    token = node.raft.read(node.now)
    node.wait(1 * MS)
    node.sync()
    assert not confirmed(answer_rounds(node, 2, 3)), "at 2, say, which others may know to be long past"
    accept(node, TWO)
    assert confirmed(answer_rounds(node, 2)) == [(token, 5)]


def test_the_read_index_is_the_commit_index_when_the_round_is_sent() -> None:
    """Thesis 6.4, step 2: "saves its current commit index in a local variable readIndex"."""
    node = an_open_leader()
    token = node.raft.read(node.now)
    node.sync()
    node.raft.propose(1, 100, node.now)
    node.sync()
    accept(node, TWO)
    assert node.raft.commit_index == 2 and confirmed(answer_rounds(node, 2)) == [(token, 1)]


def test_a_read_waits_for_a_round_that_a_majority_answers() -> None:
    """8 and thesis 6.4, step 3: "a new round of heartbeats", acknowledged by a majority."""
    story = told("members voters=1,2,3,4,5", "start all", "lead 1", "hold 2->1 3->1 4->1 5->1")
    raft = story.world.nodes[1].raft
    story.run(["read 1", "release 2->1"])
    assert raft.state.reads.rounds
    story.run(["release 3->1"])
    assert not raft.state.reads.rounds


def test_a_round_that_was_sent_before_the_read_does_not_confirm_it() -> None:
    """Thesis 6.4, step 3: a new round; an answer that was on its way may be older than a new leader."""
    node = an_open_leader()
    node.wait(1 * MS)
    node.sync()
    old = node.raft.state.reads.round
    token = node.raft.read(node.now)
    (ready, *_) = node.sync()
    assert sent([ready], ProbeRequest)
    node.receive(ProbeReply(1, TWO, old))
    assert not confirmed(node.sync())
    node.receive(ProbeReply(1, TWO, old + 1))
    assert confirmed(node.sync()) == [(token, 1)]


def test_one_round_confirms_all_reads_before_it() -> None:
    """Thesis 6.4: a single round of heartbeats does for any number of reads that have accumulated."""
    node = an_open_leader()
    tokens = [node.raft.read(node.now) for _ in range(5)]
    assert len(set(tokens)) == 5, "each is told of its own"
    requests = sent(node.sync(), ProbeRequest)
    assert len({request.token for request in requests}) == 1
    assert confirmed(answer_rounds(node, 3)) == [(token, 1) for token in tokens]


def test_answers_of_another_incarnation_confirm_nothing() -> None:
    """Thesis 6.4 with consensus.md rule 8: a majority of those that are voters."""
    node = an_open_leader()
    node.raft.read(node.now)
    node.sync()
    node.receive(ProbeReply(1, Identity(2, 99), node.raft.state.reads.round))
    assert not confirmed(node.sync())


def test_answers_of_another_term_confirm_nothing() -> None:
    """Thesis 6.4, step 3: they acknowledge somebody else's leadership."""
    node = a_leader(log=((1, 1, 4),))
    accept(node, TWO)
    node.raft.read(node.now)
    node.sync()
    node.receive(ProbeReply(1, TWO, node.raft.state.reads.round))
    assert not confirmed(node.sync())


def test_a_deposed_leader_answers_no_read() -> None:
    """8: "a leader must check whether it has been deposed before processing a read-only request"."""
    node = an_open_leader()
    token = node.raft.read(node.now)
    node.sync()
    node.receive(ProbeReply(2, THREE, node.raft.state.reads.round))
    failed = [token for ready in node.sync() for token in ready.failed_reads]
    assert failed == [token] and not node.raft.leads


def test_there_is_no_lease() -> None:
    """Thesis 6.4.1. Deviation: clocks prove nothing; a read right behind a confirmed one needs its own round."""
    node = an_open_leader()
    node.raft.read(node.now)
    node.sync()
    assert confirmed(answer_rounds(node, 2, 3))
    node.raft.read(node.now)
    assert not confirmed(node.sync())


def test_heartbeats_of_the_native_thread_confirm_nothing() -> None:
    """Thesis 6.4. Deviation: beats are liveness; only an answered round confirms reads or leadership."""
    node = a_node(term=1)
    node.raft.heard_beat(1, THREE.id, THREE.incarnation, 0, node.now, node.now)
    assert node.raft.leader_id == 3 and not any(ready.sends for ready in node.sync())


def test_a_single_voter_confirms_its_reads_itself() -> None:
    """Thesis 6.4, step 3: it is the majority."""
    story = told("members voters=1", "start all", "wait 10ms", "read 1")
    assert story.world.nodes[1].raft.leads and not story.world.nodes[1].raft.state.reads.rounds


class Reading:
    """Reads of one node: its rounds are asked for by `ask`, and each waits for what its state machine has applied."""

    def __init__(self, ask: Callable[[], Any]) -> None:
        self.loop = asyncio.get_running_loop()
        self.rounds = ReadRound(ask, self.loop)
        self.waiters = AppliedWaiters()
        self.applied_index = 0

    def begin(self) -> asyncio.Task[int]:
        return self.loop.create_task(self._read())

    async def _read(self) -> int:
        """How far the state machine was when it answered."""
        index = await self.rounds.index()
        if index > self.applied_index:
            await self.waiters.future(index, self.loop)
        return self.applied_index

    async def apply(self, readies: list[Ready]) -> None:
        """The state machine takes what the engine releases."""
        for ready in readies:
            if ready.apply is not None:
                assert ready.apply[0] == self.applied_index + 1
                self.applied_index = ready.apply[1]
                self.waiters.reached(self.applied_index)
        await turns()


class Asked:
    """Rounds of a leader, as it and its followers ask for them."""

    def __init__(self, node: Alone) -> None:
        self.node = node
        self.tokens = ReadTokens(asyncio.get_running_loop())

    async def ask(self) -> int:
        return await self.tokens.add(self.node.raft.read(self.node.now))

    async def settle(self, readies: list[Ready]) -> list[Ready]:
        for ready in readies:
            self.tokens.settle(ready)
        await turns()
        return readies


def reads_of_a_leader() -> tuple[Alone, Asked, Reading]:
    """A leader with its term open, the rounds that are asked of it, and who reads by them."""
    leader = an_open_leader()
    asked = Asked(leader)
    return leader, asked, Reading(asked.ask)


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_read_waits_until_the_state_machine_has_reached_its_index() -> None:
    """Thesis 6.4, step 4: "waits for its state machine to advance at least as far as the readIndex", and no further."""
    node, asked, reading = reads_of_a_leader()
    for _ in range(2):
        node.raft.propose(1, 100, node.now)
        node.sync()
    committed = accept(node, TWO)
    read = reading.begin()
    await turns()
    await asked.settle(node.sync())
    await asked.settle(answer_rounds(node, 2))
    assert not read.done() and reading.applied_index == 0, "confirmed, but the state machine is behind"
    node.raft.propose(1, 100, node.now)
    node.sync()
    later = accept(node, TWO)
    assert node.raft.commit_index == 4
    reading.applied_index = 2  # part of what it waits for
    reading.waiters.reached(2)
    await turns()
    assert not read.done()
    reading.applied_index = 3
    reading.waiters.reached(3)
    assert await read == 3, "what was committed after the read began is not waited for"
    assert [one.apply for one in committed if one.apply] and [one.apply for one in later if one.apply] == [(4, 4)]


async def test_a_follower_reads_at_the_index_that_its_leader_confirms() -> None:
    """Thesis 6.4, the end: it asks the leader, which does steps 1 to 3; step 4 is of its own state machine."""
    leader, asked, reading = reads_of_a_leader()
    follower = Alone(fresh(MEMBERS, term=1), 2)
    follower.receive(append(1, ONE, (0, 0), (1, 1, 1), commit=1))
    await reading.apply(follower.sync())
    assert reading.applied_index == 1
    leader.raft.propose(1, 100, leader.now)
    leader.sync()
    accept(leader, THREE)
    read = reading.begin()
    await turns()
    await asked.settle(leader.sync())
    assert not read.done()
    await asked.settle(answer_rounds(leader, 3))
    assert not read.done(), "the leader has committed what this follower has not even received"
    follower.receive(append(1, ONE, (1, 1), (1, 2, 2), commit=1, sequence=2))
    await reading.apply(follower.sync())
    assert not read.done(), "received is not committed"
    follower.receive(append(1, ONE, (2, 1), commit=2, sequence=3))
    await reading.apply(follower.sync())
    assert await read == 2


async def test_a_follower_asks_anew_for_a_read_that_comes_while_it_asks() -> None:
    """Thesis 6.4, step 3: the answer under way may tell of a commit index from before the later read."""
    leader, asked, reading = reads_of_a_leader()
    first = reading.begin()
    await turns()
    await asked.settle(leader.sync())
    leader.raft.propose(1, 100, leader.now)
    leader.sync()
    accept(leader, TWO)
    second = reading.begin()
    await turns()
    await asked.settle(answer_rounds(leader, 2))
    reading.applied_index = 1
    reading.waiters.reached(1)
    assert await first == 1 and not second.done()
    await asked.settle(leader.sync())
    await asked.settle(answer_rounds(leader, 2))
    await turns()
    assert not second.done(), "it waits for the write that was committed before it began"
    reading.applied_index = 2
    reading.waiters.reached(2)
    assert await second == 2


async def test_a_follower_whose_leader_was_deposed_gets_no_index() -> None:
    """Thesis 6.4, the end: a leader that cannot confirm itself confirms no follower either; it is asked again."""
    leader, asked, reading = reads_of_a_leader()
    read = reading.begin()
    await turns()
    await asked.settle(leader.sync())
    leader.receive(ProbeReply(2, THREE, leader.raft.state.reads.round))
    await asked.settle(leader.sync())
    with pytest.raises(LeadershipLost):
        await read
    late = reading.begin()
    with pytest.raises(LeadershipLost):
        await late
