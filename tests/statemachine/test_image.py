"""Images: a database copied out beside running writes, and nothing but a whole, sound one taken in."""

from __future__ import annotations

import hashlib
import os
import random
import threading
from dataclasses import replace
from pathlib import Path

import apsw
import pytest
from apply_harness import Machine, execute, execute_many, machine, txn

from hiqlite._accel.records import crc32c
from hiqlite.errors import DiskFull, SnapshotCorruption, StorageError
from hiqlite.statemachine.connection import open_writer
from hiqlite.statemachine.equality import content_hash
from hiqlite.statemachine.image import (
    CHUNK_BYTES,
    RESERVE_BYTES,
    GivenUp,
    Manifest,
    copy_out,
    describe,
    verify,
)
from hiqlite.statemachine.image_files import ImageFiles, IncomingImage

GO_ON = threading.Event()  # never set
CREATE = execute("CREATE TABLE t (id INTEGER PRIMARY KEY, body TEXT)")


def fill(made: Machine, entries: int, *, size: int = 200) -> None:
    """A table with one row per entry, so that the index tells the number of rows."""
    made.one(CREATE)
    made.apply([execute("INSERT INTO t VALUES (?, ?)", (number, "x" * size)) for number in range(1, entries + 1)])


def image_content(image: Path) -> str:
    """Content hash of an image, opened as the database that it is; the file itself stays as it was."""
    copied = image.with_name("opened.db")
    copied.write_bytes(image.read_bytes())
    connection = open_writer(copied)
    try:
        return content_hash(connection)
    finally:
        connection.close()
        for path in image.parent.glob("opened.db*"):
            path.unlink()


def test_an_image_holds_what_stands_only_in_the_write_ahead_log(tmp_path: Path) -> None:
    """No checkpoint was ever made; the image is one plain file with everything, and says where it stands."""
    with machine(tmp_path / "live.db") as made:
        fill(made, 3000)
        manifest = copy_out(made.path, tmp_path / "image.db", GO_ON)
        assert (tmp_path / "live.db").stat().st_size < manifest.size_bytes
        assert manifest.applied_index == made.applier.applied_index == 3001
        assert manifest.applied_term == 1 and manifest.equality_hash == made.applier.equality_hash
        assert image_content(tmp_path / "image.db") == made.content()
        verify(tmp_path / "image.db", manifest, GO_ON)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("image")] == ["image.db"]


def test_rowids_survive(tmp_path: Path) -> None:
    """A table without a key of its own keeps its holes; an image made row by row would close them."""
    with machine(tmp_path / "live.db") as made:
        made.one(txn("CREATE TABLE t (body)", *(("INSERT INTO t VALUES (?)", (n,)) for n in range(50))))
        made.one(execute("DELETE FROM t WHERE body % 3 = 1"))
        before = made.rows("SELECT rowid, body FROM t")
        copy_out(made.path, tmp_path / "image.db", GO_ON)
    with machine(tmp_path / "image.db") as copied:
        assert copied.rows("SELECT rowid, body FROM t") == before


def test_an_image_beside_running_writes_is_of_exactly_its_index(tmp_path: Path) -> None:
    """Taken again and again while entries are applied: rows, index and running hash of one image always agree."""
    with machine(tmp_path / "live.db") as made:
        fill(made, 500)
        hashes = {made.applier.applied_index: made.applier.equality_hash}
        images: list[Manifest] = []
        ended = threading.Event()
        failures: list[BaseException] = []

        def copy() -> None:
            try:
                while not ended.is_set() or len(images) < 3:
                    number = len(images)
                    images.append(copy_out(made.path, tmp_path / f"image{number}.db", GO_ON))
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=copy)
        thread.start()
        number = 500
        while thread.is_alive() and (number < 2000 or len(images) < 3):
            number += 1
            made.one(execute("INSERT INTO t VALUES (?, ?)", (number, "y" * 3000)))
            hashes[made.applier.applied_index] = made.applier.equality_hash
        ended.set()
        thread.join()
    assert failures == [] and len({manifest.applied_index for manifest in images}) > 1
    for number, manifest in enumerate(images):
        verify(tmp_path / f"image{number}.db", manifest, GO_ON)
        assert manifest.equality_hash == hashes[manifest.applied_index]
        with machine(tmp_path / f"image{number}.db") as copied:
            assert copied.rows("SELECT count(*), max(id) FROM t") == [(manifest.applied_index - 1,) * 2]
            assert copied.applier.applied_index == manifest.applied_index


def test_an_image_can_be_applied_to_where_it_stands(tmp_path: Path) -> None:
    """The next entry gives the same running hash on the image as on the original."""
    with machine(tmp_path / "live.db") as made:
        fill(made, 100)
        copy_out(made.path, tmp_path / "image.db", GO_ON)
        with machine(tmp_path / "image.db") as copied:
            for one in (made, copied):
                one.one(execute("INSERT INTO t (body) VALUES (random())"))
            assert copied.content() == made.content()
            assert copied.applier.equality_hash == made.applier.equality_hash


def test_an_empty_database_has_an_image(tmp_path: Path) -> None:
    """Before the first entry: index and term 0."""
    with machine(tmp_path / "live.db") as made:
        manifest = copy_out(made.path, tmp_path / "image.db", GO_ON)
    assert (manifest.applied_index, manifest.applied_term) == (0, 0)
    verify(tmp_path / "image.db", manifest, GO_ON)


def test_who_gives_up_leaves_nothing(tmp_path: Path) -> None:
    """Copying and checking end when they are told to; no file stays."""
    stop = threading.Event()
    stop.set()
    with machine(tmp_path / "live.db") as made:
        fill(made, 10)
        with pytest.raises(GivenUp):
            copy_out(made.path, tmp_path / "image.db", stop)
        assert not (tmp_path / "image.db").exists()
        manifest = copy_out(made.path, tmp_path / "image.db", GO_ON)
        with pytest.raises(GivenUp):
            verify(tmp_path / "image.db", manifest, stop)
        assert made.rows("SELECT count(*) FROM t") == [(10,)]


def test_a_copy_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """No such folder, no such database: a StorageError."""
    with machine(tmp_path / "live.db") as made:
        fill(made, 10)
        with pytest.raises(StorageError):
            copy_out(made.path, tmp_path / "nowhere" / "image.db", GO_ON)
    with pytest.raises(StorageError):
        copy_out(tmp_path / "missing.db", tmp_path / "image.db", GO_ON)
    assert not (tmp_path / "image.db").exists()


# ------------------------------------------------------------------ checking


@pytest.fixture
def made_image(tmp_path: Path) -> tuple[Path, Manifest]:
    with machine(tmp_path / "live.db") as made:
        fill(made, 2000)
        return tmp_path / "image.db", copy_out(made.path, tmp_path / "image.db", GO_ON)


def test_any_changed_byte_is_found(made_image: tuple[Path, Manifest]) -> None:
    """Of the header, of data, of free pages, at the very end."""
    image, manifest = made_image
    whole = image.read_bytes()
    chance = random.Random(7)
    places = [0, 16, 18, 24, 28, len(whole) - 1, *(chance.randrange(len(whole)) for _ in range(30))]
    for place in places:
        changed = bytearray(whole)
        changed[place] ^= 1 << chance.randrange(8)
        image.write_bytes(changed)
        with pytest.raises(SnapshotCorruption):
            verify(image, manifest, GO_ON)
    for other in (whole[:-1], whole + b"\0", whole[:-4096], b"", b"no database"):
        image.write_bytes(other)
        with pytest.raises(SnapshotCorruption):
            verify(image, manifest, GO_ON)
    image.write_bytes(whole)
    verify(image, manifest, GO_ON)


def test_a_damaged_database_is_found_though_its_checksums_hold(made_image: tuple[Path, Manifest]) -> None:
    """The sender's own file was damaged before the manifest was made: quick_check, or the bookkeeping row, tells."""
    image, manifest = made_image
    whole = image.read_bytes()
    damaged = 0
    for page in range(1, manifest.size_bytes // manifest.page_bytes):
        changed = bytearray(whole)
        start = page * manifest.page_bytes
        changed[start : start + 16] = b"\xff" * 16
        image.write_bytes(changed)
        try:
            said = describe(image, GO_ON)
        except StorageError:
            continue  # even the bookkeeping row cannot be read: there is no manifest to believe
        with pytest.raises(SnapshotCorruption):
            verify(image, said, GO_ON)
        damaged += 1
    assert damaged > 50


@pytest.mark.parametrize("field", ["applied_index", "applied_term", "equality_hash", "page_bytes", "size_bytes"])
def test_a_manifest_that_says_something_else_is_found(made_image: tuple[Path, Manifest], field: str) -> None:
    """The bookkeeping row inside the image and the header of the file have the last word."""
    image, manifest = made_image
    value = getattr(manifest, field)
    said = replace(manifest, **{field: value * 2 if field == "page_bytes" else value + 4096})
    with pytest.raises(SnapshotCorruption):
        verify(image, said, GO_ON)


def test_a_foreign_database_is_no_image(tmp_path: Path) -> None:
    """A sound SQLite file without our bookkeeping has no manifest, and no manifest fits it."""
    connection = apsw.Connection(str(tmp_path / "foreign.db"))
    connection.execute("CREATE TABLE t (a); INSERT INTO t VALUES (1)")
    connection.close()
    with pytest.raises(StorageError):
        describe(tmp_path / "foreign.db", GO_ON)
    size = (tmp_path / "foreign.db").stat().st_size
    said = Manifest(size, 4096, 1, 1, 0, CHUNK_BYTES, b"", b"")
    data = (tmp_path / "foreign.db").read_bytes()
    said = replace(said, sha256=hashlib.sha256(data).digest(), chunk_crcs=crc32c(data).to_bytes(4, "little"))
    with pytest.raises(SnapshotCorruption, match="no sound database"):
        verify(tmp_path / "foreign.db", said, GO_ON)


def test_a_manifest_comes_back_as_it_was_or_not_at_all(made_image: tuple[Path, Manifest]) -> None:
    """Cut, lengthened, changed in any byte, of another version: SnapshotCorruption and nothing else."""
    manifest = made_image[1].with_membership(b"who is in it")
    packed = manifest.encode()
    assert Manifest.decode(packed) == manifest and Manifest.decode(packed).membership == b"who is in it"
    for cut in range(len(packed)):
        with pytest.raises(SnapshotCorruption):
            Manifest.decode(packed[:cut])
    chance = random.Random(3)
    for _ in range(300):
        changed = bytearray(packed)
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
        with pytest.raises(SnapshotCorruption):
            Manifest.decode(bytes(changed))
    with pytest.raises(SnapshotCorruption):
        Manifest.decode(packed + b"\0")


@pytest.mark.parametrize(
    "changes",
    [
        {"size_bytes": 0, "chunk_crcs": b""},
        {"size_bytes": 5000},
        {"page_bytes": 4095},
        {"page_bytes": 0},
        {"chunk_bytes": 0},
        {"chunk_bytes": 1 << 30},
        {"chunk_crcs": b"1234" * 1000},
        {"size_bytes": 1 << 62},
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(
    made_image: tuple[Path, Manifest], changes: dict[str, int | bytes]
) -> None:
    """Its checksum holds, its fields do not fit: nothing is allocated or divided by it."""
    said = replace(made_image[1], **changes)  # type: ignore[arg-type]  # names and types are those of the table above
    with pytest.raises(SnapshotCorruption, match="contradicts"):
        Manifest.decode(said.encode())


# ------------------------------------------------------------------ files


def chunks_of(image: Path, manifest: Manifest) -> list[tuple[int, bytes]]:
    data = image.read_bytes()
    return [(at, data[at : at + manifest.chunk_bytes]) for at in range(0, len(data), manifest.chunk_bytes)]


def begin(folder: Path, manifest: Manifest) -> IncomingImage:
    folder.mkdir(exist_ok=True)
    return ImageFiles(folder).begin(manifest.encode(), GO_ON)


def test_an_image_is_received_chunk_by_chunk(tmp_path: Path, made_image: tuple[Path, Manifest]) -> None:
    """Each chunk is checked when it comes, the whole at the end; then it is equal to what was sent."""
    image, manifest = made_image
    incoming = begin(tmp_path / "images", manifest)
    for offset, data in chunks_of(image, manifest):
        assert not incoming.complete
        incoming.write(offset, data)
    incoming.finish(GO_ON)
    incoming.close()
    assert incoming.complete and incoming.path.read_bytes() == image.read_bytes()


def test_a_reception_goes_on_behind_what_is_whole(tmp_path: Path, made_image: tuple[Path, Manifest]) -> None:
    """After a restart, with half a chunk, or a damaged one, at the end of the file: nothing damaged is kept."""
    image, manifest = made_image
    parts = chunks_of(image, manifest)
    assert len(parts) >= 2
    incoming = begin(tmp_path / "images", manifest)
    incoming.write(*parts[0])
    incoming.close()
    with incoming.path.open("ab") as file:
        file.write(parts[1][1][:1000])
    ImageFiles(tmp_path / "images").clean()
    again = begin(tmp_path / "images", manifest)
    assert again.offset == manifest.chunk_bytes == again.path.stat().st_size
    for part in parts[1:]:
        again.write(*part)
    again.finish(GO_ON)
    again.close()
    with again.path.open("r+b") as file:
        file.seek(10)
        file.write(b"\xff")
    third = begin(tmp_path / "images", manifest)
    assert third.offset == 0
    third.close()


def test_a_wrong_chunk_changes_nothing(tmp_path: Path, made_image: tuple[Path, Manifest]) -> None:
    """Of another place, another length, other bytes: SnapshotCorruption, and the right one is still taken."""
    image, manifest = made_image
    (first, data), (second, more), *_ = chunks_of(image, manifest)
    incoming = begin(tmp_path / "images", manifest)
    for offset, wrong in ((second, more), (first, data[:-1]), (first, more), (first, data + b"\0"), (1, data)):
        with pytest.raises(SnapshotCorruption):
            incoming.write(offset, wrong)
    assert incoming.offset == 0
    incoming.write(first, data)
    assert incoming.offset == second
    incoming.close()


def test_another_image_takes_the_place_of_one_left_behind(tmp_path: Path, made_image: tuple[Path, Manifest]) -> None:
    """One reception's files at most lie in the folder."""
    image, manifest = made_image
    incoming = begin(tmp_path / "images", manifest)
    incoming.write(*chunks_of(image, manifest)[0])
    incoming.close()
    other = begin(tmp_path / "images", manifest.with_membership(b"other"))
    assert other.offset == 0
    other.close()
    assert sorted(path.suffix for path in (tmp_path / "images").iterdir()) == [".db", ".manifest"]
    other.discard()
    assert list((tmp_path / "images").iterdir()) == []


def test_a_complete_file_that_is_no_database_is_removed(tmp_path: Path) -> None:
    """Its chunks fit its manifest, it is still no database: refused, and the next try begins anew."""
    data = b"no database at all".ljust(4096, b".")
    crcs = crc32c(data).to_bytes(4, "little")
    manifest = Manifest(4096, 4096, 5, 1, 0, CHUNK_BYTES, hashlib.sha256(data).digest(), crcs)
    incoming = begin(tmp_path / "images", manifest)
    incoming.write(0, data)
    with pytest.raises(SnapshotCorruption):
        incoming.finish(GO_ON)
    assert list((tmp_path / "images").iterdir()) == []


def test_an_image_that_does_not_fit_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    """A full disk would stop this node's log; so the space is looked for first, and a reserve is left."""
    free = os.statvfs(tmp_path)
    chunk_bytes = 4 << 20
    chunks = (free.f_bavail * free.f_frsize) // chunk_bytes + 1
    manifest = Manifest(chunks * chunk_bytes, 4096, 5, 1, 0, chunk_bytes, bytes(32), bytes(4 * chunks))
    said = rf"an image of {manifest.size_bytes} bytes beside the {RESERVE_BYTES} bytes that are kept free: \d+ bytes"
    with pytest.raises(DiskFull, match=said):
        begin(tmp_path / "images", manifest)
    assert list((tmp_path / "images").iterdir()) == []


def test_what_a_start_finds_in_the_folder(tmp_path: Path, made_image: tuple[Path, Manifest]) -> None:
    """Images that were made to be sent and halves go; a reception with its manifest stays."""
    folder = tmp_path / "images"
    incoming = begin(folder, made_image[1])
    incoming.close()
    for name in ("out-1.db", "in-abc.half", "in-abc.db", "stray"):
        (folder / name).write_bytes(b"x")
    ImageFiles(folder).clean()
    assert sorted(path.stem for path in folder.iterdir()) == [incoming.path.stem] * 2


def test_an_outgoing_image_gives_its_chunks_until_it_is_removed(tmp_path: Path) -> None:
    """Then a StorageError; a chunk that the disk gives back changed is never handed out."""
    (tmp_path / "images").mkdir()
    files = ImageFiles(tmp_path / "images")
    with machine(tmp_path / "live.db") as made:
        fill(made, 2000)
        outgoing = files.make(made.path, GO_ON)
    data = outgoing.path.read_bytes()
    assert b"".join(outgoing.read(at) for at in range(0, len(data), outgoing.chunk_bytes)) == data
    with outgoing.path.open("r+b") as file:
        file.write(b"\xff")
    with pytest.raises(SnapshotCorruption):
        outgoing.read(0)
    outgoing.remove()
    outgoing.remove()
    with pytest.raises(StorageError):
        outgoing.read(0)
    assert list((tmp_path / "images").iterdir()) == []


def test_many_rows_in_one_entry_are_one_index(tmp_path: Path) -> None:
    """The index is of the run, not of the rows."""
    with machine(tmp_path / "live.db") as made:
        made.one(CREATE)
        made.one(execute_many("INSERT INTO t VALUES (?, 'x')", [(number,) for number in range(500)]))
        assert copy_out(made.path, tmp_path / "image.db", GO_ON).applied_index == 2
