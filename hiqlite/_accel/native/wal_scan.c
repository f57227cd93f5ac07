/* Reading a segment back: which batches are there, and what they hold.
 *
 * A batch counts when its header does: magic, the file's own salt, CRC, an io sequence that fits between the batch
 * before it and the next segment, and the CRC of the header before it. A header that is not there may be the end, or
 * damage: if a later one is valid, the hole between is reported. What to make of damage is the caller's: it needs the
 * highest `synced` of ALL segments, which the scan of one cannot know. Never reads beyond `size`, whatever the bytes. */
#include "wal_log.h"

#include <stdlib.h>
#include <string.h>

static void emit(hq_scan_result *result, hq_event event) {
    if (result->no_memory)
        return;
    if (result->count == result->room) {
        size_t room = result->room == 0 ? 64 : result->room * 2;
        hq_event *events = realloc(result->events, room * sizeof *events);
        if (events == NULL) {
            result->no_memory = 1;
            return;
        }
        result->events = events;
        result->room = room;
    }
    result->events[result->count++] = event;
}

/* Entries of one term that follow each other are one event, up to the size of an index span. */
static void emit_entry(hq_scan_result *result, uint64_t io, uint64_t term, uint64_t index, uint64_t offset) {
    hq_event *top = result->count == 0 ? NULL : &result->events[result->count - 1];
    int apart = result->apart; /* a reader must not have to walk over what is damaged */
    result->apart = 0;
    if (!apart && top != NULL && top->kind == HQ_EVENT_ENTRIES && top->term == term && top->last + 1 == index &&
        offset - top->offset < HQ_SPAN_BYTES) {
        top->last = index;
        top->io = io;
        return;
    }
    emit(result, (hq_event){.kind = HQ_EVENT_ENTRIES, .io = io, .term = term, .first = index, .last = index,
                            .offset = offset});
}

static void emit_membership(hq_scan_result *result, hq_event event, const uint8_t *record) {
    event.kind = HQ_EVENT_MEMBERSHIP;
    if (hq_record_entry_kind(record) == HQ_ENTRY_MEMBERSHIP)
        emit(result, event);
}

static void emit_record(hq_scan_result *result, uint64_t io, const uint8_t *record, uint64_t offset) {
    hq_event event = {.io = io, .term = hq_record_term(record), .first = hq_record_index(record), .offset = offset};
    switch (hq_record_kind_of(record)) {
    case HQ_KIND_ENTRY:
        emit_entry(result, io, event.term, event.first, offset);
        emit_membership(result, event, record);
        return;
    case HQ_KIND_HARD_STATE:
        if (hq_record_payload_length(record) == 8)
            event.last = hq_get_u64(hq_record_payload(record));
        event.kind = HQ_EVENT_HARD_STATE;
        break;
    case HQ_KIND_TRUNCATE:
        event.kind = HQ_EVENT_TRUNCATE;
        break;
    case HQ_KIND_PURGE_MARK:
        event.last = hq_record_payload_length(record) == 8 && hq_get_u64(hq_record_payload(record)) == 1;
        event.kind = HQ_EVENT_PURGE;
        break;
    case HQ_KIND_REPAIR:
        event.kind = HQ_EVENT_REPAIR;
        emit(result, event);
        emit_membership(result, event, record);
        return;
    case HQ_KIND_SEGMENT_END:
        event.kind = HQ_EVENT_END;
        result->ended = 1;
        break;
    default: /* a synced mark: its header already said it */
        return;
    }
    emit(result, event);
}

/* What a damaged record leaves known. 1: the walk may go on behind it. */
static int emit_damaged(hq_scan_result *result, uint64_t io, const uint8_t *record, uint64_t offset,
                        enum hq_record_code code) {
    hq_event event = {.kind = HQ_EVENT_UNKNOWN, .io = io, .offset = offset};
    result->apart = 1;
    if (code != HQ_RECORD_BAD_PAYLOAD) {
        emit(result, event);
        return 0;
    }
    if (hq_record_kind_of(record) == HQ_KIND_HARD_STATE)
        return 1; /* the metadata holds it as well */
    if (hq_record_kind_of(record) == HQ_KIND_REPAIR)
        return 1; /* the entry stays what it was without it: unreadable where it stands first */
    if (hq_record_kind_of(record) == HQ_KIND_ENTRY) {
        event.kind = HQ_EVENT_FAULTY;
        event.term = hq_record_term(record);
        event.first = event.last = hq_record_index(record);
    }
    emit(result, event);
    return 1;
}

/* Walks the records of the batch at `batch`. `whole`: its CRC held. 0 when a whole batch holds something impossible. */
static int walk_records(const uint8_t *bytes, uint64_t batch, int whole, hq_scan_result *result) {
    const uint8_t *header = bytes + batch;
    uint64_t io = hq_get_u64(header + 16), at = batch + HQ_BATCH_HEADER, end = at + hq_get_u32(header + 4);
    uint32_t count = 0;
    for (; at < end; count++) {
        const uint8_t *record = bytes + at;
        enum hq_record_code code = hq_record_check(record, end - at, whole ? HQ_CHECK_SEALED : HQ_CHECK_ALL);
        if (code == HQ_RECORD_OK)
            emit_record(result, io, record, at);
        else if (whole)
            return 0;
        else if (!emit_damaged(result, io, record, at, code))
            return 1;
        at += hq_record_length(record);
    }
    if (count == hq_get_u32(header + 36))
        return 1;
    if (!whole)
        emit(result, (hq_event){.kind = HQ_EVENT_UNKNOWN, .io = io, .offset = end});
    return !whole;
}

/* Whether the records are those that the header speaks of; all of them lie in the file. */
static int records_hold(const uint8_t *header) {
    return hq_crc32c(0, header + HQ_BATCH_HEADER, hq_get_u32(header + 4)) == hq_get_u32(header + 40);
}

/* The records of a batch whose header is valid and whose bytes are all there. */
static void scan_records(const uint8_t *bytes, uint64_t batch, hq_scan_result *result) {
    const uint8_t *header = bytes + batch;
    uint64_t io = hq_get_u64(header + 16), last_io = result->last_io;
    size_t count = result->count;
    hq_event top = count > 0 ? result->events[count - 1] : (hq_event){0};
    if (records_hold(header)) {
        if (walk_records(bytes, batch, 1, result))
            return;
        result->count = count; /* nothing of it counts: told again below, as a damaged one */
        result->ended = 0;
        if (count > 0)
            result->events[count - 1] = top;
    } else if (io == last_io) {
        result->apart = 1; /* a mark or a segment's end: nothing was promised about it */
        return;
    }
    emit(result, (hq_event){.kind = HQ_EVENT_BAD_BATCH, .io = io, .first = last_io, .last = result->last_crc,
                            .offset = batch});
    walk_records(bytes, batch, 0, result);
}

typedef struct expected {
    uint64_t salt, last_io, io_limit;
} expected;

static int header_valid(const uint8_t *header, uint64_t left, const expected *wanted) {
    if (hq_get_u32(header) != HQ_BATCH_MAGIC || hq_get_u64(header + 8) != wanted->salt)
        return 0;
    if (hq_crc32c(0, header, 44) != hq_get_u32(header + 44))
        return 0;
    uint32_t size = hq_get_u32(header + 4);
    uint64_t io = hq_get_u64(header + 16);
    if (size < HQ_RECORD_HEADER || size % HQ_RECORD_ALIGN != 0 || size > left - HQ_BATCH_HEADER)
        return 0;
    return io >= wanted->last_io && io < wanted->io_limit && hq_get_u64(header + 24) <= io;
}

/* The next valid header at or behind `from`; 0: none. */
static uint64_t find_header(const uint8_t *bytes, uint64_t size, uint64_t from, const expected *wanted) {
    for (uint64_t at = from; at + HQ_BATCH_HEADER <= size; at += HQ_RECORD_ALIGN)
        if (hq_get_u32(bytes + at) == HQ_BATCH_MAGIC && header_valid(bytes + at, size - at, wanted))
            return at;
    return 0;
}

/* A batch with the io sequence of `synced` may be a mark behind it, which no sync waited for. */
static uint64_t unproven_from(const uint8_t *bytes, const hq_scan_result *result) {
    uint64_t at = HQ_SEGMENT_HEADER;
    while (at + HQ_BATCH_HEADER <= result->end && hq_crc32c(0, bytes + at, 44) == hq_get_u32(bytes + at + 44) &&
           hq_get_u64(bytes + at + 16) < result->synced)
        at += HQ_BATCH_HEADER + hq_get_u32(bytes + at + 4);
    return at < result->end ? at : result->end;
}

/* Batches carry io sequences in [first_io, io_limit); a mark before the first batch carries first_io - 1. */
void hq_wal_scan(const uint8_t *bytes, uint64_t size, uint64_t salt, uint64_t first_io, uint64_t io_limit,
                 hq_scan_result *result) {
    expected wanted = {.salt = salt, .last_io = first_io - 1, .io_limit = io_limit};
    uint64_t at = HQ_SEGMENT_HEADER;
    int chained = 1;
    memset(result, 0, sizeof *result);
    result->last_io = first_io - 1;
    result->end = at;
    while (!result->ended && at + HQ_BATCH_HEADER <= size) {
        const uint8_t *header = bytes + at;
        if (!header_valid(header, size - at, &wanted) || (chained && hq_get_u32(header + 32) != result->last_crc)) {
            /* One that is valid itself and follows another header than the one that stands before it counts as a later
             * one: it may be that before it that is wrong, a sector that holds what another place held. */
            uint64_t found = find_header(bytes, size, at, &wanted);
            if (found == 0)
                break;
            emit(result, (hq_event){.kind = HQ_EVENT_GAP, .io = hq_get_u64(bytes + found + 16),
                                    .first = result->last_io, .last = result->last_crc, .offset = at});
            at = found;
            chained = 0;
            continue;
        }
        if (!chained) { /* nor is the size of such a one believed where another header stands in the midst of it */
            uint64_t end = at + HQ_BATCH_HEADER + hq_get_u32(header + 4);
            uint64_t inside = records_hold(header) ? 0 : find_header(bytes, size, at + HQ_RECORD_ALIGN, &wanted);
            if (inside != 0 && inside < end) {
                at = inside;
                continue;
            }
        }
        if (hq_get_u64(header + 24) > result->synced)
            result->synced = hq_get_u64(header + 24);
        scan_records(bytes, at, result);
        result->last_crc = hq_get_u32(header + 44);
        result->last_io = wanted.last_io = hq_get_u64(header + 16);
        chained = 1;
        at += HQ_BATCH_HEADER + hq_get_u32(header + 4);
        result->end = at;
    }
    result->unproven = unproven_from(bytes, result);
}
