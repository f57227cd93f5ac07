/* A disk that fails on request, preloaded under a test's child process.
 *
 * The environment variable FAULTY_DISK names a file of 64 bytes that is mapped here; its bytes, while not zero, are the
 * errno that a call gives: [0] fdatasync, [1] pwritev, [2] fallocate, [3] pwrite of zeros, [5] fsync of a file
 * (not of a folder), [6] fdatasync of the filler's thread, once, [8] a write to a database or to SQLite's own log, [9] a
 * sync of one of these, once. [4]: hold fdatasync while set, [10] says that one is held; [7]: hold the filler's zeros.
 * [11]: hold each fdatasync of the log thread until it is allowed: [12] counts those that began, [13] those allowed. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static volatile unsigned char *orders;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("FAULTY_DISK");
    int fd = path == NULL ? -1 : open(path, O_RDWR);
    if (fd < 0)
        _exit(99);
    orders = mmap(NULL, 64, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (orders == MAP_FAILED)
        _exit(99);
}

#define REFUSE(at)                                                                                                     \
    if (orders[at]) {                                                                                                  \
        errno = orders[at];                                                                                            \
        return -1;                                                                                                     \
    }

static int on_thread(const char *begin) {
    char name[16] = "";
    prctl(PR_GET_NAME, name, 0, 0, 0);
    return strncmp(name, begin, strlen(begin)) == 0;
}

static int on_filler(void) { return on_thread("hq-fill"); }

static int is_database(int fd) {
    char link[64], path[4096] = "";
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    return size > 0 && strstr(path, ".db") != NULL;
}

#define REFUSE_ONCE(at, where)                                                                                         \
    if (orders[at] && (where)) {                                                                                       \
        errno = orders[at];                                                                                            \
        orders[at] = 0;                                                                                                \
        return -1;                                                                                                     \
    }

int fdatasync(int fd) {
    static int (*real)(int);
    if (real == NULL)
        real = dlsym(RTLD_NEXT, "fdatasync");
    while (orders[4]) {
        orders[10] = 1;
        usleep(500);
    }
    if (orders[11] && on_thread("hq-log")) {
        unsigned char own = ++orders[12];
        while (orders[11] && orders[13] < own)
            usleep(500);
    }
    REFUSE(0)
    REFUSE_ONCE(6, on_filler())
    REFUSE_ONCE(9, is_database(fd))
    return real(fd);
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset) {
    static ssize_t (*real)(int, const struct iovec *, int, off_t);
    if (real == NULL)
        real = dlsym(RTLD_NEXT, "pwritev");
    REFUSE(1)
    return real(fd, parts, count, offset);
}

int fsync(int fd) {
    static int (*real)(int);
    if (real == NULL)
        real = dlsym(RTLD_NEXT, "fsync");
    struct stat status;
    if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode))
        REFUSE(5)
    REFUSE_ONCE(9, is_database(fd))
    return real(fd);
}

int fallocate(int fd, int mode, off_t offset, off_t size) {
    static int (*real)(int, int, off_t, off_t);
    if (real == NULL)
        real = dlsym(RTLD_NEXT, "fallocate");
    REFUSE(2)
    return real(fd, mode, offset, size);
}

ssize_t pwrite(int fd, const void *bytes, size_t size, off_t offset) {
    static ssize_t (*real)(int, const void *, size_t, off_t);
    if (real == NULL)
        real = dlsym(RTLD_NEXT, "pwrite");
    static const char zeros[64];
    if (size >= sizeof zeros && memcmp(bytes, zeros, sizeof zeros) == 0)
    {
        while (orders[7] && on_filler())
            usleep(500);
        REFUSE(3)
    }
    return real(fd, bytes, size, offset);
}

/* SQLite's writes; the log's go through the one above. */
ssize_t pwrite64(int fd, const void *bytes, size_t size, off64_t offset) {
    static ssize_t (*real)(int, const void *, size_t, off64_t);
    if (real == NULL)
        real = dlsym(RTLD_NEXT, "pwrite64");
    if (orders[8] && is_database(fd))
        REFUSE(8)
    return real(fd, bytes, size, offset);
}
