"""The cache group's state and manifest, and the checkpoint mark (docs/formats.md section 9), byte for byte.

`python tests/golden/test_golden_states.py` writes `state.hex` anew; a difference is a new format version, never a fix.
"""

from pathlib import Path

from hiqlite.cache import state_file
from hiqlite.cache.image import IncomingState, OutgoingState
from hiqlite.cache.state import CacheState
from hiqlite.engine.model import Identity
from hiqlite.statemachine.trust import CheckpointMark

FOLDER = Path(__file__).parent
OWNER = Identity(3, 0x1122334455667789)
STATE = CacheState(1000, 7, 42, b"members", 1_700_000_000_000_000_000)
VALUES = {
    "cache_state": (STATE, CacheState.decode),
    "cache_state_empty": (CacheState(), CacheState.decode),
    "checkpoint_mark": (CheckpointMark(2000, 1000, b"salt", 0x1122334455667788), CheckpointMark.decode),
    "checkpoint_mark_empty": (CheckpointMark(), CheckpointMark.decode),
}
# Read only: no release writes them any more.
BEFORE = {
    "checkpoint_mark_of_0.2.0": CheckpointMark(2000, 1000, b"salt"),
    "checkpoint_mark_empty_of_0.2.0": CheckpointMark(),
}


def kept():
    lines = (FOLDER / "state.hex").read_text().splitlines()
    return {case: bytes.fromhex(body) for case, body in (line.split() for line in lines)}


def test_states_written_and_read_are_the_golden_ones():
    """Both ways."""
    golden = kept()
    for name, (value, decode) in VALUES.items():
        assert value.encode() == golden[name], name
        assert decode(golden[name]) == value, name
    for name, mark in BEFORE.items():
        assert CheckpointMark.decode(golden[name]) == mark, name


def test_the_manifest_of_the_cache_groups_image_is_the_golden_one():
    """Both ways: the state comes out of an image that a kept manifest offers."""
    image = OutgoingState.of(STATE, b"membership")
    offer = kept()["cache_manifest"]
    assert image.offer() == offer
    incoming = IncomingState(offer)
    incoming.write(0, image.read(0))
    assert incoming.state() == STATE


def test_the_file_of_the_cache_groups_state_is_the_golden_one(tmp_path):
    """The same bytes, and whose they are."""
    state_file.write(tmp_path / "state", STATE, OWNER)
    assert (tmp_path / "state").read_bytes() == kept()["cache_state_file"]
    assert state_file.read(tmp_path / "state", OWNER) == STATE


def write(path):
    cases = {name: value.encode() for name, (value, _) in VALUES.items()}
    cases["cache_manifest"] = OutgoingState.of(STATE, b"membership").offer()
    state_file.write(path.with_suffix(".made"), STATE, OWNER)
    cases["cache_state_file"] = path.with_suffix(".made").read_bytes()
    path.with_suffix(".made").unlink()
    cases |= {name: kept()[name] for name in BEFORE}
    path.write_text("".join(f"{case} {body.hex()}\n" for case, body in cases.items()))


if __name__ == "__main__":
    write(FOLDER / "state.hex")
