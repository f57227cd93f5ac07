"""A log that is only looked at: what recovery finds in it, and the configurations that it holds; nothing is written.

Must not know what follows from that. Invariant: the folder is as it was.
"""

from __future__ import annotations

from pathlib import Path

from hiqlite._accel import wal as native
from hiqlite.engine.model import Identity
from hiqlite.errors import StorageError

from .meta import Meta
from .recovered import Recovered
from .recovery import recover
from .segments import SegmentFolder
from .starting import start_native

SEGMENT_BYTES = 1 << 20  # of those that would follow; none does
STOP_US = 10_000_000


def look(folder: Path, meta: Meta, group: int, owner: Identity) -> tuple[Recovered, list[bytes]]:
    """What the log of `owner` in `folder` holds, and its membership entries' records. Raises StorageError. Blocks."""
    plan = recover(
        SegmentFolder(folder),
        group=group,
        node_id=owner.id,
        newest_named=meta.newest_segment(group),
        purge_point=meta.purge_point(group),
        incarnation=owner.incarnation,
    )
    kept = meta.hard_state(group)
    recovered = plan.recovered.with_hard_state(kept.term, kept.vote)
    if not recovered.memberships:
        return recovered, []
    try:
        log = start_native(folder, plan, group, owner, SEGMENT_BYTES, 0, 0, usable=False)
        try:
            return recovered, [log.read(index, 1)[1] for index in recovered.memberships]
        finally:
            log.stop(STOP_US)
            log.close_files()
    except (OSError, native.ReadDamaged, native.ReadAbsent) as error:
        raise StorageError(f"the log in {folder} cannot be read: {error}", hint="check the disk") from error
