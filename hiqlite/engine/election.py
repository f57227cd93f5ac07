"""Elections: pre-vote, votes, stickiness, and the fall of a leader nobody hears (Raft thesis 3.4, 9.6, 6.4.1).

Must not know how entries are replicated, but for the one that opens a term. Invariants: a vote is given once per term
and only to a log at least as up to date; a pre-vote changes nothing durable; a node that hears its leader, or leads,
answers nobody who wants to replace it; a learner and a node with damaged entries never campaign.
"""

from __future__ import annotations

from . import quorum
from .model import Role, TimeoutNow, VoteReply, VoteRequest
from .progress import Progress
from .replication import open_term
from .role import adopt, forget_leader, resign, rest
from .state import FAR_FUTURE_NS, State

REFUSED = -1  # among the votes


def start(state: State) -> None:
    """First deadline of a node's life. Short, for a pre-vote harms nobody and a cluster that starts has no leader."""
    if state.config.is_single and state.can_campaign():
        _campaign(state)
        return
    state.election_deadline_ns = state.now_ns + state.heartbeat_ns + state.draw_ns(2 * state.heartbeat_ns)


def tick(state: State) -> None:
    """Judge the deadlines of a node that does not lead."""
    if state.refused_since_ns and state.now_ns >= state.refused_since_ns + state.grace_ns:
        forget_leader(state)
        state.election_deadline_ns = min(state.election_deadline_ns, state.now_ns + state.draw_ns(state.grace_ns))
    if state.now_ns < state.election_deadline_ns:
        return
    forget_leader(state)
    if state.config.is_single and state.can_campaign():
        _campaign(state)
    elif state.can_campaign() and _linked_to_quorum(state):
        _pre_campaign(state)
    else:
        _set_role(state, state.resting_role())
        rest(state, 0)


def check_quorum(state: State) -> None:
    """A leader that no majority answers stops (rule 17); heartbeats prove nothing here."""
    if state.now_ns >= quorum_deadline_ns(state):
        resign(state)


def quorum_deadline_ns(state: State) -> int:
    """Until when a majority, this node included, counts as alive."""
    state.values[0] = FAR_FUTURE_NS
    for peer in state.peers:
        state.values[peer.slot] = peer.alive_until_ns(state.election_max_ns, state.quorum_floor_ns)
    return quorum.reached(state.config.voter_sets, state.values)


def check_disk(state: State) -> None:
    """A leader whose disk made no progress for one whole lower timeout while writes wait stops (rule 11)."""
    if state.now_ns >= disk_deadline_ns(state):
        resign(state)


def disk_deadline_ns(state: State) -> int:
    """Until when the disk may stand still."""
    return state.disk_waits_since_ns + state.election_min_ns if state.disk_waits_since_ns else FAR_FUTURE_NS


def next_deadline_ns(state: State) -> int:
    """When a node that does not lead wants to be ticked."""
    deadline = state.election_deadline_ns
    if state.refused_since_ns:
        deadline = min(deadline, state.refused_since_ns + state.grace_ns)
    return deadline


def peer_connected(state: State, peer_id: int) -> None:
    """A link came up: repeat a request that was lost with the last one, or try at once if now a majority is linked."""
    if peer_id == state.leader_id:
        state.refused_since_ns = 0
    linked = _linked_to_quorum(state)
    if state.role is Role.PRE_CANDIDATE or state.role is Role.CANDIDATE:
        peer = state.peers_by_id[peer_id]
        if not state.granted[peer.slot] and peer.identity in state.config.voters:
            _request_vote(state, peer_id, state.role is Role.PRE_CANDIDATE)
    elif linked and not state.quorum_linked and state.leader_id == 0 and not state.leads:
        soon = state.now_ns + state.draw_ns(state.heartbeat_ns)
        state.election_deadline_ns = min(state.election_deadline_ns, soon)
    state.quorum_linked = linked


def peer_lost(state: State, peer_id: int, refused: bool) -> None:
    """A link is gone. Of a leader whose redial is refused as well it is noted since when (rule 9)."""
    state.quorum_linked = _linked_to_quorum(state)
    if refused and peer_id == state.leader_id and not state.leads and state.refused_since_ns == 0:
        state.refused_since_ns = state.now_ns


def receive_request(state: State, request: VoteRequest) -> None:
    """Grant, refuse, or keep silent towards somebody who wants to lead."""
    if request.term > state.term and not request.transfer and _hears_leader(state):
        if request.pre:
            _reply(state, request, state.term, False)
        return
    # Whether this node counts, the candidate's configuration says, and that may be newer than the one known here: a
    # learner that was promoted gives its vote, else a majority may never be found (thesis 4.2.2). It is safe: the vote
    # is durable and given once per term, and who counts votes counts those of its own voters only.
    grant = (
        request.term > state.term - (0 if request.pre else 1)
        and (request.last_term, request.last_index) >= (state.log.last_term, state.last_for_votes())
    )
    if request.pre:
        _reply(state, request, request.term if grant else state.term, grant)
        return
    if request.term > state.term:
        adopt(state, request.term, request.sender if grant else None)
        if grant:
            rest(state, 0)
    elif grant:
        grant = _vote_in_own_term(state, request)
    _reply(state, request, state.term, grant)


def receive_timeout_now(state: State, message: TimeoutNow) -> None:
    """The leader hands over: campaign at once, and let those who hear it answer all the same."""
    if message.term != state.term or message.sender.id != state.leader_id or state.leads:
        return
    if state.can_campaign():
        _campaign(state, True)


def receive_reply(state: State, reply: VoteReply) -> None:
    """Count an answer to the campaign that is running, and to no other."""
    peer = state.peer_of(reply.sender)
    if peer is None:
        return
    if not reply.granted:
        if reply.term > state.term:
            adopt(state, reply.term, None)
        elif not reply.pre and state.role is Role.CANDIDATE and reply.term == state.term:
            _refused(state, peer)
        return
    if reply.pre:
        if state.role is not Role.PRE_CANDIDATE or reply.term != state.term + 1:
            return
    elif state.role is not Role.CANDIDATE or reply.term != state.term:
        if reply.term > state.term:
            adopt(state, reply.term, None)
        return
    state.granted[peer.slot] = 1
    if quorum.won(state.config.voter_sets, state.granted):
        if reply.pre:
            _campaign(state)
        else:
            _become_leader(state)


def _refused(state: State, refuser: Progress) -> None:
    """A vote was split: once no majority of those who are linked can be won any more, a new campaign is not put off for
    a whole timeout. It begins with the question whether it could be won, which disturbs nobody."""
    if not state.granted[refuser.slot]:
        state.granted[refuser.slot] = REFUSED
    state.values[0] = 1
    for peer in state.peers:
        vote = state.granted[peer.slot]
        state.values[peer.slot] = 1 if vote > 0 or (vote == 0 and peer.connected) else 0
    if not quorum.won(state.config.voter_sets, state.values):
        soon = state.now_ns + state.heartbeat_ns + state.draw_ns(2 * state.heartbeat_ns)
        state.election_deadline_ns = min(state.election_deadline_ns, soon)


def count_own_vote(state: State) -> None:
    """The own vote counts from the moment it is durable; with it alone a single voter leads."""
    if state.role is Role.CANDIDATE and not state.granted[0] and state.outbox.synced_io >= state.outbox.term_io:
        state.granted[0] = 1
        if quorum.won(state.config.voter_sets, state.granted):
            _become_leader(state)


def _vote_in_own_term(state: State, request: VoteRequest) -> bool:
    if state.vote is not None:
        return state.vote == request.sender
    state.vote = request.sender
    state.outbox.write_hard_state(state.term, state.vote)
    forget_leader(state)
    _set_role(state, state.resting_role())
    rest(state, 0)
    return True


def _hears_leader(state: State) -> bool:
    """Stickiness: it leads itself, or heard the leader within the lower election timeout."""
    if state.leads:
        return True
    return state.leader_id != 0 and state.now_ns - state.heard_ns < state.election_min_ns


def _linked_to_quorum(state: State) -> bool:
    state.values[0] = 1
    for peer in state.peers:
        state.values[peer.slot] = 1 if peer.connected else 0
    return quorum.won(state.config.voter_sets, state.values)


def _pre_campaign(state: State) -> None:
    """Ask whether a campaign could be won. It changes no term, so it may be asked again soon."""
    _set_role(state, Role.PRE_CANDIDATE)
    _ask_voters(state, True)
    state.election_deadline_ns = state.now_ns + state.heartbeat_ns + state.draw_ns(2 * state.heartbeat_ns)
    if quorum.won(state.config.voter_sets, state.granted):
        _campaign(state)


def _campaign(state: State, handed_over: bool = False) -> None:
    """Enter the next term with the own vote; the requests leave, and the vote counts, once that is durable."""
    adopt(state, state.term + 1, state.own)
    state.handed_over = handed_over
    _set_role(state, Role.CANDIDATE)
    rest(state, 0)
    _ask_voters(state, False)


def _ask_voters(state: State, pre: bool) -> None:
    state.granted = [0] * state.config.size()
    state.granted[0] = 1 if pre else 0
    for peer in state.peers:
        if peer.connected and peer.identity in state.config.voters:
            _request_vote(state, peer.peer_id, pre)


def _request_vote(state: State, peer_id: int, pre: bool) -> None:
    term = state.term + 1 if pre else state.term
    transfer = state.handed_over and not pre
    request = VoteRequest(term, state.own, pre, state.log.last_index, state.log.last_term, transfer)
    state.outbox.send(state.term, peer_id, request)


def _reply(state: State, request: VoteRequest, term: int, granted: bool) -> None:
    reply = VoteReply(term, state.own, request.pre, granted)
    state.outbox.send(state.term, request.sender.id, reply)


def _become_leader(state: State) -> None:
    """Lead: know nothing of the peers, open the term with an entry of its own, confirm by a round at once."""
    _set_role(state, Role.LEADER)
    state.leads = True
    state.leader_id = state.own.id
    state.unconfirmed = False
    state.election_deadline_ns = FAR_FUTURE_NS
    state.quorum_floor_ns = state.now_ns + state.election_max_ns
    state.round_due_ns = state.now_ns
    for peer in state.peers:
        peer.lead_from(state.log.last_index + 1)
    open_term(state)


def _set_role(state: State, role: Role) -> None:
    if state.role is not role:
        state.role = role
        state.role_changed = True
