"""Nothing is said before what it promises is durable (consensus.md rules 1 and 2; Raft paper figure 2)."""

from __future__ import annotations

from typing import Any

from hiqlite.engine.model import AppendReply, AppendRequest, VoteReply, VoteRequest

from .base import Invariant


class Release(Invariant):
    name = "no message before its release condition"

    def sending(self, node: Any, message: Any, peer_id: int) -> None:
        disk = node.disk
        kind = type(message)
        if kind is VoteRequest and message.pre:
            return
        if kind is VoteReply and message.pre and message.granted:
            return
        if message.term > disk.term:
            self.fail(f"node {node.id} speaks in term {message.term}, its disk knows {disk.term}: {message}")
        # What leaves after the next term began was durable in its own.
        if kind is VoteReply and message.granted:
            vote = disk.votes.get(message.term)
            if vote is None or vote.id != peer_id:
                self.fail(f"node {node.id} grants a vote that is not durable")
        if kind is VoteRequest and disk.votes.get(message.term) != node.identity:
            self.fail(f"node {node.id} campaigns in term {message.term} without its own durable vote")
        if kind is AppendReply and message.accepted:
            index = message.match_index
            if index > 0 and (index >= len(disk.terms) or index >= len(node.terms)):
                self.fail(f"node {node.id} acknowledges {index}, durable is {len(disk.terms) - 1}")
            if disk.terms[index] != node.terms[index]:
                self.fail(f"node {node.id} acknowledges {index}, durable is another entry")
            self.verified(node, message)
        if kind is AppendRequest and not node.state.leads:
            if message.term != node.led_term:
                self.fail(f"node {node.id} sends entries of term {message.term}, which it never led")
            # What was ready when it stopped leading leaves with the news of that, and nothing later.
            if node.left_ns != self.world.now_ns:
                self.fail(f"node {node.id} sends entries though it leads no more since {node.left_ns}")

    def verified(self, node: Any, message: Any) -> None:
        """What is acknowledged is an entry of the leader's log."""
        leader = self.cluster.nodes.get(node.raft.leader_id)
        index = message.match_index
        if leader is None or not leader.up or not leader.raft.leads or leader.raft.term != message.term:
            return
        if index >= len(leader.terms) or leader.terms[index] != node.terms[index]:
            self.fail(f"node {node.id} acknowledges {index}, which the leader's log does not hold")
