"""Whose folder is of an earlier life, by the members that it knows and those that a peer tells."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hiqlite.config import NodeConfig
from hiqlite.engine.model import Identity, Membership
from hiqlite.logstore.folder import DB
from hiqlite.logstore.meta import Meta
from hiqlite.node_members_end import MembersEnd

ONE, TWO, OLD, NEW = Identity(1, 11), Identity(2, 21), Identity(3, 31), Identity(3, 33)
WITH_OLD, WITH_NEW = (ONE, TWO, OLD), (ONE, TWO, NEW)


@pytest.mark.parametrize(("own", "found", "told", "founded", "expected"), [
    (OLD, Membership(0, WITH_OLD), Membership(9, WITH_NEW), True, True),
    (OLD, Membership(5, WITH_OLD), Membership(9, WITH_NEW), False, True),
    (OLD, Membership(5, WITH_OLD), Membership(9, (ONE, TWO), learners=(NEW,)), False, True),
    # Not newer than what it knows, or not through yet.
    (OLD, Membership(9, WITH_OLD), Membership(9, WITH_NEW), True, False),
    (OLD, Membership(5, WITH_OLD), Membership(9, WITH_OLD, learners=(NEW,)), True, False),
    (OLD, Membership(5, WITH_OLD), Membership(9, WITH_NEW, outgoing=WITH_OLD), True, False),
    # The later life, while it is let in: its log, and members that lag, know the earlier one.
    (NEW, Membership(0, WITH_OLD, learners=(NEW,)), Membership(5, WITH_OLD), False, False),
    (NEW, Membership(3, WITH_OLD), Membership(5, WITH_OLD), False, False),
    (NEW, Membership(9, WITH_NEW), Membership(5, WITH_OLD), False, False),
    # No member any more is another thing.
    (OLD, Membership(5, WITH_OLD), Membership(9, (ONE, TWO)), True, False),
])  # fmt: skip
async def test_only_who_was_a_member_in_an_earlier_life_is_replaced(
    tmp_path: Path, own: Identity, found: Membership, told: Membership, founded: bool, expected: bool
) -> None:
    """Newer members that name the node in another life say it, to one that was a member as the log has it."""
    end, meta, ended = end_of(tmp_path, own, found, told, founded=founded)
    end.hear(told)
    reason = end.reason()
    assert ("earlier life of node 3" in reason) == expected
    assert (reason != "" and await end.came(reason)) == expected
    assert (meta.replaced(DB), len(ended)) == (expected, int(expected))
    meta.close()


async def test_the_newest_word_counts(tmp_path: Path) -> None:
    """Who was replaced, and whose next life was removed then, is removed; a folder is kept then."""
    end, meta, ended = end_of(tmp_path, OLD, Membership(5, WITH_OLD), Membership(12, (ONE, TWO), removed=(3,)))
    end.hear(Membership(9, WITH_NEW))
    assert "earlier life of node 3" in end.reason()
    assert not await end.came(end.reason())  # nobody says so any more
    end.hear(Membership(12, (ONE, TWO), removed=(3,)))
    assert "was removed" in end.reason()
    assert not meta.replaced(DB) and not ended
    meta.close()


def end_of(
    folder: Path, own: Identity, found: Membership, said: Membership, *, founded: bool = True
) -> tuple[MembersEnd, Meta, list[Exception]]:
    """Of node 3, with those members committed in its log, while both others say `said`; its metadata, and its end."""
    meta = Meta.open(folder)
    if founded:
        meta.set_formed(DB, bytes(32), WITH_OLD)
    engine = SimpleNamespace(membership=found, membership_at=lambda index: found)
    group = SimpleNamespace(started=True, engine=engine, applier=SimpleNamespace(applied_index=found.index))
    groups: Any = {DB: SimpleNamespace(storage=SimpleNamespace(identity=own), group=group)}

    async def said_by() -> dict[int, Membership]:
        return {1: said, 2: said}

    ended: list[Exception] = []
    config = NodeConfig(node_id=3, data_dir=str(folder))
    end = MembersEnd(config, meta, groups, said_by, lambda: 0, ended.append, asyncio.get_running_loop())
    return end, meta, ended
