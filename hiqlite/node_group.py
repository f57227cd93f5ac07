"""One group of a node, put together: its runtime, its part of the network, and its way from the first start to its end.

Part of the composition root. Invariant: the group answers peers from the moment it is made, formed or not; its engine
turns only once this node is a member.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

from hiqlite import observe
from hiqlite._accel.records import EntryKind
from hiqlite.clock import Clock
from hiqlite.config import NodeConfig
from hiqlite.engine.forming import Forming
from hiqlite.engine.mirror import is_of_the_past, is_over
from hiqlite.engine.model import Identity, Membership, Message, Role
from hiqlite.engine.ports import Judge
from hiqlite.engine.raft import Raft
from hiqlite.errors import Diverged, HiqliteError, SnapshotCorruption, StorageError, with_outcome
from hiqlite.logstore.folder import GROUP_NAMES
from hiqlite.node_exchange import GroupImages, ImageExchange
from hiqlite.node_group_storage import GroupStorage
from hiqlite.node_links import GroupLinks
from hiqlite.runtime.forming import Former
from hiqlite.runtime.group import Group
from hiqlite.runtime.group_time import GroupTime
from hiqlite.runtime.leaving import Leaving
from hiqlite.runtime.managing import HandingOver
from hiqlite.runtime.pulse import Pulse
from hiqlite.runtime.remote import RemoteWrites, read_index_of
from hiqlite.runtime.renouncing import is_later_life
from hiqlite.runtime.waiting import until_next
from hiqlite.runtime.write_session import SessionTerms

DURABLE_LOOK_S = 0.01
log = observe.logger("node")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all groups of a node have in common. `form_without`: voters of the config that are not waited for."""

    config: NodeConfig
    clock: Clock
    loop: asyncio.AbstractEventLoop
    pulse: Pulse
    form_without: tuple[int, ...]


class NodeGroup:
    """One group of one node.

    Args:
        founders: ids of the nodes that found the group, as far as this node knows now.
        kinds: of entries that peers may forward to this group's leader.
        check: the leader's look at a forwarded command, given the group, and whether it was tried before.
        judge: that at the cost of every write; None: all are cheap.
        sessions: what this node's own writes are told apart by.
        ask_in: see `Former`; None: this group's members follow those of another one.
    """

    def __init__(
        self,
        storage: GroupStorage,
        images: GroupImages,
        links: GroupLinks,
        around: Surroundings,
        *,
        founders: Callable[[], Sequence[int]],
        kinds: tuple[EntryKind, ...],
        check: Callable[[Group, bytes, bool], object],
        judge: Judge | None = None,
        sessions: SessionTerms | None = None,
        ask_in: Callable[[Sequence[int]], Awaitable[str]] | None = None,
    ) -> None:
        config = around.config
        self.number = storage.number
        self.name = GROUP_NAMES[storage.number]
        self.storage = storage
        self._images = images
        self._links = links
        self._around = around
        self._twins: dict[int, int] = {}  # id of a node that takes part -> incarnation of another one with it
        self._exchange: ImageExchange | None = None
        self.group = group = Group(
            identity=storage.identity,
            settings=config.raft_settings(),
            log_store=storage.log,
            machine=storage.machine,
            links=links,
            clock=around.clock,
            loop=around.loop,
            group_time=GroupTime(storage.newest_group_time_ns),
            record=storage.record_membership,
            on_change=self._changed,
            on_failure=self._failed,
            judge=judge,
            sessions=sessions,
        )
        group.troubles.on_damage = self.damaged
        self._pulse = around.pulse.add(storage.number, group)
        self.remote = RemoteWrites(group, kinds, partial(check, group), links, around.loop)
        links.serve("read_index", self.remote.read_index)
        self._leaving = Leaving(group, links)
        self.handing_over = HandingOver(group, links, around.clock)
        formed = storage.membership() is not None
        recorded = storage.meta.recorded_set(storage.number)
        forming = Forming(
            storage.identity, founders(), recorded=recorded, formed=formed, without=around.form_without
        )
        peers = links if config.nodes else None
        self.former = Former(
            forming, storage, peers, self._state, founders, self._met,
            learner_only=config.learner_only and ask_in is not None, ask_in=ask_in,
            # The cluster's id follows from the set of the group that forms first: that one is not left. A group that
            # forgets begins anew by other rules.
            leaves=ask_in is None and not storage.forgets,
            renounced=storage.meta.renounced(storage.number), returns=storage.returns,
            lost=storage.lost, why_silent=self._why_silent,
        )  # fmt: skip

    async def join(self, formed: Callable[[], None]) -> bool:
        """Become a member: of the recorded group, or of the one that forms now. Then the engine turns.

        Args:
            formed: called in between.

        Returns:
            False: what was to form never will, for a member began anew meanwhile: this node has to, too.
        """
        storage, around = self.storage, self._around
        if not await self.former.run(self._in_vain):
            return False
        formed()
        membership = storage.membership()
        assert membership is not None, "who has formed or joined has recorded with whom"
        restored = await storage.restored(membership)
        now_ns = around.clock.monotonic_ns()
        engine = Raft(storage.identity, self.group.settings, restored, now_ns, storage.chance())
        self.group.start(engine)
        if around.config.nodes:
            self._exchange = ImageExchange(self.group, self._images, self._links, around.clock, around.loop)
        return True

    @property
    def committed_index(self) -> int:
        """The highest index that is committed as far as this node knows; its own log may not hold it yet."""
        known = self.group.engine.commit_index if self.group.started else 0
        return max(known, self._pulse.committed_index)

    def fail(self, error: BaseException) -> None:
        """What kept this node from becoming a member keeps it from taking part."""
        self.group.fail(error if isinstance(error, StorageError) else StorageError(str(error)))

    def damaged(self, error: SnapshotCorruption) -> None:
        """The state was found damaged in use. Where others have it this node takes no part from here on, and its next
        start fetches it from them; one that is alone goes on with what can be read."""
        if not self.storage.is_alone:
            self.storage.distrust()
            self.fail(error)

    async def diverged(self, error: Diverged) -> None:
        """The state is another one than a majority's: somebody else leads, and this node takes no part until its next
        start has fetched everything from them."""
        if self.group.failure is None and not self.storage.is_alone:
            self.storage.distrust(str(error))
            await self._leaving.hand_over()
            self.fail(error)

    async def until_leader(self) -> None:
        """Until this node knows a leader and has applied what that had committed when it was found."""
        group = self.group
        while group.leader_id == 0:
            group.changed.clear()
            if group.failure is not None:
                raise with_outcome(group.failure, None)
            await group.changed.wait()
        await group.until_applied(await self.ask_read_index())

    async def ask_read_index(self) -> int:
        """One quorum round, through whoever leads; tried again when leadership moves in between."""
        group = self.group
        while True:
            if group.failure is not None:
                raise with_outcome(group.failure, None)  # each caller his own: a traceback grows with every raise
            index = await read_index_of(group, self._links, group.settings.election_timeout_max_ms / 1000)
            if index is not None:
                return index
            await until_next(group.changed, group.settings.heartbeat_interval_ms / 1000)

    async def snapshot(self) -> int:
        """What is applied now is in the database's own file, durably, and the log lets go of what it need not keep.

        Gives the newest index of it. Raises why the group stopped.
        """
        group = self.group
        index = group.applier.applied_index
        while group.machine.durable_index < index:
            if group.failure is not None:
                raise with_outcome(group.failure, None)
            group.machine.make_durable()  # again: a reader may have kept a checkpoint from its end
            await asyncio.sleep(DURABLE_LOOK_S)
        if group.started and group.failure is None:
            group.purger.turn(group.engine)
        return index

    def _state(self) -> tuple[Membership | None, bytes]:
        """For who wants to join: the members as this node knows them, and the cluster's id."""
        members = self.group.engine.membership if self.group.started else self.storage.membership()
        return members, self.storage.meta.cluster_id or b""

    def _why_silent(self, number: int) -> str:
        """Of a node that is not heard of in this group."""
        if number == self.storage.identity.id or not self._links.connected(number) or self.life_of(number):
            return ""
        return f"node {number} is connected and has no {self.name} group: its config differs (`{self.name}`)"

    # -- a group that forgets

    @property
    def is_over(self) -> bool:
        """Too many of its members began anew since: nothing can be agreed on in it any more (semantics.md section 12).

        Only said of a group that no node keeps; one that is kept waits for its members.
        """
        return self.storage.forgets and self.group.started and is_over(self.group.engine.membership, self.life_of)

    def _in_vain(self, recorded: Sequence[Identity]) -> bool:
        return self.storage.forgets and any(self.life_of(one.id) not in (0, one.incarnation) for one in recorded)

    def _met(self, identity: Identity) -> None:
        """A peer greets: it may have begun anew since its handshake, where nothing is kept or where it left a set that
        never formed. A later incarnation is a higher number; a lower one is an old greeting that was under way."""
        known = self._links.incarnation_of(identity.id)
        later = identity.incarnation > known if self.storage.forgets else is_later_life(identity.incarnation, known)
        if later:
            self._links.met(identity)

    def life_of(self, number: int) -> int:
        """The incarnation in which a node lives now in this group; 0: not heard of."""
        own = self.storage.identity
        return own.incarnation if number == own.id else self._links.incarnation_of(number)

    def has_voter(self, one: Identity) -> bool:
        """Whether that node votes, as far as this one knows."""
        members = self.group.engine.membership if self.group.started else None
        return members is not None and one in (*members.voters, *members.outgoing)

    def who_lives(self, number: int) -> int:
        """The same, for who leads: of two nodes with one id it is the one that takes part.

        A node that lost its disk does not answer as who it was any more; another node that was given its id, or is
        started in its place while it runs, must not take that from it.
        """
        group, settings = self.group, self.group.settings
        peer = group.engine.progress(number) if group.started and group.leads and not self.storage.forgets else None
        if peer is not None and peer.round_trip_ns:
            since_ns = self._around.clock.monotonic_ns() - peer.round_trip_ns
            if since_ns < settings.election_timeout_max_ms * 1_000_000:
                self._say_if_taken(peer.identity)
                return int(peer.identity.incarnation)
        return self.life_of(number)

    def _say_if_taken(self, lives: Identity) -> None:
        other = self.life_of(lives.id)
        if other not in (0, lives.incarnation, self._twins.get(lives.id)):
            self._twins[lives.id] = other
            text = "%s: there is another node %d than the one that takes part; it is not let in while that answers"
            log.warning(text, self.name, lives.id)

    # -- events

    def receive(self, message: Message, body: bytes | None) -> None:
        group = self.group
        if self.storage.forgets and group.started and is_of_the_past(group.engine.membership, message.sender):
            return  # of a group that is over, whatever its term: nothing in it follows from what this one holds
        group.receive(message, body)

    def connected(self, peer_id: int, epoch: int) -> None:
        self.group.connected(peer_id, epoch)

    def lost(self, peer_id: int, refused: bool) -> None:
        self.group.lost(peer_id, refused)

    def _changed(self) -> None:
        engine = self.group.engine
        self._pulse.role_changed()
        if self._exchange is not None:
            self._exchange.role_changed()
        log.info("node %d, %s: %s in term %d, leader %d", self.storage.identity.id, self.name,
                 Role(engine.role).name.lower(), engine.term, engine.leader_id)  # fmt: skip

    def _failed(self, error: StorageError) -> None:
        log.error("node %d, %s: it takes no part any more: %s", self.storage.identity.id, self.name, error)

    # -- the end

    async def say_farewell(self, drain_s: float) -> None:
        """Take nothing new, finish what is under way within `drain_s`, and let somebody else lead."""
        self.group.proposals.close_intake()
        await self._leaving.say(self._links.reached())
        await self.group.proposals.drain(drain_s)
        await self._leaving.hand_over()

    async def stop(self, error: HiqliteError) -> None:
        """Turn no more; who waits gets `error`. Images are ended by `close_images`, once the network is closed."""
        await self.group.close(error)

    def left_to_parent(self, error: HiqliteError, *, told: bool) -> None:
        """In a forked child this turns no more, and who waits in this thread's loop is told."""
        self._pulse.left = True
        if told:
            self.group.stop_turning(error)
        else:
            self.group.failure = error

    async def close_images(self) -> None:
        if self._exchange is not None:
            await self._exchange.close()
