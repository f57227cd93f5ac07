"""A segment of version 1, byte for byte: what was written once can be read for ever."""

from __future__ import annotations

from pathlib import Path

from hiqlite.engine.model import Identity, TermRun
from hiqlite.logstore.segments import segment_path
from tests.logstore.log_twin import (
    SEGMENT_BYTES,
    TRUNCATE,
    entries,
    new_segment,
    plan_of,
    record,
    vote_record,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "segment.bin"


def built() -> bytes:
    """A vote, entries of two terms with a truncation between them, a mark, the end; without the zeros behind it."""
    segment = new_segment()
    segment.batch(1, 0, vote_record(3, Identity(2, 99)), 1)
    segment.batch(3, 1, entries(3, 1, 4) + record(TRUNCATE, 0, 3), 5)
    segment.batch(4, 3, entries(5, 4, 5), 2)
    segment.mark()
    segment.finish()
    return bytes(segment.body)


def test_the_format_has_not_changed() -> None:
    """The golden file is what the twin of the format builds today."""
    assert GOLDEN.read_bytes() == built()


def test_the_golden_segment_is_understood(tmp_path: Path) -> None:
    """Recovery of it, by the native scan."""
    segment_path(tmp_path, 1).write_bytes(GOLDEN.read_bytes().ljust(SEGMENT_BYTES, b"\0"))
    recovered = plan_of(tmp_path).recovered
    assert recovered.whole and recovered.runs == (TermRun(3, 1, 3), TermRun(5, 4, 5))
    assert (recovered.term, recovered.vote, recovered.io_sequence) == (3, Identity(2, 99), 4)
