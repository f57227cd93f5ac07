"""The address book of a node on its disk and on its way to the others: whenever it changed, and not too often.

Part of the composition root. Invariant: what changed is kept and told soon, however fast it changes; two nodes that say
different things of themselves for ever (a copy of a node runs) cost little.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future

from hiqlite import observe
from hiqlite.config import NodeConfig
from hiqlite.errors import ProtocolError
from hiqlite.logstore.meta import Meta
from hiqlite.runtime.addresses import Address, AddressBook, entries_from_wire, entries_to_wire, join_address
from hiqlite.runtime.sparing import Sparing

TELL_EVERY_S = 0.2
log = observe.logger("node")


class NodeBook(AddressBook):
    """Of one node.

    Args:
        tell: the others are to be told of what is news here.
    """

    def __init__(
        self, config: NodeConfig, meta: Meta, tell: Callable[[], None], loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(config.node_id, configured_addresses(config), kept_in(meta))
        self._meta = meta
        self._tell = tell
        self._changes = Sparing(self._changed, TELL_EVERY_S, loop)

    def changed(self) -> None:
        self._changes.ask()

    def close(self) -> None:
        self._changes.close()

    def keep(self) -> None:
        """On disk soon; what is lost of it is heard again."""

        def kept(done: Future[None]) -> None:
            if not done.cancelled() and (error := done.exception()) is not None:
                log.warning("where the other nodes are could not be kept: %s", error)

        wire = entries_to_wire(self.entries)
        self._meta.worker.submit(self._meta.set_addresses, wire).add_done_callback(kept)

    def _changed(self) -> None:
        self.keep()
        self._tell()


def kept_in(meta: Meta) -> dict[int, Address]:
    """What an earlier life of the node had heard; it is heard again where it cannot be read."""
    try:
        return entries_from_wire(meta.addresses())
    except ProtocolError as error:
        log.warning("where the other nodes are was kept, and cannot be read: %s", error)
        return {}


def configured_addresses(config: NodeConfig) -> dict[int, tuple[str, str]]:
    return {
        node.id: (join_address(node.raft_host, node.raft_port), join_address(node.api_host, node.api_port))
        for node in config.nodes
    }
