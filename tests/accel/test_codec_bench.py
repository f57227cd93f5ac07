"""One row per codec, compiled beside plain: what justifies each extension. Run with --benchmark-enable."""

import pytest
from codec_twins import ANSWERS, COMMANDS, NAMES, RECORDS, VALUES

from hiqlite._accel.plain.answers import Done, Returned, encode_answer

PARAMETERS = (12345, "some text of a row", 2.5)
STATEMENT = ("INSERT INTO test (id, name, score) VALUES (?, ?, ?)", PARAMETERS)
RUN = b"".join(RECORDS["compiled"].encode_record(1, 1, bytes(150), 1, index) for index in range(1, 65))


@pytest.fixture(params=NAMES)
def twin(request):
    return request.param


def test_encode_values(benchmark, twin):
    """Three parameters."""
    assert len(benchmark(VALUES[twin].encode_values, PARAMETERS)) == 41


def test_decode_rows(benchmark, twin):
    """100 rows of three columns."""
    codec = VALUES[twin]
    data = codec.encode_values(PARAMETERS * 100)
    assert len(benchmark(codec.decode_rows, data, 0, 100, codec.Columns(["id", "name", "score"]))) == 100


def test_row_by_name(benchmark, twin):
    """One attribute."""
    codec = VALUES[twin]
    row = codec.new_row(codec.Columns(["id", "name", "score"]), PARAMETERS)
    assert benchmark(lambda: row.name) == PARAMETERS[1]


def test_encode_execute(benchmark, twin):
    """A whole record, as a forwarded write is encoded."""
    assert len(benchmark(COMMANDS[twin].encode_command, 1, [STATEMENT])) % 8 == 0


def test_check_of_a_forwarded_execute(benchmark, twin):
    """What the leader looks at before it replicates."""
    record = COMMANDS[twin].encode_command(1, [STATEMENT])
    assert benchmark(COMMANDS[twin].command_view, record).operation == 1


def test_scan_of_a_frame(benchmark, twin):
    """64 records of a follower's frame."""
    assert benchmark(RECORDS[twin].scan, RUN, 1) == [(1, 1, 64)]


def test_seal_of_a_batch(benchmark, twin):
    """64 records of one loop turn."""
    buffer = bytearray(RUN)
    assert benchmark(RECORDS[twin].seal_records, buffer, 2, 1, 0, 0, 5) == 64


def test_crc_of_a_page(benchmark, twin):
    """4 KiB."""
    assert benchmark(RECORDS[twin].crc32c, bytes(4096)) == 0x98F94189


def test_decode_execute(benchmark, twin):
    """The answer of nearly every write."""
    answer = encode_answer(0, [Done(1, 5)])
    assert benchmark(ANSWERS[twin].decode_execute, answer, 7).rows_affected == 1


def test_decode_returning(benchmark, twin):
    """One row of three columns."""
    answer = encode_answer(0, [Returned(["id", "name", "score"], [PARAMETERS], 1, 5)])
    assert benchmark(ANSWERS[twin].decode_returning, answer, 7)[0][0].name == PARAMETERS[1]
