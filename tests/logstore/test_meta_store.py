"""The metadata: what is put comes back, and what is damaged is told instead of being believed."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import lmdb
import pytest

from hiqlite.engine.model import Identity, Membership
from hiqlite.errors import StorageError
from hiqlite.logstore.meta import HardState, Meta
from hiqlite.logstore.meta_file import MetaDamaged

ONE, TWO = Identity(1, 2**64 - 1), Identity(2, 7)


def test_everything_put_comes_back(tmp_path: Path) -> None:
    """Each key of the format, per group, after closing and opening; a fresh one knows nothing."""
    meta = Meta.open(tmp_path / "a" / "meta")
    assert meta.node_id is None and meta.cluster_id is None and meta.recorded_set(0) is None
    assert meta.hard_state(0) == HardState() and meta.membership(0) is None and meta.newest_segment(1) == 0
    meta.set_node_id(3)
    meta.begin_incarnation(0, 2**63)
    meta.set_formed(0, b"c" * 32, (ONE, TWO))
    meta.set_formed(1, b"d" * 32, (TWO,))
    membership = Membership(9, (ONE,), (TWO,))
    meta.set_hard_state(0, 4, TWO)
    meta.set_hard_state(1, 5, None)
    meta.set_membership(1, membership)
    without = Membership(12, (ONE,), removed=(2, 5))
    meta.set_membership(0, without)
    meta.set_joins(0, True)
    meta.set_addresses([[3, 1, "a:1", "a:2"]])
    meta.set_newest_segment(0, 12)
    meta.set_generation(0, "0001-abc")
    meta.close()
    meta.close()
    meta = Meta.open(tmp_path / "a" / "meta")
    assert (meta.node_id, meta.cluster_id) == (3, b"c" * 32)
    assert (meta.recorded_set(0), meta.recorded_set(1)) == ((ONE, TWO), (TWO,))
    assert not meta.in_memory(0)
    assert (meta.incarnation(0), meta.incarnation(1)) == (2**63, None)
    assert (meta.hard_state(0), meta.hard_state(1)) == (HardState(4, TWO), HardState(5, None))
    assert (meta.membership(0), meta.membership(1)) == (without, membership)
    assert [found.removed for found in (meta.membership(0), meta.membership(1)) if found] == [(2, 5), ()]
    assert (meta.joins(0), meta.joins(1)) == (True, False)
    assert meta.addresses() == [[3, 1, "a:1", "a:2"]]
    assert (meta.newest_segment(0), meta.newest_segment(1)) == (12, 0)
    assert (meta.generation(0), meta.generation(1)) == ("0001-abc", None)
    meta.close()


def test_a_new_incarnation_begins_with_nothing(tmp_path: Path) -> None:
    """What the one before had promised, and to whom it belonged, is gone in one step; the other group keeps all."""
    meta = Meta.open(tmp_path)
    for group in (0, 1):
        meta.begin_incarnation(group, 5)
        meta.set_formed(group, b"c" * 32, (ONE, TWO))
        meta.set_membership(group, Membership(9, (ONE,), (TWO,)))
        meta.set_hard_state(group, 4, TWO)
        meta.set_newest_segment(group, 3)
        meta.set_purge_point(group, 7, 2)
    meta.begin_incarnation(1, 6, in_memory=True)
    meta.close()
    meta = Meta.open(tmp_path)
    assert (meta.incarnation(1), meta.in_memory(1), meta.cluster_id) == (6, True, b"c" * 32)
    assert (meta.recorded_set(1), meta.membership(1), meta.hard_state(1)) == (None, None, HardState())
    assert (meta.newest_segment(1), meta.purge_point(1)) == (0, (0, 0))
    assert (meta.incarnation(0), meta.in_memory(0), meta.recorded_set(0)) == (5, False, (ONE, TWO))
    assert (meta.newest_segment(0), meta.purge_point(0), meta.hard_state(0)) == (3, (7, 2), HardState(4, TWO))
    meta.close()


def test_who_joins_founds_nothing_any_more(tmp_path: Path) -> None:
    """The set that it had recorded goes in the step that names the members it joins."""
    meta = Meta.open(tmp_path)
    meta.begin_incarnation(0, 5)
    meta.set_formed(0, b"c" * 32, (ONE, TWO))
    meta.set_joined(0, b"d" * 32, Membership(0, (ONE,), (TWO,)))
    assert (meta.recorded_set(0), meta.membership(0)) == (None, Membership(0, (ONE,), (TWO,)))
    assert meta.cluster_id == b"c" * 32
    meta.close()


def test_the_stable_file_format_is_used(tmp_path: Path) -> None:
    """lmdb carries two; ours is the one that every LMDB reads."""
    Meta.open(tmp_path).close()
    assert struct.unpack_from("<II", (tmp_path / "data.mdb").read_bytes(), 16) == (0xBEEFC0DE, 1)


def test_a_value_whose_checksum_is_wrong_is_an_error(tmp_path: Path) -> None:
    """LMDB itself would hand it out."""
    meta = Meta.open(tmp_path)
    meta.set_hard_state(0, 4, TWO)
    meta.close()
    path = tmp_path / "data.mdb"
    content = bytearray(path.read_bytes())
    at = content.index(b"db/hard_state")
    while at >= 0:
        content[at + len(b"db/hard_state") + 1] ^= 2
        at = content.find(b"db/hard_state", at + 1)
    path.write_bytes(content)
    with pytest.raises(MetaDamaged, match="checksum of db/hard_state"):
        Meta.open(tmp_path)


def test_a_flipped_bit_anywhere_is_told_or_harmless(tmp_path: Path) -> None:
    """In every page that is in use: what is read is what was written, or what stood there one write before; or it is
    said to be damaged, with the very opening. A key whose bits changed is not a value that was never there."""
    meta = Meta.open(tmp_path / "whole")
    states = []
    for term in range(12):
        meta.set_hard_state(0, term, TWO)
        meta.set_membership(1, Membership(term, (TWO,)))
        meta.set_newest_segment(0, term + 1)
        states.append(state_of(meta))
    meta.close()
    whole = (tmp_path / "whole" / "data.mdb").read_bytes()
    used = 4096 * (1 + max(struct.unpack_from("<Q", whole, page + 136)[0] for page in (0, 4096)))
    in_use = [at for at in range(used) if any(whole[at & ~15 : (at | 15) + 1])]
    chance, told = random.Random(7), 0
    folder = tmp_path / "damaged"
    folder.mkdir()
    for at in chance.sample(in_use, 250):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << chance.randrange(8)
        (folder / "data.mdb").write_bytes(damaged)
        try:
            meta = Meta.open(folder)
        except MetaDamaged:
            told += 1
            continue
        found = state_of(meta)
        meta.close()
        assert found == states[-1] or (at in ONE_WRITE_BEFORE and is_one_write_before(found, states)), at
    assert told > 20


ONE_WRITE_BEFORE = {*range(16, 152), *range(4096 + 16, 4096 + 152)}  # the two meta pages


def state_of(meta: Meta) -> tuple[object, ...]:
    return meta.hard_state(0), meta.membership(1), meta.newest_segment(0)


def is_one_write_before(found: tuple[object, ...], states: list[tuple[object, ...]]) -> bool:
    """The last write was that of the newest segment."""
    return found == (*states[-1][:2], states[-2][2])


def test_a_file_cut_short_is_an_error_and_no_signal(tmp_path: Path) -> None:
    """Mapping it would end the process with SIGBUS: every length but the whole one is refused."""
    meta = Meta.open(tmp_path)
    for term in range(40):
        meta.set_hard_state(0, term, TWO)
        meta.put({f"db/filler{term}": "x" * 200})
    meta.close()
    path = tmp_path / "data.mdb"
    whole = path.read_bytes()
    used = 4096 * (1 + max(struct.unpack_from("<Q", whole, page + 136)[0] for page in (0, 4096)))
    assert used >= 5 * 4096
    for size in (0, 1, 100, 151, 4096, 4200, 8191, 8192, used - 4096, used - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(StorageError, match="cannot be trusted"):
            Meta.open(tmp_path)
    path.write_bytes(whole)
    meta = Meta.open(tmp_path)
    assert meta.hard_state(0).term == 39
    meta.close()


@pytest.mark.parametrize("content", [b"", b"x", b"\xff" * 9000, bytes(100_000)], ids=["empty", "cut", "wrong", "zeros"])
def test_what_lies_in_the_lock_file_is_of_no_use(tmp_path: Path, content: bytes) -> None:
    """The folder has one owner; mapped as it is, a lock file cut short would end the process with SIGBUS."""
    Meta.open(tmp_path, {"node_id": 4, "db/returns": True}).close()
    for _ in range(2):
        (tmp_path / "lock.mdb").write_bytes(content)
        meta = Meta.open(tmp_path, {"node_id": 5})
        assert (meta.node_id, meta.returns(0)) == (4, True)
        meta.close()


def test_a_damaged_meta_page_is_an_error(tmp_path: Path) -> None:
    """Either of the two; and a file that is no LMDB at all."""
    Meta.open(tmp_path).close()
    path = tmp_path / "data.mdb"
    whole = path.read_bytes()
    for at in (16, 4096 + 17, 4096 + 10, 40):
        damaged = bytearray(whole)
        damaged[at] ^= 0xFF
        path.write_bytes(damaged)
        with pytest.raises(StorageError, match="cannot be trusted"):
            Meta.open(tmp_path)
    path.write_bytes(b"no database at all" * 1000)
    with pytest.raises(StorageError, match="cannot be trusted"):
        Meta.open(tmp_path)


def test_a_value_of_another_shape_is_an_error(tmp_path: Path) -> None:
    """A good checksum over something this version does not understand."""
    meta = Meta.open(tmp_path)
    meta.put({"node_id": "three", "db/hard_state": [1, 2], "db/membership": [1, [[1]], []], "db/recorded_set": [5]})
    meta.put({"cache/membership": [1, [[1, 1]], [], [], [[2, 1]]]})
    for look in (
        lambda: meta.node_id,
        lambda: meta.hard_state(0),
        lambda: meta.membership(0),
        lambda: meta.membership(1),
        lambda: meta.recorded_set(0),
    ):
        with pytest.raises(StorageError, match="cannot be trusted"):
            look()
    meta.close()


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    """With a sentence that says which one it is."""
    meta = Meta.open(tmp_path)
    meta.put({"format": 99})
    meta.close()
    with pytest.raises(StorageError, match="format 99"):
        Meta.open(tmp_path)


def test_a_full_environment_is_a_storage_error(tmp_path: Path) -> None:
    """Nothing of lmdb's own errors reaches the caller."""
    meta = Meta.open(tmp_path)
    with pytest.raises(StorageError, match="could not write"):
        meta.put({"big": b"x" * (80 << 20)})
    meta.set_node_id(1)
    assert meta.node_id == 1
    meta.close()
    assert issubclass(lmdb.MapFullError, lmdb.Error)


def test_a_making_that_was_cut_short_is_begun_again(tmp_path: Path) -> None:
    """A crash in the middle of the first start: whatever bytes are left there are no metadata yet."""
    Meta.open(tmp_path / "whole").close()
    content = (tmp_path / "whole" / "data.mdb").read_bytes()
    for size in (0, 100, 4096, 5000, len(content)):
        folder = tmp_path / str(size)
        folder.mkdir()
        (folder / "making.tmp").write_bytes(content[:size])
        (folder / "making.tmp-lock").write_bytes(b"lock")
        meta = Meta.open(folder)
        assert meta.node_id is None
        meta.set_node_id(4)
        meta.close()
        assert sorted(path.name for path in folder.iterdir()) == ["data.mdb", "lock.mdb"]
        meta = Meta.open(folder)
        assert meta.node_id == 4
        meta.close()


@pytest.mark.parametrize("name", ["making.tmp", "making.tmp-lock"])
def test_a_folder_in_the_place_of_a_making_is_moved_out_of_the_way(tmp_path: Path, name: str) -> None:
    """It is nobody's here, so it is kept."""
    (tmp_path / name / "what is this").mkdir(parents=True)
    Meta.open(tmp_path).close()
    assert (tmp_path / f"{name}.aside" / "what is this").is_dir()


def test_an_older_configuration_never_replaces_a_newer_one(tmp_path: Path) -> None:
    """Neither by itself nor with the image that it came with."""
    meta = Meta.open(tmp_path / "meta")
    old, new = (Membership(index, (Identity(1, 1), Identity(2, index))) for index in (50, 55))
    meta.set_membership(0, new)
    meta.set_membership(0, old)
    assert meta.membership(0) == new
    meta.set_generation(0, "0123456789abcdef", old)
    assert (meta.membership(0), meta.generation(0)) == (new, "0123456789abcdef")
    meta.close()


def test_a_life_that_was_replaced_is_over_until_another_one_or_another_cluster_begins(tmp_path: Path) -> None:
    """Every start hears of it, whatever crash came in between; a cluster that is made of the folder counts anew."""
    meta = Meta.open(tmp_path / "meta")
    for begins_cluster in (False, True):
        meta.set_replaced(0)
        meta.close()
        meta = Meta.open(tmp_path / "meta")
        assert meta.replaced(0) and not meta.replaced(1)
        if begins_cluster:
            meta.begin_cluster(bytes(32), {0: Membership(9, (Identity(1, 7),))})
        else:
            meta.begin_incarnation(0, 7, returns=True)
        assert not meta.replaced(0)
    meta.close()
