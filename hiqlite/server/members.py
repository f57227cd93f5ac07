"""`hiqlite members`: who the members of a cluster are, and the calls that change them; asks the nodes of a config."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import Any

from hiqlite.config import NodeConfig
from hiqlite.errors import HiqliteError, PeerUnreachable, TransportError, UsageError
from hiqlite.runtime.addresses import join_address
from hiqlite.runtime.wishes import Wish, WishKind
from hiqlite.transport.rpc import call

ASK_S = 2.0
TIMEOUT_S = 60.0
HEADER = f"{'node':>4}  {'role':<8} {'raft':<24} api"
ADDRESSES = ("raft_addr", "api_addr")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-c", "--config-file", type=Path, help="TOML or env file (default ~/.hiqlite/hiqlite.toml)")
    parser.add_argument("--timeout", type=float, default=TIMEOUT_S, help="seconds that a change may take (60)")
    actions = parser.add_subparsers(dest="action", metavar="change")
    for name, text, names in (
        ("add", "let a node in as a learner", ("id", *ADDRESSES)),
        ("promote", "make a learner a voter, once it has caught up", ("id",)),
        ("demote", "make a voter a learner", ("id",)),
        ("remove", "take a node out for good", ("id",)),
        ("replace", "let a node in, in the place of another one", ("old", "id", *ADDRESSES)),
    ):
        one = actions.add_parser(name, help=text, description=text)
        for argument in names:
            one.add_argument(argument, type=str if argument in ADDRESSES else int)
    voters = actions.add_parser("voters", help="exactly these members vote from now on")
    voters.add_argument("ids", type=int, nargs="+")
    lead = actions.add_parser("lead", help="make another voter lead")
    lead.add_argument("id", type=int, nargs="?")
    lead.add_argument("--group", choices=["db", "cache"])


def request(options: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """The call and its payload."""
    if options.action == "lead":
        return "transfer", {"to": options.id or 0, "group": options.group, "timeout": options.timeout}
    if options.action == "voters":
        wish = Wish(WishKind.SET_VOTERS, tuple(options.ids))
    elif options.action == "replace":
        wish = Wish(WishKind.REPLACE, (options.old, options.id))
    else:
        kind = WishKind.ADD_LEARNER if options.action == "add" else WishKind(options.action)
        wish = Wish(kind, (options.id,))
    named = [[options.id, options.raft_addr, options.api_addr]] if "raft_addr" in options else []
    return "manage", {"wish": wish.to_wire(), "addresses": named, "timeout": options.timeout}


async def ask_any(config: NodeConfig, name: str, payload: Any, timeout: float) -> Any:
    """The answer of the first node that can be reached. Raises PeerUnreachable when none can."""
    reasons = []
    for node in config.nodes:
        try:
            return await call(node.api_host, node.api_port, config.secret_api or "", name, payload, timeout)
        except TransportError as error:
            if not isinstance(error, PeerUnreachable):
                raise
            reasons.append(f"node {node.id}: {error.message}")
    raise PeerUnreachable("no node answers: " + "; ".join(reasons), hint="is the config that of a running cluster?")


async def ask_all(config: NodeConfig) -> dict[int, Any]:
    """What each node of the config says of the members, or why it does not."""

    async def one(host: str, port: int) -> Any:
        try:
            return await call(host, port, config.secret_api or "", "members", None, ASK_S)
        except HiqliteError as error:
            return error

    answers = await asyncio.gather(*(one(node.api_host, node.api_port) for node in config.nodes))
    return {node.id: answer for node, answer in zip(config.nodes, answers, strict=True)}


def lines(config: NodeConfig, answers: dict[int, Any]) -> list[str]:
    """The members by the newest word, and who says something else."""
    words = {number: answer for number, answer in answers.items() if not isinstance(answer, HiqliteError)}
    newest = max((word for word in words.values() if word["members"]), key=lambda word: word["index"], default=None)
    found = [HEADER] if newest else ["no node that answers is a member of a cluster"]
    for member in newest["members"] if newest else []:
        found.append(f"{member['id']:>4}  {member['role']:<8} {member['raft_addr']:<24} {member['api_addr']}")
    if newest and newest["removed"]:
        found.append(f"removed: {', '.join(map(str, newest['removed']))}")
    for node in config.nodes:
        answer, api = answers[node.id], join_address(node.api_host, node.api_port)
        if isinstance(answer, HiqliteError):
            found.append(f"node {node.id} is not reached: {answer}")
        elif answer["standing"]:
            found.append(f"node {node.id} at {api}: {answer['standing']}")
        elif newest and answer["cluster_id"] != newest["cluster_id"]:
            found.append(f"node {node.id} at {api} is of another cluster")
        elif newest and answer["index"] != newest["index"]:
            found.append(f"node {node.id} at {api} knows older members, it is behind")
    return found


async def run(options: argparse.Namespace, config: NodeConfig) -> list[str]:
    if options.action is not None:
        name, payload = request(options)
        await ask_any(config, name, payload, options.timeout)
    return lines(config, await ask_all(config))


def main(options: argparse.Namespace) -> None:
    config = NodeConfig.from_file(options.config_file)
    if not config.nodes:
        raise UsageError("this config names no nodes: a single node has no members")
    print("\n".join(asyncio.run(run(options, config))))
