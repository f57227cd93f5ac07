"""Configurations as entries: what was meant comes back, and bytes that are none are refused."""

from __future__ import annotations

import contextlib

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiqlite._accel.records import encode_record, scan
from hiqlite.engine.model import Identity, Membership
from hiqlite.errors import ProtocolError
from hiqlite.runtime.membership_record import decode_membership, encode_membership, memberships_in
from hiqlite.runtime.opening import own_record

identities = st.builds(Identity, st.integers(1, 2**63 - 1), st.integers(0, 2**64 - 1))
sets = st.lists(identities, max_size=7, unique=True).map(tuple)
removed = st.lists(st.integers(1, 2**63 - 1), max_size=5, unique=True).map(tuple)
memberships = st.builds(Membership, st.integers(0, 2**62), sets.filter(bool), sets, sets, removed)


@given(memberships)
def test_a_configuration_comes_back(membership: Membership) -> None:
    """Alone, and as a record among others."""
    found = decode_membership(encode_membership(membership))
    assert (found, found.removed) == (membership, membership.removed)
    assert len(msgpack.unpackb(encode_membership(membership))) == 4 + bool(membership.removed)
    record = own_record(3, membership.index, membership, 5, 6, 7)
    assert scan(record, membership.index) == [(3, membership.index, membership.index)]
    other = encode_record(1, 1, b"payload", 3, membership.index + 1)
    assert memberships_in(record + other) == (membership,)
    assert memberships_in(other) == ()


@pytest.mark.parametrize(
    "value",
    [
        None, 7, [], [1], [1, [], [], []], [1, [[1, 1], [1, 1]], [], []], [-1, [[1, 1]], [], []], [1, [[0, 1]], [], []],
        [1, [[1, -1]], [], []], ["1", [[1, 1]], [], []], [1, [["1", 1]], [], []], [1, [[1]], [], []], [1, [1], [], []],
        [1, [[1, 1]], []], [1, [[1, 1]], [], [], []], [1, [[1, 2, 3]], [], []], [2**63, [[1, 1]], [], []],
        [1, [[n, 1] for n in range(1, 300)], [], []], [1, {"a": 1}, [], []], [1, [[1, 1]], [], [], [0]],
        [1, [[1, 1]], [], [], [2, 2]], [1, [[1, 1]], [], [], ["2"]], [1, [[1, 1]], [], [], 7],
        [1, [[1, 1]], [], [], [2], []],
        [1, [[1, 1]], [], [], [[2, 1]]], [1, [[1, 1]], [], [], list(range(1, 5000))],
    ],
)  # fmt: skip
def test_what_is_no_configuration_is_refused(value: object) -> None:
    """ProtocolError, whatever the shape."""
    with pytest.raises(ProtocolError):
        decode_membership(msgpack.packb(value))


@given(st.binary(max_size=40))
def test_random_bytes_are_refused_or_read(data: bytes) -> None:
    """Never another error."""
    with contextlib.suppress(ProtocolError):
        decode_membership(data)


def test_an_entry_that_names_another_index_is_refused() -> None:
    """Its place is its index; nothing else may be believed."""
    payload = encode_membership(Membership(4, (Identity(1, 1),)))
    with pytest.raises(ProtocolError):
        memberships_in(encode_record(1, 3, payload, 1, 5))
