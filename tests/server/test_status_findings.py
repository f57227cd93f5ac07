"""What `hiqlite status` makes of the nodes' answers."""

from __future__ import annotations

from typing import Any

import pytest

from hiqlite.config import NodeConfig
from hiqlite.errors import PeerUnreachable
from hiqlite.server.status import findings, lines

CONFIG = NodeConfig(
    node_id=1, nodes=["1 a:1 a:2", "2 b:1 b:2"], secret_raft="sixteen characters", secret_api="sixteen more of them"
)


def answer(*, leader: int = 1, term: int = 5, **about: Any) -> dict[str, Any]:
    node = {"ready": True, "reasons": [], "split_brain": [], "cluster_id": "c" * 64, **about}
    return {"groups": {"db": {"term": term, "leader_id": leader}}, "node": node}


def test_nodes_that_are_ready_and_agree_leave_nothing_to_say() -> None:
    """One that is an election behind knows another term, or nobody."""
    assert findings(CONFIG, {1: answer(), 2: answer()}) == []
    assert findings(CONFIG, {1: answer(), 2: answer(leader=2, term=4)}) == []
    assert findings(CONFIG, {1: answer(), 2: answer(leader=0)}) == []


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (PeerUnreachable("nobody there"), ["node 2 is not reached: nobody there"]),
        (answer(ready=False, reasons=["a", "b"]), ["node 2 is not ready: a", "node 2 is not ready: b"]),
        (answer(split_brain=["node 3 is strange"]), ["node 2 sees a split brain: node 3 is strange"]),
        (
            answer(ready=False, reasons=["split brain: two"], split_brain=["two"]),
            ["node 2 is not ready: split brain: two"],
        ),
        (answer(leader=2), ["db group: term 5 is led by nodes [1, 2]"]),
        (
            answer(leader=2, cluster_id="d" * 64),
            ["the nodes are of 2 clusters: 1 (cccccccccccccccc); 2 (dddddddddddddddd)"],
        ),
        (answer(id=1), ["node 1 answers at b:2, which the config gives to node 2"]),
        ({"groups": {}}, ["node 2 is of an earlier version, and does not say how it is"]),
    ],
)
def test_whatever_is_not_well_is_said(other: Any, said: list[str]) -> None:
    assert findings(CONFIG, {1: answer(), 2: other}) == said


def test_the_line_of_a_node_shows_no_other_one() -> None:
    """Its address is answered by another node: whose state that is stands there, and nothing of it."""
    shown = {"role": "leader", "last_log_index": 77, "commit_index": 77, "applied_index": 77}
    answers = {number: answer(id=3 - number) for number in (1, 2)}
    for one in answers.values():
        one["groups"]["db"] |= shown
    for number, line in zip((1, 2), lines(CONFIG, answers)[1:], strict=True):
        assert line.split()[:4] == [str(number), "is", "node", str(3 - number)]
        assert "leader" not in line and "77" not in line
