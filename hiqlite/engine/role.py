"""Changes of role and term, the part that follower, election and leader share.

Must not know how votes are counted or entries replicated. Invariants: the term only grows, the vote changes only with
the term or from nobody to somebody, and each such change is a hard state write before anything else is said; leaving
leadership fails every waiting read and names the proposals whose fate is open.
"""

from __future__ import annotations

from .model import Identity
from .state import State


def adopt(state: State, term: int, vote: Identity | None) -> None:
    """Enter a higher term, with a vote already given in it or none."""
    assert term > state.term, "terms only grow"
    was_leader = state.leads
    if was_leader:
        leave_leadership(state)
    state.term = term
    state.vote = vote
    state.leader_id = 0
    state.verified_index = 0
    state.refused_since_ns = 0
    state.role = state.resting_role()
    state.role_changed = True
    state.outbox.write_hard_state(term, vote)
    if was_leader:
        rest(state, 0)


def follow(state: State, leader_id: int) -> None:
    """Somebody leads in the own term: no campaign of this term goes on."""
    if state.leader_id == leader_id:
        return
    state.leader_id = leader_id
    state.role = state.resting_role()
    state.refused_since_ns = 0
    state.timeout_ns = state.draw_timeout_ns()
    state.role_changed = True


def heard(state: State, at_ns: int) -> None:
    """The leader of the own term gave a sign of life at `at_ns`."""
    if at_ns <= state.heard_ns and at_ns + state.timeout_ns <= state.election_deadline_ns:
        return
    state.heard_ns = max(state.heard_ns, at_ns)
    state.election_deadline_ns = state.heard_ns + state.timeout_ns
    if at_ns > state.refused_since_ns:
        state.refused_since_ns = 0


def forget_leader(state: State) -> None:
    """Nobody is taken for the leader any more; whoever asks for a vote may have it (stickiness ends here)."""
    if state.leader_id:
        state.leader_id = 0
        state.role_changed = True
    state.refused_since_ns = 0


def rest(state: State, extra_ns: int) -> None:
    """Wait a new election timeout, and `extra_ns` on top, before campaigning."""
    state.timeout_ns = state.draw_timeout_ns()
    state.election_deadline_ns = state.now_ns + state.timeout_ns + extra_ns


def resign(state: State) -> None:
    """Stop leading but keep the term. Others shall try first: this node has a reason not to lead."""
    if not state.leads:
        return
    leave_leadership(state)
    state.role = state.resting_role()
    state.leader_id = 0
    state.role_changed = True
    rest(state, state.election_max_ns)


def leave_leadership(state: State) -> None:
    """What ends with leadership, whatever ended it."""
    state.leads = False
    state.reads.fail()
    if state.log.last_index > state.commit_index:
        state.lost_from = state.commit_index + 1
    state.window.clear()
    state.uncommitted.clear()
    state.uncommitted_bytes = 0
    state.commit_due_ns = 0
    state.transfer_id = 0
    state.transfer_sent = False
    for peer in state.peers:
        peer.lead_from(state.log.last_index + 1)
