"""What a node does with what a leader says: entries, rounds, heartbeats (Raft thesis 3.5).

Must not know how a leader decides or how votes are won. Invariants: a node acknowledges what a request verified, not
what it happens to hold; it cuts its log only at a real conflict of terms and never at or below its commit index; its
commit index never exceeds what the current leader verified (rule 4).
"""

from __future__ import annotations

from . import repair
from .log import UNKNOWN_TERM
from .model import AppendKind, AppendReply, AppendRequest, ProbeReply, ProbeRequest, Role
from .role import adopt, follow, heard
from .state import State


def receive_append(state: State, request: AppendRequest) -> None:
    """Step an AppendRequest: check, cut, extend, commit, promise."""
    if request.term < state.term:
        _refuse(state, request, 0, 0)
        return
    if not _accept_leader(state, request.term, request.sender.id):
        return
    if state.unconfirmed and not _confirm_applied(state, request):
        return
    previous = request.previous_index
    if state.unknown and repair.known_before(state, previous) != previous:
        hint = repair.known_before(state, previous)  # cannot tell, so the leader is to begin before it
        _refuse(state, request, hint, state.log.term_at(hint))
        return
    held_term = state.log.term_at(previous)
    if previous > state.log.last_index or (previous >= state.log.base_index and held_term != request.previous_term):
        if previous <= state.commit_index:
            state.break_promise(
                f"the leader has term {request.previous_term} at committed index {previous}, this log has {held_term}"
            )
            return
        _refuse_with_hint(state, request)
        return
    if state.faulty and request.runs:
        repair.take_from_leader(state, request)
    last = request.last_index
    if last > previous and not _take_entries(state, request):
        return
    if last > state.verified_index:
        state.verified_index = last
    state.commit_to(min(request.commit_index, last))
    state.outbox.acknowledge(state.term, request.sender.id, last, request.epoch, request.sequence)


def receive_probe(state: State, request: ProbeRequest) -> None:
    """Answer a round of the control link: the leader of this term still leads as far as this node knows."""
    if request.term >= state.term and not _accept_leader(state, request.term, request.sender.id):
        return
    state.outbox.send(state.term, request.sender.id, ProbeReply(state.term, state.own, request.token))


def heard_beat(state: State, term: int, sender_id: int, incarnation: int, commit_bound: int, heard_at_ns: int) -> None:
    """A stamp of the native heartbeat thread: liveness in the own term, and a bound for the commit index (rule 17).

    The bound is the leader's commit index; capped by what this leader verified here it cannot commit anything that
    an append would not have committed. Without the cap an old tail of another term would be taken for committed.
    """
    peer = state.peers_by_id.get(sender_id)
    if peer is None or peer.identity.incarnation != incarnation or term != state.term or state.leads:
        return
    if state.leader_id == 0 or state.role is Role.PRE_CANDIDATE or state.role is Role.CANDIDATE:
        if state.now_ns - heard_at_ns >= state.timeout_ns:
            return
        follow(state, sender_id)
    if state.leader_id != sender_id:
        return
    heard(state, heard_at_ns)
    state.commit_to(min(commit_bound, state.verified_index))


def _accept_leader(state: State, term: int, sender_id: int) -> bool:
    """Take the sender for the leader of `term`, which is at least the own term."""
    if term > state.term:
        adopt(state, term, None)
    if state.leads:
        state.break_promise(f"node {sender_id} leads in term {term}, and so does this node")
        return False
    follow(state, sender_id)
    heard(state, state.now_ns)
    return True


def _take_entries(state: State, request: AppendRequest) -> bool:
    """Append what is missing, after cutting what contradicts it; False if that would break a promise."""
    log = state.log
    conflict = log.first_conflict(request.runs)
    if conflict == 0:
        return True
    if conflict <= log.last_index:
        if conflict <= state.commit_index:
            state.break_promise(f"the leader of term {state.term} contradicts the committed entry {conflict}")
            return False
        repair.cut(state, conflict - 1)
    for run in request.runs:
        if run.last >= conflict:
            log.extend(run.term, max(run.first, conflict), run.last)
    state.outbox.write_append(conflict, request.last_index, AppendKind.RECEIVED, log.last_term)
    for membership in request.memberships:
        if membership.index >= conflict:
            state.take_membership(membership)
    return True


def _confirm_applied(state: State, request: AppendRequest) -> bool:
    """Whether the leader's log holds the very entry up to which the database was applied (semantics.md section 3).

    Until then nothing is acknowledged: the log here is empty, though the database is not. A request that does not
    reach that entry says nothing; one that has another term there proves that the database went astray.
    """
    base = state.log.base_index
    term = UNKNOWN_TERM
    if request.previous_index == base:
        term = request.previous_term
    for run in request.runs:
        if run.first <= base <= run.last:
            term = run.term
    if term == state.log.base_term:
        state.unconfirmed = False
        return True
    if term != UNKNOWN_TERM:
        state.break_promise(
            f"the database was applied up to ({base}, term {state.log.base_term}), the leader's log has term {term}"
        )
        return False
    _refuse(state, request, base, state.log.base_term)
    return False


def _refuse_with_hint(state: State, request: AppendRequest) -> None:
    """Name the highest entry that may be common: one probe per distinct term is enough to find it (rule 15)."""
    hint = state.log.floor_of_term(request.previous_index, request.previous_term)
    _refuse(state, request, hint, state.log.term_at(hint))


def _refuse(state: State, request: AppendRequest, hint_index: int, hint_term: int) -> None:
    reply = AppendReply(
        state.term, state.own, False, 0, hint_index, hint_term, request.epoch, request.sequence
    )
    state.outbox.send(state.term, request.sender.id, reply)
