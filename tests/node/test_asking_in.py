"""Whom a node without a cluster asks to let it in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hiqlite.engine.model import Identity, Membership
from hiqlite.errors import HiqliteError, PeerUnreachable, UsageError
from hiqlite.logstore.folder import DB
from hiqlite.node import Node
from hiqlite.node_members import roles_of
from tests.cluster.growing import growing


class Asked:
    """The links of a node, but for what its peers answer who asks to be let in."""

    def __init__(self, links: Any, answers: dict[int, bool | HiqliteError]) -> None:
        self._links = links
        self._answers = answers
        self.asked: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._links, name)

    async def request(self, number: int, _name: str, _payload: Any, _timeout: float) -> Any:
        self.asked.append(number)
        answer = self._answers[number]
        if isinstance(answer, HiqliteError):
            raise answer
        return answer


def asked_of(node: Node, answers: dict[int, bool | HiqliteError]) -> Asked:
    members = node.members
    members._refused_at = float("-inf")
    asked = members._links[DB] = Asked(members._links[DB], answers)  # type: ignore[assignment]
    return asked


REFUSED, AWAY = UsageError("its config does not name node 1"), PeerUnreachable("node 2 does not answer")


@pytest.mark.parametrize("first", [REFUSED, AWAY])
async def test_everybody_is_asked_until_one_lets_it_in(tmp_path: Path, first: HiqliteError) -> None:
    """One is down, and not each of them has a config that names it."""
    async with growing(tmp_path) as nodes:
        await nodes.form(1)
        asked = asked_of(nodes.running[1], {2: first, 3: REFUSED, 4: True, 5: True})
        assert await nodes.running[1].members.ask_in([2, 3, 4, 5]) == ""
        assert asked.asked == [2, 3, 4]
        assert nodes.running[1].storage.meta.joins(DB)


async def test_who_was_refused_by_all_does_not_wait_for_them_at_its_next_start(tmp_path: Path) -> None:
    """But one that could not be asked may have let it in: the answer alone was lost."""
    async with growing(tmp_path) as nodes:
        await nodes.form(1)
        node = nodes.running[1]
        asked_of(node, {2: REFUSED, 3: REFUSED})
        assert "does not name" in await node.members.ask_in([2, 3])
        assert not node.storage.meta.joins(DB)
        asked_of(node, {2: AWAY, 3: REFUSED})
        assert "does not name" in await node.members.ask_in([2, 3])
        assert node.storage.meta.joins(DB)
        asked_of(node, {2: AWAY})
        assert "does not answer" in await node.members.ask_in([2])


def test_a_node_that_comes_back_empty_is_shown_as_the_learner_that_it_is() -> None:
    """Its place as a voter is that of an earlier life. Another node with the id of a voter that lives is no such."""
    members = Membership(9, (Identity(1, 11), Identity(2, 21)), (Identity(2, 23), Identity(4, 41)))
    for life, roles in ((23, {1: "voter", 2: "learner", 4: "learner"}), (21, {1: "voter", 2: "voter", 4: "learner"})):
        assert dict(roles_of(members, lambda number, life=life: life if number == 2 else 0)) == roles  # type: ignore[misc]
