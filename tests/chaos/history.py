"""One history of one cluster: from its forming through its faults to its verdict.

What has to hold: every object has an order that explains all answers, to the last reads on every node after the faults;
what was not applied is never seen; no term has two leaders; local reads are never wrong; once the faults end, each node
is ready, takes writes and linearizable reads, and all agree on a leader in bounded time; both groups end with the same
members, which the known changes explain, and take writes; no index of the cache group comes twice; all databases are
equal; calls end by their deadlines; no process ends by itself; no node prints a traceback.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.chaos.nemeses import MIXES, STORM_MIN_S, Storm
from tests.chaos.operations import NEVER, NOT_APPLIED, OK, UNKNOWN, Belief, Operation, read_record
from tests.chaos.subjects import CACHES, Cluster, Hang, Subject
from tests.chaos.two_groups import View, disagreements
from tests.chaos.verdict import Violation, judge, judge_beliefs
from tests.chaos.workload import SLOT_NS

HEAL_S = 30.0
LATE_S = 5.0  # after its deadline a call must have ended; a busy machine is not a broken promise
SLOTS_MIN = 100
BAD_SIGNS = ("Traceback", "Exception in callback", "never retrieved", "never awaited", "Fatal error", "was destroyed")


@dataclass
class Outcome:
    """What became of one history."""

    seed: int
    mix: str
    size: int
    cache: str
    faults: Counter[str] = field(default_factory=Counter)
    operations: Sequence[Operation] = ()
    beliefs: Sequence[Belief] = ()
    errors: Counter[str] = field(default_factory=Counter)
    violations: list[Violation] = field(default_factory=list)
    healed_s: float = 0.0
    judged_s: float = 0.0

    def __str__(self) -> str:
        counts = Counter(one.outcome for one in self.operations)
        changes = Counter(one.outcome for one in self.operations if one.call == "cas" and one.family == "role")
        faults = ", ".join(f"{count} {name}" for name, count in sorted(self.faults.items()))
        return (
            f"seed {self.seed}, {self.size} nodes, {self.mix}, cache on {self.cache}: {len(self.operations)} ops: "
            f"{counts[OK]} ok, {counts[UNKNOWN]} unknown, {counts[NOT_APPLIED]} not applied; "
            f"changes of members: {changes[OK]} ok, {changes[UNKNOWN]} unknown, {changes[NOT_APPLIED]} not applied; "
            f"leaders {self._leaders('db')}, of cache {self._leaders('cache')}; "
            f"longest write gap {self.write_gap_s:.1f} s; healed in {self.healed_s:.1f} s; "
            f"judged in {self.judged_s:.1f} s ({faults})"
        )

    def _leaders(self, group: str) -> str:
        leads = [one for one in sorted(self.beliefs, key=lambda one: one.at) if one.role == "leader"]
        leaders = dict.fromkeys((one.term, one.node) for one in leads if one.group == group)
        return " ".join(str(node) for _, node in leaders)

    @property
    def write_gap_s(self) -> float:
        """The longest time in which no write to the database was acknowledged anywhere."""
        writes = [one for one in self.operations if one.family not in ("token", "role")]
        times = sorted(one.returned for one in writes if one.known and one.changes)
        return max((later - earlier for earlier, later in pairwise(times)), default=0) / 1e9

    def report(self) -> str:
        """All there is to know of a history with violations."""
        errors = "\n".join(f"  {count} x {text}" for text, count in self.errors.most_common(40))
        beliefs = "\n".join(f"  {belief}" for belief in sorted(self.beliefs, key=lambda one: one.at))
        violations = "\n\n".join(map(str, self.violations))
        return f"{self}\n\n{violations}\n\nerrors of calls:\n{errors}\n\nbeliefs:\n{beliefs}\n"


def mix_of(seed: int) -> tuple[str, int, str]:
    """The mix of faults, the number of nodes, and where the cache group's log is, that a seed tells."""
    names = list(MIXES)
    turn, place = divmod(seed, len(names))
    return names[place], 5 if turn % 2 else 3, CACHES[(seed + turn // 2) % 2]


async def play(
    folder: Path, seed: int, seconds: float, mix: str | None = None, size: int | None = None, cache: str | None = None
) -> Outcome:
    """One history with about `seconds` of faults, or what its mix needs."""
    told_mix, told_size, told_cache = mix_of(seed)
    outcome = Outcome(seed, mix or told_mix, size or told_size, cache or told_cache)
    seconds = max(seconds, STORM_MIN_S.get(outcome.mix, 0.0))
    chance = random.Random(seed)
    epoch = time.monotonic_ns()
    power = "power" in MIXES[outcome.mix][1]
    async with Cluster(folder, outcome.size, chance, power=power, epoch=epoch, cache=outcome.cache) as cluster:
        storm = Storm(cluster, outcome.mix, chance)
        outcome.faults = storm.done
        roles: list[Operation] = []
        slots = SLOTS_MIN + int(2 * seconds * 1e9 / SLOT_NS)  # faults that are under way have to end, too
        try:
            await _begin(cluster, slots)
            await storm.rage(seconds)
            await storm.end()
            begun = time.monotonic()
            await _heal(cluster)
            outcome.healed_s = time.monotonic() - begun
            used = (time.monotonic_ns() - epoch) // SLOT_NS + 1
            assert used <= slots, "a history is too long for its banks"
            roles = await _inspect(cluster, used)
        except Hang as hang:
            outcome.violations.append(Violation(f"{hang}"))
            await _stop(storm, cluster)
        except BaseException:
            await storm.end()
            raise
        record = read_record(cluster.records)
        record.operations += roles
        outcome.operations, outcome.beliefs, outcome.errors = record.operations, record.beliefs, record.errors
        begun = time.monotonic()
        outcome.violations += await asyncio.to_thread(judge, record.operations)
        outcome.violations += judge_beliefs(record.beliefs)
        outcome.judged_s = time.monotonic() - begun
        for one in cluster.subjects:
            outcome.violations += _late(one, record.operations)
            outcome.violations += map(Violation, one.deaths)
            outcome.violations += _signs(one)
    return outcome


async def _stop(storm: Storm, cluster: Cluster) -> None:
    """All ends at once: what clients still wrote down while their files are read would be known by half."""
    with suppress(Hang):  # one is told already
        await storm.end()
    await asyncio.gather(*(one.kill() for one in cluster.subjects))


async def _begin(cluster: Cluster, slots: int) -> None:
    """Forms the cluster, makes the tables, and sets all clients to work."""
    await cluster.ready(clients=False)
    await _until_done(cluster.subjects[0], do="prepare", slots=slots)
    for one in cluster.subjects:  # else a local read might not see the banks yet
        await _until_done(one, do="query", sql="SELECT 1", consistency="linearizable", timeout=HEAL_S)
    await asyncio.gather(*(one.begin_clients() for one in cluster.subjects))


async def _heal(cluster: Cluster) -> None:
    """All nodes run, serve, and agree. Raises Hang."""
    await cluster.ready(clients=True)
    for one in cluster.subjects:
        await _until_done(one, do="execute", sql="UPDATE accounts SET balance = balance", timeout=HEAL_S)
        await _until_done(one, do="query", sql="SELECT 1", consistency="linearizable", timeout=HEAL_S)
    end = time.monotonic() + HEAL_S
    while True:
        states = [await one.ask(do="status") for one in cluster.subjects]
        agreed = {(state["term"], state["leader"]) for state in states}
        if len(agreed) == 1 and states[0]["leader"]:
            return
        if time.monotonic() > end:
            raise Hang(f"the nodes do not agree on a leader in {HEAL_S} s: {agreed}")
        await asyncio.sleep(0.1)


async def _inspect(cluster: Cluster, slots: int) -> list[Operation]:
    """The last reads, and the comparison of the databases and of the groups. Raises Hang.

    Returns:
        The role that each node has in the end, as read.
    """
    await asyncio.gather(*(one.ask(do="end") for one in cluster.subjects))
    begun = time.monotonic_ns()
    views = await _agree(cluster)
    for one in cluster.subjects:
        await _until_done(one, do="take")
    if changed := [view for view in await _agree(cluster) if view.index not in {one.index for one in views}]:
        raise Hang(f"members changed and nobody asked for it: {changed}")
    answers = await asyncio.gather(*(one.ask(2 * HEAL_S + 30, do="inspect", slots=slots) for one in cluster.subjects))
    for one, answer in zip(cluster.subjects, answers, strict=True):
        if answer.get("missing") != []:
            raise Hang(f"node {one.number} does not read linearizably: {answer}")
    hashes = {one.number: (await one.ask(do="hash")).get("hash") for one in cluster.subjects}
    if len(set(hashes.values())) != 1:
        raise Hang(f"the databases differ: {hashes}")
    return [
        Operation("role", str(number), "read", (), role, begun, time.monotonic_ns(), node=views[0].node)
        for number, role in views[0].roles.items()
    ]


async def _agree(cluster: Cluster) -> list[View]:
    """What the nodes see, once both groups have the same members on every node. Raises Hang."""
    end = time.monotonic() + HEAL_S
    while True:
        answers = [await one.ask(do="groups") for one in cluster.subjects]
        views = [View.from_dict(told) for answer in answers for told in answer["groups"]]
        wrong = disagreements(views)
        if not wrong:
            return views
        if time.monotonic() > end:
            raise Hang("\n    ".join([f"the groups do not agree in {HEAL_S} s:", *wrong, *map(str, views)]))
        await asyncio.sleep(0.1)


async def _until_done(one: Subject, **command: Any) -> None:
    """Again and again, while the answer is an error. Raises Hang."""
    end = time.monotonic() + HEAL_S
    while "error" in (answer := await one.ask(HEAL_S + 10, **command)):
        if time.monotonic() > end:
            raise Hang(f"node {one.number} did not {command['do']} in {HEAL_S} s: {answer}")
        await asyncio.sleep(0.05)


def _late(one: Subject, operations: Iterable[Operation]) -> list[Violation]:
    """Calls that ended long after their deadline, while their node was not stopped."""
    late = []
    for call in operations:
        if call.node != one.number or call.returned == NEVER or not call.timeout_s:
            continue
        over_ns = call.returned - call.invoked - int((call.timeout_s + LATE_S) * 1e9)
        stopped_ns = sum(max(0, min(end, call.returned) - max(begin, call.invoked)) for begin, end in one.away)
        if over_ns > stopped_ns:
            late.append(call)
    return [Violation(f"{len(late)} calls ended long after their deadline", tuple(late[:3]))] if late else []


def _signs(one: Subject) -> list[Violation]:
    """What no node may print."""
    errors = one.member.errors
    text = errors.read_text(errors="replace") if errors.exists() else ""
    places = [text.index(sign) for sign in BAD_SIGNS if sign in text]
    if not places:
        return []
    at = min(places)
    return [Violation(f"node {one.number} printed: {text[max(0, at - 300) : at + 2500]}")]
