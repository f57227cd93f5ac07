"""The mutants whose place is the way of a write before it is proposed, and its applying."""

# ruff: noqa: E501 (the source that is replaced stands in one piece, so that it can be searched for)
from __future__ import annotations

from .model import Killer, Mutant

GATE = "runtime/gate.py"
SESSION = "_accel/native/apply_session.c"
JOURNAL = "_accel/native/apply_journal.c"

SQL = (
    Mutant(
        "M54", "a database, opened anew or as an image, has no sessions", JOURNAL,
        'int rc = read_column(w, "SELECT state FROM _hiqlite_session ORDER BY id", &kept);', "int rc = SQLITE_OK;", Killer.SESSIONS, "apply",
    ),
    Mutant(
        "M54b", "what the newest runs did to sessions is not read", JOURNAL,
        "FROM _hiqlite_run WHERE answers IS NOT NULL ORDER BY", "FROM _hiqlite_run WHERE answers IS NULL ORDER BY", Killer.SESSIONS, "apply",
    ),
    Mutant(
        "M60", "what memory or disk could not do is recorded as a result", "_accel/native/apply_error.c",
        "    default:\n        return 1;", "    default:\n        return 0;", Killer.APPLY, "apply",
    ),
    Mutant(
        "M61", "a failing statement in a txn leaves its predecessors", "_accel/native/apply_entry.c",
        "    if (hq_savepoint_undo(w) != SQLITE_DONE)", "    if (hq_savepoint_close(w) != SQLITE_DONE)", Killer.APPLYING, "apply",
    ),
    Mutant(
        "M62", "deferred foreign keys wait for COMMIT", "_accel/native/apply_entry.c",
        "    if (violated <= 0)\n        return violated < 0", "    if (violated <= 1)\n        return violated < 0", Killer.APPLYING, "apply",
    ),
    Mutant(
        "M62b", "what a failed statement left of deferred foreign keys is not looked at", "_accel/native/apply_entry.c",
        "violated < 0 ? not_asked(w) : violated ? HQ_UNDO : HQ_FAILED", "violated < 0 ? not_asked(w) : HQ_FAILED",
        Killer.POISON, "apply",
    ),
    Mutant(
        "M62c", "rows before an unforeseen end of a statement stay", "_accel/native/apply_statement.c",
        "    if (unforeseen)\n        return HQ_UNDO;\n", "    (void)unforeseen;\n", Killer.POISON, "apply",
    ),
    Mutant(
        "M63", "a sequence below the highest one seen is dropped", SESSION,
        "if (c->sequence < s->now.low) {", "if (c->sequence < s->now.low || (s->end > s->now.live && c->sequence < s->kept[s->end - 1].sequence)) {", Killer.SESSIONS, "apply",
    ),
    Mutant(
        "M63b", "an answer is kept though the client has moved on", SESSION,
        "        hq_kept_pass(s, low);\n        if (group_ns", "        if (group_ns", Killer.SESSIONS, "apply",
    ),
    Mutant(
        "M64", "an expired session lives on when it is used again", SESSION,
        "if (!s || group_ns - s->now.seen_ns > s->ttl_ns) {", "if (!s) {", Killer.SESSIONS, "apply",
    ),
    Mutant(
        "M65", "group time goes back when a leader is elected again", "runtime/group_time.py",
        "        self.saw(time_ns)\n        return self.newest_seen_ns", "        return time_ns", Killer.CLOCK,
    ),
    Mutant(
        "M66", "chance comes from the node", "_accel/native/apply_entry.c",
        "entry_begin(w->wall_ns, hq_record_seed(record))", "entry_begin(w->wall_ns, (uint64_t)hq_now_ns())", Killer.APPLYING, "apply",
    ),
    Mutant(
        "M67", "judged by the schema before a change that is under way", GATE,
        "self.closed = self._wants_level = cost is Cost.CHANGES_SCHEMA", "self.closed = self._wants_level = False", Killer.GATE,
    ),
    Mutant(
        "M67b", "judged by the schema before a change that was tried", GATE,
        "self._wants_level = verdict.changes_schema", "self._wants_level = False", Killer.GATE,
    ),
    Mutant(
        "M67c", "judged by the schema before a change that waited", GATE,
        "                self._wants_level = True\n                return\n        self.closed = False", "                break\n        self.closed = False", Killer.GATE,
    ),
    Mutant(
        "M67d", "tried before all that it will meet is applied", GATE,
        "self._wants_level = not self._is_level()\n                if not self._wants_level:", "if self._trial is None:", Killer.GATE,
    ),
    Mutant(
        "M67e", "a write overtakes those that wait", GATE,
        "if not self.closed and self._passes(record, waiting):", "if self._passes(record, waiting):", Killer.GATE,
    ),
)
