"""A node with clients, as a process of its own: they work on registers, counters, lists, banks, take indexes of the
cache group's log, and write it all down.

Obeys the lines of `tests/crash/member.py` and these:

    {"do": "prepare", "slots": N}                   makes the tables, and the banks of N slots; may come again
    {"do": "begin", "record": FILE, "life": L, "seed": S, "clients": C, "epoch": NS}
                                                    (what the node believes goes to FILE-beliefs)
    {"do": "change", "node": N, "at_least": V}      N becomes a learner while V voters stay, else a learner a voter
    {"do": "hand over", "group": NAME}              the leader of that group makes another one leader
    {"do": "end"}                                   ends the clients; each gives up its last call at its deadline
    {"do": "take"}                                  one more index of the cache group's log
    {"do": "groups"}                                what the node sees of each group
    {"do": "inspect", "slots": N}                   then reads all objects of the first N slots, in both consistencies

Which object is worked on follows from the time since `epoch`: so each has few operations, and a checker little to do.
Invariant: a call is written down before it is made, its answer after it was given.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import uvloop

import hiqlite
from hiqlite.client.local import LocalClient
from hiqlite.engine.model import Change, ChangeKind
from hiqlite.logstore.folder import GROUP_NAMES
from hiqlite.node import Node
from hiqlite.transport.settings import NetworkSettings
from tests.chaos.models import ACCOUNTS, OPENING_BALANCE
from tests.chaos.two_groups import check_followed, take_index, told_by
from tests.crash import member

SLOT_NS = 1_500_000_000
PAUSE_S = 0.006  # on average, between two calls of a client
READERS = 2
WATCH_S = 0.1
TIMEOUTS_S = (0.3, 1.0, 3.0, 5.0)
INSPECT_S = 30.0
CHANGE_S = 5.0  # to become possible, and then to be followed by the other group
TAKE_S = 0.03  # on average, between two indexes
VALUES = 10**6  # of one life

CREATE = """
CREATE TABLE IF NOT EXISTS registers (key TEXT PRIMARY KEY, value INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS counters (key TEXT PRIMARY KEY, total INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS lists (key TEXT NOT NULL, value INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS lists_key ON lists (key);
CREATE TABLE IF NOT EXISTS accounts (key TEXT, account INTEGER, balance INTEGER NOT NULL, PRIMARY KEY (key, account));
CREATE TABLE IF NOT EXISTS transfers (key TEXT NOT NULL, number INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS transfers_key ON transfers (key);
"""
# `value` and `number` are no keys, so that what was applied twice is there twice.
READ = {
    "register": "SELECT value FROM registers WHERE key = ?1",
    "counter": "SELECT total FROM counters WHERE key = ?1",
    "list": "SELECT value FROM lists WHERE key = ?1 ORDER BY rowid",
    "bank": "SELECT 0, account, balance FROM accounts WHERE key = ?1"
    " UNION ALL SELECT 1, rowid, number FROM transfers WHERE key = ?1 ORDER BY 1, 2",
}
WRITE = "INSERT INTO registers VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
CAS = "UPDATE registers SET value = ? WHERE key = ? AND value = ?"
ADD = (
    "INSERT INTO counters VALUES (?, 1) ON CONFLICT (key) DO UPDATE SET total = total + excluded.total RETURNING total"
)
APPEND = "INSERT INTO lists VALUES (?, ?)"
TAKE = "UPDATE accounts SET balance = balance - ?1 WHERE key = ?2 AND account = ?3 AND balance >= ?1"
GIVE = "UPDATE accounts SET balance = balance + ? WHERE key = ? AND account = ?"
NOTE = "INSERT INTO transfers VALUES (?, ?)"


def answer_of(family: str, rows: list[Any]) -> Any:
    """What a read gives, in the words of the checker's models."""
    match family:
        case "register":
            return rows[0][0] if rows else None
        case "counter":
            return rows[0][0] if rows else 0
        case "list":
            return [row[0] for row in rows]
        case _:
            return [[row[2] for row in rows if row[0] == 0], [row[2] for row in rows if row[0] == 1]]


class Clients:
    """The clients of this node, and the file of what they did."""

    def __init__(self, db: LocalClient, node: int, command: dict[str, Any]) -> None:
        self._db = db
        self._node = node
        self._epoch = command["epoch"]
        self._file = os.open(command["record"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._beliefs = os.open(command["record"] + "-beliefs", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._chance = random.Random(command["seed"])
        self._calls = 0
        self._value = command["life"] * VALUES
        self._seen: dict[str, int] = {}
        self._stop = False
        # Readers of their own: on a node that was cut off, all others soon wait for a write.
        shares = [0.5] * command["clients"] + [1.0] * READERS
        self._tasks = [asyncio.create_task(self._work(share)) for share in shares]
        self._tasks += [asyncio.create_task(self._watch()), asyncio.create_task(self._take())]
        self._changes: set[asyncio.Task[bool]] = set()

    async def end(self) -> None:
        self._stop = True
        await asyncio.gather(*self._tasks, *self._changes)

    def _note(self, **line: Any) -> None:
        os.write(self._file, json.dumps(line).encode() + b"\n")

    async def _watch(self) -> None:
        last: dict[str, dict[str, Any]] = {}
        while not self._stop:
            for name, group in (await self._db.metrics()).groups.items():
                belief = {"term": group.term, "leader": group.leader_id, "role": group.role}
                if belief != last.get(name):
                    line = {"g": name, **belief, "i": group.last_log_index, "n": self._node, "t": time.monotonic_ns()}
                    os.write(self._beliefs, json.dumps(line).encode() + b"\n")
                    last[name] = belief
            await asyncio.sleep(WATCH_S)

    async def _work(self, reads: float) -> None:
        """One client. `reads`: their share among its calls."""
        while not self._stop:
            key = str((time.monotonic_ns() - self._epoch) // SLOT_NS)
            family = self._chance.choice(("register", "register", "counter", "list", "list", "bank"))
            timeout = self._chance.choice(TIMEOUTS_S)
            if self._chance.random() < reads:
                done = await self.read(family, key, timeout, local=self._chance.random() < 0.4)
            else:
                done = await self._change(family, key, timeout)
            await asyncio.sleep(self._chance.uniform(0, 2 * PAUSE_S) if done else 0.02)

    async def _take(self) -> None:
        """The client of the cache group."""
        while not self._stop:
            done = await self.take(self._chance.choice(TIMEOUTS_S))
            await asyncio.sleep(self._chance.uniform(0, 2 * TAKE_S) if done else TAKE_S)

    async def take(self, timeout: float) -> bool:
        """The index of an entry that changes nothing. Whether there was an answer."""

        async def make() -> int:
            return await take_index(self._db._services.node, timeout)

        return await self._call("token", "cache", "take", [], timeout, make)

    def change_members(self, number: int, at_least: int) -> None:
        """That voter becomes a learner while so many stay, else a learner a voter; in the background."""
        node = self._db._services.node
        membership = node.group.engine.membership
        voters = [one for one in membership.voters if one.id == number and len(membership.voters) > at_least]
        if not voters and not membership.learners:
            return
        kind, roles = ChangeKind.PROMOTE, ["learner", "voter"]
        if voters:
            kind, roles = ChangeKind.DEMOTE, ["voter", "learner"]
        one = (voters or membership.learners)[0]

        async def make() -> bool:
            changed = await node.change_members(Change(kind, (one,)), CHANGE_S)
            check_followed(node, changed)
            return True

        # No deadline is written down: how long a change takes once it is possible is up to the majorities.
        task = asyncio.create_task(self._call("role", str(one.id), "cas", roles, 0, make))
        self._changes.add(task)

    async def _call(
        self, family: str, key: str, call: str, argument: list[Any], timeout: float, make: Callable[[], Awaitable[Any]],
        *, local: bool = False,
    ) -> bool:  # fmt: skip
        self._calls += 1
        number = self._calls
        self._note(
            o=number, n=self._node, f=family, k=key, c=call, a=argument, l=local, d=timeout, t=time.monotonic_ns()
        )
        outcome, result = "ok", None
        try:
            result = await make()
        except hiqlite.ExpectationFailed:
            result = False  # the source had not enough
        except hiqlite.HiqliteError as error:
            outcome = error.outcome or "unknown"
            self._note(o=number, x=outcome, r=None, e=f"{type(error).__name__}: {error}", t=time.monotonic_ns())
            return False
        self._note(o=number, x=outcome, r=result, t=time.monotonic_ns())
        return True

    async def read(self, family: str, key: str, timeout: float, *, local: bool) -> bool:
        """Whether it gave an answer."""

        async def make() -> Any:
            rows = await self._db.query(
                READ[family], (key,), consistency="local" if local else "linearizable", timeout=timeout
            )
            result = answer_of(family, rows)
            if family == "register" and isinstance(result, int):
                self._seen[key] = result
            return result

        return await self._call(family, key, "read", [], timeout, make, local=local)

    async def _change(self, family: str, key: str, timeout: float) -> bool:
        db = self._db
        self._value += 1
        value = self._value
        if family == "counter":

            async def add() -> Any:
                return (await db.execute_returning_one(ADD, (key,), timeout=timeout))[0]

            return await self._call(family, key, "add", [1], timeout, add)
        if family == "bank":
            source, target = self._chance.sample(range(ACCOUNTS), 2)
            amount = self._chance.randint(1, OPENING_BALANCE)

            async def transfer() -> bool:
                async with db.atomic(timeout=timeout) as block:
                    block.execute(TAKE, (amount, key, source)).expect(rows=1)
                    block.execute(GIVE, (amount, key, target)).expect(rows=1)
                    block.execute(NOTE, (key, value))
                return True

            return await self._call(family, key, "transfer", [value, source, target, amount], timeout, transfer)
        expected = self._seen.get(key)
        if family == "register" and expected is not None and self._chance.random() < 0.5:

            async def cas() -> bool:
                return (await db.execute(CAS, (value, key, expected), timeout=timeout)).rows_affected == 1

            return await self._call(family, key, "cas", [expected, value], timeout, cas)

        async def insert() -> None:
            await db.execute(WRITE if family == "register" else APPEND, (key, value), timeout=timeout)

        return await self._call(family, key, "write" if family == "register" else "append", [value], timeout, insert)

    async def inspect(self, slots: int) -> list[str]:
        """Reads all objects of the slots. Returns those that gave no answer in time."""
        end = time.monotonic() + INSPECT_S
        missing = []
        for slot in range(slots):
            for family in READ:
                while not await self.read(family, str(slot), INSPECT_S, local=False):
                    if time.monotonic() >= end:
                        missing.append(f"{family} {slot}")
                        break
                await self.read(family, str(slot), INSPECT_S, local=True)
        return missing


async def prepare(db: LocalClient, slots: int) -> None:
    (await db.batch(CREATE, timeout=INSPECT_S)).raise_for_error()
    rows = [(str(slot), account, OPENING_BALANCE) for slot in range(slots) for account in range(ACCOUNTS)]
    await db.execute_many("INSERT OR IGNORE INTO accounts VALUES (?, ?, ?)", rows, timeout=INSPECT_S)


async def obey(db: LocalClient, command: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    match command["do"]:
        case "prepare":
            await prepare(db, command["slots"])
        case "begin":
            state["clients"] = Clients(db, command["node"], command)
        case "inspect":
            return {"missing": await state["clients"].inspect(command["slots"])}
        case "end":
            await state["clients"].end()
        case "change":
            state["clients"].change_members(command["node"], command["at_least"])
        case "hand over":
            group = db._services.node.groups[GROUP_NAMES.index(command["group"])].group
            if group.leads:
                group.engine.transfer_leadership(0, group.clock.monotonic_ns())
                group.pump()
        case "take":
            return {} if await state["clients"].take(INSPECT_S) else {"error": "no index was given"}
        case "groups":
            return told_by(db._services.node)
        case _:
            return await member.obey(db, command, state)
    return {}


@asynccontextmanager
async def opened(config: dict[str, Any]) -> AsyncIterator[LocalClient]:
    """A node that dials each other one where its config says, through the wires, whatever they tell each other."""
    settings = hiqlite.NodeConfig.from_mapping(config)
    wires = {one.id: (one.raft_host, one.raft_port) for one in settings.nodes}
    network = NetworkSettings(reach=lambda peer_id, _address: wires[peer_id])
    node = await Node.start(settings, network=network)
    try:
        yield node.client
    finally:
        await node.shutdown()


if __name__ == "__main__":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # dies with the test
    try:
        uvloop.run(member.serve(json.loads(sys.argv[1]), obey, opened))
    except hiqlite.HiqliteError as error:  # the node does not start
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), flush=True)
        sys.exit(1)
