/* The heartbeat thread; what it promises stands in beat.h, the frame in docs/formats.md section 6. */
#define _GNU_SOURCE
#include "beat.h"
#include "siphash.h"
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

int64_t hq_boot_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_BOOTTIME, &now);
  return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void put(uint8_t *p, uint64_t value, int bytes) {
  for (int i = 0; i < bytes; i++) p[i] = (uint8_t)(value >> (8 * i));
}

static uint64_t get(const uint8_t *p, int bytes) {
  uint64_t value = 0;
  for (int i = bytes - 1; i >= 0; i--) value = value << 8 | p[i];
  return value;
}

void hq_beat_encode(uint8_t *frame, const uint8_t *key, int group, int leads, uint64_t sender, uint64_t incarnation,
                    uint64_t term, uint64_t counter, int64_t group_time_ns, uint64_t commit_bound) {
  put(frame, HQ_BEAT_MAGIC, 4);
  frame[4] = 1;
  frame[5] = (uint8_t)group;
  put(frame + 6, leads ? 1 : 0, 2);
  put(frame + 8, sender, 8);
  put(frame + 16, incarnation, 8);
  put(frame + 24, term, 8);
  put(frame + 32, counter, 8);
  put(frame + 40, (uint64_t)group_time_ns, 8);
  put(frame + 48, commit_bound, 8);
  put(frame + 56, 0, 8);
  hq_siphash128(key, frame, HQ_BEAT_SIGNED, frame + HQ_BEAT_SIGNED);
}

static void report(hq_beat *beat) {
  uint64_t one = 1;
  if (write(beat->report_fd, &one, 8) != 8) { /* the counter is full: the loop is told already */ }
}

static void drop(hq_beat *beat, hq_beat_link *link) {
  close(link->fd);
  link->fd = -1;
  link->lost = 1;
  report(beat);
}

/* One whole frame of a peer. Returns 0 when it is not authentic or not newer than the one before. */
static int heard(hq_beat *beat, hq_beat_link *link, int64_t now_ns) {
  const uint8_t *frame = link->inbox;
  uint8_t tag[16];
  hq_siphash128(link->key, frame, HQ_BEAT_SIGNED, tag);
  if (!hq_tag_equal(tag, frame + HQ_BEAT_SIGNED)) return 0;
  if (get(frame, 4) != HQ_BEAT_MAGIC || frame[4] != 1 || frame[5] >= HQ_BEAT_GROUPS) return 0;
  if (get(frame + 8, 8) != link->id || get(frame + 32, 8) <= link->counter_in) return 0;
  link->counter_in = get(frame + 32, 8);
  if (!(get(frame + 6, 2) & 1)) return 1;
  hq_stamp *stamp = &link->stamp[frame[5]];
  stamp->incarnation = get(frame + 16, 8);
  stamp->term = get(frame + 24, 8);
  stamp->group_time_ns = (int64_t)get(frame + 40, 8);
  stamp->commit_bound = get(frame + 48, 8);
  stamp->heard_at_ns = now_ns;
  atomic_fetch_add(&beat->heard, 1);
  return 1;
}

static void receive(hq_beat *beat, hq_beat_link *link) {
  for (;;) {
    ssize_t got = recv(link->fd, link->inbox + link->inbox_size, HQ_BEAT_BYTES - link->inbox_size, MSG_DONTWAIT);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
    if (got <= 0) { drop(beat, link); return; }
    link->inbox_size += (int)got;
    if (link->inbox_size < HQ_BEAT_BYTES) continue;
    link->inbox_size = 0;
    if (!heard(beat, link, hq_boot_ns())) { drop(beat, link); return; }
  }
}

/* The gate: a node that is truly stuck stops sending. A thread inside a SQLite step does not close it. */
static int gate_open(hq_beat *beat, int64_t now_ns) {
  int64_t waiting = atomic_load(&beat->log_waiting_ns);
  if (now_ns - atomic_load(&beat->loop_tick_ns) > beat->stall_ns) return 0;
  return !(waiting && now_ns - waiting > beat->stall_ns);
}

static void send_beats(hq_beat *beat, int64_t now_ns) {
  uint8_t frame[HQ_BEAT_BYTES];
  if (!gate_open(beat, now_ns)) { atomic_fetch_add(&beat->gated, 1); return; }
  pthread_mutex_lock(&beat->mutex);
  for (int g = 0; g < HQ_BEAT_GROUPS; g++) {
    hq_beat_group *group = &beat->group[g];
    uint64_t word = atomic_load(&group->word);
    if (!(word & 1)) continue;
    for (int i = 0; i < HQ_BEAT_LINKS; i++) {
      hq_beat_link *link = &beat->link[i];
      if (link->fd < 0) continue;
      hq_beat_encode(frame, link->key, g, 1, beat->node_id, atomic_load(&group->incarnation), word >> 1,
                     ++link->counter_out, atomic_load(&group->group_time_ns), atomic_load(&group->commit_bound));
      ssize_t put_bytes = send(link->fd, frame, sizeof frame, MSG_DONTWAIT | MSG_NOSIGNAL);
      if (put_bytes == (ssize_t)sizeof frame) atomic_fetch_add(&beat->sent, 1);
      else if (put_bytes >= 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)) drop(beat, link);
    }
  }
  pthread_mutex_unlock(&beat->mutex);
}

static void wait_and_receive(hq_beat *beat, int64_t until_ns) {
  struct pollfd fds[HQ_BEAT_LINKS + 1];
  int slot[HQ_BEAT_LINKS + 1], count = 1;
  fds[0].fd = beat->wake_fd;
  fds[0].events = POLLIN;
  pthread_mutex_lock(&beat->mutex);
  for (int i = 0; i < HQ_BEAT_LINKS; i++) {
    if (beat->link[i].fd < 0) continue;
    fds[count].fd = beat->link[i].fd;
    fds[count].events = POLLIN;
    slot[count++] = i;
  }
  pthread_mutex_unlock(&beat->mutex);
  int64_t left_ns = until_ns - hq_boot_ns();
  if (left_ns < 0) left_ns = 0;
  struct timespec timeout = {left_ns / 1000000000LL, left_ns % 1000000000LL};
  if (ppoll(fds, count, &timeout, NULL) <= 0) return;
  uint64_t ignored;
  if (fds[0].revents && read(beat->wake_fd, &ignored, 8) != 8) { /* another wake came first */ }
  pthread_mutex_lock(&beat->mutex);
  for (int i = 1; i < count; i++) {
    hq_beat_link *link = &beat->link[slot[i]];
    if (fds[i].revents && link->fd == fds[i].fd) receive(beat, link);
  }
  pthread_mutex_unlock(&beat->mutex);
}

static void *run(void *argument) {
  hq_beat *beat = argument;
  prctl(PR_SET_NAME, "hiqlite-beat");
  int64_t next_ns = hq_boot_ns();
  while (!atomic_load(&beat->stop)) {
    int64_t now_ns = hq_boot_ns();
    if (now_ns >= next_ns) {
      send_beats(beat, now_ns);
      next_ns = now_ns - next_ns > beat->interval_ns ? now_ns + beat->interval_ns : next_ns + beat->interval_ns;
    }
    wait_and_receive(beat, next_ns);
  }
  return NULL;
}

hq_beat *hq_beat_new(uint64_t node_id, int64_t interval_ns, int64_t stall_ns) {
  hq_beat *beat = calloc(1, sizeof *beat);
  if (!beat) return NULL;
  beat->node_id = node_id;
  beat->interval_ns = interval_ns;
  beat->stall_ns = stall_ns;
  beat->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  beat->report_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  pthread_mutex_init(&beat->mutex, NULL);
  for (int i = 0; i < HQ_BEAT_LINKS; i++) beat->link[i].fd = -1;
  atomic_store(&beat->loop_tick_ns, hq_boot_ns());
  return beat;
}

int hq_beat_start(hq_beat *beat) {
  int failed = pthread_create(&beat->thread, NULL, run, beat);
  beat->started = !failed;
  return failed;
}

static void wake(hq_beat *beat) {
  uint64_t one = 1;
  if (write(beat->wake_fd, &one, 8) != 8) { /* a wake is pending already */ }
}

void hq_beat_stop(hq_beat *beat) {
  if (!beat->started) return;
  atomic_store(&beat->stop, 1);
  wake(beat);
  pthread_join(beat->thread, NULL);
  beat->started = 0;
}

static void close_file(int *fd) {
  if (*fd >= 0) close(*fd);
  *fd = -1;
}

void hq_beat_close_files(hq_beat *beat) {
  for (int i = 0; i < HQ_BEAT_LINKS; i++) close_file(&beat->link[i].fd);
  close_file(&beat->wake_fd);
  close_file(&beat->report_fd);
}

void hq_beat_free(hq_beat *beat) {
  hq_beat_close_files(beat);
  pthread_mutex_destroy(&beat->mutex);
  free(beat);
}

/* Where a link to that peer goes: in its old place, an empty one, or that of a peer whose link is gone. */
static hq_beat_link *place_for(hq_beat *beat, uint64_t id) {
  hq_beat_link *empty = NULL, *gone = NULL;
  for (int i = 0; i < HQ_BEAT_LINKS; i++) {
    hq_beat_link *link = &beat->link[i];
    if (link->id == id) return link;
    if (!empty && link->id == 0) empty = link;
    if (!gone && link->fd < 0 && !link->lost) gone = link;
  }
  if (empty || !gone) return empty;
  memset(gone, 0, sizeof *gone);
  gone->fd = -1;
  return gone;
}

int hq_beat_add(hq_beat *beat, uint64_t id, int fd, const uint8_t *key, int dialed) {
  pthread_mutex_lock(&beat->mutex);
  hq_beat_link *place = place_for(beat, id);
  if (place) {
    if (place->fd >= 0) close(place->fd);
    place->fd = fd;
    place->id = id;
    place->dialed = dialed;
    place->counter_in = place->counter_out = 0;
    place->inbox_size = place->lost = 0;
    memcpy(place->key, key, 16);
  }
  pthread_mutex_unlock(&beat->mutex);
  wake(beat);
  return place ? 0 : -1;
}

void hq_beat_remove(hq_beat *beat, uint64_t id) {
  pthread_mutex_lock(&beat->mutex);
  for (int i = 0; i < HQ_BEAT_LINKS; i++) {
    hq_beat_link *link = &beat->link[i];
    if (link->id != id) continue;
    if (link->fd >= 0) close(link->fd);
    memset(link, 0, sizeof *link);
    link->fd = -1;
  }
  pthread_mutex_unlock(&beat->mutex);
  wake(beat);
}
