"""Where nodes are: the newest word counts, a node's own word above all, and all nodes come to the same."""

from __future__ import annotations

import random

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiqlite.errors import ProtocolError, UsageError
from hiqlite.runtime.addresses import (
    NODES_MAX,
    STAMP_MAX,
    Address,
    AddressBook,
    entries_from_wire,
    entries_to_wire,
    split_address,
)

CONFIG = {1: ("a:1", "a:2"), 2: ("b:1", "b:2")}


def test_the_config_counts_until_something_newer_is_heard() -> None:
    """What was heard is tried first, what the config says after that."""
    book = AddressBook(1, CONFIG)
    assert book.raft_targets(2) == (("b", 1),) and book.raft_targets(3) == ()
    assert book.hear({2: Address(1, "c:1", "c:2"), 3: Address(0, "[::1]:7", "")})
    assert book.raft_targets(2) == (("c", 1), ("b", 1)) and book.raft_targets(3) == (("::1", 7),)
    assert not book.hear({2: Address(0, "d:1", "d:2")})
    assert book.shown(2) == ("c:1", "c:2") and book.shown(3) == ("[::1]:7", "") and book.shown(9) == ("", "")


def test_a_node_prevails_about_itself() -> None:
    """Whatever others say of it, and after it lost its own memory."""
    others = AddressBook(2, CONFIG)
    others.hear({1: Address(40, "old:1", "old:2")})
    book = AddressBook(1, CONFIG)
    book.hear(others.entries)
    assert others.hear(book.entries) and others.raft_targets(1)[0] == ("a", 1)
    others.command(1, "wrong:1", "wrong:2")
    assert book.hear(others.entries)
    others.hear(book.entries)
    assert others.shown(1) == ("a:1", "a:2")


def test_a_node_that_moved_says_so_and_stays_where_it_is_otherwise() -> None:
    """Its word is newer than the one before, and no newer without need."""
    before = AddressBook(1, CONFIG).entries
    assert AddressBook(1, CONFIG, before).entries == before
    moved = AddressBook(1, {1: ("z:1", "z:2")}, before).entries
    assert moved[1].raft == "z:1" and moved[1].stamp > before[1].stamp


@given(st.lists(st.tuples(st.sampled_from("hc"), st.integers(1, 3), st.integers(1, 3)), max_size=30), st.randoms())
def test_all_come_to_the_same(steps: list[tuple[str, int, int]], chance: random.Random) -> None:
    """Commands anywhere, words in any order: at the end everybody knows the same, and of each what it says itself."""
    books = {
        number: AddressBook(number, {one: (f"{number}{one}:1", f"{number}{one}:2") for one in (1, 2, 3)})
        for number in (1, 2, 3)
    }
    for kind, one, other in steps:
        if kind == "c":
            books[one].command(other, f"c{chance.randint(1, 9)}:1", "")
        else:
            books[one].hear(books[other].entries)
    for _ in range(4):
        for one in books.values():
            for other in books.values():
                one.hear(other.entries)
    assert books[1].entries == books[2].entries == books[3].entries
    assert all(books[1].entries[number].raft == f"{number}{number}:1" for number in (1, 2, 3))


@pytest.mark.parametrize("text", ["a:1", "[::1]:65535", "10.0.0.1:8100"])
def test_addresses_are_read(text: str) -> None:
    """And come back from the wire."""
    split_address(text)
    entries = {4: Address(3, text, "")}
    assert entries_from_wire(msgpack.unpackb(msgpack.packb(entries_to_wire(entries)))) == entries


@pytest.mark.parametrize("text", ["", "a", "a:", ":1", "a:0", "a:65536", "::1:7", "a:x", "a:\u0661", 7, None, "[::1]"])
def test_what_is_no_address_is_refused(text: object) -> None:
    """By command and from a peer."""
    with pytest.raises(UsageError):
        AddressBook(1, CONFIG).command(2, text, "")  # type: ignore[arg-type]  # that is the point
    with pytest.raises(ProtocolError):
        entries_from_wire([[2, 1, text, ""]])


@pytest.mark.parametrize(
    "wire", [None, 7, {}, [7], [[]], [[1]], [[1, 1, "a:1"]], [[0, 1, "a:1", ""]], [["1", 1, "a:1", ""]],
             [[1, -1, "a:1", ""]], [[1, "1", "a:1", ""]], [[1, 1, "a:1", "b"]], [[1, 1, "a:1", "", 7]],
             [[[1], 1, "a:1", ""]], [[1, 1 << 62, "a:1", ""]]],
)  # fmt: skip
def test_what_is_no_list_of_addresses_is_refused(wire: object) -> None:
    """ProtocolError, whatever the shape."""
    with pytest.raises(ProtocolError):
        entries_from_wire(wire)


def test_what_peers_say_is_bounded_and_can_always_be_read_again() -> None:
    """Neither many ids nor a stamp at the end of its range make a book that the next start refuses."""
    book = AddressBook(1, CONFIG)
    for start in (10, 10_000):
        book.hear({number: Address(1, "c:1", "c:2") for number in range(start, start + NODES_MAX)})
    book.hear({1: Address(STAMP_MAX - 1, "elsewhere:1", "elsewhere:2"), 2: Address(STAMP_MAX - 1, "d:1", "d:2")})
    assert book.command(2, "e:1", "e:2")
    assert len(book.entries) <= NODES_MAX
    assert entries_from_wire(entries_to_wire(book.entries)) == book.entries
    assert book.shown(1) == CONFIG[1]
