"""What the consensus core and its runtime are told.

What this is for: the settings that `engine` and `runtime` need, under their own names, and which of them go together.
Must not know: where they came from.
Invariant: an object that exists is valid; a broken relation names the keys of the config, which people write.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from types import MappingProxyType

from hiqlite.errors import ConfigError

KIB = 1 << 10
MIB = 1 << 20


# Key -> the other key of the rule that it breaks: whichever of the two was written is to blame.
PARTNERS = MappingProxyType(
    {
        "election_timeout_ms": "heartbeat_interval_ms",
        "raft_window_bytes": "raft_frame_bytes_max",
        "raft_memory_window_bytes": "raft_window_bytes",
        "raft_proposal_queue_bytes": "raft_frame_bytes_max",
        "raft_apply_queue_bytes": "raft_frame_bytes_max",
        "raft_stall_ms": "heartbeat_interval_ms",
        "link_loss_grace_ms": "election_timeout_ms",
        "raft_commit_delay_ms": "election_timeout_ms",
    }
)


@dataclass(frozen=True, slots=True)
class RaftSettings:
    """Times in milliseconds, sizes in bytes."""

    heartbeat_interval_ms: int = 100
    election_timeout_min_ms: int = 500
    election_timeout_max_ms: int = 1000
    frame_bytes_max: int = 1 * MIB
    entry_bytes_max: int = 64 * MIB
    window_frames: int = 4  # deeper pipelines spoil batching
    window_bytes: int = 4 * MIB
    memory_window_bytes: int = 64 * MIB
    proposal_queue_bytes: int = 64 * MIB
    apply_queue_bytes: int = 64 * MIB
    stall_ms: int = 3000
    link_loss_grace_ms: int = 50
    commit_delay_ms: int = 2
    logs_until_snapshot: int = 10_000

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
                raise ConfigError(f"{item.name} = {value!r} cannot be used", hint="expected a whole number >= 0")
        for wrong, key, message, hint in self._relations():
            if wrong:
                raise ConfigError(message, hint=hint, key=key)

    def _relations(self) -> tuple[tuple[bool, str, str, str], ...]:
        """(broken, key, what is wrong, what to do) of each rule."""
        return (
            (self.heartbeat_interval_ms < 1, "heartbeat_interval_ms", "heartbeat_interval_ms is 0", "at least 1"),
            (
                # One lost heartbeat must not look like a dead leader.
                self.election_timeout_min_ms < 2 * self.heartbeat_interval_ms,
                "election_timeout_ms",
                "election_timeout_ms begins below twice heartbeat_interval_ms",
                f"with this heartbeat_interval_ms at least {2 * self.heartbeat_interval_ms}",
            ),
            (
                # Equal bounds: all followers would campaign at once, for ever.
                self.election_timeout_max_ms <= self.election_timeout_min_ms,
                "election_timeout_ms",
                "election_timeout_ms is no range",
                "expected a range like 500-1000",
            ),
            (
                self.frame_bytes_max < KIB,
                "raft_frame_bytes_max",
                f"raft_frame_bytes_max = {self.frame_bytes_max} is too small",
                "at least 1 KiB",
            ),
            (self.window_frames < 1, "raft_window_frames", "raft_window_frames is 0", "at least 1"),
            *(
                (
                    value < least,
                    key,
                    f"{key} = {value} is below {PARTNERS[key]} = {least}",
                    f"raise it, or lower {PARTNERS[key]}",
                )
                for key, value, least in self._orders()
            ),
            *(
                (
                    value >= self.election_timeout_min_ms,
                    key,
                    f"{key} = {value} is not below the election timeout",
                    f"below {self.election_timeout_min_ms}, else it has no effect",
                )
                for key, value in (
                    ("link_loss_grace_ms", self.link_loss_grace_ms),
                    ("raft_commit_delay_ms", self.commit_delay_ms),
                )
            ),
        )

    def _orders(self) -> tuple[tuple[str, int, int], ...]:
        """(key, value, its partner's value): the first must not be below the other."""
        return (
            ("raft_window_bytes", self.window_bytes, self.frame_bytes_max),
            ("raft_memory_window_bytes", self.memory_window_bytes, self.window_bytes),
            ("raft_proposal_queue_bytes", self.proposal_queue_bytes, self.frame_bytes_max),
            ("raft_apply_queue_bytes", self.apply_queue_bytes, self.frame_bytes_max),
            ("raft_stall_ms", self.stall_ms, self.heartbeat_interval_ms),
        )


# The relations hold for the defaults, checked where they stand: an object that exists is valid.
DEFAULT_RAFT_SETTINGS = RaftSettings()
