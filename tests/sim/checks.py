"""Hands every step of the simulation to the invariants that asked for it.

An invariant is a class in `tests/sim/invariants` whose methods carry the names below; it is told before or after the
step as the name says and calls `fail` when its property is broken.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .invariants import ALL
from .world import Violation

if TYPE_CHECKING:
    from .cluster import Cluster

STEPS = (
    "restarted", "receiving", "received", "beating", "beat_heard", "created", "took", "truncating", "committed",
    "sending", "applying", "applied", "acknowledged", "read_began", "read_confirmed", "became_leader", "stepped",
    "reach_changed", "fatal", "wiped", "linked", "led", "changing", "may_purge", "purging", "repairing", "resetting",
    "image_made", "image_finished", "placed", "installed", "install_ended",
)  # fmt: skip


class Checks:
    """One callable per step; with several listeners it calls them in turn."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.counted: dict[str, int] = {}

    def prepare(self) -> None:
        invariants = [kind(self.cluster) for kind in ALL]
        for step in STEPS:
            calls = [getattr(invariant, step) for invariant in invariants if hasattr(invariant, step)]
            setattr(self, step, _joined(calls))

    def fail(self, invariant: str, text: str) -> None:
        self.cluster.world.note(f"VIOLATION {invariant}: {text}")
        raise Violation(invariant, text)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


def _joined(calls: list[Callable[..., None]]) -> Callable[..., None]:
    if len(calls) == 1:
        return calls[0]
    several = tuple(calls)
    arity = several[0].__code__.co_argcount - 1 if several else 0

    def call_one(first: Any) -> None:
        for one in several:
            one(first)

    def call_two(first: Any, second: Any) -> None:
        for one in several:
            one(first, second)

    def call_three(first: Any, second: Any, third: Any) -> None:
        for one in several:
            one(first, second, third)

    def call_any(*arguments: Any) -> None:
        for one in several:
            one(*arguments)

    # A third of a schedule is spent in these loops: packing arguments would show.
    return {1: call_one, 2: call_two, 3: call_three}.get(arity, call_any)
