"""Who this node dials, how it becomes a member by itself, and how it learns that it is none any more.

Part of the composition root: it connects the members as the log has them, the addresses that were heard of, and the
network. Invariants: a removed node is not dialled, and may still come in to be told so; a node asks to be let in only
while it founded nothing; one that was removed while it ran stops, once it has done its part in both groups.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from hiqlite import observe
from hiqlite.clock import Clock
from hiqlite.config import NodeConfig
from hiqlite.engine.change import members_of
from hiqlite.engine.model import Membership
from hiqlite.errors import ConfigError, HiqliteError, ProtocolError, ShuttingDown, UsageError
from hiqlite.logstore.folder import CACHE, DB
from hiqlite.logstore.meta import Meta
from hiqlite.node_group import NodeGroup
from hiqlite.node_group_storage import GroupStorage
from hiqlite.node_links import GroupLinks
from hiqlite.runtime.addresses import AddressBook, entries_from_wire, entries_to_wire, join_address
from hiqlite.runtime.managing import Managing
from hiqlite.runtime.membership_record import decode_membership, encode_membership
from hiqlite.runtime.metrics import Member
from hiqlite.runtime.waiting import until_next
from hiqlite.runtime.wishes import Wish, WishKind, was_removed
from hiqlite.transport.network import Network

HELLO, JOIN = "members", "join"
ASK_S = 2.0
ASK_AGAIN_S = 1.0  # after a refusal
SAY_WHY_EVERY_S = 5.0
LEAVE_S = 5.0  # how long a removed node waits for the other group
log = observe.logger("node")


def configured_addresses(config: NodeConfig) -> dict[int, tuple[str, str]]:
    return {
        node.id: (join_address(node.raft_host, node.raft_port), join_address(node.api_host, node.api_port))
        for node in config.nodes
    }


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


class NodeMembers:
    """Of one node.

    Args:
        groups: of the node, by number.
        mirrored: returns once the cache group has followed the database's configuration at an index.
        removed: called once, when this node was removed while it ran and has nothing left to do.
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
        self._removed = removed
        self._loop = loop
        self._network: Network | None = None
        self._expected: list[int] = []
        self._was_member = False
        self.standing = ""  # why this node is no member, if it waits to be one
        self._told: Membership | None = None  # newer members than this node's, by a peer's word, without this node
        self._joins = meta.joins(DB)
        self._never_vote: set[int] = {config.node_id} if config.learner_only else set()  # as they said themselves
        self._refused_at = float("-inf")
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self.book = AddressBook(config.node_id, configured_addresses(config), entries_from_wire(meta.addresses()))
        self.managing = Managing(groups[DB].group, links[DB], groups[DB].life_of, self, mirrored, clock)
        links[DB].serve(HELLO, self._greeted)
        links[DB].serve(JOIN, self._asked_in)

    # -- life

    def start(self, network: Network | None) -> None:
        """Before the network starts."""
        self._network = network
        self._keep_book()
        self._look()
        self._spawn(self._run(), "hiqlite-members")

    async def close(self) -> None:
        self._closed = True
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
        voters = sorted({one.id for one in found.voters})
        learners = sorted({one.id for one in found.learners} - set(voters))
        roles = [*((one, "voter") for one in voters), *((one, "learner") for one in learners)]
        return [Member(number, role, *self.book.shown(number)) for number, role in roles]

    def shown(self) -> dict[str, Any]:
        """For who asks from outside."""
        found = self.membership
        return {
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
        for number, (raft, api) in addresses.items():
            if self.book.command(number, raft, api):
                self._book_changed()
        await self.managing.fulfil(wish, timeout)

    # -- who is dialled

    def said_of(self, ids: Sequence[int]) -> Any:
        known = self.book.entries
        return entries_to_wire({number: known[number] for number in ids if number in known})

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
        self._keep_book()
        self._look()
        for peer_id in self._links[DB].reached():
            self._greet_soon(peer_id)

    def _keep_book(self) -> None:
        """On disk soon; what is lost of it is heard again."""

        def kept(done: Future[None]) -> None:
            if not done.cancelled() and (error := done.exception()) is not None:
                log.warning("where the other nodes are could not be kept: %s", error)

        wire = entries_to_wire(self.book.entries)
        self._meta.worker.submit(self._meta.set_addresses, wire).add_done_callback(kept)

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

    async def _greeted(self, peer_id: int, payload: Any) -> Any:
        self._hear(peer_id, payload)
        return self._word()

    def _word(self) -> dict[str, Any]:
        """What this node says: where nodes are, and who the members are as far as it is committed."""
        group, found = self._groups[DB].group, self._groups[DB].storage.membership()
        if group.started:
            found = group.engine.membership_at(group.applier.applied_index)
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
            self._hear_members(decode_membership(members))
        if self.book.hear(entries):
            self._book_changed()

    def _hear_members(self, told: Membership) -> None:
        found = self.membership
        if found is not None and told.index > found.index and self._config.node_id in told.removed:
            self._told = told

    # -- becoming a member

    async def ask_in(self, formed: Sequence[int]) -> str:
        """Of a node that founded nothing: asks those that have formed to let it learn; why not, if they do not."""
        if self._loop.time() < self._refused_at + ASK_AGAIN_S:
            return self.standing
        await self._set_joins(True)  # first: once it is let in it may stop at any moment
        try:
            votes = await self._links[DB].request(formed[0], JOIN, self.said_of([self._config.node_id]), ASK_S)
            await self._set_joins(votes is True)
            self.standing = ""
        except UsageError as error:
            await self._set_joins(False)
            self._refused_at, self.standing = self._loop.time(), str(error)
        except HiqliteError as error:
            self.standing = str(error)
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
        own = self._groups[DB].storage.identity
        found = self.membership
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
                    reason = self.standing = self._reason()
                    if not reason:
                        await self._become()
                    elif self._was_member and self._told is None and await self._is_newest():
                        await self._leave(reason)
                        return
                    elif self._loop.time() > said_at + SAY_WHY_EVERY_S:
                        said_at = self._loop.time()
                        log.warning("%s; it waits", reason)
            except HiqliteError as error:
                log.debug("not what it shall be yet: %s", error)
            except Exception:
                log.exception("looking after the members failed, it is tried again")
            await until_next(group.changed, self._config.heartbeat_interval_ms / 1000)

    def _reason(self) -> str:
        """Why this node is no member any more; empty while it is one, as far as it knows."""
        group = self._groups[DB].group
        members = group.engine.membership
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

    async def _is_newest(self) -> bool:
        """Whether the members that this node knows are no older than those of who can be asked. A node that comes back
        with an empty folder follows a log in which it was removed before it was let in again."""
        own = self._groups[DB].group.engine.membership
        asked = False
        for peer_id in self._links[DB].reached():
            try:
                word = await self._links[DB].request(peer_id, HELLO, self._word(), ASK_S)
                told = decode_membership(word["members"])
            except (HiqliteError, TypeError, KeyError) as error:
                log.debug("node %d did not say who the members are: %s", peer_id, error)
                continue
            asked = True
            if told.index > own.index and self._config.node_id not in told.removed:
                return False
        return asked

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
        while self.managing.busy and self._loop.time() < end:  # who asked for it hears that it happened
            await until_next(self._groups[DB].group.changed, self._config.heartbeat_interval_ms / 1000)
        found = was_removed(self._config.node_id)
        self._removed(ShuttingDown(found.message, hint=found.hint))
