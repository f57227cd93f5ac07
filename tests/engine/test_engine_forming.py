"""Forming in any order, with any loss: one cluster or a reason (semantics.md section 10)."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hiqlite.engine.forming import Forming, Greeting, Step
from hiqlite.engine.model import Identity

NODES = (1, 2, 3)


def who(number: int, life: int = 0) -> Identity:
    return Identity(number, 100 * number + life)


def carry_out(forming: Forming, fully: bool = True) -> Step:
    """Do what it says, as the driver does: durable first, then told."""
    while (step := forming.step()) in (Step.RECORD, Step.FORM):
        if step is Step.RECORD:
            forming.has_recorded(forming.proposal)
        else:
            forming.has_formed()
        if not fully:
            break
    return step


def test_a_single_node_forms_by_itself() -> None:
    forming = Forming(who(1), [1])
    assert carry_out(forming) is Step.DONE and forming.recorded == (who(1),)


def test_three_nodes_form_one_set_and_say_whom_they_wait_for() -> None:
    nodes = {number: Forming(who(number), NODES) for number in NODES}
    nodes[1].hear(nodes[2].greeting())
    assert carry_out(nodes[1]) is Step.WAIT and "node 3" in nodes[1].reason
    for _ in range(3):
        for one in nodes.values():
            for other in nodes.values():
                one.hear(other.greeting())
            carry_out(one)
    assert {one.recorded for one in nodes.values()} == {(who(1), who(2), who(3))}
    assert all(one.formed for one in nodes.values())


def test_nobody_acts_before_every_member_recorded_the_set() -> None:
    """A member that loses its disk before it recorded would otherwise be counted for a set it never knew."""
    one = Forming(who(1), NODES)
    for number in (2, 3):
        one.hear(Greeting(who(number), NODES))
    assert carry_out(one) is Step.WAIT and one.recorded is not None and not one.formed
    assert "agree" in one.reason
    one.hear(Greeting(who(2), NODES, one.recorded))
    one.hear(Greeting(who(3, life=1), NODES))
    assert carry_out(one) is Step.WAIT, "the incarnation that was named is gone"


def test_voter_lists_that_differ_are_printed_both() -> None:
    one = Forming(who(1), NODES)
    one.hear(Greeting(who(2), (1, 2, 3, 4)))
    one.hear(Greeting(who(3), NODES))
    assert carry_out(one) is Step.WAIT
    assert "(1, 2, 3)" in one.reason and "(1, 2, 3, 4)" in one.reason


def test_a_fresh_node_follows_a_formed_set_that_names_it() -> None:
    recorded = (who(1), who(2), who(3))
    three = Forming(who(3), NODES)
    three.hear(Greeting(who(1), NODES, recorded, True))
    assert carry_out(three) is Step.DONE and three.recorded == recorded


def test_a_fresh_node_never_forms_beside_a_cluster_that_does_not_name_it() -> None:
    """M20: its new incarnation joins by command, it does not found a second cluster."""
    recorded = (who(1), who(2), who(3))
    three = Forming(who(3, life=1), NODES)
    three.hear(Greeting(who(1), NODES, recorded, True))
    three.hear(Greeting(who(2), NODES, recorded, True))
    assert carry_out(three) is Step.WAIT and three.recorded is None


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32))
def test_at_most_one_set_ever_acts(seed: int) -> None:
    """Any order, loss and delay of greetings, restarts, and disks lost before forming: all that act agree.

    A wiped node is a new incarnation. Not all of a set's disks are lost: then nothing is left to contradict.
    """
    random = Random(seed)
    lives = dict.fromkeys(NODES, 0)
    nodes = {number: Forming(who(number), NODES) for number in NODES}
    old: list[Greeting] = []
    acted: set[tuple[Identity, ...]] = set()
    wiped: set[int] = set()
    for _ in range(random.randrange(10, 80)):
        number = random.choice(NODES)
        dice = random.random()
        if dice < 0.06 and len(wiped | {number}) < len(NODES):
            wiped.add(number)
            lives[number] += 1
            nodes[number] = Forming(who(number, lives[number]), NODES)
        elif dice < 0.16:
            known = nodes[number]
            nodes[number] = Forming(known.own, NODES, recorded=known.recorded, formed=known.formed)
        elif dice < 0.6:
            old.append(nodes[random.choice(NODES)].greeting())
            nodes[number].hear(random.choice(old) if random.random() < 0.4 else old[-1])
        else:
            carry_out(nodes[number], fully=random.random() < 0.5)
        for one in nodes.values():
            if one.formed:
                assert one.recorded is not None
                acted.add(one.recorded)
    assert len(acted) <= 1


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2), (2, 3, 1)])
def test_without_a_fault_any_order_of_starts_forms(order: tuple[int, ...]) -> None:
    nodes: dict[int, Forming] = {}
    for number in order:
        nodes[number] = Forming(who(number), NODES)
        for _ in range(4):
            for one in nodes.values():
                for other in nodes.values():
                    one.hear(other.greeting())
                carry_out(one)
    assert all(one.formed for one in nodes.values())
