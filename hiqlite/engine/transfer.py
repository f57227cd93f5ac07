"""A leader hands leadership to a voter of its choice (thesis 3.10; consensus.md rule 10).

Must not know why. It takes no proposals, waits until the other's log is as long as its own, tells it to campaign at
once, and leads on until the other's term reaches it. Invariants: one transfer at a time; it ends within the upper
election timeout, and a leader that still leads then takes proposals again; whoever is told has the whole log.
"""

from __future__ import annotations

from .model import TimeoutNow
from .progress import Progress
from .state import FAR_FUTURE_NS, State


def begin(state: State, peer_id: int) -> bool:
    """Start handing over to a voter, or to the one with the longest log (0). False when there is nobody, or not now."""
    if not state.leads or state.fatal or state.transfer_id or not state.made_taken:
        return False
    peer = state.peers_by_id.get(peer_id) if peer_id else best_peer(state)
    if peer is None or not _may_lead(state, peer):
        return False
    state.transfer_id = peer.peer_id
    state.transfer_sent = False
    state.transfer_deadline_ns = state.now_ns + state.election_max_ns
    return True


def advance(state: State) -> None:
    """Tell the other to campaign once it has everything; give up if it is gone."""
    peer = state.peers_by_id.get(state.transfer_id)
    if peer is None or not _may_lead(state, peer):
        end(state)
    elif not state.transfer_sent and peer.match_index == state.log.last_index:
        tell_to_campaign(state, peer)
        state.transfer_sent = True


def tick(state: State) -> None:
    """The time is over: lead on, or try the next one while the disk is full.

    Who was elected with a full disk hands over as well. Not so who was handed leadership: where all disks are full it
    would go round for ever.
    """
    if state.transfer_id and state.now_ns >= state.transfer_deadline_ns:
        end(state)
        if state.disk_full:
            begin(state, 0)
    elif state.disk_full and not state.transfer_id and not state.handed_over:
        begin(state, 0)


def end(state: State) -> None:
    """No transfer is under way any more; a leader that has left meanwhile goes now."""
    state.transfer_id = 0
    state.dirty = True
    state.transfer_sent = False
    state.transfer_deadline_ns = 0


def deadline_ns(state: State) -> int:
    """When a running transfer is given up."""
    return state.transfer_deadline_ns if state.transfer_id else FAR_FUTURE_NS


def best_peer(state: State) -> Progress | None:
    """The connected voter with the longest log."""
    best: Progress | None = None
    for peer in state.peers:
        if _may_lead(state, peer) and (best is None or peer.match_index > best.match_index):
            best = peer
    return best


def tell_to_campaign(state: State, peer: Progress) -> None:
    """It need not ask first, and those who hear this leader will answer it."""
    state.outbox.send(state.term, peer.peer_id, TimeoutNow(state.term, state.own))


def _may_lead(state: State, peer: Progress) -> bool:
    return peer.connected and peer.identity in state.config.membership.voters
