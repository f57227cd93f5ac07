"""Fault profiles: each seed draws one, so that some schedules are all loss, others all crashes (swarm testing).

Knows numbers only. Invariant: a profile is a pure function of the random source given.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

from hiqlite.config import RaftSettings

MS = 1_000_000
VOTERS_MAX = 7


@dataclass(frozen=True, slots=True)
class Profile:
    """What may go wrong in one schedule, and how often. Probabilities are per message or per fault draw."""

    nodes: int
    codec: bool  # messages and entries travel as the product's bytes
    forming: bool  # the schedule begins with nodes that have to agree on their members
    learners: int
    spares: int  # nodes that run and are no members yet
    weak_sync: bool  # written counts as durable
    sync_every_ns: int  # how long a flush is put off, where nobody waits for it and logs are bytes
    platter: bool  # logs are written byte by byte and read by the product's recovery
    settings: RaftSettings
    loss: float
    duplicate: float
    late: float  # share of messages that take up to `late_ns`
    late_ns: int
    delay_ns: int
    stale_session: float  # share of messages of an ended session that still arrive
    disk_ns: int
    disk_stall: float
    apply_ns: int
    purge_every_ns: int  # 0: logs are never purged
    tail: int  # entries kept behind a checkpoint, at most
    image_chunks: int  # of an image, at most
    install_ns: int  # how long it takes to put one in the database's place, at most
    bulk_loss: float  # share of what is sent about images that is lost
    batch: float  # share of inputs after which the runtime does not turn at once
    proposals_per_s: int
    reads_per_s: int
    fault_every_ns: int  # 0: a schedule without faults
    weights: dict[str, int]
    rates: tuple[int, ...]  # of the clocks, per mille
    duration_ns: int
    story: str  # a fault of several steps that begins first, and has room: "" is none
    stands_still: bool = False  # in peace the loop of the leader does, for longer than the gate allows
    sick: str = ""  # how a disk falls sick in peace: "" is not at all


FAULTS = (
    "kill", "power", "partition", "one_way", "control_only", "reset", "pause", "stall", "disk", "resign", "forget",
    "leader_kill", "leader_cut", "vote_crash", "ack_crash", "one_copy", "wipe", "log_only",
    "slow_answers", "sleepy_leader", "twins", "campaign_cut", "long_tail", "one_peer", "beyond", "echo", "io_crash",
    "disk_full", "rot", "flush_error", "rotten_tail",
)  # fmt: skip
STORAGE = ("lag", "lone_tail", "image_cut", "image_crash", "rot_deep", "checkpoint", "wipe")  # of logs that are purged
MEMBERS = (
    "change", "change", "grow", "shrink", "shrink_leader", "replace", "demote", "set_voters", "mend", "change_crash",
    "change_cut", "change_alone", "change_company", "leave_crash", "wipe",
)  # fmt: skip
SECTORS = ("torn", "torn", "relapse", "bad_sectors", "power", "rot", "rotten_tail")  # of logs that are bytes
TRANSFERS = ("transfer", "transfer_cut", "transfer_crash", "transfer_rotten")
STORIES = ("rotten_tail", "rotten_tail", "long_tail", "lone_tail", "one_copy", "sleepy_leader", "transfer_rotten")
GATES_MS = (200, 800, 3000)  # the product's default is the last one
SICK = ("fails", "fills up", "fills up at a follower")
POWER = ("power", "flush_error", "beyond", "vote_crash", "ack_crash", "one_copy", "one_peer", "io_crash", "twins")


@dataclass(frozen=True, slots=True)
class Strike:
    """One fault of a schedule: when, which, and the source of its chance."""

    after_ns: int
    name: str
    seed: int


def draw_strikes(random: Random, profile: Profile) -> tuple[Strike, ...]:
    """The faults of one schedule, at random distances until its time is over."""
    names = [name for name, weight in profile.weights.items() for _ in range(weight)]
    if names and profile.nodes + profile.learners + profile.spares >= VOTERS_MAX:
        names += ["seven"] * (len(names) // 8)  # so many nodes are rare, and a change of that size takes its time
    every_ns, at_ns = profile.fault_every_ns, 0
    strikes: list[Strike] = []
    if profile.story:
        # A cluster that just began has no leader yet; what strikes within the next second would mostly end the story.
        at_ns = 800 * MS + int(random.random() * 400 * MS)
        strikes.append(Strike(at_ns, profile.story, random.getrandbits(32)))
        at_ns += int(random.random() * 1_500 * MS)
    while every_ns and names:
        at_ns += 1 + int(random.random() * 2 * every_ns)
        if at_ns >= profile.duration_ns:
            break
        strikes.append(Strike(at_ns, random.choice(names), random.getrandbits(32)))
    return tuple(strikes)


def draw(random: Random) -> Profile:
    """The profile of one schedule."""
    small = random.random() < 0.5
    settings = RaftSettings(
        frame_bytes_max=2_000 if small else 1 << 20,
        window_bytes=8_000 if small else 4 << 20,
        memory_window_bytes=64_000 if small else 64 << 20,
    )
    calm = random.random() < 0.06
    # A few kinds of faults at a time reach further than all of them at once (swarm testing).
    plain = random.random() < 0.45  # the same members, one log, no orders
    purging, changing = not plain and random.random() < 0.65, not plain and random.random() < 0.6
    weights = {} if calm else _weights(random, purging, changing, plain)
    weak = random.random() < 0.06
    platter = random.random() < (0.6 if weak else 0.12)
    if weak and not platter:
        weights = {name: 0 if name in POWER else weight for name, weight in weights.items()}
    if platter and weights:
        for name in random.sample(SECTORS, random.choice((2, 4, 6))):
            weights[name] = weights.get(name, 0) + 2
    noisy = not calm and random.random() < 0.5
    story = random.choice(STORIES) if random.random() < 0.08 and not calm and not weak else ""
    return Profile(
        nodes=random.choice((1, 2, 3, 3, 3, 3, 5, 5)),
        codec=random.random() < 0.1,
        forming=random.random() < 0.25,
        learners=random.choice((0, 0, 0, 1)),
        spares=random.choice((1, 1, 1, 2, 2, 4)) if changing else 0,
        weak_sync=weak,
        sync_every_ns=random.choice((0, 30, 250)) * MS,
        platter=platter,
        settings=settings,
        loss=random.choice((0.0, 0.02, 0.2)) if noisy else 0.0,
        duplicate=random.choice((0.0, 0.05, 0.2)) if noisy else 0.0,
        late=random.choice((0.0, 0.03, 0.15)) if noisy else 0.0,
        late_ns=random.choice((20, 200, 800)) * MS,
        delay_ns=random.choice((MS // 5, 2 * MS, 8 * MS)),
        stale_session=random.choice((0.0, 0.5)),
        disk_ns=random.choice((MS // 5, 2 * MS, 12 * MS)),
        disk_stall=0.0 if calm else random.choice((0.0, 0.0, 0.02)),
        apply_ns=random.choice((MS // 10, 3 * MS)),
        purge_every_ns=random.choice((30, 80, 250)) * MS if purging else 0,
        tail=random.choice((0, 2, 10)),
        image_chunks=random.choice((1, 4, 12)),
        install_ns=random.choice((10, 10, 1500)) * MS,
        bulk_loss=random.choice((0.0, 0.02, 0.1)) if noisy else 0.0,
        batch=random.choice((0.0, 0.3)),
        proposals_per_s=random.choice((5, 20, 60)),
        reads_per_s=random.choice((0, 5, 20)),
        fault_every_ns=0 if calm else random.choice((300, 600) if story else (40, 80, 160)) * MS,
        weights=weights,
        rates=random.choice(((1000,), (1000,), (1000,), (950, 1050, 1000, 990))),
        duration_ns=(3600 if story else random.choice((600, 900, 1200, 1600 if changing and purging else 2400))) * MS,
        story=story,
    )


def draw_gate(random: Random, profile: Profile) -> Profile:
    """How long a leader may stand still before its heartbeats end: often less than what strikes let it stand.

    Drawn when all else is: nothing else depends on it.
    """
    stall_ms, stands_still = random.choice(GATES_MS), random.random() < 0.1
    sick = random.choice(SICK) if random.random() < 0.04 and not profile.weak_sync else ""
    settings = replace(profile.settings, stall_ms=stall_ms)
    return replace(profile, settings=settings, stands_still=stands_still, sick=sick)


def _weights(random: Random, purging: bool, changing: bool, plain: bool) -> dict[str, int]:
    """How often each kind of fault strikes."""
    chosen = random.sample(FAULTS, random.choice((2, 4, 8, 14)))
    if purging:
        chosen += random.sample(STORAGE, random.choice((1, 2, 4)))
    if changing:
        chosen += random.sample(MEMBERS, random.choice((2, 4, 8)))
    if not plain and random.random() < 0.5:
        chosen += random.sample(TRANSFERS, random.choice((1, 2, 3)))
    weights = dict.fromkeys(FAULTS, 0)
    for name in chosen:
        weights[name] = random.choice((1, 3))
    heal = max(2, sum(weights.values()) // 3)
    weights |= {"heal": heal, "restart": heal + 2 * (weights["kill"] + weights["power"])}
    return weights
