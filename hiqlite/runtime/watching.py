"""The watch for a split brain: nodes tell each other what they know to be settled, and compare it.

Over the requests between nodes: when two of them meet, when a leader, a term or the members change, and from time to
time. Decides nothing: what contradicts what stands in `split_brain.py`. Must not know engines, sockets or files.
Invariant: whatever peers say, or do not say, the node goes on; each contradiction is logged once when it comes and once
when it is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol

from hiqlite import observe
from hiqlite.errors import HiqliteError

from .split_brain import Book, Contradiction, Kind
from .word import Word

REQUEST = "watch"
ASK_S = 2.0
SETTLE_S = 0.5  # after a change: an election is over by then, most often
WORRIED_S = 2.0  # how often it asks while something is wrong
STRANGER_S = 10.0  # a node of another cluster that is there is dialled, or dials, far more often
log = observe.logger("runtime")

Asked = Mapping[str, int]  # group -> index of an entry whose term is wanted


class Peers(Protocol):
    """What the watch needs of the network."""

    def serve(self, name: str, handler: Callable[[int, Any], Any]) -> None: ...
    def reached(self) -> list[int]: ...
    async def request(self, peer_id: int, name: str, payload: Any, timeout: float) -> Any: ...


class Watch:
    """Of one node.

    Args:
        process: a number that no other process has.
        word: what this node says now; given what a peer asks for, its `held` answer that.
        removed: ids that were members once and are none any more.
        heard: told what a peer of this cluster says.
        interval_s: how often all are asked when nothing happens.
    """

    def __init__(
        self,
        own_id: int,
        process: int,
        word: Callable[[Asked, tuple[int, ...]], Word],
        peers: Peers,
        removed: Callable[[], Collection[int]],
        heard: Callable[[Word], None],
        interval_s: float,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._process = process
        self._word = word
        self._peers = peers
        self._removed = removed
        self._heard = heard
        self._interval_s = interval_s
        self._loop = loop
        self._book = Book(own_id)
        self._settled: object = None
        self._due_s = loop.time() + interval_s
        self._strangers: dict[int, tuple[float, bytes]] = {}  # id -> seen when, its cluster's id if that is proven
        self._standing: dict[tuple[Kind, str], Contradiction] = {}
        peers.serve(REQUEST, self._answer)

    # -- what is known

    @property
    def contradictions(self) -> tuple[Contradiction, ...]:
        """All that stand now: within the cluster, and nodes of other clusters that were met in its place."""
        return tuple(self._standing.values())

    @property
    def strangers(self) -> tuple[int, ...]:
        """Ids of nodes that are looked for and turn out to be of another cluster, and are not met in this one."""
        return tuple(sorted(self._strangers))

    # -- what happens

    def greeting(self) -> dict[str, Any]:
        """What each handshake says of this node: which process it is, and who was met as two. Two that answer as
        one node take the links from each other: between two handshakes there may be time for nothing else."""
        return {"process": self._process, "twice": list(self._book.twice)}

    def greeted(self, peer_id: int, greeting: Mapping[str, Any]) -> None:
        """A peer's handshake said so; one of an earlier version says nothing."""
        match greeting:
            case {"process": int(process), "twice": [*twice]} if process > 0:
                self._book.meet(peer_id, process, twice)
                self._judge()

    def connected(self, peer_id: int) -> None:
        """The links to a peer are up: it is of this cluster, or of none yet. The two compare what they know soon."""
        self._strangers.pop(peer_id, None)
        self._soon()

    def met_stranger(self, peer_id: int, cluster_id: bytes) -> None:
        """A node that has the secret and this id is of another cluster; `cluster_id`: which, if that is proven."""
        known = self._strangers.get(peer_id, (0.0, b""))[1]
        self._strangers[peer_id] = self._loop.time(), cluster_id or known
        self._judge()

    def look(self) -> bool:
        """To be called regularly; whether it is time to ask all peers."""
        own = self._word({}, self._book.twice)
        settled = (
            own.cluster_id,
            {name: (one.term, one.leader_id, one.members and one.members.index) for name, one in own.groups.items()},
        )
        if settled != self._settled:
            self._settled = settled
            self._book.hear(own)
            self._soon()
        now_s = self._loop.time()
        gone = [number for number, (seen_s, _) in self._strangers.items() if now_s > seen_s + STRANGER_S]
        for number in gone:
            del self._strangers[number]
        if gone:
            self._judge()
        return now_s >= self._due_s

    async def ask_all(self) -> None:
        """One round: everybody who can be reached hears what this node knows, and says the same."""
        pause_s = min(WORRIED_S, self._interval_s) if self._standing else self._interval_s
        self._due_s = self._loop.time() + pause_s
        self._book.forget(self._removed())
        await asyncio.gather(*(self._ask(peer_id) for peer_id in self._peers.reached()))
        self._judge()

    # -- inside

    def _soon(self) -> None:
        self._due_s = min(self._due_s, self._loop.time() + SETTLE_S)

    async def _ask(self, peer_id: int) -> None:
        own = self._word({}, self._book.twice)
        self._book.hear(own)
        try:
            answer = await self._peers.request(peer_id, REQUEST, own.to_wire(), ASK_S)
            self._hear(own, Word.from_wire(peer_id, answer))
        except HiqliteError as error:
            log.debug("node %d did not say what it knows: %s", peer_id, error)

    async def _answer(self, peer_id: int, payload: Any) -> Any:
        asked = Word.from_wire(peer_id, payload)
        own = self._word({name: one.committed[0] for name, one in asked.groups.items()}, self._book.twice)
        self._book.hear(own)
        self._hear(own, asked)
        self._judge()
        return own.to_wire()

    def _hear(self, own: Word, said: Word) -> None:
        self._book.hear(said)
        if said.cluster_id and said.cluster_id == own.cluster_id:
            self._heard(said)

    def _judge(self) -> None:
        """Says what is new, and what is over."""
        found = {**self._book.contradictions(), **self._foreign()}
        for name, one in found.items():
            if name not in self._standing:
                log.error("split brain: %s", one.text)
        for name, one in self._standing.items():
            if name not in found:
                log.warning("no split brain any more: %s", one.text)
        if found.keys() - self._standing.keys():
            self._soon()
        self._standing = found

    def _foreign(self) -> dict[tuple[Kind, str], Contradiction]:
        if not self._strangers:
            return {}
        own = self._word({}, ()).cluster_id
        return {
            (Kind.CLUSTER, str(number)): Contradiction(
                Kind.CLUSTER, (number,), f"node {number} belongs to another cluster{_named(other)}, not to this "
                f"one{_named(own)}",
            )
            for number, (_, other) in sorted(self._strangers.items())
        }  # fmt: skip


def _named(cluster_id: bytes) -> str:
    return f" ({cluster_id.hex()[:16]})" if cluster_id else ""
