"""The words in which the rules of the paper are tested: one node of three, what it answers, what it sends.

Entries are written as the paper's figures do: `log=((1, 1, 3), (2, 4, 5))` are entries 1 to 3 of term 1, 4 and 5 of
term 2. Tests of whole groups use the commands of tests/scenarios.
"""

from __future__ import annotations

from typing import TypeVar

from hiqlite.config import RaftSettings
from hiqlite.engine.model import (
    AppendReply,
    AppendRequest,
    Membership,
    ProbeReply,
    ProbeRequest,
    Ready,
    TimeoutNow,
    VoteReply,
    VoteRequest,
)
from tests.engine.engine_group import MS, Alone, accept, append, fresh, identities, lead, log_of, messages, refuse
from tests.scenarios.scenario_language import Teller

ONE, TWO, THREE, FOUR, FIVE = identities(5)
MEMBERS = Membership(0, (ONE, TWO, THREE))
ELECTION_MIN = RaftSettings().election_timeout_min_ms * MS
ELECTION_MAX = RaftSettings().election_timeout_max_ms * MS
HEARTBEAT = RaftSettings().heartbeat_interval_ms * MS
Runs = tuple[tuple[int, int, int], ...]
Kind = TypeVar("Kind")


def a_node(log: Runs = (), members: Membership = MEMBERS, **known: object) -> Alone:
    """Node 1 as it begins, with this log; its term is that of its last entry unless given."""
    known.setdefault("term", log[-1][0] if log else 0)
    return Alone(fresh(members, runs=log_of(*log), **known))


def a_leader(log: Runs = (), members: Membership = MEMBERS, **known: object) -> Alone:
    """Node 1, elected in the term after; the entry that opens its term is durable here and nowhere else."""
    known.setdefault("term", log[-1][0] if log else 0)
    return lead(fresh(members, runs=log_of(*log), **known))


def log(node: Alone) -> Runs:
    """What the node holds."""
    return tuple((run.term, run.first, run.last) for run in node.raft.state.log.runs())


def vote(node: Alone, request: VoteRequest) -> bool | None:
    """Whether the request was granted, None: no answer."""
    node.receive(request)
    replies = answers(node, VoteReply)
    assert len(replies) <= 1
    return replies[0].granted if replies else None


def reply(node: Alone, request: AppendRequest) -> AppendReply:
    """The one answer to an AppendEntries."""
    node.receive(request)
    (answer,) = answers(node, AppendReply)
    return answer


def answers(node: Alone, kind: type[Kind]) -> list[Kind]:
    """What it sends of a kind, once its disk is done."""
    return sent(node.sync(), kind)


def sent(readies: list[Ready], kind: type[Kind]) -> list[Kind]:
    """What was sent of a kind."""
    return [message for message in messages(readies, kind) if isinstance(message, kind)]


def entries(readies: list[Ready]) -> list[AppendRequest]:
    """The appends that carry something."""
    return [request for request in sent(readies, AppendRequest) if request.last_index > request.previous_index]


def answer_rounds(node: Alone, *peers: int) -> list[Ready]:
    """These peers answer the newest round; what the node does then."""
    for peer in peers:
        node.receive(ProbeReply(node.raft.term, identities(5)[peer - 1], node.raft.state.reads.round))
    return node.sync()


def told(*commands: str) -> Teller:
    """A small cluster to which this happened (tests/scenarios)."""
    teller = Teller()
    teller.run(list(commands))
    return teller


__all__ = [
    "ELECTION_MAX", "ELECTION_MIN", "FIVE", "FOUR", "HEARTBEAT", "MEMBERS", "MS", "ONE", "THREE", "TWO", "Runs",
    "Alone", "AppendReply", "AppendRequest", "Membership", "ProbeReply", "ProbeRequest", "Ready",
    "TimeoutNow", "VoteReply", "VoteRequest",
    "a_leader", "a_node", "accept", "answer_rounds", "answers", "append", "entries", "fresh", "lead", "log",
    "refuse", "reply", "sent", "told", "vote",
]  # fmt: skip
