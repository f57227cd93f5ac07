"""`hiqlite config check` as a user types it, and `hiqlite serve` with the files of the original."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hiqlite.config import NodeConfig
from hiqlite.config_rules import node_id_of_host
from hiqlite.errors import ConfigError
from hiqlite.server import serve
from hiqlite.server.main import parser
from hiqlite.transport.loopback import loopback_cluster
from tests.config import original_files as original

ROOT = Path(__file__).resolve().parents[2]
NODES = 'nodes = ["1 a:8100 a:8200", "2 b:8100 b:8200", "3 c:8100 c:8200"]\n'
SECRETS = 'secret_raft = "hunter2-hunter2-raft"\nsecret_api = "hunter2-hunter2-api"\n'


HIQLITE = [sys.executable, "-W", "error", "-m", "hiqlite.server.main"]


class Shell:
    """A folder in which the command runs, with an environment of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def environment(self, variables: dict[str, str]) -> dict[str, str]:
        return {"PYTHONPATH": str(ROOT), "HOME": str(self.folder), "PATH": os.defpath, **variables}

    def check(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.run("config", "check", *arguments, **environment)

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        answer = subprocess.run(
            [*HIQLITE, *arguments],
            cwd=self.folder, capture_output=True, text=True, timeout=60, check=False, env=self.environment(environment),
        )  # fmt: skip
        assert "Traceback" not in answer.stderr and "hunter2" not in answer.stdout + answer.stderr
        return answer


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def test_a_right_file_is_explained(shell: Shell) -> None:
    """Which node it makes, every value in force with its place, what has no effect; secrets hidden; exit code 0."""
    shell.write("h.toml", f'[hiqlite]\nnode_id = 2\n{NODES}{SECRETS}wal_size = "1 MiB"\ntls_auto_certificates = true\n')
    answer = shell.check("h.toml", HQL_READ_POOL_SIZE="9", HQL_WAL_SIZE="2 MiB")
    assert answer.returncode == 0, answer.stderr
    lines = answer.stdout.splitlines()
    assert lines[:2] == ["h.toml: no problem found", "node 2 of 3: raft b:8100, api b:8200, data in data"]
    rows = {line.split(" = ")[0].strip(): line.split(" = ")[1].split("  ")[0] for line in lines if " = " in line}
    assert rows["wal_size"] == "2097152" and rows["secret_raft"] == "***" and rows["read_pool_size"] == "9"
    places = {line.split()[0]: line.split("# ")[1] for line in lines if "# " in line}
    assert (places["wal_size"], places["node_id"]) == ("HQL_WAL_SIZE in the environment", "h.toml, line 2")
    assert "note: tls_auto_certificates has no effect in this version" in lines


def test_values_that_are_no_text_are_written_on_their_line(shell: Shell) -> None:
    """Bytes of a path, ends of lines: one line per key all the same."""
    shell.write("h.toml", '[hiqlite]\nfilename_db = "a\\nb"\n')
    answer = shell.check("h.toml", HQL_DATA_DIR="x\udcff")
    assert answer.returncode == 0, answer.stderr
    assert '  filename_db = "a\\nb"' in answer.stdout and "x\\udcff" in answer.stdout
    assert len(answer.stdout.splitlines()) == 4


def test_the_file_in_the_home_folder_is_checked_without_a_name(shell: Shell) -> None:
    """As `serve` finds it; without one the error says where to write it."""
    absent = shell.check()
    assert absent.returncode == 1 and "~/.hiqlite/hiqlite.toml" in absent.stderr
    (shell.folder / ".hiqlite").mkdir()
    shell.write(".hiqlite/config", "HQL_READ_POOL_SIZE=3\n")
    answer = shell.check()
    assert answer.returncode == 0 and "a single node that listens on no port" in answer.stdout


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            '[hiqlite]\nwal_siz = 1\nread_pool_size = "x"\nHQL_DB = 1\nenc_keys = ["hunter2"]\n',
            ["line 2: unknown key wal_siz", "line 4: unknown key HQL_DB", "line 3: read_pool_size", "line 5: enc_keys"],
        ),
        (
            f'[hiqlite]\n{NODES}secret_api = "hunter2"\nread_pool_size = 0\nheartbeat_interval_ms = 5000\n',
            ["line 4: read_pool_size", "h.toml: secret_raft is missing", "line 3: secret_api is shorter"],
        ),
        ("[hiqlite]\nheartbeat_interval_ms = 5000\n", ["line 2: election_timeout_ms begins below"]),
        (f"[hiqlite]\nlearner_only = true\n{NODES}{SECRETS}", ["line 2: all nodes are learners"]),
        ("[hiqlite\n", ["line 1: no valid TOML"]),
        ("[hiqlit]\n", ["h.toml: there is no table [hiqlite]"]),
    ],
)
def test_every_problem_of_a_file_is_told(shell: Shell, text: str, expected: list[str]) -> None:
    """One line each on standard error, all of one kind at once; exit code 1, nothing on standard output."""
    shell.write("h.toml", text)
    answer = shell.check("h.toml")
    lines = answer.stderr.splitlines()
    assert answer.returncode == 1 and answer.stdout == ""
    assert len(lines) == len(expected), lines
    for line, words in zip(lines, expected, strict=True):
        assert line.startswith("hiqlite: h.toml") and words in line and line.endswith(")")


def test_a_file_for_pods_is_checked_on_any_host(shell: Shell) -> None:
    """The host's name decides where it runs, not where it is checked; with --node-id it is read as that node does."""
    shell.write("pod.toml", f'[hiqlite]\nnode_id_from = "k8s"\ndata_dir = "d{{node_id}}"\n{NODES}{SECRETS}')
    answer = shell.check("--node-id", "3", "pod.toml")
    assert answer.returncode == 0 and "node 3 of 3: raft c:8100, api c:8200, data in d3" in answer.stdout
    anywhere = shell.check("pod.toml")
    try:
        here = node_id_of_host(os.uname().nodename)
    except ConfigError:
        assert anywhere.returncode == 0 and "one of 3 nodes, data in d{node_id}" in anywhere.stdout
        assert "the name of the host that it runs on decides" in anywhere.stdout
    else:
        assert f"node {here} of 3" in anywhere.stdout or f"node_id {here} is not in nodes" in anywhere.stderr


def test_files_of_several_nodes_are_compared(shell: Shell) -> None:
    """TOML beside env syntax; what differs wrongly is an error, what had better be equal a note."""
    shell.write("one.toml", f"[hiqlite]\nnode_id = 1\n{NODES}{SECRETS}")
    shell.write(
        "two.env",
        'HQL_NODE_ID=2\nHQL_NODES="\n1 a:8100 a:8200\n2 b:8100 b:8200\n3 c:8100 c:8200\n"\nHQL_LOG_SYNC=interval_5\n'
        "HQL_SECRET_RAFT=hunter2-hunter2-raft\nHQL_SECRET_API=hunter2-hunter2-api\n",
    )
    others = SECRETS.replace("-raft", "-other")
    shell.write("two.toml", f'[hiqlite]\nnode_id = 1\nmax_entry_size = "1 MiB"\n{NODES}{others}')
    # What this machine's environment says is not true of the others.
    answer = shell.check("one.toml", "two.env", HQL_NODE_ID="3", HQL_MAX_ENTRY_SIZE="nonsense")
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.splitlines() == [
        "2 files: no problem found",
        "one.toml: node 1 of 3: raft a:8100, api a:8200, data in data",
        "two.env: node 2 of 3: raft b:8100, api b:8200, data in data",
        "note: one.toml and two.env: log_sync is 'immediate' and 'interval_5' "
        "(a cluster is as durable as its weakest majority)",
        "note: no file was given for node 3",
    ]
    wrong = shell.check("one.toml", "two.toml")
    assert wrong.returncode == 1 and wrong.stdout == ""
    told = [line.partition("hiqlite: one.toml and two.toml: ")[2] for line in wrong.stderr.splitlines()]
    assert [line.split(" (")[0] for line in told] == [
        "both are node 1", "secret_raft differs", "max_entry_size is 67108864 and 1048576"
    ]  # fmt: skip


def test_of_several_files_each_is_checked_by_itself_too(shell: Shell) -> None:
    """A broken one, one that does not say which node it is, and one without nodes are told beside each other."""
    shell.write("right.toml", f"[hiqlite]\nnode_id = 1\n{NODES}{SECRETS}")
    shell.write("broken.toml", f"[hiqlite]\nwal_siz = 1\n{NODES}{SECRETS}")
    shell.write("anybody.toml", f"[hiqlite]\n{NODES}{SECRETS}")
    shell.write("alone.toml", "[hiqlite]\n")
    answer = shell.check("right.toml", "broken.toml", "anybody.toml", "alone.toml")
    assert answer.returncode == 1
    assert [line.split(" (")[0] for line in answer.stderr.splitlines()] == [
        "hiqlite: broken.toml, line 2: unknown key wal_siz",
        "hiqlite: anybody.toml: node_id is missing",
        "hiqlite: alone.toml: nodes is missing",
    ]


def test_secrets_that_files_leave_to_the_environment_are_taken_from_it(shell: Shell) -> None:
    """Else files without secrets could not be compared; a secret of a file counts more."""
    for number in (1, 2, 3):
        shell.write(f"{number}.toml", f"[hiqlite]\nnode_id = {number}\n{NODES}")
    files = [f"{number}.toml" for number in (1, 2, 3)]
    assert shell.check(*files).stderr.count("is missing") == 6
    secrets = {"HQL_SECRET_RAFT": "hunter2-hunter2-raft", "HQL_SECRET_API": "hunter2-hunter2-api"}
    answer = shell.check(*files, **secrets)
    assert answer.returncode == 0 and answer.stdout.startswith("3 files: no problem found")
    shell.write("3.toml", f"[hiqlite]\nnode_id = 3\n{NODES}{SECRETS.replace('-raft', '-old')}")
    assert "secret_raft differs" in shell.check(*files, **secrets).stderr


def test_the_command_line_of_serve_wins_over_its_file(shell: Shell) -> None:
    """Node, folder and statement log; a node that is named needs no host that tells it."""
    shell.write("pod.toml", f'[hiqlite]\nnode_id_from = "k8s"\ndata_dir = "x"\n{NODES}{SECRETS}')
    file = str(shell.folder / "pod.toml")
    options = parser().parse_args(["serve", "-c", file, "--node-id", "2", "--data-dir", "y", "--log-statements"])
    config = serve.configured(options)
    assert (config.node_id, config.data_dir, config.log_statements) == (2, "y", True)


def test_a_node_that_is_not_chosen_leaves_no_folder_behind(shell: Shell) -> None:
    """Who forgets --node-id is told, and the next start with it finds no folder that belongs to nobody."""
    nodes = loopback_cluster(shell.folder, 2, {})[1]["nodes"]
    shell.write("h.toml", f"[hiqlite]\nnodes = {nodes}\n{SECRETS}")
    answer = shell.run("serve", "-c", "h.toml")
    assert answer.returncode == 1 and "which of the nodes is this one?" in answer.stderr
    assert not (shell.folder / "data").exists()


def test_the_status_of_pods_can_be_asked_from_any_host(shell: Shell) -> None:
    """Which node the asking host would be does not matter. Nobody answers, so not all is well."""
    nodes = loopback_cluster(shell.folder, 2, {})[1]["nodes"]
    shell.write("pod.toml", f'[hiqlite]\nnode_id_from = "k8s"\nnodes = {nodes}\n{SECRETS}')
    answer = shell.run("status", "-c", "pod.toml")
    assert (answer.returncode, answer.stdout.count("unreachable"), answer.stderr) == (1, 2, "")


@pytest.mark.parametrize(
    ("text", "given", "told"),
    [
        (
            original.ENV_FILE,
            {},
            ["HQL_SHUTDOWN_DELAY_MILLS", "password_dashboard", "insecure_cookie", "enc_keys", "enc_key_active"],
        ),
        (original.GENERATED_ENV_FILE, {"HQL_DATA_DIR": "data"}, ["password_dashboard", "enc_keys", "enc_key_active"]),
        (original.OLDER_TOML_FILE, {}, ["shutdown_delay_millis", "wal_ignore_lock", "password_dashboard", "enc_keys"]),
        (original.TOML_FILE, {}, ["tls_auto_certificates", "rate_limit_db_rps", "rate_limit_cache_burst", "enc_keys"]),
        (
            original.REFERENCE_TOML_FILE,
            {"HQL_NODE_ID": "1"},
            ["s3_url", "s3_bucket", "s3_secret", "password_dashboard", "enc_keys"],
        ),
    ],
    ids=["env", "generated env", "older toml", "toml", "reference toml"],
)
def test_a_node_runs_on_a_file_of_the_original(
    shell: Shell, text: str, given: dict[str, str], told: list[str]
) -> None:
    """Its ports are chosen for the test; what it leaves to its host (a folder, which node it is) is a variable.

    What has no effect is said once at the start, no secret is.
    """
    shell.write("config", text)
    shell.write("secrets.toml", original.SECRETS_FILE)
    nodes = loopback_cluster(shell.folder, 1, {})[1]["nodes"]
    address = NodeConfig.from_mapping({"nodes": nodes, "secret_raft": "x" * 16, "secret_api": "x" * 16}).nodes[0]
    with subprocess.Popen(
        [*HIQLITE, "serve", "-c", "config", "--die-with-parent"],
        cwd=shell.folder, env=shell.environment({"HQL_NODES": str(address), **given}), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            process.send_signal(signal.SIGTERM)
            _, log = process.communicate(timeout=60)
        finally:
            process.kill()
    assert line == f"node 1 serves raft {address.raft_address}, api {address.api_address}\n", log
    assert process.returncode == 0, log
    for name in told:
        assert log.count(f" {name} has no effect") == 1, (name, log)
    assert original.SECRET not in log and original.KEY not in log and original.PASSWORD_HASH not in log
    assert (shell.folder / "data").is_dir()
