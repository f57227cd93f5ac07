from collections.abc import Sequence
from typing import Any

from hiqlite._accel.plain.command_view import CommandView as CommandView
from hiqlite._accel.plain.command_view import StatementView as StatementView
from hiqlite._accel.plain.commands import FOREIGN_KEYS_OFF as FOREIGN_KEYS_OFF
from hiqlite._accel.plain.commands import ROWS_WANTED as ROWS_WANTED
from hiqlite._accel.plain.commands import Operation as Operation
from hiqlite._accel.plain.commands import Reference as Reference

def encode_command(
    operation: int,
    statements: Sequence[tuple[str, Any]],
    *,
    flags: int = 0,
    session: int = 0,
    sequence: int = 0,
    window_low: int = 0,
    request_id: str = "",
    expects: Sequence[int | None] | None = None,
    size_max: int = ...,
) -> bytes: ...
def encode_batch(
    text: str,
    *,
    flags: int = 0,
    session: int = 0,
    sequence: int = 0,
    window_low: int = 0,
    request_id: str = "",
    size_max: int = ...,
) -> bytes: ...
def encode_migration(
    text: str,
    name: str,
    sha256_hex: str,
    foreign_keys_off: bool = False,
    *,
    session: int = 0,
    sequence: int = 0,
    window_low: int = 0,
    request_id: str = "",
    size_max: int = ...,
) -> bytes: ...
def in_session(record: bytes, session: int, sequence: int, window_low: int) -> bytes: ...
def command_texts(record: bytes) -> tuple[int, int, list[str]]: ...
def command_view(record: Any) -> CommandView: ...
