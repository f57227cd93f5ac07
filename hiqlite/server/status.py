"""`hiqlite status`: asks each node of a config over its api port, prints a line per node, and what is wrong with it.

Ends with 0 exactly when every node of the config answers, says that it is ready, and contradicts no other one.
"""

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
        other = None if isinstance(answer, HiqliteError) else _another(node.id, answer)
        if group is None or other is not None:
            state = "unreachable" if isinstance(answer, HiqliteError) else "switched off"
            state = state if other is None else f"is node {other}"
            found.append(f"{node.id:>4}  {state:<13} {'':>5} {'':>6} {'':>10} {'':>10} {'':>10} {'':>7}  {api}")
            continue
        found.append(
            f"{node.id:>4}  {group['role']:<13} {group['term']:>5} {group['leader_id']:>6} "
            f"{group['last_log_index']:>10,} {group['commit_index']:>10,} {group['applied_index']:>10,} "
            f"{newest - group['applied_index']:>7,}  {api}"
        )
    return found


def _another(number: int, answer: dict[str, Any]) -> int | None:
    """Who answers in the place of node `number`; None: it does itself, or does not say."""
    told = answer.get("node", {}).get("id", number)
    return None if told == number else int(told)


def findings(config: NodeConfig, answers: dict[int, dict[str, Any] | HiqliteError]) -> list[str]:
    """Everything that is not well, by the nodes' own word and by comparing them."""
    found: list[str] = []
    clusters: dict[str, list[int]] = {}
    led: dict[tuple[str, int], set[int]] = {}
    for node in config.nodes:
        answer = answers[node.id]
        if isinstance(answer, HiqliteError):
            found.append(f"node {node.id} is not reached: {answer}")
            continue
        about = answer.get("node", {})
        if (other := _another(node.id, answer)) is not None:
            api = f"{node.api_host}:{node.api_port}"
            found.append(f"node {other} answers at {api}, which the config gives to node {node.id}")
            continue
        if "ready" not in about:
            found.append(f"node {node.id} is of an earlier version, and does not say how it is")
            continue
        found += [f"node {node.id} is not ready: {reason}" for reason in about["reasons"]]
        told = "; ".join(about["reasons"])
        found += [f"node {node.id} sees a split brain: {text}" for text in about["split_brain"] if text not in told]
        if about["cluster_id"]:
            clusters.setdefault(about["cluster_id"], []).append(node.id)
        for name, group in answer["groups"].items():
            if group["leader_id"]:
                led.setdefault((name, group["term"]), set()).add(group["leader_id"])
    if len(clusters) > 1:
        parts = (f"{', '.join(map(str, ids))} ({cluster_id[:16]})" for cluster_id, ids in clusters.items())
        found.append(f"the nodes are of {len(clusters)} clusters: {'; '.join(parts)}")
    elif two := [(name, term, leaders) for (name, term), leaders in sorted(led.items()) if len(leaders) > 1]:
        found += [f"{name} group: term {term} is led by nodes {sorted(leaders)}" for name, term, leaders in two]
    return found


def main(options: argparse.Namespace) -> int:
    # Which node this is does not matter, and a config for pods is asked about from other hosts too.
    config = NodeConfig.from_file(options.config_file, overrides={"node_id": 0})
    answers = asyncio.run(ask(config))
    print("\n".join(lines(config, answers)))
    if any("cache" in answer["groups"] for answer in answers.values() if isinstance(answer, dict)):
        print("\n".join(["", "cache group", *lines(config, answers, "cache")]))
    found = findings(config, answers)
    if found:
        print("\n".join(["", *found]))
    return 1 if found else 0
