"""The mutants whose place is the log, its recovery, or the database that it is applied to, in Python and in C."""

# ruff: noqa: E501 (the source that is replaced stands in one piece, so that it can be searched for)
from __future__ import annotations

from .model import Killer, Mutant

RECOVERY = "logstore/recovery.py"
STARTING = "logstore/starting.py"
SCAN = "_accel/native/wal_scan.c"

LOG = (
    Mutant(
        "M15", "the older of the two copies of the vote rules", "logstore/recovered.py",
        "if term > self.term or", "if term < self.term or", Killer.LOG,
    ),
    Mutant(
        "M44", "a record without a valid batch header is accepted", SCAN,
        "    if (hq_crc32c(0, header, 44) != hq_get_u32(header + 44))\n        return 0;\n", "", Killer.LOG, "wal",
    ),
    Mutant(
        "M45", "the tail is cut although a later header says that it was synced", RECOVERY,
        "if self.synced <= first:  #", "if True:  #", Killer.LOG,
    ),
    Mutant(
        "M46", "'synced up to' is compared with an index", RECOVERY,
        "if self.synced <= first:  #", "if self.synced <= self.trail.last_index:  #", Killer.LOG,
    ),
    Mutant(
        "M47", "batches behind a cut are read again", SCAN,
        "while (!result->ended && at + HQ_BATCH_HEADER <= size)", "while (at + HQ_BATCH_HEADER <= size)", Killer.LOG, "wal",
    ),
    Mutant(
        "M48", "a faulty entry is told as absent", RECOVERY,
        "            elif kind in (Event.ENTRIES, Event.FAULTY):\n",
        "            elif kind == Event.FAULTY:\n                self.end, self.cut = Position(number, offset, one.end.last_io, 0), True\n"
        "                return\n            elif kind in (Event.ENTRIES, Event.FAULTY):\n", Killer.LOG,
    ),
    Mutant(
        "M49", "records of a segment's first life are accepted", SCAN,
        " || hq_get_u64(header + 8) != wanted->salt)", ")", Killer.LOG, "wal",
    ),
    Mutant("M50", "a truncation is ignored at recovery", RECOVERY, "self.trail.truncate(first)", "self.trail.copy()", Killer.LOG),
    Mutant(
        "M37", "an older list of members is mirrored over a newer one", "cache/machine.py",
        "if its_index > index:", "if its_index > 0:", Killer.CACHE,
    ),
    Mutant(
        "C1", "a state of the cache group is kept ahead of its log", "cache/machine.py",
        " and self._synced_index >= state.applied_index:", ":", Killer.CACHE,
    ),
    Mutant(
        "C2", "what was applied while a state was kept counts as kept", "cache/machine.py",
        "await keep(state)\n            self._durable_index = state.applied_index", "await keep(state)\n            self._durable_index = self.state.applied_index", Killer.CACHE,
    ),
    Mutant(
        "C3", "the cache group's time goes back", "cache/machine.py",
        "time_ns = max(self.state.group_time_ns, newest_time_ns(records))", "time_ns = newest_time_ns(records)", Killer.CACHE,
    ),
    Mutant(
        "M42", "a linearizable read does not wait until this node has applied its index", "client/local.py",
        "index = await self._services.read_round.index(end_s)", "index = 0 * await self._services.read_round.index(end_s)",
        Killer.HISTORIES,
    ),
    Mutant(
        "M51", "purged beyond what the database holds durably", "runtime/purging.py",
        "durable_index = self._machine.durable_index", "durable_index = self._machine.applied_index", Killer.SWEEP,
    ),
    Mutant(
        "M52", "an image is acknowledged before its place is durable", "node_generations.py",
        "            durable.sync_folder(self.folder / name)\n", "", Killer.IMAGES,
    ),
    Mutant(
        "M55", "an image is of a later index than it says", "statemachine/image.py",
        "size_bytes, page_bytes, position.applied_index,", "size_bytes, page_bytes, position.applied_index - 1,", Killer.IMAGES,
    ),
    Mutant(
        "M56", "the generation is switched before its file is synced", "statemachine/image_files.py",
        "                os.fsync(self._descriptor)\n        except", "                pass\n        except", Killer.IMAGES,
    ),
    Mutant(
        "M57", "the applied index moves outside of the data's transaction", "_accel/native/apply_run.c",
        "    hq_outcome outcome = put_row(w, row);\n",
        "    if (hq_own_step(w, HQ_OWN_COMMIT) != SQLITE_DONE || hq_own_step(w, HQ_OWN_BEGIN) != SQLITE_DONE)\n"
        "        return hq_stop_sqlite(w, \"COMMIT failed\");\n    hq_outcome outcome = put_row(w, row);\n", Killer.APPLY, "apply",
    ),
    Mutant(
        "M58", "the node speaks before recovery's fsync", STARTING,
        "    files.sync(list(plan.kept))\n    for number, begin, until in plan.unproven:\n", "    for number, begin, until in ():\n", Killer.LOG,
    ),
    Mutant(
        "M58b", "recovery believes a sync behind one that failed", STARTING,
        "    for number, begin, until in plan.unproven:\n", "    for number, begin, until in ():\n", Killer.LOG,
    ),
)  # fmt: skip
