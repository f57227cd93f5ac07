"""One iteration over the rows of a read, as its caller holds it.

Must not know threads or files. Invariant: who takes rows, however slowly, is not idle.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Self

from hiqlite._accel.readpool import ReadJob
from hiqlite._accel.values import Row

Chunks = AsyncGenerator[list[Row], None]


class Iteration:
    """An async iterator over lists of rows.

    Args:
        begin: makes the lists; it is given a function that is to be told of the job once there is one.
    """

    def __init__(self, begin: Callable[[Callable[[ReadJob], None]], Chunks]) -> None:
        self._job: ReadJob | None = None
        self._chunks = begin(self._began)

    def _began(self, job: ReadJob) -> None:
        self._job = job

    def touch(self) -> None:
        """A row of the last list was taken: the time in which nothing is asked begins anew."""
        if self._job is not None:
            self._job.touch()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[Row]:
        return await anext(self._chunks)

    async def aclose(self) -> None:
        """Ends it; the reader thread is free at once."""
        await self._chunks.aclose()
