"""Settings of a cluster whose nodes all live on this machine: for tests, the bench and the demo.

Knows sockets and the names of settings. Invariant: ports that are held are nobody else's, so no two clusters have one
in common.
"""

from __future__ import annotations

import os
import random
import secrets
import socket
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"


# Below the ports that systems give to who dials: else a dial could be given the port of a node that is down.
PORTS = range(20_000, 32_000)


class HeldPorts(list[int]):
    """Ports of the loopback address that nobody else is given until `close`, or as long as this lives, though a node
    can listen there. Else two clusters, of two processes too, could be given the same port while a node is down."""

    def __init__(self, sockets: Sequence[socket.socket]) -> None:
        super().__init__(one.getsockname()[1] for one in sockets)
        self.close = weakref.finalize(self, let_go, [one.detach() for one in sockets])

    def __enter__(self) -> HeldPorts:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def let_go(descriptors: Sequence[int]) -> None:
    for one in descriptors:
        os.close(one)


def hold_ports(count: int, among: Sequence[int] = PORTS) -> HeldPorts:
    """`count` ports that nobody uses, fewer where there are no more."""
    sockets: list[socket.socket] = []
    for port in random.sample(among, len(among)):
        if len(sockets) == count:
            break
        one = socket.socket()
        try:
            one.bind((HOST, port))  # fails where somebody listens, and where somebody holds it
        except OSError:
            one.close()
        else:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # from now on a node may listen beside it
            sockets.append(one)
    return HeldPorts(sockets)


class LocalCluster(dict[int, dict[str, Any]]):
    """Config keys of each node by its id; `held` are ports that it keeps as long as it lives."""

    def __init__(self, configs: dict[int, dict[str, Any]], held: Sequence[int]) -> None:
        super().__init__(configs)
        self._held = held


def loopback_cluster(folder: Path, size: int, settings: dict[str, Any], chosen: Sequence[int] = ()) -> LocalCluster:
    """Config keys of each node by id 1..size; `settings` go to all of them and win.

    Args:
        chosen: two ports for each node; by default such as nobody uses, held as long as the result lives.
    """
    held = chosen or hold_ports(2 * size)
    ports = iter(held)
    shared = {
        "nodes": [f"{number} {HOST}:{next(ports)} {HOST}:{next(ports)}" for number in range(1, size + 1)],
        "listen_addr_raft": HOST,
        "listen_addr_api": HOST,
        "secret_raft": secrets.token_hex(16),
        "secret_api": secrets.token_hex(16),
    }
    configs = {
        number: {**shared, "node_id": number, "data_dir": str(folder / f"node{number}"), **settings}
        for number in range(1, size + 1)
    }
    return LocalCluster(configs, held)
