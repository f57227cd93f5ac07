"""Images between real processes: how one comes to be needed, and when it is under way."""

from __future__ import annotations

from pathlib import Path

from harness import CREATE, Member, Members, acknowledged, begin_load, eventually

# A database that takes a while to travel.
FILL = (
    "INSERT INTO load WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)"
    " SELECT -i, 0, hex(zeroblob(40000)) FROM n"
)


def segments(member: Member, group: str = "db") -> list[str]:
    return sorted(path.name for path in (member.folder / "log" / group).glob("*.wal"))


async def lag_behind_the_logs(members: Members, files: list[Path]) -> tuple[Member, Member]:
    """(the leader, who is down and lacks more than the logs of both groups hold); the database is large, and load
    goes on."""
    await members.start()
    leader = await members.leader()
    await leader.do(do="execute", sql=CREATE)
    await leader.do(do="execute", sql=FILL)
    gone = next(member for member in members.up if member is not leader)
    await gone.kill()
    files += await begin_load(members, 4)
    groups = ("db", "cache")

    async def both_write() -> bool:
        return all(segments(leader, group) for group in groups)

    await eventually(both_write)  # the cache's group may form after the load has begun
    last = {group: segments(leader, group)[-1] for group in groups}

    async def purged() -> bool:
        return all(segments(leader, group)[0] > last[group] for group in last)

    await acknowledged(files, 400)
    await eventually(purged)
    return leader, gone


async def image_travels(member: Member) -> None:
    """A part of an image is on its disk."""

    async def some() -> bool:
        return any(path.stat().st_size > 0 for path in (member.folder / "db" / "images").glob("in-*.db"))

    await eventually(some)
