"""A small cluster whose every step is told: links, disks and time move when the scenario says so.

Unless something is held, messages arrive at once and in order, and disks complete at once. Time stands still but for
`wait` and `campaign`. Everything is drawn from fixed seeds, so a scenario always tells the same.
"""

from __future__ import annotations

from collections.abc import Iterable

from hiqlite.engine.model import Identity, Membership, Message, ProbeReply, ProbeRequest

from .scenario_checks import Witness
from .scenario_disk import Disk, Entry
from .scenario_node import Node, Parcel
from .scenario_words import name, told

MS = 1_000_000
START = 5000 * MS
STEPS_MAX = 20_000
Pair = tuple[int, int]


class World:
    """The nodes of a scenario, what is on its way between them, and what is told."""

    def __init__(self) -> None:
        self.now = START
        self.membership = Membership(0, ())
        self.nodes: dict[int, Node] = {}
        self.way: list[Parcel] = []
        self.held: set[Pair] = set()
        self.cut: set[Pair] = set()
        self.epoch = 0
        self.proposals = 0
        self.shown = {"event", "message"}
        self.lines: list[str] = []
        self.witness = Witness()

    # ------------------------------------------------------------------ what nodes need

    def tell(self, kind: str, text: str) -> None:
        """A line of the scenario's text, if lines of this kind are shown."""
        if kind in self.shown:
            self.lines.append(text)

    def post(self, node: Node, parcel: Parcel) -> None:
        """A node sends something."""
        self.witness.posted(node, parcel)
        pair = (parcel.source.id, parcel.target)
        lost = pair in self.cut or parcel.target not in self.nodes or self.nodes[parcel.target].dead
        kind = "round" if isinstance(parcel.message, ProbeRequest | ProbeReply) else "message"
        fate = " (lost)" if lost else " (held)" if pair in self.held else ""
        self.tell(kind, f"{name(parcel.source)}->{parcel.target} {told(parcel.message)}{fate}")
        if not lost:
            self.way.append(parcel)

    def seen(self, node: Node) -> None:
        self.witness.seen(node, list(self.nodes.values()))

    def confirmed(self, node: Node, token: int, read_index: int) -> None:
        self.witness.read_confirmed(node, token, read_index)

    # ------------------------------------------------------------------ steps

    def run(self) -> None:
        """Deliver and write until nothing more happens but what is held."""
        for _ in range(STEPS_MAX):
            for number in sorted(self.nodes):
                self.nodes[number].pump()
            parcel = next((one for one in self.way if (one.source.id, one.target) not in self.held), None)
            if parcel is None:
                self.witness.at_rest(list(self.nodes.values()))
                return
            self.way.remove(parcel)
            self.hand_over(parcel)
        raise AssertionError("the scenario does not come to rest")

    def hand_over(self, parcel: Parcel) -> None:
        """A message arrives, if somebody is there."""
        node = self.nodes[parcel.target]
        if not node.dead:
            node.deliver(parcel)

    def wait(self, span_ns: int, until: Iterable[int] = ()) -> None:
        """Time passes; deadlines are judged in their order, of all nodes or of some."""
        end = self.now + span_ns
        for _ in range(STEPS_MAX):
            alive = [self.nodes[number] for number in sorted(until or self.nodes) if not self.nodes[number].dead]
            due = min((node.raft.next_deadline() for node in alive), default=end + 1)
            if due > end:
                self.now = end
                return
            self.now = max(self.now, due)
            for node in alive:
                if node.raft.next_deadline() <= self.now:
                    node.raft.tick(self.now)
            self.run()
            self.now += 1
        raise AssertionError("deadlines do not move")

    def campaign(self, number: int) -> None:
        """Time passes until this node's election timeout, for nobody else; then its deadline is judged."""
        node = self.nodes[number]
        assert not node.raft.leads, f"node {number} leads"
        self.now = max(self.now, node.raft.state.election_deadline_ns)
        node.raft.tick(self.now)

    # ------------------------------------------------------------------ nodes

    def start(
        self, own: Identity, disk: Disk, database: list[Entry], faulty: tuple[Pair, ...] = ()
    ) -> None:
        """A process begins, with what its disk and its database hold, and is linked to all others."""
        node = Node(self, own, disk, database, faulty)
        self.nodes[own.id] = node
        self.witness.restarted(node)
        for other in sorted(self.nodes):
            if other != own.id and not self.nodes[other].dead:
                self.connect(own.id, other)

    def crash(self, number: int) -> None:
        """A process ends, with what its disk had not synced and what was on its way to it."""
        self.nodes[number].dead = True
        self.way = [parcel for parcel in self.way if parcel.target != number]
        for other, node in self.nodes.items():
            if other != number and not node.dead:
                node.raft.peer_lost(number, False, self.now)

    def connect(self, one: int, other: int) -> None:
        """A new session between two nodes; what was on its way in the one before is lost."""
        self.epoch += 1
        self.way = [parcel for parcel in self.way if {parcel.source.id, parcel.target} != {one, other}]
        for here, there in ((one, other), (other, one)):
            self.nodes[here].raft.peer_connected(there, self.epoch, self.now)

    def propose(self, number: int, count: int) -> int:
        """Entries that nobody proposed before; the first one's index, 0 if they are refused."""
        node = self.nodes[number]
        first = node.raft.propose(count, 100 * count, self.now)
        if first:
            for index in range(first, first + count):
                self.proposals += 1
                node.proposed[index] = Entry(node.raft.term, f"proposal {self.proposals}")
        return first

    def leader(self) -> Node | None:
        """Who leads the highest term that is led."""
        leading = [node for node in self.nodes.values() if node.raft.leads and not node.dead]
        return max(leading, key=lambda node: node.raft.term, default=None)

    def told_messages(self, pair: Pair) -> list[Message]:
        """What is held on a link, oldest first."""
        return [parcel.message for parcel in self.way if (parcel.source.id, parcel.target) == pair]
