from array import array
from typing import Any

from hiqlite._accel.commands import FOREIGN_KEYS_OFF as FOREIGN_KEYS_OFF
from hiqlite._accel.commands import ROWS_WANTED as ROWS_WANTED
from hiqlite._accel.commands import CommandView as CommandView
from hiqlite._accel.commands import Operation as Operation
from hiqlite._accel.commands import Reference as Reference
from hiqlite._accel.commands import StatementView as StatementView
from hiqlite._accel.commands import command_view as command_view
from hiqlite._accel.commands import encode_batch as encode_batch
from hiqlite._accel.commands import encode_command as encode_command
from hiqlite._accel.commands import encode_migration as encode_migration
from hiqlite._accel.plain.records import BAD_HEADER_CRC as BAD_HEADER_CRC
from hiqlite._accel.plain.records import BAD_ORDER as BAD_ORDER
from hiqlite._accel.plain.records import BAD_PAYLOAD as BAD_PAYLOAD
from hiqlite._accel.plain.records import BAD_SHAPE as BAD_SHAPE
from hiqlite._accel.plain.records import HEADER_SIZE as HEADER_SIZE
from hiqlite._accel.plain.records import OK as OK
from hiqlite._accel.plain.records import SHORT as SHORT
from hiqlite._accel.plain.records import EntryKind as EntryKind
from hiqlite._accel.plain.records import RecordHeader as RecordHeader
from hiqlite._accel.plain.records import RecordKind as RecordKind

def crc32c(data: Any, seed: int = 0) -> int: ...
def encode_record(
    kind: int,
    entry_kind: int,
    payload: Any,
    term: int = 0,
    index: int = 0,
    group_time_ns: int = 0,
    wall_time_ns: int = 0,
    seed: int = 0,
) -> bytes: ...
def seal(
    buffer: Any,
    offset: int,
    term: int,
    index: int,
    group_time_ns: int = 0,
    wall_time_ns: int = 0,
    seed: int = 0,
) -> int: ...
def seal_records(
    buffer: Any, term: int, first: int, group_time_ns: int = 0, wall_time_ns: int = 0, seed: int = 0
) -> int: ...
def stamp(record: bytes, wall_time_ns: int, seed: int) -> bytes: ...
def unseal(record: bytes) -> bytes: ...
def check(data: Any, offset: int = 0, sealed: bool = True, payload: bool = True) -> int: ...
def header(data: Any, offset: int = 0) -> RecordHeader: ...
def scan(data: Any, expect_first: int) -> list[tuple[int, int, int]]: ...
def offsets(data: Any) -> array[int]: ...
def find_kind(data: Any, entry_kind: int) -> list[int]: ...
def slice_records(data: Any, first_index_of_data: int, low: int, high: int) -> bytes: ...
