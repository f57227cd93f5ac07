"""Time in a group: what happens every heartbeat interval, and the word shared with the native heartbeat thread.

Notes the loop's own stalls, hands over what was heard, lets callers' deadlines pass. Must not know who is elected or
why. Invariant: before any deadline is judged, what the heartbeat thread heard meanwhile has been handed to the engine.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from hiqlite import observe
from hiqlite._accel.beat import BeatThread
from hiqlite.clock import Clock
from hiqlite.config import RaftSettings

from .group import Group

log = observe.logger("runtime")


class BeatLinks(Protocol):
    def redial_beat(self, peer_id: int) -> None: ...


class Pulse:
    """The regular turn of one group.

    Args:
        network: dials lost beat links again; None for a node without peers.
    """

    def __init__(
        self,
        group: Group,
        number: int,
        beat: BeatThread,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
        settings: RaftSettings,
        network: BeatLinks | None,
    ) -> None:
        self._group = group
        self._number = number
        self._beat = beat
        self._clock = clock
        self._loop = loop
        self._settings = settings
        self._network = network
        self._interval_s = settings.heartbeat_interval_ms / 1000
        self._stall_ns = settings.election_timeout_min_ms * 1_000_000 // 2
        self._last_ns = 0
        self._timer: asyncio.TimerHandle | None = None
        self._heard: dict[int, int] = {}

    def start(self) -> None:
        """Begin. Before the group turns only callers' deadlines are judged: a write may wait for a cluster to form."""
        self._last_ns = self._clock.monotonic_ns()
        self._loop.add_reader(self._beat.fileno(), self._links_lost)
        self._group.before_deadline = self.listen
        self._turn()

    def close(self) -> None:
        self._loop.remove_reader(self._beat.fileno())
        if self._timer is not None:
            self._timer.cancel()

    def role_changed(self) -> None:
        """The engine changed: the heartbeat thread must know before anything that follows is sent."""
        self._beat.set_word(self._number, *self._group.engine.beat_word())
        self._set_bounds(self._clock.monotonic_ns())

    def listen(self) -> bool:
        """Hand what was heard to the engine. False when the loop itself was stuck: then judge nothing this turn."""
        now_ns = self._clock.monotonic_ns()
        engine = self._group.engine
        stalled = now_ns - self._last_ns > self._stall_ns + self._settings.heartbeat_interval_ms * 1_000_000
        if stalled:
            log.warning("the event loop was stuck for %d ms", (now_ns - self._last_ns) // 1_000_000)
            engine.loop_stalled(now_ns)
            self._last_ns = now_ns
        for stamp in self._beat.stamps(self._number):
            if self._heard.get(stamp.peer_id) != stamp.heard_at_ns:
                self._heard[stamp.peer_id] = stamp.heard_at_ns
                self._group.group_time.saw(stamp.group_time_ns)
                engine.heard_beat(
                    stamp.term, stamp.peer_id, stamp.incarnation, stamp.commit_bound, now_ns, stamp.heard_at_ns
                )
        return not stalled

    def _turn(self) -> None:
        self._timer = self._loop.call_later(self._interval_s, self._turn)  # first: whatever fails below, time goes on
        now_ns = self._clock.monotonic_ns()
        group = self._group
        waiting_since_ns = group.log_store.waiting_since_ns
        self._beat.tick(waiting_since_ns)
        group.proposals.expire(now_ns)
        if not group.started:
            self._last_ns = now_ns
            return
        self.listen()
        self._last_ns = now_ns
        self._set_bounds(now_ns)
        group.engine.disk_waits(waiting_since_ns)
        group.engine.disk_full(group.proposals.refusal is not None, now_ns)
        group.purger.turn(group.engine)
        group.pump()

    def _set_bounds(self, now_ns: int) -> None:
        group = self._group
        time_ns = group.group_time.read(now_ns) if group.leads else group.group_time.newest_seen_ns
        self._beat.set_bounds(self._number, group.identity.incarnation, group.engine.commit_index, time_ns)

    def _links_lost(self) -> None:
        for peer_id in self._beat.lost():
            if self._network is not None:
                self._network.redial_beat(peer_id)
