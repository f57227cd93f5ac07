"""Single values: what a person may write, and what is refused with the name of the key."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiqlite.config_values import KINDS, NodeAddress, convert, join_address, split_address
from hiqlite.errors import ConfigError

GOOD = [
    ("size", 4096, 4096), ("size", "64 MiB", 64 << 20), ("size", "64MiB", 64 << 20), ("size", "1.5 KiB", 1536),
    ("size", "2097152", 2097152), ("size", "1_000", 1000), ("size", "10 kB", 10_000), ("size", "1gb", 10**9),
    ("seconds", 5, 5.0), ("seconds", 0.25, 0.25), ("seconds", "500ms", 0.5), ("seconds", "10 s", 10.0),
    ("seconds", "1h", 3600.0), ("seconds", "30d", 2_592_000.0), ("seconds", "2.5", 2.5), ("seconds", "2 min", 120.0),
    ("switch", True, True), ("switch", "true", True), ("switch", " Off ", False), ("switch", "0", False),
    ("whole", "17", 17), ("whole", " 1_000 ", 1000), ("optional_whole", None, None), ("optional_whole", "", None),
    ("text", "x", "x"), ("text", Path("a/b"), "a/b"), ("optional_text", "", None), ("secret", "", None),
    ("names", ["a", "b"], ("a", "b")), ("names", "a, b", ("a", "b")), ("names", "\na\nb\n", ("a", "b")),
    ("log_statements", "params", "params"), ("log_statements", "true", True), ("log_statements", False, False),
    ("affinity", "auto", "auto"), ("affinity", "none", "none"), ("affinity", "0,2-3", (0, 2, 3)),
    ("affinity", [2, 0, 2], (0, 2)),
]  # fmt: skip
BAD = [
    ("size", "64 potatoes"), ("size", "-1"), ("size", -1), ("size", True), ("size", 1.5), ("size", "1.0001 B"),
    ("size", "1__"), ("size", "9" * 400), ("size", None), ("size", "٣"),
    ("seconds", "soon"), ("seconds", -0.1), ("seconds", float("nan")), ("seconds", float("inf")), ("seconds", True),
    ("seconds", "1e400"), ("seconds", []),
    ("switch", "maybe"), ("switch", 1), ("switch", None),
    ("whole", "1.5"), ("whole", -3), ("whole", True), ("whole", 2**63), ("whole", "9" * 5000), ("whole", None),
    ("text", ""), ("text", "  "), ("text", 3), ("text", None), ("secret", 5), ("secrets", 5), ("secrets", ["a", "a"]),
    ("names", ["a", "a"]), ("names", 3), ("names", [1]), ("names", {"a": 1}), ("names", b"ab"),
    ("nodes", "1 a:1"), ("nodes", [1]), ("nodes", 5), ("nodes", ["x a:1 b:1"]), ("log_statements", "some"),
    ("affinity", "fast"), ("affinity", []), ("affinity", "3-1"), ("affinity", "0-99999999"), ("affinity", "-1"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "given_", "expected"), GOOD)
def test_values_are_read_as_people_write_them(kind: str, given_: object, expected: object) -> None:
    """Numbers with units, lists by line or comma, switches in words."""
    found = convert(kind, "some_key", given_)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(("kind", "given_"), BAD)
def test_values_that_cannot_be_meant_are_refused(kind: str, given_: object) -> None:
    """One ConfigError that names the key (or, of a node, what is wrong with it)."""
    with pytest.raises(ConfigError) as caught:
        convert(kind, "some_key", given_)
    assert "some_key" in str(caught.value) or "node" in str(caught.value)


@pytest.mark.parametrize("kind", ["secret", "secrets"])
def test_the_message_about_a_wrong_secret_does_not_show_it(kind: str) -> None:
    """Logs are read by more people than secrets are."""
    with pytest.raises(ConfigError) as caught:
        convert(kind, "key", [["hunter2-hunter2"]])
    assert "hunter2" not in str(caught.value)


@given(
    st.sampled_from(sorted(KINDS)),
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.lists(st.text()),
)
def test_any_value_is_read_or_refused(kind: str, value: object) -> None:
    """Nothing but ConfigError comes out of nonsense, and what was read once reads as itself again."""
    try:
        found = convert(kind, "key", value)
    except ConfigError:
        return
    assert convert(kind, "key", found) == found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 node1:8100 node1:8200", NodeAddress(1, "node1", 8100, "node1", 8200)),
        ("  7   10.0.0.1:1\t[2001:db8::1]:65535 ", NodeAddress(7, "10.0.0.1", 1, "2001:db8::1", 65535)),
    ],
)
def test_nodes_are_read_with_any_white_space(text: str, expected: NodeAddress) -> None:
    """id, raft address, api address; IPv6 in brackets, and the text reads back as the same node."""
    node = NodeAddress.parse(text)
    assert node == expected
    assert NodeAddress.parse(str(node)) == node


@pytest.mark.parametrize(
    "text",
    ["", "1", "1 a:1 b:2 c:3", "0 a:1 b:2", "-1 a:1 b:2", "1 a b:2", "1 a:0 b:2", "1 a:65536 b:2", "1 :1 b:2",
     "1 a:x b:2", "1 ::1:8100 b:2", "1 []:1 b:2", "1 [a]b]:1 b:2", "1 a:1:2 b:2", "9223372036854775808 a:1 b:2"],
)  # fmt: skip
def test_a_node_that_cannot_be_reached_is_refused(text: str) -> None:
    """Each with a ConfigError; an IPv6 address without brackets is told how to write it."""
    with pytest.raises(ConfigError):
        NodeAddress.parse(text)


@given(st.from_regex(r"[a-z0-9.-]{1,20}|[0-9a-f]{0,4}::[0-9a-f]{1,4}", fullmatch=True), st.integers(1, 65535))
def test_addresses_survive_being_written(host: str, port: int) -> None:
    """join and split are each other's inverse, for names, IPv4 and IPv6."""
    assert split_address(join_address(host, port)) == (host, port)
