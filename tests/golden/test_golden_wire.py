"""Every kind of frame between nodes, the entries that nodes write by themselves, and the metadata, byte for byte.

docs/formats.md sections 3, 5, 8 and 10. `python tests/golden/test_golden_wire.py` writes `messages.hex`, `entries.hex`
and `metadata.hex` anew; a difference is a new version of the format or of the protocol, never a fix.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from hiqlite._accel.frames import Frame, FrameReader
from hiqlite._accel.records import HEADER_SIZE, OK, check, encode_record, header
from hiqlite.engine.model import (
    AppendReply,
    AppendRequest,
    Identity,
    Membership,
    Message,
    ProbeReply,
    ProbeRequest,
    RepairReply,
    RepairRequest,
    TermRun,
    TimeoutNow,
    VoteReply,
    VoteRequest,
)
from hiqlite.errors import NotLeader, ProtocolError
from hiqlite.logstore import meta_file
from hiqlite.logstore.meta import Meta
from hiqlite.runtime.forwarding import (
    ANSWERED,
    FORWARD,
    REFUSED,
    REPLY,
    TRIED_BEFORE,
    refusal,
    split_forward,
    split_replies,
)
from hiqlite.runtime.membership_record import decode_membership, encode_membership
from hiqlite.runtime.mirror_record import INDEX_BYTES, Mirrored
from hiqlite.runtime.scrub_record import ScrubMark
from hiqlite.statemachine import session_record
from hiqlite.transport import wire
from hiqlite.transport.wire import FrameType

FOLDER = Path(__file__).parent
SENDER = Identity(3, 0x1122334455667788)
ONE, TWO, THREE = Identity(1, 11), Identity(2, 22), Identity(3, 33)
RUNS = (TermRun(5, 11, 12), TermRun(7, 13, 13))
BODY = b"".join(
    encode_record(1, 1, b"payload", run.term, index) for run in RUNS for index in range(run.first, run.last + 1)
)
RECORD = encode_record(1, 1, b"payload")
MESSAGES: dict[str, tuple[Message, bytes | None]] = {
    "append": (AppendRequest(7, SENDER, 10, 4, 9, 13, RUNS, 1 << 40, 5), BODY),
    "append_without_entries": (AppendRequest(7, SENDER, 10, 4, 9, 10, (), 1 << 40, 6), None),
    "append_accepted": (AppendReply(7, SENDER, True, 13, 0, 0, 1 << 40, 5), None),
    "append_refused": (AppendReply(7, SENDER, False, 8, 9, 3, 1 << 40, 6), None),
    "pre_vote_request": (VoteRequest(8, SENDER, True, 13, 7), None),
    "vote_request": (VoteRequest(8, SENDER, False, 13, 7), None),
    "vote_request_of_a_transfer": (VoteRequest(8, SENDER, False, 13, 7, True), None),
    "vote_granted": (VoteReply(8, SENDER, False, True), None),
    "pre_vote_refused": (VoteReply(8, SENDER, True, False), None),
    "probe_request": (ProbeRequest(8, SENDER, 1 << 50), None),
    "probe_reply": (ProbeReply(8, SENDER, 1 << 50), None),
    "timeout_now": (TimeoutNow(8, SENDER), None),
    "repair_request": (RepairRequest(8, SENDER, 11, 13, 5), None),
    "repair_reply": (RepairReply(8, SENDER, 11, 13, 4, RUNS, True), BODY),
}
MEMBERSHIPS = {
    "membership": Membership(9, (ONE, TWO), (THREE,)),
    "membership_joint": Membership(9, (ONE, THREE), (), (ONE, TWO)),
    "membership_with_removed": Membership(9, (ONE, TWO), (), (), (3, 4)),
}
MARK = ScrubMark(0x1122334455667788, "table é", (1, "text", b"blob", None), 1 << 20)
MIRRORED = Mirrored(9, (1, 2), (3,))


def frame_of(data: bytes) -> Frame:
    frames: list[Frame] = []
    errors: list[ProtocolError] = []
    FrameReader(frames.append, lambda: None, errors.append, 1 << 24).feed(data)
    assert errors == []
    return frames[0]


def payload_of(record: bytes) -> bytes:
    assert check(record, 0, sealed=False) == OK
    return record[HEADER_SIZE : HEADER_SIZE + header(record, 0).payload_length]


def messages() -> dict[str, bytes]:
    made = {name: b"".join(wire.encode_message(one, 1, 0xABCD, body)) for name, (one, body) in MESSAGES.items()}
    request = wire.pack_request("db/manage", 1.5, {"key": [1, None, b"x"]})
    failure = wire.pack(NotLeader("ask node 3", leader_id=3).to_wire())
    made["request"] = b"".join(wire.encode_plain(FrameType.REQUEST, 0xABCD, 3, request, sequence=9))
    forward = FORWARD.pack(7, 1500 | TRIED_BEFORE, 9) + RECORD + FORWARD.pack(8, 2000, 9) + RECORD
    replies = REPLY.pack(7, 100, 5, ANSWERED) + b"bytes\0\0\0" + REPLY.pack(8, 0, len(failure), REFUSED) + failure
    made["forward"] = b"".join(wire.encode_plain(FrameType.FORWARD, 0xABCD, 3, forward, group=1))
    made["forward_reply"] = b"".join(
        wire.encode_plain(FrameType.FORWARD_REPLY, 0xABCD, 3, replies + bytes(-len(failure) % 8), group=1)
    )
    made["response"] = b"".join(wire.encode_plain(FrameType.RESPONSE, 0xABCD, 3, wire.pack([1, "é"]), sequence=9))
    made["failure"] = b"".join(
        wire.encode_plain(FrameType.RESPONSE, 0xABCD, 3, failure, sequence=9, flags=wire.FAILED)
    )
    return made


def entries() -> dict[str, bytes]:
    made = {name: encode_membership(one) for name, one in MEMBERSHIPS.items()}
    made["session"] = session_record.session_record(1024, 3_600_000_000_000, 86_400_000_000_000)
    made["mirror"] = MIRRORED.record()
    made["scrub_mark"] = MARK.record()
    return made


def told(folder: Path) -> Meta:
    """Everything that metadata can say, of both groups."""
    meta = Meta.open(folder, {"node_id": 3})
    meta.set_addresses([[1, 7, "one:1", "one:2"]])
    meta.begin_incarnation(0, 33, renounced=bytes(range(32)))
    meta.begin_incarnation(1, 44, in_memory=True, returns=True)
    meta.set_formed(0, b"c" * 32, (ONE, TWO, THREE))
    meta.set_hard_state(0, 7, TWO)
    meta.set_membership(0, MEMBERSHIPS["membership_with_removed"])
    meta.set_newest_segment(0, 5)
    meta.set_purge_point(0, 100, 6)
    meta.set_generation(0, "0123456789abcdef")
    meta.set_distrusted(0, "fedcba9876543210")
    meta.set_replaced(0)
    meta.set_joins(1, True)
    meta.set_token_mark(1, 1 << 20)
    meta.set_hard_state(1, 1, None)
    meta.set_membership(1, MEMBERSHIPS["membership_joint"])
    return meta


def metadata() -> dict[str, bytes]:
    """The stored bytes of each key."""
    with tempfile.TemporaryDirectory() as folder:
        told(Path(folder)).close()
        environment = meta_file.open_folder(Path(folder))
        try:
            with environment.begin() as transaction:
                return {bytes(key).decode(): bytes(value) for key, value in transaction.cursor()}
        finally:
            environment.close()


CASES: dict[str, Callable[[], dict[str, bytes]]] = {"messages": messages, "entries": entries, "metadata": metadata}


def kept(name: str) -> dict[str, bytes]:
    lines = (FOLDER / f"{name}.hex").read_text().splitlines()
    return {case: bytes.fromhex(body) for case, body in (line.split(" ") for line in lines)}


@pytest.mark.parametrize("name", CASES)
def test_the_bytes_written_are_the_golden_ones(name: str) -> None:
    assert CASES[name]() == kept(name)


def test_golden_messages_are_read() -> None:
    """As the values that they were made of."""
    golden = kept("messages")
    for name, (message, body) in MESSAGES.items():
        frame = frame_of(golden.pop(name))
        assert wire.decode_message(frame) == message, name
        assert frame.body == body or body is None, name
    assert wire.unpack_request(frame_of(golden.pop("request")).body) == ("db/manage", 1.5, {"key": [1, None, b"x"]})
    forward = split_forward(frame_of(golden.pop("forward")).body)
    assert forward == [(7, 1500 | TRIED_BEFORE, 9, RECORD), (8, 2000, 9, RECORD)]
    answered, refused = split_replies(frame_of(golden.pop("forward_reply")).body)
    assert answered == (7, 100, ANSWERED, b"bytes") and refused[:3] == (8, 0, REFUSED)
    assert isinstance(refusal(refused[3]), NotLeader)
    assert wire.unpack(frame_of(golden.pop("response")).body) == [1, "é"]
    failure = wire.unpack_failure(frame_of(golden.pop("failure")).body)
    assert isinstance(failure, NotLeader) and failure.leader_id == 3 and not golden


def test_golden_entries_are_read() -> None:
    golden = kept("entries")
    for name, membership in MEMBERSHIPS.items():
        found = decode_membership(golden[name])
        assert (found, found.removed) == (membership, membership.removed)
    session_record.check(golden["session"])
    assert ScrubMark.decode(payload_of(golden["scrub_mark"])) == MARK
    mirror = payload_of(golden["mirror"])
    assert Mirrored.decode(int.from_bytes(mirror[:INDEX_BYTES], "little"), mirror[INDEX_BYTES:]) == MIRRORED


def test_golden_metadata_are_read(tmp_path: Path) -> None:
    """A node that finds these bytes knows all that was said."""
    environment = meta_file.open_folder(tmp_path)
    with environment.begin(write=True) as transaction:
        for key, value in kept("metadata").items():
            transaction.put(key.encode(), value)
    environment.close()
    found, again = Meta.open(tmp_path), told(tmp_path / "again")
    try:
        for group in (0, 1):
            for name in ("incarnation", "in_memory", "returns", "renounced", "recorded_set", "hard_state", "membership",
                         "newest_segment", "purge_point", "generation", "distrusted", "replaced", "joins",
                         "token_mark"):  # fmt: skip
                assert getattr(found, name)(group) == getattr(again, name)(group), name
        assert (found.node_id, found.cluster_id) == (3, b"c" * 32)
        assert found.addresses() == [[1, 7, "one:1", "one:2"]]
    finally:
        found.close()
        again.close()


def write_all() -> None:
    for name, make in CASES.items():
        (FOLDER / f"{name}.hex").write_text("".join(f"{case} {body.hex()}\n" for case, body in make().items()))


if __name__ == "__main__":
    write_all()
