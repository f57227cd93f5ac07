"""Who this node dials, how it becomes a member by itself, and what members tell each other.

Part of the composition root: it connects the members as the log has them, the addresses that were heard of, and the
network. Invariants: a removed node is not dialled, and may still come in to be told so; a node asks to be let in only
while it founded nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from hiqlite import observe
from hiqlite.clock import Clock
from hiqlite.config import NodeConfig
from hiqlite.engine.change import members_of
from hiqlite.engine.model import Membership
from hiqlite.errors import ConfigError, HiqliteError, ProtocolError, UsageError
from hiqlite.logstore.folder import DB
from hiqlite.logstore.meta import Meta
from hiqlite.node_book import NodeBook
from hiqlite.node_group import NodeGroup
from hiqlite.node_group_storage import GroupStorage
from hiqlite.node_links import GroupLinks
from hiqlite.node_members_end import MembersEnd, committed_members
from hiqlite.runtime.addresses import entries_from_wire, entries_to_wire
from hiqlite.runtime.managing import Managing
from hiqlite.runtime.membership_record import decode_membership, encode_membership
from hiqlite.runtime.metrics import Member
from hiqlite.runtime.waiting import until_next
from hiqlite.runtime.wishes import LifeOf, Wish, WishKind, was_removed
from hiqlite.transport.network import Network

HELLO, JOIN = "members", "join"
ASK_S = 2.0
ASK_AGAIN_S = 1.0  # after a refusal
SAY_WHY_EVERY_S = 5.0
log = observe.logger("node")


def check_alone(config: NodeConfig, storage: GroupStorage) -> None:
    """Raises ConfigError for a node without ports whose folder is that of a node among others."""
    found = max((storage.membership(), *storage.memberships), key=lambda one: -1 if one is None else one.index)
    if config.nodes or found is None:
        return
    ids = sorted({one.id for one in members_of(found)})
    if ids != [config.node_id]:
        raise ConfigError(
            f"the data folder {config.data_path} belongs to a cluster of the nodes {', '.join(map(str, ids))}",
            hint="open it with a config that names them",
        )


def roles_of(found: Membership, life_of: LifeOf) -> list[tuple[int, str]]:
    """Voters, then learners. Of a node that comes back empty both lives are members for a while: it learns, unless the
    one that votes is the one that lives."""
    voting = {one.id: one.incarnation for one in found.voters}
    learning = {one.id for one in found.learners if one.id not in voting or life_of(one.id) != voting[one.id]}
    voters = [(number, "voter") for number in sorted(voting.keys() - learning)]
    return [*voters, *((number, "learner") for number in sorted(learning))]


class NodeMembers:
    """Of one node.

    Args:
        groups: of the node, by number.
        mirrored: returns once the cache group has followed the database's configuration at an index.
        removed: called once, when this node is no member any more and has nothing left to do.
    """

    def __init__(
        self,
        config: NodeConfig,
        meta: Meta,
        groups: dict[int, NodeGroup],
        links: dict[int, GroupLinks],
        mirrored: Callable[[int, float], Any],
        removed: Callable[[HiqliteError], None],
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._config = config
        self._meta = meta
        self._groups = groups
        self._links = links
        self._loop = loop
        self._network: Network | None = None
        self._expected: list[int] = []
        self.standing = ""  # why this node is no member, if it waits to be one
        self._joins = meta.joins(DB)
        self._never_vote: set[int] = {config.node_id} if config.learner_only else set()  # as they said themselves
        self._refused_at = float("-inf")
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self.book = NodeBook(config, meta, self._tell_all, loop)
        self.managing = Managing(groups[DB].group, links[DB], groups[DB].who_lives, self, mirrored, clock)
        self._end = MembersEnd(config, meta, groups, self._said_by, lambda: self.managing.busy, removed, loop)
        links[DB].serve(HELLO, self._greeted)
        links[DB].serve(JOIN, self._asked_in)

    # -- life

    def start(self, network: Network | None) -> None:
        """Before the network starts."""
        self._network = network
        self.book.keep()
        self._look()
        self._spawn(self._run(), "hiqlite-members")

    async def close(self) -> None:
        self._closed = True
        self.book.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        if self._closed:
            work.close()
            return
        task = self._loop.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- what is known

    @property
    def membership(self) -> Membership | None:
        """The members of the database's group as this node knows them; None: it is none of any cluster."""
        one = self._groups[DB]
        return one.group.engine.membership if one.group.started else one.storage.membership()

    def members(self) -> list[Member]:
        found = self.membership
        if found is None:
            return []
        roles = roles_of(found, self._groups[DB].life_of)
        return [Member(number, role, *self.book.shown(number)) for number, role in roles]

    def shown(self) -> dict[str, Any]:
        """For who asks from outside."""
        found, own = self.membership, self._groups[DB].storage.identity
        voters = () if found is None else found.voters + found.outgoing
        return {
            "node": [own.id, own.incarnation],
            "voters": [[one.id, one.incarnation] for one in voters],
            "index": found.index if found is not None else 0,
            "removed": list(found.removed) if found is not None else [],
            "standing": self.standing,
            "cluster_id": self._meta.cluster_id or b"",
        }

    async def fulfil(self, wish: Wish, addresses: Mapping[int, tuple[str, str]], timeout: float | None) -> None:
        """A user's wish; `addresses` (raft, api) of nodes that it is about, by id."""
        if self._network is None:
            raise UsageError("this node listens on no port, it has no other members", hint="open it with a config")
        if wish.kind in (WishKind.PROMOTE, WishKind.SET_VOTERS):
            reached = {self._config.node_id, *self._links[DB].reached()}
            for number in sorted(self._never_vote & reached & set(wish.ids)):
                raise UsageError(f"node {number} never votes", hint="its config says learner_only")
        for number in addresses:
            if type(number) is not int or not 0 < number < 1 << 63:
                raise UsageError(f"{number!r} is no node's id", hint="a whole number above 0")
        for number, (raft, api) in addresses.items():
            if self.book.command(number, raft, api):
                self._book_changed()
        await self.managing.fulfil(wish, timeout)

    # -- who is dialled

    def said_of(self, ids: Sequence[int]) -> Any:
        known = self.book.entries
        return entries_to_wire({number: known[number] for number in ids if number in known})

    def trouble_of(self, number: int) -> str:
        return "" if self._network is None else self._network.troubles().get(number, "")

    @contextmanager
    def expecting(self, ids: Sequence[int], said: Any) -> Iterator[None]:
        if self.book.hear(entries_from_wire(said)):
            self._book_changed()
        self._expected += ids
        self._look()
        try:
            yield
        finally:
            for number in ids:
                self._expected.remove(number)
            self._look()

    def _look(self) -> None:
        """Dial who is a member, configured or expected, and was not removed."""
        network, found = self._network, self.membership
        if network is None:
            return
        removed = set(found.removed if found is not None else ()) - set(self._expected)
        members = set() if found is None else {one.id for one in members_of(found)}
        configured = {node.id for node in self._config.nodes}
        for number in {*members, *configured, *removed, *self._expected, *self.book.entries} - {self._config.node_id}:
            targets = self.book.raft_targets(number)
            if targets:
                wanted = number in members or number in configured or number in self._expected
                network.set_peer(number, targets, dial=wanted and number not in removed)

    def _book_changed(self) -> None:
        self._look()
        self.book.changed()

    def _tell_all(self) -> None:
        for peer_id in self._links[DB].reached():
            self._greet_soon(peer_id)

    # -- what peers tell each other

    def connected(self, peer_id: int) -> None:
        self._never_vote.discard(peer_id)  # it may have another config by now
        self._greet_soon(peer_id)

    def _greet_soon(self, peer_id: int) -> None:
        self._spawn(self._greet(peer_id), "hiqlite-greet")

    async def _greet(self, peer_id: int) -> None:
        try:
            answer = await self._links[DB].request(peer_id, HELLO, self._word(), ASK_S)
            self._hear(peer_id, answer)
        except HiqliteError as error:
            log.debug("node %d did not say whom it knows: %s", peer_id, error)

    async def _said_by(self) -> dict[int, Membership]:
        """Who the members are, by the word of each that can be asked."""
        said = {}
        for peer_id in self._links[DB].reached():
            try:
                word = await self._links[DB].request(peer_id, HELLO, self._word(), ASK_S)
                said[peer_id] = decode_membership(word["members"])
            except (HiqliteError, TypeError, KeyError) as error:
                log.debug("node %d did not say who the members are: %s", peer_id, error)
        return said

    async def _greeted(self, peer_id: int, payload: Any) -> Any:
        self._hear(peer_id, payload)
        return self._word()

    def _word(self) -> dict[str, Any]:
        """What this node says: where nodes are, and who the members are as far as it is committed."""
        found = committed_members(self._groups[DB])
        return {
            "addresses": entries_to_wire(self.book.entries),
            "members": None if found is None else encode_membership(found),
            "votes": not self._config.learner_only,
        }

    def _hear(self, peer_id: int, word: Any) -> None:
        """Raises ProtocolError for what is no word."""
        if not isinstance(word, dict):
            raise ProtocolError("a peer's word about the members that cannot be read")
        if (word.get("votes") is False) != (peer_id in self._never_vote):
            self._never_vote ^= {peer_id}
        entries = entries_from_wire(word.get("addresses"))
        members = word.get("members")
        if members is not None:
            self._end.hear(decode_membership(members))
        if self.book.hear(entries):
            self._book_changed()

    # -- becoming a member

    async def ask_in(self, formed: Sequence[int]) -> str:
        """Of a node that founded nothing: asks those that have formed to let it learn; why not, if they do not."""
        if self._loop.time() < self._refused_at + ASK_AGAIN_S:
            return self.standing
        await self._set_joins(True)  # first: once it is let in it may stop at any moment
        refusal, failure = "", ""
        for number in formed:  # one may be down, and not each of them knows what another one's config says
            try:
                votes = await self._links[DB].request(number, JOIN, self.said_of([self._config.node_id]), ASK_S)
            except UsageError as error:
                refusal = str(error)
            except HiqliteError as error:
                failure = str(error)
            else:
                await self._set_joins(votes is True)
                self.standing = ""
                return ""
        if refusal:
            self._refused_at = self._loop.time()
            # One that could not be asked may have let it in: who did not hear that is a member all the same.
            await self._set_joins(bool(failure))
        self.standing = refusal or failure
        return self.standing

    async def _asked_in(self, peer_id: int, said: Any) -> bool:
        """By a node that is empty. It comes in if this node's config names it, or if it is a member that began anew.
        Gives whether it shall vote by itself: not if a command let it in, as a learner."""
        found = self.membership
        if found is None:
            raise ProtocolError("this node is no member itself")
        if peer_id in found.removed:
            raise was_removed(peer_id)
        named = any(node.id == peer_id for node in self._config.nodes)
        if not named and all(one.id != peer_id for one in members_of(found)):
            hint = f"add_learner({peer_id}, ...) on a member lets it in, or its name in their config"
            raise UsageError(f"the config of node {self._config.node_id} does not name node {peer_id}", hint=hint)
        if self.book.hear(entries_from_wire(said)):
            self._book_changed()
        await self.managing.fulfil(Wish(WishKind.LEARN, (peer_id,)), ASK_S / 2)
        return named or any(one.id == peer_id for one in found.voters)

    async def _set_joins(self, joins: bool) -> None:
        if self._joins != joins:
            self._joins = joins
            await asyncio.wrap_future(self._meta.worker.submit(self._meta.set_joins, DB, joins))

    async def _become(self) -> None:
        """Of a member: become what the config says, if that is this node's own business."""
        await self.managing.tidy()
        own, found = self._groups[DB].storage.identity, self.membership
        assert found is not None
        votes = own in found.voters
        if self._config.learner_only and votes and len(found.voters) > 1:
            await self.managing.fulfil(Wish(WishKind.JOIN_AS_LEARNER, (own.id,)), ASK_S)
        elif self._config.learner_only and self._joins:
            await self.managing.fulfil(Wish(WishKind.JOIN_AS_LEARNER, (own.id,)), ASK_S)
            await self._set_joins(False)
        elif self._joins:
            if not votes:
                await self.managing.fulfil(Wish(WishKind.JOIN, (own.id,)), ASK_S)
            await self._set_joins(False)

    # -- the watch

    async def _run(self) -> None:
        group = self._groups[DB].group
        said_at = float("-inf")
        while True:
            try:
                self._look()
                if group.started and group.failure is None:
                    reason = self.standing = self._end.reason()
                    if not reason:
                        await self._become()
                    elif await self._end.came(reason):
                        return
                    elif self._loop.time() > said_at + SAY_WHY_EVERY_S:
                        said_at = self._loop.time()
                        log.warning("%s; it waits", reason)
            except HiqliteError as error:
                log.debug("not what it shall be yet: %s", error)
            except Exception:
                log.exception("looking after the members failed, it is tried again")
            await until_next(group.changed, self._config.heartbeat_interval_ms / 1000)
