"""The clock of a group: base plus the leader's boot clock since its election (semantics.md section 5).

A wrong wall clock cannot move it, and it never goes back over a change of leaders, because each new base is at least
the newest group time that this node has seen in its log or in a heartbeat.
"""

from __future__ import annotations


class GroupTime:
    """Group time in nanoseconds; only a leader's reading of it enters an entry."""

    __slots__ = ("_base_ns", "_elected_at_ns", "newest_seen_ns")

    def __init__(self, newest_seen_ns: int = 0) -> None:
        self.newest_seen_ns = newest_seen_ns
        self._base_ns = newest_seen_ns
        self._elected_at_ns = 0

    def saw(self, group_time_ns: int) -> None:
        """An entry of the log or a heartbeat of the leader carried this time."""
        if group_time_ns > self.newest_seen_ns:
            self.newest_seen_ns = group_time_ns

    def elected(self, now_ns: int) -> None:
        """This node leads from `now_ns` (boot clock) on."""
        self._base_ns = self.newest_seen_ns
        self._elected_at_ns = now_ns

    def read(self, now_ns: int) -> int:
        """Group time as a leader stamps it at `now_ns`."""
        time_ns = self._base_ns + max(0, now_ns - self._elected_at_ns)
        self.saw(time_ns)
        return self.newest_seen_ns
