"""What the engine asks for, carried out: bytes go to the log, to peers, to a damaged place in the log.

Knows ranges of entries, the window and ports. Must not know why the engine asks. Invariant: everything is done in the
order in which `Ready` lists it, and the bytes of an append stand in the window before anybody may ask for them.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

from hiqlite._accel.records import header, slice_records
from hiqlite.clock import Clock
from hiqlite.engine.model import Append, AppendKind, AppendRequest, Message, Ready, RepairReply, SendImage
from hiqlite.engine.ports import LogStore

from .fetches import Fetches
from .group_time import GroupTime
from .links import Links
from .membership_record import memberships_in
from .opening import own_record
from .repairs import Repairs
from .window import Window


class Orders:
    """The hands of one group.

    Args:
        truncated: told the last index kept, when entries were cut that this node had proposed or received.
    """

    def __init__(
        self,
        *,
        log_store: LogStore,
        links: Links,
        window: Window,
        fetches: Fetches,
        repairs: Repairs,
        group_time: GroupTime,
        clock: Clock,
        truncated: Callable[[int], None],
    ) -> None:
        self._log_store = log_store
        self._links = links
        self._window = window
        self._fetches = fetches
        self._repairs = repairs
        self._group_time = group_time
        self._clock = clock
        self._truncated = truncated
        self._random = random.SystemRandom()
        self.received: tuple[int, bytes] | None = None  # first index and bytes of the entries being stepped
        self.send_image: Callable[[SendImage], None] = lambda order: None

    def seed(self) -> int:
        """For what an entry may draw by chance."""
        return self._random.getrandbits(64)

    def absorb(self, message: AppendRequest | RepairReply, body: bytes) -> Message:
        """The bytes of a message that is about to be stepped; the message with the configurations among its entries."""
        self.received = (message.runs[0].first, body)
        memberships = memberships_in(body)
        return replace(message, memberships=memberships) if memberships else message

    def carry_out(self, ready: Ready, now_ns: int) -> None:
        """Writes and sends; what is to be applied, read or told to callers is the group's."""
        if ready.hard_state is not None:
            state = ready.hard_state
            self._log_store.hard_state(state.io_sequence, state.term, state.vote)
        if ready.truncate is not None:
            self._window.truncate(ready.truncate.last_kept)
            self._log_store.truncate(ready.truncate.io_sequence, ready.truncate.last_kept)
            self._truncated(ready.truncate.last_kept)
        if ready.reset is not None:
            self._window.clear()
            self._log_store.reset(ready.reset.io_sequence, ready.reset.base_index, ready.reset.base_term)
            self._truncated(ready.reset.base_index)
        appends = [(append, self._records(append, now_ns)) for append in ready.appends]
        for item in ready.sends:
            message = item.message
            body = None
            if isinstance(message, RepairReply):
                self._repairs.answer(item.peer_id, message)
                continue
            if isinstance(message, AppendRequest) and message.last_index > message.previous_index:
                body = self._body(item.peer_id, message)
            self._links.send(item.peer_id, message, body)
        # After the sends: a leader's entries are on their way to the peers' disks while they go to its own (rule 3).
        for append, records in appends:
            self._log_store.append(append.io_sequence, append.first, append.last, records)
        for repair in ready.repairs:
            records = self._of_received(repair.first, repair.last)
            self._group_time.saw(header(records, 0).group_time_ns)  # it does not stand in the window
            self._log_store.append_repair(repair.io_sequence, repair.first, repair.last, records)
        for fetch in ready.fetches:
            self._fetches.start(fetch)
        for image in ready.images:
            self.send_image(image)

    def _records(self, append: Append, now_ns: int) -> bytes:
        """The bytes of an append, in the window from here on."""
        first, last = append.first, append.last
        if append.kind == AppendKind.PROPOSED:
            return self._window.records(first, last)
        if append.kind == AppendKind.RECEIVED:
            records = self._of_received(first, last)
        else:
            times = self._group_time.read(now_ns), self._clock.wall_ns(), self.seed()
            records = own_record(append.term, first, append.membership, *times)
        self._window.add(first, last, records)
        return records

    def _of_received(self, first: int, last: int) -> bytes:
        assert self.received is not None, "entries without their message"
        body_first, body = self.received
        return body if first == body_first else slice_records(body, body_first, first, last)

    def _body(self, peer_id: int, message: AppendRequest) -> bytes:
        first, last = message.previous_index + 1, message.last_index
        fetched = self._fetches.take(peer_id, first, last)
        return fetched if fetched is not None else self._window.records(first, last)
