"""What a leader does: take proposals, send frames, count copies, confirm reads (Raft thesis 3.5, 3.6, 6.4).

Must not know how it came to lead. Invariants: it sends before its own flush and counts itself only up to its synced
index (rule 3); it commits only at an entry of its own term (rule 2), which commits everything before; a peer is
counted by answers of its present identity, session and this term; a frame is a range of whole batches, or what was
fetched; no entry is looked at one by one.
"""

from __future__ import annotations

from hiqlite.errors import ProtocolError

from . import quorum
from .model import AppendKind, AppendReply, AppendRequest, Fetch, Membership, ProbeReply, ProbeRequest, SendImage
from .progress import Progress
from .role import adopt
from .state import FAR_FUTURE_NS, NOOP_BYTES, State

ROUNDS_ON_THEIR_WAY = 4  # further reads share the next round, as further writes share the next frame
PROBE_BYTES_MAX = 65536  # a probe carries entries only if a refusal wastes little


def open_term(state: State) -> None:
    """The entry without content that makes everything before it committable."""
    state.opened_index = state.log.last_index + 1
    take_entry(state, NOOP_BYTES, AppendKind.NOOP, None)


def take_entry(state: State, size_bytes: int, kind: AppendKind, membership: Membership | None) -> None:
    """Append one entry whose record the runtime makes; until that was told to, its bytes come before any proposal's."""
    state.made_taken = False
    index = state.log.last_index + 1
    _take(state, index, index, size_bytes, kind, membership)


def propose(state: State, count: int, size_bytes: int) -> int:
    """Append `count` entries; the first index, or 0 when refused.

    Refused without leadership and while it is handed over, on a full disk, when too much waits for commit, and until
    an entry that the runtime makes was handed to it: its bytes come before those of any proposal.
    """
    assert count > 0 and size_bytes >= 0, "a proposal has entries"
    assert count == 1 or size_bytes <= state.frame_bytes_max, "a batch fits one frame"
    if not state.leads or not state.made_taken or state.transfer_id or state.disk_full or state.fatal:
        return 0
    if state.uncommitted_bytes and state.uncommitted_bytes + size_bytes > state.memory_window_bytes:
        return 0
    first = state.log.last_index + 1
    _take(state, first, first + count - 1, size_bytes, AppendKind.PROPOSED, None)
    return first


def receive_append_reply(state: State, reply: AppendReply) -> None:
    """An answer of a peer, counted only for this term, this session and this incarnation (rules 8, 15)."""
    peer = state.peer_of(reply.sender)
    if peer is None:
        return
    if reply.term > state.term:
        adopt(state, reply.term, None)
        return
    if not state.leads or reply.term != state.term or reply.epoch != peer.epoch or not peer.connected:
        return
    if not reply.accepted:
        _seek(state, peer, reply)
        return
    if reply.match_index > state.log.last_index:
        raise ProtocolError(f"node {peer.peer_id} acknowledged {reply.match_index} of a log that ends before")
    if peer.acknowledged(reply.sequence, reply.match_index):
        advance_commit(state)
    if peer.learner:
        peer.count_catch_up(state.log.last_index, state.now_ns, state.election_min_ns)


def receive_probe_reply(state: State, reply: ProbeReply) -> None:
    """A round came back: it proves that the peer is alive and that this node led when the round was sent."""
    peer = state.peer_of(reply.sender)
    if peer is None:
        return
    if reply.term > state.term:
        adopt(state, reply.term, None)
        return
    if not state.leads or reply.term != state.term:
        return
    sent_ns = state.reads.sent_time(reply.token)
    if sent_ns == 0 or reply.token <= peer.confirmed_round:
        return
    peer.confirmed_round = reply.token
    peer.round_trip_ns = sent_ns
    _count_rounds(state)


def entries_fetched(state: State, peer_id: int, first: int, last: int, size_bytes: int) -> None:
    """Bytes `[first, last]` are at hand for a peer; sent if they are still what it needs, else forgotten.

    The answer to a Fetch of an earlier leadership may hold entries that were cut since, so it is never sent.
    """
    peer = state.peers_by_id.get(peer_id)
    if peer is None or not peer.fetch_outstanding:
        return
    peer.fetch_outstanding = False
    if not state.leads or peer.fetch_term != state.term or peer.fetch_first != first:
        return
    if last < first or last > state.log.last_index or first <= state.log.base_index or not peer.connected:
        return
    if peer.replicating and peer.next_index == first and peer.has_room(state.window_frames, state.window_bytes):
        _send_frame(state, peer, last, size_bytes)


def tick(state: State) -> None:
    """Judge the leader's deadlines but for check-quorum: rounds, the commit message, frames without an answer."""
    if state.now_ns >= state.round_due_ns:
        begin_round(state)
    commit_due = state.commit_due_ns != 0 and state.now_ns >= state.commit_due_ns
    for peer in state.peers:
        if not peer.connected:
            continue
        if peer.replicating:
            if peer.oldest_sent_ns() and state.now_ns - peer.oldest_sent_ns() >= state.resend_ns:
                peer.probe_from(peer.next_index)
            elif peer.next_index <= state.log.base_index:
                peer.need_image()  # what stands before its next entry was purged since it answered
            elif commit_due and _lacks_commit(state, peer) and peer.has_room(state.window_frames, state.window_bytes):
                _send_frame(state, peer, peer.next_index - 1, 0)
        elif peer.needs_image:
            if not peer.image_runs and state.now_ns - peer.image_asked_ns >= state.election_max_ns:
                peer.image_asked_ns = 0
        elif peer.probe_sent_ns and state.now_ns - peer.probe_sent_ns >= state.heartbeat_ns:
            peer.probe_from(peer.next_index)
    if commit_due:
        state.commit_due_ns = 0


def next_deadline_ns(state: State) -> int:
    """When a leader wants to be ticked, check-quorum aside. Rounds come often enough for requests for images."""
    if state.commit_due_ns:
        return min(state.commit_due_ns, state.round_due_ns)
    return state.round_due_ns


def begin_round(state: State) -> None:
    """Send a round to everybody. Queued reads ride along once an entry of this term is committed."""
    read_index = state.commit_index if state.commit_index >= state.opened_index else 0
    number = state.reads.begin_round(read_index, state.now_ns)
    state.round_due_ns = state.now_ns + state.heartbeat_ns
    request = ProbeRequest(state.term, state.own, number)
    for peer in state.peers:
        if peer.connected:
            state.outbox.send(state.term, peer.peer_id, request)
    _count_rounds(state)


def prepare(state: State) -> None:
    """Everything a leader sends in one turn: a round if reads wait, a frame to each peer that has room."""
    reads = state.reads
    if reads.queued and len(reads.rounds) < ROUNDS_ON_THEIR_WAY and state.commit_index >= state.opened_index:
        begin_round(state)
    lacking = False
    for peer in state.peers:
        if not peer.connected:
            continue
        if peer.replicating:
            _send_frames(state, peer)
            if _lacks_commit(state, peer) and peer.has_room(state.window_frames, state.window_bytes):
                lacking = True
        elif peer.needs_image:
            if peer.image_asked_ns == 0:
                peer.image_asked_ns = state.now_ns
                state.outbox.ask_image(SendImage(peer.peer_id, peer.image_index))
        elif peer.probe_sent_ns == 0:
            _send_probe(state, peer)
    if not lacking:
        state.commit_due_ns = 0
    elif state.commit_due_ns == 0:
        state.commit_due_ns = state.now_ns + state.commit_delay_ns


def advance_commit(state: State) -> None:
    """Commit what a majority of every voter set holds durably, if it ends in an entry of this term."""
    state.values[0] = state.outbox.synced_index
    for peer in state.peers:
        state.values[peer.slot] = peer.match_index
    index = quorum.reached(state.config.voter_sets, state.values)
    if index <= state.commit_index or state.log.term_at(index) != state.term:
        return
    state.commit_to(index)
    while state.uncommitted and state.uncommitted[0][0] <= index:
        state.uncommitted_bytes -= state.uncommitted.popleft()[1]
    needed = FAR_FUTURE_NS
    for peer in state.peers:
        if peer.connected:
            needed = min(needed, peer.match_index)
    state.window.release(min(needed, index))


def _take(
    state: State, first: int, last: int, size_bytes: int, kind: AppendKind, membership: Membership | None
) -> None:
    state.log.extend(state.term, first, last)
    state.window.push(first, last, size_bytes)
    state.uncommitted.append((last, size_bytes))
    state.uncommitted_bytes += size_bytes
    state.outbox.write_append(first, last, kind, state.term, membership)


def _seek(state: State, peer: Progress, reply: AppendReply) -> None:
    """A request did not fit: begin the next probe where logs may still be one, or find that only an image helps.

    Who names an entry below the base lacks the one at the base. Who refuses the base itself may hold an entry there,
    of another term, and would name it for ever: there is nothing below that this log could offer.
    """
    base = state.log.base_index
    refused_base = not peer.replicating and peer.next_index <= base + 1 and reply.hint_index == base
    hint = state.log.floor_of_term(reply.hint_index, reply.hint_term)
    if peer.rejected(reply.sequence, hint + 1) and (refused_base or reply.hint_index < base):
        peer.need_image()


def _count_rounds(state: State) -> None:
    state.values[0] = state.reads.round
    for peer in state.peers:
        state.values[peer.slot] = peer.confirmed_round
    state.reads.confirm(quorum.reached(state.config.voter_sets, state.values))


def _lacks_commit(state: State, peer: Progress) -> bool:
    return peer.commit_sent < min(state.commit_index, peer.next_index - 1)


def _send_frames(state: State, peer: Progress) -> None:
    """Fill the peer's window; what is no longer in memory is asked for, one Fetch at a time."""
    if peer.next_index <= state.log.base_index:
        peer.need_image()
        return
    while peer.next_index <= state.log.last_index and peer.has_room(state.window_frames, state.window_bytes):
        last = state.window.frame(peer.next_index, state.frame_bytes_max)
        if last == 0:
            if not peer.fetch_outstanding:
                peer.fetch_outstanding = True
                peer.fetch_first = peer.next_index
                peer.fetch_term = state.term
                state.outbox.fetch(Fetch(peer.peer_id, peer.next_index, state.frame_bytes_max))
            return
        _send_frame(state, peer, last, state.window.frame_bytes)


def _send_frame(state: State, peer: Progress, last: int, size_bytes: int) -> None:
    """Entries `[next_index, last]`, or none at all when `last` is the one before."""
    first = peer.next_index
    sequence = peer.sent_frame(last, size_bytes, state.now_ns)
    _send_append(state, peer, first, last, sequence)


def _send_probe(state: State, peer: Progress) -> None:
    """Ask whether the peer's log holds the entry before `next_index`; the next entries ride along if they are few."""
    first = max(peer.next_index, state.log.base_index + 1)
    last = state.window.frame(first, PROBE_BYTES_MAX)
    if last == 0 or state.window.frame_bytes > PROBE_BYTES_MAX:
        last = first - 1
    _send_append(state, peer, first, last, peer.sent_probe(state.now_ns))


def _send_append(state: State, peer: Progress, first: int, last: int, sequence: int) -> None:
    previous = first - 1
    request = AppendRequest(
        state.term,
        state.own,
        previous,
        state.log.term_at(previous),
        state.commit_index,
        last,
        state.log.slice(first, last),
        peer.epoch,
        sequence,
        state.memberships_of(first, last) if state.config.membership.index >= first else (),
    )
    peer.commit_sent = min(state.commit_index, last)
    state.outbox.send(state.term, peer.peer_id, request)
