"""What a message must look like before anything is done with it.

Must not know state: whether a message counts is asked elsewhere, here only whether a correct peer can have sent it.
Invariant: whatever passes has numbers that the compiled engine can count with, and ranges whose runs are one ascending
line; the wire's 64 bits without a sign reach further than a term, an index or a session ever gets by counting.
"""

from __future__ import annotations

from hiqlite.errors import ProtocolError

from .model import (
    AppendReply,
    AppendRequest,
    Identity,
    Membership,
    Message,
    ProbeReply,
    ProbeRequest,
    RepairReply,
    RepairRequest,
    TermRun,
)

NUMBER_BITS = 62
NUMBER_MAX: int = 1 << NUMBER_BITS  # a term or index above comes from a broken or hostile peer, never from counting
INCARNATION_MAX = 2**63  # drawn by chance, not counted


def check(message: Message) -> None:
    """Raises ProtocolError for a message that no correct peer sends."""
    # Numbers are looked at together where messages come by the thousand: shifted, only those below NUMBER_MAX give 0.
    sender = message.sender
    if (message.term | sender.id) >> NUMBER_BITS or sender.id == 0 or sender.incarnation >> (NUMBER_BITS + 1):
        raise ProtocolError(f"message of node {sender.id} in term {message.term} cannot be")
    if isinstance(message, AppendReply):
        if (message.match_index | message.hint_index | message.hint_term | message.sequence) >> NUMBER_BITS:
            raise ProtocolError(f"append reply of node {sender.id} has impossible numbers")
    elif isinstance(message, AppendRequest):
        check_append(message)
    elif isinstance(message, ProbeRequest | ProbeReply):
        if not known(message.token):
            raise ProtocolError(f"node {sender.id} names a round {message.token}")
    elif isinstance(message, RepairRequest | RepairReply):
        if not 0 < message.first <= message.last < NUMBER_MAX:
            raise ProtocolError(f"node {sender.id} names entries {message.first} to {message.last}")
        if isinstance(message, RepairReply):
            if not 0 <= message.previous_term <= message.term:
                raise ProtocolError(f"a repair of node {sender.id} follows an entry of a later term")
            check_range(
                sender, message.runs, message.first - 1, message.previous_term, message.last, message.term
            )
            check_memberships(sender, message.memberships, message.first - 1, message.last)


def check_append(request: AppendRequest) -> None:
    """Numbers first, then whether runs, terms and indexes fit each other."""
    indexes = request.last_index | request.previous_index | request.commit_index
    if (indexes | request.previous_term | request.epoch | request.sequence) >> NUMBER_BITS:
        raise ProtocolError(f"append request of node {request.sender.id} has impossible numbers")
    if request.previous_term > request.term:
        raise ProtocolError(f"append request of node {request.sender.id} follows an entry of a later term")
    check_range(
        request.sender, request.runs, request.previous_index, request.previous_term, request.last_index, request.term
    )
    if request.memberships:
        check_memberships(request.sender, request.memberships, request.previous_index, request.last_index)


def check_range(
    sender: Identity, runs: tuple[TermRun, ...], previous: int, previous_term: int, last: int, term_max: int
) -> None:
    """Whether `runs` are exactly the entries `[previous + 1, last]`, of terms that ascend up to `term_max`."""
    index = previous
    term = previous_term
    for run in runs:
        if run.first != index + 1 or not run.first <= run.last <= last or not term <= run.term <= term_max:
            raise ProtocolError(f"what node {sender.id} sent is not one ascending range")
        index = run.last
        term = run.term
    if index != last:
        raise ProtocolError(f"what node {sender.id} sent ends at {index}, not at {last}")


def check_memberships(sender: Identity, memberships: tuple[Membership, ...], previous: int, last: int) -> None:
    """Whether these can be what the entries `[previous + 1, last]` say."""
    index = previous
    for membership in memberships:
        if not index < membership.index <= last or not membership.voters:
            raise ProtocolError(f"node {sender.id} names members that its entries do not carry")
        index = membership.index
        for member in membership.voters + membership.learners + membership.outgoing:
            if not 0 < member.id < NUMBER_MAX or not 0 <= member.incarnation < INCARNATION_MAX:
                raise ProtocolError(f"node {sender.id} names a member {member.id} that cannot be")


def known(number: int) -> bool:
    """Whether counting gets there."""
    return 0 <= number < NUMBER_MAX
