"""`timeout=` of calls: seconds as the caller gives them, deadlines as the rooms below want them.

Must not know what is being waited for. Invariant: whatever a caller passes becomes a deadline or a UsageError.
"""

from __future__ import annotations

import asyncio
from typing import Any, Self

from hiqlite.errors import Outcome, RequestTimeout, UsageError

TIMEOUT_S_MAX = 1e9  # deadlines are 64-bit nanoseconds


def timeout_ns(timeout: Any, *, outcome: Outcome | None = "not_applied") -> int:
    """A caller's timeout in nanoseconds, at least one. Raises UsageError for what is no number of seconds."""
    if not isinstance(timeout, int | float) or not 0 <= timeout <= TIMEOUT_S_MAX:
        raise UsageError(f"timeout must be a number of seconds, not {timeout!r}", outcome=outcome)
    return max(1, int(timeout * 1e9))


def timeout_s(timeout: Any) -> float | None:
    """The same in seconds; None: no limit, or the usual one."""
    return None if timeout is None else timeout_ns(timeout) / 1e9


class deadline:
    """`asyncio.timeout` that raises RequestTimeout. Raises UsageError for what is no number of seconds, nor None."""

    def __init__(self, seconds: float | None) -> None:
        self._timeout = asyncio.timeout(timeout_s(seconds))
        self.outcome: Outcome | None = None  # of a write under way, for the error

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        return self

    async def __aexit__(self, kind: Any, error: Any, traceback: Any) -> None:
        try:
            await self._timeout.__aexit__(kind, error, traceback)
        except TimeoutError as late:
            raise RequestTimeout("the call did not end in time", outcome=self.outcome) from late
