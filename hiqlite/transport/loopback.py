"""Settings of a cluster whose nodes all live on this machine: for tests, the bench and the demo.

Knows sockets and the names of settings. Invariant: ports are chosen together, so no two of them are equal.
"""

from __future__ import annotations

import secrets
import socket
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"


def free_ports(count: int) -> list[int]:
    """Ports of the loopback address that nobody listens on now."""
    sockets = [socket.create_server((HOST, 0)) for _ in range(count)]
    ports: list[int] = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def loopback_cluster(folder: Path, size: int, settings: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """Config keys of each node by id 1..size; `settings` go to all of them and win."""
    ports = iter(free_ports(2 * size))
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
