"""`hiqlite members`: real processes whose members are changed from the command line."""

from __future__ import annotations

import re
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest
from test_command_line import TIMEOUT_S, config_file, hiqlite_command, serving, until_serving

from hiqlite.config import NodeConfig


def roles(output: str) -> dict[int, str]:
    return {int(number): role for number, role in re.findall(r"^ *(\d+)  (voter|learner)", output, re.MULTILINE)}


def changed(file: Path, *arguments: str | int) -> dict[int, str]:
    """Roles after a change that went well."""
    answer = hiqlite_command("members", "-c", file, *map(str, arguments))
    assert answer.returncode == 0, answer.stderr
    return roles(answer.stdout)


def test_members_are_shown_and_changed(tmp_path: Path):
    """Every change; whoever is asked; one that makes no sense is one line and exit code 1."""
    file = config_file(tmp_path, 4)
    with ExitStack() as stack:
        processes = {number: stack.enter_context(serving(file, number)) for number in (1, 2, 3, 4)}
        for number, process in processes.items():
            until_serving(process, number)
        assert changed(file) == dict.fromkeys((1, 2, 3, 4), "voter")
        assert changed(file, "demote", 4) == {1: "voter", 2: "voter", 3: "voter", 4: "learner"}
        assert changed(file, "promote", 4)[4] == "voter"
        assert changed(file, "lead", 2)
        status = hiqlite_command("status", "-c", file).stdout
        assert re.findall(r"^ *(\d+)  leader", status, re.MULTILINE) == ["2"]
        assert changed(file, "voters", 1, 2, 3) == {1: "voter", 2: "voter", 3: "voter"}
        shown = hiqlite_command("members", "-c", file).stdout
        assert "removed: 4" in shown
        _, errors = processes[4].communicate(timeout=TIMEOUT_S)  # it ends by itself
        assert processes[4].returncode == 0 and "node 4 was removed" in errors
        processes[4] = stack.enter_context(serving(file, 4))  # and waits, started again, until it is let in
        address = next(node for node in NodeConfig.from_file(file).with_overrides(node_id=1).nodes if node.id == 4)
        raft, api = f"{address.raft_host}:{address.raft_port}", f"{address.api_host}:{address.api_port}"
        assert changed(file, "replace", 2, 4, raft, api) == {1: "voter", 3: "voter", 4: "voter"}
        assert changed(file, "remove", 3) == {1: "voter", 4: "voter"}
        for arguments, words in (
            (("remove", 9), "node 9 is no member"), (("add", 5, "nowhere", "x:1"), "no address"),
            (("lead", 2), "no voter"),
        ):  # fmt: skip
            answer = hiqlite_command("members", "-c", file, *map(str, arguments))
            assert answer.returncode == 1 and words in answer.stderr and "Traceback" not in answer.stderr


def test_a_cluster_forms_without_who_is_left_out(tmp_path: Path):
    """And who was left out joins later by itself."""
    file = config_file(tmp_path, 3)
    with ExitStack() as stack:
        for number in (1, 2):
            stack.enter_context(serving(file, number, "--form-without", "3"))
        while set(roles(hiqlite_command("members", "-c", file).stdout)) != {1, 2}:
            pass
        three = stack.enter_context(serving(file, 3))
        until_serving(three, 3)
        while roles(hiqlite_command("members", "-c", file).stdout) != dict.fromkeys((1, 2, 3), "voter"):
            pass
        three.send_signal(signal.SIGTERM)
        assert three.wait(TIMEOUT_S) == 0


@pytest.mark.parametrize("arguments", [["promote"], ["promote", "x"], ["add", "1"], ["nonsense"], ["voters"]])
def test_a_wrong_members_command_shows_its_usage(tmp_path: Path, arguments: list[str]):
    """Exit code 2."""
    answer = hiqlite_command("members", "-c", config_file(tmp_path, 1), *arguments)
    assert answer.returncode == 2 and answer.stderr.startswith("usage: hiqlite members")


def test_members_of_nobody(tmp_path: Path):
    """No node answers: one line that names them."""
    file = config_file(tmp_path, 2)
    answer = hiqlite_command("members", "-c", file)
    assert answer.returncode == 0 and answer.stdout.count("is not reached") == 2
    answer = hiqlite_command("members", "-c", file, "promote", "1")
    assert answer.returncode == 1 and "no node answers" in answer.stderr


def test_a_survivor_is_recovered(tmp_path: Path):
    """Reported first, done with --yes, refused the second time; a wrong folder is one line."""
    file = config_file(tmp_path, 3)
    with ExitStack() as stack:
        processes = {number: stack.enter_context(serving(file, number)) for number in (1, 2, 3)}
        for number, process in processes.items():
            until_serving(process, number)
        answer = hiqlite_command("recover", "-c", file, "--node-id", "1", "--yes")
        assert answer.returncode == 1 and "in use" in answer.stderr
    for arguments, words in (((), "run it with --yes"), (("--yes",), "done: it is a cluster of one")):
        answer = hiqlite_command("recover", "-c", file, "--node-id", "1", *arguments)
        assert answer.returncode == 0 and words in answer.stdout, answer.stderr
        assert "what may be missing" in answer.stdout
    answer = hiqlite_command("recover", "-c", file, "--node-id", "1", "--yes")
    assert answer.returncode == 1 and "only voter" in answer.stderr and "Traceback" not in answer.stderr
    with serving(file, 1) as process:
        until_serving(process, 1)
        assert changed(file) == {1: "voter"}
