"""From SQLite's storage classes to annotated types: the converter of one field.

Must not know rows or columns. Invariant: a converter gives a value of its type or raises ValueError, TypeError or
ArithmeticError; it never guesses. Text becomes what a parameter of that type was stored as (api: Parameters).
"""

from __future__ import annotations

import json
import re
import types
import typing
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import Any, Final, Literal, NewType, Union, get_args, get_origin
from uuid import UUID

from hiqlite._accel.plain.values import storage
from hiqlite._accel.values import Json
from hiqlite.errors import UsageError

Converter = Callable[[Any], Any]


def converter_of(annotation: Any) -> Converter | None:
    """How a column's value becomes `annotation`; None when there is no way."""
    annotation = _resolved(annotation)
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        return _union(get_args(annotation))
    if origin is Literal:
        return _literal(get_args(annotation))
    if origin in (dict, list):
        return PLAIN[origin]
    if annotation is Any or annotation is object:
        return _as_it_is
    if annotation is None or annotation in PLAIN:
        return PLAIN[annotation]
    return _class(annotation) if isinstance(annotation, type) else None


def type_name(annotation: Any) -> str:
    """As a person would write it."""
    return annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")


WRAPPERS: Final = (typing.Annotated, typing.Required, typing.NotRequired, typing.Final)


def _resolved(annotation: Any) -> Any:
    """Behind NewType, `type X = ...` and Annotated."""
    while True:
        if isinstance(annotation, NewType):
            annotation = annotation.__supertype__
        elif get_origin(annotation) in WRAPPERS or str(get_origin(annotation)).endswith("ReadOnly"):
            annotation = get_args(annotation)[0]
        elif type(annotation).__name__ == "TypeAliasType":
            annotation = annotation.__value__
        else:
            return annotation


def _union(members: tuple[Any, ...]) -> Converter | None:
    """The first member that fits. NULL goes to None before anything else is asked, and an integer to int, not float."""
    nullable = type(None) in members
    ordered = sorted(members, key=lambda member: member is float) if int in members else members
    converters = [converter_of(member) for member in ordered if member is not type(None)]
    known = [converter for converter in converters if converter is not None]
    if len(known) != len(converters):
        return None
    if len(known) == 1 and nullable:
        only = known[0]
        return lambda value: None if value is None else only(value)

    def convert(value: Any) -> Any:
        if value is None and nullable:
            return None
        for converter in known:
            try:
                return converter(value)
            except (ValueError, TypeError, ArithmeticError):
                continue
        raise ValueError("fits none of them")

    return convert


def _literal(allowed: tuple[Any, ...]) -> Converter:
    def convert(value: Any) -> Any:
        for member in allowed:
            wanted = storage(member)
            if wanted == value and (type(wanted) is type(value) or isinstance(member, bool)):
                return member
        raise ValueError("none of the literals")

    return convert


def _class(kind: type[Any]) -> Converter | None:
    """An Enum by value, or a subclass of a storage class."""
    if issubclass(kind, Enum):
        return _enum(kind)
    base = next((base for base in (int, float, str, bytes) if issubclass(kind, base)), None)
    if base is None:
        return None
    plain = PLAIN[base]
    return lambda value: kind(plain(value))


def _enum(kind: type[Enum]) -> Converter:
    members: dict[Any, Enum] = {}
    for member in kind:
        with suppress(UsageError):  # one that no parameter can hold is in no column
            members[storage(member.value)] = member

    def convert(value: Any) -> Any:
        return members[value] if value in members else kind(value)

    return convert


def _as_it_is(value: Any) -> Any:
    return value


def _exactly(kind: type) -> Converter:
    def convert(value: Any) -> Any:
        if type(value) is not kind:
            raise TypeError(f"not {kind.__name__}")
        return value

    return convert


def _float(value: Any) -> float:
    if type(value) is float:
        return value
    found = float(_integer(value))
    if int(found) != value:
        raise ValueError("an integer that no float is")
    return found


def _bool(value: Any) -> bool:
    found = TRUTHS.get(value.lower() if isinstance(value, str) else value)
    if found is None or isinstance(value, float):
        raise ValueError("neither 0 nor 1")
    return found


def _decimal(value: Any) -> Decimal:
    if isinstance(value, float):
        return Decimal(repr(value))  # the shortest decimal that reads back as this float
    if type(value) not in (str, int):
        raise TypeError("no number")
    return Decimal(value)


def _uuid(value: Any) -> UUID:
    return UUID(bytes=value) if isinstance(value, bytes) else UUID(_text(value))


def _json(value: Any) -> Json:
    return Json(_parsed(value))


def _parsed(value: Any) -> Any:
    try:
        return json.loads(_text(value))
    except RecursionError as error:
        raise ValueError("JSON that is nested too deeply") from error


def _json_of(kind: type) -> Converter:
    def convert(value: Any) -> Any:
        found = _parsed(value)
        if not isinstance(found, kind):
            raise ValueError(f"JSON, but no {kind.__name__}")
        return found

    return convert


def _datetime(value: Any) -> datetime:
    text = _no_finer(_text(value))
    found = datetime.fromisoformat(text)
    if not HAS_TIME.search(text):
        raise ValueError("a date without a time")
    return found


def _no_finer(text: str) -> str:
    """Python would cut what it cannot hold."""
    if FINER.search(text):
        raise ValueError("finer than a microsecond")
    return text


def _null(value: Any) -> None:
    if value is not None:
        raise TypeError("not NULL")


FINER: Final = re.compile(r"[.,][0-9]{7}")
HAS_TIME: Final = re.compile(r"^.{8,10}[^0-9-]")  # behind the date, with or without dashes
_integer: Final = _exactly(int)
_text: Final = _exactly(str)

TRUTHS: Final[Mapping[Any, bool]] = types.MappingProxyType(
    {0: False, 1: True, "0": False, "1": True, "false": False, "true": True}
)
PLAIN: Final[Mapping[Any, Converter]] = types.MappingProxyType(
    {
        int: _integer,
        str: _text,
        bytes: _exactly(bytes),
        float: _float,
        bool: _bool,
        datetime: _datetime,
        date: lambda value: date.fromisoformat(_text(value)),
        time: lambda value: time.fromisoformat(_no_finer(_text(value))),
        Decimal: _decimal,
        UUID: _uuid,
        Json: _json,
        dict: _json_of(dict),
        list: _json_of(list),
        None: _null,
        type(None): _null,
    }
)

__all__ = ["Converter", "converter_of", "type_name"]
