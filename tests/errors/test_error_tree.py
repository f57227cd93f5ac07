"""The tree of errors: what catches what, and what each carries across a wire and a process border."""

from __future__ import annotations

import inspect
import pickle

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiqlite import errors
from hiqlite.engine.ports import LogPurged
from hiqlite.errors import BY_CODE, HiqliteError, from_wire, with_outcome

# docs: Public API, section 7, line by line.
TREE = {
    "HiqliteError": ["UsageError", "RowNotFound", "TooManyRows", "StatementError", "ClusterError", "TransportError",
                     "StorageError", "BackupError", "LockTimeout", "LockLost", "ListenGap"],
    "UsageError": ["ConfigError", "ParameterError", "RowMappingError", "DeterminismError"],
    "StatementError": ["ConstraintError", "SchemaError", "MigrationError", "ExpectationFailed", "StatementTimeout",
                       "AnswerNotKept"],
    "ClusterError": ["SessionExpired", "NotLeader", "NoLeader", "LeadershipLost", "RequestTimeout", "Overloaded",
                     "RateLimited", "ShuttingDown"],
    "TransportError": ["PeerUnreachable", "AuthenticationError", "ProtocolError"],
    "StorageError": ["DataFolderInUse", "CacheFull", "Diverged", "LogCorruption", "SnapshotCorruption", "DiskFull"],
}  # fmt: skip
KINDS = sorted(BY_CODE.values(), key=lambda kind: kind.code)
PROMISES = {
    "NotLeader": "not_applied", "NoLeader": "not_applied", "Overloaded": "not_applied", "RateLimited": "not_applied",
    "LeadershipLost": "unknown", "SessionExpired": "unknown", "AnswerNotKept": "applied",
    "StatementError": "not_applied", "ParameterError": "not_applied",
    "ConfigError": None, "RowMappingError": None, "RequestTimeout": None,
}  # fmt: skip


def made(kind: type[HiqliteError]) -> HiqliteError:
    details = {name: f"value of {name}" for name in kind.all_fields()}
    return kind("it went wrong", hint="try again", outcome="unknown", **details)


def same(one: HiqliteError, other: HiqliteError) -> bool:
    return type(one) is type(other) and one.to_wire() == other.to_wire() and str(one) == str(other)


def test_the_tree_is_the_documented_one() -> None:
    """Every documented error hangs where the documentation says, and there is none beside them."""
    actual = {kind.__name__: kind.__base__.__name__ for kind in BY_CODE.values() if kind.__base__ is not None}
    expected = {child: parent for parent, children in TREE.items() for child in children}
    # UsageError has two bases; the first one is ours.
    assert actual == {**expected, "HiqliteError": "Exception"}


def test_usage_errors_are_value_errors() -> None:
    """Who calls with nonsense may catch it the way Python says."""
    for kind in KINDS:
        assert issubclass(kind, ValueError) == issubclass(kind, errors.UsageError)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_survives_the_wire(kind: type[HiqliteError]) -> None:
    """Through msgpack and back: same class, message, hint, outcome and details."""
    error = made(kind)
    assert same(from_wire(msgpack.unpackb(msgpack.packb(error.to_wire()))), error)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_survives_pickling(kind: type[HiqliteError]) -> None:
    """Worker processes hand errors on as they are."""
    error = made(kind)
    assert same(pickle.loads(pickle.dumps(error)), error)


@pytest.mark.parametrize("kind", [*KINDS, LogPurged], ids=lambda kind: kind.__name__)
def test_every_error_can_be_told_with_another_outcome(kind: type[HiqliteError]) -> None:
    """Whoever knows more of a write, or has another one: all else stays, and the error itself is as it was."""
    error = made(kind)
    for outcome in errors.OUTCOMES:
        other = with_outcome(error, outcome)
        assert type(other) is kind and other is not error and str(other) == str(error)
        assert other.to_wire() == {**error.to_wire(), "outcome": outcome}
    assert same(error, made(kind))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_can_be_made_with_a_message_alone(kind: type[HiqliteError]) -> None:
    """Then its outcome is what the class says, and every detail is None; the wire keeps that too."""
    error = kind("it went wrong")
    assert error.outcome == kind.outcome
    assert all(getattr(error, name) is None for name in kind.all_fields())
    assert same(from_wire(error.to_wire()), error)


@pytest.mark.parametrize("name", sorted(PROMISES))
def test_classes_promise_the_documented_outcome(name: str) -> None:
    """What an error says about a write when whoever raises it says nothing else."""
    assert getattr(errors, name)("m").outcome == PROMISES[name]


def test_an_error_of_a_read_has_no_outcome() -> None:
    """None given on purpose stays None, though the class promises something for writes, also across the wire."""
    error = errors.StatementError("no such table", outcome=None, sqlite_code=1)
    assert error.outcome is None
    assert from_wire(error.to_wire()).outcome is None


def test_the_hint_stands_behind_the_message() -> None:
    """Both are seen where an error is printed; without a hint the message stands alone."""
    assert str(errors.ConfigError("unknown key nodez", hint="did you mean nodes?")) == (
        "unknown key nodez (did you mean nodes?)"
    )
    assert str(errors.NoLeader("there is no leader")) == "there is no leader"


def test_an_unknown_detail_is_our_own_mistake() -> None:
    """A misspelt attribute is a TypeError at once, not a silently lost value."""
    with pytest.raises(TypeError, match="sqlite_cod"):
        errors.StatementError("m", sqlite_cod=1)


def test_a_code_of_a_newer_version_becomes_the_base_class() -> None:
    """An old client understands that something failed, and what became of the write."""
    error = from_wire({"code": "quantum_flux", "message": "m", "outcome": "applied", "details": {"x": 1}})
    assert type(error) is HiqliteError
    assert (error.message, error.outcome) == ("m", "applied")


def test_codes_are_stable_lower_case_words() -> None:
    """Programs compare them; they are derived from nothing and repeat nowhere."""
    assert all(kind.code.replace("_", "").isalpha() and kind.code.islower() for kind in KINDS)
    public = [value for _, value in inspect.getmembers(errors, inspect.isclass) if issubclass(value, HiqliteError)]
    assert len({kind.code for kind in public}) == len(public)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.fixed_dictionaries(
        {}, optional=dict.fromkeys(("code", "message", "hint", "outcome", "details", "more"), ANYTHING)
    ),
    st.sampled_from(sorted(BY_CODE)) | st.none(),
)
def test_any_map_of_a_peer_becomes_an_error(wire: dict[str, object], code: str | None) -> None:
    """Whatever a peer sends: an error of ours that prints, with an outcome of the known ones."""
    error = from_wire(wire if code is None else {**wire, "code": code})
    assert isinstance(error, HiqliteError)
    assert error.outcome in errors.OUTCOMES
    assert isinstance(str(error), str)


def test_an_outcome_that_is_none_of_the_known_ones_promises_nothing() -> None:
    """Never a guess: unknown."""
    assert from_wire({"code": "no_leader", "outcome": "probably"}).outcome == "unknown"
