"""Which configuration follows from a change of members (thesis 4; consensus.md rule 6).

Must not know logs, peers or terms: values in, values out. Invariants: whatever changes the set of voters goes through
a joint configuration, in which the old and the new set must both agree; a change of learners alone needs none, for
the quorums stay the same; no configuration is without a voter, and none has a voter's id twice in one set. Whose id a
change takes out is remembered as removed until a change brings that id back.
"""

from __future__ import annotations

from dataclasses import replace

from hiqlite.errors import UsageError

from .model import Change, ChangeKind, Identity, Membership

Members = tuple[Identity, ...]


def following(current: Membership, change: Change, index: int) -> Membership:
    """The configuration to append at `index`; joint if voters change. Raises UsageError for what makes no sense."""
    if current.joint:
        raise UsageError("a change of members is under way")
    if len(set(change.members)) != len(change.members) or not change.members:
        raise UsageError("a change names its members, each once")
    voters, learners = _target(current, change)
    if not voters:
        raise UsageError("the last voter cannot leave")
    if len({one.id for one in voters}) != len(voters):
        raise UsageError("a node cannot vote in two incarnations")
    if set(voters) == set(current.voters):
        if set(learners) == set(current.learners):
            raise UsageError("this changes nothing")
        return _after(current, Membership(index, current.voters, learners))
    return _after(current, Membership(index, voters, learners, current.voters))


def leaving_joint(current: Membership, index: int) -> Membership:
    """The new set alone, to be appended at `index` once the joint configuration is committed."""
    assert current.joint, "only a joint configuration is left"
    return _after(current, Membership(index, current.voters, current.learners))


def _after(current: Membership, new: Membership) -> Membership:
    """`new` with what it has to remember of those before it."""
    staying = {one.id for one in members_of(new)}
    known = {*current.removed, *(one.id for one in members_of(current))}
    return replace(new, removed=tuple(sorted(known - staying)))


def joining_voters(current: Membership, change: Change) -> Members:
    """Who becomes a voter by the change: each of them has to have caught up."""
    voters, _ = _target(current, change)
    return tuple(one for one in voters if one not in current.voters)


def members_of(membership: Membership) -> Members:
    """Everybody who counts or learns."""
    return membership.voters + membership.learners + membership.outgoing


def _target(current: Membership, change: Change) -> tuple[Members, Members]:
    """(voters, learners) once the change is through."""
    voters, learners, members = current.voters, current.learners, change.members
    one = members[0]
    if change.kind is ChangeKind.SET_VOTERS:
        for member in members:
            if member not in voters and member not in learners:
                raise UsageError(f"node {member.id} is no member; add it as a learner first")
        return members, _without(learners, *members)
    if change.kind is ChangeKind.REPLACE:
        if len(members) != 2:
            raise UsageError("a replacement names who leaves and who comes")
        if one not in voters or members[1] not in learners:
            raise UsageError("a replacement takes a voter out and a learner in")
        return tuple(members[1] if voter == one else voter for voter in voters), _without(learners, members[1])
    if len(members) != 1:
        raise UsageError("this change is about one node")
    if change.kind is ChangeKind.ADD_LEARNER:
        if one in voters or one in learners:
            raise UsageError(f"node {one.id} is a member already")
        return voters, (*(learner for learner in learners if learner.id != one.id), one)
    if change.kind is ChangeKind.PROMOTE:
        if one not in learners:
            raise UsageError(f"node {one.id} is no learner")
        return (*(voter for voter in voters if voter.id != one.id), one), _without(learners, one)
    if change.kind is ChangeKind.DEMOTE:
        if one not in voters:
            raise UsageError(f"node {one.id} is no voter")
        return _without(voters, one), (*(learner for learner in learners if learner.id != one.id), one)
    if one not in voters and one not in learners:
        raise UsageError(f"node {one.id} is no member")
    return _without(voters, one), _without(learners, one)


def _without(members: Members, *gone: Identity) -> Members:
    return tuple(member for member in members if member not in gone)
