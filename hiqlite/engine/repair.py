"""Damaged entries: a node that promised them and cannot read them any more gets exactly them back from its peers.

Must not know what an entry says. Faulty means: this index was promised, its bytes are lost, its term is known or lost
too. It is never absent: the node does not campaign, gives no vote to a shorter log, and never cuts such an entry
because it cannot tell (consensus.md section 3). Invariants: an entry of known term is taken only with that term; one
of unknown term only from somebody who knows it committed, or from the leader's own append; both are written as repairs
in their place, so that at no moment the log is shorter than what was promised.
"""

from __future__ import annotations

from .model import AppendRequest, Membership, RepairReply, RepairRequest, TermRun
from .state import FAR_FUTURE_NS, State

Range = tuple[int, int]


def tick(state: State) -> None:
    """Ask every peer in reach for what is missing; and whoever leads, since a lost entry may be who the peers are."""
    if not state.faulty or state.now_ns < state.repair_due_ns:
        return
    state.repair_due_ns = state.now_ns + state.election_min_ns
    asked = [peer.peer_id for peer in state.peers if peer.connected]
    if state.leader_id and state.leader_id != state.own.id and state.leader_id not in asked:
        asked.append(state.leader_id)
    for low, high in state.faulty:
        for run in _asked(state, low, high):
            for peer_id in asked:
                request = RepairRequest(state.term, state.own, run.first, run.last, run.term)
                state.outbox.send(state.term, peer_id, request)


def deadline_ns(state: State) -> int:
    """When peers are asked again."""
    return state.repair_due_ns if state.faulty else FAR_FUTURE_NS


def receive_request(state: State, request: RepairRequest) -> None:
    """Give what is asked for, if this log holds it undamaged and knows it for the very entry.

    A leader that has purged it gives an image of the database instead.
    """
    first, last = request.first, request.last
    if first <= state.log.base_index and state.leads:
        peer = state.peer_of(request.sender)
        if peer is not None and peer.connected and not peer.needs_image:
            peer.need_image()
    if first <= state.log.base_index or last > state.log.last_index or last < first or state.unconfirmed:
        return
    if last > state.outbox.written_index or [low for low, high in state.faulty if low <= last and first <= high]:
        return
    runs = state.log.slice(first, last)
    committed = last <= state.commit_index
    if request.entry_term == 0:
        if not committed:
            return
    elif len(runs) != 1 or runs[0].term != request.entry_term:
        return
    previous_term = state.log.term_at(first - 1) if known_before(state, first - 1) == first - 1 else 0
    memberships = state.memberships_of(first, last)
    reply = RepairReply(state.term, state.own, first, last, previous_term, runs, committed, memberships)
    state.outbox.send(state.term, request.sender.id, reply)


def receive_reply(state: State, reply: RepairReply) -> None:
    """Write what was missing again, unless another peer was faster.

    Of an entry whose term is lost too, an index says nothing: two peers may hold two entries there. One that is not
    committed may be the wrong one, and this node would then promise it under the old promise. So only who knows it
    committed may give it, or the leader's append, to which every follower's log gives way.
    """
    first, last, runs = reply.first, reply.last, reply.runs
    if state.leads:
        return
    if _within(state.faulty, first, last) and not _within(state.unknown, first, last):
        if len(runs) == 1 and state.log.slice(first, last) == runs:
            take(state, runs, first, last, reply.memberships)
    elif reply.committed and _within(state.unknown, first, last):
        _take_committed(state, reply)


def _take_committed(state: State, reply: RepairReply) -> None:
    """Committed entries in the place of lost ones, if they follow what this log holds before them.

    That is sure behind the commit index. Elsewhere an entry before them that is of another term is itself none of those
    that are committed, and nothing that followed it here is: else the tail of a deposed leader would count as committed
    with what was put behind it.
    """
    before = reply.first - 1
    if before > state.commit_index:
        if reply.previous_term == 0 or known_before(state, before) != before:
            return
        if state.log.term_at(before) != reply.previous_term:
            cut(state, before - 1)
            return
    take(state, reply.runs, reply.first, reply.last, reply.memberships)


def take(
    state: State, runs: tuple[TermRun, ...], first: int, last: int, memberships: tuple[Membership, ...]
) -> None:
    """Entries `[first, last]` are at hand again, with the terms of `runs`."""
    log = state.log
    if log.slice(first, last) != runs:
        end = log.last_index
        log.overwrite(runs)
        if log.last_index < end:
            cut(state, log.last_index)
    state.faulty = without(state.faulty, first, last)
    state.unknown = without(state.unknown, first, last)
    if last <= log.last_index:
        state.outbox.write_repair(first, last)
        for membership in memberships:
            if first <= membership.index <= last:
                state.take_membership(membership)


def take_from_leader(state: State, request: AppendRequest) -> None:
    """The leader's append, whose beginning fits this log, carries entries that are damaged here.

    Of equal or of unknown term they are repairs, but only before the first entry that contradicts this log: what stands
    behind that is cut, and a repair there would put an entry behind another history.
    """
    conflict = _first_contradiction(state, request.runs)
    for run in request.runs:
        end = min(run.last, conflict - 1)
        for low, high in list(state.unknown):
            first, last = max(low, run.first), min(high, end)
            if first <= last:
                take(state, (TermRun(run.term, first, last),), first, last, request.memberships)
        for low, high in list(state.faulty):
            first, last = max(low, run.first), min(high, end)
            if first <= last:
                take(state, state.log.slice(first, last), first, last, request.memberships)


def _first_contradiction(state: State, runs: tuple[TermRun, ...]) -> int:
    """The first index at which this log is known to hold another term; behind all of `runs` when there is none."""
    for run in runs:
        for held in state.log.slice(max(run.first, state.log.base_index + 1), min(run.last, state.log.last_index)):
            index = held.first
            if held.term != run.term:
                for low, high in state.unknown:
                    if low <= index <= high:
                        index = high + 1
                if index <= held.last:
                    return index
    return runs[len(runs) - 1].last + 1


def known_before(state: State, index: int) -> int:
    """The highest index at or below `index` whose term is known."""
    for low, high in reversed(state.unknown):
        if low <= index <= high:
            index = low - 1
    return index


def cut(state: State, last_kept: int) -> None:
    """The log is cut at a true conflict: what was damaged above is nobody's promise any more."""
    state.log.truncate(last_kept)
    state.outbox.write_truncate(last_kept)
    state.verified_index = min(state.verified_index, last_kept)
    state.cut_memberships(last_kept)
    state.faulty = [(low, min(high, last_kept)) for low, high in state.faulty if low <= last_kept]
    state.unknown = [(low, min(high, last_kept)) for low, high in state.unknown if low <= last_kept]


def without(ranges: list[Range], first: int, last: int) -> list[Range]:
    """`ranges` less `[first, last]`."""
    kept = []
    for low, high in ranges:
        if low < first:
            kept.append((low, min(high, first - 1)))
        if high > last:
            kept.append((max(low, last + 1), high))
    return kept


def _asked(state: State, low: int, high: int) -> tuple[TermRun, ...]:
    """What to ask for: one run per term, term 0 where it is lost."""
    if _within(state.unknown, low, high):
        return (TermRun(0, low, high),)
    return state.log.slice(low, high)


def _within(ranges: list[Range], first: int, last: int) -> bool:
    return bool([low for low, high in ranges if low <= first and last <= high])
