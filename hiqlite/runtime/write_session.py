"""The session of this process in one group: its writes are told apart, so that each may be sent again.

It is opened by the first write, and anew when it was idle for long. Until it is open, and while as many writes wait for
an answer as it allows, later ones are held here, in order. Knows records as bytes; must not know leaders or the log.
Invariant: writes leave in the order in which they came, each with a place in the session, or all without one while a
member of the cluster does not know sessions.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from hiqlite._accel.batch import Op
from hiqlite._accel.commands import in_session
from hiqlite._accel.session import SessionWindow
from hiqlite.errors import HiqliteError, RequestTimeout, ShuttingDown, with_outcome

from .waiting import no_leader


@dataclass(frozen=True, slots=True)
class SessionTerms:
    """What a session is opened with.

    Attributes:
        record: the entry that opens it.
        window: so many of its writes may wait for an answer at once.
        idle_ns: it is not used again when nothing was written in it for so long.
        possible: whether every member knows sessions; None: they were not all met yet.
    """

    record: bytes
    window: int
    idle_ns: int
    possible: Callable[[], bool | None]
    patience_ns: int = 1_000_000_000  # so long the first writes wait until all were met


class WriteSession:
    """Of one process, in one group.

    Args:
        terms: None: the group has no sessions, every write passes as it is.
        send: takes a record and who waits for it, in order; may raise what the caller is to see.
        troubles: which peers are not reached, and why.
        seeks: whether what was sent still waits for a leader.
    """

    def __init__(
        self,
        terms: SessionTerms | None,
        loop: asyncio.AbstractEventLoop,
        send: Callable[[bytes, Op], None],
        troubles: Callable[[], str] = str,
        seeks: Callable[[], bool] = lambda: True,
    ) -> None:
        self.window = SessionWindow(1, self._has_room)
        self.held_bytes = 0
        self._terms = terms
        self._loop = loop
        self._send = send
        self._troubles = troubles
        self._seeks = seeks
        self._held: deque[tuple[bytes, Op]] = deque()
        self._opening: Op | None = None
        self._plain = terms is None
        self._flushing = False
        self._hopes = False  # that all members will have been met soon
        self._hope_ends_ns = 0
        self._next_seen = 0
        self._used_ns = 0

    def __len__(self) -> int:
        return len(self._held)

    def write(self, record: bytes, op: Op) -> None:
        """A command of this process, encoded without a session."""
        if self.window.free or (self._plain and not self._held):
            try:
                self._send(self.placed(record, op) if self.window.free else record, op)
            except HiqliteError as error:
                op.set_exception(error)  # so it gives its place back, whoever is told
                raise
        else:
            self._held.append((record, op))
            self.held_bytes += len(record)
            self.window.held = True
            if self.window.id == 0:
                self._open()

    @property
    def possible(self) -> bool:
        """Whether a write is known to happen once when it is sent again by hand."""
        return self._terms is not None and self._terms.possible() is True

    def placed(self, record: bytes, op: Op) -> bytes:
        """The record as a write of the open session, in which there is room."""
        window = self.window
        return in_session(record, window.id, op.keep_in(window), window.low)

    # -- opening

    def _open(self) -> None:
        if self._opening is not None or self._terms is None:
            return
        possible = self._terms.possible()
        self._hopes = possible is None
        if not possible:
            if not self._hopes:
                self._go_plain()
            return
        self.window = SessionWindow(self._terms.window, self._has_room)
        self.window.held = True
        self._opening = op = Op(self._loop, index_of, None, 0)
        op.repeatable = True  # one that is opened in vain is forgotten after a while
        op.add_done_callback(self._opened)
        try:
            self._send(self._terms.record, op)
        except HiqliteError as error:
            op.set_exception(error)

    def _go_plain(self) -> None:
        """A member may be of an older release, which would apply a write twice: nothing is sent again."""
        self._plain, self._hopes = True, False
        self.window.end()
        if self._opening is not None:
            opening, self._opening = self._opening, None
            opening.cancel()
        self._flush()

    def _opened(self, op: Op) -> None:
        if op is not self._opening:
            return
        self._opening = None
        error = op.exception()
        if error is None:
            self.window.open(op.result())
            self._flush()
        else:
            self.fail(error if isinstance(error, HiqliteError) else ShuttingDown(str(error)))

    def met(self) -> None:
        """A peer is linked: perhaps all members were met by now."""
        if self._hopes and self.possible:
            self._hopes = False
            self._open()

    # -- what is held

    def _has_room(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Lets go what may leave; a turn of its own, since whoever is answered may be in the middle of one."""
        self._flushing = False
        while self._held and (self._plain or self.window.has_room):
            record, op = self._held.popleft()
            self.held_bytes -= len(record)
            if op.done():
                continue
            try:
                self._send(record if self._plain else self.placed(record, op), op)
            except HiqliteError as error:
                op.set_exception(error)
        self.window.held = bool(self._held)
        if self._held and self.window.id == 0:
            self._open()

    def expire(self, now_ns: int) -> None:
        """Callers whose deadline has passed are told; a session that was idle for long is not used again."""
        late = [op for _, op in self._held if 0 < op.deadline_ns <= now_ns]
        troubles = self._troubles() if late else ""
        for op in late:  # not in the queue itself: whoever is told may write again at once
            op.set_exception(self._too_late(troubles))
        if late:
            self._held = deque((record, op) for record, op in self._held if not op.done())
            self.held_bytes = sum(len(record) for record, _ in self._held)
        if self._terms is not None:
            self._look(self._terms, now_ns)

    def _too_late(self, troubles: str) -> HiqliteError:
        if self.window.id == 0 and self._opening is not None and not self._seeks():
            return RequestTimeout("the session of this node's writes was not opened in time", outcome="not_applied")
        if self.window.id == 0:
            return no_leader(troubles)
        return RequestTimeout("too many earlier writes of this node wait for an answer", outcome="not_applied")

    def _look(self, terms: SessionTerms, now_ns: int) -> None:
        window = self.window
        if window.next != self._next_seen or window.waiting:
            self._next_seen, self._used_ns = window.next, now_ns
        elif now_ns - self._used_ns > terms.idle_ns:
            window.end()
        possible = terms.possible()
        if self._hopes:
            self._hope_ends_ns = self._hope_ends_ns or now_ns + terms.patience_ns
            if possible is not None or now_ns > self._hope_ends_ns:
                self._hopes = False
                self._open() if possible else self._go_plain()
        elif possible is not None and self._plain == possible:
            self._plain = not possible
            if self._plain:
                self._go_plain()

    def fail(self, error: HiqliteError) -> None:
        """What is held will not be sent."""
        held, self._held = self._held, deque()
        self.held_bytes = 0
        self.window.held = False
        for _, op in held:
            op.set_exception(with_outcome(error, "not_applied"))


def index_of(answer: bytes, log_index: int, detail: object) -> int:
    """The id of a session: the place of the entry that opened it."""
    return log_index
