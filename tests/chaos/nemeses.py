"""What is done to a cluster: faults, each of which begins, lasts and ends by itself, and mixes of them.

Must not know what the clients do. Invariant: chance comes from the seed alone, so a seed tells the same faults again
(not the same moments: the processes are real); after `Storm.end` no fault is in force, save that wall clocks stay where
they were put.
"""

from __future__ import annotations

import asyncio
import errno
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from hiqlite.logstore.folder import DB, GROUP_NAMES
from tests.chaos.subjects import Cluster, Hang, Subject

FDATASYNC, FALLOCATE, HOLD, FSYNC, DATABASE = 0, 2, 4, 5, 8  # orders of faulty_disk.c
FULL = ((FALLOCATE,), (DATABASE,), (FALLOCATE, DATABASE))  # where there is no room: the log, SQLite, both
PAUSES_S = (0.2, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 12.0)
LONG_PAUSE_S = 30.0
CUTS = ("hold", "hold", "lose", "refuse")
HOUR_S = 3600

# Name -> (how many faults at once, weight of each fault).
MIXES: dict[str, tuple[int, dict[str, int]]] = {
    "kills": (1, {"kill leader": 4, "kill one": 2, "kill two": 2, "kill all": 2}),
    "pauses": (1, {"pause leader": 4, "pause one": 2, "pause two": 1, "sleeping leader": 2}),
    "partitions": (1, {"leader alone": 4, "leader from one": 2, "one way": 4, "halves": 3, "bridge": 2}),
    "links": (2, {"flap": 3, "delay": 2, "resets": 2, "one way": 1}),
    "disks": (1, {"disk error": 3, "full disk": 3, "disk stall": 3, "kill one": 1}),
    "clocks": (2, {"clock": 4, "kill leader": 1, "pause leader": 1, "leader alone": 1}),
    "power": (1, {"power": 4, "kill leader": 1, "kill one": 1}),
    "members": (2, {
        "members": 6, "hand over": 3, "kill leader": 1, "kill one": 1, "leader alone": 1, "one way": 1,
        "pause leader": 1,
    }),
    "kills and partitions": (2, {"kill leader": 3, "kill one": 2, "leader alone": 2, "one way": 2, "halves": 2}),
    "pauses and partitions": (2, {
        "pause leader": 2, "pause one": 2, "sleeping leader": 4, "one way": 2, "flap": 2, "leader alone": 2,
    }),
    "everything": (3, {
        "kill leader": 2, "kill one": 1, "kill two": 1, "pause leader": 2, "pause one": 1, "sleeping leader": 2,
        "leader alone": 1, "leader from one": 1, "one way": 2, "halves": 1, "bridge": 1, "flap": 1, "delay": 1,
        "resets": 1, "disk error": 1, "full disk": 1, "disk stall": 1, "clock": 2, "members": 2, "hand over": 1,
    }),
    "power and partitions": (2, {"power": 3, "one way": 1, "leader alone": 2, "pause leader": 2, "clock": 1}),
    "long pause": (2, {"long pause": 3, "flap": 1, "delay": 1, "clock": 1, "hand over": 1}),
}  # fmt: skip
# Mixes whose storms last so much at least, else their faults would be cut short.
STORM_MIN_S = {"long pause": LONG_PAUSE_S + 15}


class Storm:
    """The faults of one history.

    Args:
        cluster: all its nodes run, with clients.
    """

    def __init__(self, cluster: Cluster, mix: str, chance: random.Random) -> None:
        self.done: Counter[str] = Counter()
        self._cluster = cluster
        self._chance = chance
        self._at_once, self._weights = MIXES[mix]
        self._running: set[asyncio.Task[None]] = set()
        self._over = asyncio.Event()
        self._faults: dict[str, Callable[[], Awaitable[None]]] = {
            "kill leader": lambda: self._kill(self._leader()),
            "kill one": lambda: self._kill(self._some(1)),
            "kill two": lambda: self._kill(self._some(2)),
            "kill all": lambda: self._kill(self._some(cluster.size)),
            "pause leader": lambda: self._pause(self._leader()),
            "pause one": lambda: self._pause(self._some(1)),
            "pause two": lambda: self._pause(self._some(2)),
            "long pause": self._long_pause,
            "power": self._lose_power,
            "sleeping leader": self._sleeping_leader,
            "leader alone": lambda: self._leader_from(cluster.size),
            "leader from one": lambda: self._leader_from(1),
            "one way": self._one_way,
            "halves": self._halves,
            "bridge": self._bridge,
            "flap": self._flap,
            "delay": self._delay,
            "resets": self._resets,
            "disk error": self._disk_error,
            "full disk": self._full_disk,
            "disk stall": self._disk_stall,
            "clock": self._clock,
            "members": self._change_members,
            "hand over": self._hand_over,
        }

    async def rage(self, seconds: float) -> None:
        """Faults for that long. Raises what a fault raises."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        await asyncio.sleep(self._chance.uniform(0.3, 1.0))
        while loop.time() < end:
            if len(self._running) < self._at_once:
                (name,) = self._chance.choices(list(self._weights), list(self._weights.values()))
                self.done[name] += 1
                self._running.add(asyncio.ensure_future(self._faults[name]()))
            await asyncio.wait(self._running, timeout=self._chance.uniform(0.1, 1.2), return_when="FIRST_COMPLETED")
            self._reap()
            if not self._running:
                await asyncio.sleep(self._chance.uniform(0.1, 1.5))

    def _reap(self) -> None:
        for task in [task for task in self._running if task.done()]:
            self._running.discard(task)
            task.result()

    async def end(self) -> None:
        """Ends all faults; then who is sick or down is started again by the caller."""
        self._over.set()
        outcomes = await asyncio.gather(*self._running, return_exceptions=True)
        self._running.clear()
        await self._cluster.wires.heal()
        for one in self._cluster.subjects:
            if one.sick:
                await one.kill()
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome

    async def _last(self, seconds: float) -> None:
        """How long a fault lasts, if the storm does. So faults end in their own way; cancelled, they would not."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._over.wait()

    # -- whom

    def _leader(self, group: str | None = None) -> list[Subject]:
        """Of that group, or of any of them."""
        leader = self._cluster.leader(group or self._chance.choice(GROUP_NAMES))
        return [leader] if leader is not None else self._some(1)

    def _some(self, count: int) -> list[Subject]:
        return self._chance.sample(self._cluster.subjects, count)

    def _others(self, some: Sequence[Subject]) -> list[Subject]:
        others = [one for one in self._cluster.subjects if one not in some]
        self._chance.shuffle(others)
        return others

    # -- processes

    async def _kill(self, victims: list[Subject]) -> None:
        await asyncio.gather(*(one.kill() for one in victims))
        await self._start_again(victims)

    async def _start_again(self, victims: list[Subject]) -> None:
        for one in victims:
            await self._last(self._chance.choice((0.0, 0.1, 0.5, 1.0, 2.0)))
            await one.spawn(clients=True)

    async def _pause(self, victims: list[Subject]) -> None:
        seconds = self._chance.choice(PAUSES_S) * self._chance.uniform(0.8, 1.0)
        await asyncio.gather(*(one.pause(self._last(seconds)) for one in victims))

    async def _long_pause(self) -> None:
        """One at a time: the others go on, elect, and let go of all that a peer may not come back for."""
        leader = self._leader()
        if not any(one.stopped for one in self._cluster.subjects):
            await leader[0].pause(self._last(LONG_PAUSE_S))

    async def _sleeping_leader(self) -> None:
        """The leader is stopped until another one leads, and cut off: when it goes on, nobody tells it for a while."""
        leader = self._leader()
        edges = self._both_ways(leader, self._others(leader))
        try:
            await self._cluster.wires.set(edges, self._chance.choice(CUTS))
            await leader[0].pause(self._last(self._chance.uniform(1.5, 3.0)))
            await self._last(self._chance.uniform(0.5, 2.0))
        finally:
            await self._cluster.wires.set(edges, "pass")

    async def _lose_power(self) -> None:
        size = self._cluster.size
        victims = self._some(size if self._chance.random() < 0.6 else self._chance.randint(1, size))
        try:
            if self._chance.random() < 0.5:  # else a fast disk leaves little unsynced
                for one in victims:
                    one.disk.byte(HOLD, 1)
                await self._last(self._chance.uniform(0.02, 0.4))
            await asyncio.gather(*(one.lose_power() for one in victims))
        finally:
            for one in victims:
                one.disk.byte(HOLD, 0)
        await self._start_again(victims)

    # -- members

    async def _change_members(self) -> None:
        """A voter becomes a learner, or a learner a voter, in both groups, if the leader finds that possible."""
        (one,) = self._some(1)
        (leader,) = self._leader(GROUP_NAMES[DB])
        await self._order(leader, do="change", node=one.number, at_least=self._cluster.size // 2 + 1)

    async def _hand_over(self) -> None:
        group = self._chance.choice(GROUP_NAMES)
        await self._order(self._leader(group)[0], do="hand over", group=group)

    async def _order(self, one: Subject, **command: object) -> None:
        if one.obeys and one.has_clients:
            with suppress(Hang):  # it was killed meanwhile
                await one.ask(**command)

    # -- wires

    async def _cut(self, edges: list[tuple[int, int]], mode: str | None = None) -> None:
        try:
            await self._cluster.wires.set(edges, mode or self._chance.choice(CUTS))
            await self._last(self._chance.choice((0.2, 0.7, 1.5, 3.0, 6.0)))
        finally:
            await self._cluster.wires.set(edges, "pass")

    async def _leader_from(self, count: int) -> None:
        leader = self._leader()
        await self._cut(self._both_ways(leader, self._others(leader)[:count]))

    def _one_direction(self, some: list[Subject], others: list[Subject]) -> list[tuple[int, int]]:
        return [(one.number, other.number) for one in some for other in others]

    def _both_ways(self, some: list[Subject], others: list[Subject]) -> list[tuple[int, int]]:
        return self._one_direction(some, others) + self._one_direction(others, some)

    async def _one_way(self) -> None:
        some = self._leader() if self._chance.random() < 0.6 else self._some(1)
        others = self._others(some)[: self._chance.randint(1, self._cluster.size - 1)]
        pair = (some, others) if self._chance.random() < 0.5 else (others, some)
        await self._cut(self._one_direction(*pair), self._chance.choice(("hold", "lose")))

    async def _halves(self) -> None:
        some = self._some(self._chance.randint(1, self._cluster.size - 1))
        await self._cut(self._both_ways(some, self._others(some)))

    async def _bridge(self) -> None:
        """Two parts that only one node sees both of."""
        order = self._some(self._cluster.size)
        middle = len(order) // 2
        await self._cut(self._both_ways(order[:middle], order[middle + 1 :]))

    async def _flap(self) -> None:
        follower = self._others(self._leader())[0]
        edges = self._both_ways([follower], self._others([follower]))
        mode = self._chance.choice(CUTS)
        try:
            for _ in range(self._chance.randint(5, 15)):
                await self._cluster.wires.set(edges, mode)
                await self._last(self._chance.uniform(0.02, 0.4))
                await self._cluster.wires.set(edges, "pass")
                await self._last(self._chance.uniform(0.02, 0.4))
        finally:
            await self._cluster.wires.set(edges, "pass")

    async def _delay(self) -> None:
        edges = self._cluster.wires.all_edges()
        edges = self._chance.sample(edges, self._chance.randint(1, len(edges)))
        try:
            for edge in edges:
                await self._cluster.wires.set([edge], "pass", self._chance.choice((5, 20, 60, 150)))
            await self._last(self._chance.uniform(1.0, 4.0))
        finally:
            await self._cluster.wires.set(edges, "pass")

    async def _resets(self) -> None:
        for _ in range(self._chance.randint(5, 25)):
            await self._cluster.wires.reset(*self._chance.choice(self._cluster.wires.all_edges()))
            await self._last(self._chance.uniform(0.02, 0.25))

    # -- disks and clocks

    def _disk_victims(self) -> list[Subject]:
        return self._leader() if self._chance.random() < 0.5 else self._some(1)

    async def _disk_error(self) -> None:
        """EIO from fsync of the log or of a database file: what follows is a new process on a disk that works again."""
        (victim,) = self._disk_victims()
        order = self._chance.choice((FDATASYNC, FSYNC))
        victim.sick = True
        try:
            victim.disk.byte(order, errno.EIO)
            await self._last(self._chance.uniform(0.5, 3.0))
            await victim.kill()
        finally:
            victim.disk.byte(order, 0)
        await self._start_again([victim])

    async def _full_disk(self) -> None:
        """What found no room is done in the same life once there is some; a start on such a disk says so instead."""
        (victim,) = self._disk_victims()
        orders = self._chance.choice(FULL)
        try:
            for order in orders:
                victim.disk.byte(order, errno.ENOSPC)
            await self._last(self._chance.uniform(1.0, 5.0))
        finally:
            for order in orders:
                victim.disk.byte(order, 0)

    async def _disk_stall(self) -> None:
        (victim,) = self._disk_victims()
        try:
            victim.disk.byte(HOLD, 1)
            await self._last(self._chance.choice((0.1, 0.5, 1.0, 2.0, 4.0)))
        finally:
            victim.disk.byte(HOLD, 0)

    async def _clock(self) -> None:
        for one in self._some(self._chance.randint(1, self._cluster.size)):
            one.clock.number(self._chance.choice((-HOUR_S, 0, HOUR_S)))
        await self._last(self._chance.uniform(0.5, 2.0))
