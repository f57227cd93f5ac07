"""How much room is left on the disk, against what is kept free for writes that were taken already.

A full disk is noticed before it is full: while little is left nothing new is taken, and what was taken still finds room
in the log, in SQLite's own log and in the database. Must not know what happens then. Invariant: `is_low` turns false
only once there is clearly more room than what is kept, so that it does not flutter.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

# SQLite's log grows to so much before runs wait for its checkpoint (apply.h, HQ_CHECKPOINT_OVERDUE pages).
APPLYING_BYTES: Final = 32 << 20
SEGMENTS: Final = 2  # a next one for each group
SEGMENTS_BYTES_MAX: Final = 256 << 20


class Space:
    """Of the disk that `folder` lies on; `look` blocks as long as the disk does."""

    def __init__(self, folder: Path, segment_bytes: int) -> None:
        self._folder = folder
        self.kept_bytes = APPLYING_BYTES + min(SEGMENTS * segment_bytes, SEGMENTS_BYTES_MAX)
        self.is_low = False

    def look(self) -> bool:
        """Whether too little is left. Raises OSError."""
        found = os.statvfs(self._folder)
        enough = self.kept_bytes * 5 // 4 if self.is_low else self.kept_bytes
        self.is_low = found.f_bavail * found.f_frsize < enough
        return self.is_low
