"""Which versions of the protocol an end of a link speaks. Must not know what they mean."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Versions:
    """The protocol versions that an end speaks: each of [low, high]."""

    low: int
    high: int

    def __post_init__(self) -> None:
        assert 1 <= self.low <= self.high

    def __contains__(self, version: int) -> bool:
        return self.low <= version <= self.high

    def common(self, low: int, high: int) -> int:
        """The newest one that an end with [low, high] speaks too; 0: none."""
        version = min(high, self.high)
        return version if version >= max(low, self.low) else 0


SPOKEN = Versions(1, 2)  # by this release
SESSIONS = 2  # from this version on entries of sessions are understood
