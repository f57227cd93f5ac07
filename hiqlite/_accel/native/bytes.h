/* Unaligned little-endian integers: what every codec reads and writes with.
 *
 * Knows nothing of formats. The formats are little-endian (docs/formats.md), and so is every machine this
 * is built for; a big-endian build is refused here, once, instead of being wrong everywhere. */
#ifndef HQ_BYTES_H
#define HQ_BYTES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "hiqlite needs a little-endian machine"
#endif

static inline uint16_t hq_get_u16(const uint8_t *p) { uint16_t v; memcpy(&v, p, 2); return v; }
static inline uint32_t hq_get_u32(const uint8_t *p) { uint32_t v; memcpy(&v, p, 4); return v; }
static inline uint64_t hq_get_u64(const uint8_t *p) { uint64_t v; memcpy(&v, p, 8); return v; }
static inline int32_t hq_get_i32(const uint8_t *p) { int32_t v; memcpy(&v, p, 4); return v; }
static inline int64_t hq_get_i64(const uint8_t *p) { int64_t v; memcpy(&v, p, 8); return v; }
static inline double hq_get_f64(const uint8_t *p) { double v; memcpy(&v, p, 8); return v; }

static inline void hq_put_u16(uint8_t *p, uint16_t v) { memcpy(p, &v, 2); }
static inline void hq_put_u32(uint8_t *p, uint32_t v) { memcpy(p, &v, 4); }
static inline void hq_put_u64(uint8_t *p, uint64_t v) { memcpy(p, &v, 8); }
static inline void hq_put_i64(uint8_t *p, int64_t v) { memcpy(p, &v, 8); }
static inline void hq_put_f64(uint8_t *p, double v) { memcpy(p, &v, 8); }

/* A reading position; [p, end) is what may still be read. */
typedef struct hq_cursor {
    const uint8_t *p;
    const uint8_t *end;
} hq_cursor;

static inline size_t hq_left(const hq_cursor *at) { return (size_t)(at->end - at->p); }

/* Well-formed UTF-8 by RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF. NUL is allowed. */
static inline int hq_utf8_valid(const uint8_t *p, size_t size) {
    const uint8_t *end = p + size;
    while (p < end) {
        if (end - p >= 8 && (hq_get_u64(p) & 0x8080808080808080ULL) == 0) {
            p += 8;
            continue;
        }
        uint8_t lead = *p++;
        if (lead < 0x80)
            continue;
        size_t more = lead >= 0xC2 && lead <= 0xDF ? 1 : (lead & 0xF0) == 0xE0 ? 2 : lead >= 0xF0 && lead <= 0xF4 ? 3 : 0;
        if (more == 0 || (size_t)(end - p) < more)
            return 0;
        uint8_t low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;   /* overlong forms begin below */
        uint8_t high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;  /* surrogates, beyond U+10FFFF */
        if (p[0] < low || p[0] > high)
            return 0;
        for (size_t i = 1; i < more; i++)
            if ((p[i] & 0xC0) != 0x80)
                return 0;
        p += more;
    }
    return 1;
}

#endif
