"""What each node tells of its groups once the faults are over, and what of it must not be so.

Invariant: nothing is wrong with what the nodes tell exactly if each group has one leader whom all know, all name the
same members in the incarnations in which these live now, the members of both groups are the same nodes in the same
roles, the cache group was told the newest list, and no group of any node is in trouble.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from hiqlite._accel.batch import Op
from hiqlite.engine.model import Identity, Membership
from hiqlite.logstore.folder import CACHE, DB, GROUP_NAMES
from hiqlite.node import Node
from hiqlite.runtime.mirror_record import Mirrored

Names = tuple[tuple[int, int], ...]  # ids and incarnations, ascending


@dataclass(frozen=True, slots=True)
class View:
    """One group as one node sees it.

    Args:
        life: the incarnation in which the node lives in the group.
        index: of the configuration in force.
        told: in the cache group, the index of the newest list of members in its log.
        trouble: what keeps the node from taking part, or from taking writes; empty when nothing does.
    """

    node: int
    group: str
    life: int
    role: str
    term: int = 0
    leader: int = 0
    index: int = 0
    voters: Names = ()
    learners: Names = ()
    outgoing: Names = ()
    told: int = 0
    trouble: str = ""

    @classmethod
    def of(cls, node: Node, number: int) -> Self:
        group = node.groups[number].group
        troubles = [group.failure, group.proposals.refusal]
        if not group.started:
            return cls(node.config.node_id, GROUP_NAMES[number], group.identity.incarnation, "forming",
                       trouble=", ".join(str(one) for one in troubles if one is not None))  # fmt: skip
        engine, membership = group.engine, group.engine.membership
        if engine.faulty:
            troubles.append(f"entries {engine.faulty} are damaged")
        cache = node.storage.cache
        return cls(
            node.config.node_id, GROUP_NAMES[number], group.identity.incarnation, engine.role.name.lower(),
            engine.term, engine.leader_id, membership.index,
            names(membership.voters), names(membership.learners), names(membership.outgoing),
            cache.cache.state.mirrored_index if cache is not None and number == CACHE else 0,
            ", ".join(str(one) for one in troubles if one is not None),
        )  # fmt: skip

    @classmethod
    def from_dict(cls, told: dict[str, Any]) -> Self:
        """From what JSON makes of `as_dict`."""
        lists = {name: tuple(map(tuple, told[name])) for name in ("voters", "learners", "outgoing")}
        return cls(**{**told, **lists})

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def members(self) -> tuple[Names, Names, Names]:
        return self.voters, self.learners, self.outgoing

    @property
    def roles(self) -> dict[int, str]:
        """By id."""
        return {**{number: "learner" for number, _ in self.learners}, **{number: "voter" for number, _ in self.voters}}


def names(members: Iterable[Identity]) -> Names:
    return tuple(sorted((one.id, one.incarnation) for one in members))


def told_by(node: Node) -> dict[str, Any]:
    """For JSON: the node's `View` of each group, and the cluster's id."""
    cluster_id = node.storage.meta.cluster_id or b""
    return {"groups": [View.of(node, number).as_dict() for number in node.groups], "cluster_id": cluster_id.hex()}


def disagreements(views: Sequence[View]) -> list[str]:
    """What is wrong in each group and between both; nothing when the history may end like this."""
    found = []
    for name in GROUP_NAMES:
        found += [f"{name}: {text}" for text in _within([view for view in views if view.group == name])]
    if found:
        return found
    db, cache = (next(view for view in views if view.group == GROUP_NAMES[number]) for number in (DB, CACHE))
    if db.roles != cache.roles:
        found.append(f"the members of db are {db.roles}, those of cache {cache.roles}")
    for view in views:
        if view.group == GROUP_NAMES[CACHE] and view.told != db.index:
            found.append(f"node {view.node}: db's members are those of index {db.index}, cache was told {view.told}")
    return found


def _within(views: Sequence[View]) -> list[str]:
    """What is wrong with one group."""
    found = [f"node {view.node} is in trouble: {view.trouble}" for view in views if view.trouble]
    found += [f"node {view.node} is not in it" for view in views if view.role == "forming"]
    leaders = [view.node for view in views if view.role == "leader"]
    beliefs = {(view.term, view.leader) for view in views}
    if len(leaders) != 1 or beliefs != {(views[0].term, leaders[0])}:
        found.append(f"nodes {leaders} lead, and the nodes believe in (term, leader) {sorted(beliefs)}")
    if len({(view.index, *view.members) for view in views}) != 1:
        found.append(f"the nodes name different members: { {view.node: view.members for view in views} }")
    voters, learners, outgoing = views[0].members
    if outgoing:
        found.append(f"a change of members has not ended: {outgoing} have not left")
    if sorted(voters + learners) != sorted((view.node, view.life) for view in views):
        lives = {view.node: view.life for view in views}
        found.append(f"{voters} vote and {learners} learn, but the nodes live as {lives}")
    return found


def late_list(node: Node) -> bytes:
    """An entry of the cache group's log that must change nothing: one member, in an older list than that which counts.

    A group in memory may begin anew before it arrives, and then knows of no list yet: there it is the oldest of all.
    """
    storage = node.storage.cache
    assert storage is not None, "chaos runs with both groups"
    index = 0 if storage.forgets else max(storage.cache.state.mirrored_index - 1, 0)
    return Mirrored(index, (node.config.node_id,), ()).record()


async def take_index(node: Node, timeout_s: float) -> int:
    """The index of an entry of the cache group's log that changes nothing; no two calls of a cluster get the same."""
    deadline_ns = time.monotonic_ns() + int(timeout_s * 1e9)
    op = Op(asyncio.get_running_loop(), lambda answer, index, detail: index, None, deadline_ns)
    node.groups[CACHE].group.write(late_list(node), op)
    index: int = await op
    return index


class NotFollowed(Exception):
    """A change of members returned, and the cache group is not where it says."""


def check_followed(node: Node, changed: Membership) -> None:
    """What `Node.change_members` promises when it returns; called at once, before anything else can happen.

    Raises:
        NotFollowed: the cache group does not have the members, and nothing newer either.
    """
    storage = node.storage.cache
    assert storage is not None, "chaos runs with both groups"
    told, found = storage.cache.state.mirrored_index, node.groups[CACHE].group.engine.membership
    wanted, mirrored = Mirrored.of(changed), Mirrored.of(found)
    same = not found.joint and (mirrored.voters, mirrored.learners) == (wanted.voters, wanted.learners)
    if told < changed.index or (told == changed.index and not same):
        raise NotFollowed(f"{changed} is through, cache was told index {told} and has {found}")
