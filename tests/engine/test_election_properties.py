"""Any node, told anything, against the rules of elections in their own words (consensus.md rules 9, 10 and 17).

A model says what a voter answers, who obeys the word to campaign, and until when a leader counts as heard.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from hiqlite.config import RaftSettings
from hiqlite.engine.model import (
    AppendReply,
    AppendRequest,
    Identity,
    Membership,
    ProbeReply,
    ProbeRequest,
    Ready,
    Role,
    TermRun,
    TimeoutNow,
    VoteReply,
    VoteRequest,
)
from tests.engine.engine_group import MS, Alone, fresh, identities, lead, log_of, messages

ONE, TWO, THREE, FOUR, FIVE = identities(5)
OTHERS = (TWO, THREE, FOUR, FIVE)
ELECTION_MIN = RaftSettings().election_timeout_min_ms * MS
ELECTION_MAX = RaftSettings().election_timeout_max_ms * MS
FOR_EVER = 2**62
SPANS_MS = st.sampled_from((0, 0, 20, 200, 499, 500))
PEERS = st.sets(st.sampled_from(OTHERS))


@st.composite
def nodes(draw: st.DrawFn, *, learns: bool = False) -> Alone:
    """Node 1 of three, with any log, any part of which may be damaged, at times with its terms."""
    runs: list[TermRun] = []
    last = 0
    for term in sorted(draw(st.sets(st.integers(1, 5), max_size=3))):
        first, last = last + 1, last + draw(st.integers(1, 3))
        runs.append(TermRun(term, first, last))
    known: dict[str, object] = {"term": max(1, runs[-1].term if runs else 0) + draw(st.integers(0, 1))}
    if runs and draw(st.sampled_from((True, True, False))):
        low = draw(st.integers(1, last))
        high = draw(st.sampled_from((last, low, max(low, last - 1))))
        known[draw(st.sampled_from(("faulty", "unknown")))] = ((low, high),)
    members = Membership(0, (TWO, THREE), (ONE,)) if learns else Membership(0, (ONE, TWO, THREE))
    vote = draw(st.sampled_from((None, None, TWO, THREE)))
    return Alone(fresh(members, runs=tuple(runs), vote=vote, **known))


# --------------------------------------------------------------------------- votes


@dataclass
class Voter:
    """One vote in a term, for a log at least as up to date; none against a leader that is heard."""

    term: int
    vote: Identity | None
    last: tuple[int, int]  # (term, index) of the last entry that was promised, damaged or not
    heard_until_ns: int

    def answer(self, request: VoteRequest, now_ns: int) -> bool | None:
        """None: it keeps silent."""
        if request.term > self.term and now_ns < self.heard_until_ns and not request.transfer:
            return False if request.pre else None
        behind = (request.last_term, request.last_index) < self.last
        if request.pre:
            return request.term > self.term and not behind
        if request.term > self.term:
            self.term, self.vote, self.heard_until_ns = request.term, None, 0
        if request.term < self.term or behind or self.vote not in (None, request.sender):
            return False
        if self.vote is None:
            self.vote, self.heard_until_ns = request.sender, 0
        return True


@st.composite
def requests(draw: st.DrawFn, voter: Voter) -> VoteRequest:
    """From somebody whose term and log are near the voter's."""
    last_term, last_index = voter.last
    kind = draw(st.sampled_from(("pre", "vote", "vote", "transfer")))
    return VoteRequest(
        max(1, voter.term + draw(st.sampled_from((-1, 0, 1, 1, 2)))),
        draw(st.sampled_from((TWO, THREE, Identity(2, 99)))),
        kind == "pre",
        max(0, last_index + draw(st.sampled_from((-2, -1, -1, 0, 0, 1)))),
        max(0, last_term + draw(st.sampled_from((-1, 0, 0, 0, 1)))),
        kind == "transfer",
    )


@given(nodes(), st.data())
def test_a_vote_goes_once_in_a_term_to_a_log_that_lacks_nothing_promised(node: Alone, data: st.DataObject) -> None:
    """Pre-votes, stickiness and damage included; what is answered, and what is remembered of it (Raft paper 5.4.1)."""
    raft = node.raft
    heard = data.draw(st.booleans())
    if heard:
        node.receive(ProbeRequest(raft.term, THREE, 1))
        node.sync()
    until_ns = node.now + ELECTION_MIN if heard else 0
    voter = Voter(raft.term, raft.vote, (raft.last_term, raft.last_index), until_ns)
    for _ in range(data.draw(st.integers(2, 10))):
        node.now += data.draw(SPANS_MS) * MS
        request = data.draw(requests(voter))
        expected = voter.answer(request, node.now)
        node.receive(request)
        answers = [reply.granted for reply in messages(node.sync(), VoteReply) if isinstance(reply, VoteReply)]
        assert answers == ([] if expected is None else [expected]), request
        assert (raft.term, raft.vote) == (voter.term, voter.vote), request


# --------------------------------------------------------------------------- the word to campaign


def leader_in(term: int) -> Identity:
    return TWO if term % 2 else THREE


@given(
    node=st.one_of(nodes(), nodes(learns=True)),
    told=st.lists(st.tuples(st.booleans(), st.integers(-2, 2), st.sampled_from((TWO, THREE))), min_size=1, max_size=6),
)
def test_only_the_leader_that_it_follows_makes_a_voter_campaign(
    node: Alone, told: list[tuple[bool, int, Identity]]
) -> None:
    """And none that could not give out its log; late, early and foreign words change nothing (thesis 3.10)."""
    raft = node.raft
    may = ONE in raft.membership.voters and not raft.faulty
    term, leader, campaigns = raft.term, 0, False
    for leads, offset, sender in told:
        its_term = max(1, term + offset)
        if leads:
            node.receive(ProbeRequest(its_term, leader_in(its_term), 1))
            if its_term >= term:
                term, leader, campaigns = its_term, leader_in(its_term).id, False
        else:
            node.receive(TimeoutNow(its_term, sender))
            if its_term == term and sender.id == leader and may:
                term, leader, campaigns = term + 1, 0, True
        node.sync()
        assert (raft.term, raft.leader_id, raft.role is Role.CANDIDATE) == (term, leader, campaigns)


# --------------------------------------------------------------------------- check-quorum


@dataclass
class Heard:
    """What a leader may count: when the newest round that a peer answered began, and since when an append waits."""

    since_ns: int
    rounds: dict[Identity, int] = field(default_factory=dict)
    waits: dict[Identity, int] = field(default_factory=dict)

    def until_ns(self, membership: Membership) -> int:
        """Until when a majority of each set of voters counts."""
        sets = (membership.voters, membership.outgoing) if membership.joint else (membership.voters,)
        return min(sorted(map(self.alive_ns, voters), reverse=True)[len(voters) // 2] for voters in sets)

    def alive_ns(self, one: Identity) -> int:
        if one == ONE:
            return FOR_EVER
        answered_ns = self.rounds.get(one, 0)
        return max(self.since_ns, min(answered_ns, self.waits.get(one, answered_ns))) + ELECTION_MAX


@st.composite
def leaders(draw: st.DrawFn) -> Alone:
    """Node 1 leads five; by the newest configuration some of them learn, leave, or left."""
    votes, learns, leaves = draw(PEERS), draw(PEERS), draw(PEERS)
    voters = (ONE, *sorted(votes))
    outgoing = (ONE, *sorted(leaves)) if draw(st.booleans()) else ()
    newest = Membership(1, voters, tuple(sorted(learns - votes - set(outgoing))), outgoing)
    first = Membership(0, (ONE, *OTHERS))
    return lead(fresh(first, term=1, runs=log_of((1, 1, 1)), memberships=(newest,)))


def talk(
    node: Alone, heard: Heard, readies: list[Ready], rounds: Collection[Identity], logs: Collection[Identity]
) -> None:
    """Some peers answer rounds, some appends, until nobody has anything to say."""
    raft = node.raft
    while readies:
        for send in [send for ready in readies for send in ready.sends]:
            message, peer = send.message, raft.progress(send.peer_id)
            if peer is None:
                continue  # it left meanwhile
            if isinstance(message, ProbeRequest) and peer.identity in rounds:
                node.receive(ProbeReply(raft.term, peer.identity, message.token))
                heard.rounds[peer.identity] = node.now
            elif isinstance(message, AppendRequest):
                heard.waits.setdefault(peer.identity, node.now)
                if peer.identity in logs:
                    last = message.last_index
                    reply = AppendReply(raft.term, peer.identity, True, last, 0, 0, message.epoch, message.sequence)
                    node.receive(reply)
                    del heard.waits[peer.identity]
        readies = node.sync()


@given(
    node=leaders(),
    phases=st.lists(
        st.tuples(PEERS, st.one_of(st.none(), PEERS), st.lists(st.integers(20, 400), min_size=1, max_size=8)),
        min_size=1, max_size=4,
    ),
)  # fmt: skip
def test_a_leader_leads_exactly_as_long_as_a_majority_of_every_set_answers(
    node: Alone, phases: list[tuple[set[Identity], set[Identity] | None, list[int]]]
) -> None:
    """Rounds and appends both; who only learns, or has left, neither holds it nor makes it fall (thesis 6.2)."""
    raft, heard = node.raft, Heard(node.now)
    talk(node, heard, node.readies[:], (), ())
    for rounds, logs, spans in phases:
        for span in spans:
            until_ns = heard.until_ns(raft.membership)
            node.now += span * MS
            if raft.next_deadline() <= node.now:
                raft.tick(node.now)
            assert raft.leads == (node.now < until_ns), f"{(node.now - until_ns) / MS:.0f} ms by {raft.membership}"
            if not raft.leads:
                return
            talk(node, heard, node.sync(), rounds, rounds if logs is None else logs)
