"""How a log goes on behind what recovery found: that is made durable, and the native log is told of it, and started.

Must not know the event loop or the metadata. Invariant: a log that may not be written to is not started.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from hiqlite import durable, observe
from hiqlite._accel import wal as native
from hiqlite.engine.model import Identity
from hiqlite.errors import ConfigError

from .recovered import Recovered
from .recovery import Plan
from .segments import SegmentFiles

_MODES = {"immediate": 0, "immediate_async": 1}
_INTERVAL = 2
# The native log makes them from nothing, and would refuse writes for ever where it may not.
UNFINISHED: Final = ("making.tmp", "prepared.tmp")


def parse_log_sync(text: str) -> tuple[int, int]:
    """(mode of the native log, interval in nanoseconds)."""
    if text in _MODES:
        return _MODES[text], 0
    interval = re.fullmatch(r"interval_([1-9][0-9]{0,9})", text, re.ASCII)
    if interval is None:
        raise ConfigError(f"log_sync = {text!r}", hint="immediate, immediate_async or interval_<ms>")
    return _INTERVAL, int(interval[1]) * 1_000_000


def settle(files: SegmentFiles, plan: Plan) -> None:
    """Makes durable what `plan` keeps and cuts the rest off, so that the node may speak of it.

    A sync is no proof: what a failed one before it did not write, Linux takes for written. So what no header says to
    be on disk is written once more.
    """
    files.sync(list(plan.kept))
    for number, begin, until in plan.unproven:
        if begin < until:
            files.write(number, begin, files.read_part(number, begin, until))
    files.set_aside(list(plan.discarded))
    if plan.cut is not None and plan.end is not None:
        end = plan.end  # all before it is on disk by now; what stands behind is never read again
        files.write(end.number, end.offset, native.end_batch(plan.cut.salt, end.last_io, end.last_io, end.last_crc))


def start_native(
    folder: Path,
    plan: Plan,
    group: int,
    identity: Identity,
    segment_bytes: int,
    mode: int,
    interval_ns: int,
    usable: bool,
) -> native.NativeLog:
    """The native log in `folder` as `plan` says. Not `usable`: it can only be read."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        log = native.NativeLog(descriptor, group, identity.id, identity.incarnation, segment_bytes, mode, interval_ns)
    finally:
        os.close(descriptor)
    log.set_base(plan.recovered.base_index)
    for span in plan.spans:
        log.add_span(*span)
    for repair in plan.repairs:
        log.add_repair(*repair)
    if not usable:
        return log
    for name in UNFINISHED:
        durable.drop(folder / name)
    for segment in plan.tops:
        log.add_segment(*segment)
    last_io = plan.end.last_io if plan.end is not None else 0
    next_number = plan.end.number + 1 if plan.end is not None else 1
    if plan.resume is not None and plan.end is not None:
        log.resume(plan.resume.number, plan.resume.generation, plan.end.offset, plan.end.last_crc)
    log.start(plan.recovered.io_sequence, last_io, plan.said, next_number)
    log.recycle(plan.recovered.base_index)  # what a life that ended in the middle of a purge left behind
    return log


def report(folder: Path, recovered: Recovered) -> None:
    """Says what recovery found."""
    logger = observe.logger("logstore")
    if recovered.corrupt:
        logger.error("the log in %s is damaged: %s", folder, recovered.corrupt)
    if recovered.lost:
        logger.error("the log in %s has lost its newest segment", folder)
    if recovered.faulty:
        logger.warning("the log in %s holds damaged entries: %s", folder, recovered.faulty)
    logger.info("log in %s: entries %d to %d", folder, recovered.base_index + 1, recovered.last_index)
