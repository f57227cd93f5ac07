"""Every exception of this product, in one tree.

Each carries `code` (stable text for programs), `hint` (what to do), `retryable`, and `outcome`:
None for reads and local mistakes; for writes "not_applied", "applied" or "unknown", never a guess.
Errors cross the wire as `to_wire()` / `from_wire()`, so a forwarded call raises what a local one raises.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, TypeVar

Outcome = Literal["not_applied", "applied", "unknown"]
OUTCOMES: tuple[Outcome | None, ...] = (None, "not_applied", "applied", "unknown")
E = TypeVar("E", bound="HiqliteError")


class HiqliteError(Exception):
    """Base of all errors raised by hiqlite.

    Args:
        message: one sentence for people.
        hint: what to do about it.
        outcome: for writes, what became of the write; left out, it is what the class says. None where the same
            error comes from a read.
        details: further attributes of the concrete class (`sqlite_code=...`), readable as attributes.
    """

    code: ClassVar[str] = "hiqlite_error"
    retryable: bool = False
    hint: str = ""
    outcome: Outcome | None = None
    fields: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        message: str = "",
        *,
        hint: str = "",
        outcome: Outcome | Literal["default"] | None = "default",
        **details: Any,
    ) -> None:
        super().__init__(message)
        self.message = message
        if hint:
            self.hint = hint
        if outcome != "default":
            self.outcome = outcome
        for name in self.all_fields():
            setattr(self, name, details.pop(name, None))
        if details:
            raise TypeError(f"{type(self).__name__} has no attribute {', '.join(sorted(details))}")

    @classmethod
    def all_fields(cls) -> tuple[str, ...]:
        return tuple(name for base in cls.__mro__ for name in base.__dict__.get("fields", ()))

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return (from_wire, (self.to_wire(),))

    def to_wire(self) -> dict[str, Any]:
        """The error as a map that msgpack carries."""
        wire: dict[str, Any] = {"code": self.code, "message": self.message, "hint": self.hint, "outcome": self.outcome}
        wire["details"] = {name: getattr(self, name) for name in self.all_fields()}
        return wire


def from_wire(wire: dict[str, Any]) -> HiqliteError:
    """The error that `to_wire` described; an unknown code of a newer version becomes the base class.

    The map comes from a peer: whatever stands in it, the result is an error that can be raised and printed. An outcome
    that is none is "unknown", the only one that promises nothing.
    """
    code, message, hint, details = (wire.get(name) for name in ("code", "message", "hint", "details"))
    kind = BY_CODE.get(code, HiqliteError) if isinstance(code, str) else HiqliteError
    outcome = wire.get("outcome")
    known = {} if not isinstance(details, dict) else {k: v for k, v in details.items() if k in kind.all_fields()}
    return kind(
        message if isinstance(message, str) else "",
        hint=hint if isinstance(hint, str) else "",
        outcome=outcome if outcome in OUTCOMES else "unknown",
        **known,
    )


def with_outcome(error: E, outcome: Outcome | None) -> E:
    """The same error about a write with this outcome, details and all.

    Always another object: whoever raises one adds to its traceback, and several may be told the same.
    """
    details = {name: getattr(error, name) for name in error.all_fields()}
    return type(error)(error.message, hint=error.hint, outcome=outcome, **details)


# --------------------------------------------------------------------------- the caller


class UsageError(HiqliteError, ValueError):
    code = "usage"
    outcome: Outcome | None = "not_applied"


class ConfigError(UsageError):
    """A setting is wrong. `key` is its name in a TOML file, `source` where it was given: a file's line, a variable."""

    code = "config"
    outcome: Outcome | None = None
    fields = ("key", "source")
    key: str | None
    source: str | None

    def __str__(self) -> str:
        said = super().__str__()
        return f"{self.source}: {said}" if self.source else said


class ParameterError(UsageError):
    code = "parameter"


class RowMappingError(UsageError):
    code = "row_mapping"
    outcome: Outcome | None = None


class DeterminismError(UsageError):
    code = "determinism"


class RowNotFound(HiqliteError):
    code = "row_not_found"


class TooManyRows(HiqliteError):
    code = "too_many_rows"


# --------------------------------------------------------------------------- SQL


class StatementError(HiqliteError):
    """SQLite refused or failed a statement. `sql` is shortened; `statement_index` counts from 0 within the call."""

    code = "statement"
    outcome: Outcome | None = "not_applied"
    fields = ("sqlite_code", "extended_code", "statement_index", "sql")
    sqlite_code: int | None
    extended_code: int | None
    statement_index: int | None
    sql: str | None


class ConstraintError(StatementError):
    code = "constraint"


class SchemaError(StatementError):
    code = "schema"


class MigrationError(StatementError):
    code = "migration"


class ExpectationFailed(StatementError):
    code = "expectation_failed"


class StatementTimeout(StatementError):
    code = "statement_timeout"


class AnswerNotKept(StatementError):
    code = "answer_not_kept"
    outcome: Outcome | None = "applied"


# --------------------------------------------------------------------------- the cluster


class ClusterError(HiqliteError):
    code = "cluster"
    retryable = True


class SessionExpired(ClusterError):
    code = "session_expired"
    retryable = False
    outcome: Outcome | None = "unknown"


class NotLeader(ClusterError):
    code = "not_leader"
    outcome: Outcome | None = "not_applied"
    fields = ("leader_id", "address")
    leader_id: int | None
    address: str | None


class NoLeader(ClusterError):
    code = "no_leader"
    outcome: Outcome | None = "not_applied"


class LeadershipLost(ClusterError):
    code = "leadership_lost"
    outcome: Outcome | None = "unknown"


class RequestTimeout(ClusterError):
    code = "request_timeout"


class Overloaded(ClusterError):
    code = "overloaded"
    outcome: Outcome | None = "not_applied"


class RateLimited(ClusterError):
    code = "rate_limited"
    outcome: Outcome | None = "not_applied"


class ShuttingDown(ClusterError):
    code = "shutting_down"


class TransportError(HiqliteError):
    code = "transport"
    retryable = True


class PeerUnreachable(TransportError):
    code = "peer_unreachable"


class AuthenticationError(TransportError):
    code = "authentication"
    retryable = False


class ProtocolError(TransportError):
    code = "protocol"
    retryable = False


# --------------------------------------------------------------------------- this node's disk


class StorageError(HiqliteError):
    code = "storage"


class DataFolderInUse(StorageError):
    code = "data_folder_in_use"


class CacheFull(StorageError):
    code = "cache_full"
    outcome: Outcome | None = "not_applied"


class Diverged(StorageError):
    code = "diverged"


class LogCorruption(StorageError):
    code = "log_corruption"


class SnapshotCorruption(StorageError):
    code = "snapshot_corruption"


class DiskFull(StorageError):
    code = "disk_full"
    retryable = True


# --------------------------------------------------------------------------- the rest


class BackupError(HiqliteError):
    code = "backup"


class LockTimeout(HiqliteError):
    code = "lock_timeout"
    retryable = True


class LockLost(HiqliteError):
    code = "lock_lost"


class ListenGap(HiqliteError):
    code = "listen_gap"


def _subclasses(base: type[HiqliteError]) -> list[type[HiqliteError]]:
    return [base, *(kind for child in base.__subclasses__() for kind in _subclasses(child))]


BY_CODE: dict[str, type[HiqliteError]] = {kind.code: kind for kind in _subclasses(HiqliteError)}
assert len(BY_CODE) == len(_subclasses(HiqliteError)), "two errors share a code"
