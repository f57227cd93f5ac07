"""A simulated process: the real engine, turned as the runtime turns it, over a simulated disk, network and database.

Its `terms` and `values` are what the runtime holds of the log (bytes become one number per entry). Invariant: it does
with a Ready exactly what the runtime does, in the order of its fields, and asks the checks before each step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hiqlite.engine.model import (
    AppendKind,
    AppendRequest,
    Identity,
    Message,
    Ready,
    Role,
)
from hiqlite.engine.raft import Raft
from hiqlite.engine.state import State

from .beat import BeatThread
from .disk import Disk

if TYPE_CHECKING:
    from .cluster import Cluster

Body = tuple[int, list[int], list[int]]  # first index, terms, values
MS = 1_000_000


class Node:
    """One node through all its lives; `life` counts them."""

    def __init__(self, cluster: Cluster, identity: Identity) -> None:
        self.cluster = cluster
        self.world = cluster.world
        self.checks = cluster.checks
        self.identity = identity
        self.id = identity.id
        self.disk = Disk(cluster.world, cluster.profile)
        self.disk.owner = identity.id
        self.full_until_ns = 0  # new work is refused until then
        self.applied = 0  # of the database, survives the process
        self.life = 0
        self.up = False
        self.stopped = False  # SIGSTOP: nothing runs, not even heartbeats
        self.stalled = False  # the loop stands still, heartbeats go on
        self.stalled_since_ns = 0
        self.batch = cluster.profile.batch
        self.rate = cluster.profile.rates[identity.id % len(cluster.profile.rates)]  # of the clock, per mille
        self.raft: Raft
        self.state: State
        self.terms: list[int] = []
        self.values: list[int] = []
        self.began_ns = 0

    # ------------------------------------------------------------------ life

    def start(self) -> None:
        cluster, disk = self.cluster, self.disk
        last = len(disk.terms) - 1
        self.began_beyond = self.applied > last or (0 < last == disk.base)  # the database is ahead of the log
        restored = disk.restore(cluster.membership, self.applied, cluster.truth.terms, cluster.truth.values)
        self.life += 1
        self.up = True
        self.stopped = self.stalled = False
        self.began_ns = self.world.now_ns
        self.terms = list(disk.terms)
        self.values = list(disk.values)
        self.bodies: list[Body] = []
        self.fetched: dict[int, Body] = {}
        self.window_start = len(self.terms)
        self.proposals: dict[int, int] = {}  # index -> value, of this leadership
        self.reads: dict[int, int] = {}  # token -> floor
        self.inbox: list[tuple[Message, Body | None]] = []
        self.stamps: list[tuple[int, int, int, int, int]] = []
        self.applying = False
        self.to_apply: list[int] = []
        self.turn_planned = False
        self.tick_at = 0
        self.word = (0, False)
        self.was_leader = False
        self.led_term = 0  # the newest term that it led in this life
        self.seen_commit = self.applied
        disk.on_progress = self.on_disk
        seed = self.world.below(1 << 40)
        self.raft = Raft(self.identity, cluster.profile.settings, restored, self.now(), seed)
        self.state = self.raft.state
        self.checks.restarted(self)
        self.plan_tick()
        self.beats = BeatThread(self)
        self.beats.run()
        self.turn()

    def crash(self, power_loss: bool) -> None:
        self.world.note(f"node {self.id} {'loses power' if power_loss else 'is killed'}")
        if power_loss and self.applied > self.disk.base:
            low = max(self.disk.base, self.applied - self.world.below(6))
            self.applied = low + self.world.below(self.applied - low + 1)
        self.up = False
        self.life += 1
        self.disk.crash(power_loss)
        self.cluster.gone(self)

    # ------------------------------------------------------------------ inputs

    def now(self) -> int:
        """What this node's clock says: it may run a little faster or slower than those of others."""
        return self.world.now_ns * self.rate // 1000

    def runs(self) -> bool:
        return self.up and not self.stopped and not self.stalled

    def deliver(self, message: Message, body: Body | None) -> None:
        if not self.runs():
            self.inbox.append((message, body))  # stays in the socket
            return
        self.checks.receiving(self, message)
        if body is not None:
            self.bodies.append(body)
        self.raft.receive(message, self.now())
        self.checks.received(self, message)
        self.turn_soon()

    def on_disk(self) -> None:
        if self.runs():
            self.raft.log_progress(self.disk.written_io, self.disk.synced_io, self.now())
            self.turn_soon()

    def stamp(self, term: int, sender: int, incarnation: int, bound: int) -> None:
        """The beat thread heard a leader; the loop will see it at its next turn."""
        self.stamps.append((term, sender, incarnation, bound, self.now()))
        if self.runs():
            self.feed_stamps()
            self.turn_soon()

    def feed_stamps(self) -> None:
        for term, sender, incarnation, bound, at_ns in self.stamps:
            self.raft.heard_beat(term, sender, incarnation, bound, self.now(), at_ns)
            self.checks.beat_heard(self, term, sender, at_ns)
        self.stamps.clear()

    def wake(self, life: int) -> None:
        """After a pause: poll once before any deadline is judged (rule 17)."""
        if life != self.life:
            return
        self.world.note(f"node {self.id} goes on")
        self.stopped = self.stalled = False
        if self.world.chance() < 0.5:
            self.queue_read()  # a caller that was in line already
        self.feed_stamps()
        self.raft.loop_stalled(self.now())
        inbox, self.inbox = self.inbox, []
        for message, body in inbox:
            self.deliver(message, body)
        self.on_disk()
        self.plan_tick()

    def tick(self, life: int, at_ns: int) -> None:
        if life != self.life or at_ns != self.tick_at:
            return
        self.tick_at = 0
        if not self.runs():
            return
        if self.raft.next_deadline() <= self.now():
            self.raft.tick(self.now())
            self.turn()
            if self.up and self.raft.next_deadline() <= self.now():
                self.checks.fail("deadlines", f"node {self.id}: a tick did not consume its deadline")
        else:
            self.plan_tick()

    def plan_tick(self) -> None:
        """One event for the earliest deadline; one that moved away is looked at when it comes."""
        deadline = max(self.raft.next_deadline() * 1000 // self.rate + 1, self.world.now_ns + 1)
        if (self.tick_at == 0 or deadline < self.tick_at) and deadline < self.world.now_ns + 60_000 * MS:
            self.tick_at = deadline
            self.world.after(deadline - self.world.now_ns, self.tick, self.life, deadline)

    def propose(self, count: int, size_bytes: int) -> int:
        raft = self.raft
        if self.world.now_ns < self.full_until_ns:
            return 0
        first = raft.propose(count, size_bytes, self.now())
        if first:
            values = self.cluster.new_values(count)
            self.terms.extend([raft.term] * count)
            self.values.extend(values)
            self.checks.created(self, first, count)
            for offset in range(count):
                self.proposals[first + offset] = values[offset]
            self.turn_soon()
        return first

    def read(self) -> None:
        if self.queue_read():
            self.turn_soon()

    def queue_read(self) -> int:
        token = self.raft.read()
        if token:
            self.checks.read_began(self, token)
            self.reads[token] = self.cluster.truth.last
        return token

    # ------------------------------------------------------------------ the crank

    def turn_soon(self) -> None:
        if not self.batch or self.world.chance() >= self.batch:
            self.turn()
            return
        self.word = self.raft.beat_word()
        if self.turn_planned:
            return
        self.turn_planned = True
        self.world.after(self.world.below(MS // 2), self.planned_turn, self.life)

    def planned_turn(self, life: int) -> None:
        if life == self.life:
            self.turn_planned = False
            if self.runs():
                self.turn()

    def turn(self) -> None:
        raft = self.raft
        self.word = raft.beat_word()
        while self.up and raft.has_ready():
            self.do(raft.ready())
        self.checks.stepped(self)
        self.bodies.clear()
        if self.up:
            self.plan_tick()

    def do(self, ready: Ready) -> None:
        raft, disk = self.raft, self.disk
        if ready.fatal:
            self.checks.fatal(self, ready.fatal)
        if ready.role_changed:
            self.changed_role()
        if ready.hard_state is not None:
            state = ready.hard_state
            disk.push((state.io_sequence, "state", state.term, state.vote, None))
        if ready.truncate is not None:
            self.checks.truncating(self, ready.truncate.last_kept)
            disk.push((ready.truncate.io_sequence, "cut", ready.truncate.last_kept, None, None))
            del self.terms[ready.truncate.last_kept + 1 :]
            del self.values[ready.truncate.last_kept + 1 :]
        for append in ready.appends:
            first, last = append.first, append.last
            if append.kind is AppendKind.NOOP:
                self.terms.append(append.term)
                self.values.append(0)
                self.checks.created(self, first, 1)
            elif append.kind is AppendKind.RECEIVED:
                self.take_body(first, last, append.term)
            terms, values = self.terms[first : last + 1], self.values[first : last + 1]
            disk.push((append.io_sequence, "append", first, terms, values))
        if self.state.commit_index != self.seen_commit and not self.state.outbox.writes:
            self.checks.committed(self, self.seen_commit, raft.commit_index)
            self.seen_commit = raft.commit_index
        between = ready.role_changed or ready.hard_state is not None
        for send in ready.sends:
            message = send.message
            if between:
                self.beats.step()
            body = self.body_of(send.peer_id, message) if isinstance(message, AppendRequest) else None
            self.checks.sending(self, message, send.peer_id)
            self.cluster.network.send(self, send.peer_id, message, body)
        for fetch in ready.fetches:
            self.fetch(fetch.peer_id, fetch.first, fetch.size_max)
        if ready.apply is not None:
            self.checks.applying(self, *ready.apply)
            self.to_apply.append(ready.apply[1])
            self.apply_later()
        for confirmed in ready.reads:
            self.checks.read_confirmed(self, confirmed.token, confirmed.read_index)
            self.reads.pop(confirmed.token)
        for token in ready.failed_reads:
            self.reads.pop(token)
        if ready.lost_from:
            for index in [index for index in self.proposals if index >= ready.lost_from]:
                del self.proposals[index]

    def changed_role(self) -> None:
        raft = self.raft
        leads = raft.role is Role.LEADER
        self.world.note(f"node {self.id}: {raft.role.name} term {raft.term} last {raft.last_index} of {raft.last_term}")
        if leads and not self.was_leader:
            self.window_start = raft.last_index
            self.checks.became_leader(self)
            if self.world.chance() < 0.3:
                self.queue_read()  # a caller who was sent here and is early
        self.was_leader = leads
        if leads:
            self.led_term = raft.term

    def take_body(self, first: int, last: int, term: int) -> None:
        """The bytes of entries that came with a request; the newest that fits, as the runtime keeps them."""
        for body_first, terms, values in reversed(self.bodies):
            if body_first <= first and last < body_first + len(terms) and terms[last - body_first] == term:
                low, high = first - body_first, last + 1 - body_first
                self.terms.extend(terms[low:high])
                self.values.extend(values[low:high])
                self.checks.took(self, first, last)
                return
        raise AssertionError(f"no bytes for [{first}, {last}]")

    def body_of(self, peer_id: int, request: AppendRequest) -> Body | None:
        first, last = request.previous_index + 1, request.last_index
        if last < first:
            return None
        fetched = self.fetched.get(peer_id)
        if fetched is not None and fetched[0] == first and last == first + len(fetched[1]) - 1:
            return fetched
        if first < self.window_start:
            self.checks.fail("window", f"node {self.id} sends [{first}, {last}], memory begins at {self.window_start}")
        return (first, self.terms[first : last + 1], self.values[first : last + 1])

    def fetch(self, peer_id: int, first: int, size_max: int) -> None:
        count = 1 + self.world.below(8)
        last = min(first + count, len(self.terms) - 1)
        body = (first, self.terms[first : last + 1], self.values[first : last + 1])
        self.world.after(1 + self.world.below(3 * MS), self.answer_fetch, self.life, peer_id, first, last, body)

    def answer_fetch(self, life: int, peer_id: int, first: int, last: int, body: Body) -> None:
        if life != self.life:
            return
        if not self.runs():
            self.world.after(20 * MS, self.answer_fetch, life, peer_id, first, last, body)
            return
        self.turn()
        self.fetched[peer_id] = body
        self.raft.entries_fetched(peer_id, first, last, 100 * (last - first + 1), self.now())
        self.turn()
        self.fetched.clear()

    # ------------------------------------------------------------------ the database

    def apply_later(self) -> None:
        if not self.applying and self.to_apply:
            self.applying = True
            self.world.after(1 + self.world.below(self.cluster.profile.apply_ns), self.apply, self.life)

    def apply(self, life: int) -> None:
        if life != self.life:
            return
        if not self.runs():
            self.world.after(20 * MS, self.apply, life)
            return
        self.applying = False
        first, self.applied = self.applied + 1, self.to_apply.pop(0)
        self.raft.applied(self.applied)
        self.checks.applied(self, first, self.applied)
        if self.proposals:
            for index in range(first, self.applied + 1):
                value = self.proposals.pop(index, 0)
                if value:
                    self.checks.acknowledged(self, index, value)
        self.apply_later()
