/* SipHash-2-4 with a 128-bit tag (Aumasson, Bernstein: "SipHash: a fast short-input PRF", and their 128-bit variant). */
#ifndef HQ_SIPHASH_H
#define HQ_SIPHASH_H
#include <stdint.h>
#include <string.h>

#define HQ_ROTL(x, b) (((x) << (b)) | ((x) >> (64 - (b))))

static inline void hq_sip_round(uint64_t v[4]) {
  v[0] += v[1]; v[1] = HQ_ROTL(v[1], 13); v[1] ^= v[0]; v[0] = HQ_ROTL(v[0], 32);
  v[2] += v[3]; v[3] = HQ_ROTL(v[3], 16); v[3] ^= v[2];
  v[0] += v[3]; v[3] = HQ_ROTL(v[3], 21); v[3] ^= v[0];
  v[2] += v[1]; v[1] = HQ_ROTL(v[1], 17); v[1] ^= v[2]; v[2] = HQ_ROTL(v[2], 32);
}

static inline uint64_t hq_sip_word(const uint8_t *p) {
  uint64_t word = 0;
  for (int i = 7; i >= 0; i--) word = word << 8 | p[i];
  return word;
}

/* Tag of `size` bytes under a 16-byte key. */
static inline void hq_siphash128(const uint8_t *key, const uint8_t *data, size_t size, uint8_t tag[16]) {
  uint64_t k0 = hq_sip_word(key), k1 = hq_sip_word(key + 8);
  uint64_t v[4] = {0x736f6d6570736575ULL ^ k0, 0x646f72616e646f6dULL ^ k1 ^ 0xee, 0x6c7967656e657261ULL ^ k0,
                   0x7465646279746573ULL ^ k1};
  const uint8_t *end = data + (size & ~(size_t)7);
  uint64_t last = (uint64_t)size << 56;
  for (; data != end; data += 8) {
    uint64_t m = hq_sip_word(data);
    v[3] ^= m; hq_sip_round(v); hq_sip_round(v); v[0] ^= m;
  }
  for (size_t i = 0; i < (size & 7); i++) last |= (uint64_t)data[i] << (8 * i);
  v[3] ^= last; hq_sip_round(v); hq_sip_round(v); v[0] ^= last;
  v[2] ^= 0xee;
  for (int i = 0; i < 4; i++) hq_sip_round(v);
  uint64_t first = v[0] ^ v[1] ^ v[2] ^ v[3];
  v[1] ^= 0xdd;
  for (int i = 0; i < 4; i++) hq_sip_round(v);
  uint64_t second = v[0] ^ v[1] ^ v[2] ^ v[3];
  for (int i = 0; i < 8; i++) { tag[i] = (uint8_t)(first >> (8 * i)); tag[8 + i] = (uint8_t)(second >> (8 * i)); }
}

/* Equal tags, in time that does not tell where they differ. */
static inline int hq_tag_equal(const uint8_t *a, const uint8_t *b) {
  uint8_t difference = 0;
  for (int i = 0; i < 16; i++) difference |= a[i] ^ b[i];
  return difference == 0;
}
#endif
