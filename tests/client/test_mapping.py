"""`into=`: what rows become, and what is refused with column and type."""

from __future__ import annotations

import inspect
from dataclasses import InitVar, dataclass, field, make_dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Annotated, Any, ClassVar, Generic, Literal, NamedTuple, NewType, NotRequired, TypedDict, TypeVar
from uuid import UUID

import pytest
import typing_extensions  # comes with mypy
from hypothesis import given
from hypothesis import strategies as st

from hiqlite._accel.values import Columns, Json, Row, new_row, storage
from hiqlite.client.mapping import compile_mapper
from hiqlite.errors import RowMappingError

UserId = NewType("UserId", int)


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Days(Enum):
    LEAP = date(2024, 2, 29)
    NONE = frozenset("what no parameter can hold")


class Shape(StrEnum):
    ROUND = "round"


def row(**values: Any) -> Row:
    return new_row(Columns(tuple(values)), tuple(values.values()))


def mapped(into: Any, **values: Any) -> Any:
    return compile_mapper(tuple(values), into)(row(**values))


@dataclass
class User:
    id: int
    name: str
    email: str | None = None
    tags: list[str] = field(default_factory=list)


def test_a_dataclass_takes_columns_by_name_in_any_order() -> None:
    """Columns without a field are ignored, fields without a column take their default."""
    assert mapped(User, name="eve", other=1, id=5) == User(5, "eve")
    assert mapped(User, id=5, name="eve", email=None, tags='["a"]') == User(5, "eve", None, ["a"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Strict:
    a: int
    b: str = "b"
    size: int = field(init=False, default=0)
    limit: ClassVar[int] = 5


def test_frozen_slotted_and_keyword_only_dataclasses_work() -> None:
    """Fields that the constructor does not take are left alone."""
    assert mapped(Strict, b="x", a=1, size=9) == Strict(a=1, b="x")


class Point(NamedTuple):
    x: int
    y: float = 0.5


class Movie(TypedDict):
    title: str
    year: NotRequired[int]


def test_named_tuples_and_typed_dicts_work() -> None:
    """By their annotations and defaults too."""
    assert mapped(Point, y=2, x=1) == Point(1, 2.0)
    assert mapped(Point, x=1) == Point(1)
    assert mapped(Movie, title="M", year=1931, other=0) == {"title": "M", "year": 1931}
    assert mapped(Movie, title="M") == {"title": "M"}


class Extended(typing_extensions.TypedDict):
    id: int
    when: typing_extensions.ReadOnly[datetime]


def test_typed_dicts_of_typing_extensions_are_typed_dicts() -> None:
    """Not callables, which would take anything."""
    assert mapped(Extended, id=1, when="2024-02-29 12:00:00") == {"id": 1, "when": datetime(2024, 2, 29, 12)}
    for wrong in ({"id": 1}, {"id": "1", "when": "2024-02-29 12:00:00"}):
        with pytest.raises(RowMappingError):
            mapped(Extended, **wrong)


T = TypeVar("T")


@dataclass
class Box(Generic[T]):
    value: T


def test_a_generic_class_without_its_types_is_refused() -> None:
    """Its fields have no types to convert to; calling it with the row would make something else."""
    with pytest.raises(RowMappingError, match="no types"):
        mapped(Box[int], value=1)


def test_a_callable_takes_the_row() -> None:
    """Functions and classes without fields; their exceptions are their own."""
    assert mapped(tuple, a=1, b=2) == (1, 2)
    assert mapped(lambda found: found["b"], a=1, b=2) == 2
    with pytest.raises(ZeroDivisionError):
        mapped(lambda found: found["a"] // 0, a=1)


CONVERSIONS: list[tuple[Any, Any, Any]] = [
    (int, 5, 5),
    (float, 1.5, 1.5),
    (float, 2, 2.0),
    (float, 2**53, 2.0**53),
    (float | int, 5, 5),
    (float | int, 5.0, 5.0),
    (datetime | date, "2024-02-29", date(2024, 2, 29)),
    (date | datetime, "2024-02-29 12:30:00", datetime(2024, 2, 29, 12, 30)),
    (Days, "2024-02-29", Days.LEAP),
    (Literal[Color.RED], "red", Color.RED),
    (str, "x", "x"),
    (bytes, b"x", b"x"),
    (bool, 1, True),
    (bool, 0, False),
    (bool, "true", True),
    (bool, "False", False),
    (datetime, "2024-02-29 12:30:00.000001", datetime(2024, 2, 29, 12, 30, 0, 1)),
    (datetime, "2024-02-29 12:30:00", datetime(2024, 2, 29, 12, 30)),
    (datetime, "2024-02-29T12:30:00Z", datetime(2024, 2, 29, 12, 30, tzinfo=UTC)),
    (date, "2024-02-29", date(2024, 2, 29)),
    (time, "12:30:05.000000", time(12, 30, 5)),
    (Decimal, "1.50", Decimal("1.50")),
    (Decimal, 3, Decimal(3)),
    (Decimal, 0.1, Decimal("0.1")),
    (UUID, UUID(int=7).bytes, UUID(int=7)),
    (UUID, str(UUID(int=7)), UUID(int=7)),
    (Color, "red", Color.RED),
    (Level, 2, Level.HIGH),
    (Shape, "round", Shape.ROUND),
    (Any, b"x", b"x"),
    (object, None, None),
    (None, None, None),
    (int | None, None, None),
    (int | None, 5, 5),
    (int | str, "x", "x"),
    (date | str | None, "no date", "no date"),
    (Literal["a", 5], 5, 5),
    (Literal["a", True], 1, True),
    (Annotated[int, "positive"], 5, 5),
    (UserId, 5, 5),
    (Json, '{"a":1}', Json({"a": 1})),
    (dict[str, Any], '{"a": 1}', {"a": 1}),
    (list, "[1]", [1]),
]


@pytest.mark.parametrize(("annotation", "stored", "wanted"), CONVERSIONS, ids=lambda value: repr(value)[:30])
def test_values_become_the_annotated_type(annotation: Any, stored: Any, wanted: Any) -> None:
    """And exactly that type."""
    kind = make_dataclass("Kind", [("value", annotation)])
    found = mapped(kind, value=stored).value
    assert found == wanted
    assert type(found) is type(wanted)


MISMATCHES: list[tuple[Any, Any]] = [
    (int, "5"),
    (int, 5.0),
    (int, None),
    (float, "1"),
    (float, 2**53 + 1),
    (datetime, "2024-02-29"),
    (datetime, "20240229"),
    (datetime, "2024-02-29 12:30:00.0000001"),
    (time, "12:30:00.1234567"),
    (list, "[" * 100_000),
    (Json, "[" * 100_000),
    (Literal[Color.RED], "blue"),
    (str, 5),
    (str, b"\xff"),
    (bytes, "x"),
    (bool, 2),
    (bool, 1.0),
    (bool, "yes"),
    (datetime, "soon"),
    (datetime, 1700000000),
    (date, "2024-02-30"),
    (date, "2024-02-29 00:00:00"),
    (time, "25:00"),
    (Decimal, "a lot"),
    (Decimal, b"1"),
    (UUID, b"short"),
    (UUID, "no uuid"),
    (UUID, 5),
    (Color, "green"),
    (Level, "2"),
    (Literal["a"], "b"),
    (Literal[1], "1"),
    (int | None, "x"),
    (int | float, "x"),
    (None, 0),
    (Json, "{"),
    (dict, "[1]"),
    (list[int], "{}"),
]


@pytest.mark.parametrize(("annotation", "stored"), MISMATCHES, ids=lambda value: repr(value)[:30])
def test_a_mismatch_names_column_and_type(annotation: Any, stored: Any) -> None:
    """Never a guess, and never a foreign exception."""
    kind = make_dataclass("Kind", [("value", annotation)])
    with pytest.raises(RowMappingError, match="'value'") as raised:
        mapped(kind, value=stored)
    assert raised.value.outcome is None


def test_what_cannot_be_mapped_is_refused_before_any_row() -> None:
    """A missing column, an unknown type, a name that occurs twice, annotations that do not resolve."""
    with pytest.raises(RowMappingError, match=r"User.name \(str\).*no such column"):
        compile_mapper(("id",), User)
    unknown = dataclass(type("Unknown", (), {"__annotations__": {"id": User}}))
    with pytest.raises(RowMappingError, match=r"Unknown.id: no column can become User"):
        compile_mapper(("id",), unknown)
    with pytest.raises(RowMappingError, match="twice"):
        compile_mapper(("id", "name", "id"), User)
    unresolved = dataclass(type("Unresolved", (), {"__annotations__": {"id": "NoSuchName"}}))
    with pytest.raises(RowMappingError, match="Unresolved"):
        compile_mapper(("id",), unresolved)
    with pytest.raises(RowMappingError, match="into="):
        compile_mapper(("id",), 5)


def test_a_mapper_is_compiled_once_per_columns_and_type() -> None:
    """The second call finds the first one's; other columns are another mapper; unhashable callables work."""
    assert compile_mapper(("id", "name"), User) is compile_mapper(("id", "name"), User)
    assert compile_mapper(("id", "name"), User) is not compile_mapper(("name", "id"), User)

    class Unhashable:
        __hash__ = None  # type: ignore[assignment]

        def __call__(self, found: Row) -> int:
            return int(found[0])

    assert mapped(Unhashable(), id=5) == 5


def test_user_code_of_the_type_keeps_its_own_errors() -> None:
    """A constructor that refuses is not a mapping error."""

    @dataclass
    class Positive:
        id: int

        def __post_init__(self) -> None:
            if self.id <= 0:
                raise ValueError("must be positive")

    assert mapped(Positive, id=1).id == 1
    with pytest.raises(ValueError, match="positive") as raised:
        mapped(Positive, id=-1)
    assert not isinstance(raised.value, RowMappingError)


def test_an_init_only_argument_is_filled_too() -> None:
    """It is an argument of the constructor like the others."""

    @dataclass
    class Doubled:
        id: int
        factor: InitVar[int]
        product: int = field(init=False)

        def __post_init__(self, factor: int) -> None:
            self.product = self.id * factor

    assert mapped(Doubled, id=3, factor=2).product == 6


class AttrsLike:
    """What attrs makes of `id: int` and `_name: str = "x"`: known by its mark."""

    id: int
    _name: str

    class Attribute(NamedTuple):
        name: str
        alias: str
        init: bool = True

    __attrs_attrs__ = (Attribute("id", "id"), Attribute("_name", "name"))

    def __init__(self, id: int, name: str = "x") -> None:
        self.id, self._name = id, name


class StructLike:
    """What msgspec makes of a Struct, known by its mark."""

    id: int
    when: date | None

    __struct_fields__ = ("id", "when")
    __signature__ = inspect.Signature(
        [
            inspect.Parameter("id", inspect.Parameter.POSITIONAL_OR_KEYWORD),
            inspect.Parameter("when", inspect.Parameter.KEYWORD_ONLY, default=None),
        ]
    )

    def __init__(self, id: int, *, when: date | None = None) -> None:
        self.id, self.when = id, when


class ModelLike:
    """What pydantic makes of a model: it validates by itself."""

    model_fields: ClassVar[dict[str, Any]] = {"id": int}

    def __init__(self, id: int) -> None:
        self.id = id

    @classmethod
    def model_validate(cls, values: dict[str, Any]) -> ModelLike:
        return cls(int(values["id"]))


def test_attrs_msgspec_and_pydantic_types_are_known_by_their_marks() -> None:
    """Without importing any of them."""
    assert vars(mapped(AttrsLike, id=1, _name="n")) == {"id": 1, "_name": "n"}
    assert vars(mapped(AttrsLike, id=1)) == {"id": 1, "_name": "x"}
    assert vars(mapped(StructLike, id=1, when="2024-02-29")) == {"id": 1, "when": date(2024, 2, 29)}
    assert vars(mapped(StructLike, id=1)) == {"id": 1, "when": None}
    assert mapped(ModelLike, id="5").id == 5
    with pytest.raises(RowMappingError, match="ModelLike"):
        mapped(ModelLike, id="five")


AWARE = st.datetimes(timezones=st.just(UTC))
STORABLE: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (int, st.integers(-(2**63), 2**63 - 1)),
    (float, st.floats(allow_nan=False)),
    (str, st.text(st.characters(exclude_categories=["Cs"]))),
    (bytes, st.binary()),
    (bool, st.booleans()),
    (datetime, st.datetimes() | AWARE),
    (date, st.dates()),
    (time, st.times()),
    (Decimal, st.decimals(allow_nan=False)),
    (UUID, st.uuids()),
    (Color, st.sampled_from(Color)),
    (Level, st.sampled_from(Level)),
]


@given(st.data())
def test_what_was_stored_as_a_parameter_comes_back_through_into(data: st.DataObject) -> None:
    """The two directions agree on every type that both know."""
    annotation, values = data.draw(st.sampled_from(STORABLE))
    value = data.draw(values)
    kind = make_dataclass("Kind", [("value", annotation)])
    assert mapped(kind, value=storage(value)).value == value
