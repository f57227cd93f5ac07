"""A cluster of simulated nodes, its clients, and the truth: which entries were ever committed."""

from __future__ import annotations

from hiqlite.engine.model import Identity, Membership

from .checks import Checks
from .coverage import Coverage
from .disk import Disk
from .forming import form
from .network import Network
from .node import Node
from .profile import Profile
from .world import World

MS = 1_000_000


class Truth:
    """The committed log as first seen; nothing in it ever changes."""

    def __init__(self) -> None:
        self.terms: list[int] = [0]
        self.values: list[int] = [0]
        self.last = 0
        self.marks: dict[int, int] = {}  # term -> highest index committed in it


class Cluster:
    """All that one schedule consists of."""

    def __init__(self, world: World, profile: Profile) -> None:
        self.profile = profile
        self.world = world
        self.coverage = Coverage(self)
        self.truth = Truth()
        count = profile.nodes
        identities = [Identity(number, 100 + number) for number in range(1, count + profile.learners + 1)]
        voters = tuple(identities[:count])
        if profile.forming:
            voters, identities[:count] = form(self.world, count, profile.loss)
        self.membership = Membership(0, voters, tuple(identities[count:]))
        self.voter_ids = [identity.id for identity in self.membership.voters]
        self.value = 0
        self.wiped = sum(identity not in voters for identity in identities[:count])
        self.damaged = 0  # nodes that hold damaged entries
        self.lost_disks: list[Disk] = []
        self.clients_end = False
        self.checks = Checks(self)
        self.network = Network(self)
        self.nodes = {identity.id: Node(self, identity) for identity in identities}
        self.checks.prepare()

    # ------------------------------------------------------------------ life

    def start(self, node: Node) -> None:
        if not node.up:
            self.world.note(f"node {node.id} starts: applied {node.applied}, log ends at {len(node.disk.terms) - 1}")
            node.start()
            self.reach_changed()
            for peer_id in self.nodes:
                if peer_id != node.id:
                    self.world.after(self.world.below(5 * MS), self.network.connect, node.id, peer_id)

    def gone(self, node: Node) -> None:
        """A process ended. Its kernel resets its connections, unless the power went with it."""
        for peer_id in self.nodes:
            if peer_id != node.id:
                reachable = (node.id, peer_id) not in self.network.blocked
                self.network.reset(node.id, peer_id, refused=reachable)
        self.reach_changed()

    def wipe(self, node: Node) -> None:
        """The disk is lost with everything on it: the node comes back as somebody else (rule 8)."""
        self.world.note(f"node {node.id} loses its disk")
        node.identity = Identity(node.id, node.identity.incarnation + 1)
        self.lost_disks.append(node.disk)
        node.disk = Disk(self.world, self.profile)
        node.disk.owner = node.id
        node.applied = 0
        self.wiped += 1
        self.checks.wiped(node)
        self.reach_changed()

    def reach_changed(self) -> None:
        self.checks.reach_changed()

    def reaches(self, a: int, b: int) -> bool:
        """Whether messages pass both ways between two running nodes."""
        blocked = self.network.blocked
        return self.nodes[a].up and self.nodes[b].up and (a, b) not in blocked and (b, a) not in blocked

    def membership_ids(self) -> list[int]:
        return [identity.id for identity in self.membership.voters + self.membership.learners]

    def voters(self) -> list[Node]:
        """Nodes whose present incarnation is a voter; who lost its disk is none."""
        return [node for node in self.nodes.values() if node.identity in self.membership.voters]

    def voter_disks(self) -> list[Disk]:
        """The disks of the voters, also lost ones: who acknowledged and lost its disk will never vote again."""
        return [node.disk for node in self.voters()] + self.lost_disks

    def leaders(self) -> list[Node]:
        return [node for node in self.nodes.values() if node.up and node.raft.leads]

    def leader(self) -> Node | None:
        """The leader of the highest term."""
        leaders = self.leaders()
        return max(leaders, key=lambda node: node.raft.term) if leaders else None

    # ------------------------------------------------------------------ clients

    def new_values(self, count: int) -> list[int]:
        first = self.value + 1
        self.value += count
        return list(range(first, self.value + 1))

    def client(self, mean_ns: int, reads: bool) -> None:
        """Proposals or reads at random moments, at whoever believes to lead."""
        world = self.world
        if self.clients_end:
            return
        for node in self.leaders():
            if node.runs() and world.chance() < 0.8:
                if reads:
                    node.read()
                else:
                    count = 1 if world.chance() < 0.6 else 1 + world.below(6)
                    node.propose(count, 100 * count if world.chance() < 0.9 or count > 1 else 5000)
        world.after(1 + world.below(2 * mean_ns), self.client, mean_ns, reads)
