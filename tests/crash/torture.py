"""Torture of three real processes: kill -9, SIGSTOP and loss of power at random moments under load through all nodes.

    python tests/crash/torture.py --minutes 10 --seed 1

One history is a fresh cluster and a few rounds of faults; after each round the faults end and everything is checked:
every acknowledged id is there exactly once on all nodes, what was reported as not applied is absent, no linearizable
read was stale (each node reads all the time, a stopped one from the moment on when it goes on), the databases are
equal, each node takes a write and a linearizable read within HEAL_S, and no node printed a traceback.

Must not know how the product works inside. Invariant: chance comes from the seed alone, so a seed tells the same
faults again (not the same moments: the processes are real).
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from harness import SIGCONT, SIGSTOP, Member, Members, build_power_loss

HEAL_S = 10.0
START_S = 30.0
ANSWER_S = 30.0
LIFE_IDS = 10**9  # ids of one life of one process
TASKS = 8
# `id` is no key, so that an entry that was applied twice is seen.
CREATE = (
    "CREATE TABLE load (id INTEGER NOT NULL, node INTEGER NOT NULL, text TEXT NOT NULL)",
    "CREATE INDEX load_id ON load (id)",
)
BAD_SIGNS = ("Traceback", "Exception in callback", "never retrieved", "never awaited", "Fatal error", "was destroyed")


class Hang(Exception):
    """A node did not do in time what it has to do."""


@dataclass
class Subject:
    """One node under torture."""

    number: int
    member: Member
    stopped: bool = False
    starting: asyncio.Task[None] | None = None  # spawned, not ready yet

    @property
    def up(self) -> bool:
        return self.member.process is not None

    @property
    def obeys(self) -> bool:
        return self.up and not self.stopped and self.starting is None

    async def ask(self, seconds: float = ANSWER_S, **command: object) -> dict[str, object]:
        """Its answer, an error included. Raises Hang."""
        self.member.tell(**command)
        try:
            return await self.member.answer(seconds)
        except (TimeoutError, AssertionError) as error:
            raise Hang(f"node {self.number} did not answer {command['do']}: {error or 'timeout'}") from error


@dataclass
class Round:
    """What happened in one round."""

    faults: list[str] = field(default_factory=list)
    healed_s: float = 0.0
    acknowledged: int = 0
    reads: int = 0


class History:
    """One cluster from its forming to its end.

    Args:
        library: of the power loss, or None where power is never lost.
    """

    def __init__(self, folder: Path, members: Members, chance: random.Random, library: Path | None) -> None:
        self.folder = folder
        self.members = members
        self.chance = chance
        self.library = library
        self.subjects = [Subject(number, member) for number, member in members.all.items()]
        self.violations: list[str] = []
        self._lives = 0
        self._acks: list[Path] = []
        self._refused: list[Path] = []
        self._round = Round()

    # -- life

    async def begin(self) -> None:
        """Forms the cluster and makes the table."""
        for one in self.subjects:
            await self._spawn(one)
        await self._heal()
        for sql in CREATE:
            await self._write_somehow(self.subjects[0], sql)

    async def play(self, seconds: float) -> Round:
        """One round: load, faults for about `seconds`, the end of all faults, and the checks."""
        self._round = Round()
        await asyncio.gather(*(self._begin_load(one) for one in self.subjects))
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            await asyncio.sleep(self.chance.uniform(0.05, 1.2))
            await self._strike()
        await asyncio.sleep(self.chance.uniform(0.0, 0.5))
        await self._check()
        return self._round

    # -- faults

    async def _strike(self) -> None:
        running = [one for one in self.subjects if one.up and not one.stopped]
        down = [one for one in self.subjects if not one.up]
        if down and self.chance.random() < 0.7:
            await self._spawn(self.chance.choice(down))
            return
        faults: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (4, lambda: self._kill("leader", self._leader())),
            (2, lambda: self._kill("follower", self._any(running))),
            (2, lambda: self._kill("two", self._some(running, 2))),
            (2, lambda: self._kill("all", self._some(self.subjects, 3))),
            (4, lambda: self._stop("leader", self._leader())),
            (3, lambda: self._stop("any", self._any(running))),
            (1, lambda: self._stop("two", self._some(running, 2))),
        ]
        if self.library is not None:
            faults.append((6, self._lose_power))
        (fault,) = self.chance.choices([fault for _, fault in faults], [weight for weight, _ in faults])
        await fault()

    async def _any(self, among: list[Subject]) -> list[Subject]:
        return [self.chance.choice(among)] if among else []

    async def _some(self, among: list[Subject], count: int) -> list[Subject]:
        return self.chance.sample(among, min(count, len(among)))

    async def _leader(self) -> list[Subject]:
        found: list[tuple[int, Subject]] = []
        for one in self.subjects:
            if one.obeys:
                status = await one.ask(do="status")
                if status.get("role") == "leader":
                    found.append((int(str(status["term"])), one))
        return [max(found, key=lambda pair: pair[0])[1]] if found else []

    async def _kill(self, name: str, choice: Awaitable[list[Subject]]) -> None:
        victims = await choice
        if victims:
            self._note(f"kill {name}", victims)
            await asyncio.gather(*(self._end(one) for one in victims))

    async def _stop(self, name: str, choice: Awaitable[list[Subject]]) -> None:
        victims = await choice
        if not victims:
            return
        seconds = self.chance.choice((0.2, 0.5, 1.0, 2.0, 3.0)) * self.chance.uniform(0.8, 1.2)
        self._note(f"stop {name} for {seconds:.1f} s", victims)
        for one in victims:
            if one.up:
                one.member.signal(SIGSTOP)
                one.stopped = True
        if self.chance.random() < 0.3:  # something else happens meanwhile
            await asyncio.sleep(self.chance.uniform(0.0, seconds / 2))
            await self._kill("other", self._any([one for one in self.subjects if one.obeys]))
        await asyncio.sleep(seconds)
        self._go_on(victims)

    async def _lose_power(self) -> None:
        victims = self.subjects if self.chance.random() < 0.7 else await self._any(self.subjects)
        self._note("power loss", victims)
        await asyncio.gather(*(self._end(one) for one in victims))
        for one in victims:
            one.member.lose_power()

    def _note(self, text: str, victims: Iterable[Subject]) -> None:
        self._round.faults.append(f"{text} ({','.join(str(one.number) for one in victims)})")

    def _go_on(self, victims: Iterable[Subject]) -> None:
        for one in victims:
            if one.stopped and one.up:
                one.member.signal(SIGCONT)
            one.stopped = False

    async def _end(self, one: Subject) -> None:
        if one.starting is not None:
            one.starting.cancel()
            await asyncio.gather(one.starting, return_exceptions=True)
            one.starting = None
        if one.up:
            await one.member.kill()
        one.stopped = False

    async def _spawn(self, one: Subject) -> None:
        await one.member.start(self.library, keep_durable=True)
        one.starting = asyncio.create_task(self._until_ready(one))

    async def _until_ready(self, one: Subject) -> None:
        """Cancelled when the node is killed before it is ready; a node that never is ready is found by `_heal`."""
        await one.member.answer(START_S)
        if self._acks:  # the cluster has its table
            await self._begin_load(one)
        one.starting = None

    async def _begin_load(self, one: Subject) -> None:
        self._lives += 1
        acks = self.folder / f"acks-{one.number}-{self._lives}"
        refused = self.folder / f"refused-{one.number}-{self._lives}"
        self._acks.append(acks)
        self._refused.append(refused)
        await one.ask(
            do="load", acks=str(acks), refused=str(refused), tasks=TASKS, start=self._lives * LIFE_IDS, node=one.number
        )
        await one.ask(do="watch", folder=str(self.folder))

    # -- the end of faults, and what has to hold then

    async def _heal(self) -> None:
        """All nodes run; each is ready, and takes a write and a read in time."""
        self._go_on(self.subjects)
        for one in self.subjects:
            if not one.up:
                await self._spawn(one)
        for one in self.subjects:
            if (starting := one.starting) is not None:
                done, _ = await asyncio.wait([starting], timeout=START_S)
                if not done:
                    raise Hang(f"node {one.number} was not ready in {START_S} s")
                if (error := starting.exception()) is not None:
                    raise Hang(f"node {one.number} did not start: {error!r}")

    async def _check(self) -> None:
        begun = time.monotonic()
        await self._heal()
        for one in self.subjects:
            if self._acks:
                await self._write_somehow(one, "INSERT INTO load (id, node, text) VALUES (-1, -1, '')")
            rows = await one.ask(HEAL_S + 1, do="query", sql="SELECT 1", consistency="linearizable", timeout=HEAL_S)
            if "rows" not in rows:
                raise Hang(f"node {one.number} gave no linearizable read in {HEAL_S} s: {rows}")
        self._round.healed_s = time.monotonic() - begun
        for one in self.subjects:
            ended = await one.ask(do="stop_load")
            watched = await one.ask(do="stop_watch")
            if "stale" not in watched or "outcomes" not in ended:
                raise Hang(f"node {one.number} lost its load: {ended} {watched}")
            self._round.reads += int(str(watched["reads"]))
            for stale in watched["stale"] if isinstance(watched["stale"], list) else []:
                self.violations.append(f"stale read on node {one.number}: {stale}")
        await self._check_contents()

    async def _check_contents(self) -> None:
        acknowledged, refused = ids_of(self._acks), ids_of(self._refused)
        self._round.acknowledged = len(acknowledged)
        hashes = set()
        for one in self.subjects:
            answer = await one.ask(do="query", sql="SELECT id FROM load WHERE id > 0", consistency="linearizable")
            rows = answer.get("rows")
            if not isinstance(rows, list):
                raise Hang(f"node {one.number} does not read: {answer}")
            there = [row[0] for row in rows]
            self._compare(one, there, acknowledged, refused)
        for one in self.subjects:
            hashes.add((await one.ask(do="hash")).get("hash"))
        if len(hashes) != 1:
            self.violations.append(f"the databases differ: {hashes}")

    def _compare(self, one: Subject, there: list[int], acknowledged: set[int], refused: set[int]) -> None:
        present = set(there)
        if twice := sorted(number for number, count in Counter(there).items() if count > 1):
            self.violations.append(f"node {one.number}: {len(twice)} ids more than once, such as {twice[:5]}")
        if missing := acknowledged - present:
            self.violations.append(
                f"node {one.number}: {len(missing)} acknowledged ids lost, such as {sorted(missing)[:5]}"
            )
        if wrong := refused & present:
            self.violations.append(
                f"node {one.number}: {len(wrong)} ids said to be not applied are there, such as {sorted(wrong)[:5]}"
            )

    async def _write_somehow(self, one: Subject, sql: str) -> None:
        """A write through this node, tried again while its leader changes."""
        end = time.monotonic() + HEAL_S
        while True:
            answer = await one.ask(HEAL_S + 1, do="execute", sql=sql, timeout=max(0.1, end - time.monotonic()))
            if "error" not in answer:
                return
            if time.monotonic() >= end:
                raise Hang(f"node {one.number} took no write in {HEAL_S} s: {answer}")
            await asyncio.sleep(0.05)

    def signs(self) -> list[str]:
        """What no node may print."""
        found = []
        for one in self.subjects:
            text = one.member.errors.read_text(errors="replace") if one.member.errors.exists() else ""
            for sign in BAD_SIGNS:
                if sign in text:
                    at = text.index(sign)
                    found.append(f"node {one.number} printed: {text[max(0, at - 300) : at + 1500]}")
                    break
        return found


def ids_of(files: Iterable[Path]) -> set[int]:
    """The ids in files of 8 bytes each."""
    found: set[int] = set()
    for file in files:
        if file.exists():
            data = file.read_bytes()
            found.update(int.from_bytes(data[at : at + 8], "little") for at in range(0, len(data) // 8 * 8, 8))
    return found


async def play(
    folder: Path, seed: int, rounds: int, seconds: float, name: str, *, power: bool | None = None
) -> list[str]:
    """One history; its violations. `power`: whether it is lost at times; None: the seed decides."""
    chance = random.Random(seed)
    drawn = chance.random() < 0.5
    library = build_power_loss(folder) if (drawn if power is None else power) else None
    async with Members(folder, keep_errors=True) as members:
        history = History(folder, members, chance, library)
        try:
            await history.begin()
            for number in range(1, rounds + 1):
                round_ = await history.play(seconds)
                print(
                    f"{name} round {number} (seed {seed}{', power' if library else ''}): {'; '.join(round_.faults)}: "
                    f"{round_.acknowledged} acknowledged, {round_.reads} reads, healed in {round_.healed_s:.1f} s",
                    flush=True,
                )
                if history.violations:
                    break
        except (Hang, AssertionError) as error:
            history.violations.append(f"{type(error).__name__}: {error} (faults: {'; '.join(history._round.faults)})")
        return history.violations + history.signs()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=4, help="rounds of one history")
    parser.add_argument("--seconds", type=float, default=5.0, help="of faults in a round")
    parser.add_argument("--keep", type=Path, help="folder that keeps the data of histories with violations")
    options = parser.parse_args()
    end = time.monotonic() + options.minutes * 60
    histories = violations = 0
    while time.monotonic() < end:
        seed = options.seed + histories
        histories += 1
        with tempfile.TemporaryDirectory(prefix="hiqlite-torture-") as folder:
            found = asyncio.run(play(Path(folder), seed, options.rounds, options.seconds, f"history {histories}"))
            for text in found:
                print(f"VIOLATION (seed {seed}): {text}", flush=True)
            violations += len(found)
            if found and options.keep is not None:
                Path(folder).rename(options.keep / f"seed-{seed}-{time.time_ns()}")
                Path(folder).mkdir()
    print(f"histories: {histories} violations: {violations}")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
