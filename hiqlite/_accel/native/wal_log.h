/* The log of one group, native side: its constants, its state, and who may touch what.
 *
 * Byte formats stand in docs/formats.md sections 2 and 7. Must not know Raft, Python or SQL: a job is bytes and numbers.
 * Threads: the LOOP (submits, takes finished jobs, reads what is published; where no answer waits for fsync it writes
 * small batches itself), the LOG thread (writes all others), the FILLER (writes zeros ahead, prepares the next file,
 * recycles purged ones), the SYNCER (only in the modes that do not wait for fsync), READERS (any thread, index under its
 * mutex, files through descriptors of their own).
 * Invariant: `synced` never passes what `log_sync` promises, and nothing is tried again after a failed write or fsync. */
#ifndef HQ_WAL_LOG_H
#define HQ_WAL_LOG_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <time.h>

#include "record.h"

#define HQ_SEGMENT_MAGIC 0x4745534C41575148ull /* "HQWALSEG" */
#define HQ_BATCH_MAGIC 0x41425148u             /* "HQBA" */

enum {
    HQ_SEGMENT_HEADER = 4096,
    HQ_SEGMENT_HEADER_USED = 68,
    HQ_BATCH_HEADER = 48,
    HQ_LOCAL_BATCH = HQ_BATCH_HEADER + HQ_RECORD_HEADER, /* a `synced` mark or a segment's end */
    HQ_BATCH_JOBS = 512,                                 /* IOV_MAX is 1024 */
    HQ_SLICE_BYTES = 8 << 20,
    HQ_FIRST_FILL_BYTES = 1 << 20,
    HQ_FILL_CHUNK_BYTES = 4 << 20,
    HQ_FILL_AHEAD_BYTES = 16 << 20,
    HQ_SPAN_BYTES = 64 << 10,
    HQ_IDLE_NS = 20000000,
    HQ_RETRY_NS = 100000000,
    HQ_INLINE_BYTES = 64 << 10, /* the most that the loop writes itself */
    HQ_SPARES = 2, /* purged files kept for use as segments */
};

enum hq_log_mode { HQ_SYNC_IMMEDIATE = 0, HQ_SYNC_ASYNC = 1, HQ_SYNC_INTERVAL = 2 };
enum hq_log_fault { HQ_FAULT_WRITE = 1, HQ_FAULT_SYNC = 2, HQ_FAULT_CREATE = 3, HQ_FAULT_INDEX = 4, HQ_FAULT_RECYCLE = 5 };

typedef struct hq_job {
    struct hq_job *next;
    uint64_t io_sequence; /* 0: none of its own, it rides with whatever is flushed next */
    uint64_t first, last; /* closed range of indexes; truncate and purge mark: the index in `last` */
    const uint8_t *bytes;
    size_t size;
    void *owner; /* opaque; handed back with the finished job */
    uint32_t records;
    uint8_t kind; /* enum hq_record_kind */
    uint8_t inlined[]; /* of records that are no entries */
} hq_job;

typedef struct hq_hard_state {
    uint64_t term, vote, incarnation; /* vote 0: none */
} hq_hard_state;

typedef struct hq_segment {
    int fd; /* -1: none */
    int reserved;  /* its blocks are allocated: a write cannot meet a full disk */
    uint64_t number, size, generation;
    _Atomic uint64_t filled; /* bytes [0, filled) hold data or zeros; grows under fill_mutex */
} hq_segment;

typedef struct hq_span { /* where the record of index `first` stands; those after it follow, across batch headers */
    uint64_t first, segment, offset;
} hq_span;

typedef struct hq_extent { /* a segment of the log, and the highest index that it is needed for: of any entry ever written
                            * into it, or the one behind a purge mark in it */
    uint64_t segment, top;
} hq_extent;

typedef struct hq_repair { /* where the newest copy of an entry stands whose first one cannot be read */
    uint64_t index, segment, offset;
} hq_repair;

typedef struct hq_wal {
    int dir_fd, wake_fd, mode;
    uint32_t group;
    uint64_t node_id, incarnation, segment_bytes, interval_ns;
    _Atomic int users; /* who still needs this memory: the owner and each thread */

    /* loop -> log thread: a stack that the log thread takes whole; log thread -> loop: likewise */
    _Atomic(hq_job *) queue;
    _Atomic(hq_job *) finished;
    _Atomic uint64_t queued_bytes;
    pthread_mutex_t park_mutex;
    pthread_cond_t park;
    _Atomic int parked, stop, syncing;

    /* published by the log thread and the syncer */
    _Atomic uint64_t written, synced, disk_synced;
    _Atomic int64_t progress_ns;
    _Atomic int notified, fault, fault_errno, log_full, fill_full;
    _Atomic uint64_t flushes, fsyncs, batch_bytes;
    _Atomic uint64_t purge_marked;  /* index of the newest purge mark, durable */
    _Atomic uint64_t recycle_below; /* files of segments that hold nothing above this index may go */

    /* segments named on disk whose number is not in the metadata yet; hold_mutex */
    pthread_mutex_t hold_mutex;
    _Atomic uint64_t held_io, waiting_io;
    uint64_t held_number, waiting_number;

    /* work_mutex, held while batches are written; `current` is exchanged under fill_mutex and sync_mutex too */
    pthread_mutex_t work_mutex;
    hq_segment current;
    _Atomic uint64_t offset;
    uint32_t last_crc;
    int ended; /* the current segment holds its end record */
    uint64_t last_io, said, next_number;
    int gave_up; /* it stops on a full disk, with entries that were not written */

    pthread_mutex_t fill_mutex, sync_mutex;
    hq_segment prepared; /* fill_mutex */
    _Atomic int has_prepared;

    /* filler and syncer wait here */
    pthread_mutex_t helper_mutex;
    pthread_cond_t helper;
    int fill_wish, sync_wish;
    int spares[HQ_SPARES]; /* filler only: which of the spare files exist */

    pthread_mutex_t index_mutex;
    hq_span *spans;
    size_t span_count, span_room;
    uint64_t base_index, last_index;
    int span_break;
    hq_extent *extents; /* ascending; the last one is the newest segment */
    size_t extent_count, extent_room;
    hq_repair *repairs; /* ascending by index */
    size_t repair_count, repair_room;
} hq_wal;

static inline int64_t hq_clock_ns(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static inline int64_t hq_now_ns(void) { return hq_clock_ns(CLOCK_MONOTONIC); }   /* waits of this room */
static inline int64_t hq_boot_ns(void) { return hq_clock_ns(CLOCK_BOOTTIME); } /* what others compare with theirs */

static inline struct timespec hq_after_ns(int64_t at_ns) {
    struct timespec t = {.tv_sec = at_ns / 1000000000, .tv_nsec = at_ns % 1000000000};
    return t;
}

/* wal_queue.c */
hq_wal *hq_wal_new(int dir_fd, uint32_t group, uint64_t node_id, uint64_t incarnation, uint64_t segment_bytes, int mode,
                   uint64_t interval_ns);
void hq_wal_close_files(hq_wal *log);
void hq_wal_release(hq_wal *log);
int hq_wal_submit(hq_wal *log, uint8_t kind, uint64_t io_sequence, uint64_t first, uint64_t last, const uint8_t *bytes,
                  size_t size, void *owner, int *now);
int hq_wal_submit_local(hq_wal *log, uint8_t kind, uint64_t io_sequence, uint64_t term, uint64_t index,
                        const uint64_t *payload, const hq_hard_state *before);
hq_job *hq_wal_take(hq_wal *log);
void hq_wal_finish(hq_wal *log, hq_job *jobs);
void hq_wal_notify(hq_wal *log);
void hq_wal_wake(hq_wal *log);
void hq_wal_stop(hq_wal *log);
void hq_wal_fail(hq_wal *log, int where, int error);
void hq_wal_set_full(hq_wal *log, _Atomic int *flag, int value);

/* wal_publish.c */
typedef struct hq_published {
    uint64_t written, synced, disk_synced, queued_bytes, held_io, flushes, fsyncs, batch_bytes, purge_marked;
    int64_t progress_ns;
    int fault, fault_errno, full, threads_ended;
} hq_published;
void hq_wal_begin(hq_wal *log, uint64_t io_sequence, uint64_t last_io, uint64_t said);
void hq_wal_look(hq_wal *log, hq_published *seen);
uint64_t hq_wal_written(hq_wal *log);
uint64_t hq_wal_synced(hq_wal *log);
void hq_wal_answer(hq_wal *log);
hq_job *hq_wal_take_finished(hq_wal *log);
void hq_wal_free_jobs(hq_job *jobs);
void hq_wal_hold(hq_wal *log, uint64_t number, uint64_t first_io);
uint64_t hq_wal_take_segment(hq_wal *log);
void hq_wal_segment_recorded(hq_wal *log);
void *hq_wal_progress_address(hq_wal *log);
void *hq_wal_queued_address(hq_wal *log);

/* wal_files.c: 0 or an errno */
int hq_wal_create(hq_wal *log, const char *name, uint64_t size, uint64_t fill, hq_segment *segment);
int hq_wal_fill(hq_segment *segment, int fd, int in_use, uint64_t up_to);
int hq_wal_activate(hq_wal *log, uint64_t need);
int hq_wal_make_room(hq_wal *log, uint64_t end);
int hq_wal_is_reserved(const struct stat *status);
int hq_wal_resume(hq_wal *log, uint64_t number, uint64_t generation, uint64_t offset, uint32_t last_crc);
void hq_wal_segment_name(uint64_t number, char name[32]);
int hq_wal_write_all(int fd, const uint8_t *bytes, size_t size, uint64_t offset);

/* wal_batch.c: 0 or an errno; `where` says at what */
void hq_wal_batch_header(uint8_t *out, uint64_t salt, uint64_t io_sequence, uint64_t synced, uint32_t last_crc,
                         uint32_t count, uint32_t size, uint32_t crc);
void hq_wal_local_batch(uint8_t *out, uint8_t kind, uint64_t salt, uint64_t io_sequence, uint64_t synced,
                        uint32_t last_crc);
int hq_wal_write_local(hq_wal *log, uint8_t kind);
int hq_wal_sync_current(hq_wal *log);
int hq_wal_flush(hq_wal *log, hq_job *jobs, size_t count, int *where);

/* wal_thread.c, wal_helpers.c */
int hq_wal_start(hq_wal *log);
void *hq_wal_filler_main(void *log);
void *hq_wal_syncer_main(void *log);
void hq_wal_wish(hq_wal *log, int fill, int sync);
int hq_wal_wants_fill(hq_wal *log);

/* wal_inline.c */
int hq_wal_write_now(hq_wal *log, hq_job *job);

/* wal_recycle.c: below 0 minus an errno, 0 nothing to do, 1 done; the filler's */
void hq_wal_find_spares(hq_wal *log);
int hq_wal_take_spare(hq_wal *log, hq_segment *fresh);
int hq_wal_recycle_step(hq_wal *log);
int hq_wal_extent_add(hq_wal *log, uint64_t segment, uint64_t top);
void hq_wal_recycle(hq_wal *log, uint64_t index);
uint64_t hq_wal_held_bytes(hq_wal *log);

/* wal_repair.c */
int64_t hq_wal_repair_run(uint8_t *records, size_t size, uint64_t first);
int hq_wal_repair_add(hq_wal *log, uint64_t index, uint64_t segment, uint64_t offset);
int hq_wal_repair_index(hq_wal *log, const hq_job *job, uint64_t at);
const hq_repair *hq_wal_repair_from(const hq_wal *log, uint64_t index);
void hq_wal_repair_forget(hq_wal *log, uint64_t low, uint64_t high);

/* wal_index.c */
int hq_wal_index_add(hq_wal *log, uint64_t first, uint64_t last, uint64_t segment, uint64_t offset);
uint64_t hq_wal_last_index(hq_wal *log);
void hq_wal_index_truncate(hq_wal *log, uint64_t last_kept);
void hq_wal_index_base(hq_wal *log, uint64_t base_index);
enum hq_read_code { HQ_READ_OK = 0, HQ_READ_ABSENT = 1, HQ_READ_DAMAGED = 2, HQ_READ_SYSTEM = 3, HQ_READ_MEMORY = 4 };
int hq_wal_read(hq_wal *log, uint64_t first, uint64_t size_max, uint8_t **bytes, size_t *size, uint64_t *last,
                int *error);

/* wal_scan.c */
enum hq_event_kind {
    HQ_EVENT_ENTRIES = 1, /* term, first, last, offset of the first record */
    HQ_EVENT_TRUNCATE,    /* first: last index kept */
    HQ_EVENT_HARD_STATE,  /* term, first: vote, last: its incarnation */
    HQ_EVENT_PURGE,       /* term, first: index of the last purged entry; last: 1 when what follows it is gone too */
    HQ_EVENT_REPAIR,      /* term, first: index */
    HQ_EVENT_BAD_BATCH,   /* io, offset; first: io before it, last: header CRC before it; what it still holds follows */
    HQ_EVENT_FAULTY,      /* term, first: index of an entry with a damaged payload, offset */
    HQ_EVENT_UNKNOWN,     /* io, offset: what the batch holds from there on cannot be read */
    HQ_EVENT_GAP,         /* offset; first: io before it, last: header CRC before it: no header there, but one later */
    HQ_EVENT_END,         /* the segment's end record */
    HQ_EVENT_MEMBERSHIP,  /* term, first: index: what stood just before is a membership entry, and readable */
};
typedef struct hq_event {
    uint64_t kind, io, term, first, last, offset;
} hq_event;
typedef struct hq_scan_result {
    hq_event *events;
    size_t count, room;
    uint64_t synced, last_io, end; /* end: offset behind the last batch */
    uint64_t unproven;             /* offset of the first batch that no header of this segment says to be on disk whole */
    uint32_t last_crc;
    int ended, no_memory;
    int apart; /* damage since the last event */
} hq_scan_result;
void hq_wal_scan(const uint8_t *bytes, uint64_t size, uint64_t salt, uint64_t first_io, uint64_t io_limit,
                 hq_scan_result *result);

#endif
