"""Who has to agree, for the invariants; written apart from the engine, so that they do not share a fault."""

from __future__ import annotations

from hiqlite.engine.model import Identity, Membership


def voter_sets(membership: Membership) -> tuple[tuple[Identity, ...], ...]:
    """Whatever needs a majority needs one of each (thesis 4.3)."""
    return (membership.voters, membership.outgoing) if membership.outgoing else (membership.voters,)
