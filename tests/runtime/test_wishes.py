"""Wishes about members: followed step by step they are fulfilled, and then they ask for nothing."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiqlite.engine.change import following, leaving_joint, members_of
from hiqlite.engine.model import Identity, Membership
from hiqlite.errors import Overloaded, ProtocolError, UsageError
from hiqlite.runtime.wishes import Wish, WishKind, next_change

ONE, TWO, THREE, FOUR = (Identity(number, 10 + number) for number in range(1, 5))
AGAIN = Identity(3, 99)
IDS = st.integers(1, 6)


@st.composite
def memberships(draw: st.DrawFn) -> Membership:
    """Some vote, some learn, some were removed; some learn in an incarnation beside the one that votes."""
    voters = draw(st.lists(IDS, min_size=1, max_size=5, unique=True))
    learners = draw(st.lists(IDS, max_size=4, unique=True))
    removed = draw(st.sets(IDS)) - {*voters, *learners}
    return Membership(
        7, tuple(Identity(one, 10 + one) for one in voters),
        tuple(Identity(one, 20 + one) for one in learners), (), tuple(sorted(removed)),
    )  # fmt: skip


@st.composite
def wishes(draw: st.DrawFn) -> Wish:
    kind = draw(st.sampled_from(WishKind))
    count = {WishKind.REPLACE: 2, WishKind.SET_VOTERS: draw(st.integers(1, 4))}.get(kind, 1)
    return Wish(kind, tuple(draw(st.lists(IDS, min_size=count, max_size=count, unique=True))))


def lives(members: Membership) -> dict[int, int]:
    """The newest incarnation of each; nodes that are no members live too."""
    known = {number: 30 + number for number in range(1, 7)}
    known |= {one.id: one.incarnation for one in (*members.voters, *members.learners)}
    return known


def roles(members: Membership) -> tuple[set[int], set[int]]:
    return {one.id for one in members.voters}, {one.id for one in members.learners}


@given(memberships(), wishes())
def test_a_wish_ends_in_what_it_says(members: Membership, wish: Wish) -> None:
    """Or is refused before its first step; nobody else's role changes."""
    before, life_of = members, lives(members)
    for steps in range(8):
        try:
            change = next_change(members, wish, life_of.__getitem__)
        except UsageError:
            assert steps == 0, "a wish that began is never refused in the middle"
            return
        if change is None:
            break
        try:
            members = following(members, change, members.index + 1)
        except UsageError:
            assert len(before.voters) == 1 or steps == 0
            return
        members = leaving_joint(members, members.index + 1) if members.joint else members
    else:
        raise AssertionError("it never ends")
    voters, learners = roles(members)
    one = wish.ids[0]
    match wish.kind:
        case WishKind.ADD_LEARNER | WishKind.LEARN:
            assert one in voters | learners
        case WishKind.PROMOTE | WishKind.JOIN:
            assert one in voters and one not in learners
        case WishKind.DEMOTE | WishKind.JOIN_AS_LEARNER:
            assert one in learners and one not in voters
        case WishKind.REMOVE:
            assert one not in voters | learners and one in members.removed
        case WishKind.REPLACE:
            assert one not in voters | learners and wish.ids[1] in voters | learners
            if one in roles(before)[0]:
                assert wish.ids[1] in voters
        case WishKind.SET_VOTERS:
            assert voters == set(wish.ids)
    for other in {number for set_ in roles(before) for number in set_} - set(wish.ids):
        if wish.kind is not WishKind.SET_VOTERS or other in roles(before)[1] - roles(before)[0]:
            assert [other in part for part in roles(members)] == [other in part for part in roles(before)]


@given(memberships(), wishes())
def test_who_was_removed_is_remembered_until_it_comes_back(members: Membership, wish: Wish) -> None:
    """After every step, also in the middle of a joint one; nobody is a member and removed at once."""
    ever = {one.id for one in members_of(members)} | set(members.removed)
    for _ in range(8):
        try:
            change = next_change(members, wish, lives(members).__getitem__)
            if change is None:
                break
            members = following(members, change, members.index + 1)
        except UsageError:
            break
        for _ in range(2):
            now = {one.id for one in members_of(members)}
            ever |= now
            assert set(members.removed) == ever - now
            members = leaving_joint(members, members.index + 1) if members.joint else members


def test_a_node_that_was_removed_does_not_join_by_itself() -> None:
    """A command brings it back."""
    members = Membership(4, (ONE, TWO), removed=(3,))
    for kind in (WishKind.LEARN, WishKind.JOIN, WishKind.JOIN_AS_LEARNER):
        with pytest.raises(UsageError, match="node 3 was removed"):
            next_change(members, Wish(kind, (3,)), lambda number: 13)
    change = next_change(members, Wish(WishKind.ADD_LEARNER, (3,)), lambda number: 13)
    assert change is not None
    assert following(members, change, 5).removed == ()


def test_an_incarnation_that_came_back_takes_the_place_of_the_one_before() -> None:
    """It learns first; one that never votes takes the old one's vote away."""
    members = Membership(4, (ONE, TWO, THREE))
    learning = following(members, next_change(members, Wish(WishKind.LEARN, (3,)), lambda number: 99), 5)  # type: ignore[arg-type]  # None fails the test
    assert roles(learning) == ({1, 2, 3}, {3})
    for kind, voters in ((WishKind.JOIN, (ONE, TWO, AGAIN)), (WishKind.JOIN_AS_LEARNER, (ONE, TWO))):
        change = next_change(learning, Wish(kind, (3,)), lambda number: 99)
        assert change is not None
        assert following(learning, change, 6).voters == voters


def test_what_was_not_heard_of_is_waited_for() -> None:
    """A joint configuration too."""
    with pytest.raises(Overloaded, match="node 4 has not been reached"):
        next_change(Membership(4, (ONE,)), Wish(WishKind.ADD_LEARNER, (4,)), lambda number: 0)
    with pytest.raises(Overloaded, match="node 4 has not been reached: nobody there"):
        wish = Wish(WishKind.REPLACE, (1, 4))
        next_change(Membership(4, (ONE,)), wish, lambda number: 0, lambda number: "nobody there")
    with pytest.raises(Overloaded, match="not through"):
        next_change(Membership(4, (ONE,), (), (ONE, TWO)), Wish(WishKind.REMOVE, (2,)), lambda number: 0)


@given(wishes())
def test_a_wish_comes_back_from_the_wire(wish: Wish) -> None:
    """As it was."""
    assert Wish.from_wire(msgpack.unpackb(msgpack.packb(wish.to_wire()))) == wish


@pytest.mark.parametrize(
    "wire", [None, 7, [], ["promote"], ["promote", 7], ["promote", []], ["promote", [1, 2]], ["what", [1]],
             ["promote", ["1"]], ["promote", [0]], ["promote", [1 << 63]], ["set_voters", [1, 1]], [["promote"], [1]],
             ["set_voters", list(range(1, 400))], ["promote", [True]], ["promote", [[1]]]],
)  # fmt: skip
def test_what_is_no_wish_is_refused(wire: object) -> None:
    """ProtocolError, whatever the shape."""
    with pytest.raises(ProtocolError):
        Wish.from_wire(wire)
