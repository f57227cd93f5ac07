"""The composition root: the only place where rooms meet, and the order in which they start and stop.

Bottom up: data folder, metadata, log, state machine, network, forming, group, client. Stops in reverse. Decides
nothing about consensus, SQL or bytes; it only connects. Invariant: whatever was started is stopped, also when a later
step of the start fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from typing import Any

from hiqlite import observe
from hiqlite._accel.beat import BeatThread
from hiqlite._accel.commands import command_view
from hiqlite.client.local import LocalClient, Services
from hiqlite.clock import Clock
from hiqlite.config import NodeConfig
from hiqlite.engine.forming import Forming
from hiqlite.engine.model import Membership, Message, Role
from hiqlite.engine.raft import Raft
from hiqlite.errors import ShuttingDown, StorageError
from hiqlite.node_exchange import ImageExchange
from hiqlite.node_storage import Storage
from hiqlite.runtime.forming import Former
from hiqlite.runtime.forwarding import FRAME_BYTES_MAX
from hiqlite.runtime.group import Group
from hiqlite.runtime.group_time import GroupTime
from hiqlite.runtime.leaving import Leaving
from hiqlite.runtime.metrics import GroupMetrics, Member, Metrics, metrics_of
from hiqlite.runtime.pulse import Pulse
from hiqlite.runtime.remote import RemoteWrites, read_index_of
from hiqlite.runtime.waiting import ReadRound
from hiqlite.transport.listener import ApiListener
from hiqlite.transport.network import Network
from hiqlite.transport.settings import NetworkSettings

DB = 0
# How long a shutdown waits for writes under way; those that take longer are told what is known of them.
DRAIN_S = 1.0
log = observe.logger("node")


class GroupLinks:
    """The network as one group sees it."""

    def __init__(self, network: Network | None, group: int) -> None:
        self._network = network
        self._group = group

    def send(self, peer_id: int, message: Message, body: bytes | None) -> bool:
        return self._network is not None and self._network.send(peer_id, self._group, message, body)

    def send_forward(self, peer_id: int, body: bytes) -> bool:
        return self._network is not None and self._network.send_forward(peer_id, body)


class Node:
    """One running node; made by `start`, ended by `shutdown`."""

    def __init__(self, config: NodeConfig) -> None:
        self.config = config
        self.clock = Clock()
        self.network: Network | None = None
        self.closed = asyncio.Event()
        self._leaving: Leaving | None = None
        self._stack = AsyncExitStack()
        self._stopping: asyncio.Task[None] | None = None
        self._exchange: ImageExchange | None = None
        self._at_end: list[Callable[[], object]] = []
        self._loop = asyncio.get_running_loop()
        self.storage: Storage
        self.group: Group
        self.client: LocalClient

    @classmethod
    async def start(cls, config: NodeConfig, *, wait: bool = True, form_without: tuple[int, ...] = ()) -> Node:
        """Start a node on its data folder.

        Args:
            wait: return only when this node is a member and a leader is known.
            form_without: voters of the config that are not waited for when a new cluster forms.

        Raises:
            ConfigError, StorageError: it cannot start, and nothing is left running.
        """
        node = cls(config)
        try:
            await node._start(form_without, wait)
        except BaseException:
            await node._stack.aclose()
            raise
        return node

    async def _start(self, form_without: tuple[int, ...], wait: bool) -> None:
        config = self.config
        for notice in (*config.notices, *(f"{key} has no effect in this version" for key in config.not_built_yet())):
            log.warning("%s", notice)
        self.storage = await Storage.open(config, self._loop)
        self._stack.push_async_callback(self.storage.close)
        if config.nodes:
            self._make_network()
        self._make_client()
        self._stack.push_async_callback(self._stop_group)
        self._pulse.start()
        former = self._make_former(form_without)
        if self.network is not None:
            self._connect(self.network)
            await self.network.start()
            await self._listen_api()
        joining = self._loop.create_task(self._join(former), name="hiqlite-join")
        self._stack.push_async_callback(stop_task, joining)
        if wait:
            await joining
            await self._until_leader()
        else:
            joining.add_done_callback(self._join_ended)

    def _make_network(self) -> None:
        config = self.config
        address = config.address
        assert address is not None
        # A frame holds one entry of the greatest size, or as many small ones as the engine puts into one.
        frame_bytes_max = max(config.max_entry_size, config.raft_settings().frame_bytes_max, FRAME_BYTES_MAX)
        self.network = Network(
            config.node_id,
            addresses={node.id: (node.raft_host, node.raft_port) for node in config.nodes},
            listen=(config.listen_addr_raft, address.raft_port),
            secret=config.secret_raft or "",
            loop=self._loop,
            settings=NetworkSettings(max_entry_bytes=frame_bytes_max),
            incarnations={DB: self.storage.identity.incarnation},
            cluster_id=self.storage.meta.cluster_id or b"",
        )
        self._stack.push_async_callback(self._close_exchange)
        self._stack.push_async_callback(self.network.close)

    async def _close_exchange(self) -> None:
        if self._exchange is not None:
            await self._exchange.close()

    async def _listen_api(self) -> None:
        config = self.config
        address = config.address
        assert address is not None

        async def metrics(peer_id: int, payload: object) -> dict[str, Any]:
            return self.metrics().as_dict()

        api = ApiListener(
            config.listen_addr_api,
            address.api_port,
            config.secret_api or "",
            {"metrics": metrics},
            node_id=config.node_id,
        )
        await api.start()
        self._stack.push_async_callback(api.close)

    def _make_client(self) -> None:
        """Engine, group and client; they stand before the membership is known and turn once it is."""
        config, storage = self.config, self.storage
        settings = config.raft_settings()
        self.group = Group(
            identity=storage.identity,
            settings=settings,
            log_store=storage.log,
            machine=storage.writer,
            links=GroupLinks(self.network, DB),
            clock=self.clock,
            loop=self._loop,
            group_time=GroupTime(storage.newest_group_time_ns),
            record=storage.record_membership,
            on_change=self._role_changed,
            on_failure=self._failed,
        )
        self._beat = BeatThread(config.node_id, settings.heartbeat_interval_ms, settings.stall_ms)
        self._pulse = Pulse(self.group, DB, self._beat, self.clock, self._loop, settings, self.network)
        round_ = ReadRound(self._ask_read_index, self._loop)
        self._read_round = round_
        self.client = LocalClient(
            Services(
                group=self.group,
                reader=storage.reader,
                inspector=storage.inspector,
                read_round=round_,
                clock=self.clock,
                request_timeout_s=config.request_timeout,
                migration_timeout_s=config.migration_timeout,
                query_iter_idle_s=config.query_iter_idle,
                query_iter_total_s=config.query_iter_total,
                max_entry_bytes=config.max_entry_size,
                node=self,
                content_hash=storage.content_hash,
            )
        )

    def _make_former(self, form_without: tuple[int, ...]) -> Former:
        """Answers peers' greetings from the moment the raft port is open, formed or not."""
        storage = self.storage
        forming = Forming(
            storage.identity,
            [node.id for node in self.config.nodes] or [self.config.node_id],
            recorded=storage.meta.recorded_set,
            formed=storage.membership() is not None,
            without=form_without,
        )
        return Former(forming, storage, self.network)

    async def _join(self, former: Former) -> None:
        """Become a member: of the recorded cluster, or of the one that forms now. Then the engine turns."""
        storage, network = self.storage, self.network
        membership = Membership(0, await former.run())
        if network is not None:
            network.identify(cluster_id=storage.meta.cluster_id)
        restored = storage.restored(storage.membership() or membership)
        engine = Raft(
            storage.identity, self.config.raft_settings(), restored, self.clock.monotonic_ns(), storage.chance()
        )
        self.group.start(engine)
        if network is not None:
            self._exchange = ImageExchange(DB, self.group, storage, network, self.clock, self._loop)
            self._beat.start()

    def _join_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.group.fail(error if isinstance(error, StorageError) else StorageError(str(error)))

    def _connect(self, network: Network) -> None:
        group = self.group
        inspector = self.storage.inspector
        remote = RemoteWrites(
            group,
            lambda record: inspector.check_command(command_view(record), lenient=group.behind),
            network,
            self._loop,
        )
        network.on_message = lambda number, message, body, sender: group.receive(message, body)
        network.on_read_end = group.pump
        network.on_connected = group.connected

        def lost(peer_id: int, refused: bool) -> None:
            if not network.answers(peer_id):
                remote.lost(peer_id)
            group.lost(peer_id, refused)

        network.on_lost = lost
        network.on_forward = remote.received
        network.on_forward_reply = group.forward_replied
        network.on_beat_socket = self._beat.add_link
        network.serve("read_index", remote.read_index)
        self._leaving = Leaving(group, network)

    async def _stop_group(self) -> None:
        error = ShuttingDown("the node is shutting down")
        await self._read_round.close(error)
        self._pulse.close()
        await self.group.close(error)
        self._beat.close()

    async def _until_leader(self) -> None:
        """Until this node knows a leader and has applied what that had committed when it was found."""
        while self.group.leader_id == 0:
            self.group.changed.clear()
            if self.group.failure is not None:
                raise self.group.failure
            await self.group.changed.wait()
        await self.group.until_applied(await self._ask_read_index())

    # -- events

    def _role_changed(self) -> None:
        engine = self.group.engine
        self._pulse.role_changed()
        if self._exchange is not None:
            self._exchange.role_changed()
        log.info("node %d: %s in term %d, leader %d", self.config.node_id, Role(engine.role).name.lower(), engine.term,
                 engine.leader_id)  # fmt: skip

    def _failed(self, error: StorageError) -> None:
        log.error("node %d takes no part any more: %s", self.config.node_id, error)

    async def _ask_read_index(self) -> int:
        """One quorum round, through whoever leads; tried again when leadership moves in between."""
        while True:
            group = self.group
            if group.failure is not None:
                raise group.failure
            index = await read_index_of(group, self.network, group.settings.election_timeout_max_ms / 1000)
            if index is not None:
                return index
            group.changed.clear()
            # Not `wait_for`: until Python 3.12 that loses a cancellation that comes together with the event.
            with suppress(TimeoutError):
                async with asyncio.timeout(self.config.heartbeat_interval_ms / 1000):
                    await group.changed.wait()

    # -- what the client asks of the node

    def metrics(self) -> Metrics:
        """A look at this node, without waiting."""
        counters = {**self.storage.writer.metrics(), **self._beat.counters}
        return Metrics({"db": metrics_of(self.group, self.config.node_id, counters)})

    def members(self) -> list[Member]:
        addresses = {node.id: node for node in self.config.nodes}
        group: GroupMetrics = self.metrics().db

        def member(number: int, role: str) -> Member:
            known = addresses.get(number)
            raft = f"{known.raft_host}:{known.raft_port}" if known else ""
            api = f"{known.api_host}:{known.api_port}" if known else ""
            return Member(number, role, raft, api)

        return [*(member(one, "voter") for one in group.members), *(member(one, "learner") for one in group.learners)]

    # -- life

    def at_end(self, ended: Callable[[], object]) -> None:
        """Call `ended` once the node has stopped."""
        self._at_end.append(ended)

    async def shutdown(self) -> None:
        """Stop in reverse order. Idempotent; a second caller waits for the first."""
        if self._stopping is None:
            self._stopping = self._loop.create_task(self._stop(drain=True), name="hiqlite-shutdown")
        await asyncio.shield(self._stopping)

    async def abandon(self) -> None:
        """Stop without a word to anybody, as near to kill -9 as a part of a living process can be."""
        if self._stopping is None:
            self._stopping = self._loop.create_task(self._stop(drain=False), name="hiqlite-abandon")
        await asyncio.shield(self._stopping)

    async def _stop(self, *, drain: bool) -> None:
        try:
            if drain:
                await self._take_leave()
            elif self.network is not None:
                await self.network.close()  # first: a killed node tells nobody anything
        finally:  # also when the end of the whole program cancels this: courtesies may be cut short, the rest not
            try:
                await self._stack.aclose()
            finally:
                for ended in self._at_end:
                    ended()
                self.closed.set()

    async def _take_leave(self) -> None:
        """Nothing new is taken, what is under way is answered, somebody else leads."""
        self.group.proposals.close_intake()
        if self._leaving is not None:
            await self._leaving.say(node.id for node in self.config.nodes if node.id != self.config.node_id)
        await self.group.proposals.drain(DRAIN_S)
        if self._leaving is not None:
            await self._leaving.hand_over()


async def stop_task(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
