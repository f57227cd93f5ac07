"""The pages of the metadata's file: what LMDB wrote passes, and what is damaged never ends the process."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from random import Random

import pytest

from hiqlite.engine.model import Identity, Membership
from hiqlite.logstore import meta_pages
from hiqlite.logstore.meta import Meta

PAGE_BYTES = 4096
OPENS = """
import sys
from pathlib import Path
from hiqlite.errors import StorageError
from hiqlite.logstore.meta import Meta

whole, folder, told = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2]), 0
for place in sys.stdin.read().split():
    print(place, flush=True)
    at, bit = map(int, place.split(":"))
    damaged = bytearray(whole)
    damaged[at] ^= 1 << bit
    (folder / "data.mdb").write_bytes(damaged)
    try:
        meta = Meta.open(folder)
    except StorageError:
        told += 1
        continue
    meta.hard_state(0), meta.membership(1), meta.newest_segment(0)
    meta.put({"db/filler": "x" * 9000})
    meta.close()
print("told", told)
"""


def fill(meta: Meta, chance: Random, puts: int) -> None:
    for _ in range(puts):
        meta.set_hard_state(0, chance.randrange(1 << 60), Identity(2, 7))
        meta.set_membership(1, Membership(chance.randrange(1 << 60), (Identity(2, 7),)))
        meta.set_newest_segment(0, chance.randrange(1 << 20))
        size_bytes = chance.choice((0, 40, 900, 1800, 3000, 9000, 100_000))
        meta.put({f"db/filler{chance.randrange(60)}": "x" * size_bytes})


def test_what_lmdb_wrote_passes(tmp_path: Path) -> None:
    """Trees of more than one page, values of many, pages that were given back and used again; after each opening."""
    chance = Random(5)
    for puts in (0, 1, 5, 20, 40):
        meta = Meta.open(tmp_path)
        fill(meta, chance, puts)
        meta.close()
        whole = (tmp_path / "data.mdb").read_bytes()
        meta_pages.check(whole, PAGE_BYTES)
    newer = max((0, PAGE_BYTES), key=lambda page: struct.unpack_from("<Q", whole, page + 144))
    branches, leaves, overflows = struct.unpack_from("<3Q", whole, newer + 96)
    assert branches > 0 and leaves > 2 and overflows > 20


def test_what_is_no_file_of_lmdb_is_told(tmp_path: Path) -> None:
    """A page that was written to another one's place, and one that was never written."""
    meta = Meta.open(tmp_path)
    fill(meta, Random(3), 5)
    meta.close()
    whole = (tmp_path / "data.mdb").read_bytes()
    newer = max((0, PAGE_BYTES), key=lambda page: struct.unpack_from("<Q", whole, page + 144))
    root = PAGE_BYTES * int(struct.unpack_from("<Q", whole, newer + 128)[0])
    for page in (bytes(PAGE_BYTES), whole[:PAGE_BYTES], b"\xff" * PAGE_BYTES):
        with pytest.raises(meta_pages.PagesDamaged):
            meta_pages.check(whole[:root] + page + whole[root + PAGE_BYTES :], PAGE_BYTES)


@pytest.mark.parametrize("thorough", [False, pytest.param(True, marks=[pytest.mark.long, pytest.mark.timeout(900)])])
def test_a_damaged_page_ends_no_process(tmp_path: Path, thorough: bool) -> None:
    """Opened, read, and written to by a process of its own: what describes the pages, bit by bit."""
    meta = Meta.open(tmp_path / "whole")
    fill(meta, Random(1), 4)
    meta.close()
    path = tmp_path / "whole" / "data.mdb"
    whole = path.read_bytes()
    pages = range(2, 1 + max(struct.unpack_from("<Q", whole, page + 136)[0] for page in (0, PAGE_BYTES)))
    newer = max((0, PAGE_BYTES), key=lambda page: struct.unpack_from("<Q", whole, page + 144))
    roots = [struct.unpack_from("<Q", whole, newer + at)[0] for at in (80, 128)]
    places = [newer + at for at in (44, 80, 128)] + [root * PAGE_BYTES + at for root in roots for at in (0, 12, 16)]
    if thorough:
        places = [page + at for page in (0, PAGE_BYTES) for at in range(152)]
        places += [page * PAGE_BYTES + at for page in pages for at in range(26)]
        places += [place for root in roots for place in nodes_of(whole, root)]
    (tmp_path / "damaged").mkdir()
    child = subprocess.run(
        [sys.executable, "-c", OPENS, str(path), str(tmp_path / "damaged")],
        input=" ".join(f"{at}:{bit}" for at in places for bit in range(8)),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    *_, last = child.stdout.splitlines()
    assert child.returncode == 0 and int(last.removeprefix("told ")) > len(places), (last, child.stderr[-2000:])


def nodes_of(whole: bytes, page: int) -> Iterable[int]:
    """Of a page: the bytes of each node that say how long it is."""
    begin = page * PAGE_BYTES
    (lower,) = struct.unpack_from("<H", whole, begin + 12)
    for at in struct.unpack_from(f"<{(lower - 16) // 2}H", whole, begin + 16):
        yield from range(begin + at, begin + at + 8)
