"""The cache group's state as bytes and as a file: what was damaged, cut short or never written whole is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiqlite._accel.records import crc32c
from hiqlite.cache import state_file
from hiqlite.cache.state import CacheState
from hiqlite.engine.model import Identity
from hiqlite.errors import SnapshotCorruption, StorageError

OWNER = Identity(7, 5)
STATE = CacheState(7, 2, 5, b"\x92\x93\x01\x02\x03\x90")


@given(st.integers(1, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.binary(max_size=300))
def test_a_state_comes_back_as_it_was(index: int, term: int, mirrored_index: int, mirrored: bytes) -> None:
    """All fields, over their whole range."""
    state = CacheState(index, term, mirrored_index, mirrored)
    assert CacheState.decode(state.encode()) == state


def test_every_damaged_bit_and_every_cut_is_told() -> None:
    """No byte of a state is unguarded, and none may be missing or follow."""
    data = STATE.encode()
    for at in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[at // 8] ^= 1 << at % 8
        with pytest.raises(SnapshotCorruption):
            CacheState.decode(bytes(damaged))
    for size in range(len(data)):
        with pytest.raises(SnapshotCorruption):
            CacheState.decode(data[:size])
    with pytest.raises(SnapshotCorruption):
        CacheState.decode(data + b"\0")


def test_no_file_is_the_state_before_the_first_entry(tmp_path: Path) -> None:
    """A damaged file is not: what it said may have been counted on."""
    path = tmp_path / "state"
    assert state_file.read(path, OWNER) == CacheState()
    state_file.write(path, STATE, OWNER)
    assert state_file.read(path, OWNER) == STATE
    whole = path.read_bytes()
    for found in (b"", whole[:-1], whole[:20], bytes(len(whole))):
        path.write_bytes(found)
        with pytest.raises(SnapshotCorruption) as caught:
            state_file.read(path, OWNER)
        assert str(path) in caught.value.message


def test_a_write_that_was_interrupted_leaves_the_state_of_before(tmp_path: Path) -> None:
    """What is half written has another name, and the next write is not disturbed by it."""
    path = tmp_path / "state"
    state_file.write(path, STATE, OWNER)
    (tmp_path / "state.tmp").write_bytes(STATE.encode()[:10])
    assert state_file.read(path, OWNER) == STATE
    newer = CacheState(9, 3, 5, STATE.mirrored)
    state_file.write(path, newer, OWNER)
    assert state_file.read(path, OWNER) == newer and not (tmp_path / "state.tmp").exists()


def test_a_disk_that_refuses_is_told_as_such(tmp_path: Path) -> None:
    """Not as damage: nobody is to throw away what is there."""
    with pytest.raises(StorageError) as caught:
        state_file.write(tmp_path / "gone" / "state", STATE, OWNER)
    assert not isinstance(caught.value, SnapshotCorruption)
    path = tmp_path / "state"
    body = b"HQCACHE2 of a newer version" + bytes(16)
    path.write_bytes(body + crc32c(body).to_bytes(4, "little"))
    with pytest.raises(StorageError, match="another format") as caught:
        state_file.read(path, OWNER)
    assert not isinstance(caught.value, SnapshotCorruption)


def test_the_state_of_somebody_else_is_none(tmp_path: Path) -> None:
    """Another node's, or that of an incarnation that is over; nor is a folder a state."""
    path = tmp_path / "state"
    state_file.write(path, STATE, OWNER)
    for other in (Identity(8, OWNER.incarnation), Identity(7, 6)):
        with pytest.raises(SnapshotCorruption, match="another"):
            state_file.read(path, other)
    path.unlink()
    path.mkdir()
    with pytest.raises(SnapshotCorruption, match="no file"):
        state_file.read(path, OWNER)
