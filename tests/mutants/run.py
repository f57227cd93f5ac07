"""`python -m tests.mutants.run [M1 M3 ...]`: breaks the product on purpose, one place at a time, and says who noticed.
`--write` puts that into the table of docs/mutants.md.

Each mutant is one small change to a copy of the sources in a folder of its own; the engine runs uncompiled there, a
changed native source is built anew. Before the first one everybody who is asked runs on a copy without a change and
must notice nothing, else a kill would prove nothing. A mutant that lives means that the suite is not good enough. The
last line is always `mutants killed: N/M`.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from .engine_catalogue import ENGINE
from .founding_catalogue import FOUNDING
from .log_catalogue import LOG
from .model import Killer, Mutant
from .sql_catalogue import SQL

ROOT = Path(__file__).resolve().parents[2]
EVERY = [*ENGINE, *FOUNDING, *LOG, *SQL]
ROTATION = 8
CONTROL_S = 10.0  # of each killer on unchanged sources, where only some mutants are asked for
PROPERTIES = {
    Killer.LOG: [
        "tests/logstore/test_wal_residue.py",
        "tests/logstore/test_wal_every_byte.py::test_a_flipped_bit_anywhere_never_makes_a_wrong_entry",
        "tests/logstore/test_wal_recovery_random.py",
        "tests/logstore/test_wal_power.py",
        "tests/logstore/test_wal_every_byte.py::test_a_log_torn_at_any_byte_is_a_prefix_with_all_that_was_synced",
        "tests/logstore/test_wal_kill.py",
    ],
    Killer.APPLY: ["tests/statemachine/test_apply_crash.py"],
    Killer.APPLYING: ["tests/statemachine/test_apply_fuzz.py"],
    Killer.POISON: ["tests/statemachine/test_apply_poison.py"],
    Killer.GATE: ["tests/runtime/test_gate_properties.py"],
    Killer.SESSIONS: ["tests/statemachine/test_sessions.py::test_random_histories_are_as_the_model_says"],
    Killer.CLOCK: ["tests/runtime/test_group_clock.py::test_readings_never_go_back"],
    Killer.SWEEP: ["tests/crash/test_sweep_slice.py"],
    Killer.IMAGES: ["tests/crash/test_install_power_loss.py", "tests/statemachine/test_image.py"],
    Killer.SCHEDULES: ["tests/engine/test_engine_fuzz.py"],
    Killer.CACHE: [
        "tests/cache/test_cache_machine.py::test_of_any_lists_in_any_order_the_newest_is_kept",
        "tests/cache/test_cache_machine.py::test_no_state_is_kept_ahead_of_the_log_nor_counts_before_it_is_kept",
    ],
    Killer.BEATS: ["tests/accel/test_beat_thread.py"],
    Killer.PARTS: ["tests/engine/test_quorum_properties.py", "tests/engine/test_election_properties.py"],
}
SIMULATORS = {Killer.SIMULATOR: "tests.sim.run", Killer.FOUNDINGS: "tests.sim.foundings"}
CODECS = (
    "transport/__init__.py", "transport/wire.py", "transport/settings.py", "transport/versions.py",
    "_accel/*.py", "_accel/plain/*.py", "logstore/*.py", "runtime/__init__.py", "runtime/renouncing.py",
)  # fmt: skip
# A failure is enough: no time is spent on finding the smallest example of it. To be slow is none: machines are busy.
CONFTEST = """
from hypothesis import HealthCheck, Phase, settings
phases, slow = [Phase.explicit, Phase.generate], [HealthCheck.too_slow]
settings.register_profile("mutants", phases=phases, database=None, deadline=None, suppress_health_check=slow)
settings.load_profile("mutants")
"""
FAILED = re.compile(r"^FAILED \S+::(\w+)", re.MULTILINE)
FOUND = re.compile(r"^seed (\d+): ([^:]+)", re.MULTILINE)
PLAYED = re.compile(r"^histories: (\d+)", re.MULTILINE)
VIOLATED = re.compile(r"^VIOLATION: ([^:\n]{1,60})", re.MULTILINE)
DONE = re.compile(r"^schedules: (\d+)", re.MULTILINE)
DOCUMENT = ROOT / "docs" / "mutants.md"
ROW = re.compile(r"^\| ([A-Z]\d\w*) \|.*\n", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Who noticed ("": nobody), after how many schedules (0: it was no schedule), in how many seconds."""

    killed_by: str
    schedules: int
    seconds: float


def main() -> int:
    parser = argparse.ArgumentParser(prog="mutants")
    parser.add_argument("names", nargs="*")
    parser.add_argument("--seconds", type=float, default=60.0, help="of simulation for each")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rotate", type=int, help=f"only {ROTATION} of them, others for each number")
    parser.add_argument("--write", action="store_true", help="what is found, into docs/mutants.md")
    options = parser.parse_args()
    chosen = choose(options.names, options.rotate)
    some = options.names or options.rotate is not None
    print(control(chosen, CONTROL_S if some else options.seconds, options.seed), flush=True)
    killed = 0
    print(f"{'mutant':7}{'what it changes':66}{'killed by':72}{'schedules':>9}{'seconds':>9}")
    for mutant in chosen:
        outcome = run(mutant, options.seconds, options.seed)
        killed += outcome.killed_by != ""
        schedules = str(outcome.schedules or "-")
        line = f"{mutant.name:7}{mutant.what:66}{outcome.killed_by or 'LIVES':72}{schedules:>9}{outcome.seconds:9.1f}"
        print(line, flush=True)
        if options.write:
            document(mutant, outcome.killed_by or "LIVES", schedules, f"{outcome.seconds:.1f}")
    print(f"mutants killed: {killed}/{len(chosen)}")
    return 0 if killed == len(chosen) else 1


def choose(names: list[str], rotate: int | None) -> list[Mutant]:
    if rotate is None:
        return [mutant for mutant in EVERY if not names or mutant.name in names]
    spread = EVERY[::5] + EVERY[1::5] + EVERY[2::5] + EVERY[3::5] + EVERY[4::5]  # neighbours resemble each other
    first = rotate * ROTATION
    return [spread[(first + number) % len(spread)] for number in range(ROTATION)]


def document(mutant: Mutant, *found: str) -> None:
    """The row of a mutant in the table, those of others as they were; in the order of the catalogue."""
    text = DOCUMENT.read_text(encoding="utf-8")
    rows = list(ROW.finditer(text))
    told = {row[1]: row[0] for row in rows} | {mutant.name: f"| {' | '.join((mutant.name, mutant.what, *found))} |\n"}
    table = "".join(told[one.name] for one in EVERY if one.name in told)
    DOCUMENT.write_text(text[: rows[0].start()] + table + text[rows[-1].end() :], encoding="utf-8")


def control(chosen: list[Mutant], seconds: float, seed: int) -> str:
    """What to say when those who have to notice mutants notice nothing in sources as they are; else it ends here."""
    began = time.monotonic()
    killers = list(dict.fromkeys(mutant.killer for mutant in chosen))
    for killer in killers:
        found = run(Mutant("control", "nothing", "", "", "", killer), seconds, seed).killed_by
        if found:
            raise SystemExit(f"control: {found} fails on unchanged sources ({killer.value})")
    told = ", ".join(killer.value for killer in killers)
    return f"control: nothing is noticed in unchanged sources ({told}) in {time.monotonic() - began:.1f} s"


def run(mutant: Mutant, seconds: float, seed: int) -> Outcome:
    """Makes the mutant and asks its killer."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutant-") as name:
        folder = Path(name)
        if mutant.killer in SIMULATORS:
            copy_engine(folder)
        else:
            copy_product(folder)
        if mutant.file:
            change(mutant, source_of(mutant, folder))
        if mutant.native:
            build(folder, mutant.native)
        asked = {**dict.fromkeys(SIMULATORS, ask_simulator), Killer.HISTORIES: ask_histories}
        ask = asked.get(mutant.killer, ask_properties)
        killed_by, schedules = ask(mutant, folder, seconds, seed)
    return Outcome(killed_by, schedules, time.monotonic() - began)


def source_of(mutant: Mutant, root: Path) -> Path:
    return root / mutant.file if mutant.file.startswith("tests/") else root / "hiqlite" / mutant.file


def change(mutant: Mutant, path: Path) -> None:
    source = path.read_text()
    if source.count(mutant.old) != 1:
        raise SystemExit(f"{mutant.name}: the place to change occurs {source.count(mutant.old)} times in {mutant.file}")
    path.write_text(source.replace(mutant.old, mutant.new))
    path.with_suffix(".so").unlink(missing_ok=True)


def ask_simulator(mutant: Mutant, folder: Path, seconds: float, seed: int) -> tuple[str, int]:
    program = SIMULATORS[mutant.killer]
    command = [sys.executable, "-m", program, "--seconds", str(seconds), "--seed", str(seed), "--brief"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    schedules = DONE.search(done.stdout)
    found = FOUND.search(done.stdout)
    if schedules is None:
        raise SystemExit(f"{mutant.name}: the simulator broke\n{done.stderr[-2000:]}")
    return (found[2] if found else ""), int(schedules[1])


def ask_histories(mutant: Mutant, folder: Path, seconds: float, seed: int) -> tuple[str, int]:
    """Each takes its time to start and to end, so there are fewer of them than the seconds say."""
    time_limit = ["--minutes", str(seconds / 30), "--seed", str(seed), "--until-violation"]
    command = [sys.executable, "-m", "tests.chaos.run", *time_limit]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    histories, found = PLAYED.search(done.stdout), VIOLATED.search(done.stdout)
    if histories is None:
        raise SystemExit(f"{mutant.name}: no history was played\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return (f"histories: {found[1]}" if found else ""), int(histories[1])


def ask_properties(mutant: Mutant, folder: Path, seconds: float, seed: int) -> tuple[str, int]:
    del seed
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *PROPERTIES[mutant.killer]]
    environment = {**os.environ, "PYTHONPATH": str(folder)}  # also for the processes that the tests start
    code, told = run_tests(command, folder, environment, None if mutant.file else seconds)
    found = FAILED.search(told)
    if code not in (0, 1) or (code == 1 and found is None):
        raise SystemExit(f"{mutant.name}: the tests did not run\n{told[-4000:]}")
    return (found[1] if found else ""), 0


def run_tests(command: list[str], folder: Path, environment: dict[str, str], limit_s: float | None) -> tuple[int, str]:
    """How the tests end, and what they print; nothing failed in those that are stopped at the limit."""
    output = subprocess.STDOUT
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=output, text=True, start_new_session=True
    ) as tests:
        try:
            told, _ = tests.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            os.killpg(tests.pid, signal.SIGKILL)  # with all that they started
            tests.communicate()
            return 0, ""
    return tests.returncode, told


def copy_engine(folder: Path) -> None:
    """Engine, codecs, recovery, what gives up a set, and what they import; without the engine's compiled twins."""
    target = folder / "hiqlite"
    (target / "engine").mkdir(parents=True)
    (target / "__init__.py").touch()
    for path in [*(ROOT / "hiqlite").glob("config*.py"), *(ROOT / "hiqlite").glob("[cdeo]*.py")]:
        shutil.copy(path, target / path.name)
    for path in (ROOT / "hiqlite" / "engine").glob("*.py"):
        shutil.copy(path, target / "engine" / path.name)
    for pattern in CODECS:
        for path in (ROOT / "hiqlite").glob(pattern):
            (target / path.relative_to(ROOT / "hiqlite")).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target / path.relative_to(ROOT / "hiqlite"))
    for path in (ROOT / "hiqlite" / "_accel").glob("*.so"):
        (target / "_accel" / path.name).symlink_to(path)
    shutil.copytree(ROOT / "tests" / "sim", folder / "tests" / "sim", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "tests" / "logstore").mkdir()
    shutil.copy(ROOT / "tests" / "logstore" / "log_twin.py", folder / "tests" / "logstore")  # how a log's bytes look


def copy_product(folder: Path) -> None:
    """Everything that the property tests import, compiled as it is, but for the engine's twins."""
    ignore = shutil.ignore_patterns("__pycache__", "*.html")
    shutil.copytree(ROOT / "hiqlite", folder / "hiqlite", ignore=ignore)
    for twin in (folder / "hiqlite" / "engine").glob("*.so"):
        twin.unlink()
    for name in ("accel", "engine", "logstore", "crash", "statemachine", "chaos", "cache", "runtime", "golden"):
        shutil.copytree(ROOT / "tests" / name, folder / "tests" / name, ignore=ignore)
    for name in ("pyproject.toml", "setup.py", "README.md", "tests/waiting.py"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "conftest.py").write_text(CONFTEST)


def build(folder: Path, extension: str) -> None:
    for old in (folder / "hiqlite" / "_accel").glob(f"{extension}.*.so"):
        old.unlink()
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
    environment = {**os.environ, "HIQLITE_BUILD": extension}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the changed source does not build\n{done.stderr[-2000:]}")


if __name__ == "__main__":
    sys.exit(main())
