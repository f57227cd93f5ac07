"""One node's whole network: its raft port, its peers, and every frame that comes or goes.

Knows links, peers and the frame types; must not know the engine, the log, or what an entry says. Nothing here waits for
a peer: what cannot leave now is dropped and reported as such, the engine repeats it.

Invariant: a message reaches `on_message` only from a link whose handshake proved its sender; appends and their replies
of one connection arrive in the order they were sent.
"""

from __future__ import annotations

import asyncio
import secrets as random_secrets
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from hiqlite import observe
from hiqlite._accel.frames import Frame
from hiqlite.ending import Ending
from hiqlite.engine.model import AppendReply, AppendRequest, Message, ProbeReply, RepairReply, VoteReply
from hiqlite.errors import PeerUnreachable, ProtocolError

from . import wire
from .bulk import Bulk, ImageSource
from .bulk_wire import MANIFEST_BYTES_MAX, Sender
from .busy_poll import BusyPoll
from .handshake import Acceptor, Dialler, Handshake
from .hooks import Hooks
from .link import Link, Refusals, end_all, hand_over, settle
from .listener import RaftListener
from .lives import SIGN_OF_LIFE, Lives, gives_it
from .peer import BEAT_KEY_BYTES, Peer
from .rpc import Calls, Handler, Services
from .session import Claims, LinkKind, Session
from .settings import FRAME_SLACK_BYTES, NetworkSettings
from .tls import channel_binding
from .wire import FrameType

log = observe.logger("transport")

PORT = "raft"
AnyHandshake = TypeVar("AnyHandshake", bound=Handshake)

_APPEND = int(FrameType.APPEND)
_APPEND_REPLY = int(FrameType.APPEND_REPLY)
ANSWERS = (VoteReply, ProbeReply, RepairReply)  # they go back on the link that the question came on


class Network(Hooks):
    """The real `engine.ports.Transport`. Set the hooks, then `start()`.

    Args:
        addresses: raft addresses of each known node, the likeliest first; the own id may be among them.
        listen: where to listen; None: this node only dials.
        secret: of the raft port; two while one is being rotated, the current one first.
        incarnations: group -> the own incarnation, said in each handshake.
        cluster_id: 32 bytes, or empty while the cluster is not formed.
    """

    def __init__(
        self,
        node_id: int,
        *,
        addresses: Mapping[int, Sequence[tuple[str, int]]],
        listen: tuple[str, int] | None,
        secret: str | Sequence[str],
        loop: asyncio.AbstractEventLoop | None = None,
        settings: NetworkSettings | None = None,
        incarnations: Mapping[int, int] | None = None,
        cluster_id: bytes = b"",
    ) -> None:
        super().__init__()
        assert node_id > 0
        self.node_id = node_id
        self.settings = settings or NetworkSettings()
        self.refusals = Refusals()
        self._loop = loop
        self._secrets = (secret,) if isinstance(secret, str) else tuple(secret)
        self._incarnations = dict(incarnations or {})
        self._calls = Calls(node_id, self.settings.requests_max)
        self._services = Services(node_id, self.settings.requests_max, self.settings.requests_bytes_max)
        # Epochs are told apart from those of an earlier life of this process by their upper half.
        self._epoch = random_secrets.randbits(30) << 32
        self.bulk = Bulk(self.settings, connect=self._bulk_link, sender=self._sender)
        self._links: set[Link] = set()
        self._busy_poll = BusyPoll(self.settings.busy_poll_us * 1000)
        self.spoken: dict[int, int] = {}  # peer -> protocol version of the link that was made last
        self._peers: dict[int, Peer] = {}
        self._lives = Lives(self._peers, self._sign_of_life, lambda *one: self.takes_part(*one))
        self._services.add(SIGN_OF_LIFE, gives_it)
        self._running = False
        self._ending = Ending()
        for peer_id, targets in addresses.items():
            if peer_id != node_id:
                self.set_peer(peer_id, targets)
        self._listener: RaftListener | None = None
        if listen is not None:
            judged = partial(self._judged, self._acceptor)
            self._listener = RaftListener(*listen, judged, self._proven, self.settings, self.refusals)
        self.identify(cluster_id=cluster_id)

    # ---- life

    async def start(self) -> None:
        """Binds the raft port and begins to dial.

        Raises:
            ConfigError: the address cannot be bound.
        """
        assert self._loop is None or self._loop is asyncio.get_running_loop()
        if self._listener is not None:
            await self._listener.start()
        self._running = True
        for peer in self._peers.values():
            peer.start(self._kinds(peer.id))

    async def close(self) -> None:
        """Stops dialling and listening and ends all links; what was sent before still leaves, for a moment."""
        await self._ending.reach(self._close)

    async def _close(self) -> None:
        self._running = False
        await self._lives.close()
        await self.bulk.close()
        links = [link for peer in list(self._peers.values()) for link in await peer.close()]
        await self._services.close()
        await end_all(links, self.settings.close_timeout_s)
        if self._listener is not None:
            await self._listener.close()
        self.bulk.close_thread()
        await settle()

    def left_to_parent(self) -> None:
        """In a forked child: nobody is dialled, nobody is taken in."""
        self._running = False
        for peer in self._peers.values():
            peer.left_to_parent()

    @property
    def listen_port(self) -> int:
        """The raft port that is bound (of interest when 0 was asked for); 0 when this node only dials."""
        return self._listener.port if self._listener else 0

    def identify(self, *, cluster_id: bytes | None = None, incarnations: Mapping[int, int] | None = None) -> None:
        """The node's cluster or incarnations changed: from now on frames and handshakes say so."""
        if incarnations is not None:
            self._incarnations = dict(incarnations)
        if cluster_id is not None:
            assert len(cluster_id) in (0, 32)
            self._cluster_id = cluster_id
            self._cluster = int.from_bytes(cluster_id[:8], "little")
            for link in self._links:
                link.reader.cluster = self._cluster

    def set_peer(self, peer_id: int, addresses: Sequence[tuple[str, int]], *, dial: bool = True) -> None:
        """A node that may come in, and where it is; it is dialled from now on, or no more. Links that stand are kept.

        Args:
            addresses: the likeliest first, at least one.
        """
        assert peer_id != self.node_id and addresses
        if (reach := self.settings.reach) is not None:
            addresses = list(dict.fromkeys(reach(peer_id, address) for address in addresses))
        peer = self._peers.get(peer_id)
        if peer is None:
            peer = self._peers[peer_id] = self._make_peer(peer_id, addresses)
            if self._running:
                peer.start(self._kinds(peer_id))
        peer.look_at(addresses, dial=dial)

    # ---- sending

    def send(self, peer_id: int, group: int, message: Message, body: bytes | None = None) -> bool:
        """Sends a consensus message; False when it was dropped: no link, or too much unsent."""
        peer = self._peers.get(peer_id)
        if peer is None:
            return False
        kind = type(message)
        if kind is AppendRequest:
            link = peer.out.get(LinkKind.LOG)
        elif kind is AppendReply:
            link = peer.incoming.get(LinkKind.LOG)
        else:
            link = peer.route(answer=kind in ANSWERS)
        if link is None:
            return False
        return link.send(*wire.encode_message(message, group, self._cluster, body))

    def send_forward(self, peer_id: int, group: int, body: bytes) -> bool:
        return self._send_plain(peer_id, Peer.asks_on, FrameType.FORWARD, group, body)

    def send_forward_reply(self, peer_id: int, group: int, body: bytes) -> bool:
        return self._send_plain(peer_id, Peer.answers_on, FrameType.FORWARD_REPLY, group, body)

    def answers(self, peer_id: int) -> bool:
        """Whether there is a link for answers to that peer; it is another one than those that `connected` is about."""
        peer = self._peers.get(peer_id)
        return peer is not None and peer.answers_on() is not None

    def hang_up(self, peer_id: int) -> None:
        """See `Peer.hang_up`."""
        self._peers[peer_id].hang_up()

    async def request(self, peer_id: int, name: str, payload: Any, timeout: float) -> Any:
        """Asks a peer and waits for its answer.

        Raises:
            PeerUnreachable: there is no link, or it ended before the answer came.
            RequestTimeout: no answer in time.
            HiqliteError: whatever the peer's handler raised.
        """
        peer = self._peers.get(peer_id)
        link = peer.route(answer=False) if peer else None
        if link is None:
            raise PeerUnreachable(f"there is no link to node {peer_id}")
        return await self._calls.ask(link, self._cluster, name, payload, timeout)

    async def offer_image(
        self,
        peer_id: int,
        group: int,
        term: int,
        source: ImageSource,
        heard: Callable[[int], None] = lambda _offset: None,
    ) -> tuple[int, int]:
        """Hands an image to a peer over the bulk link; see `Bulk.offer`. Offers of peers go to `bulk.on_offer`."""
        return await self.bulk.offer(peer_id, group, term, source, heard)

    def serve(self, name: str, handler: Handler) -> None:
        """`await handler(peer_id, payload)` answers the requests called `name`."""
        self._services.add(name, handler)

    def redial_beat(self, peer_id: int) -> None:
        """The beat connection with that peer is gone: make a new one (a peer with the lower id makes it itself)."""
        peer = self._peers.get(peer_id)
        if peer is not None:
            peer.redial(LinkKind.BEAT)

    def epochs(self) -> dict[int, int]:
        """The peers that are connected, each with the epoch of its links."""
        return {peer.id: peer.epoch for peer in self._peers.values() if peer.connected}

    def connected(self, peer_id: int) -> bool:
        peer = self._peers.get(peer_id)
        return peer is not None and peer.connected

    def troubles(self) -> dict[int, str]:
        """The peers that are not connected and whose last dial failed, each with the reason."""
        return {peer.id: peer.trouble for peer in self._peers.values() if peer.trouble and peer.is_missed}

    def incarnation_of(self, peer_id: int, group: int) -> int:
        """Who the peer is in a group by the handshake of its newest link; 0: not heard of, or not in it."""
        return self._lives.of(peer_id, group)

    def met(self, peer_id: int, group: int, incarnation: int) -> None:
        """The peer itself said, over a link, who it is in a group since it made that."""
        self._lives.met(peer_id, group, incarnation)

    def metrics(self) -> dict[str, Any]:
        return {
            "peers": {peer_id: peer.metrics() for peer_id, peer in self._peers.items()},
            "requests_waiting": len(self._calls),
            "unproven": len(self._listener.gate) if self._listener else 0,
            "refusals": dict(self.refusals.counts),
        }

    # ---- inside

    def _send_plain(self, to: int, on: Callable[[Peer], Link | None], kind: FrameType, group: int, body: bytes) -> bool:
        link = on(peer) if (peer := self._peers.get(to)) else None
        return link is not None and link.send(*wire.encode_plain(kind, self._cluster, self.node_id, body, group=group))

    def _sender(self) -> Sender:
        return Sender(self._cluster, self.node_id)

    async def _bulk_link(self, peer_id: int) -> Link:
        peer = self._peers.get(peer_id)
        if peer is None or not self._running:
            raise PeerUnreachable(f"there is no node {peer_id} to send an image to")
        return await peer.bulk()

    def _make_peer(self, peer_id: int, addresses: Sequence[tuple[str, int]]) -> Peer:
        return Peer(
            peer_id, addresses, self, self._calls, self.settings, self.refusals,
            dialler=partial(self._judged, self._dialler), make_link=self._make_link, next_epoch=self._next_epoch,
        )  # fmt: skip

    def _kinds(self, peer_id: int) -> tuple[LinkKind, ...]:
        # One beat connection per pair carries both ways, because its bytes need no answers: the lower id dials it.
        beats = self.on_beat_socket is not None and self.node_id < peer_id
        return (LinkKind.CONTROL, LinkKind.LOG, LinkKind.BEAT) if beats else (LinkKind.CONTROL, LinkKind.LOG)

    def _next_epoch(self) -> int:
        self._epoch += 1
        return self._epoch

    def _claims(self) -> Claims:
        return Claims(self._cluster_id, self._incarnations, None)

    def _claims_and_greeting(self) -> Claims:
        return Claims(self._cluster_id, self._incarnations, self.greeting())

    def _dialler(self, peer_id: int, kind: LinkKind, transport: asyncio.Transport) -> Dialler:
        claims = self._claims_and_greeting if kind is LinkKind.CONTROL else self._claims
        binding = channel_binding(transport, dialed=True)
        return Dialler(
            self._secrets, PORT, kind, self.node_id, peer_id, claims, binding=binding, versions=self.settings.versions
        )

    def _acceptor(self, transport: asyncio.Transport) -> Acceptor:
        # The kind of link is not known yet: the greeting goes along with each welcome, only control links hand it on.
        binding = channel_binding(transport, dialed=False)
        kinds = frozenset((LinkKind.LOG, LinkKind.CONTROL, LinkKind.BEAT, LinkKind.BULK))
        return Acceptor(
            self._secrets, PORT, kinds, self.node_id, self._claims_and_greeting,
            binding=binding, versions=self.settings.versions,
        )  # fmt: skip

    async def _sign_of_life(self, peer_id: int) -> None:
        await self.request(peer_id, SIGN_OF_LIFE, None, self.settings.sign_of_life_s)

    def _judged(self, make: Callable[..., AnyHandshake], *given: Any) -> AnyHandshake:
        handshake = make(*given)
        handshake.on_stranger = self.on_stranger
        handshake.admits = self._lives.admits
        return handshake

    def _proven(self, session: Session, transport: asyncio.Transport) -> None:
        peer = self._peers.get(session.peer_id)
        if peer is None or not self._running:
            transport.abort()
            return
        if session.kind is LinkKind.BEAT:
            if self.on_beat_socket is None:
                transport.abort()
                return
            key = session.key("beat", BEAT_KEY_BYTES)
            self.on_beat_socket(peer.id, hand_over(transport), key, False)
            peer.wake()
            return
        link = self._make_link(session, transport)
        link.attach()
        peer.adopt(link)
        if session.kind is LinkKind.CONTROL:
            self.on_greeting(peer.id, dict(session.claims.greeting or {}))

    def _make_link(self, session: Session, transport: asyncio.Transport) -> Link:
        settings = self.settings
        self._lives.proven(session.peer_id, session.claims.incarnations)
        self.spoken[session.peer_id] = session.version
        frame_bytes_max, buffer_bytes_max, on_frame = {
            LinkKind.LOG: (settings.frame_bytes_max, settings.log_buffer_bytes, self._log_frame),
            LinkKind.CONTROL: (settings.frame_bytes_max, settings.control_buffer_bytes, self._control_frame),
            LinkKind.BULK: (MANIFEST_BYTES_MAX + FRAME_SLACK_BYTES, settings.bulk_buffer_bytes, self.bulk.frame),
        }[session.kind]
        then = (lambda: None) if session.kind is LinkKind.BULK else self._busy_poll.of_link(lambda: self.on_read_end())
        link = Link(
            session, transport, cluster=self._cluster, frame_bytes_max=frame_bytes_max,
            buffer_bytes_max=buffer_bytes_max, on_frame=on_frame, on_closed=self._closed,
            on_read_end=then,
        )  # fmt: skip
        self._links.add(link)
        return link

    def _closed(self, link: Link, error: Exception | None) -> None:
        self._links.discard(link)
        self._services.lost(link)
        if link.kind is LinkKind.BULK:
            self.bulk.closed(link, error)
        if isinstance(error, ProtocolError):
            self.refusals.note("frame", error, f"node {link.peer_id}")
        peer = self._peers.get(link.peer_id)
        if peer is not None:
            peer.closed(link, error)

    def _log_frame(self, link: Link, frame: Frame) -> None:
        if frame.type != (_APPEND_REPLY if link.dialed else _APPEND):
            raise ProtocolError(f"a frame of type {frame.type} on the wrong end of a log link")
        self.on_message(frame.group, wire.decode_message(frame), frame.body or None, link.peer_id)

    def _control_frame(self, link: Link, frame: Frame) -> None:
        match frame.type:
            case FrameType.MESSAGE:
                self.on_message(frame.group, wire.decode_message(frame), None, link.peer_id)
            case FrameType.REPAIR_REPLY:
                self.on_message(frame.group, wire.decode_message(frame), frame.body, link.peer_id)
            case FrameType.FORWARD:
                self.on_forward(frame.group, link.peer_id, frame.body)
            case FrameType.FORWARD_REPLY:
                self.on_forward_reply(frame.group, link.peer_id, frame.body)
            case FrameType.REQUEST:
                self._services.asked(link, self._cluster, frame)
            case FrameType.RESPONSE:
                self._calls.answered(frame)
            case _:
                raise ProtocolError(f"a frame of type {frame.type} on a control link")
