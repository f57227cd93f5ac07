"""A node that looks at itself and at its peers: metrics, health, readiness, and the watch for a split brain.

Part of the composition root: it reads what the rooms know and hands it to who judges it (`runtime/health.py`,
`runtime/split_brain.py`). Invariant: it changes nothing of what it looks at, and a look waits for nothing.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from hiqlite import observe
from hiqlite.clock import Clock
from hiqlite.config import NodeConfig
from hiqlite.errors import HiqliteError
from hiqlite.logstore.folder import DB
from hiqlite.node_equality import BUILD, NodeEquality
from hiqlite.node_group import NodeGroup
from hiqlite.node_links import GroupLinks
from hiqlite.node_members import NodeMembers
from hiqlite.node_storage import Storage
from hiqlite.runtime.health import GroupState, Health, Surroundings, judge
from hiqlite.runtime.metrics import Metrics, metrics_of
from hiqlite.runtime.watching import Asked, Watch
from hiqlite.runtime.word import GroupWord, Word
from hiqlite.transport.network import Network

# A leader is missed for this many of the longest election timeouts before a node calls itself unhealthy: the vote may
# be split, and the winner needs a moment to be heard of.
GRACE_TIMEOUTS = 3
NEVER = float("inf")
log = observe.logger("node")


class NodeWatch:
    """Of one node; made once its groups stand, before they turn."""

    def __init__(
        self,
        config: NodeConfig,
        storage: Storage,
        groups: dict[int, NodeGroup],
        links: GroupLinks,
        members: NodeMembers,
        network: Network | None,
        equality: NodeEquality,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._config = config
        self._storage = storage
        self._groups = groups
        self._links = links
        self._members = members
        self._network = network
        self._equality = equality
        self._clock = clock
        self._loop = loop
        self._version = version("hiqlite")
        self._process = secrets.randbits(63) | 1
        self._begun_ns = clock.monotonic_ns()
        settings = config.raft_settings()
        self._turn_s = settings.heartbeat_interval_ms / 1000
        self._grace_s = GRACE_TIMEOUTS * settings.election_timeout_max_ms / 1000
        self._led_ns: dict[int, int] = {}  # group -> when it was last known to have a leader
        self._catching: dict[int, tuple[NodeGroup, asyncio.Task[None]]] = {}
        self._running: asyncio.Task[None] | None = None
        self._known_id = b""
        self._said: bool | None = None
        self._closed = False
        self.leaving = False  # soon: nobody is to come any more
        self.left = False  # in a forked child: to the parent
        self.watch = Watch(
            config.node_id, self._process, self._word, links, self._removed, equality.heard,
            config.split_brain_interval, loop,
        )  # fmt: skip
        if network is not None:
            network.on_stranger = self.watch.met_stranger
            network.greeting, network.on_greeting = self.watch.greeting, self.watch.greeted

    # -- life

    def start(self) -> None:
        self._running = self._loop.create_task(self._run(), name="hiqlite-watch")

    async def close(self) -> None:
        """Before anything of what it looks at is closed."""
        self._closed = True
        tasks = [task for _, task in self._catching.values()]
        if self._running is not None:
            tasks.append(self._running)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self) -> None:
        rounds: asyncio.Task[None] | None = None
        try:
            while not self.left:
                try:
                    self._look()
                    if self.watch.look() and (rounds is None or rounds.done()):
                        rounds = self._loop.create_task(self.watch.ask_all(), name="hiqlite-watch-round")
                except Exception:
                    log.exception("looking after this node failed, it is tried again")
                await asyncio.sleep(self._turn_s)
        finally:
            if rounds is not None:
                rounds.cancel()
                await asyncio.gather(rounds, return_exceptions=True)

    def _look(self) -> None:
        """Begins to ask what a group has to catch up with, and says when readiness changed."""
        for number, one in list(self._groups.items()):
            known, catching = self._catching.get(number, (None, None))
            if one.group.started and known is not one:
                if catching is not None:
                    catching.cancel()
                catching = self._loop.create_task(_catch_up(one), name=f"hiqlite-catch-up-{one.name}")
                self._catching[number] = one, catching
        health = self.health()
        if health.ready is not self._said:
            self._said = health.ready
            if health.ready:
                log.info("node %d is ready", self._config.node_id)
            else:
                log.info("node %d is not ready: %s", self._config.node_id, "; ".join(health.reasons))

    # -- the verdicts

    def health(self) -> Health:
        """What this node says of itself now."""
        now_ns = self._clock.monotonic_ns()
        for number, one in self._groups.items():
            if one.group.leader_id and one.group.failure is None:
                self._led_ns[number] = now_ns
            elif DB in self._led_ns:
                self._led_ns.setdefault(number, self._led_ns[DB])
        reached = set(self._links.reached())
        around = Surroundings(
            self._config.node_id,
            fellows=1 + len(reached),
            strangers=len(set(self.watch.strangers) - reached),
            contradictions=self.watch.contradictions,
            leaving=self.leaving,
            troubles="" if self._closed else self._links.troubles(),
        )
        groups = [self._state(number, one) for number, one in self._groups.items()]
        return judge(groups, around, grace_s=self._grace_s, lag_max=self._config.ready_max_lag)

    def _state(self, number: int, one: NodeGroup) -> GroupState:
        group = one.group
        failure = "" if group.failure is None else str(group.failure)
        if not failure and not group.proposals.taking:
            failure = "the node is shutting down"
        absent = ""
        if number == DB:
            absent = self._members.standing
            if not group.started:
                absent = absent or "this node is no member of a cluster yet"
        # Nobody who only wants the database waits for the cache group: it joins after that, and has its time for it.
        since_ns = self._led_ns.get(number)
        leaderless_s = NEVER if since_ns is None else (self._clock.monotonic_ns() - since_ns) / 1e9
        known, catching = self._catching.get(number, (None, None))
        return GroupState(
            one.name,
            failure,
            absent,
            0.0 if group.leader_id else leaderless_s,
            caught_up=known is one and catching is not None and catching.done(),
            lag=max(0, one.committed_index - group.applier.applied_index),
            refusal="" if group.proposals.refusal is None else str(group.proposals.refusal),
        )

    # -- metrics

    def metrics(self, beats: Mapping[str, int]) -> Metrics:
        """Everything about this node, in numbers; `beats` are the counters of the heartbeat thread."""
        counters: dict[int, dict[str, float]] = {
            number: dict(one.group.proposals.flow.counters()) for number, one in self._groups.items()
        }
        counters[DB].update({**self._storage.db.writer.metrics(), **beats})
        groups = {
            one.name: metrics_of(one.group, self._config.node_id, one.committed_index, counters[number])
            for number, one in self._groups.items()
        }
        return Metrics(groups, self._about())

    def _about(self) -> dict[str, Any]:
        health = self.health()
        return {
            "id": self._config.node_id,
            "version": self._version,
            "cluster_id": self._cluster_id().hex(),
            "uptime_s": (self._clock.monotonic_ns() - self._begun_ns) / 1e9,
            "healthy": health.healthy,
            "ready": health.ready,
            "reasons": list(health.reasons),
            "split_brain": [one.text for one in self.watch.contradictions],
            "strangers": list(self.watch.strangers),
            "disk_low": self._storage.space.is_low,
            "equality": self._equality.about(),
            "network": {} if self._network is None else self._network.metrics(),
            "reads": {} if self._closed else asdict(self._storage.db.reader.metrics()),
        }

    # -- what peers hear

    def _word(self, asked: Asked, twice: tuple[int, ...]) -> Word:
        groups = {one.name: self._group_word(one, asked.get(one.name, 0)) for one in self._groups.values()}
        return Word(self._config.node_id, self._process, self._cluster_id(), groups, twice, BUILD)

    def _cluster_id(self) -> bytes:
        """Empty before this node has formed or joined one; it stays what it is then."""
        if not self._known_id and self._groups[DB].group.started:
            self._known_id = self._storage.meta.cluster_id or b""
        return self._known_id

    def _group_word(self, one: NodeGroup, asked: int) -> GroupWord:
        incarnation, forgets = one.storage.identity.incarnation, one.storage.forgets
        if not one.group.started:
            return GroupWord(incarnation, forgets)
        engine = one.group.engine
        word = GroupWord(incarnation, forgets, engine.term, engine.leader_id)
        if engine.state.unconfirmed or engine.faulty:
            return word  # what this node holds is not certain yet: only who leads is
        index = engine.commit_index

        def entry(index: int) -> tuple[int, int]:
            term = engine.term_at(index)
            return (index, term) if index > 0 and term > 0 else (0, 0)

        return GroupWord(
            incarnation, forgets, word.term, word.leader_id, entry(index), engine.membership_at(index),
            held=entry(asked) if asked <= index else (0, 0),
            states=tuple(self._storage.db.writer.hashes().items()) if one.number == DB else (),
        )  # fmt: skip

    def _removed(self) -> tuple[int, ...]:
        found = self._members.membership
        return () if found is None else found.removed


async def _catch_up(one: NodeGroup) -> None:
    """Ends once the group has applied what was committed when it was asked; never for one that ends before."""
    try:
        await one.until_leader()
    except HiqliteError as error:
        log.debug("%s did not catch up: %s", one.name, error)
        await asyncio.Event().wait()
