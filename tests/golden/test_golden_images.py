"""Manifests and bulk frames (docs/formats.md 13 and 14), byte for byte: what is written today must be read for ever.

`python tests/golden/test_golden_images.py` writes `image.hex` and `bulk.hex` anew; a difference is a new
format version, never a fix.
"""

from pathlib import Path

from hiqlite.errors import SnapshotCorruption
from hiqlite.statemachine.image import Manifest
from hiqlite.transport import bulk_wire
from hiqlite.transport.bulk_wire import Sender, Stream

FOLDER = Path(__file__).parent
DIALLER, ACCEPTOR, STREAM = Sender(0x1122334455667788, 1), Sender(0x1122334455667788, 2), Stream(9, bytes(range(16)))
FRAMES = {
    "image_offer": bulk_wire.encode_offer(DIALLER, STREAM, 1, 7, b"manifest"),
    "image_want": bulk_wire.encode_want(ACCEPTOR, STREAM, 1 << 18),
    "image_chunk": bulk_wire.encode_chunk(DIALLER, STREAM, 1 << 18, 5, b"bytes", False),
    "image_chunk_compressed": bulk_wire.encode_chunk(DIALLER, STREAM, 1 << 18, 5, b"zlib", True),
    "image_gone": bulk_wire.encode_gone(DIALLER, STREAM),
    "image_done": bulk_wire.encode_done(ACCEPTOR, STREAM, 1000, 3),
    "image_refused": bulk_wire.encode_refused(ACCEPTOR, STREAM, SnapshotCorruption("no image")),
}
CASES = {
    "manifest": Manifest(
        12288, 4096, 1000, 3, 0xFEDCBA9876543210, 8192, bytes(range(32)), b"\1\2\3\4\5\6\7\x08", b"membership"
    ),
    "manifest_without_membership": Manifest(4096, 4096, 0, 0, 0, 262144, b"\xff" * 32, b"\0\0\0\0"),
}


def kept(name):
    lines = (FOLDER / f"{name}.hex").read_text().splitlines()
    return {case: bytes.fromhex(body) for case, body in (line.split() for line in lines)}


def test_manifests_written_and_read_are_the_golden_ones():
    """Both ways, and the id of an image follows from these bytes."""
    assert {name: manifest.encode() for name, manifest in CASES.items()} == kept("image")
    assert {name: Manifest.decode(body) for name, body in kept("image").items()} == CASES
    assert CASES["manifest"].image_id.hex() == "c29a2a21a8c42d8fef0b5f61e0a58170"


def test_bulk_frames_written_are_the_golden_ones():
    """Any difference is a new version of the protocol."""
    assert {name: b"".join(frame) for name, frame in FRAMES.items()} == kept("bulk")


def write(name, cases):
    (FOLDER / f"{name}.hex").write_text("".join(f"{case} {body.hex()}\n" for case, body in cases.items()))


if __name__ == "__main__":
    write("image", {name: manifest.encode() for name, manifest in CASES.items()})
    write("bulk", {name: b"".join(frame) for name, frame in FRAMES.items()})
