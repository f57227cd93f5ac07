"""Three real processes that can be killed, and a disk that loses power under them."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hiqlite.transport.loopback import hold_ports, loopback_cluster
from tests.chaos.two_groups import View, disagreements
from tests.waiting import eventually

HERE = Path(__file__).parent
DEADLINE_S = 60.0
CREATE = "CREATE TABLE load (id INTEGER PRIMARY KEY, node INTEGER NOT NULL, text TEXT NOT NULL)"


def name_all_in_shadow(folder: Path, shadow: Path) -> None:
    """Names are durable by now, contents need not be: the preloaded library compares them as files are opened."""
    here = {path.relative_to(folder) for path in folder.rglob("*")}
    there = {path.relative_to(shadow) for path in shadow.rglob("*")}
    for name in sorted(there - here, reverse=True):
        (shutil.rmtree if (shadow / name).is_dir() else os.unlink)(shadow / name)
    for name in sorted(here - there):
        if (folder / name).is_dir():
            (shadow / name).mkdir()
        else:
            shutil.copy(folder / name, shadow / name)


class Member:
    """One process of `member.py`, or of another program that obeys its commands."""

    def __init__(
        self, config: dict[str, Any], *, keep_errors: bool = False, program: Path = HERE / "member.py"
    ) -> None:
        self.config = config
        self.program = program
        self.keep_errors = keep_errors
        self.folder = Path(config["data_dir"])
        self.errors = self.folder.with_name(self.folder.name + "-errors")
        self.process: asyncio.subprocess.Process | None = None
        self.environment: dict[str, str] = {}  # more variables, in every life
        self.prefix: tuple[str, ...] = ()  # the command that its own is handed to
        self.loaded = False  # a load that was begun in this life goes on

    async def start(
        self, preload: Path | None = None, *, keep_durable: bool = False, environment: dict[str, str] | None = None
    ) -> None:
        """Spawn the process.

        Args:
            preload: library of the power loss.
            environment: more variables, in this life.
            keep_durable: what the last life did not sync stays at risk; otherwise all that is there is durable.
        """
        self.loaded = False
        path = os.pathsep.join(sys.path)
        environment = {**os.environ, "PYTHONPATH": path, **self.environment, **(environment or {})}
        if preload is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            if keep_durable and self.shadow.exists():
                name_all_in_shadow(self.folder, self.shadow)
            else:
                shutil.rmtree(self.shadow, ignore_errors=True)
                shutil.copytree(self.folder, self.shadow)
            environment |= {
                "LD_PRELOAD": ":".join(filter(None, (environment.get("LD_PRELOAD"), str(preload)))),
                "HQ_POWERLOSS_ROOT": str(self.folder),
                "HQ_POWERLOSS_SHADOW": str(self.shadow),
            }
        errors = self.errors.open("ab") if self.keep_errors else None
        try:
            self.process = await asyncio.create_subprocess_exec(
                *self.prefix, sys.executable, str(self.program), json.dumps(self.config), env=environment,
                stderr=errors, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=1 << 26,
            )  # fmt: skip
        finally:
            if errors is not None:
                errors.close()

    @property
    def shadow(self) -> Path:
        """What is durable of the data folder."""
        return self.folder.with_name(self.folder.name + "-durable")

    async def answer(self, seconds: float = DEADLINE_S) -> dict[str, Any]:
        assert self.process is not None and self.process.stdout is not None
        line = await asyncio.wait_for(self.process.stdout.readline(), seconds)
        assert line, f"node {self.config['node_id']} ended"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def tell(self, **command: Any) -> None:
        """Send a command; `answer` is its answer."""
        assert self.process is not None and self.process.stdin is not None
        self.process.stdin.write(json.dumps(command).encode() + b"\n")

    async def do(self, **command: Any) -> dict[str, Any]:
        self.tell(**command)
        answer = await self.answer()
        assert "error" not in answer, answer
        return answer

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    async def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        self.process._transport.close()  # type: ignore[attr-defined]  # else its pipes warn when collected
        self.process = None

    async def stop(self) -> float:
        """A clean shutdown; seconds until the process was gone."""
        assert self.process is not None and self.process.stdin is not None
        begun = time.monotonic()
        self.process.stdin.close()
        await asyncio.wait_for(self.process.wait(), DEADLINE_S)
        took = time.monotonic() - begun
        self.process._transport.close()  # type: ignore[attr-defined]
        self.process = None
        return took

    async def forget(self) -> int:
        """Its program ends without closing the node; the process's exit code."""
        assert self.process is not None
        self.tell(do="forget")
        code = await asyncio.wait_for(self.process.wait(), DEADLINE_S)
        self.process._transport.close()  # type: ignore[attr-defined]
        self.process = None
        return code

    def lose_power(self) -> None:
        """After `kill`: what was not synced is gone. The durable image takes the place of the folder."""
        if self.shadow.exists():  # else it lost power before, and nothing was written since
            shutil.rmtree(self.folder)
            self.shadow.rename(self.folder)


class Members:
    """Three members with ids 1, 2, 3; and `more` nodes that are none yet: their configs name these and themselves."""

    def __init__(self, folder: Path, more: int = 0, **settings: Any) -> None:
        defaults = {"cache": True, "wal_size": "8 MiB", **settings}
        self._ports = ports = hold_ports(2 * (3 + more))  # while a member is down they are nobody else's
        configs = loopback_cluster(folder, 3 + more, defaults, ports)
        for number, config in configs.items():
            config["nodes"] = [*config["nodes"][:3], *config["nodes"][number - 1 : number][number < 4 :]]
        self.all = {number: Member(config) for number, config in configs.items()}
        self.folder = folder

    async def __aenter__(self) -> Members:
        return self

    async def __aexit__(self, *exc: object) -> None:
        try:
            for member in self.all.values():
                if member.process is not None:
                    await member.kill()
        finally:
            self._ports.close()

    async def start(self, *numbers: int, preload: Path | None = None) -> list[dict[str, Any]]:
        """Start the given members, or all, and wait until each is ready.

        Gives when each has `begun` to open its node and when that was `ready`, in seconds of a clock that all share.
        """
        chosen = [self.all[number] for number in numbers or self.all]
        for member in chosen:
            await member.start(preload)
        return await asyncio.gather(*(member.answer() for member in chosen))

    async def start_with_table(self) -> Member:
        """All of them, and the table that a load writes into; who leads."""
        await self.start()
        leader = await self.leader()
        await leader.do(do="execute", sql=CREATE)
        return leader

    async def start_under_load(self, count: int) -> tuple[Member, list[Path]]:
        """The same, and a load of which so many writes are acknowledged; who leads, and where they are noted."""
        leader = await self.start_with_table()
        files = await begin_load(self)
        await acknowledged(files, count)
        return leader, files

    @property
    def generations(self) -> list[str]:
        """The folder of each member's database: another one is begun when it is rebuilt."""
        return [path.parent.name for one in self.all.values() for path in one.folder.glob("db/*/hiqlite.db")]

    @property
    def up(self) -> list[Member]:
        return [member for member in self.all.values() if member.process is not None]

    async def end_load(self, *numbers: int) -> dict[int, dict[str, int]]:
        """Of the given members, or all, that are up and have one: which errors its callers met, by id."""
        outcomes = {}
        for number in numbers or self.all:
            member = self.all[number]
            if member.process is not None and member.loaded:
                member.loaded = False
                outcomes[number] = (await member.do(do="stop_load"))["outcomes"]
        return outcomes

    async def leader(self) -> Member:
        """The leader that all running members agree on."""
        found: dict[str, int] = {}

        async def agreed() -> bool:
            known = {(await member.do(do="status"))["leader"] for member in self.up}
            found["leader"] = next(iter(known))
            return len(known) == 1 and self.all.get(found["leader"]) in self.up

        await eventually(agreed)
        return self.all[found["leader"]]

    async def lead(self, wanted: Member) -> None:
        """`wanted` leads, by a hand-over."""

        async def leads() -> bool:
            if (await wanted.do(do="status"))["role"] == "leader":
                return True
            await wanted.do(do="manage", call="transfer_leadership", ids=[wanted.config["node_id"]])
            return False

        await eventually(leads)

    async def check_equal(self) -> None:
        """All three hold the same content, once each has applied everything that is committed (there is no load)."""
        for member in self.up:
            await member.do(do="query", sql="SELECT 1", consistency="linearizable")
        assert len({(await member.do(do="hash"))["hash"] for member in self.up}) == 1

    async def in_order(self, voters: Sequence[int] = (1, 2, 3), learners: Sequence[int] = ()) -> list[View]:
        """What the running members tell of both groups, once nothing is wrong with it: one cluster, these members.

        Then no index of the cache group's log was given twice, and each new one is above all that were given.
        """
        told: dict[str, Any] = {}

        async def agreed() -> bool:
            answers = [await member.do(do="views") for member in self.up]
            views = told["views"] = [View.from_dict(one) for answer in answers for one in answer["groups"]]
            whole = len(views) == 2 * len(answers) and len({answer["cluster_id"] for answer in answers}) == 1
            told["wrong"] = disagreements(views) if whole else answers
            roles = {**dict.fromkeys(voters, "voter"), **dict.fromkeys(learners, "learner")}
            told["wrong"] = told["wrong"] or [view for view in views if view.roles != roles]
            return not told["wrong"]

        begun = time.monotonic()
        try:
            await eventually(agreed)
        except AssertionError:
            raise AssertionError(f"after {time.monotonic() - begun:.0f} s: {told['wrong']}") from None
        taken = [index for file in self.folder.glob("takes-*") for index in read_ids(file)]
        assert len(set(taken)) == len(taken), "an index was given twice"
        for member in self.up if taken else ():
            index = (await member.do(do="take"))["index"]
            assert index > max(taken), "an index that was given is lost"
            taken.append(index)
        views: list[View] = told["views"]
        return views

    async def check_after_load(self, *files: Path) -> int:
        """The load ends: all hold the same, both groups are in order, what was acknowledged is there (so much)."""
        await self.end_load()
        await self.check_equal()
        await self.in_order()
        return await self.check_acknowledged(*files)

    async def check_acknowledged(self, *files: Path) -> int:
        """Every acknowledged id is there, once, on every running member. Returns how many were acknowledged."""
        acknowledged = [number for file in files for number in read_ids(file)]
        assert len(set(acknowledged)) == len(acknowledged)
        first = self.up[0]
        rows = (await first.do(do="query", sql="SELECT id FROM load", consistency="linearizable"))["rows"]
        there = [row[0] for row in rows]
        assert len(set(there)) == len(there)
        missing = set(acknowledged) - set(there)
        assert not missing, f"{len(missing)} acknowledged writes are lost, such as {sorted(missing)[:5]}"
        return len(acknowledged)


def read_ids(file: Path) -> list[int]:
    data = file.read_bytes()
    return [int.from_bytes(data[at : at + 8], "little") for at in range(0, len(data) // 8 * 8, 8)]


async def begin_load(members: Members, tasks: int = 16, of: Sequence[Member] = ()) -> list[Path]:
    """Load through every running node, or those, with ids that never meet; where what was acknowledged is noted.

    A member with a cache group takes indexes of its log as well; `Members.in_order` looks at these.
    """
    files = []
    for number, member in members.all.items():
        if member.process is None or (of and member not in of):
            continue
        begun = time.monotonic_ns()
        file, takes = members.folder / f"acks-{number}-{begun}", members.folder / f"takes-{number}-{begun}"
        start = begun + number * 10**15  # later rounds go on above earlier ones
        both = {"takes": str(takes)} if member.config["cache"] else {}
        await member.do(do="load", acks=str(file), tasks=tasks, start=start, node=number, **both)
        member.loaded = True
        files.append(file)
    return files


def noted(files: list[Path]) -> int:
    """How many writes of a load are acknowledged by now."""
    return sum(file.stat().st_size // 8 for file in files if file.exists())


async def acknowledged(files: list[Path], count: int) -> None:
    """Until so many writes are noted."""

    async def enough() -> bool:
        return noted(files) >= count

    await eventually(enough)


def build_power_loss(folder: Path) -> Path:
    """The preloaded library, compiled with the compiler that builds the product."""
    return build_library(HERE / "powerloss.c", folder)


def build_library(source: Path, folder: Path) -> Path:
    library = folder / f"{source.stem}.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl", "-pthread"], check=True)
    return library
