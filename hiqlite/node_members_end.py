"""How a node learns that it is no member any more, or one in another life than its folder's, and its way out.

Part of the composition root. Nobody sends entries to a node that was removed, nor to one whose folder is of an earlier
life: it once began with an empty one (a volume that was not mounted) and was taken back as that. So both are told by
peers who know newer members. Invariants: one that was removed while it ran stops, once it has done its part in both
groups; a folder is given up only on the word of a majority of the members, so never for a twin that a minority met, nor
where nobody could fill the node again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from hiqlite import observe
from hiqlite.config import NodeConfig
from hiqlite.engine.change import members_of
from hiqlite.engine.model import Membership
from hiqlite.errors import HiqliteError, ShuttingDown
from hiqlite.logstore.folder import CACHE, DB
from hiqlite.logstore.meta import Meta
from hiqlite.node_group import NodeGroup
from hiqlite.runtime.waiting import until_next
from hiqlite.runtime.wishes import was_removed

LEAVE_S = 5.0  # how long a removed node waits for the other group
log = observe.logger("node")


def committed_members(group: NodeGroup) -> Membership | None:
    """The newest that are committed, as far as the node has applied them."""
    if not group.group.started:
        return group.storage.membership()
    return group.group.engine.membership_at(group.group.applier.applied_index)


def earlier_life(number: int) -> ShuttingDown:
    """What a node stops with whose folder is of one."""
    return ShuttingDown(
        f"this folder is of an earlier life of node {number}; it was replaced",
        hint="the next start puts it aside, and fetches everything from the others",
    )


class MembersEnd:
    """Of one node.

    Args:
        groups: of the node, by number.
        said_by: who the members are, by the word of each node that can be asked.
        busy: how many wishes about the members are under way here.
        ended: called once, with the reason.
    """

    def __init__(
        self,
        config: NodeConfig,
        meta: Meta,
        groups: dict[int, NodeGroup],
        said_by: Callable[[], Awaitable[dict[int, Membership]]],
        busy: Callable[[], int],
        ended: Callable[[HiqliteError], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._config = config
        self._meta = meta
        self._groups = groups
        self._said_by = said_by
        self._busy = busy
        self._ended = ended
        self._loop = loop
        self._was_member = False
        self._told: Membership | None = None  # newer members than this node's, by a peer's word, without this node
        self._replaced: Membership | None = None  # the same, with this node in another life

    def hear(self, told: Membership) -> None:
        """A peer's word: members that are committed."""
        one = self._groups[DB]
        found = one.group.engine.membership if one.group.started else one.storage.membership()
        if found is not None and told.index > found.index and self._config.node_id in told.removed:
            self._told = told
            if self._replaced is not None and told.index > self._replaced.index:
                self._replaced = None  # the life that took this one's place is no member any more either
        if self._is_replaced(told):
            self._replaced = told

    def reason(self) -> str:
        """Why this node is no member any more; empty while it is one, as far as it knows."""
        group = self._groups[DB].group
        members = group.engine.membership
        if self._replaced is not None and not self._is_back(self._replaced):
            return str(earlier_life(self._config.node_id))
        self._replaced = None
        if members.index > group.applier.applied_index:
            return ""
        own = self._config.node_id
        if any(one.id == own for one in members_of(members)):
            told = self._told
            if told is None or told.index <= members.index:
                self._was_member, self._told = True, None
                return ""
        elif own not in members.removed:
            return ""  # what it was told when it joined; its log says more soon
        return str(was_removed(own))

    async def came(self, reason: str) -> bool:
        """Whether that is certain: then everything was done, and this node stops."""
        if self._replaced is not None:
            if not await self._majority_says(self._replaced):
                return False
            await self._give_up_folder()
            return True
        if not self._was_member or self._told is not None or not await self._is_newest():
            return False
        await self._leave(reason)
        return True

    # -- a folder of an earlier life

    def _is_replaced(self, told: Membership) -> bool:
        """Whether those are newer members than one knows who was a member, and they name this node in another life.

        A life that is just being let in follows a log in which an earlier one is the member: it was in no committed
        configuration yet, as far as it knows, and does not take itself for an earlier one.
        """
        group = self._groups[DB]
        own, found = group.storage.identity, committed_members(group)
        if found is None or told.index <= found.index or own not in members_of(found):
            return False
        if found.index == 0 and self._meta.recorded_set(DB) is None:
            return False  # it was told so when it joined
        return self._name_another_life(told)

    def _name_another_life(self, members: Membership) -> bool:
        own, named = self._groups[DB].storage.identity, members_of(members)
        return own not in named and any(one.id == own.id for one in named)

    def _is_back(self, told: Membership) -> bool:
        """This life was made a member once more, behind what was told."""
        group = self._groups[DB]
        found = committed_members(group)
        return found is not None and found.index >= told.index and group.storage.identity in members_of(found)

    async def _majority_says(self, told: Membership) -> bool:
        """Who lags says nothing about it; who is ahead may know better."""
        said = await self._said_by()
        sure = {
            peer_id for peer_id, members in said.items()
            if members.index >= told.index and self._name_another_life(members)
        }  # fmt: skip
        voters = {one.id for one in told.voters}
        return len(sure & voters) > len(voters) // 2

    async def _give_up_folder(self) -> None:
        error = earlier_life(self._config.node_id)
        await asyncio.wrap_future(self._meta.worker.submit(self._meta.set_replaced, DB))
        log.error("%s; it stops", error)
        self._ended(error)

    # -- removed

    async def _is_newest(self) -> bool:
        """Whether the members that this node knows are no older than those of who can be asked. A node that comes back
        with an empty folder follows a log in which it was removed before it was let in again."""
        own = self._groups[DB].group.engine.membership
        said = await self._said_by()
        return len(said) > 0 and not any(
            told.index > own.index and self._config.node_id not in told.removed for told in said.values()
        )

    async def _leave(self, reason: str) -> None:
        """Removed while it ran: the cache group follows, then nothing is left to do here."""
        log.warning("%s; it stops", reason)
        end = self._loop.time() + LEAVE_S
        while CACHE in self._groups:
            group = self._groups[CACHE].group
            if group.failure is not None or (not group.leads and self._loop.time() > end):
                break
            if group.started:
                members = group.engine.membership
                gone = all(one.id != self._config.node_id for one in members_of(members))
                if gone and members.index <= group.applier.applied_index:
                    break
            await until_next(group.changed, self._config.heartbeat_interval_ms / 1000)
        while self._busy() and self._loop.time() < end:  # who asked for it hears that it happened
            await until_next(self._groups[DB].group.changed, self._config.heartbeat_interval_ms / 1000)
        found = was_removed(self._config.node_id)
        self._ended(ShuttingDown(found.message, hint=found.hint))
