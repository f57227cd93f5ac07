"""Time and chance of an entry: the context that SQL runs in, and plain twins that define what it draws.

`native/guard_clock.c` and `native/guard_chance.c` do the same for the apply thread. Must not know connections.
Invariant: what a statement sees depends on the entry's wall time, its seed and the statement's ordinal alone; the twins
below may never change under the same record version, because nodes of two versions apply the same log.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from hiqlite._accel import guard

_MASK: Final = (1 << 64) - 1
JULIAN_MS_OF_1970: Final = 210_866_760_000_000
JULIAN_MS_MAX: Final = 464_269_060_799_999  # the last instant SQLite knows: 9999-12-31 23:59:59.999


@contextmanager
def entry_context(wall_ns: int, seed: int) -> Iterator[None]:
    """SQL that this thread runs inside the block sees the entry's clock and generator.

    Args:
        wall_ns: the entry's wall time, nanoseconds since 1970.
        seed: the entry's seed, unsigned 64 bit.
    """
    guard.entry_begin(wall_ns, seed)
    try:
        yield
    finally:
        guard.entry_end()


def julian_ms(wall_ns: int) -> int:
    """Wall time as SQLite counts it (milliseconds of the Julian day), rounded down and held within what it knows."""
    return min(max(wall_ns // 1_000_000 + JULIAN_MS_OF_1970, 1), JULIAN_MS_MAX)


class Chance:
    """The generator of one statement: xoshiro256** with its state from splitmix64.

    Args:
        seed: the entry's seed.
        ordinal: of the statement within the entry, from 0.
    """

    __slots__ = ("_state",)

    def __init__(self, seed: int, ordinal: int = 0) -> None:
        _, first = _splitmix(seed & _MASK)
        x = first ^ (ordinal & 0xFFFFFFFF)
        state: list[int] = []
        for _ in range(4):
            x, word = _splitmix(x)
            state.append(word)
        self._state = state

    def word(self) -> int:
        """The next 64 bits."""
        s = self._state
        result = _rotate(s[1] * 5 & _MASK, 7) * 9 & _MASK
        shifted = s[1] << 17 & _MASK
        s[2] ^= s[0]
        s[3] ^= s[1]
        s[1] ^= s[2]
        s[0] ^= s[3]
        s[2] ^= shifted
        s[3] = _rotate(s[3], 45)
        return result

    def random(self) -> int:
        """SQL's random(): signed 64 bit, never -2^63, so that abs() cannot overflow."""
        word = self.word()
        return word if word < 1 << 63 else -(word & ((1 << 63) - 1))

    def randomblob(self, size_bytes: int) -> bytes:
        """SQL's randomblob(n): whole words in little-endian order, the last one cut; at least one byte."""
        size_bytes = max(size_bytes, 1)
        words = (self.word().to_bytes(8, "little") for _ in range((size_bytes + 7) // 8))
        return b"".join(words)[:size_bytes]


def _splitmix(x: int) -> tuple[int, int]:
    """(next state, word)."""
    x = (x + 0x9E3779B97F4A7C15) & _MASK
    z = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return x, z ^ (z >> 31)


def _rotate(word: int, bits: int) -> int:
    return (word << bits | word >> (64 - bits)) & _MASK
