/* The record of docs/formats.md section 2: its offsets, its check, its seal.
 *
 * Must not know what a payload means. Invariant: nothing here reads or writes beyond the bytes it was given,
 * whatever they hold, and a record that passes hq_record_check with both checks equals the one that was sealed.
 *
 * offset 0 u32 length (header + payload + padding) | 4 u8 version | 5 u8 kind | 6 u8 entry kind | 7 u8 flags
 *        8 u32 payload length | 12 u32 payload CRC | 16 u64 term | 24 u64 index | 32 i64 group time, ns
 *        40 i64 wall time, ns | 48 u64 seed | 56 u32 reserved | 60 u32 CRC of [0, 60) */
#ifndef HQ_RECORD_H
#define HQ_RECORD_H

#include "bytes.h"
#include "crc32c.h"

enum {
    HQ_RECORD_HEADER = 64,
    HQ_RECORD_VERSION = 1,
    HQ_RECORD_ALIGN = 8,
    HQ_AT_LENGTH = 0,
    HQ_AT_VERSION = 4,
    HQ_AT_KIND = 5,
    HQ_AT_ENTRY_KIND = 6,
    HQ_AT_FLAGS = 7,
    HQ_AT_PAYLOAD_LENGTH = 8,
    HQ_AT_PAYLOAD_CRC = 12,
    HQ_AT_TERM = 16,
    HQ_AT_INDEX = 24,
    HQ_AT_GROUP_NS = 32,
    HQ_AT_WALL_NS = 40,
    HQ_AT_SEED = 48,
    HQ_AT_RESERVED = 56,
    HQ_AT_HEADER_CRC = 60,
};

#define HQ_PAYLOAD_MAX 0xFFFFFFB0u /* header + payload + padding must fit u32 */

enum hq_record_kind {
    HQ_KIND_ENTRY = 1,
    HQ_KIND_HARD_STATE = 2,
    HQ_KIND_TRUNCATE = 3,
    HQ_KIND_PURGE_MARK = 4,
    HQ_KIND_SYNCED = 5,
    HQ_KIND_REPAIR = 6,
    HQ_KIND_SEGMENT_END = 7,
    HQ_KIND_LAST = HQ_KIND_SEGMENT_END,
};

enum hq_entry_kind {
    HQ_ENTRY_NONE = 0,
    HQ_ENTRY_COMMAND = 1,
    HQ_ENTRY_SESSION = 2,
    HQ_ENTRY_MEMBERSHIP = 3,
    HQ_ENTRY_MIRROR = 4,
    HQ_ENTRY_MIGRATION = 5,
    HQ_ENTRY_BACKUP_MARK = 6,
    HQ_ENTRY_SCRUB_MARK = 7,
    HQ_ENTRY_NOOP = 8,
    HQ_ENTRY_LAST = HQ_ENTRY_NOOP,
};

/* What hq_record_check found. The order is the order of the checks: BAD_PAYLOAD means that the header held, so
 * (term, index) are known; SHORT with an intact header likewise, when at least HQ_RECORD_HEADER bytes were there. */
enum hq_record_code {
    HQ_RECORD_OK = 0,
    HQ_RECORD_SHORT = 1,          /* fewer bytes than a header, or than the header's length says */
    HQ_RECORD_BAD_HEADER_CRC = 2, /* bytes [0, 60) are not what was sealed */
    HQ_RECORD_BAD_SHAPE = 3,      /* version, kind, flags, reserved or lengths contradict the format */
    HQ_RECORD_BAD_PAYLOAD = 4,    /* payload CRC differs, or padding is not zero */
    HQ_RECORD_BAD_ORDER = 5,      /* runs only: index not the next one, term below the one before, or no entry */
};

enum { HQ_CHECK_SEALED = 1, HQ_CHECK_PAYLOAD = 2, HQ_CHECK_ALL = 3 };

static inline uint32_t hq_record_length(const uint8_t *p) { return hq_get_u32(p + HQ_AT_LENGTH); }
static inline uint8_t hq_record_kind_of(const uint8_t *p) { return p[HQ_AT_KIND]; }
static inline uint8_t hq_record_entry_kind(const uint8_t *p) { return p[HQ_AT_ENTRY_KIND]; }
static inline uint32_t hq_record_payload_length(const uint8_t *p) { return hq_get_u32(p + HQ_AT_PAYLOAD_LENGTH); }
static inline const uint8_t *hq_record_payload(const uint8_t *p) { return p + HQ_RECORD_HEADER; }
static inline uint64_t hq_record_term(const uint8_t *p) { return hq_get_u64(p + HQ_AT_TERM); }
static inline uint64_t hq_record_index(const uint8_t *p) { return hq_get_u64(p + HQ_AT_INDEX); }
static inline int64_t hq_record_group_ns(const uint8_t *p) { return hq_get_i64(p + HQ_AT_GROUP_NS); }
static inline int64_t hq_record_wall_ns(const uint8_t *p) { return hq_get_i64(p + HQ_AT_WALL_NS); }
static inline uint64_t hq_record_seed(const uint8_t *p) { return hq_get_u64(p + HQ_AT_SEED); }

static inline uint64_t hq_record_padded(uint64_t payload_length) {
    return HQ_RECORD_HEADER + ((payload_length + 7) & ~(uint64_t)7);
}

/* The CRC of the header as it is stored: turned and shifted, since a CRC over bytes that end in their own CRC is the same
 * whatever the bytes are, and the batch's CRC goes over records. Without it a batch would not know its records apart. */
static inline uint32_t hq_record_header_crc(const uint8_t *p) {
    uint32_t crc = hq_crc32c(0, p, HQ_AT_HEADER_CRC);
    return (crc >> 15 | crc << 17) + 0xA282EAD8u;
}

static inline int hq_record_shape_ok(const uint8_t *p) {
    uint32_t length = hq_record_length(p), payload = hq_record_payload_length(p);
    uint8_t kind = p[HQ_AT_KIND], entry = p[HQ_AT_ENTRY_KIND];
    if (p[HQ_AT_VERSION] != HQ_RECORD_VERSION || p[HQ_AT_FLAGS] != 0 || hq_get_u32(p + HQ_AT_RESERVED) != 0)
        return 0;
    if (payload > HQ_PAYLOAD_MAX || length != hq_record_padded(payload))
        return 0;
    if (kind == HQ_KIND_ENTRY || kind == HQ_KIND_REPAIR)
        return entry >= HQ_ENTRY_COMMAND && entry <= HQ_ENTRY_LAST;
    return kind >= HQ_KIND_ENTRY && kind <= HQ_KIND_LAST && entry == HQ_ENTRY_NONE;
}

static inline int hq_record_payload_ok(const uint8_t *p) {
    uint32_t payload = hq_record_payload_length(p);
    const uint8_t *end = p + hq_record_length(p);
    for (const uint8_t *pad = p + HQ_RECORD_HEADER + payload; pad < end; pad++)
        if (*pad != 0)
            return 0;
    return hq_crc32c(0, p + HQ_RECORD_HEADER, payload) == hq_get_u32(p + HQ_AT_PAYLOAD_CRC);
}

/* Checks the one record at p, of which `left` bytes may be read. `what`: HQ_CHECK_SEALED verifies the header CRC
 * (left out for records a leader has not sealed yet), HQ_CHECK_PAYLOAD the payload's. Shape is always checked. */
static inline enum hq_record_code hq_record_check(const uint8_t *p, size_t left, int what) {
    if (left < HQ_RECORD_HEADER)
        return HQ_RECORD_SHORT;
    if ((what & HQ_CHECK_SEALED) && hq_record_header_crc(p) != hq_get_u32(p + HQ_AT_HEADER_CRC))
        return HQ_RECORD_BAD_HEADER_CRC;
    if (!hq_record_shape_ok(p))
        return HQ_RECORD_BAD_SHAPE;
    if (hq_record_length(p) > left)
        return HQ_RECORD_SHORT;
    if ((what & HQ_CHECK_PAYLOAD) && !hq_record_payload_ok(p))
        return HQ_RECORD_BAD_PAYLOAD;
    return HQ_RECORD_OK;
}

/* Writes the client's part of the header before a payload that already stands at p + 64, zeroes the padding and the
 * leader's fields. p has room for hq_record_padded(payload_length) bytes; payload_length <= HQ_PAYLOAD_MAX. */
static inline void hq_record_open(uint8_t *p, uint8_t kind, uint8_t entry_kind, uint32_t payload_length) {
    uint32_t length = (uint32_t)hq_record_padded(payload_length);
    memset(p, 0, HQ_RECORD_HEADER);
    memset(p + HQ_RECORD_HEADER + payload_length, 0, length - HQ_RECORD_HEADER - payload_length);
    hq_put_u32(p + HQ_AT_LENGTH, length);
    p[HQ_AT_VERSION] = HQ_RECORD_VERSION;
    p[HQ_AT_KIND] = kind;
    p[HQ_AT_ENTRY_KIND] = entry_kind;
    hq_put_u32(p + HQ_AT_PAYLOAD_LENGTH, payload_length);
    hq_put_u32(p + HQ_AT_PAYLOAD_CRC, hq_crc32c(0, p + HQ_RECORD_HEADER, payload_length));
}

/* The leader's part: identity, times, chance, header CRC. The header's 64 bytes must be there. */
static inline void hq_record_seal(uint8_t *p, uint64_t term, uint64_t index, int64_t group_ns, int64_t wall_ns,
                                  uint64_t seed) {
    hq_put_u64(p + HQ_AT_TERM, term);
    hq_put_u64(p + HQ_AT_INDEX, index);
    hq_put_i64(p + HQ_AT_GROUP_NS, group_ns);
    hq_put_i64(p + HQ_AT_WALL_NS, wall_ns);
    hq_put_u64(p + HQ_AT_SEED, seed);
    hq_put_u32(p + HQ_AT_HEADER_CRC, hq_record_header_crc(p));
}

/* The same record under another kind; sealed again. */
static inline void hq_record_retype(uint8_t *p, uint8_t kind) {
    p[HQ_AT_KIND] = kind;
    hq_put_u32(p + HQ_AT_HEADER_CRC, hq_record_header_crc(p));
}

/* splitmix64: neighbouring entries of a run get unrelated seeds from the run's one. */
static inline uint64_t hq_mix_seed(uint64_t x) {
    x += 0x9E3779B97F4A7C15ULL;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL;
    return x ^ (x >> 31);
}

/* Seals the records that fill [p, p + size) as indexes first, first + 1, ... Seed of each: hq_mix_seed(seed + index), but
 * one that has a seed already was tried with it and with its wall time, and keeps both.
 * Gives their number, or -1 (some may be sealed by then) when the bytes are not a run of whole records. */
static inline int64_t hq_record_seal_run(uint8_t *p, size_t size, uint64_t term, uint64_t first, int64_t group_ns,
                                         int64_t wall_ns, uint64_t seed) {
    uint64_t index = first;
    while (size > 0) {
        if (hq_record_check(p, size, 0) != HQ_RECORD_OK)
            return -1;
        uint32_t length = hq_record_length(p);
        uint64_t kept = hq_record_seed(p);
        hq_record_seal(p, term, index, group_ns, kept ? hq_record_wall_ns(p) : wall_ns,
                       kept ? kept : hq_mix_seed(seed + index));
        index++;
        p += length;
        size -= length;
    }
    return (int64_t)(index - first);
}

/* A pass over a run of entries: hq_scan_next gives one stretch of equal term after the other. */
typedef struct hq_scan {
    hq_cursor at;
    uint64_t next_index; /* the index that the record at `at` must carry */
    uint64_t last_term;
    uint64_t term, first, last; /* the stretch last found, both ends included */
} hq_scan;

static inline void hq_scan_open(hq_scan *scan, const uint8_t *p, size_t size, uint64_t expect_first) {
    memset(scan, 0, sizeof *scan);
    scan->at.p = p;
    scan->at.end = p + size;
    scan->next_index = expect_first;
}

/* 1: a stretch stands in term, first, last. 0: the end. Below 0: minus the code; `at` stands at the bad record. */
static inline int hq_scan_next(hq_scan *scan) {
    uint64_t count = 0;
    scan->first = scan->next_index;
    while (scan->at.p < scan->at.end) {
        const uint8_t *p = scan->at.p;
        enum hq_record_code code = hq_record_check(p, hq_left(&scan->at), HQ_CHECK_ALL);
        if (code != HQ_RECORD_OK)
            return -(int)code;
        uint64_t term = hq_record_term(p);
        if (p[HQ_AT_KIND] != HQ_KIND_ENTRY || hq_record_index(p) != scan->next_index || term < scan->last_term)
            return -(int)HQ_RECORD_BAD_ORDER;
        if (count > 0 && term != scan->term)
            break;
        scan->term = scan->last_term = term;
        scan->last = scan->next_index++;
        scan->at.p += hq_record_length(p);
        count++;
    }
    return count > 0;
}

#endif
