"""`hiqlite doctor equality`: whether all nodes hold the same data, read now, on each of them, at one entry of the log.

Ends with 0 exactly when every member has read all of its database and all found the same.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import Any

from hiqlite.config import NodeConfig
from hiqlite.errors import UsageError

from .members import ask_any

TIMEOUT_S = 300.0
TELL_S = 30.0  # beside the reading
HEADER = f"{'node':>4}  {'votes':<5} found"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="what", required=True)
    text = "compare the databases of all nodes"
    equality = actions.add_parser("equality", help=text, description=__doc__)
    equality.add_argument("-c", "--config-file", type=Path, help="TOML or env file (default ~/.hiqlite/hiqlite.toml)")
    equality.add_argument("--timeout", type=float, default=TIMEOUT_S, help="seconds that the reading may take (300)")


def lines(answer: dict[str, Any]) -> list[str]:
    """A line for each node, and what follows."""
    digests, silent = answer["digests"], answer["silent"]
    found = [HEADER]
    for node in sorted(map(int, {*digests, *silent})):
        said = digests.get(str(node)) or f"nothing: {silent[str(node)]}"
        found.append(f"{node:>4}  {'yes' if node in answer['voters'] else 'no':<5} {said}")
    return [*found, "", verdict(answer)]


def verdict(answer: dict[str, Any]) -> str:
    """In one sentence."""
    digests, place = answer["digests"], f"behind entry {answer['index']:,}"
    if len(set(digests.values())) > 1:
        return f"the databases are not equal {place}"
    if answer["silent"]:
        return f"the databases of {len(digests)} of {len(digests) + len(answer['silent'])} nodes are equal {place}"
    return f"the databases are equal {place}"


def is_well(answer: dict[str, Any]) -> bool:
    return len(set(answer["digests"].values())) == 1 and not answer["silent"]


def main(options: argparse.Namespace) -> int:
    config = NodeConfig.from_file(options.config_file, overrides={"node_id": 0})
    if not config.nodes:
        raise UsageError("this config names no nodes: a single node has nothing to compare with")
    payload = {"timeout": options.timeout}
    answer = asyncio.run(ask_any(config, "equality", payload, options.timeout + TELL_S))
    print("\n".join(lines(answer)))
    return 0 if is_well(answer) else 1
