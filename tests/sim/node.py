"""A simulated process: the real engine, turned as the runtime turns it, over a simulated disk, network and database.

Invariant: it does with a Ready exactly what the runtime does, in the order of its fields, and asks the checks before
each step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hiqlite.engine.model import (
    NOTHING,
    Append,
    AppendKind,
    AppendRequest,
    Change,
    Identity,
    Membership,
    Message,
    Ready,
    RepairReply,
    Role,
)
from hiqlite.engine.raft import Raft
from hiqlite.engine.state import State

from .beat import BeatThread
from .database import Database
from .holding import Body
from .images import ImageReceiver, ImageSender
from .reading import FAILED, Reader
from .writing import Writing

if TYPE_CHECKING:
    from .cluster import Cluster

MS = 1_000_000
FAR_NS = 60_000 * MS


class Node(Writing):
    """One node through all its lives; `life` counts them."""

    def __init__(self, cluster: Cluster, identity: Identity, membership: Membership) -> None:
        self.cluster = cluster
        self.world = cluster.world
        self.checks = cluster.checks
        self.identity = identity
        self.id = identity.id
        self.first_membership = membership  # what it was told when it began
        self.disk = cluster.new_disk(identity.id)
        self.database = Database(membership)
        self.life = 0
        self.sender, self.receiver = ImageSender(self), ImageReceiver(self)
        self.up = False
        self.stopped = False  # SIGSTOP: nothing runs, not even heartbeats
        self.stalled = False  # the loop stands still, heartbeats go on
        self.stalled_since_ns = 0
        self.batch = cluster.profile.batch
        self.apply_ns = cluster.profile.apply_ns
        self.rate = cluster.profile.rates[identity.id % len(cluster.profile.rates)]  # of the clock, per mille
        self.raft: Raft
        self.state: State
        self.terms: list[int] = []
        self.values: list[int] = []
        self.began_ns = self.woke_ns = 0

    # ------------------------------------------------------------------ life

    def start(self) -> None:
        cluster, disk = self.cluster, self.disk
        restored = disk.restore(self.database, cluster.memberships)
        self.began_base = disk.base
        self.began_beyond = 0 < disk.base == len(disk.terms) - 1  # nothing but the database says what is committed
        self.life += 1
        self.up = True
        self.stopped = self.stalled = self.failed = False
        self.began_ns = self.woke_ns = self.world.now_ns
        self.terms = list(disk.terms)
        self.values = list(disk.values)
        self.bodies: list[Body] = []
        self.fetched: dict[int, Body] = {}
        self.window_start = len(self.terms)
        self.proposals: dict[int, int] = {}  # index -> value, of this leadership
        self.reads: dict[int, int] = {}  # token -> floor
        self.reader = Reader(self)
        self.inbox: list[tuple[Message, Body | None]] = []
        self.stamps: list[tuple[int, int, int, int, int]] = []
        self.applying = False
        self.to_apply: list[int] = []
        self.turn_planned = False
        self.tick_at = 0
        self.word = (0, False)
        self.was_leader = False
        self.led_term = 0  # the newest term that it led in this life
        self.left_ns = 0  # when it stopped leading last
        self.seen_commit = self.applied
        disk.on_progress = self.on_disk
        seed = self.world.below(1 << 40)
        self.raft = Raft(self.identity, cluster.profile.settings, restored, self.now(), seed)
        self.state = self.raft.state
        self.told_waiting_ns = 0
        self.config = self.raft.membership  # in force before the Ready that is done
        self.sender = ImageSender(self)
        self.receiver = self.receiver_of_next_life()
        self.checks.restarted(self)
        if disk.full:
            self.tell_space()
        self.plan_tick()
        self.beats = BeatThread(self)
        self.beats.run()
        self.turn()

    def crash(self, power_loss: bool) -> None:
        self.world.note(f"node {self.id} {'loses power' if power_loss else 'is killed'}")
        if power_loss:
            self.database.lose_power(self.world)
        self.up = False
        self.life += 1
        self.disk.crash(power_loss)
        self.cluster.gone(self)

    # ------------------------------------------------------------------ inputs

    def now(self) -> int:
        """What this node's clock says: it may run a little faster or slower than those of others."""
        return self.world.now_ns if self.rate == 1000 else self.world.now_ns * self.rate // 1000

    def runs(self) -> bool:
        return self.up and not self.stopped and not self.stalled and not self.failed

    def stand_still(self) -> int:
        """The loop does, heartbeats go on; since when."""
        self.world.note(f"node {self.id} stands still")
        self.stalled, self.stalled_since_ns = True, self.world.now_ns
        return self.stalled_since_ns

    def deliver(self, message: Message, body: Body | None) -> None:
        if not self.up or self.stopped or self.stalled or self.failed:
            self.inbox.append((message, body))  # stays in the socket
            return
        checks, kind = self.checks, type(message)
        receiving = checks.receiving.get(kind)
        if receiving is not None:
            receiving(self, message)
        damaged = bool(self.state.faulty)
        if damaged and body is not None:
            self.turn()  # whatever it repairs is written right after this message
        if body is not None:
            self.bodies.append(body)
            message = self.with_memberships(message, body)
        self.raft.receive(message, self.world.now_ns if self.rate == 1000 else self.now())
        received = checks.received.get(kind)
        if received is not None:
            received(self, message)
        if damaged or not self.batch:
            self.turn()
        else:
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
            self.checks.beat_heard(self, term, Identity(sender, incarnation), at_ns)
        self.stamps.clear()

    def wake(self, life: int) -> None:
        """After a pause: poll once before any deadline is judged (rule 17)."""
        if life != self.life or self.failed:
            return
        self.world.note(f"node {self.id} goes on")
        self.stopped = self.stalled = False
        if self.disk.failure:
            self.fail()
            return
        self.woke_ns = self.world.now_ns
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
        self.tell_disk()
        if self.raft.next_deadline() <= self.now():
            self.raft.tick(self.now())
            self.turn()
            self.checks.ticked(self)
        else:
            self.plan_tick()

    def plan_tick(self) -> None:
        """One event for the earliest deadline; one that moved away is looked at when it comes."""
        if self.disk.waiting_since_ns != self.told_waiting_ns:
            self.tell_disk()
        deadline, planned = self.raft.next_deadline(), self.tick_at
        deadline = deadline + 1 if self.rate == 1000 else deadline * 1000 // self.rate + 1
        if deadline >= planned != 0:
            return
        now_ns = self.world.now_ns
        if deadline <= now_ns:
            deadline = now_ns + 1
        if (planned == 0 or deadline < planned) and deadline < now_ns + FAR_NS:
            self.tick_at = deadline
            self.world.after(deadline - now_ns, self.tick, self.life, deadline)

    def change_members(self, change: Change) -> int:
        """Ask for a change; its index or 0. What is committed by now is looked at before."""
        self.turn()
        index = self.raft.propose_membership(change, self.now()) if self.up else 0
        if index:
            self.world.note(f"node {self.id} proposes {change.kind.name} {change.members} at {index}")
            self.turn_soon()
        return index

    def propose(self, count: int, size_bytes: int) -> int:
        raft = self.raft
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
        token = self.raft.read(self.now())
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
        raft, state, checks = self.raft, self.state, self.checks
        self.word = raft.beat_word()
        while self.up and raft.has_ready():
            ready = raft.ready()
            if ready is NOTHING:
                if state.commit_index != self.seen_commit:
                    self.look_at_commit()
                continue
            self.do(ready)
            if ready.membership is not None:
                self.config = ready.membership
        checks.stepped(self)
        if state.leads:
            checks.led(self)
        if self.bodies:
            self.bodies.clear()
        if self.up:
            self.plan_tick()

    def do(self, ready: Ready) -> None:
        raft, disk = self.raft, self.disk
        if ready.fatal:
            self.checks.fatal(self, ready.fatal)
        if ready.role_changed:
            self.word = raft.beat_word()  # before anything that follows is sent
            self.changed_role()
        if ready.hard_state is not None:
            state = ready.hard_state
            disk.push((state.io_sequence, "state", state.term, state.vote, None))
        if ready.truncate is not None:
            self.checks.truncating(self, ready.truncate.last_kept)
            disk.push((ready.truncate.io_sequence, "cut", ready.truncate.last_kept, None, None))
            del self.terms[ready.truncate.last_kept + 1 :]
            del self.values[ready.truncate.last_kept + 1 :]
        if ready.reset is not None:
            self.begin_behind(ready.reset.io_sequence, ready.reset.base_index, ready.reset.base_term)
        for append in ready.appends:
            self.append(append)
        for repair in ready.repairs:
            terms, values = self.take_repair(repair)
            disk.push((repair.io_sequence, "repair", repair.first, terms, values))
        if self.state.commit_index != self.seen_commit:
            self.look_at_commit()
        if ready.sends:
            self.send(ready)
        for fetch in ready.fetches:
            self.fetch(fetch.peer_id, fetch.first, fetch.size_max)
        for image in ready.images:
            self.sender.send(image.peer_id, image.resume_index)
        if ready.apply is not None:
            self.checks.applying(self, *ready.apply)
            self.to_apply.append(ready.apply[1])
            self.apply_later()
        for confirmed in ready.reads:
            self.checks.read_confirmed(self, confirmed.token, confirmed.read_index)
            self.reads.pop(confirmed.token)
            self.reader.confirmed(confirmed.token, confirmed.read_index)
        for token in ready.failed_reads:
            self.reads.pop(token)
            self.reader.confirmed(token, FAILED)
        if ready.lost_from:
            for index in [index for index in self.proposals if index >= ready.lost_from]:
                del self.proposals[index]

    def send(self, ready: Ready) -> None:
        sending, network = self.checks.sending, self.cluster.network
        between = ready.role_changed or ready.hard_state is not None
        for send in ready.sends:
            message, peer_id = send.message, send.peer_id
            body = None
            if between:
                self.beats.step()
            if type(message) is AppendRequest:
                if message.last_index > message.previous_index:
                    body = self.body_of(peer_id, message)
            elif type(message) is RepairReply:
                if message.first <= self.raft.base_index:
                    continue  # it waited for a hard state, and was purged meanwhile
                body = self.body_of(peer_id, message)
            sending[type(message)](self, message, peer_id)
            network.send(self, peer_id, message, body)

    def append(self, append: Append) -> None:
        first, last = append.first, append.last
        if append.kind is AppendKind.RECEIVED:
            self.take_body(first, last, append.term)
        elif append.kind is not AppendKind.PROPOSED:
            value = 0
            if append.membership is not None:
                value = self.cluster.new_values(1)[0]
                self.cluster.memberships[value] = append.membership
                self.checks.changing(self, append.membership, append.term)
                self.cluster.coverage.changing(append.membership)
            self.terms.append(append.term)
            self.values.append(value)
            self.checks.created(self, first, 1)
        terms, values = self.terms[first : last + 1], self.values[first : last + 1]
        self.disk.push((append.io_sequence, "append", first, terms, values))

    def changed_role(self) -> None:
        raft = self.raft
        leads = raft.role is Role.LEADER
        self.world.note(f"node {self.id}: {raft.role.name} term {raft.term} last {raft.last_index} of {raft.last_term}")
        if leads and not self.was_leader:
            self.window_start = raft.last_index
            self.checks.became_leader(self)
            if self.world.chance() < 0.3:
                self.queue_read()  # a caller who was sent here and is early
        if not leads:
            self.sender.stop()
            if self.was_leader:
                self.left_ns = self.world.now_ns
        self.was_leader = leads
        if leads:
            self.led_term = raft.term
