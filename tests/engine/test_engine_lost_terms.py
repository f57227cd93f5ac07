"""Entries of which even the term is lost: what the log says of them is a bound, and nothing may be built on it."""

from __future__ import annotations

import pytest

from hiqlite.engine.model import AppendReply, Membership
from tests.engine.engine_group import Alone, append, fresh, identities, log_of, messages

ONE, TWO, THREE = identities(3)
MEMBERS = Membership(0, (ONE, TWO, THREE))


def test_a_log_never_begins_behind_an_entry_of_lost_term() -> None:
    """Its term would be the bound, 3 here, and the leader's entry of term 1 would look like a broken promise."""
    node = Alone(fresh(MEMBERS, term=3, runs=log_of((3, 1, 4)), unknown=((1, 2),), applied_index=4, applied_term=3))
    assert node.raft.purge_limit == 0
    with pytest.raises(AssertionError):
        node.raft.purged(2)
    node.raft.purged(3)
    assert node.raft.base_index == 3
    assert node.raft.faulty == ()


def test_a_lost_tail_longer_than_the_leaders_log_is_replaced_as_the_leader_writes() -> None:
    """Its bound may be the leader's own term, so it cannot be told from what the leader sent; only new entries can."""
    node = Alone(fresh(MEMBERS, term=3, runs=log_of((1, 1, 1), (3, 2, 5)), unknown=((2, 5),)))
    node.receive(append(3, TWO, (1, 1), (3, 2, 3)))
    node.sync()
    assert node.raft.faulty == ((4, 5),)
    node.receive(append(3, TWO, (3, 3), (3, 4, 6), sequence=2))
    taken = node.sync()
    assert node.raft.faulty == ()
    assert node.raft.last_index == 6
    replies = [reply for reply in messages(taken, AppendReply) if isinstance(reply, AppendReply)]
    assert [reply.match_index for reply in replies] == [6]


def test_an_image_in_the_middle_of_damaged_entries_leaves_the_rest_of_them_damaged() -> None:
    """The database holds what lies up to the image's index; what is damaged behind it still is, and is not applied."""
    node = Alone(fresh(MEMBERS, term=1, runs=log_of((1, 1, 5)), faulty=((2, 4),), applied_index=1, applied_term=1))
    node.receive(append(1, TWO, (5, 1), commit=5))
    node.sync()
    assert node.raft.begin_install(3, node.now)
    node.raft.installed(3, 1, MEMBERS, node.now)
    taken = node.sync()
    assert node.raft.faulty == ((4, 4),)
    assert [ready.apply for ready in taken if ready.apply] == []
