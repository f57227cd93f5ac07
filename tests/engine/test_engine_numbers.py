"""Numbers that no counting reaches: the wire carries 64 bits without a sign, the compiled engine counts with one."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from hiqlite.engine.model import (
    AppendReply,
    AppendRequest,
    Identity,
    Membership,
    Message,
    ProbeReply,
    ProbeRequest,
    RepairReply,
    RepairRequest,
    TermRun,
    TimeoutNow,
    VoteReply,
    VoteRequest,
)
from hiqlite.errors import ProtocolError
from tests.engine.engine_group import Alone, accept, append, fresh, identities, lead

ONE, TWO, THREE = identities(3)
MEMBERS = Membership(0, (ONE, TWO, THREE))
HUGE = (2**62, 2**63 - 1, 2**63, 2**64 - 1)
RUN = (TermRun(1, 2, 2),)
MESSAGES: tuple[Message, ...] = (
    AppendRequest(1, TWO, 1, 1, 1, 2, RUN, 1, 1),
    AppendReply(1, TWO, True, 1, 0, 0, 1, 1),
    AppendReply(1, TWO, False, 0, 1, 1, 1, 1),
    VoteRequest(1, TWO, False, 1, 1),
    VoteRequest(1, TWO, True, 1, 1),
    VoteReply(1, TWO, False, True),
    ProbeRequest(1, TWO, 1),
    ProbeReply(1, TWO, 1),
    TimeoutNow(1, TWO),
    RepairRequest(1, TWO, 1, 1, 1),
    RepairReply(1, TWO, 2, 2, 1, RUN, True),
)


def spoiled() -> list[Message]:
    """Each message with each of its numbers out of all bounds."""
    made: list[Message] = []
    for message in MESSAGES:
        for field in fields(message):
            if type(getattr(message, field.name)) is int:
                made += [replace(message, **{field.name: value}) for value in HUGE]  # type: ignore[arg-type]
        made += [replace(message, sender=Identity(value, 1)) for value in HUGE]
        made += [replace(message, sender=Identity(2, value)) for value in HUGE if value >= 2**63]
        if isinstance(message, AppendRequest | RepairReply):
            for value in HUGE:
                for run in (TermRun(value, 2, 2), TermRun(1, value, 2), TermRun(1, 2, value)):
                    made.append(replace(message, runs=(run,)))
    return made


def follower() -> Alone:
    node = Alone(fresh(MEMBERS, term=1))
    node.receive(append(1, THREE, (0, 0), (1, 1, 1)))
    node.sync()
    return node


def leader() -> Alone:
    node = lead(fresh(MEMBERS))
    accept(node, TWO)
    return node


def candidate() -> Alone:
    node = Alone(fresh(MEMBERS))
    node.wait(400_000_000)
    node.sync()
    return node


def damaged() -> Alone:
    return Alone(fresh(MEMBERS, term=1, runs=(TermRun(1, 1, 3),), unknown=((2, 2),)))


@pytest.mark.parametrize("make", [follower, leader, candidate, damaged])
def test_no_number_of_a_peer_breaks_the_engine(make: object) -> None:
    """Every one is refused as a breach of the protocol or says nothing; the node goes on, in an undamaged state."""
    assert callable(make)
    refused = 0
    for message in spoiled():
        node = make()
        try:
            node.receive(message)
        except ProtocolError:
            refused += 1
        node.sync()
        assert node.raft.term < 2**62 and not node.raft.state.fatal, message
        assert max(node.raft.commit_index, node.raft.last_index) < 2**62
    assert refused > len(MESSAGES) * len(HUGE)


@pytest.mark.parametrize("value", HUGE)
def test_no_number_of_a_heartbeat_breaks_the_engine(value: int) -> None:
    """A stamp carries less than 64 bits of anything true; beyond that it is no sign of life."""
    for node in (follower(), leader()):
        heard = node.raft.state.heard_ns
        for term, sender, incarnation, bound in (
            (value, 3, 13, 1), (1, value, 13, 1), (1, 3, value, 1), (1, 3, 13, value),
        ):  # fmt: skip
            node.raft.heard_beat(term, sender, incarnation, bound, node.now + 5, node.now + 5)
        assert node.raft.state.heard_ns == heard and node.raft.commit_index <= node.raft.last_index
