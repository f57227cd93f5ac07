"""A leader whose process is stopped for half a minute (F2), on real processes: others lead, and when it goes on it
believes nothing that it knew."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from harness import Member, Members, acknowledged, begin_load, eventually, noted

# Beyond the time of every election, session of a link, timeout of a call and interval of a look.
STOPPED_S = 30.0
READS = 3
NEWEST = "SELECT max(value) FROM register"

pytestmark = pytest.mark.timeout(180)


async def is_stopped(member: Member) -> bool:
    """proc(5)"""
    assert member.process is not None
    return Path(f"/proc/{member.process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


@pytest.mark.long
@pytest.mark.parametrize(
    "logs", [{}, {"wal_size": "64 KiB", "logs_until_snapshot": 50}], ids=["logs that keep", "short logs"]
)
async def test_a_leader_that_was_stopped_for_half_a_minute(tmp_path: Path, logs: dict[str, str]) -> None:
    """Its first linearizable read sees the newest write of the others, it follows, and nothing of either is lost."""
    async with Members(tmp_path, **logs) as members:
        leader = await members.start_with_table()
        await leader.do(do="execute", sql="CREATE TABLE register (value INTEGER)")
        term = (await leader.do(do="status"))["term"]
        others = [member for member in members.up if member is not leader]
        files = await begin_load(members)
        await acknowledged(files, 500)
        leader.signal(signal.SIGSTOP)
        await eventually(lambda: is_stopped(leader))
        for _ in range(READS):  # they wait in its pipe: first of all it looks at them, then at what the others say
            leader.tell(do="query", sql=NEWEST, consistency="linearizable")
        goes_on = time.monotonic() + STOPPED_S

        async def another_leads() -> bool:
            states = [await other.do(do="status") for other in others]
            return all(state["term"] > term and state["leader"] for state in states)

        await eventually(another_leads)
        newest = 0

        async def long_enough() -> bool:
            nonlocal newest
            newest += 1
            await others[newest % 2].do(do="execute", sql="INSERT INTO register VALUES (?)", params=[newest])
            return time.monotonic() > goes_on

        await eventually(long_enough)
        count = noted(files)
        leader.signal(signal.SIGCONT)
        for _ in range(READS):
            assert (await leader.answer()).get("rows") == [[newest]]
        assert (await leader.do(do="status"))["term"] > term
        await acknowledged(files, count + 500)
        await members.check_after_load(*files)
