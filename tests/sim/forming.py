"""How a simulated cluster comes to be: greetings lost or late, ends of processes and lost volumes at any moment.

Drives the rules for forming and for giving a set up as the runtime does: a step is made durable, and only then told to
the rules. Gives the identities with which the schedule goes on. Must not know Raft but for its votes: who formed asks
for them now and then, so that two sets that both act would have two leaders.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from hiqlite.engine.forming import Forming, Greeting, Step
from hiqlite.engine.model import Identity
from hiqlite.runtime.renouncing import Renouncing, next_life

from .world import Violation, World

MS = 1_000_000
TROUBLE_NS = 400 * MS
CALM_NS = 3_000 * MS
LATE_NS = 300 * MS
Set = tuple[Identity, ...]


@lru_cache(maxsize=256)
def name_of(voters: Sequence[Identity]) -> bytes:
    """How a set is spoken of; the product hashes it."""
    return repr(sorted(voters)).encode()


@dataclass
class Volume:
    """What survives a process; its loss makes the node somebody else."""

    identity: Identity
    recorded: Set | None = None
    formed: bool = False
    renounced: bytes = b""
    term: int = 0


class Former:
    """One node on its way, through all its lives."""

    def __init__(self, ground: Ground, number: int) -> None:
        self.ground = ground
        self.volume = Volume(Identity(number, 100 + number))
        self.life = 0
        self.up = False
        self.busy = False
        self.rules: Forming
        self.renouncing: Renouncing
        self.lives: dict[int, int] = {}  # of each peer the newest process that was heard of
        self.heard: dict[int, Greeting] = {}  # the newest word of each peer
        self.gave_up: set[tuple[int, bytes]] = set()  # who gave up which set, as far as it was heard
        self.votes: set[Identity] = set()  # of the campaign under way

    def start(self) -> None:
        if not self.up:
            volume = self.volume
            self.up, self.busy = True, False
            self.life += 1
            self.rules = Forming(
                volume.identity, self.ground.configured, recorded=volume.recorded, formed=volume.formed
            )
            self.heard, self.gave_up = {}, set()
            self.renouncing = Renouncing(volume.identity.id, name_of, volume.renounced)
            self.greet(self.life)
            self.step()

    def crash(self) -> None:
        self.up = False
        self.life += 1

    def lose_volume(self) -> None:
        self.crash()
        self.volume = Volume(Identity(self.volume.identity.id, self.volume.identity.incarnation + 1000))

    def greet(self, life: int) -> None:
        ground, world = self.ground, self.ground.world
        if life != self.life:
            return
        self.say(ground.hear, self.rules.greeting(), self.renouncing.renounced, life)
        if self.volume.formed and world.chance() < 0.1:
            self.volume.term += 1
            self.votes = set()
            self.vote(self.volume.term, self.volume.identity, self)
            self.say(ground.vote, self.volume.term, self.volume.identity, self)
        self.step()
        world.after(5 * MS + world.below(20 * MS), self.greet, life)

    def say(self, call: Callable[..., None], *words: object) -> None:
        """To all others; it may be lost, or come late."""
        ground, world = self.ground, self.ground.world
        for number in ground.configured:
            if number != self.volume.identity.id and (ground.calm or world.chance() > ground.loss):
                delay = world.below(5 * MS if ground.calm or world.chance() < 0.9 else LATE_NS)
                world.after(delay, call, number, *words)

    def hear(self, greeting: Greeting, renounced: bytes, life: int) -> None:
        newest = self.lives.get(greeting.identity.id, 0)
        if self.ground.ordered and life < newest:
            return
        if self.up:
            self.lives[greeting.identity.id] = max(life, newest)
            self.heard[greeting.identity.id] = greeting
            self.gave_up.add((greeting.identity.id, renounced))
            self.rules.hear(self.renouncing.hear(greeting, renounced))
            self.step()

    def step(self) -> None:
        """One durable step at a time; a process may end before, while or after it is written."""
        if self.busy:
            return
        volume, recorded = self.volume, self.volume.recorded
        step = self.renouncing.allowed(self.rules.step(), recorded)
        self.check(step)
        if step is Step.RECORD:
            self.make(replace(volume, recorded=self.rules.proposal))
        elif step is Step.FORM:
            self.make(replace(volume, formed=True))
        elif step is Step.WAIT and self.ground.leaves and recorded is not None:
            if self.renouncing.should_renounce(recorded, self.ground.configured):
                self.make(replace(volume, renounced=name_of(recorded)))
            elif self.renouncing.should_leave(recorded):
                own = Identity(volume.identity.id, next_life(volume.identity.incarnation))
                self.make(Volume(own, renounced=volume.renounced))

    def check(self, step: Step) -> None:
        """Nobody founds a second group knowing of one, nor acts first by the words of such as gave the set up."""
        if step is not Step.RECORD and step is not Step.FORM:
            return
        formed = [one.recorded for one in self.heard.values() if one.formed]
        if step is Step.RECORD and self.rules.own not in self.rules.proposal:
            raise Violation("forming", f"{self.rules.own} records a set that it is not in: {self.rules.proposal}")
        adopted = any(one.recorded == self.rules.proposal for one in self.heard.values())
        if step is Step.RECORD and formed and not adopted:
            raise Violation("forming", f"{self.rules.own} founds {self.rules.proposal}, knowing that {formed} acts")
        recorded = self.volume.recorded
        if step is Step.FORM and recorded not in formed:
            assert recorded is not None
            gave_up = self.gave_up | {(self.rules.own.id, self.volume.renounced)}
            if any((one.id, name_of(recorded)) in gave_up for one in recorded):
                raise Violation("forming", f"{self.rules.own} acts by {recorded}, knowing that it was given up")

    def make(self, volume: Volume) -> None:
        """Durable after a while, and known to be a while later."""
        self.busy = True
        world = self.ground.world
        world.after(world.below(4 * MS), self.write, self.life, volume, world.below(4 * MS))

    def write(self, life: int, volume: Volume, told: int) -> None:
        if life != self.life:
            return
        before, self.volume = self.volume, volume
        volume.term = 0 if volume.identity != before.identity else before.term
        if volume.formed:
            self.ground.formed(self)
        if volume.renounced != before.renounced:
            self.ground.renounced.add((before.identity, volume.renounced))
        if volume.identity != before.identity:
            self.ground.left(before)
        self.ground.world.after(told, self.written, life, volume)

    def written(self, life: int, volume: Volume) -> None:
        if life != self.life:
            return
        self.busy = False
        if volume.identity != self.rules.own:  # nothing goes on of who it was
            self.crash()
            self.start()
            return
        self.renouncing.renounced = volume.renounced
        if volume.recorded is not None and self.rules.recorded is None:
            self.rules.has_recorded(volume.recorded)
        if volume.formed:
            self.rules.has_formed()
        self.step()

    def vote(self, term: int, candidate: Identity, asker: Former) -> None:
        """Only who has formed has an engine; it grants its vote to strangers too."""
        own = asker is self
        if self.up and self.volume.formed and (own or term > self.volume.term):
            self.volume.term = term
            if own:
                asker.elected(term, self.volume.identity)
            elif self.ground.calm or self.ground.world.chance() > self.ground.loss:
                self.ground.world.after(self.ground.world.below(5 * MS), asker.elected, term, self.volume.identity)

    def elected(self, term: int, voter: Identity) -> None:
        volume = self.volume
        if not self.up or volume.term != term or volume.recorded is None or voter not in volume.recorded:
            return
        self.votes.add(voter)
        if 2 * len(self.votes) > len(volume.recorded):
            self.ground.leads(self, term)


class Ground:
    """All nodes before there is a cluster, and what must hold among them.

    Args:
        leaves: whether a set that cannot form is left.
        ordered: whether nothing is heard of a process once one that came after it was heard; its links are closed then.
            Otherwise a node may take an earlier life of another one for its newest: which must do no harm, though a set
            may be left that could have acted.
    """

    def __init__(self, world: World, count: int, loss: float, *, leaves: bool = False, ordered: bool = False) -> None:
        self.world = world
        self.configured = tuple(range(1, count + 1))
        self.loss = loss
        self.leaves = leaves
        self.ordered = ordered
        self.calm = False
        self.sets: list[Set] = []  # that act
        self.renounced: set[tuple[Identity, bytes]] = set()  # durably
        self.leaders: dict[int, tuple[Identity, Set]] = {}  # of each term the newest
        self.departed = self.anew = 0  # how often a set was left, and how often all was emptied
        self.nodes = {number: Former(self, number) for number in self.configured}

    def hear(self, number: int, greeting: Greeting, renounced: bytes, life: int) -> None:
        self.nodes[number].hear(greeting, renounced, life)

    def vote(self, number: int, term: int, candidate: Identity, asker: Former) -> None:
        self.nodes[number].vote(term, candidate, asker)

    def leads(self, node: Former, term: int) -> None:
        """There is one leader of a term, unless nothing is left of the set of the one before."""
        own, voters = node.volume.identity, node.volume.recorded
        assert voters is not None
        before, its_voters = self.leaders.get(term, (own, voters))
        volumes = [self.nodes[one.id].volume for one in its_voters]
        left = [one.identity for one in volumes if one.identity in its_voters and one.formed]
        if before != own and left:
            raise Violation("one leader of a term", f"{own} of {voters}, and {before} of {its_voters}, in term {term}")
        self.leaders[term] = own, voters

    def may_act(self, volume: Volume, one: Identity, voters: Set) -> bool:
        """Whether it is that member, with the set or with none yet."""
        return volume.identity == one and volume.recorded in (None, voters)

    def left(self, before: Volume) -> None:
        """A node is no member of its set any more: those that may act by that by themselves are no majority."""
        voters = before.recorded
        assert voters is not None
        set_id = name_of(voters)
        rest = [
            one for one in voters
            if self.may_act(self.nodes[one.id].volume, one, voters) and (one, set_id) not in self.renounced
        ]  # fmt: skip
        if before.formed or (self.ordered and 2 * len(rest) > len(voters)):
            raise Violation("a set is left that can act", f"{before.identity} left {voters}, {rest} may act by it")
        self.departed += 1

    def formed(self, node: Former) -> None:
        """A set begins to act: no other one may, unless nothing is left of that."""
        mine = node.volume.recorded
        assert mine is not None
        if node.volume.identity not in mine:
            raise Violation("forming", f"{node.volume.identity} acts in a set that it is not in: {mine}")
        for other in self.sets:
            left = [one for one in other if self.nodes[one.id].volume.identity == one]
            if other != mine and left:
                raise Violation("forming", f"{mine} acts, and so do {left} of {other}")
        if mine not in self.sets:
            self.sets.append(mine)

    def strike(self) -> None:
        if self.calm:
            return
        node = self.nodes[1 + self.world.below(len(self.nodes))]
        chance = self.world.chance()
        if not node.up:
            node.start()
        elif chance < 0.5:
            node.crash()
        elif (chance < 0.7 and not self.sets) or (chance < 0.75 and len(self.lost()) < (len(self.nodes) - 1) // 2):
            node.lose_volume()
        self.world.after(1 + self.world.below(25 * MS), self.strike)

    def lost(self) -> list[Identity]:
        """Members of the acting set whose volumes are gone."""
        return [one for one in (self.sets[-1] if self.sets else ()) if self.nodes[one.id].volume.identity != one]

    def stuck(self) -> bool:
        """A recorded set names somebody who is gone, and nobody who acts is left, or no majority of it is.

        Where sets are left by themselves, only who acts with too few others is stuck.
        """
        recorded = [node.volume.recorded or () for node in self.nodes.values()]
        gone = any(self.nodes[one.id].volume.identity != one for voters in recorded for one in voters)
        acts = any(node.volume.formed for node in self.nodes.values())
        return gone and (2 * len(self.lost()) >= len(self.sets[-1]) if acts else not self.leaves)

    def begin_anew(self) -> None:
        """What the operator does then: all processes end, all volumes are emptied, nothing old is on its way."""
        self.anew += 1
        for node in self.nodes.values():
            node.lose_volume()
        self.world.run_until(self.world.now_ns + LATE_NS)
        self.start_all()

    def start_all(self) -> None:
        for node in self.nodes.values():
            node.start()

    def all_formed(self) -> bool:
        """Every node acts that the acting set names; who lost its volume since has to be added later."""
        acting = self.sets[-1] if self.sets else ()
        left = [node for node in self.nodes.values() if node.volume.identity in acting]
        return 2 * len(left) > len(acting) and all(node.volume.formed for node in left)


def form(world: World, count: int, loss: float) -> tuple[Set, list[Identity]]:
    """The set that acts, and who the nodes are by now; raises Violation when they do not agree in time.

    Half of the groups are such as leave a set that cannot form.
    """
    ground = Ground(world, count, loss, leaves=world.chance() < 0.5, ordered=world.chance() < 0.5)
    found(ground)
    return ground.sets[-1], [node.volume.identity for node in ground.nodes.values()]


def found(ground: Ground) -> None:
    """Until the group has formed; all processes have ended then."""
    world = ground.world
    for node in ground.nodes.values():
        world.after(world.below(50 * MS), node.start)
    world.after(world.below(30 * MS), ground.strike)
    world.run_until(world.now_ns + TROUBLE_NS)
    ground.calm = True
    end_ns = world.now_ns + CALM_NS
    ground.start_all()
    while not ground.all_formed():
        if world.now_ns >= end_ns:
            reasons = {node.volume.identity: node.rules.reason for node in ground.nodes.values()}
            raise Violation("forming ends", f"after {CALM_NS // MS} ms without a fault: {reasons}")
        if ground.stuck():
            ground.begin_anew()
        world.run_until(world.now_ns + 20 * MS)
    for node in ground.nodes.values():
        node.crash()
