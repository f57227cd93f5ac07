"""The composition root: the only place where rooms meet, and the order in which they start and stop.

Bottom up: data folder, metadata, log, state machine, network, forming, group, client. Stops in reverse. Decides
nothing about consensus, SQL or bytes; it only connects. Invariant: whatever was started is stopped, also when a later
step of the start fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from hiqlite import node_writes, observe
from hiqlite._accel.beat import BeatThread
from hiqlite.client.local import LocalClient
from hiqlite.client.services import Services
from hiqlite.client.statement_log import LoggingClient
from hiqlite.clock import Clock
from hiqlite.config import NodeConfig
from hiqlite.engine.model import Change, Membership
from hiqlite.errors import HiqliteError, ShuttingDown, UsageError
from hiqlite.logstore.folder import CACHE, DB
from hiqlite.node_cache_life import CacheLife
from hiqlite.node_calls import calls_of
from hiqlite.node_equality import NodeEquality
from hiqlite.node_events import hand_on
from hiqlite.node_group import NodeGroup, Surroundings
from hiqlite.node_healing import clear_aside
from hiqlite.node_images import NodeImages
from hiqlite.node_life import Life, check_start, of_the_parent
from hiqlite.node_links import GroupLinks
from hiqlite.node_members import NodeMembers, check_alone
from hiqlite.node_space import watch_space
from hiqlite.node_storage import Storage
from hiqlite.node_watch import NodeWatch
from hiqlite.runtime.forwarding import FRAME_BYTES_MAX
from hiqlite.runtime.group import Group
from hiqlite.runtime.health import Health
from hiqlite.runtime.metrics import Metrics
from hiqlite.runtime.pulse import Pulse
from hiqlite.runtime.waiting import ReadRound
from hiqlite.statemachine.judge import Judge
from hiqlite.transport.listener import ApiListener
from hiqlite.transport.network import Network
from hiqlite.transport.settings import NetworkSettings

# How long a shutdown waits for writes under way; those that take longer are told what is known of them.
DRAIN_S = 1.0
ENTRY_BYTES_EVER = 1_000_000_000
log = observe.logger("node")


class Node:
    """One running node; made by `start`, ended by `shutdown`."""

    def __init__(self, config: NodeConfig, network: NetworkSettings | None = None) -> None:
        self.config = config
        self._network_settings = network or NetworkSettings()
        # Raises for a node that is not chosen, before a folder is made that would be one of node 0.
        self._address = config.address
        self.clock = Clock()
        self.network: Network | None = None
        self.groups: dict[int, NodeGroup] = {}  # by number, ascending
        self._cache: CacheLife | None = None
        self._why_stopped: HiqliteError = ShuttingDown("the node is shutting down")
        self._loop = asyncio.get_running_loop()
        self._life = Life(self, self._loop)
        self._stack = self._life.stack
        self.storage: Storage
        self.members: NodeMembers
        self.watch: NodeWatch
        self.client: LocalClient

    @property
    def group(self) -> Group:
        """The group of the database."""
        return self.groups[DB].group

    @classmethod
    async def start(
        cls,
        config: NodeConfig,
        *,
        wait: bool = True,
        form_without: tuple[int, ...] = (),
        network: NetworkSettings | None = None,
    ) -> Node:
        """Start a node on its data folder.

        Args:
            wait: return only when this node is a member and a leader is known.
            form_without: voters of the config that are not waited for when a new cluster forms.
            network: limits and times, but for the greatest entry; tests put relays in the way, and another release.

        Raises:
            ConfigError, StorageError: it cannot start, and nothing is left running.
            UsageError: this process was forked from one with an open node.
        """
        check_start()
        node = cls(config, network)
        try:
            await node._start(form_without, wait)
        except BaseException:
            await node._life.end()
            raise
        return node

    async def _start(self, form_without: tuple[int, ...], wait: bool) -> None:
        config = self.config
        for notice in config.start_notices():
            log.warning("%s", notice)
        self.storage = await Storage.open(config, self._loop)
        self._stack.push_async_callback(self.storage.close)
        check_alone(config, self.storage.db)
        if config.nodes:
            self._make_network()
        self._make_groups(form_without)
        self._make_client()
        self._stack.push_async_callback(self._stop_groups)
        self._stack.push_async_callback(self.members.close)
        self._pulse.start()
        self.members.start(self.network)
        if self.network is not None:
            hand_on(self.network, self.groups, self.links, self.members, self.watch)
            self.network.on_beat_socket = self._beat.add_link
            await self.network.start()
            await self._listen_api()
        joining = self._loop.create_task(self._join(), name="hiqlite-join")
        self._stack.push_async_callback(stop_task, joining)
        if self._cache is not None:
            caching = self._loop.create_task(self._cache.live(joining), name="hiqlite-cache")
            self._stack.push_async_callback(stop_task, caching)
        self.watch.start()
        self._stack.push_async_callback(self.watch.close)
        self.equality.start()
        self._stack.push_async_callback(self.equality.close)
        watching = self._loop.create_task(watch_space(self.storage, self.groups), name="hiqlite-space")
        self._stack.push_async_callback(stop_task, watching)
        clearing = self._loop.create_task(
            clear_aside(self.storage.folder, self.storage.meta, joining, self.groups.values()),
            name="hiqlite-clear-aside",
        )
        self._stack.push_async_callback(stop_task, clearing)
        if wait:
            await joining
            await self.groups[DB].until_leader()
        else:
            joining.add_done_callback(self._join_ended)

    def _make_network(self) -> None:
        config = self.config
        address = self._address
        assert address is not None
        # A frame holds one entry, of any size that another node's `max_entry_size` let pass, now or in an earlier
        # release, or as many small ones as the engine puts into one.
        frame_bytes_max = max(ENTRY_BYTES_EVER, config.raft_settings().frame_bytes_max, FRAME_BYTES_MAX)
        self.network = Network(
            config.node_id,
            addresses={},
            listen=(config.listen_addr_raft, address.raft_port),
            secret=config.secret_raft or "",
            loop=self._loop,
            settings=replace(
                self._network_settings, max_entry_bytes=frame_bytes_max, busy_poll_us=config.raft_busy_poll_us
            ),
            incarnations=self.storage.incarnations,
            cluster_id=self.storage.meta.cluster_id or b"",
        )
        self._stack.push_async_callback(self._close_images)
        self._stack.push_async_callback(self.network.close)

    async def _close_images(self) -> None:
        for group in self.groups.values():
            await group.close_images()

    async def _listen_api(self) -> None:
        config = self.config
        address = self._address
        assert address is not None

        api = ApiListener(
            config.listen_addr_api,
            address.api_port,
            config.secret_api or "",
            calls_of(self),
            node_id=config.node_id,
        )
        await api.start()
        self._stack.push_async_callback(api.close)

    def _make_groups(self, form_without: tuple[int, ...]) -> None:
        """Engines come later: the groups stand before their memberships are known, and turn once they are."""
        config, storage = self.config, self.storage
        settings = config.raft_settings()
        self._beat = BeatThread(config.node_id, settings.heartbeat_interval_ms, settings.stall_ms)
        self._pulse = Pulse(self._beat, self.clock, self._loop, settings, self.network)
        self._around = Surroundings(config, self.clock, self._loop, self._pulse, form_without)
        inspector = storage.db.inspector
        self._judge = Judge(
            inspector, storage.db.writer.try_out, self.clock.monotonic_ns, self.clock.wall_ns,
            statement_timeout_s=config.statement_timeout, migration_timeout_s=config.migration_timeout,
            request_timeout_s=config.request_timeout,
        )  # fmt: skip
        self.links = {group.number: GroupLinks(self.network, group.number) for group in storage.groups}
        self.groups[DB] = NodeGroup(
            storage.db,
            NodeImages(storage.db),
            self.links[DB],
            self._around,
            founders=lambda: [node.id for node in config.nodes] or [config.node_id],
            kinds=node_writes.KINDS,
            check=partial(node_writes.check, inspector),
            judge=self._judge,
            sessions=node_writes.session_terms(
                config, lambda: node_writes.all_know_sessions(self.group, self.network, storage.db.writer.has_sessions)
            ),
            ask_in=lambda formed: self.members.ask_in(formed),
        )
        if storage.cache is not None:
            self._cache = CacheLife(
                self.groups, storage, self.group, self.links[CACHE], self.network, self._around, self._formed
            )
        self.members = NodeMembers(
            config, storage.meta, self.groups, self.links, self._mirrored, self._was_removed, self.clock, self._loop
        )
        self.equality = NodeEquality(
            config, storage.db, self.groups[DB], self.links[DB], lambda error: self.client.refuse(error), self._loop
        )
        self.watch = NodeWatch(
            config, storage, self.groups, self.links[DB], self.members, self.network, self.equality, self.clock,
            self._loop,
        )  # fmt: skip

    def _make_client(self) -> None:
        config, db = self.config, self.storage.db
        self._read_round = ReadRound(self.groups[DB].ask_read_index, self._loop)
        services = Services(
            group=self.group,
            reader=db.reader,
            inspector=db.inspector,
            cheap=self._judge.cheap,
            cheap_returning=self._judge.cheap_returning,
            read_round=self._read_round,
            clock=self.clock,
            request_timeout_s=config.request_timeout,
            migration_timeout_s=config.migration_timeout,
            query_iter_idle_s=config.query_iter_idle,
            query_iter_total_s=config.query_iter_total,
            max_entry_bytes=config.max_entry_size,
            node=self,
            content_hash=db.content_hash,
            rehearse=db.rehearsals.run,
            damaged=self.groups[DB].damaged,
        )
        told = config.log_statements
        self.client = LoggingClient(services, told == "params") if told else LocalClient(services)

    async def _join(self) -> None:
        """The database's group comes first: the cluster's id follows from its forming."""
        await self.groups[DB].join(self._formed)
        if self.network is not None:
            self._beat.start()

    def _formed(self) -> None:
        if self.network is not None:
            self.network.identify(cluster_id=self.storage.meta.cluster_id)

    def _join_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.groups[DB].fail(error)

    async def _stop_groups(self) -> None:
        error = self._why_stopped
        await self._read_round.close(error)
        self._pulse.close()
        if self._cache is not None:
            await self._cache.close()
        for group in self.groups.values():
            await group.stop(error)
        self._beat.close()

    # -- what the client asks of the node

    async def change_members(self, change: Change, timeout: float) -> Membership:
        """One change, by its identities, through the database's group, and mirrored by the other one when this returns;
        see `changing.change_members`. Users' wishes are `NodeMembers.fulfil`.

        Raises:
            RequestTimeout: it is through in the database's group, and the other one did not follow in time.
        """
        self.check_process()
        membership = await self.group.change_members(change, timeout)
        await self._mirrored(membership.index, timeout)
        return membership

    async def transfer_leadership(self, to: int, group: str | None, timeout: float) -> None:
        """Of one group or of all; see `HandingOver.transfer`."""
        chosen = list(self.groups.values()) if group is None else [self._named(group)]
        await asyncio.gather(*(one.handing_over.transfer(to, timeout) for one in chosen))

    async def snapshot(self) -> int:
        """Of each group that is kept; gives the database's index. See `NodeGroup.snapshot`."""
        kept = [group for group in self.groups.values() if not group.storage.forgets]
        return (await asyncio.gather(*(group.snapshot() for group in kept)))[0]

    def _named(self, group: str) -> NodeGroup:
        found = next((one for one in self.groups.values() if one.name == group), None)
        if found is None:
            names = " or ".join(one.name for one in self.groups.values())
            raise UsageError(f"this node has no group {group!r}", hint=f"it has {names}")
        return found

    def leads(self, group: str) -> bool:
        return self._named(group).group.leads

    async def _mirrored(self, index: int, timeout: float) -> None:
        if self._cache is not None:
            await self._cache.until_mirrored(index, timeout)

    def _was_removed(self, error: HiqliteError) -> None:
        self._why_stopped = error
        self._removed = self._loop.create_task(self.shutdown(), name="hiqlite-removed")

    def metrics(self) -> Metrics:
        """A look at this node, without waiting."""
        self.check_process()
        return self.watch.metrics(self._beat.counters)

    def health(self) -> Health:
        """Whether this node works, and whether it should be asked; why not."""
        self.check_process()
        return self.watch.health()

    # -- life

    @property
    def closed(self) -> asyncio.Event:
        """Set when this node has ended, for whatever reason."""
        return self._life.closed

    def at_end(self, ended: Callable[[], object]) -> None:
        """Call `ended` once the node has stopped."""
        self._life.at_end(ended)

    async def shutdown(self) -> None:
        """Say for `shutdown_drain` that this node is not ready, then stop in reverse order. Idempotent; a second caller
        waits for the first."""
        self.watch.leaving = True
        await self._life.stop(
            lambda: asyncio.gather(*(group.say_farewell(DRAIN_S) for group in self.groups.values())),
            self.config.shutdown_drain,
        )

    async def abandon(self) -> None:
        """Stop without a word to anybody, as near to kill -9 as a part of a living process can be."""

        async def nothing_is_said() -> None:
            if self.network is not None:
                await self.network.close()

        await self._life.stop(nothing_is_said)

    def check_process(self) -> None:
        """Raises UsageError in a child that was forked while this node was open."""
        self._life.check_process()

    def inherited(self, told: bool) -> None:
        """In a forked child nothing of this node turns; who waits for it is `told`, where it is the same loop."""
        if self.network is not None:
            self.network.left_to_parent()
        for one in self.groups.values():
            one.left_to_parent(of_the_parent(), told=told)
        if self.groups:
            self.watch.left = True
            self.client.left_to_parent()
            if told:
                self.storage.db.rehearsals.left_to_parent(of_the_parent())
                self._read_round.fail(of_the_parent())


async def stop_task(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
