"""A simulated disk that is written byte by byte and read back by the product's own recovery.

The log's bytes lie on a `Platter`, written by `ByteLog`; beside them stand the few values of the metadata. After each
end of the process `hiqlite.logstore.recovery` says what the log holds, and the engine goes on from that.

Must not know Raft. Invariant: `sure` is what the log means by all that was flushed, `unsure` are the writes behind it
in their order; what a recovery finds is `sure` after some of them, or it speaks of damage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

from hiqlite._accel import records
from hiqlite.engine.model import Identity, Membership, Restored
from hiqlite.logstore.recovered import Recovered
from hiqlite.logstore.recovery import Plan, recover
from hiqlite.logstore.segments import decode_header
from hiqlite.logstore.starting import settle

from .byte_found import Found, entries_in, fits, stands
from .byte_log import BATCH_BYTES, GROUP, ByteLog, Item
from .content import Content, Operation
from .database import Database
from .disk import Disk
from .platter import Ended, Platter
from .profile import Profile
from .world import World

MS = 1_000_000
IDLE_NS = 20 * MS
HEADER_BYTES = 4096
SEGMENT_BYTES = (8 << 10, 16 << 10)


class ByteDisk(Disk):
    """The log of one incarnation as bytes."""

    def __init__(self, world: World, profile: Profile, owner: int, judge: Callable[[Found], None]) -> None:
        super().__init__(world, profile, owner)
        self.judge = judge
        self.platter = Platter(world)
        self.log = ByteLog(self.platter, owner, SEGMENT_BYTES[world.below(len(SEGMENT_BYTES))])
        self.sure = Content()
        self.unsure: list[Item] = []
        self.batched = 0  # so many of them stand in batches that were written
        self.in_flight = 0  # so many behind those are being written
        self.asked: tuple[int, Identity | None] = (0, None)  # term and vote, as last handed over
        # The metadata: another file, whose transactions are durable or did not happen.
        self.named = 0
        self.purge_point = (0, 0)
        self.hard_state: tuple[int, Identity | None] = (0, None)
        self.spoiled: list[tuple[int, int, int]] = []  # (segment, low, high) that the device changed
        self.image: tuple[int, list[int], list[int]] = (0, [0], [0])  # what the newest reset put in the log's place
        self.recorded_io = 0  # terms and votes up to here are in the metadata
        self.flush_planned = False
        self.idle_planned = False
        self.flushed_ns = 0

    # ------------------------------------------------------------------ writing

    def push(self, operation: Operation) -> None:
        if operation[1] == "state":
            self.asked = (operation[2], operation[3])
        elif operation[1] == "reset":
            self.image = operation[2:]
            self.unsure.append((0, "state", *self.asked, None))  # where it stood may go with the old log
        self.unsure.append(operation)
        super().push(operation)

    def purge(self, index: int) -> None:
        """The mark goes with the next batch; what the process knows moves at once."""
        self.unsure.append((0, "purge", index, self.terms[index], self.asked))
        super().purge(index)
        if not self.busy:
            self._begin()

    def _begin(self) -> None:
        self.in_flight = 0 if self.no_room else len(self.unsure) - self.batched
        super()._begin()

    def _written(self, life: int, io: int) -> None:
        if life != self.life or (self.failing and self._fails("written", io)):
            return
        self._write()
        weak = self.profile.weak_sync
        if weak:  # the next batch waits for no flush
            self.busy, self.waiting_since_ns = False, 0
        super()._written(life, io)
        if weak and life == self.life and not self.busy and len(self.unsure) > self.batched:
            self._begin()

    def _write(self) -> None:
        items = self.unsure[self.batched : self.batched + self.in_flight]
        self.log.write(items)
        self.batched += len(items)
        self.in_flight = 0
        if self.profile.weak_sync:
            self.named = max(self.platter.sheets, default=0)
            if any(item[1] == "purge" for item in items):  # files go on its word: durable, whatever the mode
                self._flush()

    def _promise_on_its_word(self) -> None:
        """What is written counts as durable; a term and a vote when the metadata hold them, whatever the log does."""
        while self.pending and self.pending[0][0] <= self.written_io:
            io, kind, first, second, _ = self.pending[0]
            if kind == "state" and io > self.recorded_io:
                return
            self.synced_io = io
            self.apply(self.pending.popleft())
            if kind == "reset":
                self.purge_point = (first, second[first])
                self._recycle()

    def _synced(self, life: int, io: int) -> None:
        if life != self.life or (self.failing and self._fails("synced", io)):
            return
        if self.profile.weak_sync:
            self._recorded(io)
            return
        self._flush()
        super()._synced(life, io)
        if life == self.life and not self.busy and len(self.unsure) > self.batched:
            self._begin()

    def _recorded(self, io: int) -> None:
        """A transaction of the metadata is over; the flush of the log follows when it likes."""
        for item in self.pending:
            if item[1] == "state" and item[0] <= io:
                self.hard_state = (item[2], item[3])
        self.recorded_io = max(self.recorded_io, io)
        if not self.flush_planned:
            self.flush_planned = True
            self.world.after(1 + self.world.below(2 * self.profile.sync_every_ns + 1), self._flush_late, self.life)
        self._promise_on_its_word()
        if self.trap is not None and self._trapped("synced"):
            return
        self.on_progress()

    def _flush_late(self, life: int) -> None:
        if life == self.life and not self.failure:
            self.flush_planned = False
            self._flush()

    def _flush(self) -> None:
        """All that was written is on the platter, and what follows from that."""
        self.log.flush()
        point = (0, 0)
        for item in self.unsure[: self.batched]:
            self.sure.apply(item)
            if item[1] == "state" and item[2] >= self.hard_state[0]:
                self.hard_state = (item[2], item[3])
            elif item[1] == "purge":
                point = max(point, (item[2], item[3]))
            elif item[1] == "reset":
                point = max(point, (item[2], item[3][item[2]]))
        del self.unsure[: self.batched]
        self.batched = 0
        self.named = max(self.platter.sheets, default=0)
        if point > (0, 0):
            self.purge_point = point
        self._recycle()
        self._plan_idle()

    def _recycle(self) -> None:
        """Files go one by one, some of them later."""
        while self.world.chance() < 0.7 and self.log.recycle(self.purge_point[0]):
            pass

    def _plan_idle(self) -> None:
        self.flushed_ns = self.world.now_ns
        if not self.idle_planned:
            self.idle_planned = True
            self.world.after(IDLE_NS, self._idle, self.life)

    def _idle(self, life: int) -> None:
        if life != self.life:
            return
        self.idle_planned = False
        if self.busy or self.failure or self.world.now_ns - self.flushed_ns < IDLE_NS:
            self._plan_idle()
        else:
            self.log.mark()

    # ------------------------------------------------------------------ ending and beginning

    def crash(self, power_loss: bool) -> None:
        """What was handed to the kernel survives a kill. A power loss takes of it what the platter does not have."""
        power_loss = power_loss or self.failure != ""  # what became of what failed nobody knows
        if self.in_flight and self.world.chance() < 0.7:
            self._end_within(self._write, 700)
        floor = 0 if power_loss else self.batched
        later = [item for item in self.unsure if item[1] == "state"]
        if later and self.world.chance() < 0.5:  # the metadata are another file: they may be ahead
            state = later[self.world.below(len(later))]
            self.hard_state = max((state[2], state[3]), self.hard_state, key=lambda one: (one[0], one[1] is not None))
        if self.world.chance() < 0.5:
            self.named = max(self.platter.sheets, default=0)
        if power_loss:
            self.platter.lose_power()
        self.pending.clear()
        self.idle_planned = self.flush_planned = False
        self.in_flight = 0
        self.end()
        self._look(floor)

    def _end_within(self, call: Callable[[], None], size: int) -> bool:
        """Does something that may end after any byte of what it writes; True when it came to its end."""
        self.platter.left = self.world.below(size) if self.world.chance() < 0.7 else None
        try:
            call()
        except Ended:
            return False
        finally:
            self.platter.left = None
        return True

    def restore(self, database: Database, memberships: dict[int, Membership]) -> Restored:
        """As WalLog.open and Storage do it: recover, settle, begin behind a database that is ahead."""
        recovered = self._open(database)
        while self.lacks(database) and not self._restart_at(database):
            recovered = self._open(database)
        restored = self.told(database, memberships)
        if self.base == recovered.base_index and not self.unsure:
            restored = replace(
                restored,
                runs=recovered.runs,
                base_index=recovered.base_index,
                base_term=recovered.base_term,
                faulty=recovered.faulty,
            )
        self.go_on()
        self.recorded_io = self.io_sequence
        self._plan_idle()
        return restored

    def _open(self, database: Database) -> Recovered:
        """As WalLog.open does it; the power may go in the midst of it, and no file of the node is spared."""
        found, plan = self._look(self.batched)
        while self.world.chance() < 0.1 and not self._end_within(partial(settle, self.platter, plan), 300):
            power_loss = self.world.chance() < 0.7
            if power_loss:
                self.platter.lose_power()
                database.lose_power(self.world)
            found, plan = self._look(0 if power_loss else self.batched)
        settle(self.platter, plan)
        self.named = max(plan.kept, default=0)
        recovered = found.recovered
        if recovered.base_index > self.purge_point[0]:
            self.purge_point = (recovered.base_index, recovered.base_term)
        self.log.go_on(plan)
        last = self.log.next_number - 1
        self.spoiled = [one for one in self.spoiled if one[0] <= last]
        self.sure.become(found.states[found.place])
        self.sure.faulty = set(self.faulty)
        self.unsure, self.batched = [], 0
        self.asked = (self.term, self.vote)
        if plan.anew:
            self._begin_anew(self.base, list(self.terms), list(self.values))
        return recovered

    def _restart_at(self, database: Database) -> bool:
        """The metadata first: of two purge points the higher one rules, and this one may be lower than the last."""
        index = database.applied
        self.purge_point = (index, database.terms[index])
        self.image = (index, list(database.terms[: index + 1]), list(database.values[: index + 1]))
        if self.world.chance() < 0.2:  # and then the process ends
            return False
        self._begin_anew(*self.image)
        return True

    def _begin_anew(self, index: int, terms: list[int], values: list[int]) -> None:
        self.io_sequence += 1
        self.begin_behind(index, terms, values)
        reset = (self.io_sequence, "reset", index, list(self.terms), list(self.values))
        self.unsure += [(0, "state", *self.asked, None), reset]
        self.in_flight = len(self.unsure) - self.batched
        self._write()
        if not self.profile.weak_sync:
            self._flush()

    def _look(self, floor: int, damaged: bool = False) -> tuple[Found, Plan]:
        """What recovery says now; nothing is written. What it found is what this disk holds."""
        plan = recover(
            self.platter, group=GROUP, node_id=self.owner, newest_named=self.named, purge_point=self.purge_point
        )
        states, state = [self.sure.copy()], self.sure.copy()
        for item in self.unsure:
            state.apply(item)
            states.append(state.copy())
        recovered = plan.recovered
        if self.profile.weak_sync:  # what was promised of term and vote stands in the metadata, whatever the log tells
            recovered = recovered.with_hard_state(*self.hard_state)
            for state in states:
                state.know(*self.hard_state)
        for state in states:
            self._purge_to_point(state)
        values = {index: value for index, value, _, _ in entries_in(self.platter, plan)}
        faulty = self.faulty | self.sure.faulty
        found = Found(self.owner, recovered, states, floor, values, damaged, faulty, bool(self.spoiled))
        found.place = max((place for place, one in enumerate(states) if fits(found, one)), default=-1)
        told = f"{found.place} of {len(self.unsure)} writes that were not flushed, {plan.recovered.faulty}"
        self.world.note(f"recovery of node {self.owner} finds {told}, {plan.recovered.corrupt or 'whole'}")
        self.judge(found)
        if plan.recovered.whole:
            self._adopt(found)
        return found, plan

    def _purge_to_point(self, state: Content) -> None:
        """The metadata may be ahead of the log: of two purge points the higher one rules."""
        index, term = self.purge_point
        if index <= state.base:
            return
        if index < len(state.terms) and state.terms[index] == term:
            state.purge(index)
            return
        first, terms, values = self.image
        if first == index:
            state.begin_behind(index, terms, values)

    def _adopt(self, found: Found) -> None:
        before, term, vote = self.terms, *self.hard_state
        recovered = found.recovered.with_hard_state(term, vote)
        self.become(found.states[found.place])
        self.term, self.vote = recovered.term, recovered.vote
        self.votes[self.term] = self.vote
        self.faulty = {index for low, high in recovered.faulty for index in range(low, high + 1)}
        self.io_sequence = recovered.io_sequence
        self.batched = found.place  # what lies behind may come back until it is cut off durably
        gone = {(index, term) for index, term in enumerate(before) if not self.holds(index, term)}
        # Where `log_sync` waits for the disk nothing on its word was promised: it is gone before the node has spoken.
        if gone and self.profile.weak_sync:
            self.forgot |= gone
            self.world.note(f"node {self.owner} has forgotten {sorted(gone)}")

    # ------------------------------------------------------------------ damage

    def damage(self, indexes: Iterable[int], deep: bool) -> None:
        """Bytes of these entries change on the platter, `deep`: in their headers; now and then others as well.

        Only what something that still stands says to be synced: a last batch that nothing speaks of looks like one that
        was torn (docs/durability.md), so that its loss is no fault of recovery.
        """
        plan = recover(
            self.platter, group=GROUP, node_id=self.owner, newest_named=self.named, purge_point=self.purge_point
        )
        at = {index: (segment, offset) for index, _, segment, offset in entries_in(self.platter, plan)}
        spots = [(*at[index], records.HEADER_SIZE) for index in indexes if index in at]
        if deep:
            spots = [(segment, offset, 0) for segment, offset, _ in spots]
        elif spots and self.world.chance() < 0.3:
            numbers = self.platter.numbers()
            number = numbers[self.world.below(len(numbers))]
            end = max((one.end for one in self.log.batches.get(number, [])), default=HEADER_BYTES)
            low = 0 if self.world.chance() < 0.05 else HEADER_BYTES
            spots.append((number, low + self.world.below(max(end - low, 1)), 0))
        done = [self._spoil(number, offset + beyond) for number, offset, beyond in spots]
        if not any(done):
            return
        promised = [place for place, item in enumerate(self.unsure[: self.batched], start=1) if item[0]]
        found, plan = self._look(max(promised, default=0), damaged=True)
        self.lost = "" if found.recovered.whole else found.recovered.corrupt or "segments are lost"
        self.world.note(f"node {self.owner}: damaged are {self.spoiled}, entries {sorted(self.faulty)}, {self.lost}")

    def _spoil(self, number: int, offset: int) -> bool:
        """A flipped bit, zeros, or what another place held. False: it would take the proof of something promised."""
        view, way = self.platter.read(number), self.world.below(4)
        size = 1 if way < 2 else 1 + self.world.below(500)
        size = min(size, len(view) - offset)
        old = bytes(view[offset : offset + size])
        new = bytes([old[0] ^ 1 << self.world.below(8)])
        if way == 2:
            new = bytes(size)
        elif way == 3:
            new = bytes(view[max(offset - size, 0) : offset])[:size].ljust(size, b"\0")
        if new == old or offset < HEADER_BYTES < offset + size:
            return False
        self.platter.overwrite(number, offset, new)
        self.spoiled.append((number, offset, offset + size))
        if self._said() >= self.io_sequence:
            return True
        self.platter.overwrite(number, offset, old)
        self.spoiled.pop()
        return False

    def _said(self) -> int:
        """The highest io sequence that a header which still stands, on the platter itself, says to be on disk."""
        said = 0
        for number, batches in self.log.batches.items():
            view = memoryview(self.platter.sheets[number].platter)
            header = decode_header(view[:HEADER_BYTES])
            said = max(said, header.first_io - 1 if header is not None else 0)
            for batch in batches:
                if batch.synced > said and stands(view[batch.offset : batch.offset + BATCH_BYTES], batch):
                    said = batch.synced
        return said
