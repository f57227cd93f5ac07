/* A process that dies at its k-th change of a disk: preloaded in front of powerloss.c, it counts the calls that change a
 * file or a name below a folder, or make one durable, and before the k-th of them sends its own process SIGKILL.
 *
 * hq_kill_arm(folder, k, half, loss, seed): from here on. half: a write is done by half first. loss: -1 a killed process
 * only; else the power goes too, and `loss` and `seed` say what of it the disk keeps (hq_powerloss_cut). k = 0 counts.
 * hq_kill_steps() gives how many there were. hq_kill_only(kinds), before it: only these are counted, 1 writes, 2 syncs,
 * 4 changes of names, 8 changes of sizes. A process is armed from its first moment by HQ_KILL_ROOT=folder and
 * HQ_KILL_ORDER="k half loss seed kinds". What a thread does through a memory map is not seen.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static char root[PATH_MAX];
static size_t root_length;
static _Atomic unsigned long steps;
static unsigned long kill_at;
static int half_write, power;
enum { WRITES = 1, SYNCS = 2, NAMES = 4, SIZES = 8 };
static int counted = WRITES | SYNCS | NAMES | SIZES;
static unsigned long long power_seed;

#define REAL(name, type) static __typeof__(type) *real; if (!real) real = (__typeof__(type) *)dlsym(RTLD_NEXT, name)

void hq_kill_arm(const char *folder, unsigned long k, int half, int loss, unsigned long long seed) {
  if (!realpath(folder, root)) abort();
  kill_at = k; half_write = half; power = loss; power_seed = seed;
  root_length = strlen(root);
}

void hq_kill_only(int kinds) { counted = kinds; }

__attribute__((constructor)) static void begin(void) {
  unsigned long k;
  int half, loss, kinds;
  unsigned long long seed;
  const char *folder = getenv("HQ_KILL_ROOT"), *order = getenv("HQ_KILL_ORDER");
  if (!folder || !order) return;
  if (sscanf(order, "%lu %d %d %llu %d", &k, &half, &loss, &seed, &kinds) != 5) abort();
  hq_kill_only(kinds);
  hq_kill_arm(folder, k, half, loss, seed);
}

unsigned long hq_kill_steps(void) { return atomic_load(&steps); }

static int below(const char *path) {
  return !strncmp(path, root, root_length) && path[root_length] == '/' && strcmp(path + root_length, "/lock");
}

static int watched(int fd) {
  char link[64], path[PATH_MAX];
  if (!root_length || fd < 0) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(link, path, sizeof path - 1);
  if (n <= 0) return 0;
  path[n] = 0;
  return !strcmp(path, root) || below(path);
}

static int watched_name(int at, const char *name) {
  char folder[PATH_MAX], copy[PATH_MAX];
  if (!root_length) return 0;
  if (at != AT_FDCWD && name[0] != '/') return watched(at);
  snprintf(copy, sizeof copy, "%s", name);
  char *slash = strrchr(copy, '/');
  if (!slash) return 0;
  *slash = 0;
  return realpath(copy, folder) && (!strcmp(folder, root) || below(folder));
}

static void die(void) {
  if (power >= 0) {
    void (*cut)(int, unsigned long long) = (void (*)(int, unsigned long long))dlsym(RTLD_DEFAULT, "hq_powerloss_cut");
    if (!cut) abort();
    cut(power, power_seed);
  }
  kill(getpid(), SIGKILL);
  for (;;) pause();
}

/* 1: this is the one. */
static int reached(int kind) { return (counted & kind) && atomic_fetch_add(&steps, 1) + 1 == kill_at; }
static void step(int kind, int counts) { if (counts && reached(kind)) die(); }

#define PWRITE(name) ssize_t name(int fd, const void *data, size_t size, off_t offset) { REAL(#name, ssize_t (int, const void *, size_t, off_t)); \
  if (watched(fd) && reached(WRITES)) { if (half_write && size > 1) real(fd, data, size / 2, offset); die(); } \
  return real(fd, data, size, offset); }
PWRITE(pwrite) PWRITE(pwrite64)

ssize_t write(int fd, const void *data, size_t size) {
  REAL("write", ssize_t (int, const void *, size_t));
  if (watched(fd) && reached(WRITES)) { if (half_write && size > 1) real(fd, data, size / 2); die(); }
  return real(fd, data, size);
}

/* Parts of a vector are written one by one: half of them, and half of the one in the middle. */
static void write_half(int fd, const struct iovec *parts, int count, off_t offset, ssize_t (*write_at)(int, const void *, size_t, off_t)) {
  for (int i = 0; i <= count / 2 && i < count; i++) {
    size_t size = i == count / 2 ? parts[i].iov_len / 2 : parts[i].iov_len;
    if (size) write_at(fd, parts[i].iov_base, size, offset);
    offset += (off_t)size;
  }
}

#define PWRITEV(name) ssize_t name(int fd, const struct iovec *parts, int count, off_t offset) { REAL(#name, ssize_t (int, const struct iovec *, int, off_t)); \
  if (watched(fd) && reached(WRITES)) { \
    if (half_write) write_half(fd, parts, count, offset, (ssize_t (*)(int, const void *, size_t, off_t))dlsym(RTLD_NEXT, "pwrite")); \
    die(); } \
  return real(fd, parts, count, offset); }
PWRITEV(pwritev) PWRITEV(pwritev64)

ssize_t writev(int fd, const struct iovec *parts, int count) {
  REAL("writev", ssize_t (int, const struct iovec *, int));
  step(WRITES, watched(fd));
  return real(fd, parts, count);
}

#define SYNC(name) int name(int fd) { REAL(#name, int (int)); step(SYNCS, watched(fd)); return real(fd); }
SYNC(fsync) SYNC(fdatasync)

#define FTRUNCATE(name) int name(int fd, off_t size) { REAL(#name, int (int, off_t)); step(SIZES, watched(fd)); return real(fd, size); }
FTRUNCATE(ftruncate) FTRUNCATE(ftruncate64)

#define TRUNCATE(name) int name(const char *path, off_t size) { REAL(#name, int (const char *, off_t)); step(SIZES, watched_name(AT_FDCWD, path)); return real(path, size); }
TRUNCATE(truncate) TRUNCATE(truncate64)

#define FALLOCATE(name) int name(int fd, int mode, off_t offset, off_t size) { REAL(#name, int (int, int, off_t, off_t)); \
  step(SIZES, watched(fd)); return real(fd, mode, offset, size); }
FALLOCATE(fallocate) FALLOCATE(fallocate64)

#define PFALLOCATE(name) int name(int fd, off_t offset, off_t size) { REAL(#name, int (int, off_t, off_t)); step(SIZES, watched(fd)); return real(fd, offset, size); }
PFALLOCATE(posix_fallocate) PFALLOCATE(posix_fallocate64)

int renameat(int from_at, const char *from, int to_at, const char *to) {
  REAL("renameat", int (int, const char *, int, const char *));
  step(NAMES, watched_name(from_at, from));
  return real(from_at, from, to_at, to);
}

int rename(const char *from, const char *to) {
  REAL("rename", int (const char *, const char *));
  step(NAMES, watched_name(AT_FDCWD, from));
  return real(from, to);
}

int unlinkat(int at, const char *path, int flags) {
  REAL("unlinkat", int (int, const char *, int));
  step(NAMES, watched_name(at, path));
  return real(at, path, flags);
}

int unlink(const char *path) {
  REAL("unlink", int (const char *));
  step(NAMES, watched_name(AT_FDCWD, path));
  return real(path);
}
