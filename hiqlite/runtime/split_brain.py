"""What cannot be true in one cluster: facts that its nodes state, and where two of them contradict each other.

Every fact here is one that consensus makes once and never changes: who leads a term, the members of a committed
configuration, the term of a committed entry. So no word can be too old to count, and no election, partition, restart or
change of members looks like a contradiction: who knows less states less. Must not know links, clocks, logs or files.

What was said counts until its node speaks as another process, for one that lost its data may rightly say something
else. A group that nodes forget begins anew, with terms and indexes from the start: what a peer says of it counts only
while its members hold this node's own incarnation in it, which belongs to one such life.

Invariant: memory is bounded, whatever peers say.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice

from hiqlite.engine.change import members_of

from .word import GROUPS_MAX, GroupWord, Word

FACTS_MAX = 64  # of each kind and group
VALUES_MAX = 8  # of one fact: two say already that something is wrong
# How often a process must come back after another one answered as the same node. The last words of a dead one may
# arrive behind the first of its successor, over either of two links: each such word counts twice, there and back.
RETURNS_MAX = 5
STEADY_WORDS = 8  # so many of one process in a row: the other one is gone
PROCESSES_MAX = 8

# In which life of a group (0 unless it is forgotten; then this node's incarnation in it), and of which term or index.
Fact = tuple[int, int]
Value = int | tuple[tuple[int, int], ...] | tuple[tuple[tuple[int, int], ...], ...]


class Kind(StrEnum):
    """What two nodes contradict each other in."""

    LEADER = "two leaders of one term"
    MEMBERS = "two memberships at one index"
    ENTRY = "two entries committed at one index"
    TWICE = "two processes with one id"
    CLUSTER = "two clusters"


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Something that is not transient: people have to look at it.

    `nodes` are those that take part in it, ascending; `text` names them and what they say.
    """

    kind: Kind
    nodes: tuple[int, ...]
    text: str
    group: str = ""


class Book:
    """Of one node: everything that was stated, by whom."""

    def __init__(self, own_id: int) -> None:
        self._own_id = own_id
        self._own: Word | None = None
        self._names: set[str] = set()  # of groups
        self._claims: dict[tuple[Kind, str], dict[Fact, dict[Value, set[int]]]] = {}
        self._processes: dict[int, Processes] = {}
        self._blamed_by: dict[int, bool] = {}  # peer -> whether it says that this node runs twice

    def hear(self, word: Word) -> None:
        """Takes what a node says, this one included. Nodes of other clusters, or of none yet, are not judged here."""
        number = word.node_id
        if number == self._own_id:
            self._own = word
        else:
            self.meet(number, word.process, word.twice)
        own = self._own
        if own is None or not word.cluster_id or word.cluster_id != own.cluster_id:
            return
        for name, group in islice(word.groups.items(), GROUPS_MAX):
            if name not in self._names and len(self._names) >= GROUPS_MAX:
                continue
            self._names.add(name)
            life = self._life(name, group, own)
            if life is not None:
                self._note(number, name, life, group)

    def meet(self, number: int, process: int, twice: Collection[int]) -> None:
        """A process proved that it is node `number`; `twice`: ids under which that one met two of them."""
        if self._processes.setdefault(number, Processes()).hear(process):
            self._withdraw(number)  # what another process said need not hold for this one
        self._blamed_by[number] = self._own_id in twice

    def forget(self, numbers: Iterable[int]) -> None:
        """These nodes were removed for good: what they said counts no more."""
        for number in numbers:
            if self._processes.pop(number, None) is not None:  # never this one
                self._withdraw(number)
                self._blamed_by.pop(number, None)

    @property
    def twice(self) -> tuple[int, ...]:
        """Ids under which two processes answer."""
        return tuple(sorted(number for number, one in self._processes.items() if one.returns >= RETURNS_MAX))

    def contradictions(self) -> dict[tuple[Kind, str], Contradiction]:
        """What stands now, by its kind and the group or node that it is about; of several, the earliest."""
        found = {}
        for (kind, group), facts in self._claims.items():
            broken = [fact for fact, values in facts.items() if len(values) > 1]
            if broken:
                found[kind, group] = _told(kind, group, min(broken)[1], facts[min(broken)])
        for number in self.twice:
            text = f"two processes answer as node {number}: a copy of its data folder was started"
            found[Kind.TWICE, str(number)] = Contradiction(Kind.TWICE, (number,), text)
        blamed = sorted(number for number, says in self._blamed_by.items() if says)
        if blamed:
            text = f"another process answers as node {self._own_id} too, say {_nodes(blamed)}"
            found[Kind.TWICE, str(self._own_id)] = Contradiction(Kind.TWICE, (self._own_id,), text)
        return found

    # -- inside

    def _life(self, name: str, group: GroupWord, own: Word) -> int | None:
        """Which life of a group a word is about; None: none that this node can judge."""
        if not group.forgets:
            return 0
        mine = own.groups.get(name)
        if mine is None or group.members is None:
            return None
        known = any((one.id, one.incarnation) == (self._own_id, mine.incarnation) for one in members_of(group.members))
        return mine.incarnation if known else None

    def _note(self, who: int, name: str, life: int, group: GroupWord) -> None:
        if group.term and group.leader_id:
            self._claim(who, Kind.LEADER, name, (life, group.term), group.leader_id)
        members = group.members
        if members is not None and members.index:  # 0: who founded it, or whom a learner was told of: not in the log
            sets = (members.voters, members.learners, members.outgoing)
            value = tuple(tuple(sorted((one.id, one.incarnation) for one in part)) for part in sets)
            self._claim(who, Kind.MEMBERS, name, (life, members.index), value)
        for index, term in (group.committed, group.held):
            if index and term:
                self._claim(who, Kind.ENTRY, name, (life, index), term)

    def _claim(self, who: int, kind: Kind, group: str, fact: Fact, value: Value) -> None:
        facts = self._claims.setdefault((kind, group), {})
        values = facts.pop(fact, {})
        facts[fact] = values  # the newest stand last
        if value in values or len(values) < VALUES_MAX:
            values.setdefault(value, set()).add(who)
        if len(facts) > FACTS_MAX:
            settled = (old for old, said in facts.items() if len(said) == 1)
            del facts[next(settled, next(iter(facts)))]

    def _withdraw(self, who: int) -> None:
        for facts in self._claims.values():
            for fact, values in list(facts.items()):
                for value, claimants in list(values.items()):
                    claimants.discard(who)
                    if not claimants:
                        del values[value]
                if not values:
                    del facts[fact]


class Processes:
    """Which processes answered as one node: one after the other, or by turns."""

    def __init__(self) -> None:
        self._now = 0
        self._before: list[int] = []
        self._steady = 0
        self.returns = 0

    def hear(self, process: int) -> bool:
        """Whether another one speaks than last time."""
        if process == self._now:
            self._steady += 1
            if self._steady >= STEADY_WORDS:
                self.returns = 0
            return False
        self._steady = 0
        # One that was never heard of before is a restart, and counting begins anew.
        self.returns = self.returns + 1 if process in self._before else 0
        if self._now:
            self._before = [*(one for one in self._before if one not in (process, self._now)), self._now]
            del self._before[:-PROCESSES_MAX]
        self._now = process
        return True


def _told(kind: Kind, group: str, number: int, values: dict[Value, set[int]]) -> Contradiction:
    shown = [_shown(kind, value) for value in values]
    if len(set(shown)) < len(shown):  # the same nodes, in other lives
        shown = [_shown(kind, value, lives=True) for value in values]
    said = "; ".join(f"{text}, say {_nodes(who)}" for text, who in zip(shown, values.values(), strict=True))
    what = {
        Kind.LEADER: f"two leaders of term {number}",
        Kind.MEMBERS: f"two memberships committed at index {number}",
        Kind.ENTRY: f"two entries committed at index {number}",
    }[kind]
    nodes = {one for who in values.values() for one in who}
    if kind is Kind.LEADER:
        nodes |= {value for value in values if isinstance(value, int)}
    return Contradiction(kind, tuple(sorted(nodes)), f"{group} group: {what}: {said}", group)


def _shown(kind: Kind, value: Value, *, lives: bool = False) -> str:
    if isinstance(value, int):
        return f"node {value}" if kind is Kind.LEADER else f"one of term {value}"
    parts = zip(("voters", "learners", "outgoing voters"), value, strict=True)
    return ", ".join(f"{name} {_ids(one, lives)}" for name, one in parts if one)


def _ids(identities: object, lives: bool) -> str:
    assert isinstance(identities, tuple)
    return "/".join(f"{number}({incarnation:x})" if lives else str(number) for number, incarnation in identities)


def _nodes(numbers: Iterable[int]) -> str:
    listed = [str(number) for number in sorted(numbers)]
    return f"node {listed[0]}" if len(listed) == 1 else f"nodes {', '.join(listed)}"
