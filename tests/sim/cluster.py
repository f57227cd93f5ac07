"""A cluster of simulated nodes, its clients, and the truth: which entries were ever committed."""

from __future__ import annotations

from hiqlite.engine.model import Identity, Membership

from .byte_disk import ByteDisk
from .checks import Checks
from .coverage import Coverage
from .database import Database
from .disk import Disk
from .forming import form
from .network import Network
from .node import Node
from .profile import Profile
from .voters import voter_sets
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
        everybody = count + profile.learners + profile.spares
        identities = [Identity(number, 100 + number) for number in range(1, everybody + 1)]
        voters = tuple(identities[:count])
        if profile.forming:
            voters, identities[:count] = form(self.world, count, profile.loss)
        learners = tuple(identities[count : count + profile.learners])
        self.membership = Membership(0, voters, learners)  # the first one
        self.memberships: dict[int, Membership] = {}  # by the value of their entries
        self.value = 0
        self.lost: dict[Identity, int] = {}  # voters or not, whose disks are gone, and since when
        for one in voters:
            if one not in identities:
                self.lost[one] = 0
        self.clients_end = False
        self.checks = Checks(self)
        self.network = Network(self)
        nobody = Membership(0, ())
        members = voters + learners
        self.nodes = {one.id: Node(self, one, self.membership if one in members else nobody) for one in identities}
        self.disks: dict[Identity, Disk] = {node.identity: node.disk for node in self.nodes.values()}
        for one in self.lost:
            self.disks[one] = self.new_disk(one.id)
        self.checks.prepare()

    # ------------------------------------------------------------------ life

    def new_disk(self, owner: int) -> Disk:
        if self.profile.platter:
            return ByteDisk(self.world, self.profile, owner, lambda found: self.checks.recovered(found))
        return Disk(self.world, self.profile, owner)

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

    def look_after(self, node: Node) -> None:
        """A log that lost its promises is taken away: who comes back is somebody else."""
        if node.disk.lost:
            self.wipe(node)

    def wipe(self, node: Node) -> None:
        """The disk is lost with everything on it: the node comes back as somebody else (rule 8)."""
        self.world.note(f"node {node.id} loses its disk")
        self.lost[node.identity] = self.world.now_ns
        node.identity = Identity(node.id, node.identity.incarnation + 1)
        # Who lost its log alone knows the first members still, but is none of them any more.
        node.first_membership = self.membership if self.world.chance() < 0.5 else Membership(0, ())
        node.disk = self.new_disk(node.id)
        node.database = Database(node.first_membership)
        node.receiver.image = None
        self.disks[node.identity] = node.disk
        self.checks.wiped(node)
        self.reach_changed()

    def reach_changed(self) -> None:
        self.checks.reach_changed()

    def reaches(self, a: int, b: int) -> bool:
        """Whether messages pass both ways between two running nodes."""
        if not self.nodes[a].up or not self.nodes[b].up:
            return False
        blocked = self.network.blocked
        return not blocked or ((a, b) not in blocked and (b, a) not in blocked)

    # ------------------------------------------------------------------ members

    def membership_in(self, values: list[int], first: Membership) -> Membership:
        """The last one that a log names, `first` if it names none."""
        known = self.memberships
        if known:
            for value in reversed(values):
                found = known.get(value)
                if found is not None:
                    return found
        return first

    def voters_since(self, node: Node, commit: int) -> set[Identity]:
        """Who votes by the configuration in force at an index of a node's log, or by a later one.

        What the metadata name is not taken back by a log that lost its end (ports.py, "Start").
        """
        found: set[Identity] = set()
        recorded, known, values = node.database.recorded, self.memberships, node.values
        for position in range(len(values) - 1, recorded.index if known else len(values), -1):
            one = known.get(values[position])
            if one is not None:
                found |= set(one.voters + one.outgoing)
                if position <= commit:
                    return found
        return found | set(recorded.voters + recorded.outgoing)

    def acting(self) -> list[Membership]:
        """Every configuration by which somebody acts, or may act again once its newest one is cut."""
        found = [self.membership] if not self.memberships else []
        for node in self.nodes.values():
            values = node.values if node.up else node.disk.values
            commit = node.raft.commit_index if node.up else node.applied
            found.append(node.database.recorded)
            for value in reversed(values):
                one = self.memberships.get(value)
                if one is not None:
                    found.append(one)
                    if one.index <= commit:
                        break
        return [one for one in found if one.voters]

    def bears(self, hit: Identity | None, *also: Membership) -> bool:
        """Whether a majority of every set of voters keeps its promises though one more member breaks them."""
        broken = {node.identity for node in self.nodes.values() if node.disk.faulty} | set(self.lost)
        if hit is not None:
            broken.add(hit)
        sets = {frozenset(one) for membership in (*self.acting(), *also) for one in voter_sets(membership)}
        return all(2 * len(one & broken) < len(one) for one in sets)

    def leaders(self) -> list[Node]:
        return [node for node in self.nodes.values() if node.up and node.state.leads]

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
        """Proposals or reads at random moments, at whoever believes to lead; some reads at any member."""
        world = self.world
        if self.clients_end:
            return
        world.after(1 + world.below(2 * mean_ns), self.client, mean_ns, reads)
        if reads and world.chance() < 0.4:
            node = self.nodes[1 + world.below(len(self.nodes))]
            if node.runs() and node.identity in node.config.voters + node.config.learners:
                node.reader.begin()
            return
        for node in self.leaders():
            if node.runs() and world.chance() < 0.8:
                if reads:
                    node.read()
                else:
                    count = 1 if world.chance() < 0.6 else 1 + world.below(6)
                    node.propose(count, 100 * count if world.chance() < 0.9 or count > 1 else 5000)
