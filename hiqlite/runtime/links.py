"""What a group needs of the network, bound to its number by the node. A type only."""

from __future__ import annotations

from typing import Protocol

from hiqlite.engine.model import Message


class Links(Protocol):
    """Sends what may be sent now, and tells whether it could; waits for nothing."""

    def send(self, peer_id: int, message: Message, body: bytes | None) -> bool: ...
    def send_forward(self, peer_id: int, body: bytes) -> bool: ...
    def troubles(self) -> str: ...  # which peers are not reached, and why, for people; empty: none
