/* forks.h: what was made before a fork is the parent's: its threads live there only, its mutexes may be held for ever.
 *
 * Each object remembers `hq_forks` of its making; in a forked child the number is another one. One counter per file
 * that includes this. */
#ifndef HQ_FORKS_H
#define HQ_FORKS_H

#include <pthread.h>

static int hq_forks;

static void hq_forks_in_child(void) { hq_forks++; }

/* Begins to count. Call it before the first object is made; again is harmless. Returns 0, or an errno. */
static int hq_forks_watch(void) {
    static int watching;
    if (watching) return 0;
    watching = 1;
    return pthread_atfork(NULL, NULL, hq_forks_in_child);
}

#endif
