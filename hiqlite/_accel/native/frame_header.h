/* The 96 bytes before each frame between nodes (docs/formats.md, section 5), as a C struct and back.
 *
 * Knows bytes only: no sockets, no Python, no meaning of any field. Invariant: a header that hq_frame_get accepts was
 * written by hq_frame_put with the same fields; every other 96 bytes give a code that says what is wrong.
 *
 *   0 u32 length (header included)   4 u8 type   5 u8 version   6 u8 group   7 u8 flags
 *   8 u64 cluster   16 u64 term   24 u64 sender   32 u64 incarnation   40 u64 epoch   48 u64 sequence
 *  56 u64 previous index   64 u64 previous term   72 u64 commit index
 *  80 u32 count   84 u32 zero   88 u32 CRC of the body   92 u32 CRC of [0, 92)
 */
#ifndef HQ_FRAME_HEADER_H
#define HQ_FRAME_HEADER_H

#include "bytes.h"
#include "crc32c.h"

#define HQ_FRAME_HEADER_BYTES 96
#define HQ_FRAME_VERSION 1
#define HQ_FRAME_GROUPS 2
#define HQ_FRAME_APPEND 1

enum hq_frame_fault {
    HQ_FRAME_OK = 0,
    HQ_FRAME_BAD_CRC = 1,
    HQ_FRAME_BAD_VERSION = 2,
    HQ_FRAME_BAD_LENGTH = 3,
    HQ_FRAME_BAD_GROUP = 4,
    HQ_FRAME_BAD_RESERVED = 5,
    HQ_FRAME_BAD_TYPE = 6,
};

struct hq_frame {
    uint32_t length;
    uint8_t type, version, group, flags;
    uint64_t cluster, term, sender, incarnation, epoch, sequence, previous_index, previous_term, commit_index;
    uint32_t count, body_crc;
};

static inline void hq_frame_put(uint8_t *p, const struct hq_frame *f)
{
    hq_put_u32(p, f->length);
    p[4] = f->type; p[5] = HQ_FRAME_VERSION; p[6] = f->group; p[7] = f->flags;
    hq_put_u64(p + 8, f->cluster);
    hq_put_u64(p + 16, f->term);
    hq_put_u64(p + 24, f->sender);
    hq_put_u64(p + 32, f->incarnation);
    hq_put_u64(p + 40, f->epoch);
    hq_put_u64(p + 48, f->sequence);
    hq_put_u64(p + 56, f->previous_index);
    hq_put_u64(p + 64, f->previous_term);
    hq_put_u64(p + 72, f->commit_index);
    hq_put_u32(p + 80, f->count);
    hq_put_u32(p + 84, 0);
    hq_put_u32(p + 88, f->body_crc);
    hq_put_u32(p + 92, hq_crc32c(0, p, 92));
}

/* `p` holds HQ_FRAME_HEADER_BYTES readable bytes. The length is judged after the CRC, so that noise is called noise. */
static inline int hq_frame_get(const uint8_t *p, struct hq_frame *f)
{
    if (hq_get_u32(p + 92) != hq_crc32c(0, p, 92)) return HQ_FRAME_BAD_CRC;
    f->length = hq_get_u32(p);
    f->type = p[4]; f->version = p[5]; f->group = p[6]; f->flags = p[7];
    f->cluster = hq_get_u64(p + 8);
    f->term = hq_get_u64(p + 16);
    f->sender = hq_get_u64(p + 24);
    f->incarnation = hq_get_u64(p + 32);
    f->epoch = hq_get_u64(p + 40);
    f->sequence = hq_get_u64(p + 48);
    f->previous_index = hq_get_u64(p + 56);
    f->previous_term = hq_get_u64(p + 64);
    f->commit_index = hq_get_u64(p + 72);
    f->count = hq_get_u32(p + 80);
    f->body_crc = hq_get_u32(p + 88);
    if (f->version != HQ_FRAME_VERSION) return HQ_FRAME_BAD_VERSION;
    if (f->length < HQ_FRAME_HEADER_BYTES) return HQ_FRAME_BAD_LENGTH;
    if (f->group >= HQ_FRAME_GROUPS) return HQ_FRAME_BAD_GROUP;
    if (hq_get_u32(p + 84) != 0) return HQ_FRAME_BAD_RESERVED;
    if (f->type == 0) return HQ_FRAME_BAD_TYPE;
    return HQ_FRAME_OK;
}

#endif
