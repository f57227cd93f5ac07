"""The checker on two groups, their members, leaders and indexes: right histories pass, wrong ones are found."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from hiqlite.engine.model import Change, ChangeKind, Membership
from hiqlite.logstore.folder import GROUP_NAMES
from hiqlite.testing import cluster
from tests.chaos.operations import NEVER, NOT_APPLIED, OK, UNKNOWN, Belief, Operation, read_record
from tests.chaos.two_groups import NotFollowed, View, check_followed, disagreements
from tests.chaos.verdict import ANEW, judge, judge_beliefs
from tests.cluster.agreement import eventually

EVERYBODY = ((1, 10), (2, 20), (3, 30))


def take(index: int | None, invoked: int, returned: int, outcome: str = OK) -> Operation:
    end = NEVER if outcome == UNKNOWN else returned
    return Operation("token", "cache", "take", (), index, invoked, end, outcome)


def become(role: str, invoked: int, returned: int, outcome: str = OK) -> Operation:
    """A change of one node's role."""
    before = "learner" if role == "voter" else "voter"
    end = NEVER if outcome == UNKNOWN else returned
    return Operation("role", "1", "cas", (before, role), True if outcome == OK else None, invoked, end, outcome)


def is_a(role: str, invoked: int, returned: int) -> Operation:
    return Operation("role", "1", "read", (), role, invoked, returned)


RIGHT = {
    "ascending indexes": [take(1, 0, 1), take(3, 2, 3), take(9, 4, 5)],
    "indexes at once, in any order": [take(7, 0, 9), take(3, 0, 9), take(5, 1, 8)],
    "an index that was never told": [take(1, 0, 1), take(None, 2, 3, UNKNOWN), take(5, 4, 5)],
    "no change of members": [is_a("voter", 0, 1)],
    "there and back": [become("learner", 0, 1), become("voter", 2, 3), become("learner", 4, 5), is_a("learner", 6, 7)],
    "an unknown change that happened": [become("learner", 0, 1, UNKNOWN), is_a("learner", 2, 3)],
    "an unknown change that did not happen": [become("learner", 0, 1, UNKNOWN), is_a("voter", 2, 3)],
    "an unknown change that must have happened": [become("learner", 0, 1, UNKNOWN), become("voter", 2, 3)],
    "a change that was refused": [become("learner", 0, 1, NOT_APPLIED), is_a("voter", 2, 3)],
}

WRONG = {
    "an index that goes back": [take(4, 0, 1), take(3, 2, 3)],
    "an index that goes back behind two others": [take(1, 0, 1), take(9, 0, 2), take(10, 0, 90), take(5, 3, 4)],
    "an index that was given twice": [take(4, 0, 9), take(4, 0, 9)],
    "an index that was given twice, one after the other": [take(4, 0, 1), take(4, 2, 3)],
    "a lost change of members": [become("learner", 0, 1), is_a("voter", 2, 3)],
    "a change that was refused and happened": [become("learner", 0, 1, NOT_APPLIED), is_a("learner", 2, 3)],
    "a change of members that nobody made": [is_a("learner", 0, 1)],
    "a change that was made twice": [become("learner", 0, 1), become("learner", 2, 3)],
    "an unknown change that happened twice": [
        become("learner", 0, 1, UNKNOWN), become("voter", 2, 3), is_a("learner", 4, 5),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_history_of_groups_is_accepted(name: str) -> None:
    """Each of these has an order."""
    assert [str(violation) for violation in judge(RIGHT[name])] == []


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_history_of_groups_is_refused(name: str) -> None:
    """None of these has one; exactly one violation is found, and it names operations."""
    (violation,) = judge(WRONG[name])
    assert violation.operations
    assert "not decided" not in violation.text


def test_each_group_has_leaders_of_its_own() -> None:
    """Terms of different groups have nothing to do with each other; two leaders of one term of one group are found."""
    right = [Belief(1, 1, 1, 3, 1, "leader"), Belief(2, 2, 2, 3, 2, "leader", "cache", 50)]
    assert judge_beliefs(right) == []
    (violation,) = judge_beliefs([*right, Belief(3, 3, 3, 3, 3, "leader", "cache", 60)])
    assert violation.text == "cache: term 3 had two leaders, 2 and 3"


def test_a_group_that_began_anew_counts_its_terms_anew() -> None:
    """It is another group then, and another one may lead it in the same term; but only one."""
    right = [Belief(1, 1, 1, 3, 1, "leader", "cache", 50), Belief(2, 2, 2, 3, 2, "leader", "cache", 50 + 2 * ANEW)]
    assert judge_beliefs(right) == []
    assert len(judge_beliefs([*right, Belief(3, 3, 3, 3, 3, "leader", "cache", 60 + 2 * ANEW)])) == 1


def views() -> list[View]:
    """Three nodes that may end like this: node 1 leads the database's group, node 2 the cache group."""
    found = []
    for group, leader, index in (("db", 1, 40), ("cache", 2, 70)):
        told = 40 if group == "cache" else 0
        shift = 1000 if group == "cache" else 0  # incarnations are per group
        members = tuple((number, life + shift) for number, life in EVERYBODY)
        for number, life in members:
            role = "leader" if number == leader else "learner" if number == 3 else "follower"
            found.append(View(number, group, life, role, 5, leader, index, members[:2], members[2:], (), told))
    return found


def test_groups_that_agree_are_accepted() -> None:
    """Also after their way through JSON."""
    assert disagreements(views()) == []
    assert [View.from_dict(json.loads(json.dumps(view.as_dict()))) for view in views()] == views()


@pytest.mark.parametrize("group", ["db", "cache"])
@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"role": "follower", "node": 0}, "lead"),
        ({"role": "leader"}, "lead"),
        ({"term": 6}, "believe"),
        ({"leader": 0}, "believe"),
        ({"trouble": "the disk is full"}, "the disk is full"),
        ({"role": "forming"}, "is not in it"),
        ({"voters": ((1, 10),)}, "different members"),
        ({"learners": ()}, "different members"),
        ({"outgoing": ((3, 30),)}, "different members"),
        ({"index": 41}, "different members"),
        ({"life": 31}, "live as"),
    ],
)
def test_one_node_that_sees_something_else_is_found(group: str, changed: dict[str, object], said: str) -> None:
    """The leader (node 0 stands for it here) or the node that follows."""
    told = views()
    role = "leader" if "node" in changed else "learner"
    at = next(at for at, view in enumerate(told) if view.group == group and view.role == role)
    told[at] = replace(told[at], **{name: value for name, value in changed.items() if name != "node"})
    assert any(said in text for text in disagreements(told)), disagreements(told)


def everywhere(group: str, **changed: object) -> list[View]:
    """All nodes agree on something else in one group."""
    return [replace(view, **changed) if view.group == group else view for view in views()]


def test_groups_with_different_members_are_found() -> None:
    """Though each of them agrees with itself: a role, a change that did not end, a list that was not told."""
    life = {number: incarnation + 1000 for number, incarnation in EVERYBODY}
    all_vote = everywhere("cache", voters=tuple(life.items()), learners=())
    assert any("the members of db are" in text for text in disagreements(all_vote))
    joint = everywhere("cache", outgoing=((1, 1010), (2, 1020), (3, 1030)))
    assert any("has not ended" in text for text in disagreements(joint))
    untold = everywhere("cache", told=39)
    assert any("was told 39" in text for text in disagreements(untold))
    without = everywhere("cache", learners=())
    assert any("live as" in text for text in disagreements(without))


async def test_a_change_that_the_cache_group_has_not_followed_is_found() -> None:
    """On real nodes: made in the database's group alone it is not told yet; made in both it is."""
    async with cluster(3) as three:
        leader = three._running[three.leader]
        one, other = (three._running[number].group.identity for number in three.followers)
        changed = await leader.change_members(Change(ChangeKind.DEMOTE, (one,)), 20.0)
        check_followed(leader, changed)
        ahead = Membership(changed.index + 1, changed.voters, changed.learners)
        with pytest.raises(NotFollowed):
            check_followed(leader, ahead)
        with pytest.raises(NotFollowed):  # told, and not done
            check_followed(leader, Membership(changed.index, changed.voters[:1], (*changed.learners, other)))


async def test_real_nodes_come_to_agree_and_one_that_is_gone_is_missed() -> None:
    """What they tell is what is judged; of a group that nobody leads any more it is said."""
    async with cluster(3) as three:

        def told() -> list[View]:
            return [View.of(node, number) for node in three._running.values() for number in node.groups]

        async def agreed() -> bool:
            return disagreements(told()) == []

        await eventually(agreed)
        assert {view.group for view in told()} == set(GROUP_NAMES)
        await three.kill(three.leader)
        assert disagreements(told()) != []


def test_beliefs_and_changes_are_read_from_a_record(tmp_path: Path) -> None:
    """Of a change that is through, and followed too late, the answer is known; of a taken index it is lost."""
    file = tmp_path / "record"
    lines = [
        {"g": "cache", "term": 2, "leader": 1, "role": "leader", "i": 9, "n": 1, "t": 12},
        {"o": 1, "n": 1, "f": "role", "k": "3", "c": "cas", "a": ["voter", "learner"], "l": False, "t": 13},
        {"o": 1, "x": "applied", "r": None, "t": 14},
        {"o": 2, "n": 1, "f": "token", "k": "cache", "c": "take", "a": [], "l": False, "t": 15},
        {"o": 2, "x": "applied", "r": None, "t": 16},
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    record = read_record([(7, file)])
    assert record.beliefs == [Belief(12, 1, 7, 2, 1, "leader", "cache", 9)]
    changed, taken = record.operations
    assert (changed.result, changed.outcome, changed.returned) == (True, OK, 14)
    assert (taken.result, taken.outcome, taken.returned) == (None, UNKNOWN, NEVER)
