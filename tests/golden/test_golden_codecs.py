"""The formats of docs/formats.md sections 1 to 4, byte for byte: what is written today must be read for ever.

Each file beside this one holds lines `name hex`. `python tests/golden/test_golden_codecs.py` writes them anew; a
difference in them is a new format version, never a fix.
"""

from pathlib import Path

import pytest

from hiqlite._accel import answers, commands, records, values
from hiqlite._accel.answers import Done, Failed, Returned
from hiqlite._accel.commands import Reference
from hiqlite._accel.plain import answers as plain_answers
from hiqlite._accel.plain import commands as plain_commands
from hiqlite._accel.plain import records as plain_records
from hiqlite._accel.plain import values as plain_values

FOLDER = Path(__file__).parent
ORIGIN = {"session": 7, "sequence": 8, "window_low": 6, "request_id": "req-é"}


def value_cases(codec):
    cases = {
        "null": None,
        "integer": -2,
        "integer_max": 2**63 - 1,
        "real": 1.5,
        "infinity": float("inf"),
        "text": "hé\0llo",
        "empty_text": "",
        "blob": b"\x00\xff",
        "empty_blob": b"",
    }
    return {name: codec.encode_values([value]) for name, value in cases.items()}


def record_cases(codec):
    kinds = {"hard_state": 2, "truncate": 3, "purge_mark": 4, "synced": 5, "segment_end": 7}
    made = {name: codec.encode_record(kind, 0, b"", 3, 9) for name, kind in kinds.items()}
    made["entry_command"] = codec.encode_record(1, 1, b"payload", 3, 9, 1_000, 1_700_000_000_000_000_000, 5)
    made["entry_noop"] = codec.encode_record(1, 8, b"", 3, 9, 1_000, 1_700_000_000_000_000_000, 5)
    made["repair"] = codec.encode_record(6, 1, b"payload", 3, 9, 1_000, 1_700_000_000_000_000_000, 5)
    return made


def command_cases(codec):
    many = [("INSERT INTO t VALUES (?)", [1]), ("INSERT INTO t VALUES (?)", [None])]
    txn = [
        ("INSERT INTO t VALUES (?, ?) RETURNING id", (1.5, b"x")),
        ("UPDATE t SET a = :a WHERE id = :id", {"a": "é", "id": Reference(0, "id")}),
        ("DELETE FROM t WHERE id = ?", [Reference(0, 0)]),
    ]
    return {
        "execute": codec.encode_command(1, [("INSERT INTO t VALUES (?)", ["a"])], flags=1),
        "execute_many": codec.encode_command(2, many, **ORIGIN),
        "txn": codec.encode_command(3, txn, expects=[None, 1, 0], **ORIGIN),
        "batch": codec.encode_batch("SELECT 1; SELECT 2", **ORIGIN),
        "migration": codec.encode_migration("CREATE TABLE t(a)", "1_t.sql", "ab" * 32, True),
    }


def answer_cases(codec):
    return {
        "done": codec.encode_answer(0, [Done(1, 5)]),
        "failed": codec.encode_answer(1, [Failed(2, "UNIQUE constraint failed: t.é", 2067, 1)]),
        "part_remains": codec.encode_answer(2, [Failed(2, "UNIQUE", 2067, 0)]),
        "rows": codec.encode_answer(0, [Returned(["id", "é"], [(1, "a"), (None, b"z")], 2, 2)]),
        "batch": codec.encode_answer(0, [Done(1, 5), Failed(3, "no such table: x", 1, 1), Done()]),
        "empty": codec.encode_answer(0, []),
    }


CASES = {
    "values": (value_cases, (values, plain_values)),
    "records": (record_cases, (records, plain_records)),
    "commands": (command_cases, (commands, plain_commands)),
    "answers": (answer_cases, (answers, plain_answers)),
}


def kept(name):
    lines = (FOLDER / f"{name}.hex").read_text().splitlines()
    return {case: bytes.fromhex(body) for case, body in (line.split(" ", 1) for line in lines)}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("twin", [0, 1], ids=["compiled", "plain"])
def test_the_bytes_written_are_the_golden_ones(name, twin):
    """Any difference is a new version of the format."""
    make, codecs = CASES[name]
    assert make(codecs[twin]) == kept(name)


def test_golden_records_are_read():
    """What an earlier version wrote is intact to this one."""
    for name, record in kept("records").items():
        assert records.check(record) == records.OK, name
    for name, record in kept("commands").items():
        assert commands.command_view(record).operation, name


def write_all():
    for name, (make, codecs) in CASES.items():
        lines = [f"{case} {body.hex()}\n" for case, body in make(codecs[1]).items()]
        (FOLDER / f"{name}.hex").write_text("".join(lines))


if __name__ == "__main__":
    write_all()
