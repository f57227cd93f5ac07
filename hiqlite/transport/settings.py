"""Limits of the transport, in one value.

Knows numbers, and what tests may change. Invariant: every queue, wait and portion of this room is bounded by a field.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .versions import SPOKEN, Versions

FRAME_SLACK_BYTES = 1 << 16  # what a frame may hold beside one entry of the greatest size
TIMEOUT_MS_MAX = 0xFFFFFFFF  # deadlines travel as u32 milliseconds
Reach = Callable[[int, tuple[str, int]], tuple[str, int]]


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """How much one node's network may hold, and how long it may wait.

    Args:
        max_entry_bytes: greatest entry; a frame may be that and `FRAME_SLACK_BYTES` long.
        log_buffer_bytes: unsent bytes per log link; an append over it is dropped (the engine repeats it).
        control_buffer_bytes: unsent bytes per control link.
        bulk_buffer_bytes: unsent bytes per bulk link; a peer that asks for more than it reads loses the link.
        bulk_window_bytes: of an image: asked for and not written yet, per transfer.
        bulk_idle_s: a bulk link that carried nothing for so long is closed.
        requests_max: requests per link that wait for an answer, and that are being served.
        requests_bytes_max: of all requests of a port that are being served; one alone may have more.
        unauthenticated_max: connections in the middle of a handshake; one more evicts the oldest.
        clients_max: proven connections of the api port.
        client_frame_bytes_max: of one request of a client. Its body is unpacked in the turn in which it comes:
            nothing but empty arrays become 60 times as much memory, and hold the loop for half a second per MB.
        handshake_timeout_s: whole time of a handshake.
        connect_timeout_s: name look-up and TCP connect of one dial.
        backoff_min_s, backoff_max_s: pause between dials that fail, doubling, each shortened by a random part.
        settled_s: a link that lived this long is dialled again without a pause.
        keepalive_s: idle time before TCP probes.
        user_timeout_ms: unacknowledged bytes older than this end a link (a dead path is left before TCP would give up).
        sign_of_life_s: how long a peer may take to give one, when another node gives its id.
        busy_poll_us: how long the loop stays awake for the next frame of a link whose frames come closely, or 0.
        close_timeout_s: how long closing waits for unsent bytes.
        versions: of the protocol; each link speaks the newest one that both of its ends do.
        reach: where a peer (its id) at an address is really dialled; for tests with a relay in between.
    """

    max_entry_bytes: int = 64 << 20
    log_buffer_bytes: int = 8 << 20
    control_buffer_bytes: int = 16 << 20
    bulk_buffer_bytes: int = 16 << 20
    bulk_window_bytes: int = 2 << 20
    bulk_idle_s: float = 10.0
    requests_max: int = 1024
    requests_bytes_max: int = 64 << 20
    unauthenticated_max: int = 256
    clients_max: int = 4096
    client_frame_bytes_max: int = 1 << 16
    handshake_timeout_s: float = 5.0
    connect_timeout_s: float = 2.0
    backoff_min_s: float = 0.02
    backoff_max_s: float = 0.5
    settled_s: float = 1.0
    keepalive_s: int = 5
    user_timeout_ms: int = 5000
    sign_of_life_s: float = 1.0
    busy_poll_us: int = 200
    close_timeout_s: float = 0.2
    versions: Versions = SPOKEN
    reach: Reach | None = None

    def __post_init__(self) -> None:
        assert 0 < self.backoff_min_s <= self.backoff_max_s
        assert min(self.max_entry_bytes, self.log_buffer_bytes, self.control_buffer_bytes) > 0
        # Else an honest receiver, whose asks never exceed its window, could lose its link.
        assert 0 < self.bulk_window_bytes < self.bulk_buffer_bytes
        assert min(self.requests_max, self.requests_bytes_max) > 0
        assert min(self.unauthenticated_max, self.clients_max, self.client_frame_bytes_max) > 0

    @property
    def frame_bytes_max(self) -> int:
        return self.max_entry_bytes + FRAME_SLACK_BYTES
