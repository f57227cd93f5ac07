"""Whether this node's database is the one that the others have, and what follows where it is not.

Two proofs (docs/consistency.md): a running hash of what entries gave, which nodes tell each other when they meet and
from time to time; and the scrub, which reads everything within `scrub_interval`, part by part, each on all nodes behind
the same entry. Part of the composition root. Invariants: a node acts on its own state alone, and only when a majority
of the voters has another one; it says nothing of what it has not read.
"""

from __future__ import annotations

import asyncio
import platform
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import apsw

from hiqlite import observe
from hiqlite._accel.batch import Op
from hiqlite.config import NodeConfig
from hiqlite.engine.change import members_of
from hiqlite.errors import Diverged, HiqliteError, NotLeader, ProtocolError, RequestTimeout
from hiqlite.node_database import DatabaseStorage
from hiqlite.node_group import NodeGroup
from hiqlite.node_links import GroupLinks
from hiqlite.node_looks import Looks
from hiqlite.runtime.agreement import NOTHING, Judgement, Standing, States, judge
from hiqlite.runtime.scrub_record import Claims, Found, ScrubMark
from hiqlite.runtime.waiting import until_next
from hiqlite.runtime.word import Word
from hiqlite.statemachine.equality import START, Place

EXPECT, FOUND, VERDICT, COMPARE = "scrub_expect", "scrub_found", "scrub_verdict", "compare"
PART_BYTES = 64 << 20
ASK_S = 5.0
POLL_S = 0.25
PATIENCE_S_MAX = 90_000.0
PART_S = 120.0  # a part that is not read by then is one that a node did not look at
TRIES_MAX = 2  # of a part that cannot be compared, before the pass goes on with the next table
FIRST_S = 600.0  # a new leader begins after this time, if not before
AGAIN_S = 60.0
HINT_WRONG = "restart this node: it fetches everything from the others, and keeps what it had in `evidence`"
HINT_SPLIT = "which of the nodes is right is for people to decide: see docs/operations.md"
BUILD = f"{apsw.sqlite3_sourceid()} {platform.machine()}"
log = observe.logger("node")


@dataclass(frozen=True, slots=True)
class Comparison:
    """Of all members behind one entry. `silent`: why a node said nothing; `end`: where the next part begins."""

    index: int
    digests: dict[int, bytes]
    silent: dict[int, str]
    voters: tuple[int, ...]
    end: Place | None

    @property
    def equal(self) -> bool:
        return len(set(self.digests.values())) == 1

    def as_dict(self) -> dict[str, Any]:
        return {
            "index": self.index,
            "digests": {str(node): digest.hex() for node, digest in self.digests.items()},
            "silent": {str(node): why for node, why in self.silent.items()},
            "voters": list(self.voters),
        }


class NodeEquality:
    """Of one node's database.

    Args:
        refuse: told why nothing of this node's database is served any more.
    """

    def __init__(
        self,
        config: NodeConfig,
        storage: DatabaseStorage,
        group: NodeGroup,
        links: GroupLinks,
        refuse: Callable[[Diverged], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._own_id = config.node_id
        self._interval_s = config.scrub_interval
        self._storage = storage
        self._group = group
        self._links = links
        self._refuse = refuse
        self._loop = loop
        self._looks = Looks(storage, group.group.applier.marks, group.damaged, loop)
        self._states = States(config.node_id, group.name)
        self._by_hash = self._by_scrub = NOTHING
        self._split_at: tuple[Place, bool] | None = None  # where no majority agreed, and whether that part is all of it
        self._builds: dict[int, str] = {}
        self._quarantine: asyncio.Task[None] | None = None
        self._scrubbing: asyncio.Task[None] | None = None
        self.part_bytes = PART_BYTES
        self.parts = 0  # read and compared by this leader
        self.passes = 0
        links.serve(EXPECT, self._expect)
        links.serve(FOUND, self._found)
        links.serve(VERDICT, self._verdict)
        links.serve(COMPARE, self._asked_to_compare)

    # -- life

    def start(self) -> None:
        self._scrubbing = self._loop.create_task(self._scrub(), name="hiqlite-scrub")

    async def close(self) -> None:
        tasks = [task for task in (self._scrubbing, self._quarantine) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._looks.close()

    # -- what is known

    @property
    def judgement(self) -> Judgement:
        """The worse of the two."""
        worse = (Standing.WRONG, Standing.SPLIT)
        return self._by_scrub if self._by_scrub.standing in worse or not self._by_hash.others else self._by_hash

    @property
    def other_builds(self) -> tuple[int, ...]:
        """Nodes whose SQLite, or machine, is another one than this node's: what one computes the other may not."""
        return tuple(sorted(node for node, build in self._builds.items() if build and build != BUILD))

    def about(self) -> dict[str, Any]:
        """For metrics."""
        found = self.judgement
        return {
            "differs": [found.text] if found.others else [],
            "other_builds": list(self.other_builds),
            "parts": self.parts,
            "passes": self.passes,
        }

    def heard(self, word: Word) -> None:
        """What a peer says of itself."""
        self._builds[word.node_id] = word.build
        self._states.hear(word)
        members = self._members()
        if members is not None:
            self._builds = {node: build for node, build in self._builds.items() if node in members[1]}
            self._states.forget_all_but(members[1])
            found = self._states.judge(self._storage.writer.hashes(), members[0])
            # A node that began anew says nothing of what it said before: that settles nothing.
            if self._by_hash.standing is not Standing.SPLIT or found.standing is not Standing.UNKNOWN:
                self._by_hash = self._learn(self._by_hash, found)
            self._act()

    # -- the leader

    async def compare(self, begin: Place = START, *, bytes_max: int = 0, limit_s: float = PART_S) -> Comparison:
        """One part of the database, or all of it, of all members behind the same entry; each hears what was found.

        Args:
            bytes_max: see `equality.hash_part`; 0: all of it.
            limit_s: how long the reading may take.

        Raises:
            NotLeader: another node has to. RequestTimeout, LeadershipLost, StorageError.
        """
        members = self._members()
        if members is None or not self._group.group.leads:
            raise NotLeader("only the leader compares", outcome="not_applied")
        voters, everybody = members
        mark = ScrubMark(secrets.randbits(62), begin.table, begin.key, bytes_max)
        silent: dict[int, str] = {}
        expected = {"number": mark.number, "seconds": limit_s + 4 * ASK_S}
        await self._expect(self._own_id, expected)
        await asyncio.gather(*(self._ask_to_expect(node, expected, silent) for node in self._others(everybody)))
        await self._propose(mark)
        asked = [node for node in everybody if node not in silent]
        answers = await asyncio.gather(*(self._wait_for(node, mark.number, limit_s, silent) for node in asked))
        found = {node: one for node, one in answers if one is not None}
        if self._own_id not in found:
            raise RequestTimeout(f"the leader did not read its own database: {silent.get(self._own_id)}")
        own = found[self._own_id]
        digests = {node: one.digest for node, one in found.items() if one.index == own.index}
        whole = begin == START and own.end is None
        claims = Claims(own.index, digests, voters, (begin.table, begin.key), whole)
        self._judge(claims)  # before the others do: who asks them why they stopped finds it here too
        await asyncio.gather(*(self._tell(node, claims, silent) for node in self._others(digests)))
        return Comparison(own.index, digests, silent, voters, None if own.end is None else Place(*own.end))

    async def compare_anywhere(self, timeout: float) -> dict[str, Any]:
        """All of it, through whoever leads. Raises NotLeader: nobody does."""
        leader = self._group.group.leader_id
        if not leader:
            raise NotLeader("nobody leads now", outcome="not_applied")
        if leader != self._own_id:
            asked = {"seconds": timeout}
            answer: dict[str, Any] = await self._links.request(leader, COMPARE, asked, timeout + 4 * ASK_S)
            return answer
        return (await self.compare(limit_s=timeout)).as_dict()

    async def _asked_to_compare(self, _peer_id: int, payload: Any) -> Any:
        match payload:
            case {"seconds": int() | float() as seconds}:
                return (await self.compare(limit_s=seconds)).as_dict()
        raise ProtocolError("a comparison that cannot be read")

    async def _propose(self, mark: ScrubMark) -> None:
        group = self._group.group
        deadline_ns = group.clock.monotonic_ns() + int(ASK_S * 1e9)
        op = Op(self._loop, lambda answer, index, detail: index, None, deadline_ns)
        group.proposals.mark(mark.record(), op)
        await op

    async def _ask_to_expect(self, node: int, expected: dict[str, Any], silent: dict[int, str]) -> None:
        try:
            await self._links.request(node, EXPECT, expected, ASK_S)
        except HiqliteError as error:
            silent[node] = str(error)

    async def _wait_for(
        self, node: int, number: int, limit_s: float, silent: dict[int, str]
    ) -> tuple[int, Found | None]:
        end_s = self._loop.time() + limit_s
        try:
            while self._loop.time() < end_s:
                if node == self._own_id:
                    found = self._looks.found(number)
                else:
                    answer = await self._links.request(node, FOUND, {"number": number}, ASK_S)
                    found = None if answer is None else Found.from_wire(answer)
                if found is not None:
                    return node, found
                await asyncio.sleep(POLL_S)
            silent[node] = "it did not read its database in time"
        except HiqliteError as error:
            silent[node] = str(error)
        return node, None

    async def _tell(self, node: int, claims: Claims, silent: dict[int, str]) -> None:
        try:
            await self._links.request(node, VERDICT, claims.to_wire(), ASK_S)
        except HiqliteError as error:
            log.debug("node %d does not hear what was found: %s", node, error)

    async def _scrub(self) -> None:
        """While this node leads: part after part, so that all is read within the interval."""
        group = self._group.group
        while True:
            if group.leads and self._others(self._members_or_nobody()):
                await self._lead_passes()
            await until_next(group.changed, AGAIN_S)

    async def _lead_passes(self) -> None:
        """Until this node leads no more."""
        begin, misses = START, 0
        wait_s = min(FIRST_S, self._interval_s)
        while await self._leads_for(wait_s):
            wait_s = min(AGAIN_S, self._interval_s)
            if self._split_at is not None and not self._split_at[1]:
                begin = self._split_at[0]  # the same part, until it is settled
            try:
                done = await self.compare(begin, bytes_max=self.part_bytes)
            except HiqliteError as error:
                misses += 1
                log.warning("a part of the database is not compared now: %s", error)
                if misses >= TRIES_MAX and begin.table:
                    begin, misses = Place(f"{begin.table}\0"), 0
                continue
            self.parts += 1
            misses = 0
            for node, why in done.silent.items():
                log.warning("node %d did not read its database: %s", node, why)
            if self._split_at is None or self._split_at[1]:
                begin = done.end or START
                self.passes += done.end is None
                wait_s = self._pause_s()

    async def _leads_for(self, seconds: float) -> bool:
        """Whether this node still leads after that time; at once when it does not."""
        group = self._group.group
        end_s = self._loop.time() + seconds
        while group.leads and (left_s := end_s - self._loop.time()) > 0:
            await until_next(group.changed, left_s)
        return group.leads

    def _pause_s(self) -> float:
        """Between two parts; none to speak of while nodes compute by different programs."""
        parts = 1 + self._storage.size_bytes // self.part_bytes
        return min(AGAIN_S, self._interval_s) if self.other_builds else self._interval_s / parts

    # -- every member

    async def _expect(self, _peer_id: int, payload: Any) -> None:
        match payload:
            case {"number": int(number), "seconds": int() | float() as seconds} if 0 < seconds < PATIENCE_S_MAX:
                if (failure := self._group.group.failure) is not None:
                    raise failure  # nothing is applied here any more, no mark would ever be met
                await self._looks.expect(number, seconds)
            case _:
                raise ProtocolError("a scrub that cannot be read")

    async def _found(self, _peer_id: int, payload: Any) -> Any:
        match payload:
            case {"number": int(number)}:
                found = self._looks.found(number)
                return None if found is None else found.to_wire()
        raise ProtocolError("a scrub that cannot be read")

    async def _verdict(self, _peer_id: int, payload: Any) -> None:
        self._judge(Claims.from_wire(payload))

    def _judge(self, claims: Claims) -> None:
        """What was found behind one entry; whatever others say, this node counts by what it has read itself."""
        own = claims.digests.get(self._own_id)
        if own is None or own != self._looks.last(claims.index):
            return
        found = judge(self._own_id, claims.index, claims.digests, claims.voters)
        if not self._settles(found, claims):
            return
        self._split_at = (Place(*claims.place), claims.whole) if found.standing is Standing.SPLIT else None
        if claims.whole and found.standing is Standing.RIGHT:
            self._by_hash = self._learn(self._by_hash, found)
        self._by_scrub = self._learn(self._by_scrub, found)
        self._act()

    def _settles(self, found: Judgement, claims: Claims) -> bool:
        """Whether it stands instead of what was found before."""
        if found.standing is Standing.SPLIT:
            return True
        if self._split_at is not None:  # it ends where it was found, by a majority
            is_there = claims.whole or self._split_at == (Place(*claims.place), False)
            return is_there and found.standing is not Standing.UNKNOWN
        if found.others:
            return True
        members = self._members_or_nobody()
        silent = [node for node in self._by_scrub.others if node in members and node not in claims.digests]
        return found.standing is Standing.RIGHT and not silent

    def _learn(self, before: Judgement, found: Judgement) -> Judgement:
        """What stands from now on; what was said once is not said again."""
        if found.others and (found.standing, found.others) != (before.standing, before.others):
            log.error("the databases are not equal: %s", found.text)
        elif before.others and not found.others and found.standing is Standing.RIGHT:
            log.warning("the databases are equal again, behind entry %d", found.index)
        elif before.others and not found.others:
            return before  # nothing new is known
        return found

    def _act(self) -> None:
        both = (self._by_hash, self._by_scrub)
        wrong = next((one for one in both if one.standing is Standing.WRONG), None)
        if wrong is not None and self._quarantine is None:
            error = Diverged(f"this node's database cannot be trusted: {wrong.text}", hint=HINT_WRONG)
            self._quarantine = self._loop.create_task(self._leave(error), name="hiqlite-quarantine")
        split = next((one for one in both if one.standing is Standing.SPLIT), None)
        self._group.group.troubles.states_differ(None if split is None else Diverged(split.text, hint=HINT_SPLIT))

    async def _leave(self, error: Diverged) -> None:
        """Nothing of it is served from here on; where this node leads, another one does first."""
        self._refuse(error)
        await self._group.diverged(error)

    # -- helpers

    def _members(self) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
        """(ids of the voters, ids of all); None before this node is one."""
        group = self._group.group
        if not group.started:
            return None
        known = group.engine.membership
        voters = {one.id for one in (*known.voters, *known.outgoing)}
        return tuple(sorted(voters)), tuple(sorted({one.id for one in members_of(known)}))

    def _members_or_nobody(self) -> tuple[int, ...]:
        members = self._members()
        return () if members is None else members[1]

    def _others(self, nodes: Any) -> list[int]:
        return [node for node in nodes if node != self._own_id]
