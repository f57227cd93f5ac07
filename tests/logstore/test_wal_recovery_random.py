"""Recovery of random logs with random damage: always a state that was, never silently less than what was synced."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from hiqlite.engine.model import Identity
from hiqlite.logstore.recovery import settle
from tests.logstore.log_checks import check_plan, state_of
from tests.logstore.log_twin import BatchAt, History, SegmentTwin, new_segment, plan_of, terms_of

STEP = st.sampled_from(["append", "append", "append", "truncate", "vote", "term"])
AFTER = st.sampled_from(["", "", "mark", "finish"])
BATCH = st.tuples(st.lists(STEP, min_size=1, max_size=3), st.integers(0, 5), AFTER)
BATCHES = st.lists(BATCH, min_size=1, max_size=12)


def build(batches: list[tuple[list[str], int, str]], folder: Path) -> tuple[list[SegmentTwin], History]:
    """Segments of a log that flushed each batch, with `synced up to` lagging at random, as in the weaker modes."""
    history, term = History(), 1
    segments = [new_segment()]
    for steps, lag, after in batches:
        content, count, synced = b"", 0, max(history.io - lag, 0)
        for step in steps:
            if step == "append":
                first, last, data = history.append(term, 1 + (history.io % 3))
                content, count = content + data, count + last - first + 1
            elif step == "truncate" and history.state.terms:
                term += 1  # a truncation means that another leader's entries follow
                content, count = content + history.truncate(len(history.state.terms) * 2 // 3), count + 1
            elif step == "vote":
                content, count = content + history.hard_state(term, Identity(3, 4)), count + 1
            else:
                term += 1
                content, count = content + history.hard_state(term, None), count + 1
        newest = segments[-1]
        newest.batch(history.io, max(synced, newest.header.first_io - 1), content, count)
        if after == "mark":
            newest.mark()
        elif after == "finish":
            newest.finish()
            segments.append(new_segment(len(segments) + 1, first_io=history.io + 1))
    for segment in segments:
        segment.write(folder)
    return segments, history


def said_by(segments: list[SegmentTwin], spoiled: tuple[int, int, int]) -> int:
    """Highest `synced up to` of the headers that [low, high) of segment `number` does not touch."""
    number, low, high = spoiled

    def clean(segment: SegmentTwin, at: BatchAt) -> bool:
        return segment.header.number != number or high <= at.offset or low >= at.offset + 48

    said = [at.synced for segment in segments for at in segment.batches if clean(segment, at)]
    return max([*said, *(segment.header.first_io - 1 for segment in segments)])


@settings(max_examples=300, deadline=None)
@given(batches=BATCHES, where=st.floats(0, 1), size=st.integers(1, 700), data=st.data())
def test_damage_anywhere_is_never_silent(
    batches: list[tuple[list[str], int, str]], where: float, size: int, data: st.DataObject
) -> None:
    """Some bytes of one segment are overwritten; then the log is cut as recovery says, and is whole from then on."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        segments, history = build(batches, folder)
        plan = plan_of(folder)
        assert state_of(plan) == history.state and plan.recovered.whole
        victim = segments[data.draw(st.integers(0, len(segments) - 1))]
        used = len(victim.body) - 4096
        low = 4096 + int(used * where)
        high = min(low + size, len(victim.content()))
        kind = data.draw(st.sampled_from(["zeros", "noise", "flip", "old"]))
        content = bytearray(victim.content())
        if kind == "zeros":
            content[low:high] = bytes(high - low)
        elif kind == "noise":
            content[low:high] = data.draw(st.binary(min_size=high - low, max_size=high - low))
        elif kind == "old" and low - size >= 4096:  # a sector that holds what another place held
            content[low:high] = content[low - size : low - size + high - low]
        else:
            high = low + 1
            content[low] ^= 1 << data.draw(st.integers(0, 7))
        (folder / f"{victim.header.number:016x}.wal").write_bytes(content)
        plan = plan_of(folder, newest_named=len(segments))
        check_plan(folder, plan, history, said_by(segments, (victim.header.number, low, high)))
        settle(folder, plan)
        again = plan_of(folder)
        assert again.recovered.whole and again.recovered.faulty == plan.recovered.faulty
        assert terms_of(again.recovered.runs) == terms_of(plan.recovered.runs)
