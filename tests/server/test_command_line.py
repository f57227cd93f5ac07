"""The commands as a user types them: processes of their own, judged by what they print and how they end."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

import hiqlite
from hiqlite.bench.catchup import missed
from hiqlite.bench.command import DEFAULT_PHASES
from hiqlite.server.demo import toml
from hiqlite.transport.loopback import loopback_cluster

TIMEOUT_S = 60
HIQLITE = [sys.executable, "-m", "hiqlite.server.main"]


def hiqlite_command(*arguments: str | Path, timeout: float = TIMEOUT_S) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*HIQLITE, *map(str, arguments)], capture_output=True, text=True, timeout=timeout, check=False
    )


def config_file(folder: Path, size: int) -> Path:
    """One config for all nodes, as the demo writes it."""
    settings: dict[str, Any] = {
        **loopback_cluster(folder, size, {"cache": False, "wal_size": "8 MiB"})[1],
        "data_dir": str(folder / "node{node_id}"),
    }
    settings.pop("node_id")
    file = folder / "hiqlite.toml"
    file.write_text(toml(settings))
    return file


@contextmanager
def serving(file: Path, number: int, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """`hiqlite serve` of one node; killed at the end if it has not ended."""
    with subprocess.Popen(
        [*HIQLITE, "serve", "-c", str(file), "--node-id", str(number), "--die-with-parent", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def until_serving(process: subprocess.Popen[str], number: int) -> None:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith(f"node {number} serves raft "), (line, process.stderr.read() if process.stderr else "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_runs_one_configured_node_until_it_is_told_to_stop(tmp_path: Path, number: int):
    """It says where it serves, ends with 0, and leaves clean data that opens again."""
    file = config_file(tmp_path, 1)
    for _ in range(2):
        with serving(file, 1) as process:
            until_serving(process, 1)
            process.send_signal(number)
            _, errors = process.communicate(timeout=TIMEOUT_S)
            assert process.returncode == 0, errors
            assert "Traceback" not in errors and "leader" in errors

    async def look() -> None:
        async with hiqlite.open({"data_dir": str(tmp_path / "node1")}) as db:
            await db.execute("CREATE TABLE t (x)")

    asyncio.run(look())


def test_status_shows_who_leads_and_who_cannot_be_reached(tmp_path: Path):
    """Three serving nodes, then two: a line per node; a wrong secret reaches nobody."""
    file = config_file(tmp_path, 3)
    with serving(file, 1) as one, serving(file, 2) as two:
        with serving(file, 3) as three:
            for number, process in enumerate((one, two, three), 1):
                until_serving(process, number)
            answer = all_well(file)
            lines = answer.stdout.splitlines()
            assert len(lines) == 4 and lines[0].split()[:4] == ["node", "role", "term", "leader"]
            roles = sorted(line.split()[1] for line in lines[1:])
            assert roles == ["follower", "follower", "leader"]
            assert len({line.split()[3] for line in lines[1:]}) == 1
        answer = hiqlite_command("status", "-c", file)
        table, _, found = answer.stdout.partition("\n\n")
        assert [line.split()[1] == "unreachable" for line in table.splitlines()[1:]] == [False, False, True]
        assert answer.returncode == 1 and "node 3 is not reached: " in found
        other = tmp_path / "other.toml"
        other.write_text(re.sub(r'secret_api = ".*"', 'secret_api = "some other secret"', file.read_text()))
        answer = hiqlite_command("status", "-c", other)
        assert answer.stdout.count("unreachable") == 3 and "Traceback" not in answer.stderr
        assert answer.returncode == 1 and answer.stdout.count("is not reached") == 3


def all_well(file: Path) -> subprocess.CompletedProcess[str]:
    """The answer of `status` once it ends with 0, which it does soon after the nodes serve."""
    end = time.monotonic() + TIMEOUT_S
    while (answer := hiqlite_command("status", "-c", file)).returncode:
        assert time.monotonic() < end, answer.stdout + answer.stderr
    return answer


def status_until(file: Path, words: str) -> subprocess.CompletedProcess[str]:
    """The answer of `status` once it says that; it never calls that well."""
    end = time.monotonic() + TIMEOUT_S
    while words not in (answer := hiqlite_command("status", "-c", file)).stdout:
        assert time.monotonic() < end, answer.stdout + answer.stderr
    assert answer.returncode == 1
    return answer


def test_status_is_not_well_while_a_node_waits_for_others(tmp_path: Path):
    """It says which one, and for what; then it ends with 0."""
    file = config_file(tmp_path, 2)
    with serving(file, 1):
        answer = status_until(file, "node 1 is not ready: db: this node is no member of a cluster yet")
        assert "node 2 is not reached: " in answer.stdout
        with serving(file, 2):
            all_well(file)


def test_a_leader_that_was_paused_is_no_split_brain(tmp_path: Path):
    """It comes back believing that it leads, in a term that is over: others have another leader by then. Nobody reports
    anything, and all is well again."""
    file = config_file(tmp_path, 3)
    with ExitStack() as stack:
        processes = {number: stack.enter_context(serving(file, number)) for number in (1, 2, 3)}
        table = all_well(file).stdout
        (leader,) = re.findall(r"^ *(\d+)  leader", table, re.MULTILINE)
        for _ in range(2):
            processes[int(leader)].send_signal(signal.SIGSTOP)
            answer = status_until(file, f"node {leader} is not reached")
            end = time.monotonic() + TIMEOUT_S
            while not (others := re.findall(r"^ *(\d+)  leader", answer.stdout, re.MULTILINE)):
                assert time.monotonic() < end, answer.stdout
                answer = hiqlite_command("status", "-c", file)
            assert others != [leader]
            processes[int(leader)].send_signal(signal.SIGCONT)
            table = all_well(file).stdout
            (leader,) = re.findall(r"^ *(\d+)  leader", table, re.MULTILINE)
        for process in processes.values():
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=TIMEOUT_S)
            assert "is ready" in errors and "split brain" not in errors and "Traceback" not in errors


def test_status_sees_two_clusters_behind_one_config(tmp_path: Path):
    """Each node formed one alone, with the same secret. Both nodes say so, and the command compares their ids."""
    file = config_file(tmp_path, 2)
    for node in tomllib.loads(file.read_text())["hiqlite"]["nodes"]:
        alone = tmp_path / "alone.toml"
        alone.write_text(re.sub(r"nodes = .*", f'nodes = ["{node}"]', file.read_text()))
        number = int(node.split()[0])
        with serving(alone, number) as process:
            until_serving(process, number)
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=TIMEOUT_S)
    with serving(file, 1), serving(file, 2):
        answer = status_until(file, "node 2 is not ready: split brain: node 1 belongs to another cluster")
        answer = status_until(file, "node 1 is not ready: split brain: node 2 belongs to another cluster")
        assert re.search(r"the nodes are of 2 clusters: 1 \([0-9a-f]{16}\); 2 \([0-9a-f]{16}\)", answer.stdout)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["serve", "-c", "missing.toml"], "missing.toml"),
        (["serve", "-c", "{wrong}"], "wal_size"),
        (["serve", "-c", "{file}", "--node-id", "9"], "node_id"),
        (["serve", "-c", "{file}"], "node"),
        (["status", "-c", "missing.toml"], "missing.toml"),
    ],
)
def test_a_wrong_config_is_one_line_and_exit_code_1(tmp_path: Path, arguments: list[str], words: str):
    """No traceback, the key or file is named."""
    file, wrong = config_file(tmp_path, 3), tmp_path / "wrong.toml"
    wrong.write_text(file.read_text().replace("wal_size", "wal_siez"))
    filled = [argument.format(file=file, wrong=wrong) for argument in arguments]
    answer = hiqlite_command(*filled)
    assert answer.returncode == 1 and "Traceback" not in answer.stderr
    last = answer.stderr.strip().splitlines()[-1]
    assert last.startswith("hiqlite: ") and words in last


def test_serve_on_a_folder_in_use_says_so(tmp_path: Path):
    """Exit code 1, one line; the node that has it goes on."""
    file = config_file(tmp_path, 1)
    with serving(file, 1) as process:
        until_serving(process, 1)
        answer = hiqlite_command("serve", "-c", file, "--node-id", "1")
        assert answer.returncode == 1 and f"process {process.pid}" in answer.stderr
        assert process.poll() is None


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["bench"], ["serve", "--log-level", "loud"]])
def test_a_wrong_command_line_shows_its_usage(arguments: list[str]):
    """Exit code 2, as of every command."""
    answer = hiqlite_command(*arguments)
    assert answer.returncode == 2 and answer.stderr.startswith("usage: hiqlite")


def test_the_demo_runs_three_processes_and_shows_a_leader(tmp_path: Path):
    """Bounded by --seconds; its table names one leader and two followers; its nodes end with it and keep their data."""
    for _ in range(2):
        answer = hiqlite_command("demo", "--seconds", "1", "--data-dir", tmp_path / "demo")
        assert answer.returncode == 0, answer.stderr
        last = answer.stdout.rpartition("node  role")[2]
        assert len(re.findall(r"^ +\d +leader ", last, re.MULTILINE)) == 1
        assert len(re.findall(r"^ +\d +follower ", last, re.MULTILINE)) == 2
        assert "writes/s" in last and str(tmp_path / "demo") in last
    assert {path.name for path in (tmp_path / "demo").iterdir()} >= {"node1", "node2", "node3", "hiqlite.toml"}
    assert (tmp_path / "demo" / "hiqlite.toml").stat().st_mode & 0o777 == 0o600
    status = hiqlite_command("status", "-c", tmp_path / "demo" / "hiqlite.toml")
    assert status.stdout.count("unreachable") == 3


def test_the_demo_ends_on_ctrl_c(tmp_path: Path):
    """Within seconds, with all its nodes."""
    with subprocess.Popen(
        [*HIQLITE, "demo", "--data-dir", str(tmp_path / "demo")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert "role" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode in (0, 130) and "Traceback" not in errors
    status = hiqlite_command("status", "-c", tmp_path / "demo" / "hiqlite.toml")
    assert status.stdout.count("unreachable") == 3


def test_the_bench_writes_the_report_as_json(tmp_path: Path):
    """The object of the contract: machine, versions, settings, calibration, and a row per phase with its numbers."""
    file = tmp_path / "report.json"
    sizes = ("-r", "2000", "-c", "4", "--rounds", "1", "--set", "read_pool_size=2")
    answer = hiqlite_command("bench", "single", *sizes, "--json", file)
    assert answer.returncode == 0, answer.stderr
    report = json.loads(file.read_text())
    assert report["settings"]["read_pool_size"] == "2"
    assert set(report) == {"machine", "versions", "settings", "calibration", "rows"}
    assert report["versions"]["python"] and report["calibration"]
    assert {row["bench"] for row in report["rows"]} >= {"insert", "txn", "select_cold", "select", "scan"}
    for row in report["rows"]:
        assert (row["target"], row["nodes"], row["c"], row["durability"]) == ("hiqlite", 1, 4, "immediate")
        assert row["n"] > 0 and row["ops_per_s"] > 0
        assert 0 < row["p50_us"] <= row["p99_us"] <= row["p999_us"]
        assert len(row["cpu_s"]) == len(row["rss_mb"]) == len(row["rounds"]) == 1
    insert = next(row for row in report["rows"] if row["bench"] == "insert")
    assert insert["n"] == 2000
    assert "insert" in answer.stdout and "ops/s" in answer.stdout


@pytest.mark.parametrize(
    ("pair", "said"),
    [
        ("raft_busy_poll=1", "did you mean raft_busy_poll_us?"),
        ("raft_busy_poll_us=-1", "raft_busy_poll_us"),
        ("raft_busy_poll_us", "expected KEY=VALUE"),
    ],
)
def test_the_bench_starts_no_node_with_settings_that_make_no_sense(pair: str, said: str):
    """One line, as for a file."""
    answer = hiqlite_command("bench", "cluster", "--set", pair)
    assert answer.returncode == 1 and said in answer.stderr and "Traceback" not in answer.stderr


def test_the_bench_measures_the_gap_that_a_leader_leaves(tmp_path: Path):
    """A row for each end of a leader, with every gap, and a table with a histogram; the clients outlive all of them."""
    file = tmp_path / "report.json"
    answer = hiqlite_command("bench", "gap", "--restarts", "1", "--json", file)
    assert answer.returncode == 0, answer.stderr
    report = json.loads(file.read_text())
    assert [row["bench"] for row in report["rows"]] == ["gap nothing", "gap restart", "gap kill", "gap stop"]
    for row in report["rows"]:
        assert row["n"] == 1 and [row["p50_ms"]] == [row["p95_ms"]] == [row["max_ms"]] == row["gaps_ms"]
        assert row["gaps_ms"][0] > 0 and row["writes"] > 0
        assert f"{row['bench']}; errors that a retry healed" in answer.stdout
    assert report["load"]["max"] >= report["load"]["mean"] > 0


def test_the_bench_measures_how_a_follower_comes_back(tmp_path: Path):
    """A row for each round, with what the leader's clients felt of it and what lies on each disk; with `--check` limits
    that are not kept are told. So few writes cannot be so fast: a start takes longer."""
    file = tmp_path / "report.json"
    answer = hiqlite_command("bench", "catchup", "-r", "3000", "--rounds", "2", "--check", "--json", file)
    assert answer.returncode == 1, answer.stderr
    assert len(re.findall(r"^limit not kept: round [12]: .* entries/s are less", answer.stdout, re.MULTILINE)) == 2
    report = json.loads(file.read_text())
    assert [row["bench"] for row in report["rows"]] == ["catchup"] * 2
    for row in report["rows"]:
        assert row["n"] >= 2900 and row["taken_s"] > 0 and row["stall_ms"] > 0 and row["writes_meanwhile"] > 0
        assert all(size > 0 for size in (*row["log_mb"], *row["db_mb"], *row["rss_mb"]))
    assert "entries/s" in answer.stdout


KEPT = {
    "stall_ms": 250.0, "entries_per_s": 200_000, "log_entries": [20_000, 0], "log_mb": [134.2, 67.1],
    "sqlite_log_mb": [33.6, 0.0], "db_mb": [60.0, 30.0],
}  # fmt: skip


def test_a_follower_that_comes_back_within_all_limits_is_told_to_be() -> None:
    """Exactly at a limit is within."""
    assert missed([KEPT, KEPT]) == []


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"stall_ms": 250.1}, "writes stood still"), ({"entries_per_s": 199_999}, "entries/s"),
        ({"log_entries": [0, 40_000]}, "a log holds"), ({"log_mb": [67.1, 400.0]}, "a log takes"),
        ({"sqlite_log_mb": [43.0, 0.0]}, "SQLite's own log"), ({"db_mb": [30.0, 140.0]}, "a database takes"),
    ],
)  # fmt: skip
def test_each_limit_of_a_return_is_looked_at(changed: dict[str, Any], told: str) -> None:
    """In every round; the database is compared with the first one's."""
    (text,) = missed([KEPT, {**KEPT, **changed}])
    assert text.startswith("round 2: ") and told in text


@pytest.mark.parametrize(
    ("options", "durability", "processes"),
    [((), "immediate", 3), (("--log-sync", "interval_200", "--in-process"), "interval_200", 1),
     pytest.param(("--log-sync", "interval_200"), "interval_200", 3, marks=pytest.mark.long)],
)  # fmt: skip
def test_the_bench_of_a_cluster(tmp_path: Path, options: tuple[str, ...], durability: str, processes: int):
    """Every phase, on the leader and on a follower; CPU and memory are told once for each process."""
    file = tmp_path / "report.json"
    answer = hiqlite_command("bench", "cluster", "-r", "200", "-c", "2,4", "--rounds", "1", "--json", file, *options)
    assert answer.returncode == 0, answer.stderr
    report = json.loads(file.read_text())
    found = {(row["bench"], row["c"]): row for row in report["rows"]}
    assert set(found) == set(itertools.product(DEFAULT_PHASES["cluster"].split(","), (2, 4)))
    for (bench, _), row in found.items():
        assert row["nodes"] == 3 and row["durability"] == durability
        assert len(row["cpu_s"]) == len(row["rss_mb"]) == processes
        assert 0 < row["p99_us"] <= row["max_us"] and bench in answer.stdout
        assert row["on"] == ("follower" if bench.endswith("_follower") else "leader")
    assert found["insert_follower", 4]["n"] == 200 and report["settings"]["log_sync"] == durability


def test_the_bench_measures_what_many_rows_cost(tmp_path: Path):
    """The same writes into a small table and a large one, and how many times slower the latter are."""
    file = tmp_path / "report.json"
    answer = hiqlite_command("bench", "growth", "-r", "400", "-c", "4", "--rounds", "2", "--json", file)
    assert answer.returncode == 0, answer.stderr
    rows = json.loads(file.read_text())["rows"]
    assert [(row["held"], row["n"], len(row["rounds"])) for row in rows] == [(10_000, 400, 2), (40_000, 400, 2)]
    assert "times slower" in answer.stdout


def test_a_bench_of_an_unknown_end_is_refused():
    """It names those that there are."""
    answer = hiqlite_command("bench", "gap", "--ways", "kill,melt")
    assert answer.returncode == 1 and "melt" in answer.stderr and "restart" in answer.stderr
