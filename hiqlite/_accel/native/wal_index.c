/* Where entries stand on disk: a sparse index in memory, and reading through it.
 *
 * A span names one record; the records behind it follow in order, across batch headers, until the next span's first
 * index. A truncation drops the spans behind it and the next append begins a new one, so inside the reach of a span no
 * record was ever cut. Readers take a copy of a span and check every byte they hand out against the record's own CRCs.
 * Must not know who asks. */
#include "wal_log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int hq_wal_index_add(hq_wal *log, uint64_t first, uint64_t last, uint64_t segment, uint64_t offset) {
    int error = 0;
    pthread_mutex_lock(&log->index_mutex);
    const hq_span *top = log->span_count == 0 ? NULL : &log->spans[log->span_count - 1];
    int near = top != NULL && !log->span_break && top->segment == segment && first == log->last_index + 1 &&
               offset - top->offset < HQ_SPAN_BYTES;
    if (!near && log->span_count == log->span_room) {
        size_t room = log->span_room == 0 ? 256 : log->span_room * 2;
        hq_span *spans = realloc(log->spans, room * sizeof *spans);
        if (spans == NULL) {
            error = ENOMEM;
        } else {
            log->spans = spans;
            log->span_room = room;
        }
    }
    if (error == 0) {
        if (!near)
            log->spans[log->span_count++] = (hq_span){.first = first, .segment = segment, .offset = offset};
        log->span_break = 0;
        log->last_index = last;
        hq_extent *newest = log->extent_count == 0 ? NULL : &log->extents[log->extent_count - 1];
        if (newest != NULL && newest->segment == segment && newest->top < last)
            newest->top = last;
    }
    pthread_mutex_unlock(&log->index_mutex);
    return error;
}

/* For who does not hold the index mutex. */
uint64_t hq_wal_last_index(hq_wal *log) {
    pthread_mutex_lock(&log->index_mutex);
    uint64_t last = log->last_index;
    pthread_mutex_unlock(&log->index_mutex);
    return last;
}

void hq_wal_index_truncate(hq_wal *log, uint64_t last_kept) {
    pthread_mutex_lock(&log->index_mutex);
    while (log->span_count > 0 && log->spans[log->span_count - 1].first > last_kept)
        log->span_count--;
    if (log->last_index > last_kept)
        log->last_index = last_kept;
    hq_wal_repair_forget(log, last_kept + 1, UINT64_MAX);
    log->span_break = 1;
    pthread_mutex_unlock(&log->index_mutex);
}

/* Nothing at or below `base_index` is readable any more; beyond the end: the log is empty behind it. The segment that holds
 * the mark which says so, and term and vote before it, is needed until a newer mark stands. */
void hq_wal_index_base(hq_wal *log, uint64_t base_index) {
    pthread_mutex_lock(&log->index_mutex);
    size_t gone = 0;
    while (gone + 1 < log->span_count && log->spans[gone + 1].first <= base_index + 1)
        gone++;
    if (base_index >= log->last_index) {
        gone = log->span_count;
        log->last_index = base_index;
        log->span_break = 1;
    }
    if (gone > 0) {
        log->span_count -= gone;
        memmove(log->spans, log->spans + gone, log->span_count * sizeof *log->spans);
    }
    if (log->extent_count > 0 && log->extents[log->extent_count - 1].top <= base_index)
        log->extents[log->extent_count - 1].top = base_index + 1;
    log->base_index = base_index;
    hq_wal_repair_forget(log, 0, base_index);
    pthread_mutex_unlock(&log->index_mutex);
}

/* The last span that begins at or before `index`, and the last index that lies in its reach: a repaired entry has a
 * place of its own. 0: not in the log. */
static int find(hq_wal *log, uint64_t index, hq_span *span, uint64_t *reach) {
    int found = 0;
    pthread_mutex_lock(&log->index_mutex);
    if (index > log->base_index && index <= log->last_index && log->span_count > 0 && log->spans[0].first <= index) {
        size_t low = 0, high = log->span_count;
        while (high - low > 1) {
            size_t middle = low + (high - low) / 2;
            if (log->spans[middle].first <= index)
                low = middle;
            else
                high = middle;
        }
        *span = log->spans[low];
        *reach = low + 1 < log->span_count ? log->spans[low + 1].first - 1 : log->last_index;
        const hq_repair *repair = hq_wal_repair_from(log, index);
        if (repair != NULL && repair->index == index) {
            *span = (hq_span){.first = index, .segment = repair->segment, .offset = repair->offset};
            *reach = index;
        } else if (repair != NULL && repair->index <= *reach) {
            *reach = repair->index - 1;
        }
        found = 1;
    }
    pthread_mutex_unlock(&log->index_mutex);
    return found;
}

typedef struct reader {
    int fd, error; /* error: errno, or -1 for a file that ends too early */
    uint8_t *window;
    size_t room, held;
    uint64_t offset; /* of window[0] in the file */
    uint8_t *out;
    size_t out_size, out_room;
} reader;

/* `size` bytes at `offset` of the file, or NULL with `error` set. */
static const uint8_t *need(reader *in, uint64_t offset, size_t size) {
    if (offset >= in->offset && offset + size <= in->offset + in->held)
        return in->window + (offset - in->offset);
    size_t want = size > 4 * HQ_SPAN_BYTES ? size : 4 * HQ_SPAN_BYTES;
    if (want > in->room) {
        uint8_t *window = realloc(in->window, want);
        if (window == NULL) {
            in->error = ENOMEM;
            return NULL;
        }
        in->window = window;
        in->room = want;
    }
    in->offset = offset;
    in->held = 0;
    while (in->held < size) {
        ssize_t done = pread(in->fd, in->window + in->held, want - in->held, (off_t)(offset + in->held));
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0) {
            in->error = done == 0 ? -1 : errno;
            return NULL;
        }
        in->held += (size_t)done;
    }
    return in->window;
}

static int keep(reader *in, const uint8_t *record, size_t size) {
    if (in->out_size + size > in->out_room) {
        size_t room = (in->out_size + size) * 2;
        uint8_t *out = realloc(in->out, room);
        if (out == NULL)
            return ENOMEM;
        in->out = out;
        in->out_room = room;
    }
    memcpy(in->out + in->out_size, record, size);
    in->out_size += size;
    return 0;
}

/* Copies entries from `*next` on while they fit. Gives enum hq_read_code; *next is the first index not copied. */
static int copy_span(reader *in, const hq_span *span, uint64_t *next, uint64_t reach, uint64_t size_max) {
    uint64_t offset = span->offset;
    const uint8_t *place = need(in, offset, HQ_RECORD_HEADER); /* what it begins with says what is looked for */
    uint8_t kind = place != NULL && place[HQ_AT_KIND] == HQ_KIND_REPAIR ? HQ_KIND_REPAIR : HQ_KIND_ENTRY;
    while (*next <= reach) {
        const uint8_t *at = need(in, offset, HQ_BATCH_HEADER);
        if (at == NULL)
            break;
        if (hq_get_u32(at) == HQ_BATCH_MAGIC) {
            offset += HQ_BATCH_HEADER;
            continue;
        }
        at = need(in, offset, HQ_RECORD_HEADER);
        if (at == NULL)
            break;
        enum hq_record_code code = hq_record_check(at, SIZE_MAX, HQ_CHECK_SEALED);
        if (code != HQ_RECORD_OK)
            return HQ_READ_DAMAGED;
        uint32_t length = hq_record_length(at);
        if (at[HQ_AT_KIND] == kind && hq_record_index(at) > *next)
            return HQ_READ_DAMAGED;
        if (at[HQ_AT_KIND] == kind && hq_record_index(at) == *next) {
            if (in->out_size > 0 && in->out_size + length > size_max)
                return HQ_READ_OK;
            at = need(in, offset, length);
            if (at == NULL)
                break;
            if (!hq_record_payload_ok(at))
                return HQ_READ_DAMAGED;
            if (keep(in, at, length) != 0)
                return HQ_READ_MEMORY;
            if (kind == HQ_KIND_REPAIR)
                hq_record_retype(in->out + in->out_size - length, HQ_KIND_ENTRY);
            (*next)++;
        }
        offset += length;
    }
    if (in->error == 0)
        return HQ_READ_OK;
    return in->error == -1 ? HQ_READ_DAMAGED : in->error == ENOMEM ? HQ_READ_MEMORY : HQ_READ_SYSTEM;
}

/* A purge may have taken the file away, or given it to another segment, under a reader. */
static int purged(hq_wal *log, uint64_t index) {
    pthread_mutex_lock(&log->index_mutex);
    int gone = index <= log->base_index;
    pthread_mutex_unlock(&log->index_mutex);
    return gone;
}

/* Entries from `first` on, up to size_max bytes, at least one. The caller frees *bytes. Damage behind the first entry
 * ends the answer; damage of the first one is the answer. */
int hq_wal_read(hq_wal *log, uint64_t first, uint64_t size_max, uint8_t **bytes, size_t *size, uint64_t *last,
                int *error) {
    reader in = {.fd = -1};
    uint64_t next = first, reach, segment = 0;
    hq_span span;
    int code = HQ_READ_OK;
    while (code == HQ_READ_OK && in.out_size < size_max && find(log, next, &span, &reach)) {
        if (in.fd < 0 || span.segment != segment) {
            char name[32];
            if (in.fd >= 0)
                close(in.fd);
            hq_wal_segment_name(span.segment, name);
            in.fd = openat(log->dir_fd, name, O_RDONLY | O_CLOEXEC);
            in.held = 0;
            segment = span.segment;
            if (in.fd < 0) {
                in.error = errno;
                code = HQ_READ_SYSTEM;
                break;
            }
        }
        uint64_t before = next;
        code = copy_span(&in, &span, &next, reach, size_max);
        if (next == before || next <= reach)
            break;
    }
    if (in.fd >= 0)
        close(in.fd);
    free(in.window);
    if (next == first) {
        free(in.out);
        *error = in.error;
        return code == HQ_READ_OK || purged(log, first) ? HQ_READ_ABSENT : code;
    }
    *bytes = in.out;
    *size = in.out_size;
    *last = next - 1;
    return HQ_READ_OK;
}
