"""Images of the database, as far as consensus is concerned with them (thesis 5; semantics.md section 10).

Must not know how an image is made, streamed or installed: it says which peer needs one, keeps the log behind it, and
takes an installed one for the log's new beginning. Invariants: the log is kept only where it holds the image's
(index, term), else it begins anew behind it; while an image takes the database's place nothing is given to apply; the
log behind an image that was begun is not to be purged until its peer has the log from there on.
"""

from __future__ import annotations

from . import repair
from .model import Membership, Role
from .state import State

# --------------------------------------------------------------------------- leader


def started(state: State, peer_id: int, index: int) -> bool:
    """An image at `index` is on its way to a peer. False when nobody needs it (any more): do not send it."""
    peer = state.peers_by_id.get(peer_id)
    if not state.leads or peer is None or not peer.needs_image or index < state.log.base_index:
        return False
    peer.image_started(index)
    return True


def progressed(state: State, peer_id: int, oldest_sent_ns: int) -> None:
    """The oldest part that the peer did not confirm left at that time, 0: it confirmed all (rule 17)."""
    peer = state.peers_by_id.get(peer_id)
    if state.leads and peer is not None and peer.image_runs:
        peer.unacked_since_ns = oldest_sent_ns


def finished(state: State, peer_id: int) -> None:
    """The peer has installed its image: go on with the log behind it."""
    peer = state.peers_by_id.get(peer_id)
    if state.leads and peer is not None and peer.image_runs:
        peer.unacked_since_ns = 0
        # It may have acknowledged more: a refusal that came late made it look as if it needed the image.
        peer.probe_from(max(peer.image_index, peer.match_index) + 1)


def failed(state: State, peer_id: int, resumable: bool) -> None:
    """Sending ended. It is asked for again later."""
    peer = state.peers_by_id.get(peer_id)
    if state.leads and peer is not None and peer.image_runs:
        peer.image_failed(resumable, state.now_ns)


def highest_purgeable(state: State) -> int:
    """The highest index that may go from the log: applied here, and behind every image that is under way.

    Below what is damaged, too: it may be a configuration, which has to be known before it may be forgotten.
    """
    limit = min(state.applied_index, state.handed_index)
    for low, _ in state.faulty:
        limit = min(limit, low - 1)
    for peer in state.peers:
        if peer.image_index:
            limit = min(limit, peer.image_index)
    return limit


def purged(state: State, index: int) -> None:
    """Entries up to `index` are gone from the log."""
    assert index <= state.applied_index, "what is not applied is not purged"
    if index <= state.log.base_index:
        return
    # Of an entry whose term is lost the log knows a bound: as a base it would contradict every leader.
    lost = [low for low, high in state.unknown if low <= index <= high]
    assert not lost, "a log begins behind an entry of known term"
    state.log.compact(index)
    state.drop_memberships(index)
    state.window.starts_at(index + 1)
    state.faulty = repair.without(state.faulty, 0, index)  # what is gone is damaged no more
    state.unknown = repair.without(state.unknown, 0, index)


# --------------------------------------------------------------------------- follower


def begin_install(state: State, index: int) -> bool:
    """Whether an image at `index` may take the database's place now. Nothing is given to apply until it ends."""
    if state.leads or state.installing or index < state.handed_index:
        return False
    if state.role is Role.CANDIDATE or state.role is Role.PRE_CANDIDATE:
        return False  # votes on their way could make it lead in the midst of the install
    if index <= state.commit_index and not state.unconfirmed and not state.faulty:
        return False
    state.installing = True
    return True


def installed(state: State, index: int, term: int, membership: Membership) -> None:
    """The image is the database now, durably, and `membership` was in force at its end."""
    assert state.installing and not state.leads and index >= state.handed_index, "an install was begun"
    state.installing = False
    log = state.log
    keeps_log = not state.unconfirmed and log.term_at(index) == term and not _damaged(state, index)
    state.unconfirmed = False
    if keeps_log:
        state.commit_to(index)
        state.take_membership(membership)  # its entry may be one of those that are damaged here
    else:
        log.reset(index, term)
        state.outbox.write_reset(index, term)
        state.window.clear()
        state.begin_memberships(membership)
        state.commit_index = index
        state.verified_index = index
    state.verified_index = max(state.verified_index, index)
    state.handed_index = index
    state.applied_index = max(state.applied_index, index)
    state.faulty = repair.without(state.faulty, 0, index) if keeps_log else []
    state.unknown = repair.without(state.unknown, 0, index) if keeps_log else []


def end_install(state: State) -> None:
    """The install failed, the database is as it was."""
    state.installing = False


def _damaged(state: State, index: int) -> bool:
    """Whether the entry at `index` is known by its term only in part: the image says what it was, the log cannot."""
    return bool([low for low, high in state.unknown if low <= index <= high])
