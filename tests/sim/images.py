"""Images of a database on their way from a leader to a peer, in chunks that are asked for one by one.

Does what the runtime does on both sides: an image is made, offered, fetched, kept and gone on with after a cut,
installed in two steps (durable, then in use), and told to the engine. Must not decide who needs one. Invariant: a
transfer that the engine agreed to is reported once, as finished or failed, unless the process or its reign ended.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .database import Image

if TYPE_CHECKING:
    from .node import Node

MS = 1_000_000
SILENCE_NS = 300 * MS  # the line counts as cut after that
CALM_CHUNKS = 3


@dataclass(slots=True)
class Transfer:
    """One image on its way to one peer, seen by its sender."""

    image: Image
    term: int
    heard_ns: int


class ImageSender:
    """All images that one process sends."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.life = node.life
        self.kept: list[Image] = []  # newest last
        self.transfers: dict[int, Transfer] = {}
        self.asked: set[int] = set()

    def send(self, peer_id: int, resume_index: int) -> None:
        """The engine asks for an image; making one takes time."""
        if peer_id in self.transfers or peer_id in self.asked:
            return
        self.asked.add(peer_id)
        self.node.world.after(1 + self.node.world.below(8 * MS), self._start, peer_id, resume_index)

    def _start(self, peer_id: int, resume_index: int) -> None:
        node = self.node
        if node.life != self.life or peer_id not in self.asked:
            return
        if not node.runs():
            node.world.after(20 * MS, self._start, peer_id, resume_index)
            return
        self.asked.discard(peer_id)
        known = [image for image in self.kept if image.index == resume_index]
        for image in (*known[-1:], self._make()):
            if node.raft.image_started(peer_id, image.index, node.now()):
                self._offer(peer_id, image)
                break
        node.turn_soon()

    def _make(self) -> Image:
        node, database = self.node, self.node.database
        calm = node.cluster.network.calm
        chunks = CALM_CHUNKS if calm else 1 + node.world.below(node.cluster.profile.image_chunks)
        index = database.applied
        image = Image(
            node.cluster.new_values(1)[0], index, database.terms[index], tuple(database.terms),
            tuple(database.values), node.membership_at(index), chunks,
        )  # fmt: skip
        node.checks.image_made(node, image)
        self.kept = [*self.kept[-1:], image]
        return image

    def _offer(self, peer_id: int, image: Image) -> None:
        node = self.node
        node.world.note(f"node {node.id} sends node {peer_id} an image at {image.index}")
        transfer = Transfer(image, node.raft.term, node.world.now_ns)
        self.transfers[peer_id] = transfer
        node.raft.image_progressed(peer_id, node.now())
        peer = node.cluster.nodes[peer_id]
        node.cluster.network.send_bulk(node, peer_id, peer.receive_image, node.id, image, transfer.term)
        node.world.after(SILENCE_NS, self._watch, peer_id, transfer)

    def _watch(self, peer_id: int, transfer: Transfer) -> None:
        """The line counts as cut when nothing came back for a while."""
        node = self.node
        if node.life != self.life or self.transfers.get(peer_id) is not transfer:
            return
        left = transfer.heard_ns + SILENCE_NS - node.world.now_ns
        if left <= 0 and node.runs():
            self.failed(peer_id, transfer, resumable=True)
        else:
            node.world.after(max(left, 20 * MS), self._watch, peer_id, transfer)

    def heard(self, peer_id: int, number: int, chunk: int) -> None:
        """The peer asks for a chunk; all before it have arrived."""
        node = self.node
        transfer = self.transfers.get(peer_id)
        if transfer is None or transfer.image.number != number:
            return
        transfer.heard_ns = node.world.now_ns
        last = chunk + 1 >= transfer.image.chunks
        node.raft.image_progressed(peer_id, 0 if last else node.now())
        peer = node.cluster.nodes[peer_id]
        node.cluster.network.send_bulk(node, peer_id, peer.receive_chunk, node.id, number, chunk, transfer.term)

    def done(self, peer_id: int, number: int, index: int) -> None:
        """The peer stands at `index`, durably."""
        transfer = self.transfers.get(peer_id)
        if transfer is None or transfer.image.number != number:
            return
        del self.transfers[peer_id]
        self.node.checks.image_finished(self.node, peer_id, index)
        self.node.raft.image_finished(peer_id, self.node.now())
        self.node.turn_soon()

    def refused(self, peer_id: int, number: int, resumable: bool) -> None:
        transfer = self.transfers.get(peer_id)
        if transfer is not None and transfer.image.number == number:
            self.failed(peer_id, transfer, resumable)

    def failed(self, peer_id: int, transfer: Transfer, resumable: bool) -> None:
        node = self.node
        node.world.note(f"node {node.id}: the image to node {peer_id} failed, resumable {resumable}")
        del self.transfers[peer_id]
        node.raft.image_failed(peer_id, resumable, node.now())
        node.turn_soon()

    def stop(self) -> None:
        """The reign is over, or members left: nothing is reported of what was under way."""
        self.transfers.clear()
        self.asked.clear()


class ImageReceiver:
    """The image that one process takes; a part of it may outlive the process."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.life = node.life
        self.image: Image | None = None
        self.held = 0  # chunks
        self.installing = False

    def offered(self, sender_id: int, image: Image, term: int) -> None:
        node = self.node
        if term < node.raft.term or self.installing:
            self._answer(sender_id, "refused", image.number, True)
            return
        if self.image is None or self.image.number != image.number:
            self.image, self.held = image, 0
        if self.held == image.chunks:
            self._install(sender_id, image)
        else:
            self._answer(sender_id, "heard", image.number, self.held)

    def chunk(self, sender_id: int, number: int, chunk: int, term: int) -> None:
        """Chunks come in order; another one is a late copy."""
        image = self.image
        if image is None or image.number != number or chunk != self.held or term < self.node.raft.term:
            return
        self.held += 1
        if self.held < image.chunks:
            self._answer(sender_id, "heard", number, self.held)
        else:
            self._install(sender_id, image)

    def _install(self, sender_id: int, image: Image) -> None:
        node = self.node
        if not node.raft.begin_install(image.index, node.now()):
            standing = node.raft.commit_index >= image.index and not node.state.faulty and not node.state.unconfirmed
            self.image = None
            if standing:
                self._answer(sender_id, "done", image.number, image.index)
            else:
                self._answer(sender_id, "refused", image.number, False)
            return
        self.installing = True
        node.turn_soon()
        span_ns = 10 * MS if node.cluster.network.calm else node.cluster.profile.install_ns
        node.world.after(1 + node.world.below(span_ns), self._place, sender_id, image)

    def _place(self, sender_id: int, image: Image) -> None:
        """Durable, in one step: a crash before it finds the old database, one after it the new one."""
        node = self.node
        if node.life != self.life:
            return
        if not node.runs():
            node.world.after(20 * MS, self._place, sender_id, image)
            return
        if not node.cluster.network.calm and node.world.chance() < 0.1:
            self.installing = False
            node.raft.install_failed(node.now())
            self._answer(sender_id, "refused", image.number, True)
            node.apply_later()
            node.turn_soon()
            return
        node.world.note(f"node {node.id}: the image at {image.index} is its database")
        node.database.become(image)
        node.to_apply.clear()
        node.checks.placed(node, image)
        node.world.after(1 + node.world.below(5 * MS), self._open, sender_id, image)

    def _open(self, sender_id: int, image: Image) -> None:
        node = self.node
        if node.life != self.life:
            return
        if not node.runs():
            node.world.after(20 * MS, self._open, sender_id, image)
            return
        self.installing = False
        self.image = None
        node.installed(image)
        self._answer(sender_id, "done", image.number, image.index)

    def _answer(self, sender_id: int, what: str, number: int, detail: int) -> None:
        node = self.node
        sender = node.cluster.nodes[sender_id]
        node.cluster.network.send_bulk(node, sender_id, sender.hear_of_image, what, node.id, number, detail)
