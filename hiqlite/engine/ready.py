"""What waits to be told to the runtime, and what must wait for the disk before it may be said.

Must not know roles, peers or quorums. It mints the io sequences, remembers which index each write makes written and
durable, and holds messages back until what they promise is on disk. Invariants:
- io sequences ascend in the order in which a run of `Ready` names them, hard state before truncation before appends;
  a step that would break that order waits for the next Ready (`more()`);
- nothing leaves before the hard state of the term that it speaks in is durable (rule 1);
- an acknowledgement leaves when the newest write at the time it was earned is durable: writes complete in order, so
  everything it covers is durable too. It carries its term; when the term changed it is dropped, because the entries
  may have been cut and written again under the same indexes (rule 5);
- completions count for the truncation generation they belong to: a cut lowers what pending writes stand for.
"""

from __future__ import annotations

from collections import deque

from .model import (
    Append,
    AppendKind,
    AppendReply,
    Fetch,
    HardStateWrite,
    Identity,
    LogReset,
    Membership,
    Message,
    Repair,
    Send,
    SendImage,
    Truncate,
)

Write = HardStateWrite | Truncate | LogReset | Append | Repair
Writes = tuple[HardStateWrite | None, Truncate | None, LogReset | None, list[Append], list[Repair]]

STAGE_NONE = 0
STAGE_HARD_STATE = 1
STAGE_TRUNCATE = 2
STAGE_APPEND = 3
STAGE_REPAIR = 4


class Outbox:
    """Writes, messages and requests for bytes, in the order in which they may happen."""

    def __init__(self, own: Identity, io_sequence: int, last_index: int) -> None:
        self.own: Identity = own
        self.io_sequence: int = io_sequence
        self.written_io: int = io_sequence
        self.synced_io: int = io_sequence
        self.term_io: int = io_sequence
        self.log_io: int = io_sequence
        self.written_index: int = last_index
        self.synced_index: int = last_index
        self.unwritten: deque[tuple[int, int]] = deque()  # (io sequence, last index), oldest first
        self.unsynced: deque[tuple[int, int]] = deque()
        self.writes: deque[Write] = deque()
        self.sends: list[Send] = []
        self.fetches: list[Fetch] = []
        self.images: list[SendImage] = []
        self.held: deque[tuple[int, int, Send]] = deque()  # (io sequence, own term, message)
        self.acks: deque[tuple[int, int, int, int, int, int]] = deque()  # (io, term, peer, match, epoch, sequence)

    # ------------------------------------------------------------------ writes

    def write_hard_state(self, term: int, vote: Identity | None) -> None:
        """Term and vote changed; whatever is said from now on waits until they are durable."""
        self.io_sequence += 1
        self.term_io = self.io_sequence
        self.writes.append(HardStateWrite(self.io_sequence, term, vote))

    def write_truncate(self, last_kept: int) -> None:
        """Cut the log; earlier writes no longer stand for anything above `last_kept`."""
        self.io_sequence += 1
        self.log_io = self.io_sequence
        self.writes.append(Truncate(self.io_sequence, last_kept))
        self.written_index = min(self.written_index, last_kept)
        self.synced_index = min(self.synced_index, last_kept)
        self.unwritten = _lowered(self.unwritten, last_kept)
        self.unsynced = _lowered(self.unsynced, last_kept)

    def write_reset(self, base_index: int, base_term: int) -> None:
        """Begin an empty log behind an installed image: it is durable, and all that pending writes stand for."""
        self.io_sequence += 1
        self.log_io = self.io_sequence
        self.writes.append(LogReset(self.io_sequence, base_index, base_term))
        self.written_index = self.synced_index = base_index
        self.unwritten = _moved(self.unwritten, base_index)
        self.unsynced = _moved(self.unsynced, base_index)

    def write_repair(self, first: int, last: int) -> None:
        """Entries `[first, last]` are written again; until that is durable nothing that rests on them is promised."""
        self.io_sequence += 1
        self.log_io = self.io_sequence
        self.writes.append(Repair(self.io_sequence, first, last))

    def write_append(
        self, first: int, last: int, kind: AppendKind, term: int, membership: Membership | None = None
    ) -> None:
        """Entries `[first, last]` go behind the log."""
        self.io_sequence += 1
        self.log_io = self.io_sequence
        self.writes.append(Append(self.io_sequence, first, last, kind, term, membership))
        pending = (self.io_sequence, last)
        self.unwritten.append(pending)
        self.unsynced.append(pending)

    def progress(self, written_io: int, synced_io: int) -> None:
        """The log thread got this far; both only grow."""
        if written_io > self.written_io:
            self.written_io = written_io
            while self.unwritten and self.unwritten[0][0] <= written_io:
                self.written_index = self.unwritten.popleft()[1]
        if synced_io > self.synced_io:
            self.synced_io = synced_io
            while self.unsynced and self.unsynced[0][0] <= synced_io:
                self.synced_index = self.unsynced.popleft()[1]

    # ------------------------------------------------------------------ messages

    def send(self, term: int, peer_id: int, message: Message) -> None:
        """Say something in `term`, once the hard state of that term is durable."""
        if self.synced_io >= self.term_io:
            self.sends.append(Send(peer_id, message))
        else:
            self.held.append((self.term_io, term, Send(peer_id, message)))

    def fetch(self, request: Fetch) -> None:
        """Ask for bytes that are no longer in memory."""
        self.fetches.append(request)

    def ask_image(self, request: SendImage) -> None:
        """Ask for an image to be sent."""
        self.images.append(request)

    def acknowledge(self, term: int, leader_id: int, match_index: int, epoch: int, sequence: int) -> None:
        """Promise `[.., match_index]` to the leader of `term`, once the newest write is durable."""
        io = max(self.log_io, self.term_io)
        self.acks.append((io, term, leader_id, match_index, epoch, sequence))

    def release(self, term: int) -> None:
        """Move what became durable to `sends`; drop what belongs to an earlier term than `term`."""
        while self.held and self.held[0][0] <= self.synced_io:
            _, held_term, send = self.held.popleft()
            if held_term == term:
                self.sends.append(send)
        if self.acks and self.acks[0][0] <= self.synced_io:
            self._release_acks(term)

    def _release_acks(self, term: int) -> None:
        """One reply per session for all acknowledgements that became due together: the highest says it all.

        Verified ranges of one term and one leader are prefixes of one log, so their maximum is verified as well.
        """
        leader_id = match_index = epoch = sequence = 0
        while self.acks and self.acks[0][0] <= self.synced_io:
            _, ack_term, ack_leader, ack_match, ack_epoch, ack_sequence = self.acks.popleft()
            if ack_term != term:
                continue
            if sequence and ack_epoch != epoch:
                self._reply(term, leader_id, match_index, epoch, sequence)
                match_index = sequence = 0
            leader_id = ack_leader
            epoch = ack_epoch
            match_index = max(match_index, ack_match)
            sequence = max(sequence, ack_sequence)
        if sequence:
            self._reply(term, leader_id, match_index, epoch, sequence)

    def _reply(self, term: int, leader_id: int, match_index: int, epoch: int, sequence: int) -> None:
        reply = AppendReply(term, self.own, True, match_index, 0, 0, epoch, sequence)
        self.sends.append(Send(leader_id, reply))

    # ------------------------------------------------------------------ taking

    def take_writes(self) -> Writes:
        """The longest run of writes that fits the fixed order of one Ready."""
        hard_state: HardStateWrite | None = None
        truncate: Truncate | None = None
        reset: LogReset | None = None
        appends: list[Append] = []
        repairs: list[Repair] = []
        if not self.writes:
            return None, None, None, appends, repairs
        stage = STAGE_NONE
        while self.writes:
            write = self.writes[0]
            if isinstance(write, Append):
                if stage > STAGE_APPEND:
                    break
                stage = STAGE_APPEND
                appends.append(write)
            elif isinstance(write, Repair):
                stage = STAGE_REPAIR
                repairs.append(write)
            elif isinstance(write, HardStateWrite):
                if stage >= STAGE_HARD_STATE:
                    break
                stage = STAGE_HARD_STATE
                hard_state = write
            else:
                if stage >= STAGE_TRUNCATE:
                    break
                stage = STAGE_TRUNCATE
                if isinstance(write, Truncate):
                    truncate = write
                else:
                    reset = write
            self.writes.popleft()
        return hard_state, truncate, reset, appends, repairs

    def take_sends(self) -> list[Send]:
        """Messages that may leave; none while a write of the same turn still waits for the next Ready."""
        sends = self.sends
        self.sends = []
        return sends

    def take_fetches(self) -> list[Fetch]:
        """Requests for bytes."""
        fetches = self.fetches
        self.fetches = []
        return fetches

    def take_images(self) -> list[SendImage]:
        """Requests for images."""
        images = self.images
        self.images = []
        return images

    def drop_all(self) -> None:
        """Say nothing more: a broken promise stops the node."""
        self.writes.clear()
        self.sends = []
        self.fetches = []
        self.images = []
        self.held.clear()
        self.acks.clear()

    def waits(self) -> bool:
        """Whether anything is there to be taken now."""
        if self.writes or self.sends or self.fetches or self.images:
            return True
        if self.acks and self.acks[0][0] <= self.synced_io:
            return True
        return bool(self.held) and self.held[0][0] <= self.synced_io


def _lowered(pending: deque[tuple[int, int]], last_kept: int) -> deque[tuple[int, int]]:
    """Pending writes after a cut: each stands for its range at most up to `last_kept`."""
    return deque((io, min(last, last_kept)) for io, last in pending)


def _moved(pending: deque[tuple[int, int]], base_index: int) -> deque[tuple[int, int]]:
    """Pending writes after a reset: whatever they wrote, the image stands for everything up to its index."""
    return deque((io, base_index) for io, _ in pending)
