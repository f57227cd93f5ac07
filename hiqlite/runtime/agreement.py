"""Whether the nodes of a cluster hold the same state, by what each says of its own at one and the same entry.

A state is known by a hash. What a majority of the voters says is taken for right: nobody can tell otherwise, and it is
what a client would have been answered. Pure: must not know what is hashed, links or clocks. Invariant: who says nothing
counts for nobody, so a node that cannot be reached makes no other one suspicious.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum

from .word import Word


class Standing(StrEnum):
    """Of one node, among the others."""

    UNKNOWN = "too few have said anything"
    RIGHT = "as a majority"
    WRONG = "other than a majority"
    SPLIT = "there is no majority"


@dataclass(frozen=True, slots=True)
class Judgement:
    """`index`: of the entry; `others`: nodes whose state is another one than this node's; ascending."""

    standing: Standing
    index: int = 0
    others: tuple[int, ...] = ()

    @property
    def text(self) -> str:
        """What is wrong, for people."""
        nodes = f"node{'s' * (len(self.others) > 1)} {', '.join(map(str, self.others))}"
        return {
            Standing.WRONG: f"its state behind entry {self.index} is another one than that of {nodes}, a majority",
            Standing.RIGHT: f"behind entry {self.index} the state of {nodes} is another one than a majority's",
            Standing.SPLIT: f"behind entry {self.index} the state of {nodes} is another one, and no majority agrees",
            Standing.UNKNOWN: f"behind entry {self.index} the state of {nodes} is another one; too few answer to judge",
        }[self.standing]


NOTHING = Judgement(Standing.UNKNOWN)


def judge(own_id: int, index: int, claims: Mapping[int, int | bytes], voters: Collection[int]) -> Judgement:
    """How this node's hash stands among those of all who said something of one entry, itself included."""
    own = claims[own_id]
    others = tuple(sorted(node for node, claim in claims.items() if claim != own))
    by_claim: dict[int | bytes, int] = {}
    for node, claim in claims.items():
        if node in voters:
            by_claim[claim] = by_claim.get(claim, 0) + 1
    right = [claim for claim, count in by_claim.items() if count > len(voters) // 2]
    if right:
        return Judgement(Standing.RIGHT if right[0] == own else Standing.WRONG, index, others)
    standing = Standing.SPLIT if others and all(node in claims for node in voters) else Standing.UNKNOWN
    return Judgement(standing, index, others)


class States:
    """The newest that each node said of its running hash, which once it differs differs for ever."""

    def __init__(self, own_id: int, group: str) -> None:
        self._own_id = own_id
        self._group = group
        self._said: dict[int, dict[int, int]] = {}  # node -> index -> hash

    def hear(self, word: Word) -> None:
        """What a node says stands for all that it said before: its database may be another one by now."""
        if word.node_id != self._own_id and self._group in word.groups:
            self._said[word.node_id] = dict(word.groups[self._group].states)

    def forget_all_but(self, members: Collection[int]) -> None:
        """What others said counts no more."""
        self._said = {node: said for node, said in self._said.items() if node in members}

    def judge(self, own: Mapping[int, int], voters: Collection[int]) -> Judgement:
        """By the newest entry of which enough was said; where somebody differs already, by that."""
        found = NOTHING
        for index in sorted(own, reverse=True):
            claims = {node: said[index] for node, said in self._said.items() if index in said}
            one = judge(self._own_id, index, {**claims, self._own_id: own[index]}, voters)
            if one.standing in (Standing.WRONG, Standing.SPLIT):
                return one
            if found is NOTHING and (one.others or one.standing is Standing.RIGHT):
                found = one
        return found
