"""Random schedules over engines in memory: late disks, lost links, crashes, changes of members, transfers, images.

What must hold is checked after every step (`Checks`); a schedule is drawn from one seed and ends in peace, in which
the members that are left have to elect, commit and agree.
"""

from __future__ import annotations

from collections import deque
from itertools import pairwise
from random import Random
from typing import Any

from hiqlite.config import RaftSettings
from hiqlite.engine.model import Change, ChangeKind, Identity, Membership
from hiqlite.errors import UsageError
from tests.engine.fuzz_member import LOST_TERM, Member

MS = 1_000_000
IDS = 5


class Checks:
    """Election safety, log matching, leader completeness, state machine safety, quorums that intersect."""

    def __init__(self) -> None:
        self.leaders: dict[int, Identity] = {}
        self.known: dict[tuple[int, int], Any] = {}  # (index, term) -> (value, term of the entry before)
        self.truth: list[Any] = [None]
        self.terms: list[int] = [0]
        self.configurations: dict[int, Membership] = {}

    def wrote(self, member: Member, first: int, entries: list[Any]) -> None:
        """Log matching: an index and a term name one entry, and one history before it."""
        previous = member.memory.term(first - 1)
        for index, (term, value) in enumerate(entries, first):
            entry = (value, previous if previous >= 0 else None)
            known = self.known.setdefault((index, term), entry)
            assert known[0] == value, f"({index}, term {term}) is {known[0]} and {value}"
            assert None in (known[1], entry[1]) or known[1] == entry[1], f"two histories before ({index}, term {term})"
            assert previous <= term, f"terms fall at {index} of node {member.id}"
            previous = term

    def stepped(self, member: Member) -> None:
        raft = member.raft
        if raft.leads and not member.was_leader:
            assert self.leaders.setdefault(raft.term, raft.identity) == raft.identity, f"two leaders in {raft.term}"
            self.holds_all(member)
        member.was_leader = raft.leads
        trail = member.memory
        assert trail.last == raft.last_index
        assert raft.faulty or trail.term(trail.last) == raft.last_term
        newest = [value for _, value in trail.entries if isinstance(value, Membership)]
        if newest and not raft.faulty:
            assert raft.membership == newest[-1], f"node {member.id} does not act by {newest[-1]}"
        for before, after in pairwise(newest):
            if any(before.index < low < after.index for low, _ in raft.faulty):
                continue  # the one between them may be what is damaged
            assert sets(before) & sets(after), f"{before} and {after} share no set of voters"

    def changed(self, member: Member) -> None:
        """A leader appends a configuration: the one before it is committed (rule 6)."""
        for index, (_, value) in enumerate(member.memory.entries, member.memory.base + 1):
            assert not isinstance(value, Membership) or index <= member.raft.commit_index, f"{value} is not through"

    def holds_all(self, member: Member) -> None:
        """Leader completeness: what is committed is in the log of every later leader."""
        trail = member.memory
        for index in range(trail.base, len(self.truth)):
            if self.terms[index] < member.raft.term:
                # What an image stands for need not be readable in the log below it.
                assert index <= trail.last and trail.term(index) in (self.terms[index], LOST_TERM), (
                    f"node {member.id} leads term {member.raft.term} without ({index}, term {self.terms[index]})"
                )

    def committed(self, member: Member) -> None:
        if member.raft.state.outbox.writes:
            return  # the cut that made room for what is committed comes with the next Ready
        trail = member.memory
        commit = min(member.raft.commit_index, trail.last)
        for index in range(max(member.commit_seen, trail.base) + 1, commit + 1):
            if any(low <= index <= high for low, high in member.raft.faulty):
                continue
            entry = trail.at(index)
            if index < len(self.truth):
                assert (self.terms[index], self.truth[index]) == entry, f"another entry is committed at {index}"
            elif index == len(self.truth):
                self.terms.append(entry[0])
                self.truth.append(entry[1])
        member.commit_seen = max(member.commit_seen, member.raft.commit_index)

    def applied(self, member: Member, first: int, last: int) -> None:
        assert member.database[first : last + 1] == self.truth[first : last + 1], f"node {member.id} applied otherwise"


def sets(membership: Membership) -> set[frozenset[Identity]]:
    """The voter sets of a configuration."""
    return {frozenset(one) for one in (membership.voters, membership.outgoing) if one}


class FuzzGroup:
    """The members, the links between them, and what chance does to both."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.now = 10**10
        self.settings = RaftSettings(
            frame_bytes_max=1024, window_bytes=4096, memory_window_bytes=8192, window_frames=1 + seed % 4
        )
        self.checks = Checks()
        count = self.random.choice([1, 1, 2, 3, 3, 3, 4, 5])
        first = Membership(0, tuple(Identity(number, 1) for number in range(1, count + 1)))
        nobody = Membership(0, ())
        self.members = {
            number: Member(self, Identity(number, 1), first if number <= count else nobody)
            for number in range(1, IDS + 1)
        }
        self.queues: dict[tuple[int, int, str], deque[Any]] = {}
        self.links: dict[frozenset[int], int] = {}
        self.epoch = 0
        self.tasks: list[Any] = []
        self.value = 0
        self.lost_id = 0  # whose old incarnation may still count: no second disk is lost meanwhile
        self.peace = False
        self.counted: dict[str, int] = {}
        for member in self.members.values():
            member.start()
        self.connect_all()

    # ------------------------------------------------------------------ links

    def connect_all(self) -> None:
        for a in self.members:
            for b in self.members:
                if a < b:
                    self.connect(a, b)

    def connect(self, a: int, b: int) -> None:
        pair = frozenset((a, b))
        if pair in self.links or not (self.members[a].up and self.members[b].up):
            return
        self.epoch += 1
        self.links[pair] = self.epoch
        for one, other in ((a, b), (b, a)):
            self.members[one].raft.peer_connected(other, self.epoch, self.now)
            self.members[one].turn()

    def cut(self, a: int, b: int) -> None:
        if self.links.pop(frozenset((a, b)), 0):
            for key in [key for key in self.queues if key[:2] in ((a, b), (b, a))]:
                del self.queues[key]
            for one, other in ((a, b), (b, a)):
                if self.members[one].up:
                    self.members[one].raft.peer_lost(other, not self.members[other].up, self.now)
                    self.members[one].turn()

    def send(self, member: Member, peer_id: int, message: Any, body: list[Any]) -> None:
        if frozenset((member.id, peer_id)) in self.links:
            kind = "log" if type(message).__name__.startswith("Append") else "control"
            self.queues.setdefault((member.id, peer_id, kind), deque()).append((message, body))

    def deliver(self, key: tuple[int, int, str]) -> None:
        message, body = self.queues[key].popleft()
        if not self.queues[key]:
            del self.queues[key]
        member = self.members[key[1]]
        member.body = body
        member.body_first = getattr(message, "previous_index", getattr(message, "first", 1) - 1) + 1
        member.raft.receive(message, self.now)
        member.turn()

    # ------------------------------------------------------------------ work that takes time

    def later(self, member: Member, kind: str, what: Any) -> None:
        self.tasks.append((member, member.life, kind, what))

    def run_task(self, position: int) -> None:
        member, life, kind, what = self.tasks.pop(position)
        if not member.up or member.life != life:
            return
        raft = member.raft
        if kind == "fetch":
            last = min(what.first + self.random.randint(0, 4), member.memory.last)
            held = member.memory.part(what.first, last) if what.first > member.memory.base else []
            if not held or any(term == LOST_TERM for term, _ in held):
                last = what.first - 1  # purged meanwhile, or unreadable
            raft.entries_fetched(what.peer_id, what.first, last, 100, self.now)
        elif kind == "image":
            index = len(member.database) - 1
            if index >= member.memory.base and raft.image_started(what.peer_id, index, self.now):
                self.later(member, "install", (what.peer_id, index, self.membership_at(member, index)))
        else:
            self.install(member, *what)
        member.turn()

    def membership_at(self, member: Member, index: int) -> Membership:
        found = member.stored
        for entry in member.memory.entries[: index - member.memory.base]:
            if isinstance(entry[1], Membership):
                found = entry[1]
        assert member.raft.membership_at(index) == found, "the engine knows its history"
        return found

    def install(self, leader: Member, peer_id: int, index: int, membership: Membership) -> None:
        peer = self.members[peer_id]
        linked = frozenset((leader.id, peer_id)) in self.links
        if not linked or self.fails():
            leader.raft.image_failed(peer_id, self.random.random() < 0.5, self.now)
            return
        if peer.raft.begin_install(index, self.now):
            peer.turn()
            if self.fails():
                peer.raft.install_failed(self.now)
                leader.raft.image_failed(peer_id, True, self.now)
                peer.turn()
                return
            self.count("installs")
            peer.database = list(self.checks.truth[: index + 1])
            peer.database_terms = list(self.checks.terms[: index + 1])
            peer.image_membership = membership
            peer.raft.installed(index, self.checks.terms[index], membership, self.now)
            peer.commit_seen = max(peer.commit_seen, index)
            peer.turn()
        leader.raft.image_finished(peer_id, self.now)

    def fails(self) -> bool:
        return not self.peace and self.random.random() < 0.2

    # ------------------------------------------------------------------ steps

    def step(self) -> None:
        random = self.random
        draw = random.random()
        if draw < 0.55 and self.queues:
            for _ in range(random.randint(1, 6)):
                if self.queues:
                    self.deliver(random.choice(list(self.queues)))
        elif draw < 0.75:
            member = self.someone()
            if member and member.pending:
                member.advance_disk(random.randint(0, len(member.pending)), random.randint(0, len(member.pending)))
        elif draw < 0.85:
            self.pass_time(random.choice([1, 5, 20, 20, 120]) * MS)
        elif draw < 0.89 and self.tasks:
            self.run_task(random.randrange(len(self.tasks)))
        elif draw < 0.94:
            leader = self.leader()
            if leader:
                self.propose(leader, random.randint(1, 4))
        elif draw < 0.965:
            self.change_members()
        else:
            self.disturb()

    def someone(self) -> Member | None:
        running = [member for member in self.members.values() if member.up]
        return self.random.choice(running) if running else None

    def leader(self) -> Member | None:
        leaders = [member for member in self.members.values() if member.up and member.raft.leads]
        return self.random.choice(leaders) if leaders else None

    def pass_time(self, span_ns: int) -> None:
        self.now += span_ns
        for member in self.members.values():
            if member.up and member.raft.next_deadline() <= self.now:
                member.raft.tick(self.now)
                member.turn()

    def propose(self, leader: Member, count: int) -> int:
        first: int = leader.raft.propose(count, 100 * count, self.now)
        if first:
            values = list(range(self.value + 1, self.value + count + 1))
            self.value += count
            leader.memory.put(first, [(leader.raft.term, value) for value in values])
        leader.turn()
        return first

    def change_members(self) -> None:
        leader = self.leader()
        if leader is None:
            return
        random, current = self.random, leader.raft.membership
        if random.random() < 0.2:
            self.count("transfers", leader.raft.transfer_leadership(random.choice([0, *self.members]), self.now))
            leader.turn()
            return
        kind = random.choice([*ChangeKind, ChangeKind.ADD_LEARNER, ChangeKind.PROMOTE, ChangeKind.PROMOTE])
        identities = [member.identity for member in self.members.values()]
        if current.learners and random.random() < 0.5:
            kind = random.choice([ChangeKind.PROMOTE, ChangeKind.REPLACE, ChangeKind.SET_VOTERS])
            identities = [one for one in identities if one in current.learners or one in current.voters]
        if kind is ChangeKind.SET_VOTERS:
            members = tuple(random.sample(identities, random.randint(1, len(identities))))
        elif kind is ChangeKind.REPLACE:
            members = (random.choice(current.voters), random.choice([*current.learners, *identities]))
        elif kind is ChangeKind.PROMOTE:
            members = (random.choice([*current.learners, *identities]),)
        else:
            members = (random.choice([*identities, *current.voters, *current.learners]),)
        if self.lost_id:  # a group that is short of one voter replaces it before anything else
            lost = self.members[self.lost_id].identity
            kind = ChangeKind.PROMOTE if lost in current.learners else ChangeKind.ADD_LEARNER
            members = (lost,)
            if lost in current.voters and not current.joint and current.index <= leader.raft.commit_index:
                self.lost_id = 0
        try:
            index = leader.raft.propose_membership(Change(kind, members), self.now)
        except UsageError:
            return
        self.count(kind.name, index > 0)
        leader.turn()

    def disturb(self) -> None:
        random = self.random
        draw = random.random()
        a, b = random.sample(list(self.members), 2)
        member = self.members[a]
        if draw < 0.3:
            self.cut(a, b)
        elif draw < 0.65:
            self.connect(a, b)
        elif draw < 0.75 and member.up:
            self.crash(member, random.random() < 0.5)
        elif draw < 0.9 and not member.up:
            self.restart(member, random.random() < 0.3)
        elif draw < 0.95 and member.up:
            limit = member.raft.purge_limit
            if limit > member.memory.base and limit <= member.disk.last:
                self.purge(member, random.randint(member.memory.base + 1, limit))
        elif draw < 0.97 and member.up:
            member.raft.disk_full(random.random() < 0.5, self.now)
            member.turn()
        elif not member.up and self.may_lose_disk():
            self.lose_disk(member)

    def crash(self, member: Member, power_loss: bool) -> None:
        for other in self.members:
            if other != member.id:
                self.cut(member.id, other)
        member.crash(power_loss)
        for other_member in self.members.values():
            if other_member.up:
                other_member.raft.peer_lost(member.id, True, self.now)
                other_member.turn()

    def restart(self, member: Member, damage: bool) -> None:
        if damage and len(member.disk.entries) > 1 and self.may_lose_disk():
            index = self.random.randint(member.disk.base + 1, member.disk.last)
            unknown = self.random.random() < 0.5
            member.lost = [(index, index, unknown)]
            term = -1 if unknown else member.disk.term(index)
            member.disk.put(index, [(term, "damaged")])
            self.count("damages")
        member.start()
        for other in self.members:
            if other != member.id and self.random.random() < 0.8:
                self.connect(member.id, other)

    def short(self) -> bool:
        """Whether a promise of somebody is out of reach already: a second one may be more than a majority bears."""
        return bool(self.lost_id) or any(member.lost for member in self.members.values())

    def purge(self, member: Member, index: int) -> None:
        member.stored = self.membership_at(member, index)
        member.raft.purged(index)
        member.memory.compact(index)
        member.disk.compact(index)
        member.lost = [one for one in member.lost if one[0] > index]
        member.turn()
        self.count("purges")

    def may_lose_disk(self) -> bool:
        """A majority of every configuration that anybody acts by keeps its promises."""
        if self.short():
            return False
        memberships = [one.raft.membership for one in self.members.values() if hasattr(one, "raft")]
        return all(len(one) > 2 for membership in memberships for one in sets(membership))

    def lose_disk(self, member: Member) -> None:
        """It comes back as somebody else and knows nothing (rule 8)."""
        self.lost_id = member.id
        fresh = Member(self, Identity(member.id, member.identity.incarnation + 1), Membership(0, ()))
        fresh.life = member.life + 1
        self.members[member.id] = fresh
        self.restart(fresh, False)
        self.count("lost disks")

    def count(self, name: str, happened: bool = True) -> None:
        self.counted[name] = self.counted.get(name, 0) + happened

    @staticmethod
    def without(lost: list[tuple[int, int, bool]], first: int, last: int) -> list[tuple[int, int, bool]]:
        return [one for one in lost if one[1] < first or one[0] > last]

    # ------------------------------------------------------------------ peace

    def settle(self, rounds: int) -> None:
        """Everything arrives, every disk completes, time passes."""
        for _ in range(rounds):
            for _ in range(60):
                busy = False
                for key in list(self.queues):
                    while key in self.queues:
                        self.deliver(key)
                        busy = True
                for member in self.members.values():
                    if member.pending:
                        member.advance_disk(len(member.pending), len(member.pending))
                        busy = True
                while self.tasks:
                    self.run_task(0)
                    busy = True
                if not busy:
                    break
            self.pass_time(10 * MS)

    def end(self) -> None:
        """Faults are over: whoever counts elects, commits and agrees."""
        self.peace = True
        for member in self.members.values():
            if not member.up:
                member.start()
            member.raft.disk_full(False, self.now)
            member.turn()
        self.connect_all()
        self.settle(600)
        leaders = [member for member in self.members.values() if member.raft.leads]
        assert leaders, [(one.identity, one.raft.role, one.raft.membership) for one in self.members.values()]
        leader = max(leaders, key=lambda one: one.raft.term)
        assert self.propose(leader, 1), "a leader in peace takes proposals"
        self.settle(150)  # an image that failed before is sent again after the upper election timeout
        last, membership = leader.raft.last_index, leader.raft.membership
        assert leader.raft.commit_index == last and not membership.joint, (leader.raft.commit_index, last, membership)
        assert len(leader.database) == last + 1
        for identity in membership.voters + membership.learners:
            member = self.members[identity.id]
            if member.identity == identity:
                assert member.database == leader.database, (member.identity, len(member.database), last)


def run_schedule(seed: int, steps: int = 700) -> FuzzGroup:
    group = FuzzGroup(seed)
    for _ in range(steps):
        group.step()
    group.end()
    return group
