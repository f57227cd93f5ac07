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
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"


# Below the ports that systems give to who dials: else a dial could be given the port of a node that is down.
PORTS = range(20_000, 32_000)


def hold_ports(count: int, among: Sequence[int] = PORTS) -> list[socket.socket]:
    """Sockets on ports that nobody else is given while they are open, though a node can listen there.

    Else two clusters, of two processes too, could be given the same port while a node is down.
    """
    held: list[socket.socket] = []
    for port in random.sample(among, len(among)):
        if len(held) == count:
            break
        one = socket.socket()
        try:
            one.bind((HOST, port))  # fails where somebody listens, and where somebody holds it
        except OSError:
            one.close()
        else:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # from now on a node may listen beside it
            held.append(one)
    return held


class LocalCluster(dict[int, dict[str, Any]]):
    """Config keys of each node by its id; the ports that `held` are on are nobody else's as long as this lives."""

    def __init__(self, configs: dict[int, dict[str, Any]], held: Iterable[socket.socket]) -> None:
        super().__init__(configs)
        weakref.finalize(self, let_go, [one.detach() for one in held])


def let_go(descriptors: Iterable[int]) -> None:
    for one in descriptors:
        os.close(one)


def loopback_cluster(folder: Path, size: int, settings: dict[str, Any], chosen: Sequence[int] = ()) -> LocalCluster:
    """Config keys of each node by id 1..size; `settings` go to all of them and win.

    Args:
        chosen: two ports for each node; by default such as nobody uses, held as long as the result lives.
    """
    held = [] if chosen else hold_ports(2 * size)
    ports = iter(chosen or [one.getsockname()[1] for one in held])
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
