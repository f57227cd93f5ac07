"""Installs image after image into a data folder, each time in a forked process of its own: nothing is imported twice.

Obeys lines of JSON: {"folder": ..., "shadow": ..., "moment": ..., "images": [...]}; beside each image is its manifest.
Such a process says the index of each image once it is installed, and "end" before it kills itself; the power goes at
the given moment, 0: never. What is said last is "gone". Started with powerloss.c preloaded.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import sys
import threading
import traceback
from pathlib import Path

from hiqlite.config import NodeConfig
from hiqlite.node_storage import Storage


async def install(folder: str, images: list[Path]) -> None:
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
    os.kill(os.getpid(), signal.SIGKILL)


def life(folder: str, shadow: str, moment: int, images: list[str]) -> None:
    """All of a process that is killed, by itself at the latest."""
    os.environ["HQ_POWERLOSS_AT"] = str(moment)
    ctypes.CDLL(None).hq_powerloss_begin(os.fsencode(folder), os.fsencode(shadow))
    asyncio.run(install(folder, [Path(name) for name in images]))


if __name__ == "__main__":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # dies with the test
    for line in sys.stdin:
        if (child := os.fork()) == 0:
            try:
                life(**json.loads(line))
            finally:  # it was to kill itself: it has failed
                traceback.print_exc()
                os._exit(1)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), status
        print("gone", flush=True)
