"""Three real processes, one of them on a file system of its own that is filled to the last byte under load (F5).

Where a process may not have one there is nothing to fill: the summary of the tests says so, and why.
"""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from harness import CREATE, Member, Members, acknowledged, begin_load, eventually, noted
from images import lag_behind_the_logs

DISK_BYTES = 128 << 20
# A file system of its own, in a namespace that goes with the process.
MOUNTED = f'mkdir -p "$0" && mount -t tmpfs -o size={DISK_BYTES} tmpfs "$0" && exec "$@"'
IN_NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")


def refusal() -> str:
    """Why a process here gets no file system of its own; "": it gets one."""
    try:
        tried = subprocess.run([*IN_NAMESPACE, "true"], capture_output=True, text=True, check=False)
    except OSError as error:
        return str(error)
    return (tried.stderr.strip() or f"{IN_NAMESPACE[0]} ends with {tried.returncode}") if tried.returncode else ""


REFUSAL = refusal()
pytestmark = pytest.mark.timeout(180)


def inside(member: Member) -> Path:
    """Its data folder as it sees it."""
    assert member.process is not None
    return Path(f"/proc/{member.process.pid}/root{member.folder}")


@contextmanager
def filled(member: Member) -> Iterator[None]:
    """Its disk has not one byte left, until the block ends."""
    path = inside(member) / "filler"
    with path.open("wb") as file:
        for size_bytes in (1 << 20, 1 << 12):
            try:
                while True:
                    os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, size_bytes)
            except OSError:
                continue
    yield
    path.unlink()


async def refuses(member: Member, number: int) -> bool:
    """A write of its own callers is known not to be done, for want of room."""
    member.tell(do="execute", sql="INSERT INTO load VALUES (?, 0, '')", params=[number], timeout=5)
    answer = await member.answer()
    return str(answer.get("error")).startswith("DiskFull") and answer["outcome"] == "not_applied"


@pytest.mark.filterwarnings("always:no disk was filled")
def test_a_disk_that_cannot_be_filled_is_told_of() -> None:
    """A developer who may not mount is not stopped, and nobody takes the tests below for passed."""
    if REFUSAL:
        warnings.warn(f"no disk was filled (F5): {REFUSAL}", stacklevel=1)


@pytest.mark.long
def test_where_no_disk_can_be_had_the_summary_says_so(tmp_path: Path) -> None:
    """With an `unshare` that refuses, as in a container: nothing fails, and the reason is read at the end."""
    refusing = tmp_path / IN_NAMESPACE[0]
    refusing.write_text("#!/bin/sh\necho Operation not permitted >&2\nexit 1\n", encoding="utf-8")
    refusing.chmod(0o755)
    environment = {**os.environ, "PATH": os.pathsep.join([str(tmp_path), os.environ["PATH"]])}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", __file__, "-k", "not summary_says_so"]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert ran.returncode == 0, ran.stdout
    assert "no disk was filled (F5): Operation not permitted" in ran.stdout


@pytest.mark.parametrize("leads", [] if REFUSAL else [True, False])
async def test_a_disk_without_one_byte_left_loses_nothing_and_recovers_by_itself(tmp_path: Path, leads: bool) -> None:
    """Log, metadata and database meet it at once: others lead, reads go on; with room it goes on in the same life."""
    async with Members(tmp_path, wal_size="64 KiB", logs_until_snapshot=200) as members:
        full = members.all[1]
        full.prefix = (*IN_NAMESPACE, "sh", "-c", MOUNTED, str(full.folder))
        await members.start()
        await members.lead(full if leads else members.all[2])
        await (await members.leader()).do(do="execute", sql=CREATE)
        files = await begin_load(members, 4)
        await acknowledged(files, 500)
        with filled(full):
            assert os.statvfs(inside(full)).f_bavail == 0
            others = [file for file in files if not file.name.startswith("acks-1-")]

            async def another_leads() -> bool:
                return (await members.all[2].do(do="status"))["leader"] in (2, 3)

            await eventually(another_leads)
            await acknowledged(others, noted(others) + 1000)
            assert await refuses(full, -1)
            assert (await full.do(do="query", sql="SELECT count(*) FROM load"))["rows"][0][0] > 0
        await acknowledged(files[:1], noted(files[:1]) + 200)
        await members.check_after_load(*files)
        assert (await full.do(do="query", sql="SELECT count(*) FROM load WHERE id < 0"))["rows"] == [[0]]


@pytest.mark.parametrize("waits_for", [] if REFUSAL else ["a part of it"])
async def test_an_image_that_meets_a_full_disk_is_taken_once_there_is_room(tmp_path: Path, waits_for: str) -> None:
    """Who takes it goes on from what it has, or begins anew, and the others' callers feel nothing."""
    async with Members(tmp_path, wal_size="64 KiB", logs_until_snapshot=50) as members:
        files: list[Path] = []
        _, gone = await lag_behind_the_logs(members, files)
        gone.prefix = (*IN_NAMESPACE, "sh", "-c", MOUNTED, str(gone.folder))
        await gone.start()

        async def some_has_come() -> bool:
            with suppress(FileNotFoundError):  # the folder of its last life is there until its own is mounted over it
                images = (inside(gone) / "db" / "images").glob("in-*.db")
                return any(path.stat().st_size > 1 << 20 for path in images)
            return False

        await eventually(some_has_come)
        with filled(gone):
            await acknowledged(files, noted(files) + 500)
            databases = [path.stat().st_size for path in (inside(gone) / "db").glob("*/hiqlite.db")]
            assert sum(databases) < 1 << 20, "the image was there before the disk was full"
        await gone.answer()
        assert all(outcomes == {} for outcomes in (await members.end_load()).values())
        await members.check_after_load(*files)
