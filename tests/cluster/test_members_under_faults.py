"""Wishes about members while leaders die and writes go on: each is fulfilled in the end, and no write is lost."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import hiqlite
from hiqlite.transport.rpc import RpcClient
from tests.cluster.growing import Growing, growing


async def write_on(nodes: Growing, number: int, stop: asyncio.Event) -> set[int]:
    """Unique rows through one node; those that were acknowledged."""
    acknowledged: set[int] = set()
    value = number * 1_000_000
    while not stop.is_set():
        value += 1
        try:
            await nodes.client(number).execute("INSERT INTO t VALUES (?)", [value], timeout=5)
            acknowledged.add(value)
        except hiqlite.ClusterError as error:
            assert error.outcome in ("unknown", "not_applied")
    return acknowledged


async def test_wishes_are_fulfilled_while_leaders_die(tmp_path: Path) -> None:
    """The caller is told of no fault: it asks the next leader, and what had happened already counts."""
    everybody = {1, 2, 3, 4, 5}
    async with growing(tmp_path, logs_until_snapshot=200) as nodes:
        await nodes.form(*everybody)
        await nodes.members(everybody, set())
        await nodes.client(1).execute("CREATE TABLE t (x)")
        stop = asyncio.Event()
        writing = asyncio.create_task(write_on(nodes, 5, stop))
        for _ in range(4):
            one = next(number for number in (1, 2, 3, 4) if number != nodes.leader)
            for wished in (nodes.client(5).demote, nodes.client(5).promote):
                call = asyncio.create_task(wished(one, timeout=60))
                leader = nodes.leader
                if leader not in (0, 5, one):
                    await nodes.kill(leader)
                    await nodes.start(leader, everybody)
                await call
                roles = {member.id: member.role for member in await nodes.client(5).members()}
                assert set(roles) == everybody
            await nodes.members(everybody, set())
        stop.set()
        acknowledged = await writing
        await nodes.check_equal()
        found = {row[0] for row in await nodes.client(1).query("SELECT x FROM t", consistency="linearizable")}
        assert acknowledged <= found and acknowledged


async def test_members_are_replaced_one_by_one_under_load(tmp_path: Path) -> None:
    """All five that are there in the end are others than the three of the beginning; no acknowledged write is lost."""
    async with growing(tmp_path, logs_until_snapshot=100) as nodes:
        await nodes.form(1, 2, 3)
        await nodes.members({1, 2, 3}, set())
        await nodes.client(1).execute("CREATE TABLE t (x)")
        await nodes.start(4, (1, 4))
        await nodes.client(1).add_learner(4, *nodes.addresses(4))
        stop = asyncio.Event()
        writing = asyncio.create_task(write_on(nodes, 4, stop))
        await nodes.client(1).promote(4)
        for old, new in ((1, 5), (2, 6), (3, 7)):
            await nodes.start(new, (4, new))
            await nodes.client(4).replace_member(old, new, *nodes.addresses(new))
            await asyncio.wait_for(nodes.client(old).closed(), 20)
            await nodes.stop(old)
        stop.set()
        acknowledged = await writing
        await nodes.members({4, 5, 6, 7}, set())
        await nodes.check_equal()
        found = {row[0] for row in await nodes.client(7).query("SELECT x FROM t", consistency="linearizable")}
        assert acknowledged <= found and acknowledged


async def test_an_api_port_refuses_changes_that_cannot_be_read(tmp_path: Path) -> None:
    """ProtocolError or UsageError each, and nothing changes."""
    async with growing(tmp_path) as nodes:
        await nodes.form(1, 2)
        await nodes.members({1, 2}, set())
        config = nodes.running[1].config
        address = config.address
        assert address is not None
        good = {"wish": ["demote", [2]], "addresses": [], "timeout": 1.0}
        async with await RpcClient.connect(
            address.api_host, address.api_port, config.secret_api or "", timeout=5.0
        ) as api:
            for name, payload in (
                ("manage", None), ("manage", {}), ("manage", {**good, "wish": 7}),
                ("manage", {**good, "wish": ["x", [1]]}), ("manage", {**good, "addresses": 7}),
                ("manage", {**good, "addresses": [[3, "a:1"]]}),
                ("manage", {**good, "addresses": [[3, "nowhere", ""]]}), ("manage", {**good, "timeout": None}),
                ("manage", {**good, "timeout": -1}), ("manage", {**good, "timeout": True}), ("transfer", None),
                ("transfer", {"to": "1", "group": None, "timeout": 1.0}), ("nothing", None),
                ("transfer", {"to": -1, "group": None, "timeout": 1.0}),
                ("transfer", {"to": 1, "group": "third", "timeout": 1.0}),
                ("transfer", {"to": 1, "group": 3, "timeout": 1.0}),
            ):  # fmt: skip
                with pytest.raises((hiqlite.ProtocolError, hiqlite.UsageError)):
                    await api.call(name, payload, timeout=10.0)
            word = await api.call("members", None, timeout=10.0)
            assert [one["role"] for one in word["members"]] == ["voter", "voter"]
            await api.call("manage", good | {"timeout": 10.0}, timeout=20.0)
        await nodes.members({1}, {2})


async def test_peers_refuse_words_that_cannot_be_read(tmp_path: Path) -> None:
    """A peer that sends nonsense about members changes nothing; the links live on."""
    async with growing(tmp_path) as nodes:
        await nodes.form(1, 2)
        await nodes.members({1, 2}, set())
        links = nodes.running[1].links[0]
        for name, payload in (
            ("members", None), ("members", {}), ("members", {"addresses": [], "members": b"x"}),
            ("members", {"addresses": [[1, 2]], "members": None}), ("manage", None), ("manage", [1.0, None]),
            ("manage", [1.0, [["demote", [2]], None]]), ("manage", [-1.0, [["demote", [2]], []]]),
            ("transfer", [1.0, "x"]), ("transfer", None),
        ):  # fmt: skip
            with pytest.raises((hiqlite.ProtocolError, hiqlite.UsageError, hiqlite.NotLeader)):
                await links.request(2, name, payload, 5.0)
        await nodes.members({1, 2}, set())
        await nodes.check_equal()
