/* apply_queue.h: the hand-over between the thread that submits committed entries and the one that applies them.

   Jobs go in by hq_queue_submit, finished runs come out by hq_queue_take; an eventfd says that there is something to
   take. Runs are applied by the queue's own thread, or by the submitting thread itself while the own thread is parked
   (hq_queue_inline): never by both at once. Must not know Python: an owner is an opaque pointer, given back when no byte
   of its job is needed any more.
   Invariant: entries are applied in the order of their indexes without gap; `busy` is held by exactly one thread, and
   whoever holds it owns the worker and the cursor. */
#ifndef HQ_APPLY_QUEUE_H
#define HQ_APPLY_QUEUE_H

#include <pthread.h>

#include "apply.h"

typedef struct hq_piece {
    const uint8_t *data;
    size_t size;
} hq_piece;

typedef struct hq_job {
    struct hq_job *next;
    uint64_t first, last; /* closed */
    int want_answers;
    uint32_t piece_count;
    size_t size;          /* bytes of all pieces */
    void *owner;
    hq_piece pieces[];
} hq_job;

enum hq_stop_mode { HQ_RUNNING = 0, HQ_STOP_DRAINED = 1, HQ_STOP_NOW = 2 };

enum hq_trial_state { HQ_TRIAL_NONE = 0, HQ_TRIAL_ASKED, HQ_TRIAL_RUNS, HQ_TRIAL_ENDED };

enum { HQ_TRIAL_WRITES_MAX = 64 };
enum { HQ_OUT_OF_NOTHING = 0, HQ_OUT_OF_DISK, HQ_OUT_OF_MEMORY };

typedef struct hq_tried {
    size_t at;                   /* its record in hq_trial.records */
    int64_t limit_ns, spent_ns;
} hq_tried;

/* Writes that are tried before they are proposed, each on what those before it leave (apply_trial.c). There is one trial
   at a time. */
typedef struct hq_trial {
    enum hq_trial_state state;
    uint8_t *records;    /* a copy of its own; wall time and seed are set */
    hq_tried writes[HQ_TRIAL_WRITES_MAX];
    uint32_t count;
    uint32_t passed;     /* so many ran to their end, whatever they would answer; the next one did not, or was not begun */
    int64_t end_ns;      /* of the one that runs */
    int64_t disk_bytes_max, memory_bytes_max; /* what all of them together may take, beside what was in use before */
    int64_t memory_before;
    int looks_for_full;  /* FULL was said; this attempt keeps everything in memory to find out why */
    int out_of;          /* HQ_OUT_OF_* */
    int cancelled;       /* atomic: whoever asked does not want to know any more */
    int late;            /* the one behind those that passed was ended because its limit had passed */
    int changes_schema;  /* the last one that passed does */
    hq_failure why;      /* of this node's trouble that ended the one behind those that passed; code 0: there was none */
} hq_trial;

enum hq_copy_state { HQ_COPY_IDLE = 0, HQ_COPY_RUNNING, HQ_COPY_DONE };

/* The thread that checkpoints beside running writes (apply_checkpoint.c). */
typedef struct hq_checkpointer {
    sqlite3 *copier; /* a connection of its own; NULL: the apply thread checkpoints alone */
    pthread_t thread;
    pthread_cond_t wake;
    enum hq_copy_state state;
    int started, stop;
    int misses;      /* copies in a row that did not reach what they were to */
    int closing_in;  /* few pages are left since the last copy: go on until none is */
    int code;        /* of the last copy */
    int asked;       /* somebody wants more of the database to be durable, however few pages that is */
    uint64_t from_pages, copied; /* pages in SQLite's log when it began, and how many of them it moved */
    uint64_t from_index;         /* applied when it began */
} hq_checkpointer;

typedef struct hq_queue {
    hq_apply *worker;
    hq_checkpointer checkpointer;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    pthread_t thread;
    int started, stopped, stop;
    int event_fd, notified;
    int busy, failed;
    int wants_sync;              /* atomic: somebody waits for a higher synced_index */
    uint64_t synced_index;       /* atomic; 0: never told, so no checkpoint yet */
    uint64_t submitted_index;
    hq_job *head, *tail;         /* not yet seen by who applies */
    hq_job *active, *active_tail; /* owned by `busy`: cursor below */
    uint32_t piece;
    size_t offset;
    hq_run_entry *entries;       /* HQ_RUN_ENTRIES_MAX of them */
    hq_run_result *done, *done_tail;
    hq_job *finished;
    hq_failure failure;
    uint64_t queued_bytes;       /* atomic */
    int64_t busy_ns;             /* atomic */
    uint64_t inline_runs;
    double ns_per_byte;          /* moving average */
    hq_trial trial;
} hq_queue;

hq_queue *hq_queue_open(hq_apply *worker);
int hq_queue_start(hq_queue *q, const int *cpus, int cpu_count); /* 0, or an errno */
void hq_checkpointer_use(hq_queue *q, sqlite3 *copier);
void hq_checkpoint_ask(hq_queue *q);
hq_job *hq_job_new(uint32_t piece_count);
void hq_queue_submit(hq_queue *q, hq_job *job);
/* 1: applied (or failed) here; 0: queued. only_cheap: here only if every text is known to be quick. */
int hq_queue_inline(hq_queue *q, hq_job *job, int only_cheap);
int hq_job_is_cheap(hq_apply *w, const hq_job *job);
int64_t hq_queue_predict_ns(hq_queue *q, size_t size);
void hq_queue_set_synced(hq_queue *q, uint64_t index);
enum { HQ_TRY_ASKED = 0, HQ_TRY_BUSY, HQ_TRY_MEMORY };
/* Asks for a trial of records behind one another, `size` bytes; they, the limits and `count` stand in `asked`. HQ_TRY_*:
   BUSY when one is under way or the thread ends. Its end is announced like a run. */
int hq_queue_try(hq_queue *q, const hq_trial *asked, size_t size);
void hq_queue_cancel_trial(hq_queue *q);
int hq_queue_trial_ended(hq_queue *q, hq_trial *ended); /* 1 once per trial: what became of it; the records are gone */
hq_run_result *hq_queue_take(hq_queue *q, hq_job **finished);
int hq_queue_failure(hq_queue *q, hq_failure *failure);          /* 1 when there is one */
void hq_queue_resume(hq_queue *q);
void hq_queue_stop(hq_queue *q, enum hq_stop_mode mode);
int hq_queue_stopped(hq_queue *q);
void hq_queue_join(hq_queue *q);
hq_job *hq_queue_close(hq_queue *q);                             /* joined before; gives back what is left */
int hq_apply_loaded(void);

#endif
