"""Nodes that form a cluster by greetings: what is said is durable, waiting costs little and can be ended."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import Any

import pytest

from hiqlite.engine.forming import Forming
from hiqlite.engine.model import Identity, Membership
from hiqlite.errors import PeerUnreachable, ProtocolError
from hiqlite.runtime.forming import REQUEST, Former, cluster_id_of, from_wire, to_wire
from hiqlite.runtime.renouncing import LIVES, is_later_life, next_life


class Disk:
    """Steps in the order in which they became durable."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, tuple[Identity, ...]]] = []

    async def record(self, voters: tuple[Identity, ...], cluster_id: bytes) -> None:
        assert cluster_id == cluster_id_of(voters)
        await asyncio.sleep(0)
        self.steps.append(("recorded", voters))

    async def form(self, voters: tuple[Identity, ...]) -> None:
        await asyncio.sleep(0)
        self.steps.append(("formed", voters))

    async def renounce(self, set_id: bytes) -> None:
        await asyncio.sleep(0)
        self.renounced = set_id

    async def join(self, members: Membership, cluster_id: bytes) -> None:
        await asyncio.sleep(0)
        self.joined = members, cluster_id


class Wire:
    """All nodes of one test; counts what is asked."""

    def __init__(self) -> None:
        self.handlers: dict[int, Any] = {}
        self.requests = 0


class Peer:
    """The network as one node sees it."""

    def __init__(self, wire: Wire, number: int) -> None:
        self._wire = wire
        self._number = number

    def serve(self, name: str, handler: Any) -> None:
        assert name == REQUEST
        self._wire.handlers[self._number] = handler

    async def request(self, peer_id: int, name: str, payload: Any, timeout: float) -> Any:
        self._wire.requests += 1
        await asyncio.sleep(0)
        if peer_id not in self._wire.handlers:
            raise PeerUnreachable("down")
        return await self._wire.handlers[peer_id](self._number, payload)


def former(wire: Wire, number: int, disk: Disk, size: int = 3) -> Former:
    forming = Forming(Identity(number, number * 100), range(1, size + 1))
    return Former(forming, disk, Peer(wire, number))


async def test_three_nodes_agree_on_one_set_and_record_it_before_they_form() -> None:
    """Whenever each of them comes."""
    wire, disks = Wire(), [Disk(), Disk(), Disk()]
    first = asyncio.create_task(former(wire, 1, disks[0]).run())
    await asyncio.sleep(0)
    rest = [former(wire, number, disks[number - 1]).run() for number in (2, 3)]
    await asyncio.wait_for(asyncio.gather(first, *rest), 10)
    members = (Identity(1, 100), Identity(2, 200), Identity(3, 300))
    for disk in disks:
        assert disk.steps == [("recorded", members), ("formed", members)]


async def test_nodes_that_wait_do_not_wake_each_other_for_ever() -> None:
    """Two of three are there: they ask at a steady pace, not as fast as they can."""
    wire = Wire()
    tasks = [asyncio.create_task(former(wire, number, Disk()).run()) for number in (1, 2)]
    for _ in range(3000):
        await asyncio.sleep(0)
    assert wire.requests < 100
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("turns", range(12))
async def test_forming_can_be_cancelled_at_any_moment(turns: int) -> None:
    """Also in the very turn in which a greeting arrives."""
    wire = Wire()
    task = asyncio.create_task(former(wire, 1, Disk()).run())
    await asyncio.sleep(0)
    greeting = to_wire(Forming(Identity(2, 200), [1, 2, 3]).greeting())
    for _ in range(turns):
        await asyncio.sleep(0)
    answer = asyncio.create_task(wire.handlers[1](2, greeting))
    await asyncio.sleep(0)
    task.cancel()
    ends = await asyncio.wait_for(asyncio.gather(task, answer, return_exceptions=True), 5)
    assert isinstance(ends[0], asyncio.CancelledError)


async def test_a_single_node_forms_alone() -> None:
    """It asks nobody."""
    disk = Disk()
    forming = Forming(Identity(1, 5), [1])
    await Former(forming, disk, None).run()
    assert disk.steps == [("recorded", (Identity(1, 5),)), ("formed", (Identity(1, 5),))]


async def test_who_is_named_by_a_formed_node_joins_what_has_formed() -> None:
    """A new incarnation or a new node waits until it is named, then takes over the members and the cluster's id."""
    wire, disk = Wire(), Disk()
    named: list[Membership | None] = [Membership(0, (Identity(1, 100),))]
    formed = Forming(Identity(1, 100), [1, 2], recorded=(Identity(1, 100),), formed=True)
    Former(formed, Disk(), Peer(wire, 1), lambda: (named[0], b"c" * 32))
    joining = asyncio.create_task(former(wire, 2, disk, 2).run())
    for _ in range(50):
        await asyncio.sleep(0)
    assert not joining.done() and disk.steps == []
    named[0] = Membership(9, (Identity(1, 100),), (Identity(2, 200),))
    await asyncio.wait_for(joining, 10)
    assert disk.joined == (Membership(0, (Identity(1, 100),), (Identity(2, 200),)), b"c" * 32) and disk.steps == []


GOOD = {
    "id": 1, "incarnation": 5, "configured": [1, 2], "recorded": None, "formed": False, "members": None,
    "cluster_id": b"",
}  # fmt: skip


@pytest.mark.parametrize(
    "wire",
    [
        None, 5, [], "x", {}, {**GOOD, "id": 0}, {**GOOD, "id": True}, {**GOOD, "id": "1"}, {**GOOD, "incarnation": -1},
        {**GOOD, "configured": 5}, {**GOOD, "configured": [1, "2"]}, {**GOOD, "recorded": [[1]]},
        {**GOOD, "recorded": [[1, 2, 3]]}, {**GOOD, "recorded": [5]}, {**GOOD, "recorded": "ab"},
        {**GOOD, "members": b"x"}, {**GOOD, "members": 5}, {**GOOD, "cluster_id": b"x"}, {**GOOD, "cluster_id": None},
    ],
)  # fmt: skip
def test_a_malformed_greeting_is_a_protocol_error(wire: Any) -> None:
    """Whatever a peer sends."""
    with pytest.raises(ProtocolError):
        from_wire(wire)


async def test_a_peer_cannot_greet_in_anothers_name() -> None:
    """The identity in the greeting is that of the link."""
    wire = Wire()
    former(wire, 1, Disk())
    with pytest.raises(ProtocolError):
        await wire.handlers[1](3, to_wire(Forming(Identity(2, 200), [1, 2, 3]).greeting()))


async def test_who_was_recorded_is_asked_though_it_shall_not_found_the_group_any_more() -> None:
    """A member was removed while another group was forming: the set that names it acts once it has said so."""
    wire = Wire()
    members = (Identity(1, 100), Identity(2, 200), Identity(3, 300))
    runs = []
    for number in (1, 2):
        forming = Forming(Identity(number, number * 100), [1, 2, 3], recorded=members)
        runs.append(Former(forming, Disk(), Peer(wire, number), founders=lambda: [1, 2]).run())
    Former(Forming(Identity(3, 300), [1, 2], recorded=members, formed=True), Disk(), Peer(wire, 3))
    assert await asyncio.wait_for(asyncio.gather(*runs), 10) == [True, True]


async def test_a_node_that_never_votes_is_waited_for_and_founds_nothing() -> None:
    """It says so in its greeting; the others form once they heard it, and it waits to be let in."""
    wire, asked = Wire(), []

    async def ask_in(formed: object) -> str:
        asked.append(formed)
        await asyncio.sleep(0)
        return "not yet"

    disks = [Disk(), Disk()]
    runs = []
    for number in (1, 2):
        forming = Forming(Identity(number, number * 100), [1, 2, 3])
        runs.append(asyncio.create_task(
            Former(forming, disks[number - 1], Peer(wire, number), founders=lambda: [1, 2, 3]).run()
        ))  # fmt: skip
    for _ in range(100):
        await asyncio.sleep(0)
    assert disks[0].steps == disks[1].steps == []
    alone = Former(
        Forming(Identity(3, 300), [1, 2, 3]), Disk(), Peer(wire, 3), founders=lambda: [1, 2, 3],
        learner_only=True, ask_in=ask_in,
    )  # fmt: skip
    waiting = asyncio.create_task(alone.run())
    await asyncio.wait_for(asyncio.gather(*runs), 10)
    assert disks[0].steps[-1] == disks[1].steps[-1] == ("formed", (Identity(1, 100), Identity(2, 200)))
    while not asked:
        await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


RECORDED = (Identity(1, 100), Identity(2, 200), Identity(3, 300))


def recorded(wire: Wire, number: int, disk: Disk, *, formed: bool = False, renounced: bytes = b"") -> Former:
    """A node that recorded the set before node 1 lost its disk."""
    own = Identity(number, number * 100)
    return Former(
        Forming(own, [1, 2, 3], recorded=RECORDED, formed=formed), disk, Peer(wire, number),
        founders=lambda: [1, 2, 3], leaves=True, renounced=renounced,
    )  # fmt: skip


async def until_formed(wire: Wire, number: int, disk: Disk, renounced: bytes) -> bool:
    """Of a member of the set, as a node does it: one that has left begins as another incarnation."""
    assert not await recorded(wire, number, disk, renounced=renounced).run()
    disk.steps.append(("left", ()))
    own = Identity(number, next_life(number * 100))
    fresh = Forming(own, [1, 2, 3])
    peer = Peer(wire, number)
    left = Former(fresh, disk, peer, founders=lambda: [1, 2, 3], leaves=True, renounced=cluster_id_of(RECORDED))
    return await left.run()


@pytest.mark.parametrize("before", ["nobody", "one", "both"])
async def test_a_set_whose_member_lost_its_disk_is_left_by_all_of_the_rest(before: str) -> None:
    """Then another one forms; also when who had renounced it was started again in between."""
    wire, disks = Wire(), {number: Disk() for number in (1, 2, 3)}
    set_id = cluster_id_of(RECORDED)
    told = {2: set_id if before != "nobody" else b"", 3: set_id if before == "both" else b""}
    runs = [until_formed(wire, number, disks[number], told[number]) for number in (2, 3)]
    back = Former(Forming(Identity(1, 101), [1, 2, 3]), disks[1], Peer(wire, 1), founders=lambda: [1, 2, 3])
    assert await asyncio.wait_for(asyncio.gather(*runs, back.run()), 10) == [True, True, True]
    members = (Identity(1, 101), Identity(2, next_life(200)), Identity(3, next_life(300)))
    for number in (2, 3):
        assert disks[number].steps == [("left", ()), ("recorded", members), ("formed", members)]
    assert disks[1].steps == [("recorded", members), ("formed", members)]


async def test_a_set_that_somebody_formed_with_is_followed() -> None:
    """Though a member of it lost its disk, and though this node had renounced it."""
    for renounced in (b"", cluster_id_of(RECORDED)):
        wire, disk = Wire(), Disk()
        recorded(wire, 3, Disk(), formed=True)
        Former(Forming(Identity(1, 101), [1, 2, 3]), Disk(), Peer(wire, 1))
        assert await asyncio.wait_for(recorded(wire, 2, disk, renounced=renounced).run(), 10)
        assert disk.steps == [("formed", RECORDED)]


async def test_nobody_leaves_a_set_before_all_who_answer_have_heard_of_it() -> None:
    """One of them may have formed since it was heard last, on the word of those who renounce it now."""
    wire, disk = Wire(), Disk()
    node = recorded(wire, 2, disk, renounced=cluster_id_of(RECORDED))
    third = to_wire(Forming(Identity(3, 300), [1, 2, 3], recorded=RECORDED).greeting())
    await wire.handlers[2](3, {**third, "renounced": cluster_id_of(RECORDED)})
    first = Former(Forming(RECORDED[0], [1, 2, 3], recorded=RECORDED, formed=True), Disk(), Peer(wire, 1))
    assert first is not None and await asyncio.wait_for(node.run(), 10)
    assert disk.steps == [("formed", RECORDED)]


class SlowDisk(Disk):
    """One on which it takes its time to form."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.goes_on = asyncio.Event(), asyncio.Event()

    async def form(self, voters: tuple[Identity, ...]) -> None:
        self.asked.set()
        await self.goes_on.wait()
        await super().form(voters)


async def test_who_is_about_to_act_does_not_say_that_it_does_not() -> None:
    """The answer waits until it is durable: who asks may be about to leave the set."""
    wire, disk = Wire(), SlowDisk()
    node = recorded(wire, 1, disk)
    for other in RECORDED[1:]:
        await wire.handlers[1](other.id, to_wire(Forming(other, [1, 2, 3], recorded=RECORDED).greeting()))
    running = asyncio.create_task(node.run())
    await asyncio.wait_for(disk.asked.wait(), 10)
    gave_up = to_wire(Forming(RECORDED[1], [1, 2, 3], recorded=RECORDED).greeting())
    asking = asyncio.ensure_future(wire.handlers[1](2, {**gave_up, "renounced": cluster_id_of(RECORDED)}))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not asking.done()
    disk.goes_on.set()
    assert (await asking)["formed"] is True
    assert await running


async def test_a_set_is_kept_while_the_rest_of_it_may_still_act() -> None:
    """One renounced it, the third is not heard of: perhaps it has formed. And nobody forms with who renounced."""
    wire, disk = Wire(), Disk()
    waiting = asyncio.create_task(recorded(wire, 2, disk).run())
    Former(Forming(Identity(1, 101), [1, 2, 3]), Disk(), Peer(wire, 1))
    while not hasattr(disk, "renounced"):
        await asyncio.sleep(0)
    for _ in range(500):
        await asyncio.sleep(0)
    assert disk.steps == [] and not waiting.done()
    # The old incarnation of node 1 had said its word to the third one; that of node 2 counts no more.
    third = recorded(wire, 3, late := Disk())
    for number, life in ((1, 100), (2, 200)):
        greeting = to_wire(Forming(Identity(number, life), [1, 2, 3], recorded=RECORDED).greeting())
        await wire.handlers[3](number, {**greeting, "renounced": cluster_id_of(RECORDED) if number == 2 else b""})
    assert third._step() is not None and third._step().value == "wait" and late.steps == []
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_who_renounced_a_set_does_not_form_with_it_by_itself() -> None:
    """Whatever it hears of the others' words: the third one may have left the set on its word."""
    wire, disk = Wire(), Disk()
    node = recorded(wire, 2, disk, renounced=cluster_id_of(RECORDED))
    for number in (1, 3):
        greeting = Forming(Identity(number, number * 100), [1, 2, 3], recorded=RECORDED).greeting()
        await wire.handlers[2](number, to_wire(greeting))
    assert node._step().value == "wait"
    assert recorded(wire, 2, disk)._step().value == "wait", "of nobody it has heard anything"
    third = Forming(Identity(3, 300), [1, 2, 3], recorded=RECORDED, formed=True).greeting()
    await wire.handlers[2](3, to_wire(third))
    node = recorded(wire, 2, disk, renounced=cluster_id_of(RECORDED))
    await wire.handlers[2](3, to_wire(third))
    assert node._step().value == "form"


@pytest.mark.parametrize("renounced", [7, None, b"x", "text", b"x" * 33])
async def test_a_greeting_that_renounces_nonsense_is_refused(renounced: object) -> None:
    """And nothing of it counts."""
    wire = Wire()
    node = recorded(wire, 2, Disk())
    greeting = Forming(Identity(3, 300), [1, 2, 3], recorded=RECORDED).greeting()
    with pytest.raises(ProtocolError):
        await wire.handlers[2](3, {**to_wire(greeting), "renounced": renounced})
    assert node._last == {}


def test_who_left_a_set_lives_on_under_a_later_number() -> None:
    """Which nobody takes for a drawn one, nor an earlier one for it."""
    for life in (1, 7, LIVES - 1):
        later = next_life(next_life(life))
        assert 0 < later < LIVES and is_later_life(later, life)
        assert not is_later_life(life, later) and not is_later_life(life, life)
        assert not is_later_life((life + LIVES // 2) % LIVES, life)
    assert not is_later_life(5, 0), "who was not heard of has no later life"


A, B, C = RECORDED
OTHER = (A, Identity(2, 201), C)


def word(one: Identity, said: tuple[Identity, ...] | None, *, formed: bool = False, renounced: bool = False) -> Any:
    greeting = Forming(one, [1, 2, 3], recorded=said, formed=formed).greeting()
    return {**to_wire(greeting), "renounced": cluster_id_of(RECORDED) if renounced else b""}


@pytest.mark.parametrize(
    ("words", "left"),
    [
        ([word(A, RECORDED, renounced=True), word(C, RECORDED)], True),  # one gave it up, for whatever reason
        ([word(A, RECORDED, renounced=True)], False),  # and the third may have formed
        ([word(A, OTHER), word(C, RECORDED)], True),  # one recorded another one, so this one is never agreed on
        ([word(Identity(1, 101), None), word(Identity(3, 301), None)], True),  # nobody else of it is left
        ([word(Identity(1, 101), None), word(C, RECORDED)], False),
        ([word(Identity(1, 101), None), word(Identity(3, 301), None), word(C, RECORDED, formed=True)], False),
    ],
)
async def test_a_set_is_left_once_it_can_never_act_by_itself(words: list[Any], left: bool) -> None:
    """By what was heard of each member; whoever has formed with it is followed."""
    wire, disk = Wire(), Disk()
    node = recorded(wire, 2, disk)
    for said in words:
        await wire.handlers[2](said["id"], said)
    assert not await node._gave_up()
    await node._ask_all()
    assert await node._gave_up() is left


async def test_a_member_that_had_not_recorded_the_set_takes_part_in_giving_it_up() -> None:
    """It was away while the others recorded it, and one of them lost its disk: else it would count as one who may act,
    and nobody would ever leave."""
    wire, disks = Wire(), {number: Disk() for number in (1, 2, 3)}
    third = recorded(wire, 3, disks[3], renounced=cluster_id_of(RECORDED))
    back = Former(Forming(Identity(1, 101), [1, 2, 3]), disks[1], Peer(wire, 1), founders=lambda: [1, 2, 3])
    fresh = Former(Forming(B, [1, 2, 3]), disks[2], Peer(wire, 2), founders=lambda: [1, 2, 3], leaves=True)
    waiting = asyncio.create_task(back.run())
    assert await asyncio.wait_for(asyncio.gather(third.run(), fresh.run()), 10) == [False, False]
    assert disks[2].steps == [("recorded", RECORDED)]
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_who_joined_does_not_say_that_the_set_it_had_recorded_acts() -> None:
    """Another member of that set would form with it, beside the group that was joined."""
    wire, disk = Wire(), Disk()
    node = recorded(wire, 2, disk)
    found = Membership(7, (Identity(4, 400),), (B,))
    greeting = replace(Forming(Identity(4, 400), [4], formed=True).greeting(), members=found, cluster_id=b"x" * 32)
    await wire.handlers[2](4, to_wire(greeting))
    assert await asyncio.wait_for(node.run(), 10)
    said = from_wire(node._word())
    assert said.formed and said.recorded is None


async def test_members_that_agreed_on_different_sets_say_that_people_have_to_help(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Where a set is kept whatever becomes of it, they would wait for each other without a word of why."""
    caplog.set_level("INFO")
    wire = Wire()
    Former(Forming(C, [1, 2, 3], recorded=OTHER), Disk(), Peer(wire, 3))
    node = Former(Forming(B, [1, 2, 3], recorded=(B, C)), Disk(), Peer(wire, 2))
    waiting = asyncio.create_task(node.run())
    while "node 3 agreed on other members than this node" not in caplog.text:
        await asyncio.sleep(0)
    assert "empty the data folders" in caplog.text
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_a_member_that_lost_its_disk_before_all_agreed_is_named_with_the_way_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Once everybody was heard, and nobody has formed: who is silent may have, and then the data are there."""
    caplog.set_level("INFO")
    wire = Wire()
    Former(Forming(Identity(3, 301), [1, 2, 3]), Disk(), Peer(wire, 3))
    node = Former(Forming(B, [1, 2, 3], recorded=RECORDED), Disk(), Peer(wire, 2))
    waiting = asyncio.create_task(node.run())
    for _ in range(50):
        await asyncio.sleep(0)
    assert "lost its disk" not in caplog.text
    Former(Forming(A, [1, 2, 3], recorded=RECORDED), Disk(), Peer(wire, 1))
    while "node 3 lost its disk before all had agreed" not in caplog.text:
        await asyncio.sleep(0)
    assert "empty the data folders" in caplog.text
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_who_comes_back_says_in_which_group_and_where_its_data_lie(caplog: pytest.LogCaptureFixture) -> None:
    """And of whom it never hears, why: as far as its network knows that."""
    wire, lost = Wire(), " in the db group (see /data/aside)"
    forming = [Forming(Identity(number, 5), [1, 2]) for number in (1, 2)]
    back = Former(forming[0], Disk(), Peer(wire, 1), founders=lambda: [1, 2], returns=True, lost=lost)
    waits = Former(forming[1], Disk(), Peer(Wire(), 2), why_silent=lambda number: f"node {number} has none")
    with caplog.at_level(logging.INFO, "hiqlite"):
        for one in (back, waits):
            task = asyncio.create_task(one.run())
            for _ in range(20):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    assert f"this node lost what it had promised{lost}; it waits" in caplog.text
    assert "waiting to hear of node 1; node 1 has none" in caplog.text
