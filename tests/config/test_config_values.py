"""Single values: what a person may write, and what is refused with the name of the key."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiqlite.config_kinds import KINDS, convert
from hiqlite.config_values import NodeAddress, join_address, split_address
from hiqlite.errors import ConfigError

KEY_BYTES = base64.b64encode(bytes(range(32))).decode()
KEY, OTHER_KEY = f"first_1/{KEY_BYTES}", f"second-2/{KEY_BYTES}"
WRAPPED_KEYS = base64.b64encode(f"{KEY}\n{OTHER_KEY}\n".encode()).decode()
PASSWORD_HASH = base64.b64encode(b"$argon2id$v=19$m=32,t=2,p=1$c2FsdHNhbHQ$aGFzaGhhc2g").decode()
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
    ("affinity", [2, 0, 2], (0, 2)), ("host", "[::1]", "::1"), ("host", " n1.local ", "n1.local"), ("host", "::", "::"),
    ("url", "https://s3.example.com/x", "https://s3.example.com/x"), ("url", "", None), ("url", None, None),
    ("backup_source", "s3:a.sqlite", "s3:a.sqlite"), ("backup_source", "file:a b", "file:a b"),
    ("cron", "0 30 2 * * * *", "0 30 2 * * * *"),
    ("cron", "0 0 1-5/2,8 ? Jan-Mar mon,FRI", "0 0 1-5/2,8 ? Jan-Mar mon,FRI"),
    ("cron", "*/10 * * 31 12 7 2030", "*/10 * * 31 12 7 2030"), ("cron", "@daily", "@daily"),
    ("encryption_keys", [KEY, OTHER_KEY], (KEY, OTHER_KEY)),
    ("encryption_keys", f"\n{KEY}\n{OTHER_KEY}\n", (KEY, OTHER_KEY)),
    ("encryption_keys", WRAPPED_KEYS, (KEY, OTHER_KEY)), ("encryption_keys", [KEY.rstrip("=")], (KEY.rstrip("="),)),
    ("encryption_keys", [], ()), ("encryption_keys", "", ()),
    ("password_hash", PASSWORD_HASH, PASSWORD_HASH), ("password_hash", "", None), ("password_hash", None, None),
]  # fmt: skip
BAD = [
    ("size", "64 potatoes"), ("size", "-1"), ("size", -1), ("size", True), ("size", 1.5), ("size", "1.0001 B"),
    ("size", "1__"), ("size", "9" * 400), ("size", None), ("size", "٣"),
    ("seconds", "soon"), ("seconds", -0.1), ("seconds", float("nan")), ("seconds", float("inf")), ("seconds", True),
    ("seconds", "1e400"), ("seconds", []),
    ("switch", "maybe"), ("switch", 1), ("switch", None),
    ("whole", "1.5"), ("whole", -3), ("whole", True), ("whole", 2**63), ("whole", "9" * 5000), ("whole", None),
    ("text", ""), ("text", "  "), ("text", 3), ("text", None), ("secret", 5), ("host", ""), ("host", 7),
    ("url", "s3.example.com"), ("url", "ftp://x"), ("url", "https://"), ("url", "https://a b"), ("url", 5),
    ("backup_source", "x"), ("backup_source", "s3:"), ("backup_source", 5),
    ("cron", "* * * * *"), ("cron", "60 * * * * *"), ("cron", "0 0 24 * * *"), ("cron", "0 0 0 0 * *"),
    ("cron", "0 0 0 * 13 *"), ("cron", "0 0 0 * * 0"), ("cron", "0 0 5-1 * * *"), ("cron", "0 */0 * * * *"),
    ("cron", "0 0 0 mon * *"), ("cron", "a b c d e f"), ("cron", "0 0 0 * * * 1800"), ("cron", "@noon"), ("cron", ""),
    ("encryption_keys", [KEY, KEY]), ("encryption_keys", ["a/c2VjcmV0"]), ("encryption_keys", [f"x/{KEY_BYTES}"]),
    ("encryption_keys", ["toolongforanidentifier/" + KEY_BYTES]), ("encryption_keys", [KEY_BYTES]),
    ("encryption_keys", ["ab/"]), ("encryption_keys", [5]), ("encryption_keys", 5), ("encryption_keys", None),
    ("encryption_keys", {"a": 1}), ("encryption_keys", ["w6TDtsO8"]),
    ("password_hash", "123SuperMegaSafe"), ("password_hash", "aGVsbG8="), ("password_hash", 5),
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
    assert caught.value.key == "some_key" and caught.value.hint


@pytest.mark.parametrize("kind", ["size", "seconds", "whole", "text", "switch"])
def test_a_number_with_thousands_of_digits_is_refused_like_any_other(kind: str) -> None:
    """Python does not write it out, so the message cannot either."""
    with pytest.raises(ConfigError, match="some_key = a number with thousands of digits"):
        convert(kind, "some_key", 10**5000)


@pytest.mark.parametrize("kind", ["secret", "encryption_keys", "password_hash"])
@pytest.mark.parametrize("value", [["hunter2", "hunter2"], [["hunter2"]], {"hunter2": "hunter2"}, ("ab/hunter2",)])
def test_the_message_about_a_wrong_secret_does_not_show_it(kind: str, value: object) -> None:
    """Logs are read by more people than secrets are; nor do the errors below it hold it."""
    with pytest.raises(ConfigError) as caught:
        convert(kind, "key", value)
    error: BaseException | None = caught.value
    while error is not None:
        assert "hunter2" not in str(error)
        error = error.__context__


def test_the_message_about_an_address_with_a_password_does_not_show_it() -> None:
    """A user and a password in front of a host are refused: keys of their own are for them."""
    with pytest.raises(ConfigError, match="s3_key") as caught:
        convert("url", "s3_url", "https://me:hunter2@s3.example.com")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("kind", ["text", "names", "nodes", "size", "affinity"])
def test_a_message_shows_only_the_beginning_of_a_long_value(kind: str) -> None:
    """One line stays one line."""
    with pytest.raises(ConfigError) as caught:
        convert(kind, "key", ["x" * 100_000, "x" * 100_000] if kind != "nodes" else "x" * 100_000)
    assert len(str(caught.value)) < 300


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
     "1 a:x b:2", "1 ::1:8100 b:2", "1 http://a:1 b:2", "1 a:1 https://b:2",
     "1 []:1 b:2", "1 [a]b]:1 b:2", "1 a:1:2 b:2", "9223372036854775808 a:1 b:2"],
)  # fmt: skip
def test_a_node_that_cannot_be_reached_is_refused(text: str) -> None:
    """Each with a ConfigError; an IPv6 address without brackets is told how to write it."""
    with pytest.raises(ConfigError):
        NodeAddress.parse(text)


@given(st.from_regex(r"[a-z0-9.-]{1,20}|[0-9a-f]{0,4}::[0-9a-f]{1,4}", fullmatch=True), st.integers(1, 65535))
def test_addresses_survive_being_written(host: str, port: int) -> None:
    """join and split are each other's inverse, for names, IPv4 and IPv6."""
    assert split_address(join_address(host, port)) == (host, port)
