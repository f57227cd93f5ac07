"""Who of a cluster still lives, for somebody who is about to give it up: every member that can be reached is asked.

Part of the composition root. A node is known by its id and its incarnation: one that lost its data and began anew under
its old id is not who voted. Invariant: who could not be asked, because nobody knows where it is, is named as such.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from hiqlite.config import NodeConfig
from hiqlite.engine.change import members_of
from hiqlite.engine.model import Identity, Membership
from hiqlite.errors import HiqliteError
from hiqlite.runtime.addresses import Address, join_address, split_address
from hiqlite.transport.rpc import call

ASK_S = 2.0
UNSAID = 0  # in place of an incarnation: by a release that does not say it


@dataclass(frozen=True, slots=True)
class Word:
    """What one node says; `index` is that of the members it knows, `addresses` (api) are of any of them."""

    node: Identity
    index: int
    voters: tuple[Identity, ...]
    members: frozenset[int]
    addresses: Mapping[int, str]

    @classmethod
    def of(cls, asked: int, answer: Any) -> Self:
        """Raises TypeError, ValueError, KeyError."""
        node, members = answer.get("node", [asked, UNSAID]), answer["members"]
        by_role = [[one["id"], UNSAID] for one in members if one["role"] == "voter"]
        return cls(
            Identity(*node),
            int(answer["index"]),
            tuple(Identity(*one) for one in answer.get("voters", by_role)),
            frozenset(one["id"] for one in members),
            {one["id"]: one["api_addr"] for one in members},
        )


@dataclass(frozen=True, slots=True)
class Survivors:
    """Of one cluster, as far as can be told.

    Attributes:
        voters, learners: ids, by the newest word.
        alive: ids of others that answered; `voting`: of these, who are still who voted.
        not_asked: ids of members that nobody says where they are.
    """

    voters: tuple[int, ...]
    learners: tuple[int, ...]
    alive: tuple[int, ...]
    voting: tuple[int, ...]
    not_asked: tuple[int, ...]


async def survivors(
    config: NodeConfig, found: Membership, book: Mapping[int, Address], is_it: Callable[[bytes], bool]
) -> Survivors:
    """Everybody who is a member by this node's or by anybody's word is asked where any of them says that it is.

    Args:
        found: the members as this node knows them; `book`: where it heard that nodes are.
        is_it: whether that is the cluster's id.
    """
    places: dict[int, set[str]] = {one.id: {join_address(one.api_host, one.api_port)} for one in config.nodes}
    for number, address in book.items():
        places.setdefault(number, set()).add(address.api)
    index, voters = found.index, found.voters + found.outgoing
    members = {one.id for one in members_of(found)}
    words: list[Word] = []
    asked: set[tuple[int, str]] = set()
    while True:
        known = {(one, place) for one in members - {config.node_id} for place in places.get(one, ()) if place}
        if not (new := known - asked):
            break
        asked |= new
        heard = await asyncio.gather(*(_ask(config, number, place, is_it) for number, place in sorted(new)))
        for word in heard:
            if word is None:
                continue
            words.append(word)
            for number, place in word.addresses.items():
                places.setdefault(number, set()).add(place)
            if word.index > index:
                index, voters, members = word.index, word.voters, set(word.members)
    others = [word.node for word in words if word.node.id != config.node_id]
    voting = {one.id for one in others if any(_is(one, voter) for voter in voters)}
    ids = {voter.id for voter in voters}
    return Survivors(
        voters=tuple(sorted(ids)),
        learners=tuple(sorted(members - ids)),
        alive=tuple(sorted({one.id for one in others})),
        voting=tuple(sorted(voting)),
        not_asked=tuple(sorted(members - {number for number, _ in asked} - {config.node_id})),
    )


def _is(one: Identity, voter: Identity) -> bool:
    return one.id == voter.id and (one == voter or UNSAID in (one.incarnation, voter.incarnation))


async def _ask(config: NodeConfig, number: int, place: str, is_it: Callable[[bytes], bool]) -> Word | None:
    """None: nobody of that cluster answers there."""
    try:
        host, port = split_address(place)
        answer = await call(host, port, config.secret_api or "", "members", None, ASK_S)
        return Word.of(number, answer) if is_it(answer["cluster_id"]) else None
    except (HiqliteError, TypeError, ValueError, KeyError, AttributeError):
        return None
