"""The watch over the room on a node's disk: while little is left, its groups take nothing new.

Part of the composition root. Invariant: whatever the disk says or does not say, the node goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from hiqlite import observe
from hiqlite.node_group import NodeGroup
from hiqlite.node_storage import Storage

LOOK_S: Final = 0.1  # what a disk can take in this time is far less than what is kept free
log = observe.logger("node")


async def watch_space(storage: Storage, groups: Mapping[int, NodeGroup]) -> None:
    """Until it is cancelled."""
    said = ""
    while True:
        try:
            low = await asyncio.wrap_future(storage.meta.worker.submit(storage.space.look))
        except OSError as error:
            if str(error) != said:
                said = str(error)
                log.warning("nobody knows how much room is left on the disk: %s", error)
        else:
            for group in groups.values():
                group.group.troubles.space_low(low)
        await asyncio.sleep(LOOK_S)
