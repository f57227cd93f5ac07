"""`python -m tests.sim.mutants [M1 M3 ...]`: breaks the engine on purpose and says how many schedules notice.

Each mutant is one small change to a copy of the engine's sources, which runs uncompiled in a folder of its own. The
numbers are those of the fixed list of faults that the suite must kill; a letter marks a second way to make the same
mistake. A mutant that lives means that the simulator is not good enough.
"""

# ruff: noqa: E501 (the source that is replaced stands in one piece, so that it can be searched for)
from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Mutant:
    name: str
    what: str
    file: str
    old: str
    new: str


MUTANTS = (
    Mutant(
        "M1", "vote without the up-to-date check", "election",
        "        and (request.last_term, request.last_index) >= (state.log.last_term, state.last_for_votes())\n", "",
    ),
    Mutant(
        "M2", "last index compared before last term", "election",
        "(request.last_term, request.last_index) >= (state.log.last_term, state.last_for_votes())",
        "(request.last_index, request.last_term) >= (state.last_for_votes(), state.log.last_term)",
    ),
    Mutant("M3", "messages do not wait for the hard state", "ready", "if self.synced_io >= self.term_io:", "if True:"),
    Mutant(
        "M4", "a term adopted from a reply does not become durable", "role",
        "    state.outbox.write_hard_state(term, vote)\n", "    if vote:\n        state.outbox.write_hard_state(term, vote)\n",
    ),
    Mutant("M5", "the vote is forgotten by a restart", "state", "= restored.vote", "= None"),
    Mutant(
        "M6", "a pre-vote raises the term", "election",
        "    if request.pre:\n        _reply(state, request, request.term if grant",
        "    if request.pre:\n        if request.term > state.term:\n            adopt(state, request.term, None)\n"
        "        _reply(state, request, request.term if grant",
    ),
    Mutant("M7", "stickiness ignored", "election", "if request.term > state.term and _hears_leader(state):", "if False:"),
    Mutant(
        "M8", "votes of an earlier campaign are kept", "election",
        "    state.granted = [0] * state.config.size()\n    state.granted[0] = 1 if pre else 0\n",
        "    state.granted[0] = 1 if pre else 0\n",
    ),
    Mutant(
        "M10", "a leader that adopted a higher term goes on", "role",
        "    if was_leader:\n        leave_leadership(state)\n    state.term", "    state.term",
    ),
    Mutant(
        "M11", "a learner votes and counts", "membership",
        "for identity in membership.voters]]", "for identity in membership.voters + membership.learners]]",
    ),
    Mutant(
        "M16", "the heartbeat goes on after stepping down", "raft",
        "self.state.leads and not self.state.fatal", "self.state.vote == self.state.own and not self.state.fatal",
    ),
    Mutant("M17", "a stamp of another term is a sign of life", "follower", "or term != state.term or state.leads", "or state.leads"),
    Mutant(
        "M18", "check-quorum satisfied without round trips", "progress",
        "until = self.round_trip_ns + window_ns", "until = self.round_trip_ns + 1000 * window_ns",
    ),
    Mutant(
        "M18b", "an unanswered append is overlooked", "progress",
        "        if self.unacked_since_ns and", "        if False and",
    ),
    Mutant("M21", "acknowledged before it is durable", "ready", "io = max(self.log_io, self.term_io)", "io = self.term_io"),
    Mutant(
        "M22", "the leader counts itself before its own write is durable", "replication",
        "state.values[0] = state.outbox.synced_index", "state.values[0] = state.log.last_index",
    ),
    Mutant("M23", "commit without the own-term rule", "replication", " or state.log.term_at(index) != state.term:", ":"),
    Mutant(
        "M24", "a short stale append cuts a longer tail", "follower",
        "    if conflict == 0:\n        return True\n",
        "    if conflict == 0:\n        if request.last_index >= log.last_index:\n            return True\n"
        "        conflict = request.last_index + 1\n        log.truncate(conflict - 1)\n"
        "        state.outbox.write_truncate(conflict - 1)\n        return True\n",
    ),
    Mutant(
        "M25", "a follower commits beyond the verified prefix", "follower",
        "state.commit_to(min(request.commit_index, last))", "state.commit_to(min(request.commit_index, state.log.last_index))",
    ),
    Mutant(
        "M26", "an unverified suffix is acknowledged", "follower",
        "request.sender.id, last, request.epoch", "request.sender.id, state.log.last_index, request.epoch",
    ),
    Mutant(
        "M27", "the heartbeat's commit bound is not capped", "follower",
        "min(commit_bound, state.verified_index)", "min(commit_bound, state.log.last_index)",
    ),
    Mutant("M28", "an answer of an earlier session counts", "replication", " or reply.epoch != peer.epoch", ""),
    Mutant("M29", "an answer of another incarnation counts", "state", " or peer.identity.incarnation != identity.incarnation", ""),
    Mutant(
        "M30", "a completion counts after its range was cut", "ready",
        "        self.unwritten = _lowered(self.unwritten, last_kept)\n        self.unsynced = _lowered(self.unsynced, last_kept)\n",
        "",
    ),
    Mutant(
        "M31", "a hint is taken for a match", "progress",
        "        self.unacked_since_ns = 0\n\n    def oldest", "        self.match_index = max(self.match_index, next_index - 1)\n"
        "        self.next_index = max(self.next_index, self.match_index + 1)\n\n    def oldest",
    ),
    Mutant(
        "M32", "the window is not freed after a rejection", "progress",
        "        self.inflight.clear()\n        self.inflight_bytes = 0\n        self.probe_sent_ns = 0", "        self.probe_sent_ns = 0",
    ),
    Mutant("M38", "an applied index beyond the log is acknowledged", "follower", "if state.unconfirmed and not", "if False and not"),
    Mutant(
        "M39", "a read is answered before the first own-term commit", "replication",
        "read_index = state.commit_index if state.commit_index >= state.opened_index else 0", "read_index = state.commit_index",
    ),
    Mutant(
        "M40", "a read is confirmed by answers sent before it arrived", "reads",
        "self.rounds.append((self.round, read_index", "self.rounds.append((self.round - 1, read_index",
    ),
    Mutant(
        "M41", "a read is confirmed by answers of an older term", "replication",
        "    if not state.leads or reply.term != state.term:\n        return\n    sent_ns", "    if not state.leads:\n        return\n    sent_ns",
    ),
    Mutant("M43", "two reads share a token", "reads", "        self.token += 1\n", "        self.token += len(self.queued) == 0\n"),
    Mutant("M59", "applied beyond the own written log", "raft", "min(state.commit_index, state.outbox.written_index)", "state.commit_index"),
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="mutants")
    parser.add_argument("names", nargs="*")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    alive = []
    for mutant in MUTANTS:
        if not options.names or mutant.name in options.names:
            killed, line = run(mutant, options.seconds, options.seed)
            print(f"{mutant.name:5} {'killed' if killed else 'LIVES'}  {mutant.what}: {line}", flush=True)
            if not killed:
                alive.append(mutant.name)
    print(f"mutants alive: {' '.join(alive) or 'none'}")
    return 1 if alive else 0


def run(mutant: Mutant, seconds: float, seed: int) -> tuple[bool, str]:
    """Whether the simulator notices, and its first finding."""
    with tempfile.TemporaryDirectory() as folder:
        copy_sources(Path(folder))
        path = Path(folder) / "hiqlite" / "engine" / f"{mutant.file}.py"
        source = path.read_text()
        if source.count(mutant.old) != 1:
            raise SystemExit(f"{mutant.name}: the place to change occurs {source.count(mutant.old)} times in {mutant.file}")
        path.write_text(source.replace(mutant.old, mutant.new))
        command = [sys.executable, "-m", "tests.sim.run", "--seconds", str(seconds), "--seed", str(seed), "--log", "0"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    last = lines[-1] if lines else done.stderr[-300:]
    return done.returncode != 0, f"{lines[0][:150] if done.returncode and lines else ''} [{last}]"


def copy_sources(folder: Path) -> None:
    """The engine and what it imports, without its compiled twins."""
    target = folder / "hiqlite"
    (target / "engine").mkdir(parents=True)
    (target / "__init__.py").touch()
    for path in [*(ROOT / "hiqlite").glob("config*.py"), *(ROOT / "hiqlite").glob("[ceo]*.py")]:
        shutil.copy(path, target / path.name)
    for path in (ROOT / "hiqlite" / "engine").glob("*.py"):
        shutil.copy(path, target / "engine" / path.name)
    shutil.copytree(ROOT / "tests" / "sim", folder / "tests" / "sim", ignore=shutil.ignore_patterns("__pycache__"))


if __name__ == "__main__":
    sys.exit(main())
