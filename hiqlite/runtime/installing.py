"""Another database in place of this group's: what waits for entries learns what became of them.

Sees the group's parts, the engine's words and a port that changes files; must not know files or SQL. Invariants:
nothing is handed to the state machine while it changes, and what is handed to it afterwards begins right behind where
the new database stands; the engine hears one end of every install that it agreed to, unless the group fails of it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from hiqlite.clock import Clock
from hiqlite.engine.model import Membership
from hiqlite.errors import NotLeader, Overloaded, StorageError

from .applier import Applier
from .proposals import Proposals
from .receiving import IncomingFile
from .waiting import AppliedWaiters
from .window import Window


class InstallingEngine(Protocol):
    """What the engine has to say about images that come in."""

    @property
    def term(self) -> int: ...
    @property
    def leader_id(self) -> int: ...
    def begin_install(self, index: int, now_ns: int) -> bool:
        """Whether an image at `index` may take the database's place; then nothing is given to apply until its end."""
        ...

    def installed(self, index: int, term: int, membership: Membership, now_ns: int) -> None: ...
    def install_failed(self, now_ns: int) -> None:
        """The database is as it was."""
        ...


class Applying(Protocol):
    """What of a group an install touches."""

    applier: Applier
    proposals: Proposals
    waiters: AppliedWaiters
    window: Window

    def fail(self, error: StorageError) -> None: ...
    def pump(self) -> None: ...


class Databases(Protocol):
    """Puts an image into a database's place, in two steps."""

    async def place(self, image: IncomingFile, membership: Membership) -> Any:
        """The image is durably the current database, for the next start too, and so is who was in force at its index.
        When it raises, nothing has changed."""
        ...

    async def open_placed(self, placed: Any) -> None:
        """The state machine and all readers are on it. When it raises, the state machine is closed."""
        ...


async def switch(group: Applying, opening: Callable[[], Awaitable[None]]) -> int:
    """Pauses the feed, lets `opening` put another database under the state machine, and goes on from its index.

    Returns:
        The index that is applied now.

    Raises:
        what `opening` raises; then the feed stays paused, because nobody knows where the state machine stands.
    """
    await group.applier.pause()
    await opening()
    group.applier.go_on()
    group.proposals.passed_over()
    group.waiters.reached(group.applier.applied_index)
    return group.applier.applied_index


class GroupInstaller:
    """Installs images under one group; the `Installer` of its `ImageReceiver`.

    Args:
        needs: whether this node needs an image at an index, as far as its engine knows.
        membership_of: the membership that a manifest carries as bytes. Raises SnapshotCorruption.
    """

    def __init__(
        self,
        group: Applying,
        engine: InstallingEngine,
        databases: Databases,
        *,
        needs: Callable[[int], bool],
        membership_of: Callable[[bytes], Membership],
        clock: Clock,
    ) -> None:
        self._group = group
        self._engine = engine
        self._databases = databases
        self._needs = needs
        self._membership_of = membership_of
        self._clock = clock

    def check_sender(self, peer_id: int, term: int) -> None:
        """Only the leader of this term may send anything, as soon as this node knows it."""
        if term < self._engine.term:
            raise NotLeader(f"node {peer_id} led in term {term}, it is {self._engine.term} by now")
        if term > self._engine.term or self._engine.leader_id != peer_id:
            raise Overloaded(f"node {peer_id} is not known here as the leader of term {term} yet")

    def standing(self, image: IncomingFile) -> tuple[int, int] | None:
        """Where the image would lead, when this node holds all of it already."""
        return None if self._needs(image.applied_index) else (image.applied_index, image.applied_term)

    async def install(self, image: IncomingFile) -> tuple[int, int]:
        """Returns the image's place once it is the database, durably, and the engine knows.

        Raises:
            SnapshotCorruption: its membership is none. Overloaded: not now. StorageError: the disk failed.
        """
        index, term = image.applied_index, image.applied_term
        membership = self._membership_of(image.membership)
        if not self._engine.begin_install(index, self._now()):
            raise Overloaded(f"an image at {index} cannot be installed now")
        try:
            placed = await self._databases.place(image, membership)
        except BaseException:
            self._engine.install_failed(self._now())
            raise
        try:
            await switch(self._group, lambda: self._databases.open_placed(placed))
            self._engine.installed(index, term, membership, self._now())
        except Exception as error:
            self._group.fail(error if isinstance(error, StorageError) else StorageError(f"internal error: {error!r}"))
            raise
        self._group.pump()
        return index, term

    def _now(self) -> int:
        return self._clock.monotonic_ns()
