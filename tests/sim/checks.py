"""Hands every step of the simulation to the invariants that asked for it.

An invariant is a class in `tests/sim/invariants` whose methods carry the names below; it is told before or after the
step as the name says and calls `fail` when its property is broken. A step about a message may be told of some kinds of
messages only (`base.of`): most have nothing to say about most of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast, get_args

from hiqlite.engine.model import Message

from .invariants import ALL
from .world import Violation

if TYPE_CHECKING:
    from .cluster import Cluster

STEPS = (
    "restarted", "receiving", "received", "beating", "beat_heard", "created", "took", "truncating", "committed",
    "sending", "applying", "applied", "acknowledged", "read_began", "read_confirmed", "became_leader", "stepped",
    "reach_changed", "fatal", "wiped", "linked", "led", "changing", "may_purge", "purging", "repairing", "resetting",
    "image_made", "image_finished", "placed", "installed", "install_ended", "recovered", "ticked", "giving", "reigned",
    "settled", "unsettled", "stood", "fell_sick", "read_served",
)  # fmt: skip
BY_KIND = ("receiving", "received", "sending")  # of a message
KINDS: tuple[type, ...] = get_args(Message)


class Checks:
    """One callable per step; with several listeners it calls them in turn.

    A step about a message has one for each kind that somebody listens to: `checks.sending[type(message)]`.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.receiving: dict[type, Callable[..., None]] = {}
        self.received: dict[type, Callable[..., None]] = {}
        self.sending: dict[type, Callable[..., None]] = {}

    def prepare(self) -> None:
        invariants = [kind(self.cluster) for kind in ALL]
        for step, kind, numbers, join in LISTENERS:
            told = join(*[getattr(invariants[number], step) for number in numbers])
            if kind is None:
                setattr(self, step, told)
            else:
                getattr(self, step)[kind] = told

    def fail(self, invariant: str, text: str) -> None:
        self.cluster.world.note(f"VIOLATION {invariant}: {text}")
        raise Violation(invariant, text)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


def _join(count: int, arity: int) -> Callable[..., Callable[..., None]]:
    """Makes one callable of `count` listeners to `arity` arguments.

    A third of a schedule is spent here: a loop over them, or packing arguments, would show.
    """
    listeners = ", ".join(f"listener_{number}" for number in range(count))
    told = ", ".join(f"told_{number}" for number in range(arity))
    calls = [f"        listener_{number}({told})" for number in range(count)] or ["        return"]
    lines = [f"def join({listeners}):", f"    def call({told}):", *calls, "    return call"]
    made: dict[str, Any] = {}
    exec("\n".join(lines), made)
    return cast("Callable[..., Callable[..., None]]", made["join"])


def _listeners(step: str, kind: type | None) -> tuple[str, type | None, list[int], Callable[..., Callable[..., None]]]:
    """A step, the kind of message, the places in `ALL` of those who listen, and what makes one callable of them."""
    numbers = [number for number, one in enumerate(ALL) if hasattr(one, step) and _wants(getattr(one, step), kind)]
    if len(numbers) == 1:
        return step, kind, numbers, lambda listener: listener
    arities = {getattr(ALL[number], step).__code__.co_argcount - 1 for number in numbers}
    (arity,) = arities or {0}  # all of them are told the same
    return step, kind, numbers, _join(len(numbers), arity)


def _wants(listener: Callable[..., None], kind: type | None) -> bool:
    return kind is None or kind in getattr(listener, "kinds", KINDS)


LISTENERS = tuple(
    one for step in STEPS for kind in (KINDS if step in BY_KIND else (None,)) if (one := _listeners(step, kind))[2]
)
