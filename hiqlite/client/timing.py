"""`timeout=` of calls: seconds as the caller gives them, deadlines as the rooms below want them.

Must not know what is being waited for. Invariant: whatever a caller passes becomes a deadline or a UsageError.
"""

from __future__ import annotations

import asyncio
from typing import Any, Self

from hiqlite.errors import Outcome, RequestTimeout, UsageError

TIMEOUT_S_MAX = 1e9  # deadlines are 64-bit nanoseconds


def timeout_ns(timeout: Any) -> int:
    """A caller's timeout in nanoseconds, at least one. Raises UsageError for what is no number of seconds."""
    if not isinstance(timeout, int | float) or not 0 <= timeout <= TIMEOUT_S_MAX:
        raise UsageError(f"timeout must be a number of seconds, not {timeout!r}")
    return max(1, int(timeout * 1e9))


class deadline:
    """`asyncio.timeout` that raises RequestTimeout. Raises UsageError for what is no number of seconds."""

    def __init__(self, seconds: float) -> None:
        self._timeout = asyncio.timeout(timeout_ns(seconds) / 1e9)
        self.outcome: Outcome | None = None  # of a write under way, for the error

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        return self

    async def __aexit__(self, kind: Any, error: Any, traceback: Any) -> None:
        try:
            await self._timeout.__aexit__(kind, error, traceback)
        except TimeoutError as late:
            raise RequestTimeout("the call did not end in time", outcome=self.outcome) from late
