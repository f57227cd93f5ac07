"""Time in a node's groups: what happens every heartbeat interval, and the words shared with the heartbeat thread.

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
    """The regular turn of a node, one for all of its groups: they share the loop, the thread and the beat links.

    Args:
        network: dials lost beat links again; None for a node without peers.
    """

    def __init__(
        self,
        beat: BeatThread,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
        settings: RaftSettings,
        network: BeatLinks | None,
    ) -> None:
        self._groups: dict[int, GroupPulse] = {}
        self._beat = beat
        self._clock = clock
        self._loop = loop
        self._network = network
        self._interval_s = settings.heartbeat_interval_ms / 1000
        self._stall_ns = (settings.election_timeout_min_ms // 2 + settings.heartbeat_interval_ms) * 1_000_000
        self._last_ns = 0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, number: int, group: Group) -> GroupPulse:
        """The pulse of a group from now on; a group that begins anew takes the place of the one before."""
        pulse = self._groups[number] = GroupPulse(group, number, self._beat, self._clock)
        group.before_deadline = self.listen
        return pulse

    def start(self) -> None:
        """Begin. Before a group turns only callers' deadlines are judged: a write may wait for a cluster to form."""
        self._last_ns = self._clock.monotonic_ns()
        self._loop.add_reader(self._beat.fileno(), self._links_lost)
        self._turn()

    def close(self) -> None:
        self._loop.remove_reader(self._beat.fileno())
        if self._timer is not None:
            self._timer.cancel()

    def listen(self) -> bool:
        """Hand what was heard to the engines. False when the loop itself was stuck: then judge nothing this turn."""
        now_ns = self._clock.monotonic_ns()
        groups = [pulse for pulse in self._groups.values() if pulse.group.started]
        stalled = now_ns - self._last_ns > self._stall_ns
        if stalled:
            log.warning("the event loop was stuck for %d ms", (now_ns - self._last_ns) // 1_000_000)
            for pulse in groups:
                pulse.group.engine.loop_stalled(now_ns)
                self._loop.call_soon(pulse.group.pump)
            self._last_ns = now_ns
        for pulse in groups:
            pulse.listen(now_ns)
        return not stalled

    def _turn(self) -> None:
        if any(pulse.left for pulse in self._groups.values()):
            return
        self._timer = self._loop.call_later(self._interval_s, self._turn)  # first: whatever fails below, time goes on
        now_ns = self._clock.monotonic_ns()
        groups = [pulse.group for pulse in self._groups.values()]
        self._beat.tick(min(filter(None, (group.log_store.waiting_since_ns for group in groups)), default=0))
        for group in groups:
            group.proposals.expire(now_ns)
        self.listen()
        self._last_ns = now_ns
        for pulse in self._groups.values():
            if pulse.group.started:
                pulse.turn(now_ns)

    def _links_lost(self) -> None:
        for peer_id in self._beat.lost():
            if self._network is not None:
                self._network.redial_beat(peer_id)


class GroupPulse:
    """What of it is one group's."""

    def __init__(self, group: Group, number: int, beat: BeatThread, clock: Clock) -> None:
        self.group = group
        self._number = number
        self._beat = beat
        self._clock = clock
        self._heard: dict[int, int] = {}
        self.committed_index = 0  # the highest that a leader's beats have named: committed there, perhaps not here yet
        self.left = False  # in a forked child: to the parent

    def role_changed(self) -> None:
        """The engine changed: the heartbeat thread must know before anything that follows is sent."""
        self._beat.set_word(self._number, *self.group.engine.beat_word())
        self._set_bounds(self._clock.monotonic_ns())

    def listen(self, now_ns: int) -> None:
        """What the heartbeat thread heard of this group since the last call."""
        for stamp in self._beat.stamps(self._number):
            if self._heard.get(stamp.peer_id) != stamp.heard_at_ns:
                self._heard[stamp.peer_id] = stamp.heard_at_ns
                self.group.group_time.saw(stamp.group_time_ns)
                self.group.engine.heard_beat(
                    stamp.term, stamp.peer_id, stamp.incarnation, stamp.commit_bound, now_ns, stamp.heard_at_ns
                )
                engine = self.group.engine
                if (engine.term, engine.leader_id) == (stamp.term, stamp.peer_id):
                    self.committed_index = max(self.committed_index, stamp.commit_bound)

    def turn(self, now_ns: int) -> None:
        """What a group does every interval."""
        group = self.group
        self._set_bounds(now_ns)
        group.engine.disk_waits(group.log_store.waiting_since_ns)
        group.engine.disk_full(group.troubles.has_own, now_ns)
        group.purger.turn(group.engine)
        group.pump()

    def _set_bounds(self, now_ns: int) -> None:
        group = self.group
        time_ns = group.group_time.read(now_ns) if group.leads else group.group_time.newest_seen_ns
        self._beat.set_bounds(self._number, group.identity.incarnation, group.engine.commit_index, time_ns)
