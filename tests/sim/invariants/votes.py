"""One vote per term and node over all its lives; only for a log as up to date; never while a leader is heard.

A pre-vote changes nothing at all. Raft paper 5.2 and 5.4.1; Raft thesis 9.6; consensus.md rule 9.
"""

from __future__ import annotations

from typing import Any

from hiqlite.engine.model import VoteReply, VoteRequest
from tests.sim.voters import voter_sets

from .base import Invariant, of


class Votes(Invariant):
    name = "votes"

    def __init__(self, cluster: Any) -> None:
        super().__init__(cluster)
        self.spoken: dict[tuple[int, int], int] = {}  # (voter, term) -> candidate
        self.given: set[tuple[Any, int, int]] = set()  # (identity of the voter, term, candidate), for ever
        self.before: tuple[int, Any, int] = (0, None, 0)

    def wiped(self, node: Any) -> None:
        """Promises of a lost disk bind nobody: the new incarnation is no voter."""
        self.spoken = {key: value for key, value in self.spoken.items() if key[0] != node.id}

    @of(VoteRequest)
    def receiving(self, node: Any, message: Any) -> None:
        raft = node.raft
        self.before = (raft.term, raft.vote, raft.last_index)
        self.was_leading = raft.leads
        self.last = (raft.last_term, raft.last_index)

    @of(VoteRequest)
    def received(self, node: Any, asked: Any) -> None:
        raft = node.raft
        if asked.pre and (raft.term, raft.vote, raft.last_index) != self.before:
            self.fail(f"a pre-vote changed term or vote of node {node.id}")
        if raft.vote is not None and raft.vote == asked.sender and (raft.term, raft.vote) != self.before[:2]:
            if (asked.last_term, asked.last_index) < self.last:
                self.fail(f"node {node.id} votes for node {asked.sender.id}, whose log is behind")
            if self.was_leading and not asked.transfer:
                self.fail(f"node {node.id} leads and votes for node {asked.sender.id}")

    @of(VoteReply, VoteRequest)
    def sending(self, node: Any, message: Any, peer_id: int) -> None:
        if type(message) is VoteReply:
            if message.granted and not message.pre:
                self.note_vote(node, message.term, peer_id)
        elif not message.pre:
            self.note_vote(node, message.term, node.id)

    def became_leader(self, node: Any) -> None:
        """Who is no voter may be asked and may answer; a leader needs a majority of each set of those who are."""
        term = node.raft.term
        for voters in voter_sets(node.config):
            granted = [one for one in voters if one == node.identity or (one, term, node.id) in self.given]
            if len(granted) <= len(voters) // 2:
                self.fail(f"node {node.id} leads in term {term} by the votes of {granted}")

    def note_vote(self, node: Any, term: int, candidate: int) -> None:
        voter = node.id
        self.given.add((node.identity, term, candidate))
        first = self.spoken.setdefault((voter, term), candidate)
        if first != candidate:
            self.fail(f"node {voter} votes for node {first} and for node {candidate} in term {term}")
