"""Recovery of random logs with random damage: always a state that was, never silently less than what was synced."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from hiqlite.engine.model import Identity
from hiqlite.logstore.segments import SegmentFolder
from hiqlite.logstore.starting import settle
from tests.logstore.log_checks import check_plan, said_by, state_of
from tests.logstore.log_twin import History, SegmentTwin, State, new_segment, plan_of

STEP = st.sampled_from(["append", "append", "append", "truncate", "vote", "term"])
AFTER = st.sampled_from(["", "", "mark", "finish", "purge", "repair"])
BATCH = st.tuples(st.lists(STEP, min_size=1, max_size=3), st.integers(0, 5), AFTER)
BATCHES = st.lists(BATCH, min_size=1, max_size=12)


def build(
    batches: list[tuple[list[str], int, str]], folder: Path, purged: list[tuple[int, int]]
) -> tuple[list[SegmentTwin], History]:
    """Segments of a log that flushed each batch, with `synced up to` lagging at random, as in the weaker modes.

    Every second segment is written over the file of an earlier one. `purged` grows by each purge point.
    """
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
                kept = max(len(history.state.terms) * 2 // 3, purged[-1][0])
                content, count = content + history.truncate(kept), count + 1
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
            segments[-1].before = segments[-2].content() if len(segments) % 2 else b""
        elif history.state.terms and after == "purge":
            index = max(len(history.state.terms) - lag, purged[-1][0])
            newest.batch(history.io, history.io, history.purge(index) if index else history.vote(), 2 if index else 1)
            purged.append((index, history.state.terms[index - 1]) if index else (0, 0))
        elif history.state.terms and after == "repair":
            newest.batch(history.io + 1, synced, history.repair(len(history.state.terms)), 1)
    for segment in segments:
        segment.write(folder)
    return segments, history


def drop_purged(segments: list[SegmentTwin], folder: Path, index: int, count: int) -> list[SegmentTwin]:
    """Removes up to `count` segments from the front that hold nothing above `index`; gives the rest."""
    while count > 0 and len(segments) > 1:
        tops = dict(plan_of(folder).tops)
        if tops[segments[0].header.number] > index:
            break
        (folder / f"{segments[0].header.number:016x}.wal").unlink()
        segments, count = segments[1:], count - 1
    return segments


@settings(max_examples=300, deadline=None)
@given(batches=BATCHES, where=st.floats(0, 1), size=st.integers(1, 700), data=st.data())
def test_damage_anywhere_is_never_silent(
    batches: list[tuple[list[str], int, str]], where: float, size: int, data: st.DataObject
) -> None:
    """Some bytes of one segment are overwritten; then the log is cut as recovery says, and is whole from then on."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        purged = [(0, 0)]
        segments, history = build(batches, folder, purged)
        newest = len(segments)
        plan = plan_of(folder)
        base, everything = plan.recovered.base_index, history.state
        assert base == purged[-1][0] and plan.recovered.whole
        assert state_of(plan) == State(everything.terms[base:], everything.term, everything.vote)
        known = data.draw(st.sampled_from(purged))
        segments = drop_purged(segments, folder, known[0], data.draw(st.integers(0, 3)))
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
        plan = plan_of(folder, newest_named=newest, purge_point=known)
        check_plan(folder, plan, history, said_by(segments, (victim.header.number, low, high)))
        settle(SegmentFolder(folder), plan)
        assert plan.recovered.base_index >= known[0]
        again = plan_of(folder, purge_point=(plan.recovered.base_index, plan.recovered.base_term))
        assert again.recovered.whole and again.recovered.faulty == plan.recovered.faulty
        assert state_of(again).terms == state_of(plan).terms
