"""What a leader knows of one peer: how far it follows, what is on its way, when it was last truly heard.

Must not know the log, messages or quorums. Three states: *probing* (one request at a time, looking for the last common
entry), *replicating* (a window of frames on their way, `next_index` ahead of the answers) and *needing an image* (what
it lacks is gone from the log; nothing is sent until an image arrived there). Invariants: `match_index < next_index`,
but where promised entries are sent again because the peer cannot read them any more; `match_index` only grows
within one term of leadership; while probing nothing is in flight but the probe; a sequence number is used once per
session epoch.
"""

from __future__ import annotations

from collections import deque

from .model import Identity


class Progress:
    """One peer, voter or learner, seen by this node; the link's part is kept in every role."""

    def __init__(self, identity: Identity, slot: int) -> None:
        self.identity: Identity = identity
        self.peer_id: int = identity.id
        self.slot: int = slot
        self.connected: bool = False
        self.epoch: int = 0
        self.sequence: int = 0
        self.replicating: bool = False
        self.match_index: int = 0
        self.next_index: int = 1
        self.commit_sent: int = 0
        self.inflight: deque[tuple[int, int, int]] = deque()  # (sequence, size_bytes, sent_ns), oldest first
        self.inflight_bytes: int = 0
        self.unacked_since_ns: int = 0
        self.probe_sequence: int = 0
        self.probe_sent_ns: int = 0
        self.confirmed_round: int = 0
        self.round_trip_ns: int = 0
        self.needs_image: bool = False
        self.image_index: int = 0
        self.image_runs: bool = False
        self.image_asked_ns: int = 0
        self.learner: bool = False
        self.caught_up: bool = False
        self.catch_up_goal: int = 0
        self.catch_up_began_ns: int = 0
        self.fetch_outstanding: bool = False
        self.fetch_first: int = 0
        self.fetch_term: int = 0

    def place(self, slot: int, learner: bool) -> None:
        """Its place in the configuration that is in force now."""
        self.slot = slot
        self.learner = learner

    def lead_from(self, next_index: int) -> None:
        """This node began to lead: nothing is known of the peer but its link."""
        self.match_index = 0
        self.commit_sent = 0
        self.confirmed_round = 0
        self.round_trip_ns = 0
        self.unacked_since_ns = 0
        self.caught_up = False
        self.catch_up_goal = 0
        self.image_index = 0
        self.probe_from(next_index)

    def probe_from(self, next_index: int) -> None:
        """Look for the last common entry, beginning below `next_index`; whatever is in flight no longer counts."""
        self.replicating = False
        self.needs_image = False
        self.image_runs = False
        self.next_index = next_index
        self.inflight.clear()
        self.inflight_bytes = 0
        self.probe_sent_ns = 0

    def connect(self, epoch: int) -> None:
        """A new session: sequences start anew, answers of older sessions no longer count (rule 15)."""
        self.connected = True
        self.epoch = epoch
        self.sequence = 0
        self.unacked_since_ns = 0
        self.probe_from(self.next_index)

    def disconnect(self) -> None:
        """The link is gone and with it everything in flight."""
        self.connected = False
        self.caught_up = False
        self.catch_up_goal = 0
        self.unacked_since_ns = 0
        self.probe_from(self.next_index)

    def has_room(self, frames_max: int, bytes_max: int) -> bool:
        """Whether another frame may leave (rule 14)."""
        return len(self.inflight) < frames_max and self.inflight_bytes < bytes_max

    def sent_frame(self, last: int, size_bytes: int, now_ns: int) -> int:
        """A frame that ends at `last` leaves; gives its sequence."""
        self.sequence += 1
        self.inflight.append((self.sequence, size_bytes, now_ns))
        self.inflight_bytes += size_bytes
        self.next_index = last + 1
        if self.unacked_since_ns == 0:
            self.unacked_since_ns = now_ns
        return self.sequence

    def sent_probe(self, now_ns: int) -> int:
        """A probe leaves; gives its sequence. `next_index` waits for the answer."""
        self.sequence += 1
        self.probe_sequence = self.sequence
        self.probe_sent_ns = now_ns
        if self.unacked_since_ns == 0:
            self.unacked_since_ns = now_ns
        return self.sequence

    def acknowledged(self, sequence: int, match_index: int) -> bool:
        """The peer holds `[.., match_index]` durably, as of request `sequence`. Whether that is news."""
        while self.inflight and self.inflight[0][0] <= sequence:
            self.inflight_bytes -= self.inflight.popleft()[1]
        if not self.replicating and sequence == self.probe_sequence and self.probe_sent_ns:
            self.replicating = True
            self.probe_sent_ns = 0
            self.image_index = 0  # it has the log from here on: nothing need be kept for the image's sake
        news = match_index > self.match_index
        if news:
            self.match_index = match_index
            if self.next_index <= match_index:
                self.next_index = match_index + 1
        self.unacked_since_ns = self.inflight[0][2] if self.inflight else self.probe_sent_ns
        return news

    def count_catch_up(self, last_index: int, now_ns: int, round_ns: int) -> None:
        """A learner answered: judge the running round of its catching up, and begin the next (thesis 4.2.1).

        A round reaches the entries that the log had when it began. Who needs `round_ns` or less for one will not
        hold up commits as a voter. Who has all there is now needs no time for the next round: where nobody writes,
        there would be no other one.
        """
        if self.catch_up_goal == 0:
            self.catch_up_goal = last_index
            self.catch_up_began_ns = now_ns
        if self.match_index >= self.catch_up_goal:
            short = now_ns - self.catch_up_began_ns <= round_ns
            self.caught_up = short or self.match_index >= last_index
            self.catch_up_goal = 0
        elif now_ns - self.catch_up_began_ns > round_ns:
            self.caught_up = False

    def can_be_promoted(self, now_ns: int, round_ns: int) -> bool:
        """Whether its last round was short and the one that runs is not too long yet."""
        if not self.connected or not self.caught_up:
            return False
        return self.catch_up_goal == 0 or now_ns - self.catch_up_began_ns <= round_ns

    # ------------------------------------------------------------------ images

    def need_image(self) -> None:
        """Only an image of the database helps it; one that was begun earlier may be gone on with."""
        self.probe_from(self.next_index)
        self.needs_image = True
        self.image_asked_ns = 0
        self.unacked_since_ns = 0

    def image_started(self, index: int) -> None:
        """An image of the database at `index` is being sent; the log behind it is pinned."""
        self.image_index = index
        self.image_runs = True

    def image_failed(self, resumable: bool, now_ns: int) -> None:
        """Sending ended before its end; another try comes later. Without `resumable` nothing is pinned for it."""
        self.image_runs = False
        self.image_asked_ns = now_ns
        self.unacked_since_ns = 0
        if not resumable:
            self.image_index = 0

    # ------------------------------------------------------------------ refusals, time

    def rejected(self, sequence: int, next_index: int) -> bool:
        """Request `sequence` did not fit; the next try shall begin at `next_index`. Whether the answer counted.

        An answer to something that is no longer on its way is stale and changes nothing. A probe may be refused below
        `match_index`: what the peer promised there is damaged since, and comes back by being sent again. An answer
        that brings the search no further leaves the probe's timer running, so that two logs that cannot be joined do
        not spin.
        """
        if self.replicating:
            if not self.inflight or sequence < self.inflight[0][0]:
                return False
            self.probe_from(max(next_index, self.match_index + 1))
        else:
            if sequence != self.probe_sequence or not self.probe_sent_ns:
                return False
            if next_index != self.next_index:
                self.probe_from(next_index)
        self.unacked_since_ns = 0
        return True

    def oldest_sent_ns(self) -> int:
        """When the oldest frame that has no answer yet left, 0 when there is none."""
        return self.inflight[0][2] if self.inflight else 0

    def alive_until_ns(self, window_ns: int, floor_ns: int) -> int:
        """Until when check-quorum may count this peer (rule 17): a round trip and no append older than the window."""
        if self.round_trip_ns == 0:
            return floor_ns
        until = self.round_trip_ns + window_ns
        if self.unacked_since_ns and self.unacked_since_ns + window_ns < until:
            until = self.unacked_since_ns + window_ns
        return max(until, floor_ns)
