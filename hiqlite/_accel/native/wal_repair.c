/* Repaired entries: copies at the tail of the log that stand in for records which cannot be read any more.
 *
 * A repair is the entry's own record with another kind, so its header CRC differs and all else is equal; whoever reads it
 * gets it back as the entry. Entries are few here: damage is rare, and a purge or a truncation forgets them.
 * Except for hq_wal_repair_run the caller holds the index mutex, or nothing runs yet. Must not know files. */
#include "wal_log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Turns the run of entries `first`, `first` + 1, ... into repairs. Their number, or minus enum hq_record_code. */
int64_t hq_wal_repair_run(uint8_t *records, size_t size, uint64_t first) {
    int64_t count = 0;
    while (size > 0) {
        enum hq_record_code code = hq_record_check(records, size, HQ_CHECK_ALL);
        if (code != HQ_RECORD_OK)
            return -(int64_t)code;
        if (records[HQ_AT_KIND] != HQ_KIND_ENTRY || hq_record_index(records) != first + (uint64_t)count)
            return -(int64_t)HQ_RECORD_BAD_ORDER;
        hq_record_retype(records, HQ_KIND_REPAIR);
        size_t length = hq_record_length(records);
        records += length;
        size -= length;
        count++;
    }
    return count;
}

static size_t place_of(const hq_wal *log, uint64_t index) {
    size_t low = 0, high = log->repair_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (log->repairs[middle].index < index)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The newest copy rules. 0 or ENOMEM. */
int hq_wal_repair_add(hq_wal *log, uint64_t index, uint64_t segment, uint64_t offset) {
    size_t place = place_of(log, index);
    int known = place < log->repair_count && log->repairs[place].index == index;
    if (!known && log->repair_count == log->repair_room) {
        size_t room = log->repair_room == 0 ? 16 : log->repair_room * 2;
        hq_repair *repairs = realloc(log->repairs, room * sizeof *repairs);
        if (repairs == NULL)
            return ENOMEM;
        log->repairs = repairs;
        log->repair_room = room;
    }
    if (!known) {
        memmove(log->repairs + place + 1, log->repairs + place, (log->repair_count - place) * sizeof *log->repairs);
        log->repair_count++;
    }
    log->repairs[place] = (hq_repair){.index = index, .segment = segment, .offset = offset};
    return 0;
}

/* Notes every record of a job of repairs, which stands at `at` of the current segment. Takes the index mutex. */
int hq_wal_repair_index(hq_wal *log, const hq_job *job, uint64_t at) {
    int error = 0;
    pthread_mutex_lock(&log->index_mutex);
    for (const uint8_t *p = job->bytes; error == 0 && p < job->bytes + job->size; p += hq_record_length(p))
        if (hq_record_index(p) > log->base_index && hq_record_index(p) <= log->last_index)
            error = hq_wal_repair_add(log, hq_record_index(p), log->current.number, at + (uint64_t)(p - job->bytes));
    pthread_mutex_unlock(&log->index_mutex);
    return error;
}

/* The first repair at or behind `index`, or NULL. */
const hq_repair *hq_wal_repair_from(const hq_wal *log, uint64_t index) {
    size_t place = place_of(log, index);
    return place < log->repair_count ? &log->repairs[place] : NULL;
}

/* Forgets those of [low, high]. */
void hq_wal_repair_forget(hq_wal *log, uint64_t low, uint64_t high) {
    size_t from = place_of(log, low), to = from;
    while (to < log->repair_count && log->repairs[to].index <= high)
        to++;
    memmove(log->repairs + from, log->repairs + to, (log->repair_count - to) * sizeof *log->repairs);
    log->repair_count -= to - from;
}
