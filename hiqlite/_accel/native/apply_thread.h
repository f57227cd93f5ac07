/* apply_thread.h: the part of the queue that applies; every function here is called with the queue's mutex held. */
#ifndef HQ_APPLY_THREAD_H
#define HQ_APPLY_THREAD_H

#include "apply_queue.h"

/* One run, with `busy` held by the caller; gives up the mutex meanwhile. notify: wake the loop afterwards. */
void hq_queue_work(hq_queue *q, int notify);
int hq_queue_waits_for_sync(hq_queue *q);
void hq_queue_notify(hq_queue *q);
void hq_queue_fail(hq_queue *q);
void hq_queue_learn(hq_queue *q, size_t size, int64_t spent_ns);

/* Trials (apply_trial.c). */
int hq_trial_waits(const hq_queue *q);
void hq_trial_step(hq_queue *q);    /* with `busy` held by the caller; gives up the mutex meanwhile */
void hq_trial_give_up(hq_queue *q); /* the thread ends */

/* Checkpoints (apply_checkpoint.c). */
int hq_checkpoint_wanted(hq_queue *q);
int hq_checkpoint_has_step(hq_queue *q);
int hq_checkpoint_blocks(hq_queue *q);
int hq_checkpoint_step(hq_queue *q);
int hq_checkpointer_start(hq_queue *q);
void hq_checkpointer_interrupt(hq_queue *q);
void hq_checkpointer_join(hq_queue *q); /* the one that is called without the mutex */

#endif
