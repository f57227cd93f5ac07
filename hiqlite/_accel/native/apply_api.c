/* apply_api.c: the door through which SQLite gives this extension its table of functions. */
#define HQ_APPLY_API
#include "sqlite3ext.h"
SQLITE_EXTENSION_INIT1
#include "apply.h"
#include "apply_queue.h"

int hq_apply_loaded(void) { return sqlite3_api != NULL; }

/* SQLite calls this for each connection that loads the extension; it stays for the life of the process. */
__attribute__((visibility("default"))) int sqlite3_apply_init(sqlite3 *db, char **message,
                                                              const sqlite3_api_routines *api) {
    (void)db;
    (void)message;
    SQLITE_EXTENSION_INIT2(api);
    return SQLITE_OK_LOAD_PERMANENTLY;
}
