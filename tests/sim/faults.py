"""What goes wrong at random moments: one method per fault. Scripted ones stand in nemeses.py.

Each seed's profile weighs them; a fault that does not fit the moment does nothing.
"""

from __future__ import annotations

from .cluster import Cluster
from .operators import Operators
from .profile import Strike

MS = 1_000_000


class Faults(Operators):
    """Strikes at the moments given until told to end."""

    def __init__(self, cluster: Cluster, strikes: tuple[Strike, ...]) -> None:
        super().__init__(cluster)
        self.strikes = strikes

    def plan(self) -> None:
        for number, strike in enumerate(self.strikes):
            self.world.after(strike.after_ns, self.strike, number, strike)

    def strike(self, number: int, strike: Strike) -> None:
        """One strike draws from its own source, so that it does the same when others are left out."""
        if self.ended:
            return
        self.world.note(f"strike {number}: {strike.name}")
        with self.world.chance_of(strike.seed):
            getattr(self, strike.name)()

    def end(self) -> None:
        """Everything is repaired and everybody runs."""
        self.ended = True
        self.network.trap = None
        self.network.echo = self.network.vote_delay_ns = 0
        self.network.calm = True
        self.network.heal()
        for node in self.cluster.nodes.values():
            node.disk.stalled_until_ns = node.disk.slow_sync_until_ns = 0
            node.disk.trap = None
            node.disk.calm = True
            if node.disk.failure:
                node.crash(power_loss=False)
            node.disk.failing = ""
            node.disk.make_room()
            if node.up and not node.runs():
                node.wake(node.life)
            self.cluster.start(node)
        ids = list(self.cluster.nodes)
        for a in ids:
            for b in ids:
                if a < b:
                    self.network.connect(a, b)

    # ------------------------------------------------------------------ processes

    def kill(self) -> None:
        node = self.some(True)
        if node is not None:
            node.crash(power_loss=False)

    def power(self) -> None:
        everybody = self.world.chance() < 0.15
        victims = list(self.cluster.nodes.values()) if everybody else [self.some(True)]
        for node in victims:
            if node is not None and node.up:
                node.crash(power_loss=True)

    def restart(self) -> None:
        node = self.some(False)
        if node is not None:
            self.cluster.start(node)

    def wipe(self) -> None:
        node = self.some(False)
        if node is not None and not node.disk.faulty and self.cluster.bears(node.identity):
            self.cluster.wipe(node)

    def rot(self) -> None:
        """Recovery will find that some payloads are damaged: (term, index) of those entries stay known."""
        self._rot(deep=False)

    def rot_deep(self) -> None:
        """Of some entries even the term is lost."""
        self._rot(deep=True)

    def _rot(self, deep: bool) -> None:
        node = self.some(False)
        if node is None or not self.cluster.bears(node.identity):
            return
        disk = node.disk
        first, last = disk.base + 1, len(disk.terms) - 1
        if first <= last:
            low = first + self.world.below(last - first + 1)
            if self.world.chance() < 0.4:
                low = max(first, last - self.world.below(5))
            disk.damage(range(low, min(low + 1 + self.world.below(3), last + 1)), deep)
            self.cluster.look_after(node)

    def pause(self) -> None:
        self._halt(stopped=True)

    def stall(self) -> None:
        self._halt(stopped=False)

    def _halt(self, stopped: bool) -> None:
        node = self.some(True)
        if node is None or not node.runs():
            return
        if stopped:
            self.world.note(f"node {node.id} is stopped")
            node.stopped = True
        else:
            node.stand_still()
        longest = 2500 if self.world.chance() < 0.8 else 5000
        self.world.after((20 + self.world.below(longest)) * MS, self._go_on, node, node.life)

    def disk(self) -> None:
        node = self.some(True)
        if node is not None:
            node.disk.stalled_until_ns = self.world.now_ns + self.world.below(1500) * MS

    def resign(self) -> None:
        leader = self.cluster.leader()
        if leader is not None and leader.runs():
            leader.raft.step_down(leader.now(), "the simulator wants it")
            leader.turn_soon()

    def forget(self) -> None:
        """The runtime drops the older part of its memory."""
        leader = self.cluster.leader()
        if leader is not None and leader.runs() and leader.raft.last_index > leader.window_start:
            span = leader.raft.last_index - leader.window_start
            leader.window_start += self.world.below(span + 2)
            leader.raft.window_starts_at(leader.window_start)

    # ------------------------------------------------------------------ network

    def _some_ids(self) -> set[int]:
        return {number for number in self.cluster.nodes if self.world.chance() < 0.5}

    def partition(self) -> None:
        self.network.cut(self._some_ids(), both_ways=True, beats=self.world.chance() < 0.7)

    def one_way(self) -> None:
        self.network.cut(self._some_ids(), both_ways=False, beats=self.world.chance() < 0.5)

    def control_only(self) -> None:
        self.network.cut(self._some_ids(), both_ways=True, beats=False)

    def log_only(self) -> None:
        """Entries and their answers are stuck, rounds and heartbeats pass."""
        ours = self._some_ids()
        pairs = {(a, b) for a in ours for b in set(self.cluster.nodes) - ours}
        self.world.note(f"log links of {sorted(ours)} are stuck")
        self.network.log_blocked |= pairs

    def slow_answers(self) -> None:
        """What is said to the leader comes late, what it says does not come at all: it is replaced unknowingly."""
        leader = self.cluster.leader()
        if leader is not None:
            self.network.cut({leader.id}, both_ways=False, beats=True)
            delay = (500 + self.world.below(450)) * MS
            self.network.slow.update({(number, leader.id): delay for number in self.cluster.nodes})

    def leader_cut(self) -> None:
        leader = self.cluster.leader()
        if leader is not None:
            ours = {leader.id}
            if self.world.chance() < 0.4:
                ours.add(1 + self.world.below(len(self.cluster.nodes)))
            self.network.cut(ours, both_ways=True, beats=self.world.chance() < 0.7)
            if self.world.chance() < 0.15:
                self.cut_until_ns = self.world.now_ns + 1300 * MS  # long enough that it has to notice

    def heal(self) -> None:
        if self.world.now_ns >= self.cut_until_ns:
            self.network.heal()

    def reset(self) -> None:
        ids = list(self.cluster.nodes)
        if len(ids) > 1:
            a, b = self.world.below(len(ids)), self.world.below(len(ids))
            if a != b:
                self.network.reset(ids[a], ids[b], refused=False)
