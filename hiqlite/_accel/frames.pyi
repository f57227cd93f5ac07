from collections.abc import Callable

from hiqlite.errors import ProtocolError

HEADER_BYTES: int
DIRECT_BODY_BYTES: int
RING_BYTES: int

class Frame:
    body: bytes
    @property
    def type(self) -> int: ...
    @property
    def group(self) -> int: ...
    @property
    def flags(self) -> int: ...
    @property
    def cluster(self) -> int: ...
    @property
    def term(self) -> int: ...
    @property
    def sender(self) -> int: ...
    @property
    def incarnation(self) -> int: ...
    @property
    def epoch(self) -> int: ...
    @property
    def sequence(self) -> int: ...
    @property
    def previous_index(self) -> int: ...
    @property
    def previous_term(self) -> int: ...
    @property
    def commit_index(self) -> int: ...
    @property
    def count(self) -> int: ...

def encode_header(
    type: int,
    group: int,
    flags: int,
    cluster: int,
    term: int,
    sender: int,
    incarnation: int,
    epoch: int,
    sequence: int,
    previous_index: int,
    previous_term: int,
    commit_index: int,
    count: int,
    body: bytes,
) -> bytes: ...

class FrameReader:
    frames: int
    bytes_in: int
    cluster: int
    def __init__(
        self,
        on_frame: Callable[[Frame], None],
        on_read_end: Callable[[], None],
        on_broken: Callable[[ProtocolError], None],
        frame_bytes_max: int,
        cluster: int = 0,
        ring_bytes: int = ...,
    ) -> None: ...
    def get_buffer(self, sizehint: int) -> memoryview: ...
    def buffer_updated(self, nbytes: int) -> None: ...
    def feed(self, data: bytes | bytearray | memoryview) -> None: ...
    def stop(self) -> None: ...
