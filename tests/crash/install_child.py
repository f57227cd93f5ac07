"""Installs image after image into a data folder and says the index of each once it is installed. Killed by its parent.

Arguments: the data folder, then image files in order, each with its manifest beside it.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from pathlib import Path

from hiqlite.config import NodeConfig
from hiqlite.node_storage import Storage


async def main(folder: str, images: list[Path]) -> None:
    config = NodeConfig.from_mapping({"data_dir": folder, "wal_size": "1 MiB"})
    storage = await Storage.open(config, asyncio.get_running_loop())
    print("open", storage.db.writer.applied_index, flush=True)
    stop = threading.Event()
    for image in images:
        data = image.read_bytes()
        incoming = storage.db.images.begin(image.with_suffix(".manifest").read_bytes(), stop)
        if incoming.manifest.applied_index <= storage.db.writer.applied_index:
            incoming.discard()
            continue
        while not incoming.complete:
            size = incoming.manifest.chunk_size(incoming.offset)
            incoming.write(incoming.offset, data[incoming.offset : incoming.offset + size])
        incoming.finish(stop)
        await storage.db.switch_to(incoming)
        print(storage.db.writer.applied_index, flush=True)
    print("end", flush=True)
    await asyncio.Event().wait()


asyncio.run(main(sys.argv[1], [Path(name) for name in sys.argv[2:]]))
