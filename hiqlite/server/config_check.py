"""`hiqlite config check`: says what a config file means and what is wrong with it; compares those of several nodes.

One file is read as `hiqlite serve` reads it, the environment above it. Of several files each is read by itself, since
this machine's environment is not that of all nodes; only secrets that a file leaves out are taken from it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hiqlite import config_sources as sources
from hiqlite.config import NodeConfig, environment_keys
from hiqlite.config_compare import Member, advice, disagreements
from hiqlite.config_rules import node_id_of_host
from hiqlite.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="action")
    check = actions.add_parser("check", help="say what files mean and what is wrong with them", description=__doc__)
    check.add_argument(
        "files", nargs="*", type=Path, metavar="file", help="TOML or env files (default ~/.hiqlite/hiqlite.toml)"
    )
    check.add_argument("--table", default=sources.TABLE, help="table of the TOML files (default hiqlite)")
    check.add_argument("--node-id", type=int, help="read one file as this node does")


def main(options: argparse.Namespace) -> int:
    if len(options.files) > 1:
        return check_several(options.files, options.table)
    return check_one(next(iter(options.files), None), options.table, options.node_id)


def check_one(path: Path | None, table: str, node_id: int | None) -> int:
    overrides = {} if node_id is None else {"node_id": node_id}
    gathered = sources.gather_file(path, environment_keys(), table=table, overrides=overrides)
    leave_open_what_the_host_decides(gathered)
    problems = NodeConfig.every_problem(gathered)
    if problems:
        return complain(problems)
    config = NodeConfig.from_gathered(gathered)
    if config.nodes and not config.node_id and config.learner_only:
        hint = "without voters no cluster forms: set learner_only for single nodes, with a file of their own"
        return complain([gathered.locate(ConfigError("all nodes are learners", hint=hint, key="learner_only"))])
    say([f"{gathered.source}: no problem found", *meaning(config, gathered), *notes(config)])
    return 0


def check_several(paths: Sequence[Path], table: str) -> int:
    members: list[Member] = []
    problems: list[ConfigError] = []
    for path in paths:
        gathered = sources.gather_file(path, environment_keys(), table=table, environment=False)
        add_secrets_of_the_environment(gathered)
        leave_open_what_the_host_decides(gathered)
        found = NodeConfig.every_problem(gathered) or not_a_member(gathered)
        problems.extend(found)
        if not found:
            members.append(Member(str(path), NodeConfig.from_gathered(gathered)))
    if len(members) > 1:
        problems.extend(disagreements(members))
    if problems:
        return complain(problems)
    say([f"{len(members)} files: no problem found"])
    for name, config in members:
        say([f"{name}: {place(config)}", *notes(config)])
    say([f"note: {text}" for text in advice(members)])
    return 0


def leave_open_what_the_host_decides(gathered: sources.Gathered) -> None:
    """A config for pods is checked elsewhere too, where the host's name says nothing."""
    given = gathered.values.get("node_id_from")
    if given is None or given.value != "k8s":
        return
    try:
        node_id_of_host(sources.host_name())
    except ConfigError:
        del gathered.values["node_id_from"]
        gathered.values.pop("node_id", None)
        gathered.notices.append("node_id_from = k8s: the name of the host that it runs on decides which node this is")


def add_secrets_of_the_environment(gathered: sources.Gathered) -> None:
    outside = sources.gather(environment_keys()).values
    for key in environment_keys():
        if key.secret and key.name in outside:
            gathered.values.setdefault(key.name, outside[key.name])


def not_a_member(gathered: sources.Gathered) -> list[ConfigError]:
    """Files of several nodes each say which node they are for."""
    config = NodeConfig.from_gathered(gathered)
    if not config.nodes:
        problem = ConfigError("nodes is missing", hint="without it this is a cluster of its own", key="nodes")
    elif not config.node_id:
        problem = ConfigError("node_id is missing", hint="one file for all nodes is checked alone", key="node_id")
    else:
        return []
    return [gathered.locate(problem)]


def meaning(config: NodeConfig, gathered: sources.Gathered) -> list[str]:
    """Which node this is, and every key that was given, with its place."""
    secrets = NodeConfig.secret_keys()
    rows = [
        (f"{name} = {'***' if name in secrets else written(getattr(config, name))}", str(given.source))
        for name, given in gathered.values.items()
    ]
    width = min(60, max((len(text) for text, _ in rows), default=0))
    return [place(config), *(f"  {text:<{width}}  # {source}" for text, source in rows)]


def written(value: Any) -> str:
    """A value as a TOML file holds it."""
    if isinstance(value, tuple):
        return f"[{', '.join(written(item) for item in value)}]"
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value if isinstance(value, int | float) else str(value))


def place(config: NodeConfig) -> str:
    if not config.nodes:
        return f"a single node that listens on no port, data in {config.data_path}"
    if not config.node_id:
        return f"one of {len(config.nodes)} nodes, data in {config.data_dir}"
    here = config.address
    assert here is not None
    where = f"raft {here.raft_address}, api {here.api_address}, data in {config.data_path}"
    return f"node {here.id} of {len(config.nodes)}: {where}"


def notes(config: NodeConfig) -> list[str]:
    return [f"note: {text}" for text in config.start_notices()]


def say(lines: Sequence[str]) -> None:
    for line in lines:
        print(line.encode("utf-8", "backslashreplace").decode())  # a path may hold bytes that are no text


def complain(problems: Sequence[ConfigError]) -> int:
    for problem in problems:
        print(f"hiqlite: {problem}", file=sys.stderr)
    return 1
