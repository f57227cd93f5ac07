"""`into=`: rows as objects of the caller's types.

Two steps: what a type wants is found out once per (columns, type); then each row is converted field by field. Must
not know SQL, nodes or how rows travel. Invariant: a value never silently becomes another one: what does not fit its
annotation is a RowMappingError that names column and type.

Rules. A field takes the column of its name; columns without a field are ignored; a field without a column takes its
default, and without default it is an error. NULL fits only `None`, `X | None` and `Any`. attrs, msgspec and pydantic
types are known by their marks, so none of them is imported here.
"""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import time
import types
import typing
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final, cast, get_type_hints

from hiqlite._accel.values import Row
from hiqlite.errors import HiqliteError, RowMappingError

from .conversion import Converter, converter_of, type_name

AT_ONCE: Final = 50  # rows between two looks at the clock
SLICE_NS: Final = 300_000  # of mapping in one turn of the loop
MAPPERS_KEPT: Final = 512  # pairs of columns and type; the least recently used one is compiled again
Mapper = Callable[[Row], Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """One field, key or argument of the caller's type."""

    name: str
    annotation: Any
    required: bool
    argument: str  # by which the constructor knows it


def compile_mapper(columns: tuple[str, ...], into: Any) -> Mapper:
    """The function that turns a row with these columns into `into`.

    Args:
        columns: names as the rows have them.
        into: dataclass, NamedTuple, TypedDict, attrs class, msgspec.Struct, pydantic model, or a callable that takes
            a Row (which then converts by itself, and whose exceptions are its own).

    Raises:
        RowMappingError: a field has neither column nor default, its type is not known, or its column occurs twice.
    """
    try:
        return _compiled(columns, into)
    except TypeError as error:
        if "unhashable" not in str(error):
            raise
        return _compile(columns, into)  # a callable object that cannot be a key


def _compile(columns: tuple[str, ...], into: Any) -> Mapper:
    if isinstance(into, type):
        if hasattr(into, "model_validate") and hasattr(into, "model_fields"):
            return _pydantic(into)
        if typing.is_typeddict(into) or (issubclass(into, dict) and hasattr(into, "__required_keys__")):
            return _by_fields(columns, into, _typed_dict(into), dict)
        for mark, find in FINDERS.items():
            if hasattr(into, mark):
                return _by_fields(columns, into, find(into), into)
        if issubclass(into, tuple) and hasattr(into, "_fields"):
            return _by_fields(columns, into, _named_tuple(into), into)
    if not callable(into):
        raise RowMappingError(f"into= takes a type or a callable, not {type(into).__name__}")
    if has_fields(typing.get_origin(into)):
        raise RowMappingError(
            f"into={type_name(into)}: its fields have no types", hint="give a class whose fields have"
        )
    return cast(Mapper, into)


def has_fields(kind: Any) -> bool:
    """Whether it is a class of one of the kinds whose fields are known here."""
    marks = (*FINDERS, "model_fields", "__required_keys__", "_fields")
    return isinstance(kind, type) and any(hasattr(kind, mark) for mark in marks)


# A cache and no state: what it gives depends on its key alone.
_compiled = lru_cache(maxsize=MAPPERS_KEPT)(_compile)


# --------------------------------------------------------------------------- what a type wants


def _hints(into: Any) -> dict[str, Any]:
    try:
        return get_type_hints(into, include_extras=True)
    except (NameError, TypeError, AttributeError, SyntaxError) as error:
        raise RowMappingError(f"the annotations of {into.__name__} cannot be resolved: {error}") from error


NONE: Final[Mapping[str, Any]] = types.MappingProxyType({})


def _constructor(into: Any, columns: Mapping[str, str] = NONE, kinds: Mapping[str, Any] = NONE) -> list[Target]:
    """The arguments of a class whose constructor stands for its fields.

    Args:
        columns: argument -> column, where their names differ.
        kinds: column -> type, where there is no annotation.
    """
    hints = {**kinds, **_hints(into)}
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    targets = []
    for argument, parameter in inspect.signature(into).parameters.items():
        name = columns.get(argument, argument)
        hint = hints.get(name, Any)
        if isinstance(hint, dataclasses.InitVar):
            hint = hint.type
        if parameter.kind in named:
            targets.append(Target(name, hint, parameter.default is inspect.Parameter.empty, argument))
    return targets


def _attrs(into: Any) -> list[Target]:
    fields = into.__attrs_attrs__
    kinds = {field.name: kind for field in fields if (kind := getattr(field, "type", None)) is not None}
    return _constructor(into, {field.alias: field.name for field in fields}, kinds)


def _named_tuple(into: Any) -> list[Target]:
    hints = _hints(into)
    return [Target(name, hints.get(name, Any), name not in into._field_defaults, name) for name in into._fields]


def _typed_dict(into: Any) -> list[Target]:
    """`__required_keys__` does not see Required and NotRequired in annotations that were text; the hints do."""
    marks = {typing.Required: True, typing.NotRequired: False}
    return [
        Target(name, hint, marks.get(typing.get_origin(hint), name in into.__required_keys__), name)
        for name, hint in _hints(into).items()
    ]


# Mark of a kind of type -> how its fields are found.
FINDERS: Final[Mapping[str, Callable[[Any], list[Target]]]] = types.MappingProxyType(
    {
        "__dataclass_fields__": _constructor,
        "__attrs_attrs__": _attrs,
        "__struct_fields__": _constructor,  # msgspec
    }
)


def _pydantic(into: Any) -> Mapper:
    """pydantic converts and checks by itself; what it refuses is told in the words of this product."""

    def mapper(row: Row) -> Any:
        try:
            return into.model_validate(row.asdict())
        except ValueError as error:  # pydantic.ValidationError is one
            raise RowMappingError(f"{into.__name__}: {error}") from error

    return mapper


# --------------------------------------------------------------------------- row -> object


def _by_fields(columns: tuple[str, ...], into: Any, targets: list[Target], make: Callable[..., Any]) -> Mapper:
    steps: list[tuple[str, int, str, Any, Converter]] = []
    for target in targets:
        if target.name not in columns:
            if target.required:
                kind = type_name(target.annotation)
                raise RowMappingError(
                    f"{into.__name__}.{target.name} ({kind}): the result has no such column and the field no default",
                    hint=f"columns: {', '.join(columns)}",
                )
            continue
        if columns.count(target.name) > 1:
            raise RowMappingError(f"column {target.name!r} occurs twice in the result", hint="rename one with AS")
        converter = converter_of(target.annotation)
        if converter is None:
            kind = type_name(target.annotation)
            raise RowMappingError(f"{into.__name__}.{target.name}: no column can become {kind}")
        steps.append((target.argument, columns.index(target.name), target.name, target.annotation, converter))
    in_place = make is not dict and _positional(into, [argument for argument, *_ in steps])

    def mapper(row: Row) -> Any:
        values = []
        for _, number, name, annotation, convert in steps:
            value = row[number]
            try:
                values.append(convert(value))
            except HiqliteError:
                raise
            except (ValueError, TypeError, ArithmeticError) as error:
                shown = "NULL" if value is None else f"{type(value).__name__} {_short(value)}"
                raise RowMappingError(f"column {name!r}: {shown} does not fit {type_name(annotation)}") from error
        if in_place:
            return make(*values)
        return make(**{step[0]: value for step, value in zip(steps, values, strict=True)})

    return mapper


def _positional(into: Any, arguments: list[str]) -> bool:
    """Whether the values, in this order, are the first positional arguments: the cheaper way to call."""
    try:
        parameters = list(inspect.signature(into).parameters.values())[: len(arguments)]
    except ValueError:
        return False
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [parameter.name for parameter in parameters if parameter.kind in kinds] == arguments


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 40 else f"{shown[:37]}..."


def mapper_of(rows: list[Row], into: Any) -> Mapper:
    """For each of these rows, of which there is one at least."""
    return _as_it_is if into is None else compile_mapper(tuple(rows[0].keys()), into)


def _as_it_is(row: Row) -> Row:
    return row


def map_rows(rows: list[Row], into: Any) -> list[Any]:
    """Rows as objects of type `into`; the rows themselves when it is None."""
    if into is None or not rows:
        return rows
    convert = mapper_of(rows, into)
    return [convert(row) for row in rows]


async def mapped(rows: list[Row], into: Any) -> list[Any]:
    """`map_rows` of what may be many: the loop goes on in between."""
    if len(rows) <= AT_ONCE:
        return map_rows(rows, into)
    convert = mapper_of(rows, into)
    found: list[Any] = []
    begun_ns = time.perf_counter_ns()
    for at in range(0, len(rows), AT_ONCE):
        found += [convert(row) for row in rows[at : at + AT_ONCE]]
        if time.perf_counter_ns() - begun_ns > SLICE_NS:
            await asyncio.sleep(0)
            begun_ns = time.perf_counter_ns()
    return found


__all__ = ["compile_mapper", "map_rows", "mapped", "mapper_of"]
