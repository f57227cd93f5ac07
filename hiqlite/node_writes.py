"""What may be written in the database's group: by this node's client, in a session, and by peers through this leader.

Part of the composition root.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hiqlite._accel.commands import command_view
from hiqlite._accel.records import EntryKind, header
from hiqlite.config import NodeConfig
from hiqlite.engine.change import members_of
from hiqlite.runtime.group import Group
from hiqlite.runtime.write_session import SessionTerms
from hiqlite.statemachine import session_record
from hiqlite.statemachine.inspector import Inspector
from hiqlite.transport.network import Network
from hiqlite.transport.versions import SESSIONS

TTL_MAX_S: Final = 1e9
KINDS: Final = (EntryKind.COMMAND, EntryKind.MIGRATION, EntryKind.SESSION)  # that peers may forward


def check(inspector: Inspector, group: Group, record: bytes, tried_before: bool) -> None:
    """The leader's look at what a peer asks it to propose. Raises what the caller is to see.

    Args:
        tried_before: it may be applied already, and have changed the schema that it is looked at by.
    """
    if header(record, 0).entry_kind == EntryKind.SESSION:
        session_record.check(record)
        return
    view = command_view(record)
    inspector.check_command(view, lenient=group.behind or tried_before or view.request_id != "")


def session_terms(config: NodeConfig, possible: Callable[[], bool | None]) -> SessionTerms:
    """How this node's own writes are told apart. It stops using a session well before the group forgets it."""
    ttl_ns, request_ttl_ns = (int(min(s, TTL_MAX_S) * 1e9) for s in (config.session_ttl, config.request_id_ttl))
    return SessionTerms(
        session_record.session_record(config.session_window, ttl_ns, request_ttl_ns),
        window=config.session_window,
        idle_ns=ttl_ns // 2,
        possible=possible,
    )


def all_know_sessions(group: Group, network: Network | None, had_some: bool) -> bool | None:
    """Whether every member does, as it said when it was met last; None: some were not met yet.

    Args:
        had_some: all did once, so a member that was not met since this process began is not of an older release.
    """
    if network is None:
        return True
    if not group.started:
        return None
    others = {one.id for one in members_of(group.engine.membership)} - {network.node_id}
    spoken = [network.spoken.get(one, SESSIONS if had_some else 0) for one in others]
    if all(version >= SESSIONS for version in spoken):
        return True
    return False if any(0 < version < SESSIONS for version in spoken) else None
