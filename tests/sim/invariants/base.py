"""What all invariants share: the cluster they watch, and how they fail."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from tests.sim.world import Violation

if TYPE_CHECKING:
    from tests.sim.cluster import Cluster


class Invariant:
    name = ""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster: Any = cluster
        self.world: Any = cluster.world
        self.truth: Any = cluster.truth

    def fail(self, text: str) -> NoReturn:
        self.world.note(f"VIOLATION {self.name}: {text}")
        raise Violation(self.name, text)
