"""The bytes of one log on a simulated device: what a process reads, what is on the platter, and what accidents do.

Implements the port of recovery (`SegmentFiles`). Must not know batches or entries. Invariant: without damage the
platter differs from what a process reads in sectors that were written since the last flush, and in no others.
"""

from __future__ import annotations

from .world import World

SECTOR_BYTES = 512
STEP_BYTES = 64  # what a flush or a rename counts for, where an end comes after so many bytes
SPARES = 2  # files of purged segments that become segments again


class Ended(Exception):
    """The process ends here, in the middle of what it was writing."""


class Sheet:
    """One segment."""

    def __init__(self, content: bytearray) -> None:
        self.read = content
        self.platter = bytearray(content)
        self.dirty: set[int] = set()  # sectors


class Platter:
    """All segments of one log."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.sheets: dict[int, Sheet] = {}
        self.spares: list[bytearray] = []
        self.left: int | None = None  # bytes until the process ends

    # ------------------------------------------------------------------ the port of recovery

    def numbers(self) -> list[int]:
        return sorted(self.sheets)

    def place(self, number: int) -> str:
        return f"segment {number}"

    def read(self, number: int) -> memoryview:
        return memoryview(self.sheets[number].read)

    def read_part(self, number: int, begin: int, end: int) -> bytes:
        return bytes(self.sheets[number].read[begin:end])

    def sync(self, numbers: list[int]) -> None:
        for number in numbers:
            self.flush(number)

    def write(self, number: int, offset: int, content: bytes) -> None:
        self.put(number, offset, content)
        self.flush(number)

    def set_aside(self, numbers: list[int]) -> None:
        for number in numbers:
            self._spend(STEP_BYTES)
            del self.sheets[number]

    # ------------------------------------------------------------------ the writer's side

    def make(self, number: int, header: bytes, size: int) -> None:
        """A segment, its name and its header durable; behind the header may stand what an earlier use left."""
        self._spend(STEP_BYTES)
        if self.spares and len(self.spares[0]) == size:
            content = self.spares.pop(0)
        else:
            content = bytearray(size)
        content[: len(header)] = header
        self.sheets[number] = Sheet(content)

    def put(self, number: int, offset: int, content: bytes) -> None:
        """Readable at once, durable by and by."""
        sheet, size = self.sheets[number], len(content)
        kept = size if self.left is None else min(size, self.left)
        sheet.read[offset : offset + kept] = content[:kept]
        sheet.dirty.update(range(offset // SECTOR_BYTES, (offset + kept + SECTOR_BYTES - 1) // SECTOR_BYTES))
        self._spend(size)

    def flush(self, number: int) -> None:
        self._spend(STEP_BYTES)
        sheet = self.sheets[number]
        for sector in sheet.dirty:
            low = sector * SECTOR_BYTES
            sheet.platter[low : low + SECTOR_BYTES] = sheet.read[low : low + SECTOR_BYTES]
        sheet.dirty.clear()

    def recycle(self, number: int, usual_bytes: int) -> None:
        """A purged segment leaves the log; some are kept for another use."""
        sheet = self.sheets.pop(number)
        if len(self.spares) < SPARES and len(sheet.platter) == usual_bytes:
            self.spares.append(sheet.platter)

    def _spend(self, size: int) -> None:
        if self.left is not None:
            self.left -= size
            if self.left < 0:
                self.left = None
                raise Ended

    # ------------------------------------------------------------------ accidents

    def lose_power(self) -> None:
        """Of the sectors not flushed none, all, the first ones, or any are new; one may be torn inside."""
        world = self.world
        for sheet in self.sheets.values():
            if not sheet.dirty:
                continue
            dirty = sorted(sheet.dirty)
            way = world.below(5)
            kept: list[int] = []
            if way == 1:
                kept = dirty
            elif way == 2:
                kept = dirty[: world.below(len(dirty) + 1)]
            elif way >= 3:
                kept = [sector for sector in dirty if world.chance() < 0.5]
            for sector in kept:
                low = sector * SECTOR_BYTES
                sheet.platter[low : low + SECTOR_BYTES] = sheet.read[low : low + SECTOR_BYTES]
            if way != 1 and world.chance() < 0.5:
                low = dirty[min(len(kept), len(dirty) - 1)] * SECTOR_BYTES
                high = low + world.below(SECTOR_BYTES)
                sheet.platter[low:high] = sheet.read[low:high]
            sheet.read[:] = sheet.platter
            sheet.dirty.clear()

    def overwrite(self, number: int, offset: int, content: bytes) -> None:
        """The device's own fault: other bytes than were written, on the platter itself."""
        sheet = self.sheets[number]
        for copy in (sheet.read, sheet.platter):
            copy[offset : offset + len(content)] = content
