"""The native heartbeat thread, seen from the loop.

The thread itself is C (native/beat_thread.c) and never takes the GIL. Here are its words: what this node leads, the
loop's tick, and the stamps of what was heard. Must not know Raft: what a stamp means is judged by the engine.
"""

import os
from collections import namedtuple

from libc.stdint cimport int64_t, uint8_t, uint64_t

cdef extern from "beat.h" nogil:
    enum:
        HQ_BEAT_LINKS
        HQ_BEAT_GROUPS
        HQ_BEAT_BYTES
    ctypedef struct hq_stamp:
        uint64_t term
        uint64_t incarnation
        uint64_t commit_bound
        int64_t group_time_ns
        int64_t heard_at_ns
    ctypedef struct hq_beat_link:
        int fd
        int dialed
        uint64_t id
        int lost
        hq_stamp stamp[2]
    ctypedef struct hq_beat_group:
        pass
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct hq_beat:
        pthread_mutex_t mutex
        int report_fd
        hq_beat_link link[128]
    hq_beat* hq_beat_new(uint64_t node_id, int64_t interval_ns, int64_t stall_ns)
    int hq_beat_start(hq_beat* beat)
    void hq_beat_stop(hq_beat* beat)
    void hq_beat_close_files(hq_beat* beat)
    void hq_beat_free(hq_beat* beat)
    int hq_beat_add(hq_beat* beat, uint64_t id, int fd, const uint8_t* key, int dialed)
    void hq_beat_remove(hq_beat* beat, uint64_t id)
    int64_t hq_boot_ns()
    void hq_beat_encode(uint8_t* frame, const uint8_t* key, int group, int leads, uint64_t sender, uint64_t incarnation,
                        uint64_t term, uint64_t counter, int64_t group_time_ns, uint64_t commit_bound)
    int pthread_mutex_lock(pthread_mutex_t* mutex)
    int pthread_mutex_unlock(pthread_mutex_t* mutex)

cdef extern from "forks.h" nogil:
    int hq_forks
    int hq_forks_watch()

cdef extern from "<unistd.h>" nogil:
    ssize_t hq_read "read"(int fd, void* bytes, size_t size)

cdef extern from *:
    """
    #include "beat.h"
    static void hq_set_word(hq_beat *b, int g, uint64_t term, int leads) { atomic_store(&b->group[g].word, term << 1 | (leads ? 1 : 0)); }
    static void hq_set_bounds(hq_beat *b, int g, uint64_t incarnation, uint64_t commit, int64_t time) {
      atomic_store(&b->group[g].incarnation, incarnation); atomic_store(&b->group[g].commit_bound, commit);
      atomic_store(&b->group[g].group_time_ns, time); }
    static void hq_tick(hq_beat *b, int64_t waiting) { atomic_store(&b->loop_tick_ns, hq_boot_ns()); atomic_store(&b->log_waiting_ns, waiting); }
    static uint64_t hq_sent(hq_beat *b) { return atomic_load(&b->sent); }
    static uint64_t hq_heard(hq_beat *b) { return atomic_load(&b->heard); }
    static uint64_t hq_gated(hq_beat *b) { return atomic_load(&b->gated); }
    """
    void hq_set_word(hq_beat* beat, int group, uint64_t term, int leads) nogil
    void hq_set_bounds(hq_beat* beat, int group, uint64_t incarnation, uint64_t commit, int64_t time) nogil
    void hq_tick(hq_beat* beat, int64_t waiting) nogil
    uint64_t hq_sent(hq_beat* beat) nogil
    uint64_t hq_heard(hq_beat* beat) nogil
    uint64_t hq_gated(hq_beat* beat) nogil


Stamp = namedtuple("Stamp", "peer_id term incarnation commit_bound group_time_ns heard_at_ns")
FRAME_BYTES = HQ_BEAT_BYTES


def encode_beat(bytes key, int group, bint leads, sender, incarnation, term, counter, group_time_ns, commit_bound):
    """One beat frame (docs/formats.md section 6), as the thread sends it."""
    cdef uint8_t frame[HQ_BEAT_BYTES]
    if len(key) != 16:
        raise ValueError("a beat key has 16 bytes")
    hq_beat_encode(frame, <const uint8_t*>key, group, leads, sender, incarnation, term, counter, group_time_ns,
                   commit_bound)
    return (<char*>frame)[:HQ_BEAT_BYTES]


cdef class BeatThread:
    """The thread of one node.

    Args:
        node_id: whose beats these are.
        interval_ms: time between two beats to a peer.
        stall_ms: without progress of the loop, or of the log while work waits, for this long, no beat leaves.
    """

    cdef hq_beat* beat
    cdef bint closed
    cdef int forks

    def __cinit__(self, uint64_t node_id, int64_t interval_ms, int64_t stall_ms):
        self.beat = hq_beat_new(node_id, interval_ms * 1_000_000, stall_ms * 1_000_000)
        if self.beat == NULL or hq_forks_watch():
            raise MemoryError()
        self.forks = hq_forks

    def __dealloc__(self):
        if self.beat != NULL and self.forks == hq_forks:  # else the thread is the parent's
            with nogil:
                hq_beat_stop(self.beat)
            hq_beat_free(self.beat)

    def start(self):
        if hq_beat_start(self.beat):
            raise RuntimeError("the heartbeat thread could not be started")

    def close(self):
        """Stop and join, at most one poll of the thread away; links and descriptors are closed. May be called again.

        In a forked child nothing happens: the thread is the parent's.
        """
        self.closed = True
        if self.forks != hq_forks:
            return
        with nogil:
            hq_beat_stop(self.beat)
        hq_beat_close_files(self.beat)

    def fileno(self):
        """Readable when a link was lost; read it empty, then ask `lost()`."""
        return self.beat.report_fd

    def add_link(self, uint64_t peer_id, int fd, bytes key, bint dialed):
        """Hand over a connected socket; the thread owns and closes it. Beats go both ways on it."""
        if len(key) != 16:
            raise ValueError("a beat key has 16 bytes")
        if self.closed or self.forks != hq_forks:
            os.close(fd)  # a dial that ended while the node stops
            return
        if hq_beat_add(self.beat, peer_id, fd, <const uint8_t*>key, dialed):
            os.close(fd)
            raise RuntimeError(f"more than {HQ_BEAT_LINKS} links")

    def remove_peer(self, uint64_t peer_id):
        if self.forks == hq_forks:
            hq_beat_remove(self.beat, peer_id)

    def set_word(self, int group, uint64_t term, bint leads):
        """What this node is in `group`, from now on; set before anything that follows from it is sent."""
        hq_set_word(self.beat, group, term, leads)

    def set_bounds(self, int group, uint64_t incarnation, uint64_t commit_bound, int64_t group_time_ns):
        hq_set_bounds(self.beat, group, incarnation, commit_bound, group_time_ns)

    def tick(self, int64_t log_waiting_since_ns=0):
        """The loop turned; `log_waiting_since_ns`: boot clock since when the log makes no progress, 0 if it does."""
        hq_tick(self.beat, log_waiting_since_ns)

    def lost(self):
        """Ids of peers whose link, dialled by this node, broke since the last call: dial them again."""
        cdef uint64_t count
        found = []
        if self.forks != hq_forks:
            return found
        pthread_mutex_lock(&self.beat.mutex)
        hq_read(self.beat.report_fd, &count, sizeof(count))  # quiet from here on; nothing to read is no error
        for i in range(HQ_BEAT_LINKS):
            if self.beat.link[i].lost:
                self.beat.link[i].lost = 0
                if self.beat.link[i].dialed:
                    found.append(self.beat.link[i].id)
        pthread_mutex_unlock(&self.beat.mutex)
        return found

    def stamps(self, int group):
        """What was heard last of each peer that said it leads `group`."""
        cdef hq_stamp stamp
        found = []
        if self.forks != hq_forks:
            return found
        pthread_mutex_lock(&self.beat.mutex)
        for i in range(HQ_BEAT_LINKS):
            stamp = self.beat.link[i].stamp[group]
            if stamp.heard_at_ns:
                found.append(Stamp(self.beat.link[i].id, stamp.term, stamp.incarnation, stamp.commit_bound,
                                   stamp.group_time_ns, stamp.heard_at_ns))
        pthread_mutex_unlock(&self.beat.mutex)
        return found

    @property
    def counters(self):
        return {"sent": hq_sent(self.beat), "heard": hq_heard(self.beat), "gated": hq_gated(self.beat)}
