/* guard_walfile.c: SQLite's own log, written in one piece per commit.

   SQLite writes a commit to its WAL as two calls per page: a frame header of 24 bytes, then the page. A run of 64 rows in
   64 leaves is 130 system calls, most of what applying it costs. Here the WAL's file gathers writes that follow each other
   and hands them on as one, at the latest

     with the page behind the frame header that says "commit" (its bytes 4..7 are not zero): before SQLite publishes the
       frames in the wal-index, so no reader is ever sent to bytes that are not in the file, and so that an error (a full
       disk) reaches the statement that committed;
     before anything else that could see the difference: a write elsewhere, a read of those bytes, a sync, a truncation,
       a look at the size, the close.

   What is lost with the process was never published; a commit cut short by a crash is what SQLite's checksums are for.
   It also has the system begin to write them to the disk, half a megabyte at a time. Else nothing of SQLite's log would
   reach the disk before a checkpoint syncs all of it at once, and the node's own log, which every write waits for, would
   stand behind those megabytes (measured: p99 of an INSERT 9.6 ms instead of 3.3 ms).

   Invariant: the bytes behind the buffer are in the file in the order in which SQLite wrote them. Must not know what a
   page holds. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "guard_parts.h"

enum {
    FRAME_HEADER = 24,
    GATHER_BYTES = 31 * (FRAME_HEADER + 4096), /* SQLite's unix files take less than 128 KiB at once */
    BEGIN_BYTES = 512 << 10,                   /* smaller pieces cost more calls, larger ones delay the log more */
};

typedef struct walfile {
    sqlite3_file face;
    sqlite3_file *inner; /* the base's file, behind this struct */
    uint8_t *bytes; /* GATHER_BYTES of them, or NULL before the first write */
    size_t size;
    sqlite3_int64 offset; /* of bytes[0] in the file */
    int commits;          /* the frame header written last says "commit" */
    const char *name;
    int descriptor;       /* of the same file, for begin_writing only; -1: none */
    sqlite3_int64 begun;  /* the system was asked to write what stands before this offset */
} walfile;

static walfile *of(sqlite3_file *file) { return (walfile *)file; }

/* The one thing here that is special to Linux; elsewhere the sync of the checkpoint does it all. A hint: it may fail. */
static void begin_writing(walfile *w, sqlite3_int64 end) {
#ifdef __linux__
    if (end < w->begun)
        w->begun = 0; /* SQLite began its log anew */
    if (end - w->begun < BEGIN_BYTES)
        return;
    if (w->descriptor < 0)
        w->descriptor = open(w->name, O_RDONLY | O_CLOEXEC);
    if (w->descriptor >= 0)
        sync_file_range(w->descriptor, w->begun, end - w->begun, SYNC_FILE_RANGE_WRITE);
#endif
    w->begun = end;
}

static int flush(walfile *w) {
    size_t size = w->size;
    if (!size)
        return SQLITE_OK;
    w->size = 0; /* after an error SQLite rolls back: these frames are void, and their place is written again */
    int rc = w->inner->pMethods->xWrite(w->inner, w->bytes, (int)size, w->offset);
    if (rc == SQLITE_OK)
        begin_writing(w, w->offset + (sqlite3_int64)size);
    return rc;
}

static int walfile_write(sqlite3_file *file, const void *bytes, int amount, sqlite3_int64 offset) {
    walfile *w = of(file);
    size_t size = (size_t)amount;
    int is_header = amount == FRAME_HEADER;
    int ends = !is_header && (w->commits || w->size == 0);
    if (w->size && (offset != w->offset + (sqlite3_int64)w->size || w->size + size > GATHER_BYTES)) {
        int rc = flush(w);
        if (rc != SQLITE_OK)
            return rc;
    }
    if (!w->bytes)
        w->bytes = malloc(GATHER_BYTES);
    w->commits = is_header && memcmp((const uint8_t *)bytes + 4, "\0\0\0\0", 4) != 0;
    if (!w->bytes || size > GATHER_BYTES)
        return w->inner->pMethods->xWrite(w->inner, bytes, amount, offset);
    if (w->size == 0)
        w->offset = offset;
    memcpy(w->bytes + w->size, bytes, size);
    w->size += size;
    return ends ? flush(w) : SQLITE_OK;
}

static int walfile_read(sqlite3_file *file, void *bytes, int amount, sqlite3_int64 offset) {
    walfile *w = of(file);
    if (w->size && offset + amount > w->offset) {
        int rc = flush(w);
        if (rc != SQLITE_OK)
            return rc;
    }
    return w->inner->pMethods->xRead(w->inner, bytes, amount, offset);
}

static int walfile_close(sqlite3_file *file) {
    walfile *w = of(file);
    int flushed = flush(w), closed = w->inner->pMethods->xClose(w->inner);
    if (w->descriptor >= 0)
        close(w->descriptor); /* SQLite holds no lock on a WAL, so none is lost by this */
    w->descriptor = -1;
    free(w->bytes);
    w->bytes = NULL;
    return flushed != SQLITE_OK ? flushed : closed;
}

static int walfile_truncate(sqlite3_file *file, sqlite3_int64 size) {
    int rc = flush(of(file));
    return rc != SQLITE_OK ? rc : of(file)->inner->pMethods->xTruncate(of(file)->inner, size);
}

static int walfile_sync(sqlite3_file *file, int flags) {
    int rc = flush(of(file));
    return rc != SQLITE_OK ? rc : of(file)->inner->pMethods->xSync(of(file)->inner, flags);
}

static int walfile_size(sqlite3_file *file, sqlite3_int64 *size) {
    int rc = flush(of(file));
    return rc != SQLITE_OK ? rc : of(file)->inner->pMethods->xFileSize(of(file)->inner, size);
}

static int walfile_lock(sqlite3_file *file, int level) { return of(file)->inner->pMethods->xLock(of(file)->inner, level); }

static int walfile_unlock(sqlite3_file *file, int level) {
    return of(file)->inner->pMethods->xUnlock(of(file)->inner, level);
}

static int walfile_reserved(sqlite3_file *file, int *held) {
    return of(file)->inner->pMethods->xCheckReservedLock(of(file)->inner, held);
}

static int walfile_control(sqlite3_file *file, int op, void *argument) {
    return of(file)->inner->pMethods->xFileControl(of(file)->inner, op, argument);
}

static int walfile_sector(sqlite3_file *file) { return of(file)->inner->pMethods->xSectorSize(of(file)->inner); }

static int walfile_characteristics(sqlite3_file *file) {
    return of(file)->inner->pMethods->xDeviceCharacteristics(of(file)->inner);
}

/* Version 1: shared memory and mapped pages belong to the database's file, never to its WAL's. */
static const sqlite3_io_methods METHODS = {
    .iVersion = 1,
    .xClose = walfile_close,
    .xRead = walfile_read,
    .xWrite = walfile_write,
    .xTruncate = walfile_truncate,
    .xSync = walfile_sync,
    .xFileSize = walfile_size,
    .xLock = walfile_lock,
    .xUnlock = walfile_unlock,
    .xCheckReservedLock = walfile_reserved,
    .xFileControl = walfile_control,
    .xSectorSize = walfile_sector,
    .xDeviceCharacteristics = walfile_characteristics,
};

size_t hq_walfile_bytes(void) { return (sizeof(walfile) + 15) & ~(size_t)15; }

/* As xOpen, for a WAL; `file` has room for hq_walfile_bytes() and the base's own struct behind them. */
int hq_walfile_open(sqlite3_vfs *base, sqlite3_filename name, sqlite3_file *file, int flags, int *out_flags) {
    walfile *w = of(file);
    memset(w, 0, sizeof *w);
    w->name = name; /* SQLite keeps it as long as the file */
    w->descriptor = -1;
    w->inner = (sqlite3_file *)((uint8_t *)file + hq_walfile_bytes());
    int rc = base->xOpen(base, name, w->inner, flags, out_flags);
    if (rc == SQLITE_OK)
        w->face.pMethods = &METHODS;
    return rc;
}
