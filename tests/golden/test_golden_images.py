"""The manifest of an image (docs/formats.md section 13), byte for byte: what is written today must be read for ever.

`python tests/golden/test_golden_images.py` writes `image.hex` anew; a difference is a new format version, never a fix.
"""

from pathlib import Path

from hiqlite.statemachine.image import Manifest

GOLDEN = Path(__file__).parent / "image.hex"
CASES = {
    "manifest": Manifest(
        12288, 4096, 1000, 3, 0xFEDCBA9876543210, 8192, bytes(range(32)), b"\1\2\3\4\5\6\7\x08", b"membership"
    ),
    "manifest_without_membership": Manifest(4096, 4096, 0, 0, 0, 262144, b"\xff" * 32, b"\0\0\0\0"),
}


def kept():
    return {name: bytes.fromhex(body) for name, body in (line.split() for line in GOLDEN.read_text().splitlines())}


def test_manifests_written_and_read_are_the_golden_ones():
    """Both ways, and the id of an image follows from these bytes."""
    assert {name: manifest.encode() for name, manifest in CASES.items()} == kept()
    assert {name: Manifest.decode(body) for name, body in kept().items()} == CASES
    assert CASES["manifest"].image_id.hex() == "c29a2a21a8c42d8fef0b5f61e0a58170"


if __name__ == "__main__":
    GOLDEN.write_text("".join(f"{name} {manifest.encode().hex()}\n" for name, manifest in CASES.items()))
