/* Ends the process (SIGKILL) right before its k-th change of a file below a folder: KILL_AT_FOLDER, KILL_AT (1, 2, ...).
 * Preloaded. A change is a write, a truncation, or a flush. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static char folder[PATH_MAX];
static long limit;
static atomic_long seen;

__attribute__((constructor)) static void begin(void) {
  const char *where = getenv("KILL_AT_FOLDER"), *when = getenv("KILL_AT");
  if (where && when && realpath(where, folder)) limit = atol(when);
}

static void count(int fd) {
  char link[64], path[PATH_MAX];
  if (!limit) return;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t size = readlink(link, path, sizeof path - 1);
  if (size <= 0) return;
  path[size] = 0;
  if (strncmp(path, folder, strlen(folder)) == 0 && atomic_fetch_add(&seen, 1) + 1 == limit) kill(getpid(), SIGKILL);
}

#define WATCHED(result, name, parameters, arguments) \
  result name parameters { \
    static result (*real) parameters; \
    if (!real) real = (result (*) parameters)dlsym(RTLD_NEXT, #name); \
    count(fd); \
    return real arguments; \
  }

WATCHED(ssize_t, write, (int fd, const void *bytes, size_t size), (fd, bytes, size))
WATCHED(ssize_t, pwrite, (int fd, const void *bytes, size_t size, off_t at), (fd, bytes, size, at))
WATCHED(ssize_t, pwrite64, (int fd, const void *bytes, size_t size, off64_t at), (fd, bytes, size, at))
WATCHED(ssize_t, pwritev, (int fd, const struct iovec *parts, int count_, off_t at), (fd, parts, count_, at))
WATCHED(int, ftruncate, (int fd, off_t size), (fd, size))
WATCHED(int, ftruncate64, (int fd, off64_t size), (fd, size))
WATCHED(int, fsync, (int fd), (fd))
WATCHED(int, fdatasync, (int fd), (fd))
