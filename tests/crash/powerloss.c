/* A disk that loses power: preloaded under a node (LD_PRELOAD), it keeps beside the data folder a shadow folder that
 * holds exactly what has been made durable. Every write to a file below HQ_POWERLOSS_ROOT is remembered in memory and
 * reaches the shadow only when its file is synced (fsync, fdatasync, or a descriptor opened O_SYNC/O_DSYNC); names
 * (create, rename, unlink) reach it when their directory, or for new files the file itself, is synced: the sync of one
 * directory says nothing of another. Killing the process at any moment and putting the shadow in the place of the folder
 * is a loss of power at that moment, on a disk that lost all it could. hq_powerloss_cut makes the disk keep some of it.
 * With HQ_POWERLOSS_CLEAN what an earlier life left unsynced is taken for written and is not: a sync of that life failed.
 * With HQ_POWERLOSS_AT=k the process kills itself right after the k-th time that something became durable: one run for
 * each k meets every state that a loss of power can leave.
 *
 * Sees the log, LMDB (its meta page is written through a second O_DSYNC descriptor) and SQLite alike. Memory maps are
 * not seen; none of the three writes durable data through one.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

typedef struct event { struct event *next; off_t offset; size_t size; char data[]; } event; /* size 0: truncate to offset */
typedef struct file {
  struct file *next;
  dev_t device; ino_t inode;
  char path[PATH_MAX];   /* relative to the root, now */
  char shadow[PATH_MAX]; /* relative name under which the shadow knows it; "" before it is durable */
  event *head, *tail;
} file;
typedef struct name_change { struct name_change *next; char from[PATH_MAX], to[PATH_MAX]; } name_change; /* to "": unlink */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static file *files;
static name_change *changes, **changes_end = &changes;
static char root[PATH_MAX], shadow_root[PATH_MAX];
static long moments, last_moment;
#define FDS 65536
static struct { char used, sync; } fds[FDS];

#define REAL(name, type) static __typeof__(type) *real_slot; __typeof__(type) *real = real_slot; if (!real) real_slot = real = (__typeof__(type) *)dlsym(RTLD_NEXT, name)

/* From here on what becomes durable below `r` is in `s`, which must be an equal copy. Called once, or by the environment. */
void hq_powerloss_begin(const char *r, const char *s) {
  if (r && s && realpath(r, root)) snprintf(shadow_root, sizeof shadow_root, "%s", s);
  if (getenv("HQ_POWERLOSS_AT")) last_moment = atol(getenv("HQ_POWERLOSS_AT"));
}

/* Something became durable. */
static void moment(void) {
  if (root[0] && last_moment && ++moments == last_moment) kill(getpid(), SIGKILL);
}

__attribute__((constructor)) static void begin(void) {
  hq_powerloss_begin(getenv("HQ_POWERLOSS_ROOT"), getenv("HQ_POWERLOSS_SHADOW"));
}

/* Path of `fd` relative to the root, or 0 when it is not below it. */
static int relative(int fd, char *out) {
  char link[64], path[PATH_MAX];
  if (!root[0] || fd < 0) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(link, path, sizeof path - 1);
  if (n <= 0) return 0;
  path[n] = 0;
  size_t length = strlen(root);
  if (strncmp(path, root, length) || (path[length] != '/' && path[length])) return 0;
  snprintf(out, PATH_MAX, "%s", path[length] ? path + length + 1 : "");
  return 1;
}

static int relative_name(const char *path, char *out) {
  char copy[PATH_MAX], folder[PATH_MAX];
  if (!root[0]) return 0;
  snprintf(copy, sizeof copy, "%s", path);
  char *slash = strrchr(copy, '/');
  const char *base = slash ? slash + 1 : copy;
  if (slash) *slash = 0;
  if (!realpath(slash ? (copy[0] ? copy : "/") : ".", folder)) return 0;
  size_t length = strlen(root);
  if (strncmp(folder, root, length) || (folder[length] != '/' && folder[length])) return 0;
  if (folder[length]) { if (snprintf(out, PATH_MAX, "%s/%s", folder + length + 1, base) >= PATH_MAX) return 0; }
  else snprintf(out, PATH_MAX, "%s", base);
  return 1;
}

static void shadow_path(char *out, const char *name) {
  if (snprintf(out, PATH_MAX * 2, "%s/%s", shadow_root, name) < 0) abort();
}

static void make_folders(const char *name) {
  char path[PATH_MAX * 2];
  shadow_path(path, name);
  for (char *p = path + strlen(shadow_root) + 1; (p = strchr(p, '/')); p++) { *p = 0; mkdir(path, 0700); *p = '/'; }
}

static char *content(const char *path, size_t *size) {
  typedef int (*open_t)(const char *, int, ...);
  struct stat st;
  char *data = NULL;
  int fd = ((open_t)dlsym(RTLD_NEXT, "open"))(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return NULL;
  if (!fstat(fd, &st) && (data = malloc((size_t)st.st_size + 1)) && pread(fd, data, (size_t)st.st_size, 0) != st.st_size) abort();
  *size = (size_t)st.st_size;
  close(fd);
  return data;
}

enum which { FOLDER, NAME, EVERY };
static void remember(file *f, off_t offset, const void *data, size_t size);
static void names_durable(const char *of, enum which which, unsigned count);

/* What an earlier life wrote into a file and did not sync stands only in memory still: a sync of this life saves it. */
static void remember_unsynced(file *f) {
  char path[PATH_MAX * 2];
  size_t here_size, there_size;
  if (getenv("HQ_POWERLOSS_CLEAN")) return;
  if (snprintf(path, sizeof path, "%s/%s", root, f->path) < 0) abort();
  char *here = content(path, &here_size), *there;
  shadow_path(path, f->shadow);
  there = content(path, &there_size);
  if (here && there && (here_size != there_size || memcmp(here, there, here_size))) {
    remember(f, (off_t)here_size, "", 0);
    if (here_size) remember(f, 0, here, here_size);
  }
  free(here);
  free(there);
}

static void forget(file **link) {
  file *f = *link;
  *link = f->next;
  for (event *e = f->head, *next; e; e = next) { next = e->next; free(e); }
  free(f);
}

static file *find(int fd) {
  struct stat st;
  char path[PATH_MAX];
  if (fd < 0 || fd >= FDS || !fds[fd].used || fstat(fd, &st)) return NULL;
  for (file **link = &files; *link; link = &(*link)->next) {
    file *f = *link;
    if (f->inode != st.st_ino || f->device != st.st_dev) continue;
    if (f->path[0] || !st.st_nlink) return f;
    forget(link); /* another file was renamed over it, and a new one was given the number of its inode */
    break;
  }
  if (!relative(fd, path)) return NULL;
  file *f = calloc(1, sizeof *f);
  f->device = st.st_dev; f->inode = st.st_ino;
  snprintf(f->path, PATH_MAX, "%s", path);
  char there[PATH_MAX * 2];
  shadow_path(there, path);
  int taken = 0; /* what the shadow has under this name is another file, which went away since */
  for (name_change *c = changes; c; c = c->next) taken |= !strcmp(c->from, path);
  if (!taken && !access(there, F_OK)) snprintf(f->shadow, PATH_MAX, "%s", path); /* durable since an earlier life */
  if (f->shadow[0]) remember_unsynced(f);
  f->next = files;
  return files = f;
}

static void remember(file *f, off_t offset, const void *data, size_t size) {
  event *e = malloc(sizeof *e + size);
  e->next = NULL; e->offset = offset; e->size = size;
  memcpy(e->data, data, size);
  if (f->tail) f->tail->next = e; else f->head = e;
  f->tail = e;
}

static unsigned long long chance;
static unsigned dice(unsigned sides) { /* 0 .. sides - 1 */
  chance = chance * 6364136223846793005ull + 1442695040888963407ull;
  return (unsigned)((chance >> 33) % sides);
}

enum { ALL = 0, TORN = 1, ANY = 2 };
enum { SECTOR = 512 };

/* TORN: a random number of the pending writes of the file, in order, the last one up to a sector.
 * ANY: each sector of each write by chance, each change of size by chance. */
static event *choose(event *head, int how) {
  event *kept = NULL, **end = &kept;
  unsigned count = 0, luck = dice(3); /* ANY: a third of the files keep all, a third half, a third little */
  for (event *e = head; e; e = e->next) count++;
  unsigned keep = count ? dice(count + 1) : 0, at = 0;
  for (event *e = head; e; e = e->next, at++) {
    size_t low = 0, high = e->size;
    if (how == TORN && at > keep) break;
    if (how == TORN && at == keep) { high = e->size ? dice((unsigned)(e->size / SECTOR) + 1) * SECTOR : 0; if (!high) break; }
    if (!e->size) {
      if (how == ANY && luck && dice(2)) continue;
      event *copy = malloc(sizeof *copy);
      *copy = (event){.offset = e->offset};
      *end = copy; end = &copy->next;
      continue;
    }
    for (size_t step; low < high; low += step) {
      step = how == TORN ? high - low : SECTOR - (size_t)((e->offset + (off_t)low) % SECTOR);
      if (step > high - low) step = high - low;
      if (how == ANY && luck && dice(luck == 1 ? 2 : 8)) continue;
      event *copy = malloc(sizeof *copy + step);
      copy->next = NULL; copy->offset = e->offset + (off_t)low; copy->size = step;
      memcpy(copy->data, e->data + low, step);
      *end = copy; end = &copy->next;
    }
  }
  return kept;
}

static void make_durable(file *f) {
  typedef int (*open_t)(const char *, int, ...);
  typedef ssize_t (*pwrite_t)(int, const void *, size_t, off_t);
  typedef int (*truncate_t)(int, off_t);
  char path[PATH_MAX * 2];
  open_t real_open = (open_t)dlsym(RTLD_NEXT, "open");
  pwrite_t real_pwrite = (pwrite_t)dlsym(RTLD_NEXT, "pwrite");
  truncate_t real_truncate = (truncate_t)dlsym(RTLD_NEXT, "ftruncate");
  if (!f->shadow[0]) {
    names_durable(f->path, NAME, UINT_MAX); /* a name is durable with what was there before it gone */
    snprintf(f->shadow, PATH_MAX, "%s", f->path);
  }
  make_folders(f->shadow);
  shadow_path(path, f->shadow);
  int fd = real_open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) abort();
  for (event *e = f->head, *next; e; e = next) {
    next = e->next;
    if (e->size ? real_pwrite(fd, e->data, e->size, e->offset) != (ssize_t)e->size : real_truncate(fd, e->offset)) abort();
    free(e);
  }
  f->head = f->tail = NULL;
  close(fd);
  moment();
}

static void wrote(int fd, off_t offset, const void *data, size_t size) {
  pthread_mutex_lock(&lock);
  file *f = find(fd);
  if (f) { remember(f, offset, data, size); if (fds[fd].sync) make_durable(f); }
  pthread_mutex_unlock(&lock);
}

static int lies_in(const char *name, const char *folder) {
  size_t length = strlen(folder);
  const char *rest = length ? name + length + 1 : name;
  return name[0] && (!length || (!strncmp(name, folder, length) && name[length] == '/')) && !strchr(rest, '/');
}

/* Changes of names in the folder `of`, away from the name `of`, or of all; `count` of them at most. */
static void names_durable(const char *of, enum which which, unsigned count) {
  name_change **link = &changes;
  while (*link && count) {
    name_change *c = *link;
    char from[PATH_MAX * 2], to[PATH_MAX * 2];
    int meant = which == EVERY || (which == NAME ? !strcmp(c->from, of) : lies_in(c->from, of) || lies_in(c->to, of));
    if (!meant) { link = &c->next; continue; }
    *link = c->next; count--;
    shadow_path(from, c->from);
    if (c->to[0]) { make_folders(c->to); shadow_path(to, c->to); }
    typedef int (*rename_t)(const char *, const char *);
    typedef int (*unlink_t)(const char *);
    if (c->to[0]) ((rename_t)dlsym(RTLD_NEXT, "rename"))(from, to);
    else if (((unlink_t)dlsym(RTLD_NEXT, "unlink"))(from)) rmdir(from);
    for (file *f = files; f; f = f->next) if (!strcmp(f->shadow, c->from)) snprintf(f->shadow, PATH_MAX, "%s", c->to);
    free(c);
  }
  changes_end = &changes;
  while (*changes_end) changes_end = &(*changes_end)->next;
}

/* A file that nobody synced has a name now, and nothing in it. */
static void new_names_durable(const char *folder) {
  for (file *f = files; f; f = f->next) {
    if (f->shadow[0] || !lies_in(f->path, folder)) continue;
    event *head = f->head, *tail = f->tail;
    f->head = f->tail = NULL;
    make_durable(f);
    f->head = head; f->tail = tail;
  }
}

/* The power goes: of what is not durable some is kept. The caller ends the process at once. how: 0 nothing, 1 each file
 * up to some moment, the last write torn, 2 sectors in any order. */
void hq_powerloss_cut(int how, unsigned long long seed) {
  pthread_mutex_lock(&lock); /* for ever */
  chance = seed;
  if (how == ALL) return;
  unsigned count = 0;
  for (file *f = files; f; f = f->next) {
    if (!f->path[0] || (!f->shadow[0] && dice(2))) continue;
    f->head = choose(f->head, how);
    if (f->head || f->shadow[0]) make_durable(f);
  }
  for (name_change *c = changes; c; c = c->next) count++;
  if (count) names_durable("", EVERY, dice(count + 1));
}

static void synced(int fd) {
  struct stat st;
  char path[PATH_MAX];
  if (fd < 0 || fstat(fd, &st)) return;
  pthread_mutex_lock(&lock);
  if (S_ISDIR(st.st_mode)) {
    if (relative(fd, path)) {
      names_durable(path, FOLDER, UINT_MAX);
      new_names_durable(path);
      make_folders(path[0] ? strcat(path, "/x") : "x");
      moment();
    }
  } else {
    file *f = find(fd);
    if (f) make_durable(f);
  }
  pthread_mutex_unlock(&lock);
}

static void renamed(const char *from, const char *to) {
  name_change *c = calloc(1, sizeof *c);
  snprintf(c->from, PATH_MAX, "%s", from);
  if (to) snprintf(c->to, PATH_MAX, "%s", to);
  pthread_mutex_lock(&lock);
  file **link = &files;
  while (*link) {
    file *f = *link;
    if (!to && !strcmp(f->path, from)) { forget(link); continue; }
    if (to && !strcmp(f->path, to)) f->path[0] = 0;
    if (to && !strcmp(f->path, from)) snprintf(f->path, PATH_MAX, "%s", to);
    link = &f->next;
  }
  *changes_end = c; changes_end = &c->next;
  pthread_mutex_unlock(&lock);
}

static int opened(int fd, int flags) {
  char path[PATH_MAX];
  if (fd >= 0 && fd < FDS) {
    pthread_mutex_lock(&lock);
    struct stat st;
    fds[fd].used = relative(fd, path) && !fstat(fd, &st) && S_ISREG(st.st_mode) && strcmp(path, "lock") && !strstr(path, "lock.mdb");
    fds[fd].sync = (flags & O_DSYNC) != 0;
    file *f = fds[fd].used ? find(fd) : NULL;
    if (f && (flags & O_TRUNC)) remember(f, 0, "", 0);
    pthread_mutex_unlock(&lock);
  }
  return fd;
}

#define MODE mode_t mode = 0; if (flags & (O_CREAT | O_TMPFILE)) { va_list a; va_start(a, flags); mode = va_arg(a, mode_t); va_end(a); }
#define OPEN(name) int name(const char *path, int flags, ...) { MODE REAL(#name, int (const char *, int, ...)); return opened(real(path, flags, mode), flags); }
#define OPENAT(name) int name(int at, const char *path, int flags, ...) { MODE REAL(#name, int (int, const char *, int, ...)); return opened(real(at, path, flags, mode), flags); }
OPEN(open) OPEN(open64) OPENAT(openat) OPENAT(openat64)

int close(int fd) {
  REAL("close", int (int));
  if (fd >= 0 && fd < FDS) fds[fd].used = 0;
  return real(fd);
}

#define PWRITE(name) ssize_t name(int fd, const void *data, size_t size, off_t offset) { REAL(#name, ssize_t (int, const void *, size_t, off_t)); \
  ssize_t n = real(fd, data, size, offset); if (n > 0 && fd >= 0 && fd < FDS && fds[fd].used) wrote(fd, offset, data, n); return n; }
PWRITE(pwrite) PWRITE(pwrite64)

ssize_t write(int fd, const void *data, size_t size) {
  REAL("write", ssize_t (int, const void *, size_t));
  if (fd < 0 || fd >= FDS || !fds[fd].used) return real(fd, data, size);
  off_t offset = fcntl(fd, F_GETFL) & O_APPEND ? lseek(fd, 0, SEEK_END) : lseek(fd, 0, SEEK_CUR);
  ssize_t n = real(fd, data, size);
  if (n > 0) wrote(fd, offset, data, n);
  return n;
}

static void wrote_parts(int fd, const struct iovec *parts, int count, off_t offset, ssize_t n) {
  for (int i = 0; i < count && n > 0; i++) {
    size_t size = (size_t)n < parts[i].iov_len ? (size_t)n : parts[i].iov_len;
    if (size) wrote(fd, offset, parts[i].iov_base, size);
    offset += size; n -= size;
  }
}

#define PWRITEV(name) ssize_t name(int fd, const struct iovec *parts, int count, off_t offset) { REAL(#name, ssize_t (int, const struct iovec *, int, off_t)); \
  ssize_t n = real(fd, parts, count, offset); if (n > 0 && fd >= 0 && fd < FDS && fds[fd].used) wrote_parts(fd, parts, count, offset, n); return n; }
PWRITEV(pwritev) PWRITEV(pwritev64)

ssize_t writev(int fd, const struct iovec *parts, int count) {
  REAL("writev", ssize_t (int, const struct iovec *, int));
  if (fd < 0 || fd >= FDS || !fds[fd].used) return real(fd, parts, count);
  off_t offset = lseek(fd, 0, SEEK_CUR);
  ssize_t n = real(fd, parts, count);
  if (n > 0) wrote_parts(fd, parts, count, offset, n);
  return n;
}

static void truncated(int fd, off_t size) {
  if (fd < 0 || fd >= FDS || !fds[fd].used) return;
  pthread_mutex_lock(&lock);
  file *f = find(fd);
  if (f) remember(f, size, "", 0);
  pthread_mutex_unlock(&lock);
}
#define FTRUNCATE(name) int name(int fd, off_t size) { REAL(#name, int (int, off_t)); int r = real(fd, size); if (!r) truncated(fd, size); return r; }
FTRUNCATE(ftruncate) FTRUNCATE(ftruncate64)
#define FALLOCATE(name) int name(int fd, int mode, off_t offset, off_t size) { REAL(#name, int (int, int, off_t, off_t)); \
  struct stat st; int r = real(fd, mode, offset, size); if (!r && !mode && !fstat(fd, &st)) truncated(fd, st.st_size); return r; }
FALLOCATE(fallocate) FALLOCATE(fallocate64)
#define PFALLOCATE(name) int name(int fd, off_t offset, off_t size) { REAL(#name, int (int, off_t, off_t)); \
  struct stat st; int r = real(fd, offset, size); if (!r && !fstat(fd, &st)) truncated(fd, st.st_size); return r; }
PFALLOCATE(posix_fallocate) PFALLOCATE(posix_fallocate64)

#define SYNC(name) int name(int fd) { REAL(#name, int (int)); int r = real(fd); if (!r) synced(fd); return r; }
SYNC(fsync) SYNC(fdatasync)

/* Name of `path` as seen from the folder `at`, relative to the root; 0 when it is not below it. */
static int relative_at(int at, const char *path, char *out) {
  char folder[PATH_MAX];
  if (at == AT_FDCWD || path[0] == '/') return relative_name(path, out);
  if (!relative(at, folder)) return 0;
  return snprintf(out, PATH_MAX, "%s%s%s", folder, folder[0] ? "/" : "", path) < PATH_MAX;
}

int renameat(int from_at, const char *from, int to_at, const char *to) {
  char a[PATH_MAX], b[PATH_MAX];
  int inside = relative_at(from_at, from, a) && relative_at(to_at, to, b);
  REAL("renameat", int (int, const char *, int, const char *));
  int r = real(from_at, from, to_at, to);
  if (!r && inside) renamed(a, b);
  return r;
}

int rename(const char *from, const char *to) {
  char a[PATH_MAX], b[PATH_MAX];
  int inside = relative_name(from, a) && relative_name(to, b);
  REAL("rename", int (const char *, const char *));
  int r = real(from, to);
  if (!r && inside) renamed(a, b);
  return r;
}

int unlinkat(int at, const char *path, int flags) {
  char a[PATH_MAX];
  int inside = relative_at(at, path, a);
  REAL("unlinkat", int (int, const char *, int));
  int r = real(at, path, flags);
  if (!r && inside) renamed(a, NULL);
  return r;
}

int unlink(const char *path) {
  char a[PATH_MAX];
  int inside = relative_name(path, a);
  REAL("unlink", int (const char *));
  int r = real(path);
  if (!r && inside) renamed(a, NULL);
  return r;
}

static int cut_file(const char *path, off_t size) {
  int fd = open(path, O_RDWR | O_CLOEXEC);
  if (fd < 0) return -1;
  int r = ftruncate(fd, size), failed = errno;
  close(fd);
  errno = failed;
  return r;
}
#define TRUNCATE(name) int name(const char *path, off_t size) { return cut_file(path, size); }
TRUNCATE(truncate) TRUNCATE(truncate64)
