"""One other node: the links that this node dialled to it, and those that it dialled here.

Knows links and hooks; must not know what frames mean, nor who is a member. Each node dials its own links: requests
and appends leave on them, and the answers come back on the same connection. So nobody has to agree on who dials, a
restarted node is reached from both sides at once, and both sides see a refused dial of a dead process. (Beats need no
answers: one connection carries both ways, and the node with the lower id dials it.)

Invariant: `on_connected` and `on_lost(.., False)` alternate, and every session has an epoch that was never used before
in this process; an epoch's answers come over the very connection that its appends went out on.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any

from hiqlite import observe
from hiqlite.errors import AuthenticationError, PeerUnreachable, ProtocolError, TransportError

from .handshake import Dialler
from .hooks import Hooks
from .link import Link, Refusals, hand_over
from .rpc import Calls, dial
from .session import LinkKind, Session
from .settings import NetworkSettings

log = observe.logger("transport")

BEAT_KEY_BYTES = 16
DIALLED = (LinkKind.LOG, LinkKind.CONTROL)  # both are needed for a session


class Peer:
    """Keeps the links to one peer alive, and says when they come and go.

    Args:
        addresses: where the peer may be, the likeliest first; they are tried in turn.
        dialler: makes the handshake of a new link.
        make_link: makes a link of a proven connection.
        next_epoch: gives a number that was never given before.
    """

    def __init__(
        self,
        peer_id: int,
        addresses: Sequence[tuple[str, int]],
        hooks: Hooks,
        calls: Calls,
        settings: NetworkSettings,
        refusals: Refusals,
        *,
        dialler: Callable[[int, LinkKind, asyncio.Transport], Dialler],
        make_link: Callable[[Session, asyncio.Transport], Link],
        next_epoch: Callable[[], int],
    ) -> None:
        self.id = peer_id
        self._addresses = self._given = tuple(addresses)
        self._wanted = asyncio.Event()
        self.epoch = 0
        self.connected = False
        self.out: dict[LinkKind, Link] = {}  # dialled here
        self.incoming: dict[LinkKind, Link] = {}  # dialled there
        self._hooks = hooks
        self._calls = calls
        self._settings = settings
        self._refusals = refusals
        self._dialler = dialler
        self._make_link = make_link
        self._next_epoch = next_epoch
        self._tasks: list[asyncio.Task[None]] = []
        self._wake = {kind: asyncio.Event() for kind in (*DIALLED, LinkKind.BEAT)}
        self._ended = {kind: asyncio.Event() for kind in (*DIALLED, LinkKind.BEAT)}
        self._closed = False
        self._bulk_dial = asyncio.Lock()
        self._reachable = True  # so that one line per change is logged, not one per dial
        self.trouble = ""  # why the last dial failed

    @property
    def is_missed(self) -> bool:
        """Whether links to it are wanted and there are none."""
        return self._wanted.is_set() and not self.connected

    # ---- life

    def start(self, kinds: tuple[LinkKind, ...]) -> None:
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._keep(kind)) for kind in kinds]

    @property
    def address(self) -> tuple[str, int]:
        """Where it was found last, or is looked for first."""
        return self._addresses[0]

    def look_at(self, addresses: Sequence[tuple[str, int]], *, dial: bool) -> None:
        """Where it may be from now on, and whether it is dialled. Links that stand are kept either way."""
        if dial:
            self._wanted.set()
        else:
            self._wanted.clear()
        if tuple(addresses) != self._given:
            self._addresses = self._given = tuple(addresses)
            self.wake()

    async def close(self) -> list[Link]:
        """Stops dialling and closes all links; gives them, so that their end can be awaited."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        links = [*self.out.values(), *self.incoming.values()]
        self.connected = False  # the owner knows: nothing is reported as lost
        for link in links:
            link.close()
        return links

    def left_to_parent(self) -> None:
        """In a forked child, which must not dial in the parent's name."""
        self._closed = True

    # ---- the way out

    def route(self, *, answer: bool) -> Link | None:
        """The control link for a message that is repeated, or whose link is watched: questions leave on the own one,
        answers on the peer's; else on the other."""
        first, second = (self.incoming, self.out) if answer else (self.out, self.incoming)
        return first.get(LinkKind.CONTROL) or second.get(LinkKind.CONTROL)

    def asks_on(self) -> Link | None:
        """Where writes leave: the own link of a session, whose end is told. On two links later ones could overtake."""
        return self.out.get(LinkKind.CONTROL) if self.connected else None

    def answers_on(self) -> Link | None:
        """Where their answers leave: the link that they came on; who asked hears of its end."""
        return self.incoming.get(LinkKind.CONTROL)

    def hang_up(self) -> None:
        """The peer does not read its answers: it is told so by the end of their link."""
        if (link := self.answers_on()) is not None:
            link.close(PeerUnreachable(f"node {self.id} does not read its answers"), flush=False)

    async def bulk(self) -> Link:
        """The bulk link to this peer; dialled now if there is none.

        Raises:
            PeerUnreachable, ProtocolError, AuthenticationError: it cannot be had.
        """
        async with self._bulk_dial:
            if LinkKind.BULK not in self.out:
                try:
                    await self._dial(LinkKind.BULK, self.address)
                except (OSError, TimeoutError, UnicodeError) as error:
                    raise PeerUnreachable(f"node {self.id} does not answer: {error or 'timeout'}") from error
            link = self.out.get(LinkKind.BULK)
        if link is None:
            raise PeerUnreachable(f"the bulk link to node {self.id} ended at once")
        return link

    # ---- links that come and go

    def adopt(self, link: Link) -> None:
        """Takes a link that the peer dialled. It replaces an older one: who dials again has lost that one."""
        older = self.incoming.get(link.kind)
        if older is not None:
            older.close(flush=False)
        self.incoming[link.kind] = link
        self.wake()

    @property
    def has_links(self) -> bool:
        return bool(self.out or self.incoming)

    def drop(self) -> None:
        """Closes all links: who was at their other end is not there any more."""
        for link in (*self.out.values(), *self.incoming.values()):
            link.close(flush=False)

    def wake(self) -> None:
        """The peer is alive: dial now what is waiting for its turn."""
        for event in self._wake.values():
            event.set()

    def redial(self, kind: LinkKind) -> None:
        """The current connection of `kind` is over, by the word of its owner."""
        self._ended[kind].set()

    def closed(self, link: Link, error: Exception | None) -> None:
        """A link of this peer ended."""
        if link.kind is LinkKind.CONTROL:
            self._calls.lost(link, error)
        if not link.dialed:
            if self.incoming.get(link.kind) is link:
                del self.incoming[link.kind]
                if link.kind is LinkKind.CONTROL and not self._closed:
                    self._hooks.on_unheard(self.id)
            return
        if self.out.get(link.kind) is not link:
            return
        del self.out[link.kind]
        if link.kind is LinkKind.BULK:
            return  # dialled when there is something to send
        self._ended[link.kind].set()
        if self.connected:
            self.connected = False
            log.info("lost node %d: %s", self.id, error or "connection closed")
            self._hooks.on_lost(self.id, False)

    def _opened(self, session: Session, transport: asyncio.Transport, leftover: bytes) -> None:
        kind = session.kind
        if kind is LinkKind.BULK:
            if self._closed:
                raise PeerUnreachable("the network was closed")
            link = self.out[kind] = self._make_link(session, transport)
            link.attach()
            link.feed(leftover)
            return
        self._ended[kind].clear()
        if kind is LinkKind.BEAT:
            key = session.key("beat", BEAT_KEY_BYTES)
            descriptor = hand_over(transport)
            assert self._hooks.on_beat_socket is not None
            self._hooks.on_beat_socket(self.id, descriptor, key, True)
            return
        link = self._make_link(session, transport)
        link.attach()
        self.out[kind] = link
        if kind is LinkKind.CONTROL:
            self._hooks.on_greeting(self.id, dict(session.claims.greeting or {}))
        if not self.connected and all(needed in self.out for needed in DIALLED):
            self.connected = True
            self.epoch = self._next_epoch()
            self._reachable, self.trouble = True, ""
            log.info("connected to node %d", self.id)
            self._hooks.on_connected(self.id, self.epoch)
        link.feed(leftover)

    # ---- dialling

    async def _keep(self, kind: LinkKind) -> None:
        """Dials one kind of link for ever: at once when it is lost, then with growing pauses."""
        loop = asyncio.get_running_loop()
        failures = tries = 0
        while not self._closed:
            await self._pause(kind, failures)
            await self._wanted.wait()
            begun = loop.time()
            self._wake[kind].clear()  # before the dial: a sign of life while it fails shortens the next wait
            address = self._addresses[tries % len(self._addresses)]
            tries += 1
            try:
                await self._dial(kind, address)
            except (AuthenticationError, ProtocolError) as error:
                failures = 1 << 10  # people have to change something: no hurry
                self._note_failure(kind, address, error)
            except (OSError, TimeoutError, TransportError, UnicodeError) as error:  # the last: no name of a host
                failures += 1
                self._note_failure(kind, address, error)
            except Exception:  # a hook failed: the link is closed, the node says why, and dialling goes on
                failures += 1
                log.exception("taking a new link to node %d failed", self.id)
            else:
                tries = 0
                self._found_at(address)
                await self._ended[kind].wait()
                lived = loop.time() - begun
                failures = 0 if lived >= self._settings.settled_s else failures + 1

    def _found_at(self, address: tuple[str, int]) -> None:
        """From now on that one is tried first."""
        if address in self._addresses:
            self._addresses = (address, *(other for other in self._addresses if other != address))

    async def _dial(self, kind: LinkKind, address: tuple[str, int]) -> None:
        if self._closed:
            raise PeerUnreachable("the network was closed")
        host, port = address

        def make(transport: asyncio.Transport) -> Dialler:
            return self._dialler(self.id, kind, transport)

        await dial(host, port, make, self._opened, self._settings, self._refusals)

    def _note_failure(self, kind: LinkKind, address: tuple[str, int], error: Exception) -> None:
        refused = isinstance(error, ConnectionRefusedError | ConnectionResetError)
        self.trouble = f"{address[0]}:{address[1]}: {error or type(error).__name__}"
        if self._reachable:
            self._reachable = False
            log.info("node %d at %s:%d is not reachable: %s", self.id, *address, error or type(error).__name__)
        if refused and address == self.address and kind is not LinkKind.BEAT and not self.out:
            self._hooks.on_lost(self.id, True)

    async def _pause(self, kind: LinkKind, failures: int) -> None:
        """Waits before dial number `failures` + 1; a sign of life from the peer ends the wait."""
        if failures == 0:
            return
        longest = min(self._settings.backoff_min_s * 2.0 ** min(failures - 1, 10), self._settings.backoff_max_s)
        try:
            async with asyncio.timeout(longest * random.uniform(0.5, 1.0)):
                await self._wake[kind].wait()
        except TimeoutError:
            return

    def metrics(self) -> dict[str, Any]:
        links = {f"{kind.name.lower()}_out": link.metrics() for kind, link in self.out.items()}
        links.update({f"{kind.name.lower()}_in": link.metrics() for kind, link in self.incoming.items()})
        address = f"{self.address[0]}:{self.address[1]}"
        return {"address": address, "connected": self.connected, "epoch": self.epoch, "links": links}
