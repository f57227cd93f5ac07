"""The window of newest entries: ranges in, ranges out, bounded in bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiqlite._accel.records import encode_record, header, offsets
from hiqlite.runtime.window import CHUNKS_MAX, Window

ENTRY, COMMAND = 1, 1
MIB = 1 << 20


def record(index: int, payload_bytes: int = 8) -> bytes:
    return encode_record(ENTRY, COMMAND, bytes(payload_bytes), term=1, index=index)


def chunk(first: int, last: int, payload_bytes: int = 8) -> bytes:
    return b"".join(record(index, payload_bytes) for index in range(first, last + 1))


def indexes(data: bytes) -> list[int]:
    return [header(data, offset).index for offset in offsets(data)]


def filled(*ranges: tuple[int, int], size_max: int = MIB) -> Window:
    window = Window(size_max)
    for first, last in ranges:
        window.add(first, last, chunk(first, last))
    return window


def test_an_empty_window_holds_nothing() -> None:
    """Indexes are 0 and no range is covered."""
    window = Window(MIB)
    assert (window.first_index, window.last_index, window.size_bytes) == (0, 0, 0)
    assert not window.covers(1)


def test_a_range_inside_one_chunk_is_sliced() -> None:
    """Both ends may lie inside the chunk."""
    assert indexes(filled((1, 10)).records(4, 6)) == [4, 5, 6]


def test_exactly_one_chunk_is_given_without_a_copy() -> None:
    """The bytes that were put in come out, the same object."""
    window = Window(MIB)
    data = chunk(5, 9)
    window.add(5, 9, data)
    assert window.records(5, 9) is data


def test_a_range_over_chunks_joins_them() -> None:
    """The parts at both ends are sliced, the ones between are whole."""
    window = filled((1, 3), (4, 4), (5, 9))
    assert indexes(window.records(2, 7)) == [2, 3, 4, 5, 6, 7]
    assert [indexes(piece) for piece in window.pieces(2, 7)] == [[2, 3], [4], [5, 6, 7]]


def test_truncation_cuts_inside_a_chunk() -> None:
    """What is above the cut is gone, what is below stays, and the size tells."""
    window = filled((1, 4), (5, 8))
    window.truncate(6)
    assert (window.first_index, window.last_index) == (1, 6)
    assert indexes(window.records(1, 6)) == [1, 2, 3, 4, 5, 6]
    assert window.size_bytes == len(chunk(1, 6))
    window.add(7, 7, chunk(7, 7))
    assert window.last_index == 7


def test_truncation_of_everything_empties_the_window() -> None:
    """A cut below the first index leaves nothing, and anything may follow."""
    window = filled((5, 8), (9, 10))
    window.truncate(3)
    assert (window.first_index, window.size_bytes) == (0, 0)
    window.add(4, 4, chunk(4, 4))
    assert window.covers(4)


def test_truncation_above_the_end_changes_nothing() -> None:
    """The cut may lie above all that is held."""
    window = filled((1, 4))
    window.truncate(10)
    assert window.last_index == 4


def test_a_gap_drops_what_was_held() -> None:
    """The window is a suffix of the log: after a gap only what follows it belongs to that suffix."""
    window = filled((1, 4))
    window.add(9, 10, chunk(9, 10))
    assert (window.first_index, window.last_index) == (9, 10)
    assert window.size_bytes == len(chunk(9, 10))


def test_the_last_index_within_a_size_counts_whole_chunks() -> None:
    """At least one chunk, however large; then as many as fit."""
    window = filled((1, 2), (3, 4), (5, 6))
    two = len(chunk(1, 2))
    assert window.last_within(1, 1) == 2
    assert window.last_within(1, 2 * two) == 4
    assert window.last_within(3, 100 * two) == 6


def test_below_the_limit_nothing_is_to_go() -> None:
    """Whatever was applied; to evict all the same is our own mistake."""
    window = filled((1, 4), (5, 8))
    assert not window.over_limit
    with pytest.raises(AssertionError):
        window.evict(8)
    assert window.first_index == 1


def test_eviction_takes_only_what_was_applied() -> None:
    """Over the limit the oldest applied chunks go; entries that are not applied yet stay, also over the limit."""
    window = Window(10 * len(record(1)))
    for index in range(1, 21):
        window.add(index, index, record(index))
    assert window.evict(5)
    assert window.first_index == 6
    assert not window.evict(5)
    assert window.evict(20)
    assert window.size_bytes <= 10 * len(record(1))
    assert indexes(window.records(window.first_index, 20))[-1] == 20


def test_many_tiny_chunks_are_evicted_by_number() -> None:
    """The number of chunks is bounded as well as their bytes."""
    window = Window(1 << 40)
    data = record(1)
    for index in range(1, CHUNKS_MAX + 2):
        window.add(index, index, data)
    assert window.evict(CHUNKS_MAX)
    assert CHUNKS_MAX + 1 - window.first_index < CHUNKS_MAX


@pytest.mark.parametrize("first, last", [(3, 12), (11, 12)])
def test_a_range_outside_of_the_window_is_our_own_mistake(first: int, last: int) -> None:
    """It is asserted, never answered with other entries."""
    with pytest.raises(AssertionError):
        filled((1, 10)).records(first, last)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 6)),
        st.tuples(st.just("truncate"), st.integers(0, 40)),
        st.tuples(st.just("evict"), st.integers(0, 40)),
    ),
    max_size=30,
)


@given(steps=STEPS, size_max=st.integers(1, 2000))
def test_the_window_is_always_a_suffix_of_the_log(steps: list[tuple[str, int]], size_max: int) -> None:
    """Whatever is added, cut and evicted: first to last are held without a gap, and the size is that of the records."""
    window = Window(size_max)
    last = 0
    for step, number in steps:
        if step == "add":
            window.add(last + 1, last + number, chunk(last + 1, last + number))
            last += number
        elif step == "truncate":
            last = min(last, max(number, window.first_index - 1 if window.first_index else last))
            window.truncate(last)
        elif window.over_limit:
            window.evict(min(number, last))
        if window.first_index:
            held = window.records(window.first_index, window.last_index)
            assert indexes(held) == list(range(window.first_index, last + 1))
            assert window.size_bytes == len(held)
