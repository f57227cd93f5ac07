"""Ports of clusters on one machine: none is given twice, not even while the node that listens there is down."""

from __future__ import annotations

import socket
from pathlib import Path

from hiqlite.transport.loopback import HOST, hold_ports, loopback_cluster


def is_given_again(port: int) -> bool:
    """As any process would ask for it."""
    with hold_ports(1, [port]) as held:
        return held == [port]


def as_a_node_comes_and_goes(port: int) -> None:
    """It listens, is dialled, and ends."""
    with socket.create_server((HOST, port)) as server, socket.create_connection((HOST, port)):
        server.accept()[0].close()


def test_a_port_that_is_held_is_a_nodes_alone() -> None:
    with hold_ports(3) as ports:
        assert len(set(ports)) == 3
        for port in ports:
            assert not is_given_again(port)
            as_a_node_comes_and_goes(port)
            assert not is_given_again(port)
            as_a_node_comes_and_goes(port)


def test_a_port_where_somebody_listens_is_not_given() -> None:
    (port,) = held = hold_ports(1)
    with socket.create_server((HOST, port)):
        held.close()
        assert not is_given_again(port)
    assert is_given_again(port)


def test_ports_of_a_cluster_are_held_as_long_as_its_configs_live(tmp_path: Path) -> None:
    """Nodes come back to them."""
    configs = loopback_cluster(tmp_path, 1, {})
    ports = [int(address.rpartition(":")[2]) for address in configs[1]["nodes"][0].split()[1:]]
    as_a_node_comes_and_goes(ports[0])
    assert not any(map(is_given_again, ports))
    del configs
    assert is_given_again(ports[1])
