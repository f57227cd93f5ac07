"""How a simulated cluster comes to be: greetings lost or late, ends of processes and lost volumes at any moment.

Drives the engine's rules for forming as the runtime does: a step is made durable, and only then told to the rules.
Gives the identities with which the schedule goes on. Must not know Raft.
"""

from __future__ import annotations

from dataclasses import dataclass

from hiqlite.engine.forming import Forming, Greeting, Step
from hiqlite.engine.model import Identity

from .world import Violation, World

MS = 1_000_000
TROUBLE_NS = 400 * MS
CALM_NS = 3_000 * MS
LATE_NS = 300 * MS
Set = tuple[Identity, ...]


@dataclass
class Volume:
    """What survives a process; its loss makes the node somebody else."""

    identity: Identity
    recorded: Set | None = None
    formed: bool = False


class Former:
    """One node on its way, through all its lives."""

    def __init__(self, ground: Ground, number: int) -> None:
        self.ground = ground
        self.volume = Volume(Identity(number, 100 + number))
        self.life = 0
        self.up = False
        self.busy = False
        self.rules: Forming

    def start(self) -> None:
        if not self.up:
            volume = self.volume
            self.up, self.busy = True, False
            self.life += 1
            self.rules = Forming(
                volume.identity, self.ground.configured, recorded=volume.recorded, formed=volume.formed
            )
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
        for number in ground.configured:
            if number != self.volume.identity.id and (ground.calm or world.chance() > ground.loss):
                delay = world.below(5 * MS if ground.calm or world.chance() < 0.9 else LATE_NS)
                world.after(delay, ground.hear, number, self.rules.greeting())
        world.after(5 * MS + world.below(20 * MS), self.greet, life)

    def step(self) -> None:
        """One durable step at a time; a process may end before, while or after it is written."""
        if self.busy:
            return
        step = self.rules.step()
        if step in (Step.RECORD, Step.FORM):
            self.busy = True
            world = self.ground.world
            written, told = world.below(4 * MS), world.below(4 * MS)
            world.after(written, self.write, self.life, step, self.rules.proposal, told)

    def write(self, life: int, step: Step, proposal: Set, told: int) -> None:
        if life != self.life:
            return
        if step is Step.RECORD:
            self.volume.recorded = proposal
        else:
            self.volume.formed = True
            self.ground.formed(self)
        self.ground.world.after(told, self.written, life, step, proposal)

    def written(self, life: int, step: Step, proposal: Set) -> None:
        if life == self.life:
            self.busy = False
            if step is Step.RECORD:
                self.rules.has_recorded(proposal)
            else:
                self.rules.has_formed()
            self.step()


class Ground:
    """All nodes before there is a cluster, and what must hold among them."""

    def __init__(self, world: World, count: int, loss: float) -> None:
        self.world = world
        self.configured = tuple(range(1, count + 1))
        self.loss = loss
        self.calm = False
        self.sets: list[Set] = []  # that act
        self.nodes = {number: Former(self, number) for number in self.configured}

    def hear(self, number: int, greeting: Greeting) -> None:
        node = self.nodes[number]
        if node.up:
            node.rules.hear(greeting)
            node.step()

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
        """A recorded set names somebody who lost its volume, and nobody who acts is left, or no majority of it is."""
        recorded = [node.volume.recorded or () for node in self.nodes.values()]
        gone = any(self.nodes[one.id].volume.identity != one for voters in recorded for one in voters)
        acts = any(node.volume.formed for node in self.nodes.values())
        return gone and (not acts or 2 * len(self.lost()) >= len(self.sets[-1]))

    def begin_anew(self) -> None:
        """What the operator does then: all processes end, all volumes are emptied, nothing old is on its way."""
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
    """The set that acts, and who the nodes are by now; raises Violation when they do not agree in time."""
    ground = Ground(world, count, loss)
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
    return ground.sets[-1], [node.volume.identity for node in ground.nodes.values()]
