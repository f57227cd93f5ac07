"""The database of a simulated process: entries applied, checkpoints, the log purged behind them, images taken.

Must not decide what is committed or who needs an image. Invariant: the log lets go only of what a checkpoint covers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .database import Image
from .holding import Holding
from .images import ImageReceiver, ImageSender
from .reading import Reader

if TYPE_CHECKING:
    from hiqlite.engine.state import State

    from .node import Node

MS = 1_000_000


class Storing(Holding):
    """The part of a node that keeps a database."""

    state: State
    seen_commit: int
    proposals: dict[int, int]
    to_apply: list[int]
    applying: bool
    apply_ns: int  # at most
    receiver: ImageReceiver
    sender: ImageSender
    reader: Reader
    replaces_open = False  # the image that was installed last took the place of a database beyond its log

    def turn_soon(self) -> None:
        raise NotImplementedError

    @property
    def applied(self) -> int:
        return self.database.applied

    def look_at_commit(self) -> None:
        """What is committed is in the log once all that was to be written is handed out."""
        if not self.state.outbox.writes:
            commit_index = self.state.commit_index
            self.checks.committed(self, self.seen_commit, commit_index)
            self.seen_commit = commit_index

    def apply_later(self) -> None:
        if not self.applying and self.to_apply:
            self.applying = True
            world = self.world
            world.after(1 + int(world.chance() * self.apply_ns), self.apply, self.life)

    def apply(self, life: int) -> None:
        if life != self.life:
            return
        if not self.runs():
            self.world.after(20 * MS, self.apply, life)
            return
        self.applying = False
        if not self.to_apply or self.receiver.installing:
            return
        first, last = self.applied + 1, self.to_apply.pop(0)
        self.record_membership(first, last)
        self.database.apply(self.terms[first : last + 1], self.values[first : last + 1])
        self.raft.applied(last)
        self.checks.applied(self, first, last)
        if self.proposals:
            for index in range(first, last + 1):
                value = self.proposals.pop(index, 0)
                if value:
                    self.checks.acknowledged(self, index, value)
        if self.reader.waiting:
            self.reader.serve()
        self.apply_later()

    def record_membership(self, first: int, last: int) -> None:
        """The metadata name a configuration before an entry from there on is applied."""
        known = self.cluster.memberships
        if known:
            for value in self.values[first : last + 1]:
                if value in known and known[value].index > self.database.recorded.index:
                    self.database.recorded = known[value]

    # ------------------------------------------------------------------ purging and images

    def tidy(self) -> None:
        """Now and then: a checkpoint, and the log lets go of what lies behind it, but for a tail."""
        profile = self.cluster.profile
        self.world.after(1 + self.world.below(2 * profile.purge_every_ns), self.tidy)
        self.purge(profile.tail)

    def purge(self, tail: int) -> None:
        if not self.runs() or self.receiver.installing or self.database.applied <= self.raft.base_index:
            return
        self.database.make_durable(self.raft.synced_index)
        limit = self.raft.purge_limit
        self.checks.may_purge(self, limit)
        if not self.cluster.network.calm and self.world.chance() < 0.1:
            # The log grew too large: an image under way has to begin anew. What is damaged stays: its term may be lost.
            limit = min([self.applied, *[low - 1 for low, _ in self.raft.faulty]])
        index = min(self.database.durable, limit) - self.world.below(tail + 1)
        if index > self.raft.base_index and len(self.disk.terms) > index:
            self.turn()
            self.checks.purging(self, index)
            self.disk.purge(index)
            self.raft.purged(index)
            self.window_start = max(self.window_start, index + 1)
            self.turn_soon()

    def began_beyond_open(self: Node) -> bool:
        """Whether the database was ahead of the log, and no leader has confirmed it."""
        return self.began_beyond and self.state.unconfirmed

    def installed(self, image: Image) -> None:
        """The new database is in use; nobody learns here what became of the proposals that it holds."""
        for index in [index for index in self.proposals if index <= image.index]:
            del self.proposals[index]
        self.checks.installed(self, image)
        self.replaces_open = self.began_beyond_open()
        self.raft.installed(image.index, image.term, image.membership, self.now())
        self.turn()
        self.checks.install_ended(self, image)
        self.reader.serve()

    def receive_image(self, sender_id: int, image: Image, term: int) -> None:
        self.receiver.offered(sender_id, image, term)

    def receive_chunk(self, sender_id: int, number: int, chunk: int, term: int) -> None:
        self.receiver.chunk(sender_id, number, chunk, term)

    def hear_of_image(self, what: str, peer_id: int, number: int, detail: int) -> None:
        getattr(self.sender, what)(peer_id, number, detail)

    def receiver_of_next_life(self: Node) -> ImageReceiver:
        """The chunks of an image that arrived before may still be there."""
        before, receiver = self.receiver, ImageReceiver(self)
        if not before.installing and self.world.chance() < 0.5:
            receiver.image, receiver.held = before.image, before.held
        return receiver

    def begin_behind(self, io_sequence: int, index: int, term: int) -> None:
        """The image that was just installed is all there is."""
        self.checks.resetting(self, index, term)
        database = self.database
        self.terms, self.values = database.terms[: index + 1], database.values[: index + 1]
        self.disk.push((io_sequence, "reset", index, list(self.terms), list(self.values)))
