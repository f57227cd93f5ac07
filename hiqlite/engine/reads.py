"""Linearizable reads of a leader: rounds over the control link that confirm it still leads (thesis 6.4, rule 12).

Must not know how a round travels or who takes part. A read waits for the next round to be sent; a round confirms every
read that was queued before it was sent, and the read index is the commit index at that moment. Invariants: read tokens
ascend over the whole life of the node, so no two reads share one; no round takes reads along before an entry of the
leader's own term is committed; a round that a quorum answered confirms all rounds before it.
"""

from __future__ import annotations

from collections import deque

from .model import ReadConfirmed

SENT_TIMES = 1024  # rounds whose sending time is remembered; older ones no longer prove that anybody is alive


class Reads:
    """Queue of reads, rounds on their way, and when each round was sent."""

    def __init__(self) -> None:
        self.token: int = 0
        self.round: int = 0
        self.round_sent_ns: int = 0
        self.sent_times: list[int] = [0] * SENT_TIMES
        self.queued: list[int] = []
        self.rounds: deque[tuple[int, int, list[int]]] = deque()  # (round, read index, tokens), oldest first
        self.confirmed: list[ReadConfirmed] = []
        self.failed: list[int] = []

    def queue(self) -> int:
        """A new read; gives its token."""
        self.token += 1
        self.queued.append(self.token)
        return self.token

    def begin_round(self, read_index: int, now_ns: int) -> int:
        """A round is sent now and takes the queued reads along, unless `read_index` is 0 (term not opened yet)."""
        self.round += 1
        self.round_sent_ns = now_ns
        self.sent_times[self.round % SENT_TIMES] = now_ns
        if self.queued and read_index:
            self.rounds.append((self.round, read_index, self.queued))
            self.queued = []
        return self.round

    def sent_time(self, number: int) -> int:
        """When round `number` was sent; 0 if that is too long ago, or never was."""
        if number > self.round or number <= self.round - SENT_TIMES or number <= 0:
            return 0
        return self.sent_times[number % SENT_TIMES]

    def confirm(self, number: int) -> None:
        """A quorum answered round `number` or later ones."""
        while self.rounds and self.rounds[0][0] <= number:
            _, read_index, tokens = self.rounds.popleft()
            for token in tokens:
                self.confirmed.append(ReadConfirmed(token, read_index))

    def fail(self) -> None:
        """Leadership is gone: nothing that waits can be confirmed any more, rounds of this term no longer count."""
        for _, _, tokens in self.rounds:
            self.failed.extend(tokens)
        self.failed.extend(self.queued)
        self.rounds.clear()
        self.queued = []
        self.sent_times = [0] * SENT_TIMES

    def take_confirmed(self) -> list[ReadConfirmed]:
        """Reads that may be served once their index is applied."""
        confirmed = self.confirmed
        self.confirmed = []
        return confirmed

    def take_failed(self) -> list[int]:
        """Reads that will never be confirmed."""
        failed = self.failed
        self.failed = []
        return failed
