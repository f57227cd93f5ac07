/* The native heartbeat thread (consensus.md rule 17): liveness only.
 *
 * One thread per node sends a beat of each group that this node leads to every peer, and notes what it hears, without
 * ever taking the GIL: neither bulk data, nor garbage collection, nor a user's busy callback delays it. It never
 * confirms a read, an append or a vote.
 *
 * Shared with the loop: one atomic word per group (term, leads), the bounds that ride along, the loop's tick, and
 * under a mutex that nobody holds for longer than a copy, the peers and their stamps.
 */
#ifndef HQ_BEAT_H
#define HQ_BEAT_H
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#define HQ_BEAT_LINKS 128 /* one per peer, used both ways */
#define HQ_BEAT_GROUPS 2
#define HQ_BEAT_BYTES 80
#define HQ_BEAT_SIGNED 64
#define HQ_BEAT_MAGIC 0x54425148u /* "HQBT" */

typedef struct {
  uint64_t term, incarnation, commit_bound;
  int64_t group_time_ns, heard_at_ns; /* boot clock; 0: never */
} hq_stamp;

typedef struct {
  int fd;       /* -1: free */
  int dialed;   /* 1: this node dialled it, and dials again when it is lost */
  uint64_t id, counter_out, counter_in;
  uint8_t key[16], inbox[HQ_BEAT_BYTES];
  int inbox_size;
  int lost; /* 1: the link broke and has not been reported yet */
  hq_stamp stamp[HQ_BEAT_GROUPS];
} hq_beat_link;

typedef struct {
  _Atomic uint64_t word; /* term << 1 | leads */
  _Atomic uint64_t incarnation, commit_bound;
  _Atomic int64_t group_time_ns;
} hq_beat_group;

typedef struct {
  pthread_t thread;
  pthread_mutex_t mutex;
  int started, wake_fd, report_fd;
  _Atomic int stop;
  uint64_t node_id;
  int64_t interval_ns, stall_ns;
  _Atomic int64_t loop_tick_ns;     /* when the loop last turned */
  _Atomic int64_t log_waiting_ns;   /* since when work waits for the log without progress; 0: not at all */
  _Atomic uint64_t sent, heard, gated;
  hq_beat_group group[HQ_BEAT_GROUPS];
  hq_beat_link link[HQ_BEAT_LINKS];
} hq_beat;

hq_beat *hq_beat_new(uint64_t node_id, int64_t interval_ns, int64_t stall_ns);
int hq_beat_start(hq_beat *beat);
void hq_beat_stop(hq_beat *beat); /* joins; call without the GIL */
void hq_beat_close_files(hq_beat *beat); /* after stop; may be called again */
void hq_beat_free(hq_beat *beat);
int hq_beat_add(hq_beat *beat, uint64_t id, int fd, const uint8_t *key, int dialed); /* owns fd; 0, or -1 when full */
void hq_beat_remove(hq_beat *beat, uint64_t id);
int64_t hq_boot_ns(void);
void hq_beat_encode(uint8_t *frame, const uint8_t *key, int group, int leads, uint64_t sender, uint64_t incarnation,
                    uint64_t term, uint64_t counter, int64_t group_time_ns, uint64_t commit_bound);
#endif
