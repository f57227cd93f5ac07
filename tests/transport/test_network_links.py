"""Networks on real sockets, on both loops: messages, sessions, requests, reconnecting, limits."""

from __future__ import annotations

import asyncio
import os
import random
import socket
from typing import Any

import pytest
from conftest import SECRET, Node, Run, joined, quick, until

from hiqlite._accel.records import encode_record
from hiqlite.engine.model import (
    AppendReply,
    AppendRequest,
    Identity,
    ProbeReply,
    ProbeRequest,
    TermRun,
    VoteReply,
    VoteRequest,
)
from hiqlite.errors import (
    ConfigError,
    HiqliteError,
    NotLeader,
    Overloaded,
    PeerUnreachable,
    RequestTimeout,
    UsageError,
)
from hiqlite.transport.session import LinkKind

A, B = Identity(1, 100), Identity(2, 200)


def append(epoch: int, count: int = 1, payload: bytes = b"payload", sequence: int = 1) -> tuple[AppendRequest, bytes]:
    body = b"".join(encode_record(1, 1, payload, 3, 10 + index) for index in range(1, count + 1))
    runs = (TermRun(3, 11, 10 + count),) if count else ()
    return AppendRequest(3, A, 10, 2, 9, 10 + count, runs, epoch, sequence), body


def test_every_message_reaches_its_peer_and_its_answer_comes_back(run: Run) -> None:
    """Appends and votes leave on the own links; the peer answers on the same connections."""

    async def work() -> None:
        one, two = Node(1), Node(2)
        async with joined(one, two):
            epoch = one.epoch(2)
            request, body = append(epoch, 3)
            empty, _ = append(epoch, 0, sequence=2)
            assert one.network.send(2, 1, request, body)
            assert one.network.send(2, 0, empty)
            assert one.network.send(2, 0, VoteRequest(4, A, True, 13, 3))
            assert one.network.send(2, 1, ProbeRequest(3, A, 8))
            await until(lambda: len(two.messages) == 4)
            assert sorted(two.messages, key=repr) == sorted(
                [(1, request, body, 1), (0, empty, None, 1), (0, VoteRequest(4, A, True, 13, 3), None, 1),
                 (1, ProbeRequest(3, A, 8), None, 1)], key=repr,
            )  # fmt: skip
            answers = [
                (1, AppendReply(3, B, True, 13, 0, 0, epoch, 1)),
                (0, AppendReply(3, B, False, 0, 9, 2, epoch, 2)),
                (0, VoteReply(4, B, True, False)),
                (1, ProbeReply(3, B, 8)),
            ]
            for group, answer in answers:
                assert two.network.send(1, group, answer)
            await until(lambda: len(one.messages) == 4)
            expected = [(group, answer, None, 2) for group, answer in answers]
            assert sorted(one.messages, key=repr) == sorted(expected, key=repr)
            assert two.reads > 0

    run(work())


def test_forwards_go_there_and_back_in_order(run: Run) -> None:
    """The order of what one node forwards is kept."""

    async def work() -> None:
        one, two = Node(1), Node(2)
        async with joined(one, two):
            bodies = [bytes([number]) * 100 for number in range(50)]
            assert all(one.network.send_forward(2, 1, body) for body in bodies)
            await until(lambda: len(two.forwards) == 50)
            assert two.forwards == [("forward", 1, 1, body) for body in bodies]
            assert two.network.send_forward_reply(1, 1, b"done")
            await until(lambda: one.forwards)
            assert one.forwards == [("reply", 1, 2, b"done")]

    run(work())


def test_writes_leave_only_on_links_whose_end_is_told(run: Run) -> None:
    """Not on the peer's, nor on half of the own ones: nobody would tell of their end, and two carry no order."""

    async def work() -> None:
        one, two = Node(1), Node(2)
        async with joined(one, two):
            peer, address = one.network._peers[2], ("127.0.0.1", two.network.listen_port)
            await until(lambda: LinkKind.CONTROL in peer.incoming)
            one.network.set_peer(2, [address], dial=False)
            for link in list(peer.out.values()):
                link.close()
            assert ("lost", 2, False) in one.events
            assert not one.network.send_forward(2, 1, b"on the peer's")
            await peer._dial(LinkKind.CONTROL, address)
            assert not one.network.send_forward(2, 1, b"on half of them")
            await peer._dial(LinkKind.LOG, address)
            assert one.network.send_forward(2, 1, b"whole")
            await until(lambda: two.forwards)
            assert two.forwards == [("forward", 1, 1, b"whole")]

    run(work())


def test_answers_leave_only_on_the_link_that_their_writes_came_on(run: Run) -> None:
    """Whoever asked gave up with its end, and its end is told to who would answer."""

    async def work() -> None:
        one, two = Node(1), Node(2)
        async with joined(one, two):
            await until(lambda: two.network.answers(1))
            one.network.set_peer(2, [("127.0.0.1", two.network.listen_port)], dial=False)
            one.network._peers[2].out[LinkKind.CONTROL].close()
            await until(lambda: two.unheard == [1])
            assert two.network.connected(1) and not two.network.answers(1)
            assert not two.network.send_forward_reply(1, 1, b"late")

    run(work())


def test_a_peer_that_does_not_read_its_answers_hears_that_its_link_ended(run: Run) -> None:
    """And dials again; the links that this node dialled stay."""

    async def work() -> None:
        one, two = Node(1), Node(2)
        async with joined(one, two):
            await until(lambda: two.network.answers(1))
            two.network.hang_up(1)
            assert two.unheard == [1]
            await until(lambda: ("lost", 2, False) in one.events)
            await until(lambda: one.network.connected(2) and two.network.answers(1))
            assert ("lost", 1, False) not in two.events

    run(work())


def test_a_great_append_arrives_byte_for_byte(run: Run) -> None:
    """An entry far larger than any buffer: one frame, received in place; it may pass the buffer limit when alone."""

    async def work() -> None:
        one, two = Node(1, settings=quick(log_buffer_bytes=1 << 16)), Node(2)
        async with joined(one, two):
            request, body = append(one.epoch(2), 1, random.Random(1).randbytes(9 << 20))
            assert one.network.send(2, 0, request, body)
            await until(lambda: two.messages)
            assert two.messages == [(0, request, body, 1)]

    run(work())


def test_greetings_are_current_and_told_to_both_sides(run: Run) -> None:
    """Each control link brings what the other end says of itself at that moment."""

    async def work() -> None:
        one, two = Node(1), Node(2)
        one.network.greeting = lambda: {"fresh": True, "configured": [1, 2]}
        two.network.greeting = lambda: {"fresh": False, "state": len(two.events)}
        async with joined(one, two):
            told = [event for event in one.events if event[0] == "greeting"]
            assert [event[2]["fresh"] for event in told] == [False] * len(told)
            await until(lambda: len([event for event in two.events if event[0] == "greeting"]) == 2)
            assert ("greeting", 1, {"fresh": True, "configured": [1, 2]}) in two.events

    run(work())


def test_a_restarted_peer_is_connected_again_under_a_new_epoch(run: Run) -> None:
    """Its loss is told at once, refused dials are told, and epochs never repeat."""

    async def work() -> None:
        one, two = Node(1), Node(2)
        async with joined(one, two):
            first = one.epoch(2)
            port = two.network.listen_port
            await two.network.close()
            await until(lambda: ("lost", 2, False) in one.events)
            await until(lambda: ("lost", 2, True) in one.events)
            assert not one.network.connected(2)
            assert one.events.index(("lost", 2, False)) < one.events.index(("lost", 2, True))
            assert not one.network.send(2, 0, ProbeRequest(1, A, 1))
            again = Node(2, listen=("127.0.0.1", port), addresses={1: [("127.0.0.1", one.network.listen_port)]})
            try:
                await again.network.start()
                await until(lambda: one.network.connected(2) and again.network.connected(1))
                assert one.epoch(2) > first
                assert one.network.send(2, 0, ProbeRequest(1, A, 1))
                await until(lambda: again.messages)
            finally:
                await again.network.close()

    run(work())


def test_a_session_ends_and_begins_in_turns(run: Run) -> None:
    """However links come and go, connected and lost alternate."""

    async def work() -> None:
        one, two = Node(1), Node(2)
        async with joined(one, two):
            for losses in range(1, 6):
                for link in list(two.network._links):
                    link.transport.abort()
                # by what was told, not by a look: links that come back within a millisecond would be missed
                await until(lambda losses=losses: one.events.count(("lost", 2, False)) >= losses)
                await until(lambda: one.network.connected(2) and two.network.connected(1))
        for node in (one, two):
            turns = [event[0] for event in node.events if event[0] == "connected" or event[2] is False]
            assert turns == ["connected", "lost"] * (len(turns) // 2) + ["connected"] * (len(turns) % 2)
            epochs = [event[2] for event in node.events if event[0] == "connected"]
            assert epochs == sorted(set(epochs))

    run(work())


def test_closing_tells_nobody_of_a_loss(run: Run) -> None:
    """Who closes its network knows; its hooks stay silent."""

    async def work() -> None:
        one, two = Node(1), Node(2)
        async with joined(one, two):
            await one.network.close()
            assert [event for event in one.events if event[0] == "lost"] == []

    run(work())


def test_an_append_over_the_buffer_limit_is_dropped_and_control_is_not(run: Run) -> None:
    """A peer that reads nothing fills the log link only; the links work on once it reads again."""

    async def work() -> None:
        one, two = Node(1, settings=quick(log_buffer_bytes=1 << 20)), Node(2)
        async with joined(one, two):
            (stalled,) = (link for link in two.network._links if link.kind == 1 and not link.dialed)
            stalled.transport.pause_reading()
            request, body = append(one.epoch(2), 1, bytes(200_000))
            sent = 0
            while one.network.send(2, 0, request, body):
                sent += 1
                await asyncio.sleep(0)
                assert sent < 1000
            assert one.network.send(2, 0, ProbeRequest(1, A, 1))
            await until(lambda: two.messages)
            assert one.network.metrics()["peers"][2]["links"]["log_out"]["dropped"] == 1
            stalled.transport.resume_reading()
            await until(lambda: len(two.messages) == sent + 1)
            assert one.network.send(2, 0, request, body)

    run(work())


def test_requests_that_are_being_served_are_bounded_in_bytes(run: Run) -> None:
    """One alone may have more; another one is refused meanwhile, and served once the first has its answer."""

    async def work() -> None:
        one, two = Node(1), Node(2, settings=quick(requests_bytes_max=1000))
        gate, begun = asyncio.Event(), asyncio.Event()

        async def wait(peer_id: int, payload: Any) -> Any:
            begun.set()
            await gate.wait()
            return len(payload)

        two.network.serve("wait", wait)
        async with joined(one, two):
            large = asyncio.ensure_future(one.network.request(2, "wait", bytes(5000), 30))
            await begun.wait()
            with pytest.raises(Overloaded):
                await one.network.request(2, "wait", b"small", 5)
            gate.set()
            assert await large == 5000
            assert await asyncio.gather(*(one.network.request(2, "wait", bytes(300), 5) for _ in range(3))) == [300] * 3

    run(work())


def test_requests_are_answered_or_fail_by_name(run: Run) -> None:
    """An answer, the handler's own error, an unknown name, a deadline, a failure inside, a dead link, too many."""

    async def work() -> None:
        one, two = Node(1, settings=quick(requests_max=3)), Node(2)
        gate = asyncio.Event()

        async def echo(peer_id: int, payload: Any) -> Any:
            return [peer_id, payload]

        async def refuse(peer_id: int, payload: Any) -> Any:
            raise NotLeader("ask node 3", leader_id=3)

        async def wait(peer_id: int, payload: Any) -> Any:
            await gate.wait()

        async def fail(peer_id: int, payload: Any) -> Any:
            raise ZeroDivisionError

        async def odd(peer_id: int, payload: Any) -> Any:
            return object()

        for handler in (echo, refuse, wait, fail, odd):
            two.network.serve(handler.__name__, handler)
        async with joined(one, two):
            ask = one.network.request
            assert await ask(2, "echo", {"a": b"b"}, 5) == [1, {"a": b"b"}]
            with pytest.raises(NotLeader) as caught:
                await ask(2, "refuse", None, 5)
            assert caught.value.leader_id == 3
            for name in ("unknown", "odd"):
                with pytest.raises(UsageError):
                    await ask(2, name, None, 5)
            with pytest.raises(RequestTimeout):
                await ask(2, "wait", None, 0.01)
            with pytest.raises(HiqliteError, match="internal error"):
                await ask(2, "fail", None, 5)
            with pytest.raises(PeerUnreachable):
                await ask(9, "echo", None, 5)
            waiting = [asyncio.ensure_future(ask(2, "wait", None, 30)) for _ in range(3)]
            await asyncio.sleep(0)
            with pytest.raises(Overloaded):
                await ask(2, "echo", None, 5)
            await two.network.close()
            for answer in waiting:
                with pytest.raises(PeerUnreachable):
                    await answer
            assert one.network.metrics()["requests_waiting"] == 0

    run(work())


def test_beat_sockets_are_handed_over_with_one_key(run: Run) -> None:
    """Both ends get a descriptor of one connection, which outlives the loop's own; a redial makes another."""

    async def work() -> None:
        one, two = Node(1), Node(2)
        ends: dict[int, list[tuple[int, int, bytes, bool]]] = {1: [], 2: []}
        one.network.on_beat_socket = lambda *told: ends[1].append(told)
        two.network.on_beat_socket = lambda *told: ends[2].append(told)
        async with joined(one, two):
            for count in (1, 2):
                await until(lambda count=count: len(ends[1]) == len(ends[2]) == count)
                peer_one, fd_one, key_one, dialed_one = ends[1][-1]
                peer_two, fd_two, key_two, dialed_two = ends[2][-1]
                assert (peer_one, peer_two, dialed_one, dialed_two) == (2, 1, True, False)
                assert key_one == key_two and len(key_one) == 16
                first, second = socket.socket(fileno=fd_one), socket.socket(fileno=fd_two)
                with first, second:
                    assert first.getsockname() == second.getpeername()
                    loop = asyncio.get_running_loop()
                    for giver, taker in ((first, second), (second, first)):
                        giver.setblocking(False)
                        taker.setblocking(False)
                        await loop.sock_sendall(giver, b"a beat")
                        assert await loop.sock_recv(taker, 100) == b"a beat"
                if count == 1:
                    one.network.redial_beat(2)
            assert ends[1][0][2] != ends[1][1][2]

    run(work())


def test_a_port_in_use_is_a_config_error_that_names_it(run: Run) -> None:
    async def work() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(ConfigError, match=f"127.0.0.1:{port}"):
                await Node(1, listen=("127.0.0.1", port)).network.start()

    run(work())


def test_a_new_address_is_dialled_and_who_is_not_known_is_refused(run: Run) -> None:
    """Addresses may change while the node runs."""

    async def work() -> None:
        one, two = Node(1), Node(2)
        for node in (one, two):
            await node.network.start()
        try:
            two.network.set_peer(1, [("127.0.0.1", one.network.listen_port)])
            await until(lambda: one.network.refusals.counts["unknown_node"] > 0)
            one.network.set_peer(2, [("127.0.0.1", 1)])
            await until(lambda: ("lost", 2, True) in one.events and two.network.connected(1))
            one.network.set_peer(2, [("127.0.0.1", two.network.listen_port)])
            await until(lambda: one.network.connected(2))
        finally:
            for node in (one, two):
                await node.network.close()

    run(work())


def test_all_addresses_of_a_peer_are_tried(run: Run) -> None:
    """Nobody, another node, then the one that is wanted; what was found is tried first the next time."""

    async def work() -> None:
        one, two, three = Node(1), Node(2), Node(3)
        async with joined(two, three):
            await one.network.start()
            right = ("127.0.0.1", two.network.listen_port)
            two.network.set_peer(1, [("127.0.0.1", 1)], dial=False)
            one.network.set_peer(2, [("127.0.0.1", 1), ("127.0.0.1", three.network.listen_port), right])
            try:
                await until(lambda: one.network.connected(2))
                assert one.network._peers[2].address == right
            finally:
                await one.network.close()

    run(work())


def test_who_is_not_dialled_any_more_keeps_its_links_and_may_come_in(run: Run) -> None:
    """Once they end, no new ones are made until it is wanted again."""

    async def work() -> None:
        one, two = Node(1), Node(2)

        async def who(peer_id: int, payload: object) -> int:
            return peer_id

        one.network.serve("who", who)
        async with joined(one, two):
            address = [("127.0.0.1", two.network.listen_port)]
            one.network.set_peer(2, address, dial=False)
            assert one.network.connected(2)
            for link in list(one.network._links):
                link.transport.abort()
            await until(lambda: ("lost", 1, False) in two.events and ("lost", 2, False) in one.events)
            await until(lambda: two.network.connected(1))
            assert not one.network.connected(2)
            assert await two.network.request(1, "who", None, 5.0) == 2
            one.network.set_peer(2, address)
            await until(lambda: one.network.connected(2))

    run(work())


def test_nodes_of_different_clusters_refuse_each_other(run: Run) -> None:
    """Also when they formed after they had met: frames name the cluster."""

    async def work() -> None:
        one, two = Node(1), Node(2)
        async with joined(one, two):
            one.network.identify(cluster_id=b"1" * 32)
            two.network.identify(cluster_id=b"2" * 32)
            assert one.network.send(2, 0, ProbeRequest(1, A, 1))
            await until(lambda: two.network.refusals.counts["frame"] == 1)
            assert two.messages == []
            for node in (one, two):
                for link in list(node.network._links):
                    link.transport.abort()
            await until(lambda: one.network.refusals.counts["cluster"] and two.network.refusals.counts["cluster"])
            await until(lambda: not one.network.connected(2) and not two.network.connected(1))

    run(work())


def test_links_of_a_cluster_of_five_all_come_up(run: Run) -> None:
    """Every node is connected with every other one, both ways."""

    async def work() -> None:
        nodes = [Node(number) for number in (1, 2, 3, 7, 40)]
        async with joined(*nodes):
            for node in nodes:
                for peer in nodes:
                    if peer is not node:
                        probe = ProbeRequest(1, Identity(node.network.node_id, 1), 5)
                        assert node.network.send(peer.network.node_id, 0, probe)
            await until(lambda: all(len(node.messages) == 4 for node in nodes))
            assert all(len([e for e in node.events if e[0] == "connected"]) == 4 for node in nodes)

    run(work())


def test_a_rotated_secret_reaches_nodes_that_know_only_the_old_one(run: Run) -> None:
    async def work() -> None:
        one, two = Node(1, secret=("the new secret of them", SECRET)), Node(2)
        async with joined(one, two):
            assert one.network.refusals.counts == {}

    run(work())


def test_no_descriptor_is_left_behind(run: Run) -> None:
    """Starting, losing, redialling and closing leave the process with the descriptors it had."""

    async def work() -> None:
        async def once() -> None:
            one, two = Node(1), Node(2)
            async with joined(one, two):
                for link in list(one.network._links):
                    link.transport.abort()
                await until(lambda: ("lost", 1, False) in two.events)
                await until(lambda: one.network.connected(2) and two.network.connected(1))

        await once()
        await until(lambda: True)
        before = len(os.listdir("/proc/self/fd"))
        await once()
        await until(lambda: len(os.listdir("/proc/self/fd")) <= before)

    run(work())
