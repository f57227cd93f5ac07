/* apply_kept.c: the answers that one session keeps, ascending by sequence.

   Nearly every write is the newest of its session, so the answers are an array that grows at its end and is let go at its
   begin. Invariant: what is pending can be taken back until hq_kept_settle; nothing below `live` is pending. */
#include <stdlib.h>
#include <string.h>

#include "apply.h"

/* Where that sequence stands, or would stand. */
static uint32_t place_of(const hq_session *s, uint64_t sequence) {
    uint32_t low = s->now.live, high = s->end;
    if (low == high || s->kept[high - 1].sequence < sequence)
        return high;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (s->kept[middle].sequence < sequence)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

const hq_kept *hq_kept_find(const hq_session *s, uint64_t sequence) {
    uint32_t at = place_of(s, sequence);
    return at < s->end && s->kept[at].sequence == sequence ? &s->kept[at] : NULL;
}

static int make_room(hq_session *s) {
    if (s->end < s->capacity)
        return 0;
    uint32_t capacity = s->capacity ? s->capacity * 2 : 64;
    hq_kept *grown = realloc(s->kept, capacity * sizeof *grown);
    if (!grown)
        return -1;
    s->kept = grown;
    s->capacity = capacity;
    return 0;
}

/* Takes over kept->answer. 0, or -1 without memory. */
int hq_kept_add(hq_session *s, const hq_kept *kept) {
    if (make_room(s) != 0)
        return -1;
    uint32_t at = place_of(s, kept->sequence);
    memmove(&s->kept[at + 1], &s->kept[at], (s->end - at) * sizeof *kept);
    s->kept[at] = *kept;
    s->end++;
    s->pending_count += kept->pending;
    s->now.bytes += kept->size;
    return 0;
}

/* Nobody asks for answers below `low` any more. */
void hq_kept_pass(hq_session *s, uint64_t low) {
    if (low <= s->now.low)
        return;
    s->now.low = low;
    for (; s->now.live < s->end && s->kept[s->now.live].sequence < low; s->now.live++)
        s->now.bytes -= s->kept[s->now.live].size;
}

void hq_kept_undo(hq_session *s) {
    uint32_t to = s->first;
    if (s->pending_count == 0)
        return;
    for (uint32_t from = s->first; from < s->end; from++)
        if (s->kept[from].pending)
            free(s->kept[from].answer);
        else
            s->kept[to++] = s->kept[from];
    s->end = to;
    s->pending_count = 0;
}

void hq_kept_settle(hq_session *s) {
    for (uint32_t at = s->end; s->pending_count > 0; at--)
        if (s->kept[at - 1].pending) {
            s->kept[at - 1].pending = 0;
            s->pending_count--;
        }
    for (; s->first < s->now.live; s->first++)
        free(s->kept[s->first].answer);
    if (s->first > 64 && s->first > s->end - s->first) {
        memmove(s->kept, s->kept + s->first, (s->end - s->first) * sizeof *s->kept);
        s->end -= s->first;
        s->first = s->now.live = 0;
    }
}

void hq_kept_clear(hq_session *s) {
    for (uint32_t at = s->first; at < s->end; at++)
        free(s->kept[at].answer);
    free(s->kept);
    s->kept = NULL;
    s->first = s->end = s->capacity = s->pending_count = 0;
}
