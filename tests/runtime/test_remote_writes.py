"""What a leader does with the writes that peers forward to it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hiqlite
from hiqlite._accel.commands import encode_command
from hiqlite._accel.records import EntryKind
from hiqlite.errors import NotLeader
from hiqlite.runtime.forwarding import ANSWERED, FORWARD, REFUSED, refusal, split_replies
from hiqlite.runtime.remote import RemoteWrites

EXECUTE = 1
DEADLINE_S = 20.0


class Replies:
    """The network as a leader sees it when it answers."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, int, int, bytes]] = []

    def send_forward_reply(self, peer_id: int, body: bytes) -> bool:
        self.sent += split_replies(body)
        return True

    def answers(self, peer_id: int) -> bool:
        return True

    def hang_up(self, peer_id: int) -> None:
        raise AssertionError("there is room for every answer")

    async def request(self, peer_id: int, name: str, payload: Any, timeout: float) -> Any:
        raise AssertionError("a leader asks nobody")


async def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0)


def forwarded(number: int, term: int, value: int) -> bytes:
    return FORWARD.pack(number, 0, term) + encode_command(EXECUTE, [("INSERT INTO t VALUES (?)", [value])])


async def test_a_leader_takes_no_write_that_was_sent_in_another_term(tmp_path: Path) -> None:
    """Else one that overtook the refusal of an earlier write would stand before it in the log."""
    async with hiqlite.open(tmp_path) as db:
        await db.execute("CREATE TABLE t (x)")
        group = db._services.group
        term = group.engine.term
        network = Replies()
        loop = asyncio.get_running_loop()
        remote = RemoteWrites(group, (EntryKind.COMMAND,), lambda record, tried_before: None, network, loop)
        for number, sent_in in enumerate((term - 1, term + 1, term), 1):
            remote.received(2, forwarded(number, sent_in, number))
        await until(lambda: len(network.sent) == 3)
        told = {number: (status, data) for number, _, status, data in network.sent}
        assert [told[number][0] for number in (1, 2, 3)] == [REFUSED, REFUSED, ANSWERED]
        for number in (1, 2):
            error = refusal(told[number][1])
            assert isinstance(error, NotLeader) and error.outcome == "not_applied"
        assert [row[0] for row in await db.query("SELECT x FROM t")] == [3]
