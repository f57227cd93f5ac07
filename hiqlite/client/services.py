"""What a node lends to the client in its process, and the calls that the client makes of it.

Must not know how a node keeps either.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from hiqlite.clock import Clock
from hiqlite.errors import SnapshotCorruption
from hiqlite.runtime.group import Group
from hiqlite.runtime.health import Health
from hiqlite.runtime.metrics import Metrics
from hiqlite.runtime.waiting import ReadRound
from hiqlite.statemachine.inspector import Inspector, StatementInfo
from hiqlite.statemachine.reader import Reader

from .management import MembersCalls


class NodeCalls(Protocol):
    """The node behind its client."""

    @property
    def closed(self) -> asyncio.Event: ...
    def check_process(self) -> None: ...
    async def shutdown(self) -> None: ...
    def metrics(self) -> Metrics: ...
    def health(self) -> Health: ...
    def leads(self, group: str) -> bool: ...
    async def snapshot(self) -> int: ...
    async def transfer_leadership(self, to: int, group: str | None, timeout: float) -> None: ...

    @property
    def members(self) -> MembersCalls: ...


@dataclass(slots=True)
class Services:
    """What a node lends to its client."""

    group: Group
    reader: Reader
    inspector: Inspector
    cheap: Mapping[str, StatementInfo]  # texts that `execute` may propose at once where nothing waits
    cheap_returning: Mapping[str, StatementInfo]  # the same of `execute_returning`
    read_round: ReadRound
    clock: Clock
    request_timeout_s: float
    migration_timeout_s: float
    query_iter_idle_s: float
    query_iter_total_s: float
    max_entry_bytes: int
    node: NodeCalls
    content_hash: Callable[[], Awaitable[str]]
    rehearse: Callable[[Iterable[bytes], float, Callable[[int, bytes], object]], Awaitable[None]]  # on a copy
    damaged: Callable[[SnapshotCorruption], None]  # told of a database that a read found damaged
