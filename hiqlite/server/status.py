"""`hiqlite status`: asks each node of a config over its api port and prints one line per node."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import Any

from hiqlite.config import NodeConfig
from hiqlite.errors import HiqliteError
from hiqlite.transport.rpc import call

TIMEOUT_S = 1.0
HEADER = (
    f"{'node':>4}  {'role':<13} {'term':>5} {'leader':>6} {'last':>10} {'commit':>10} {'applied':>10} {'lag':>7}  api"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-c", "--config-file", type=Path, help="TOML or env file (default ~/.hiqlite/hiqlite.toml)")


async def ask(config: NodeConfig) -> dict[int, dict[str, Any] | HiqliteError]:
    """The metrics of each configured node, or why they could not be had."""

    async def one(host: str, port: int) -> dict[str, Any] | HiqliteError:
        try:
            answer: dict[str, Any] = await call(host, port, config.secret_api or "", "metrics", None, TIMEOUT_S)
        except HiqliteError as error:
            return error
        return answer

    answers = await asyncio.gather(*(one(node.api_host, node.api_port) for node in config.nodes))
    return {node.id: answer for node, answer in zip(config.nodes, answers, strict=True)}


def lines(config: NodeConfig, answers: dict[int, dict[str, Any] | HiqliteError], name: str = "db") -> list[str]:
    """The table of a group, one line per node."""
    known = [answer["groups"] for answer in answers.values() if isinstance(answer, dict)]
    groups = [one[name] for one in known if name in one]
    newest = max((group["commit_index"] for group in groups), default=0)
    found = [HEADER]
    for node in config.nodes:
        answer = answers[node.id]
        api = f"{node.api_host}:{node.api_port}"
        group = None if isinstance(answer, HiqliteError) else answer["groups"].get(name)
        if group is None:
            state = "unreachable" if isinstance(answer, HiqliteError) else "switched off"
            found.append(f"{node.id:>4}  {state:<13} {'':>5} {'':>6} {'':>10} {'':>10} {'':>10} {'':>7}  {api}")
            continue
        found.append(
            f"{node.id:>4}  {group['role']:<13} {group['term']:>5} {group['leader_id']:>6} "
            f"{group['last_log_index']:>10,} {group['commit_index']:>10,} {group['applied_index']:>10,} "
            f"{newest - group['applied_index']:>7,}  {api}"
        )
    return found


def main(options: argparse.Namespace) -> None:
    # Which node this is does not matter, and a config for pods is asked about from other hosts too.
    config = NodeConfig.from_file(options.config_file, overrides={"node_id": 0})
    answers = asyncio.run(ask(config))
    print("\n".join(lines(config, answers)))
    if any("cache" in answer["groups"] for answer in answers.values() if isinstance(answer, dict)):
        print("\n".join(["", "cache group", *lines(config, answers, "cache")]))
