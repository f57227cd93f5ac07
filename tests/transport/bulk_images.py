"""Images in memory for tests of the bulk link: one that is given away, one that is taken in."""

from __future__ import annotations

import random
import threading
from typing import Any

from hiqlite.errors import HiqliteError, SnapshotCorruption, StorageError

CHUNK = 64 << 10
IMAGE_ID = b"0123456789abcdef"
MANIFEST = b"what is in it"


def noise(size_bytes: int) -> bytes:
    return random.Random(size_bytes).randbytes(size_bytes)


class Source:
    """An image in memory; `fails_at` is a place that the disk does not give back, `gate` what each read waits for."""

    def __init__(self, data: bytes, fails_at: int | None = None) -> None:
        self.data = data
        self.reads: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self._fails_at = fails_at

    image_id = IMAGE_ID
    chunk_bytes = CHUNK

    @property
    def size_bytes(self) -> int:
        return len(self.data)

    def offer(self) -> bytes:
        return MANIFEST

    def read(self, offset: int) -> bytes:
        self.reads.append(offset)
        self.gate.wait(20)
        if offset == self._fails_at:
            raise StorageError("the disk is gone")
        return self.data[offset : offset + CHUNK]


class Sink:
    """Takes an image into memory. `gate` is what each write waits for, on its thread."""

    def __init__(self, size_bytes: int, *, received: bytes = b"", corrupt_at: int | None = None) -> None:
        self.size_bytes = size_bytes
        self.data = bytearray(received)
        self.gate = threading.Event()
        self.gate.set()
        self.closed = 0
        self.finished = False
        self._corrupt_at = corrupt_at
        self._unwanted: HiqliteError | None = None
        self._wake: Any = None

    chunk_bytes = CHUNK

    @property
    def offset(self) -> int:
        return len(self.data)

    def watch(self, wake: Any) -> None:
        self._wake = wake

    def check(self) -> None:
        if self._unwanted is not None:
            raise self._unwanted

    def give_up(self, error: HiqliteError) -> None:
        self._unwanted = error
        self._wake()

    def write(self, offset: int, data: bytes) -> None:
        self.gate.wait(20)
        assert offset == len(self.data) and self.closed == 0
        if offset == self._corrupt_at:
            raise SnapshotCorruption("the chunk is not that of the manifest")
        self.data += data

    async def finish(self) -> tuple[int, int]:
        assert len(self.data) == self.size_bytes
        self.finished = True
        return 77, 5

    def close(self) -> None:
        self.closed += 1


class Receiver:
    """Hands out the given sinks, one per offer, and writes down what was offered."""

    def __init__(self, node: Any, *sinks: Sink | HiqliteError) -> None:
        self.offers: list[tuple[Any, ...]] = []
        self.sinks = list(sinks)
        node.network.bulk.on_offer = self.take

    async def take(self, *offer: Any) -> Sink:
        self.offers.append(offer)
        sink = self.sinks[len(self.offers) - 1]
        if isinstance(sink, HiqliteError):
            raise sink
        return sink
