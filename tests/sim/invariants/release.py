"""Nothing is said before what it promises is durable (consensus.md rules 1 and 2; Raft paper figure 2)."""

from __future__ import annotations

from typing import Any

from hiqlite.engine.model import AppendReply, AppendRequest, VoteReply, VoteRequest

from .base import Invariant


class Release(Invariant):
    name = "no message before its release condition"

    def sending(self, node: Any, message: Any, peer_id: int) -> None:
        kind = type(message)
        if message.term > node.disk.term and not self.unbinding(message):
            self.fail(f"node {node.id} speaks in term {message.term}, its disk knows {node.disk.term}: {message}")
        if kind is AppendRequest:
            if not node.state.leads:
                self.resigned(node, message)
        elif kind is AppendReply:
            if message.accepted:
                self.durable(node, message)
        elif (kind is VoteReply or kind is VoteRequest) and not self.unbinding(message):
            self.voted(node, message, peer_id)

    def unbinding(self, message: Any) -> bool:
        """A pre-vote promises nothing; a refusal of one tells the own term."""
        kind = type(message)
        return (kind is VoteRequest and message.pre) or (kind is VoteReply and message.pre and message.granted)

    def voted(self, node: Any, message: Any, peer_id: int) -> None:
        """What leaves after the next term began was durable in its own."""
        vote = node.disk.votes.get(message.term)
        if type(message) is VoteRequest:
            if vote != node.identity:
                self.fail(f"node {node.id} campaigns in term {message.term} without its own durable vote")
        elif message.granted and (vote is None or vote.id != peer_id):
            self.fail(f"node {node.id} grants a vote that is not durable")

    def resigned(self, node: Any, message: Any) -> None:
        if message.term != node.led_term:
            self.fail(f"node {node.id} sends entries of term {message.term}, which it never led")
        # What was ready when it stopped leading leaves with the news of that, and nothing later.
        if node.left_ns != self.world.now_ns:
            self.fail(f"node {node.id} sends entries though it leads no more since {node.left_ns}")

    def durable(self, node: Any, message: Any) -> None:
        index, terms, own = message.match_index, node.disk.terms, node.terms
        if index > 0 and (index >= len(terms) or index >= len(own)):
            self.fail(f"node {node.id} acknowledges {index}, durable is {len(terms) - 1}")
        if terms[index] != own[index]:
            self.fail(f"node {node.id} acknowledges {index}, durable is another entry")
        self.verified(node, message)

    def verified(self, node: Any, message: Any) -> None:
        """What is acknowledged is an entry of the leader's log."""
        leader = self.cluster.nodes.get(node.state.leader_id)
        index = message.match_index
        if leader is None or not leader.up or not leader.state.leads or leader.state.term != message.term:
            return
        if index >= len(leader.terms) or leader.terms[index] != node.terms[index]:
            self.fail(f"node {node.id} acknowledges {index}, which the leader's log does not hold")
