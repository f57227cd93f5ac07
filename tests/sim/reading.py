"""Linearizable reads as a node serves them: an index from whoever leads, the wait until it is applied here, the read.

Does what the runtime does on every node, leader or not. Reads that come while a round is under way share the next one;
a round that brings no index is asked for again. Must not judge what is read. Invariant: a read is served once, or ends
with its process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .node import Node

MS = 1_000_000
SILENCE_NS = 300 * MS  # then whoever was asked is given up
FAILED = 0  # in place of an index: no entry stands there


class Reader:
    """The reads of one process."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.life = node.life
        self.number = node.life << 32  # of the newest try; none is that of another life
        self.coming: list[int] = []  # reads that wait for a round: what was committed when each began
        self.joined: list[int] = []  # those that share the one under way
        self.waiting: list[tuple[int, int]] = []  # (read index, what was committed), until that is applied
        self.owed: dict[int, tuple[int, int]] = {}  # token of the engine -> (node, its try) that is told the index

    @property
    def busy(self) -> bool:
        return bool(self.joined or self.waiting)

    # ------------------------------------------------------------------ who reads

    def begin(self) -> None:
        """A caller wants to read."""
        self.coming.append(self.node.cluster.truth.last)
        if not self.joined:
            self._next_round()

    def _next_round(self) -> None:
        """Takes along who came until now, and nobody later."""
        self.joined, self.coming = self.coming, []
        if self.joined:
            self._ask()

    def _ask(self) -> None:
        node = self.node
        self.number += 1
        leader_id = node.raft.leader_id
        if leader_id == node.id:
            self.answer(node.id, self.number)
        elif leader_id:
            leader = node.cluster.nodes[leader_id]
            node.cluster.network.send_bulk(node, leader_id, _asked, leader, node.id, self.number)
            node.world.after(SILENCE_NS, self._ask_again, self.number)
        else:
            self.answered(self.number, FAILED)

    def _ask_again(self, number: int) -> None:
        if self.node.life != self.life or number != self.number or not self.joined:
            return
        if self.node.runs():
            self.node.cluster.coverage.note("reads", "asked again")
            self._ask()
        else:
            self.node.world.after(20 * MS, self._ask_again, number)

    def answered(self, number: int, index: int) -> None:
        """What came of a try; of one that was given up nothing counts."""
        if number != self.number or not self.joined:
            return
        if index == FAILED:
            heartbeat_ns = self.node.cluster.profile.settings.heartbeat_interval_ms * MS
            self.node.world.after(heartbeat_ns, self._ask_again, number)
            return
        self.waiting += [(index, floor) for floor in self.joined]
        self.serve("at once")
        self._next_round()

    def serve(self, when: str = "when it was applied") -> None:
        """Whatever waited for no more than what is applied."""
        node, applied = self.node, self.node.applied
        ready = [(index, floor) for index, floor in self.waiting if index <= applied]
        self.waiting = [(index, floor) for index, floor in self.waiting if index > applied]
        for index, floor in ready:
            node.checks.read_served(node, index, floor)
            node.cluster.coverage.note("reads", f"{node.raft.role.name.lower().replace('_', '-')} serves {when}")

    # ------------------------------------------------------------------ who leads

    def answer(self, node_id: int, number: int) -> None:
        """Another node asks, or this one does: the engine confirms by a round, if it leads."""
        token = self.node.queue_read()
        if not token:
            self.tell(node_id, number, FAILED)
            return
        self.owed[token] = (node_id, number)
        self.node.world.after(0, self.node.planned_turn, self.life)

    def confirmed(self, token: int, index: int) -> None:
        if token in self.owed:
            self.tell(*self.owed.pop(token), index)

    def tell(self, node_id: int, number: int, index: int) -> None:
        if node_id == self.node.id:
            self.answered(number, index)
        else:
            asker = self.node.cluster.nodes[node_id]
            self.node.cluster.network.send_bulk(self.node, node_id, _answered, asker, number, index)


def _asked(leader: Node, node_id: int, number: int) -> None:
    leader.reader.answer(node_id, number)


def _answered(node: Node, number: int, index: int) -> None:
    node.reader.answered(number, index)
