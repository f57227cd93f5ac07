"""Records: sealed, checked, scanned and cut alike by the compiled codec and its plain twin."""

import pytest
from codec_twins import NAMES, RECORDS, outcome
from hypothesis import given, settings
from hypothesis import strategies as st

from hiqlite import errors
from hiqlite._accel.plain.records import header_crc, mix_seed

U64 = st.integers(0, 2**64 - 1)
I64 = st.integers(-(2**63), 2**63 - 1)
ENTRY, NOOP, COMMAND = 1, 8, 1


@pytest.fixture(params=NAMES)
def codec(request):
    return RECORDS[request.param]


def run_of(codec, payloads, first=5, terms=None):
    """A sealed run of entries from index `first` on."""
    terms = terms or [1] * len(payloads)
    return b"".join(
        codec.encode_record(ENTRY, COMMAND, payload, term, index)
        for index, (payload, term) in enumerate(zip(payloads, terms, strict=True), first)
    )


def test_the_checksum_is_crc32c(codec):
    """Published check values of CRC32C (RFC 3720 B.4), and continuation."""
    assert codec.crc32c(b"123456789") == 0xE3069283
    assert codec.crc32c(bytes(32)) == 0x8A9136AA
    assert codec.crc32c(b"\xff" * 32) == 0x62A8AB43
    assert codec.crc32c(bytes(range(32))) == 0x46DD794E
    assert codec.crc32c(b"") == 0
    assert codec.crc32c(b"6789", codec.crc32c(b"12345")) == 0xE3069283


@given(st.binary(max_size=200), st.integers(0, 2**32 - 1))
def test_the_checksum_is_the_same_in_both_codecs(data, seed):
    """Every length and alignment."""
    assert RECORDS["compiled"].crc32c(data, seed) == RECORDS["plain"].crc32c(data, seed)


@given(st.binary(max_size=40), U64, U64, I64, I64, U64)
def test_a_record_gives_back_what_it_was_made_of(payload, term, index, group, wall, seed):
    """Round trip of the header; equal bytes from both codecs; length a multiple of 8."""
    record = RECORDS["compiled"].encode_record(ENTRY, COMMAND, payload, term, index, group, wall, seed)
    assert record == RECORDS["plain"].encode_record(ENTRY, COMMAND, payload, term, index, group, wall, seed)
    assert len(record) % 8 == 0
    for codec in RECORDS.values():
        found = codec.header(record)
        assert (found.kind, found.entry_kind, found.length, found.payload_length) == (1, 1, len(record), len(payload))
        assert (found.term, found.index, found.seed) == (term, index, seed)
        assert (found.group_time_ns, found.wall_time_ns) == (group, wall)
        assert codec.check(record) == codec.OK
        assert record[64 : 64 + found.payload_length] == payload


@given(st.binary(max_size=40), st.data())
@settings(max_examples=200)
def test_every_changed_byte_of_a_record_is_found(payload, data):
    """Any single byte that differs fails a check, and both codecs name the same one."""
    record = bytearray(RECORDS["compiled"].encode_record(ENTRY, COMMAND, payload, 3, 9, 1, 2, 3))
    at = data.draw(st.integers(0, len(record) - 1))
    record[at] ^= data.draw(st.integers(1, 255))
    codes = {codec.check(bytes(record)) for codec in RECORDS.values()}
    assert len(codes) == 1
    assert codes != {0}
    assert (codes == {RECORDS["plain"].BAD_HEADER_CRC}) == (at < 64)
    for codec in RECORDS.values():
        with pytest.raises(errors.ProtocolError):
            codec.scan(bytes(record), 9)


@pytest.mark.parametrize("size", [0, 1, 8, 13])
def test_every_cut_of_a_record_is_found(codec, size):
    """A record that ends too early is SHORT, wherever the cut is."""
    record = codec.encode_record(ENTRY, COMMAND, bytes(range(size)), 3, 9)
    for end in range(len(record)):
        assert codec.check(record[:end]) == codec.SHORT
        if end:
            with pytest.raises(errors.ProtocolError):
                codec.scan(record[:end], 9)
            with pytest.raises(errors.ProtocolError):
                codec.offsets(record[:end])


@pytest.mark.parametrize(("at", "value"), [(0, 65), (4, 2), (5, 0), (5, 8), (6, 0), (6, 9), (7, 1), (8, 9), (56, 1)])
def test_a_well_sealed_header_of_bad_shape_is_told_from_damage(codec, at, value):
    """Version, kinds, flags, lengths and reserved bytes are checked even when the checksum holds."""
    record = bytearray(codec.encode_record(ENTRY, COMMAND, b"payload", 3, 9))
    record[at] = value
    record[60:64] = header_crc(record[:60]).to_bytes(4, "little")
    assert codec.check(bytes(record)) == codec.BAD_SHAPE


def test_damage_of_payload_and_padding_leaves_the_identity_known(codec):
    """consensus.md section 3: the header's checksum is its own."""
    for at in (64, 70, 71):
        record = bytearray(codec.encode_record(ENTRY, COMMAND, b"payload", 3, 9))
        record[at] ^= 1
        assert codec.check(record) == codec.BAD_PAYLOAD
        assert codec.check(record, payload=False) == codec.OK
        assert codec.header(record).index == 9


@pytest.mark.parametrize(("kind", "entry"), [(0, 0), (8, 0), (1, 0), (2, 1), (1, 9), (6, 0)])
def test_kinds_that_do_not_go_together_are_never_written(codec, kind, entry):
    """Entries and repairs have an entry kind, other records none."""
    with pytest.raises(ValueError, match="kind"):
        codec.encode_record(kind, entry, b"")


@pytest.mark.parametrize("field", [{"term": 2**64}, {"index": -1}, {"wall_time_ns": 2**63}])
def test_numbers_that_do_not_fit_their_field_are_refused(codec, field):
    """No silent wrap."""
    with pytest.raises(OverflowError):
        codec.encode_record(ENTRY, COMMAND, b"", **field)


def test_sealing_in_place_gives_the_sealed_record(codec):
    """What the leader adds to a record that came unsealed."""
    unsealed = bytearray(RECORDS["plain"].unsealed(ENTRY, COMMAND, b"payload"))
    buffer = bytearray(8) + unsealed
    assert codec.check(buffer, 8, sealed=False) == codec.OK
    assert codec.check(buffer, 8) == codec.BAD_HEADER_CRC
    assert codec.seal(buffer, 8, 3, 9, -1, 2, 4) == len(buffer)
    assert buffer[8:] == codec.encode_record(ENTRY, COMMAND, b"payload", 3, 9, -1, 2, 4)


def test_sealing_outside_of_a_record_is_refused(codec):
    """Nothing is written where no whole record lies."""
    buffer = bytearray(codec.encode_record(ENTRY, COMMAND, b"payload"))
    for offset in (-1, 8, len(buffer)):
        with pytest.raises(errors.ProtocolError):
            codec.seal(buffer, offset, 1, 1)
    with pytest.raises(errors.ProtocolError):
        codec.seal_records(buffer + b"\1", 1, 1)
    with pytest.raises((BufferError, TypeError)):
        codec.seal(bytes(buffer), 0, 1, 1)


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=5), U64)
def test_a_run_is_sealed_with_one_seed_per_entry(payloads, seed):
    """Indexes ascend by one; seeds are mixed per index, alike in both codecs."""
    raw = b"".join(RECORDS["plain"].unsealed(ENTRY, COMMAND, payload) for payload in payloads)
    sealed = {}
    for name, codec in RECORDS.items():
        buffer = bytearray(raw)
        assert codec.seal_records(buffer, 7, 100, 1, 2, seed) == len(payloads)
        sealed[name] = bytes(buffer)
    assert sealed["compiled"] == sealed["plain"]
    codec = RECORDS["compiled"]
    assert codec.scan(sealed["compiled"], 100) == [(7, 100, 99 + len(payloads))]
    for number, offset in enumerate(codec.offsets(sealed["compiled"])):
        assert codec.header(sealed["compiled"], offset).seed == mix_seed((seed + 100 + number) % 2**64)


def test_a_record_that_was_stamped_keeps_its_wall_time_and_seed(codec):
    """It was tried with them; its neighbours get those of the run."""
    record = RECORDS["plain"].unsealed(ENTRY, COMMAND, b"payload")
    stamped = codec.stamp(record, -5, 2**64 - 1)
    assert len(stamped) == len(record) and record != stamped == RECORDS["plain"].stamp(record, -5, 2**64 - 1)
    buffer = bytearray(record + stamped + record)
    codec.seal_records(buffer, 7, 100, 1, 2, 3)
    found = [codec.header(buffer, offset) for offset in codec.offsets(bytes(buffer))]
    assert [one.wall_time_ns for one in found] == [2, -5, 2]
    assert [one.seed for one in found] == [mix_seed(103), 2**64 - 1, mix_seed(105)]
    assert codec.scan(bytes(buffer), 100) == [(7, 100, 102)]


def test_a_scan_gives_stretches_of_equal_term(codec):
    """Closed ranges, ascending, without gaps."""
    data = run_of(codec, [b"a", b"", b"ccccccccc", b"d"], terms=[1, 1, 2, 5])
    assert codec.scan(data, 5) == [(1, 5, 6), (2, 7, 7), (5, 8, 8)]
    assert codec.scan(b"", 5) == []


def test_a_scan_refuses_gaps_older_terms_and_what_is_no_entry(codec):
    """Each with the index that was expected."""
    first = run_of(codec, [b"a"], first=5, terms=[3])
    for second, words in (
        (run_of(codec, [b"a"], first=7, terms=[3]), "index 6"),
        (run_of(codec, [b"a"], first=5, terms=[3]), "index 6"),
        (run_of(codec, [b"a"], first=6, terms=[2]), "older term"),
        (codec.encode_record(5, 0, b"", 3, 6), "no entry"),
    ):
        with pytest.raises(errors.ProtocolError, match=words):
            codec.scan(first + second, 5)
    with pytest.raises(errors.ProtocolError, match="index 4"):
        codec.scan(first, 4)


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=6), st.data())
def test_slices_are_the_bytes_of_their_entries(payloads, data):
    """`[low, high]`, both included; anything not wholly inside is refused."""
    whole = run_of(RECORDS["compiled"], payloads)
    last = 4 + len(payloads)
    low, high = data.draw(st.integers(3, last + 2)), data.draw(st.integers(3, last + 2))
    results = [outcome(codec.slice_records, whole, 5, low, high) for codec in RECORDS.values()]
    assert results[0] == results[1]
    if 5 <= low <= high <= last:
        assert results[0] == ("value", run_of(RECORDS["compiled"], payloads[low - 5 : high - 4], first=low))
    else:
        assert results[0][1] is errors.ProtocolError


def test_offsets_name_the_begin_of_each_record(codec):
    """An array of u32."""
    found = codec.offsets(run_of(codec, [b"a", b"", b"ccccccccc"]))
    assert (found.typecode, list(found)) == ("I", [0, 72, 136])


@given(st.lists(st.integers(0, 8), max_size=6), st.integers(0, 8))
def test_records_of_a_kind_are_found_where_they_begin(kinds, wanted):
    """Their offsets, ascending, in both codecs; other kinds are passed over."""
    encode = RECORDS["compiled"].encode_record
    pieces = [encode(1, kind or 1, bytes(kind), 1, index) for index, kind in enumerate(kinds)]
    starts = [sum(map(len, pieces[:place])) for place in range(len(pieces))]
    expected = [start for start, kind in zip(starts, kinds, strict=True) if (kind or 1) == wanted]
    for codec in RECORDS.values():
        assert codec.find_kind(b"".join(pieces), wanted) == expected


@given(st.binary(max_size=200))
def test_random_bytes_are_never_records(data):
    """Fuzz: every reader ends with a typed error or an empty answer, alike in both codecs."""
    for name in ("offsets", "header", "check"):
        assert len({repr(outcome(getattr(codec, name), data)) for codec in RECORDS.values()}) == 1
    assert len({repr(outcome(codec.find_kind, data, 3)) for codec in RECORDS.values()}) == 1
    verdicts = [outcome(codec.scan, data, 1) for codec in RECORDS.values()]
    assert verdicts[0] == verdicts[1]
    assert verdicts[0] == ("value", []) if not data else verdicts[0][1] is errors.ProtocolError
