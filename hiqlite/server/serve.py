"""`hiqlite serve`: one node as a process of its own, until SIGINT or SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from hiqlite import observe
from hiqlite.config import NodeConfig
from hiqlite.errors import ShuttingDown
from hiqlite.node_opening import open as open_node


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-c", "--config-file", type=Path, help="TOML or env file (default ~/.hiqlite/hiqlite.toml)")
    parser.add_argument("--node-id", type=int, help="which of the config's nodes this is")
    parser.add_argument("--data-dir", help="folder of this node's data")
    parser.add_argument("--form-without", type=ids, default=(), metavar="IDS",
                        help="nodes of the config (1,2,...) that a new cluster does not wait for")  # fmt: skip
    parser.add_argument("--log-level", default="info", choices=["trace", "debug", "info", "warning", "error"])
    parser.add_argument("--log-statements", action="store_true", help="log SQL texts")
    parser.add_argument("--die-with-parent", action="store_true", help=argparse.SUPPRESS)


def configured(options: argparse.Namespace) -> NodeConfig:
    """The config file with the command line above it."""
    overrides = {
        "node_id": options.node_id, "data_dir": options.data_dir, "log_statements": options.log_statements or None,
    }  # fmt: skip
    given = {name: value for name, value in overrides.items() if value is not None}
    return NodeConfig.from_file(options.config_file, overrides=given)


def ids(text: str) -> tuple[int, ...]:
    """Numbers with commas between them."""
    return tuple(int(part) for part in text.split(","))


async def run(config: NodeConfig, form_without: tuple[int, ...] = ()) -> None:
    async with open_node(config, handle_signals=True, form_without=form_without) as db:
        address = config.address
        if address is not None:
            print(f"node {config.node_id} serves raft {address.raft_address}, "
                  f"api {address.api_address}", flush=True)  # fmt: skip
        await db.closed()


def main(options: argparse.Namespace) -> None:
    import uvloop

    observe.log_to_stderr(options.log_level)
    if options.die_with_parent:
        die_with_parent()
    config = configured(options)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(run(config, options.form_without))
        except ShuttingDown as stopped:
            print(f"node {config.node_id}: {stopped}", flush=True)


def die_with_parent() -> None:
    """Linux: the kernel ends this process when the one that started it is gone. Elsewhere nothing happens."""
    if sys.platform == "linux":
        import ctypes
        import signal

        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
