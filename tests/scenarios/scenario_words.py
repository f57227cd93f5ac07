"""Messages, members and roles as a scenario tells them: one short line each."""

from __future__ import annotations

from collections.abc import Iterable

from hiqlite.engine.model import (
    AppendReply,
    AppendRequest,
    Identity,
    Membership,
    Message,
    ProbeReply,
    ProbeRequest,
    RepairReply,
    RepairRequest,
    Role,
    TimeoutNow,
    VoteReply,
    VoteRequest,
)


def name(identity: Identity) -> str:
    """The node's number, with its incarnation behind a dot if that is not the first one."""
    return str(identity.id) if identity.incarnation == 1 else f"{identity.id}.{identity.incarnation}"


def names(members: Iterable[Identity]) -> str:
    return " ".join(name(one) for one in members)


def span(first: int, last: int) -> str:
    return f"{first}" if first == last else f"{first}-{last}"


def told_role(role: Role, leader_id: int) -> str:
    """The role, and whom it follows."""
    word = role.name.lower().replace("_", "-")
    return f"{word} of {leader_id}" if role in (Role.FOLLOWER, Role.LEARNER) and leader_id else word


def told_members(membership: Membership) -> str:
    text = f"voters {names(membership.voters) or 'unknown'}"
    if membership.outgoing:
        text += f", outgoing {names(membership.outgoing)}"
    return text + (f", learners {names(membership.learners)}" if membership.learners else "")


def told(message: Message) -> str:
    """A message without its sender."""
    if isinstance(message, AppendRequest):
        return _told_append(message)
    if isinstance(message, AppendReply):
        if message.accepted:
            return f"holds up to {message.match_index} (term {message.term})"
        return f"refuses, try {message.hint_index}/{message.hint_term} (term {message.term})"
    if isinstance(message, VoteRequest):
        kind = "pre-vote" if message.pre else "vote by hand-over" if message.transfer else "vote"
        return f"{kind} for term {message.term}? last {message.last_index}/{message.last_term}"
    if isinstance(message, VoteReply):
        return f"{'pre-vote' if message.pre else 'vote'} {'yes' if message.granted else 'no'} (term {message.term})"
    if isinstance(message, ProbeRequest):
        return f"round {message.token}? (term {message.term})"
    if isinstance(message, ProbeReply):
        return f"round {message.token} heard (term {message.term})"
    if isinstance(message, TimeoutNow):
        return f"campaign at once (term {message.term})"
    return _told_repair(message)


def _told_append(message: AppendRequest) -> str:
    behind = f"behind {message.previous_index}/{message.previous_term}"
    what = "nothing"
    if message.last_index > message.previous_index:
        what = " ".join(f"{span(run.first, run.last)}/{run.term}" for run in message.runs)
    return f"append {what} {behind}, commit {message.commit_index} (term {message.term})"


def _told_repair(message: RepairRequest | RepairReply) -> str:
    which = span(message.first, message.last)
    if isinstance(message, RepairRequest):
        return f"lost {which}, of term {message.entry_term or 'unknown'}"
    return f"gives {which} back{', committed' if message.committed else ''}"
