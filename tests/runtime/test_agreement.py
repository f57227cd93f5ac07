"""Which of the nodes holds the right state, by what they say."""

from __future__ import annotations

import pytest

from hiqlite._accel.records import HEADER_SIZE, EntryKind, header
from hiqlite.errors import ProtocolError
from hiqlite.runtime.agreement import Standing, States, judge
from hiqlite.runtime.scrub_record import Claims, Found, ScrubMark
from hiqlite.runtime.word import GroupWord, Word

THREE = (1, 2, 3)


@pytest.mark.parametrize(
    ("claims", "voters", "standing", "others"),
    [
        ({1: 7, 2: 7, 3: 7}, THREE, Standing.RIGHT, ()),
        ({1: 7, 2: 7}, THREE, Standing.RIGHT, ()),
        ({1: 7, 2: 7, 3: 8}, THREE, Standing.RIGHT, (3,)),
        ({1: 7, 2: 8, 3: 8}, THREE, Standing.WRONG, (2, 3)),
        ({1: 7, 2: 8, 3: 9}, THREE, Standing.SPLIT, (2, 3)),
        ({1: 7, 2: 8}, THREE, Standing.UNKNOWN, (2,)),
        ({1: 7}, THREE, Standing.UNKNOWN, ()),
        ({1: 7}, (1,), Standing.RIGHT, ()),
        ({1: 7, 2: 8}, (1, 2), Standing.SPLIT, (2,)),
        ({1: 7, 2: 7}, (1, 2), Standing.RIGHT, ()),
        ({1: 7, 2: 8, 3: 8}, (2, 3), Standing.WRONG, (2, 3)),  # a learner is judged, and judges nobody
        ({1: 7, 2: 8, 4: 8, 5: 8}, THREE, Standing.UNKNOWN, (2, 4, 5)),
        ({1: 7, 2: 8, 3: 8, 4: 7, 5: 7}, (1, 2, 3, 4, 5), Standing.RIGHT, (2, 3)),
        ({1: 7, 2: 7, 3: 8, 4: 8}, (1, 2, 3, 4), Standing.SPLIT, (3, 4)),
    ],
)
def test_a_majority_of_the_voters_is_right(
    claims: dict[int, int], voters: tuple[int, ...], standing: Standing, others: tuple[int, ...]
) -> None:
    found = judge(1, 5, claims, voters)
    assert (found.standing, found.others, found.index) == (standing, others, 5)
    assert all(str(one) in found.text for one in others)


def word(node: int, states: dict[int, int]) -> Word:
    return Word(node, 1, b"", {"db": GroupWord(1, states=tuple(states.items()))})


def test_states_are_compared_at_the_newest_entry_that_two_know() -> None:
    states = States(1, "db")
    own = {1024: 10, 2048: 20, 3072: 30}
    assert states.judge(own, THREE).standing is Standing.UNKNOWN
    states.hear(word(2, {1024: 10, 2048: 20}))
    assert (states.judge(own, THREE).standing, states.judge(own, THREE).index) == (Standing.RIGHT, 2048)
    states.hear(word(3, {2048: 21, 3072: 31}))
    found = states.judge(own, THREE)
    assert (found.standing, found.others, found.index) == (Standing.UNKNOWN, (3,), 3072)
    states.hear(word(2, {2048: 20, 3072: 31}))  # it was equal, and is not any more
    found = states.judge(own, THREE)
    assert (found.standing, found.others) == (Standing.WRONG, (2, 3))
    states.hear(word(2, {4096: 40}))  # what was said before counts no more
    assert states.judge(own, THREE).standing is Standing.UNKNOWN
    states.forget_all_but((1, 2))
    assert states.judge(own, THREE).others == ()


def test_a_node_of_an_earlier_release_says_nothing_of_its_state() -> None:
    wire = word(2, {1024: 10}).to_wire()
    assert Word.from_wire(2, wire) == word(2, {1024: 10})
    del wire["groups"]["db"]["states"], wire["build"]
    assert Word.from_wire(2, wire) == word(2, {})
    for states in (7, [[1]], [[1, -1]], [[1, 1]] * 65):
        wire["groups"]["db"]["states"] = states
        with pytest.raises(ProtocolError):
            Word.from_wire(2, wire)


def test_what_nodes_say_of_a_scrub_comes_back_as_it_was_and_nothing_else_is_taken() -> None:
    mark = ScrubMark(7, "t", (1, "a", b"x", None), 64)
    record = mark.record()
    assert header(record, 0).entry_kind == EntryKind.SCRUB_MARK
    assert ScrubMark.decode(record[HEADER_SIZE : HEADER_SIZE + header(record, 0).payload_length]) == mark
    for found in (Found(5, bytes(32)), Found(5, bytes(32), ("t", (1, "a")))):
        assert Found.from_wire(found.to_wire()) == found
    claims = Claims(5, {1: bytes(32), 2: bytes(32)}, THREE)
    assert Claims.from_wire(claims.to_wire()) == claims
    for payload in (b"", b"\xc1", b"\x93\x01\x02\x03", b"\x94\x01\xa0\x90\xff"):
        with pytest.raises(ProtocolError):
            ScrubMark.decode(payload)
    for wire in (None, {}, {"index": 1, "digest": b"", "end": None}, {"index": "1", "digest": bytes(32), "end": None}):
        with pytest.raises(ProtocolError):
            Found.from_wire(wire)
    for wire in (None, {"index": 1, "digests": [[1]], "voters": [1]}, {"index": 1, "digests": [], "voters": []}):
        with pytest.raises(ProtocolError):
            Claims.from_wire(wire)
