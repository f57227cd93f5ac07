"""The language of scenario files: commands, and below each block of them what was to be seen.

A file is a sequence of blocks: lines of commands, a line `----`, what they tell, an empty line. `#` begins a comment.
Every method `do_...` of `Teller` is a command; its docstring says how it is written.
"""

from __future__ import annotations

from dataclasses import dataclass

from hiqlite.engine.model import Change, ChangeKind, Identity, Membership
from hiqlite.errors import UsageError

from .scenario_disk import Disk, Entry, Stored
from .scenario_node import Node, told_state
from .scenario_words import name, told
from .scenario_world import MS, Pair, World

RULE = "----"
CHANGES = {
    "add": ChangeKind.ADD_LEARNER,
    "promote": ChangeKind.PROMOTE,
    "demote": ChangeKind.DEMOTE,
    "remove": ChangeKind.REMOVE,
    "replace": ChangeKind.REPLACE,
    "voters": ChangeKind.SET_VOTERS,
}


@dataclass(slots=True)
class Block:
    """Comments and commands as they stand in the file, and what is expected of them."""

    head: list[str]
    expected: list[str]

    @property
    def commands(self) -> list[str]:
        return [line for line in self.head if line.strip() and not line.startswith("#")]


def parse(text: str) -> list[Block]:
    """The blocks of a file; comments behind the last one are a block without commands."""
    blocks: list[Block] = []
    head: list[str] = []
    lines = iter(text.splitlines())
    for line in lines:
        if line != RULE:
            head.append(line)
            continue
        expected: list[str] = []
        for told_line in lines:
            if not told_line:
                break
            expected.append(told_line)
        blocks.append(Block(head, expected))
        head = []
    assert not any(line.strip() and not line.startswith("#") for line in head), f"no {RULE} behind the last command"
    return blocks


def play(blocks: list[Block]) -> str:
    """Run all commands; the file as it should be."""
    teller = Teller()
    parts = ["\n".join([*block.head, RULE, *teller.run(block.commands)]) + "\n" for block in blocks]
    return "\n".join(parts)


class Teller:
    """Turns commands into steps of a world."""

    def __init__(self) -> None:
        self.world = World()

    def run(self, commands: list[str]) -> list[str]:
        """What a block of commands tells."""
        world = self.world
        world.lines = []
        for command in commands:
            verb, *words = command.split()
            shown = set(world.shown)
            if words[-1:] == ["quietly"]:
                words.pop()
                world.shown.discard("message")
            getattr(self, "do_" + verb.replace("-", "_"))(*words)
            world.run()
            if verb != "show":
                world.shown = shown
        return world.lines or ["nothing"]

    # ------------------------------------------------------------------ nodes

    def do_members(self, *words: str) -> None:
        """`members voters=1,2,3 learners=4`: the first membership, known to all nodes that it names."""
        given = dict(word.split("=") for word in words)
        self.world.membership = Membership(
            0, _identities(given["voters"]), _identities(given["learners"]) if "learners" in given else ()
        )

    def do_start(self, which: str, *words: str) -> None:
        """`start 1 term=3 vote=1 log=1x3,3x2 applied=2 damaged=4-5`: begin; `log` is term x count; `start all`."""
        members = self.world.membership
        if which == "all":
            for one in members.voters + members.learners:
                self.do_start(str(one.id), *words)
            return
        given = dict(word.split("=") for word in words)
        own = Identity(int(which), 1)
        known = own in members.voters + members.learners
        stored = Stored(members if known else Membership(0, ()), int(given.get("term", 0)))
        if "vote" in given:
            stored.vote = Identity(int(given["vote"]), 1)
        for run in filter(None, given.get("log", "").split(",")):
            term, count = run.split("x")
            stored.entries += [_old_entry(int(term), stored.last_index + place) for place in range(1, int(count) + 1)]
        database = stored.entries[: int(given.get("applied", 0))]
        damaged = (_span(given["damaged"]),) if "damaged" in given else ()
        self.world.start(own, Disk(stored), list(database), damaged)

    def do_lead(self, which: str) -> None:
        """`lead 1`: it is elected, and all know its first entry committed; what happens for that is not told."""
        shown, self.world.shown = self.world.shown, set()
        self.world.campaign(int(which))
        self.world.run()
        self.world.wait(10 * MS)
        self.world.shown = shown
        assert self.node(which).raft.opened, f"node {which} was to lead"
        self.world.tell("event", f"{which} leads term {self.node(which).raft.term}")

    def do_crash(self, which: str) -> None:
        """`crash 2`: the process ends; of its disk stays what it had reported as durable."""
        self.world.crash(int(which))

    def do_restart(self, which: str) -> None:
        """`restart 2`: it comes back in the same incarnation."""
        node = self.node(which, dead=True)
        self.world.start(node.own, node.disk.restart(), node.database)

    def do_wipe(self, which: str) -> None:
        """`wipe 2`: it lost its disk and comes back in a new incarnation that knows of no members."""
        node = self.node(which, dead=True)
        again = Identity(node.own.id, node.own.incarnation + 1)
        self.world.start(again, Disk(Stored(Membership(0, ()))), [])

    # ------------------------------------------------------------------ time and chance

    def do_campaign(self, which: str) -> None:
        """`campaign 1`: its election timeout passes, nobody else looks at a clock."""
        self.world.campaign(int(which))

    def do_wait(self, span: str, *nodes: str) -> None:
        """`wait 100ms`, `wait 100ms 1 2`: time passes for all nodes, or for some."""
        self.world.wait(int(span.removesuffix("ms")) * MS, [int(node) for node in nodes])

    def do_beat(self, link: str) -> None:
        """`beat 1->2`: the heartbeat thread of node 1 reaches node 2, with node 1's commit index."""
        one, other = _pair(link)
        source = self.world.nodes[one]
        term, leads = source.raft.beat_word()
        if not leads:
            self.world.tell("event", f"{one} sends no heartbeat")
        else:
            self.world.nodes[other].raft.heard_beat(
                term, one, source.own.incarnation, source.raft.commit_index, self.world.now, self.world.now
            )

    # ------------------------------------------------------------------ links and disks

    def do_cut(self, *links: str) -> None:
        """`cut 1-2 2->3`: messages are lost on these links, in both directions or in one."""
        self.world.cut |= self.pairs(links)

    def do_isolate(self, which: str) -> None:
        """`isolate 1`: all its links are cut."""
        self.do_cut(*[f"{which}-{other}" for other in sorted(self.world.nodes) if other != int(which)])

    def do_heal(self) -> None:
        """`heal`: no link is cut any more, and all that was cut are new sessions."""
        pairs = sorted({(min(pair), max(pair)) for pair in self.world.cut})
        self.world.cut.clear()
        for one, other in pairs:
            if not self.world.nodes[one].dead and not self.world.nodes[other].dead:
                self.world.connect(one, other)

    def do_reconnect(self, link: str) -> None:
        """`reconnect 1-2`: a new session; what was on its way is lost."""
        self.world.connect(*_pair(link.replace("-", "->")))

    def do_hold(self, *links: str) -> None:
        """`hold 1->2 disk 3`: messages wait on links, writes wait on disks."""
        for node in self.disks(links):
            node.disk.held = True
        self.world.held |= self.pairs(_links_only(links))

    def do_release(self, *links: str) -> None:
        """`release 1->2 disk 3`: what waited goes on, in order."""
        for node in self.disks(links):
            node.disk.held = False
        self.world.held -= self.pairs(_links_only(links))

    def do_deliver(self, link: str, which: str = "1") -> None:
        """`deliver 1->2 3`: the third of the held messages arrives, the others wait on."""
        pair = _pair(link)
        held = [parcel for parcel in self.world.way if (parcel.source.id, parcel.target) == pair]
        parcel = held[int(which) - 1]
        self.world.way.remove(parcel)
        self.world.hand_over(parcel)

    def do_drop(self, link: str) -> None:
        """`drop 1->2`: all held messages are lost."""
        pair = _pair(link)
        self.world.way = [parcel for parcel in self.world.way if (parcel.source.id, parcel.target) != pair]

    def do_sync(self, which: str, upto: str = "") -> None:
        """`sync 2 5`: its held disk reports up to io 5 as durable; without a number everything."""
        node = self.node(which)
        node.sync(int(upto) if upto else node.disk.io)

    def do_wrote(self, which: str, upto: str) -> None:
        """`wrote 2 5`: its held disk reports up to io 5 as written, but not as durable."""
        node = self.node(which)
        node.report(int(upto), node.raft.state.outbox.synced_io)

    # ------------------------------------------------------------------ what users ask for

    def do_propose(self, which: str, count: str = "1") -> None:
        """`propose 1 3`: three entries."""
        first = self.world.propose(int(which), int(count))
        if not first:
            self.world.tell("event", f"{which} refuses the proposal")

    def do_read(self, which: str) -> None:
        """`read 1`: a linearizable read."""
        node = self.node(which)
        token = node.raft.read(self.world.now)
        self.world.tell("event", f"{which} takes read {token}" if token else f"{which} refuses the read")
        if token:
            self.world.witness.read_asked(node, token)

    def do_transfer(self, link: str) -> None:
        """`transfer 1->2`: leadership is handed over."""
        one, other = _pair(link)
        if not self.world.nodes[one].raft.transfer_leadership(other, self.world.now):
            self.world.tell("event", f"{one} does not hand over to {other}")

    def do_change(self, which: str, kind: str, *members: str) -> None:
        """`change 1 replace 2 4`, also add, promote, demote, remove, voters: node 1 changes the members."""
        node = self.node(which)
        change = Change(CHANGES[kind], tuple(_identity(member) for member in members))
        try:
            index = node.raft.propose_membership(change, self.world.now)
            reason = "" if index else node.raft.change_refusal(change)
        except UsageError as error:
            self.world.tell("event", f"{which} will never do that: {error}")
            return
        assert index or reason, "done, or refused with a reason"
        if reason:
            self.world.tell("event", f"{which} refuses the change: {reason}")

    # ------------------------------------------------------------------ images

    def do_purge(self, which: str, index: str = "") -> None:
        """`purge 1 5`: the log begins behind 5, or as far as allowed."""
        node = self.node(which)
        limit = min(node.raft.purge_limit, node.raft.synced_index)
        upto = min(int(index), limit) if index else limit
        if upto > node.raft.base_index:
            node.disk.purge(upto)
            node.raft.purged(upto)
        self.world.tell("event", f"{which} holds the log from {node.raft.base_index + 1} on")

    def do_image(self, link: str, step: str) -> None:
        """`image 1->3 begin` (or `resume`), then `install` (or `receive`, later `installed`), or `fail`, `pause`."""
        one, other = _pair(link)
        source, target = self.world.nodes[one], self.world.nodes[other]
        now = self.world.now
        if step in ("begin", "resume"):
            if step == "begin":
                source.image_sent[other] = source.image()
            begun = source.raft.image_started(other, source.image_sent[other].index, now)
            verb = "sends" if begun else "does not send"
            self.world.tell("event", f"{one} {verb} the image at {self._at(one, other)}")
        elif step in ("fail", "pause"):
            source.raft.image_failed(other, step == "pause", now)
        if step in ("receive", "install"):
            target.install = source.image_sent[other]
            begun = target.raft.begin_install(target.install.index, now)
            self.world.tell("event", f"{other} {'takes' if begun else 'refuses'} the image at {self._at(one, other)}")
            if not begun:
                target.install = None
        if step in ("installed", "install") and target.install is not None:
            image = target.install
            target.database = list(image.applied)
            target.raft.installed(image.index, image.term, image.membership, now)
            target.pump()
            source.raft.image_finished(other, now)

    def _at(self, one: int, other: int) -> str:
        image = self.world.nodes[one].image_sent[other]
        return f"{image.index}/{image.term}"

    # ------------------------------------------------------------------ looking

    def do_show(self, *kinds: str) -> None:
        """`show message round disk apply`: what is told from now on, besides events."""
        self.world.shown = {"event", *kinds}

    def do_state(self, *nodes: str) -> None:
        """`state 1 2`: one line for each node, or for these."""
        for number in [int(node) for node in nodes] or sorted(self.world.nodes):
            self.world.tell("event", told_state(self.world.nodes[number]))

    def do_held(self, *links: str) -> None:
        """`held 1->2`: the messages that wait there, numbered as `deliver` wants them."""
        for link in links:
            for number, message in enumerate(self.world.told_messages(_pair(link)), 1):
                self.world.tell("event", f"{link} {number}: {told(message)}")

    def do_check(self) -> None:
        """`check`: heal and release everything; all nodes that live agree, and nothing promised was broken."""
        world = self.world
        world.shown = set()
        world.held.clear()
        for node in world.nodes.values():
            node.disk.held = False
        self.do_heal()
        for _ in range(100):
            world.run()
            leader = world.leader()
            if leader is not None and self._agree(leader):
                break
            world.wait(50 * MS)
        else:
            raise AssertionError("\n".join(told_state(node) for node in world.nodes.values()))
        world.shown = {"event"}
        world.tell("event", f"{name(leader.own)} leads, all hold and applied {leader.raft.last_index}")
        world.shown = set()

    def _agree(self, leader: Node) -> bool:
        """Whether every member that lives applied all of the leader's log."""
        last = leader.raft.last_index
        members = leader.raft.membership
        alive = [node for node in self.world.nodes.values() if not node.dead]
        counted = [node for node in alive if node.own in members.voters + members.outgoing + members.learners]
        return all((node.raft.last_index, len(node.database)) == (last, last) for node in counted)

    # ------------------------------------------------------------------ parts

    def node(self, which: str, dead: bool = False) -> Node:
        node = self.world.nodes[int(which)]
        assert node.dead == dead, f"node {which} is {'dead' if node.dead else 'alive'}"
        return node

    def pairs(self, links: tuple[str, ...]) -> set[Pair]:
        """Directed links."""
        found: set[Pair] = set()
        for link in links:
            one, other = _pair(link if "->" in link else link.replace("-", "->"))
            found |= {(one, other)} if "->" in link else {(one, other), (other, one)}
        return found

    def disks(self, links: tuple[str, ...]) -> list[Node]:
        """Whose disks are meant: the numbers behind the word `disk`."""
        return [self.world.nodes[int(word)] for word in links if word.isdigit()]


def _links_only(words: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(word for word in words if not word.isdigit() and word != "disk")


def _pair(link: str) -> Pair:
    one, other = link.split("->")
    return int(one), int(other)


def _span(text: str) -> Pair:
    first, last = text.split("-")
    return int(first), int(last)


def _identity(text: str) -> Identity:
    number, _, incarnation = text.partition(".")
    return Identity(int(number), int(incarnation or 1))


def _identities(text: str) -> tuple[Identity, ...]:
    return tuple(_identity(one) for one in text.split(","))


def _old_entry(term: int, index: int) -> Entry:
    """What a log held before the scenario: index and term name one entry."""
    return Entry(term, f"old entry {index} of term {term}")
