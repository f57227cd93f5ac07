"""Settings of a cluster whose nodes all live on this machine: for tests, the bench and the demo.

Knows sockets and the names of settings. Invariant: ports are chosen together, so no two of them are equal.
"""

from __future__ import annotations

import random
import secrets
import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"


# Below the ports that systems give to who dials: else a dial could be given the port of a node that is down.
PORTS = range(20_000, 32_000)


def free_ports(count: int) -> list[int]:
    """Ports of the loopback address that nobody listens on now."""
    sockets: list[socket.socket] = []
    for port in random.sample(PORTS, len(PORTS)):
        if len(sockets) == count:
            break
        with suppress(OSError):
            sockets.append(socket.create_server((HOST, port)))
    ports: list[int] = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def hold_ports(count: int) -> list[socket.socket]:
    """Sockets on ports that nobody else is given while they are open, though a node can listen there.

    Else two tests that run at once could be given the same port while a node is down.
    """
    held = []
    for _ in range(count):
        one = socket.socket()
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind((HOST, 0))
        held.append(one)
    return held


def loopback_cluster(
    folder: Path, size: int, settings: dict[str, Any], chosen: Sequence[int] = ()
) -> dict[int, dict[str, Any]]:
    """Config keys of each node by id 1..size; `settings` go to all of them and win.

    Args:
        chosen: two ports for each node; by default such as are free.
    """
    ports = iter(chosen or free_ports(2 * size))
    shared = {
        "nodes": [f"{number} {HOST}:{next(ports)} {HOST}:{next(ports)}" for number in range(1, size + 1)],
        "listen_addr_raft": HOST,
        "listen_addr_api": HOST,
        "secret_raft": secrets.token_hex(16),
        "secret_api": secrets.token_hex(16),
    }
    return {
        number: {**shared, "node_id": number, "data_dir": str(folder / f"node{number}"), **settings}
        for number in range(1, size + 1)
    }
