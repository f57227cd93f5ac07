/* apply_error.c: which errors are results, equal on all nodes, and which speak of this node only.

   Rule: only codes that the statement and the data decide are results. Everything that this node's memory, disk, locks or
   our own mistakes can cause stops the worker; it is better to wait than to differ.
   Four codes look environmental and are not: what a virtual table reports about its own content, which users can spoil
   by SQL (CORRUPT_VTAB; where a disk did it, the running hash differs and tells), a virtual table that is read and
   written by one statement (LOCKED_VTAB) or that is made of itself (LOCKED: nobody else has this connection), and FULL
   where the disk had no part in it (see apply_statement.c). */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "apply.h"

int hq_is_environmental(int extended_code) {
    if (extended_code == SQLITE_CORRUPT_VTAB || extended_code == SQLITE_LOCKED_VTAB || extended_code == SQLITE_LOCKED)
        return 0;
    switch (extended_code & 0xff) {
    case SQLITE_ERROR:
    case SQLITE_ABORT:
    case SQLITE_SCHEMA:
    case SQLITE_TOOBIG:
    case SQLITE_CONSTRAINT:
    case SQLITE_MISMATCH:
    case SQLITE_AUTH:
    case SQLITE_FORMAT:
    case SQLITE_RANGE:
    case SQLITE_NOTFOUND:
    case SQLITE_EMPTY:
        return 0;
    default:
        return 1;
    }
}

/* A message may have been cut in the middle of a character; answers carry UTF-8. */
static uint32_t whole_characters(char *message, size_t size) {
    while (size > 0 && !hq_utf8_valid((const uint8_t *)message, size)) {
        size_t back = size - 1;
        while (back > 0 && ((uint8_t)message[back] & 0xC0) == 0x80)
            back--;
        if (size - back <= 4 && hq_utf8_valid((const uint8_t *)message, back)) {
            size = back;
            break;
        }
        for (size_t i = 0; i < size; i++) /* hostile bytes from the statement itself */
            if ((uint8_t)message[i] >= 0x80)
                message[i] = '?';
    }
    return (uint32_t)size;
}

void hq_error_set(hq_apply *w, int class_, int code, const char *format, ...) {
    hq_error *e = &w->error;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(e->message, sizeof e->message, format, arguments);
    va_end(arguments);
    e->class_ = (uint16_t)class_;
    e->code = code;
    e->size = whole_characters(e->message, strlen(e->message));
}

/* The connection's last error: a result (FAILED), or a reason to stop. A refusal of the guard explains what SQLite's own
   message would not. */
hq_outcome hq_sqlite_error(hq_apply *w) {
    int code = sqlite3_extended_errcode(w->db);
    const char *message = sqlite3_errmsg(w->db);
    if (hq_is_environmental(code))
        return hq_stop(w, code, message);
    const char *reason = w->guard_api->refusal(w->guard);
    if (reason)
        hq_error_set(w, w->guard_api->refusal_class(w->guard), code, "%s", reason);
    else
        hq_error_set(w, w->guard_api->error_class(code, message), code, "%s", message);
    return HQ_FAILED;
}

hq_outcome hq_stop(hq_apply *w, int code, const char *what) {
    w->failure.code = code ? code : SQLITE_INTERNAL;
    w->failure.index = w->index;
    snprintf(w->failure.message, sizeof w->failure.message, "%s", what);
    whole_characters(w->failure.message, strlen(w->failure.message));
    return HQ_STOP;
}

/* With the connection's own words; `what` says what was being done. */
hq_outcome hq_stop_sqlite(hq_apply *w, const char *what) {
    char text[HQ_MESSAGE_MAX];
    snprintf(text, sizeof text, "%s: %s", what, sqlite3_errmsg(w->db));
    return hq_stop(w, sqlite3_extended_errcode(w->db), text);
}
