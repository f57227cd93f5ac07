"""What a node's network tells the rest of the node, whatever carries the bytes.

Knows the words of consensus only; must not know sockets. Invariant: all hooks are called on the loop's thread, and none
of them waits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hiqlite.engine.model import Message


class Hooks:
    """Callbacks that the owner sets before `start()`; until then each one does nothing.

    on_message(group, message, body, sender_id): a consensus message; `body` holds the records of an append, if any.
    on_read_end(): once per read event, after all its frames.
    on_connected(peer_id, epoch): the own log and control links to that peer are up; appends may be sent under `epoch`.
    on_lost(peer_id, refused): with False: that is over. With True: every link to that peer is down and a new dial was
        refused just now (again for each refused dial; also for a peer that was never connected).
    on_unheard(peer_id): the link on which that peer hears the answers to its writes ended, whatever `on_lost` says.
    on_greeting(peer_id, greeting): what the peer said about itself in the handshake of a control link, either way.
    greeting(): what to say about this node; asked for each control link.
    takes_part(peer_id, incarnations): whether a node that gives these is one that counts here; it comes in whoever else
        is connected with its id.
    on_forward(group, peer_id, body), on_forward_reply(group, peer_id, body): forwarded writes and their answers.
    on_stranger(peer_id, cluster_id): a node that was looked for, or that came, belongs to another cluster; `cluster_id`
        is empty when it only said so itself, which nothing proves. Again for each try.
    on_beat_socket(peer_id, descriptor, key, dialed): a beat connection, used both ways; the receiver owns the
        descriptor and closes it. A new one replaces the older. `dialed`: this node has to call `redial_beat` when the
        connection is lost. Left None, there are no beat links.
    """

    def __init__(self) -> None:
        self.on_message: Callable[[int, Message, bytes | None, int], None] = lambda *_: None
        self.on_read_end: Callable[[], None] = lambda: None
        self.on_connected: Callable[[int, int], None] = lambda *_: None
        self.on_lost: Callable[[int, bool], None] = lambda *_: None
        self.on_unheard: Callable[[int], None] = lambda *_: None
        self.on_greeting: Callable[[int, dict[str, Any]], None] = lambda *_: None
        self.greeting: Callable[[], dict[str, Any]] = dict
        self.takes_part: Callable[[int, Mapping[int, int]], bool] = lambda *_: False
        self.on_forward: Callable[[int, int, bytes], None] = lambda *_: None
        self.on_forward_reply: Callable[[int, int, bytes], None] = lambda *_: None
        self.on_stranger: Callable[[int, bytes], None] = lambda *_: None
        self.on_beat_socket: Callable[[int, int, bytes, bool], None] | None = None
