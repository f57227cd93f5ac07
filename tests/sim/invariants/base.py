"""What all invariants share: the cluster they watch, and how they fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from tests.sim.world import Violation

if TYPE_CHECKING:
    from tests.sim.cluster import Cluster

Step = TypeVar("Step", bound=Callable[..., None])


def of(*kinds: type) -> Callable[[Step], Step]:
    """Of messages of these kinds alone is a step told, which takes (node, message) or more."""

    def mark(step: Step) -> Step:
        step.kinds = kinds  # type: ignore[attr-defined]
        return step

    return mark


class Invariant:
    name = ""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster: Any = cluster
        self.world: Any = cluster.world
        self.truth: Any = cluster.truth

    def fail(self, text: str) -> NoReturn:
        self.world.note(f"VIOLATION {self.name}: {text}")
        raise Violation(self.name, text)
