"""A leader changes the members (thesis 4.1 to 4.3; consensus.md rules 6 and 7).

Must not know how entries travel. Invariants: a change is refused until the one before it and an entry of the own term
are committed; a voter joins only after it caught up; the leader itself leaves a joint configuration as soon as that is
committed, whoever began it; a leader that is no voter any more leads until that is committed, then hands over.
"""

from __future__ import annotations

from hiqlite.errors import UsageError

from . import change as rules
from .model import AppendKind, Change, Membership
from .replication import take_entry
from .role import resign
from .state import State
from .transfer import best_peer, tell_to_campaign

MEMBERSHIP_BYTES = 1024  # about what a record with a configuration of a dozen members takes


def refusal(state: State, change: Change) -> str:
    """Why the change is not possible now; empty when it is. Raises UsageError when it will never be."""
    if not state.leads or state.fatal:
        return "this node does not lead"
    if state.transfer_id:
        return "leadership is being handed over"
    newest = state.config.membership
    if newest.joint or newest.index > state.commit_index:
        return "an earlier change of members is not through"
    if not state.made_taken or state.commit_index < state.opened_index:
        return "this leader's term has no committed entry yet"
    rules.following(newest, change, 0)
    for identity in rules.joining_voters(newest, change):
        peer = state.peer_of(identity)
        if peer is None:
            raise UsageError(f"node {identity.id} is not reached in that incarnation")
        if not peer.can_be_promoted(state.now_ns, state.election_min_ns):
            return f"node {identity.id} has not caught up"
    return ""


def propose(state: State, change: Change) -> int:
    """Append the configuration that the change asks for; its index, or 0 when it is refused for now."""
    if refusal(state, change):
        return 0
    return _append(state, rules.following(state.config.membership, change, state.log.last_index + 1))


def advance(state: State) -> None:
    """Go on with a change that is committed: leave the joint configuration, or leave leadership."""
    newest = state.config.membership
    if newest.index > state.commit_index or state.commit_index < state.opened_index or state.transfer_id:
        return
    if newest.joint:
        if state.made_taken:
            _append(state, rules.leaving_joint(newest, state.log.last_index + 1))
    elif not state.config.is_voter:
        peer = best_peer(state)
        if peer is not None:
            tell_to_campaign(state, peer)
        resign(state)


def _append(state: State, membership: Membership) -> int:
    take_entry(state, MEMBERSHIP_BYTES, AppendKind.MEMBERSHIP, membership)
    state.take_membership(membership)
    return membership.index
