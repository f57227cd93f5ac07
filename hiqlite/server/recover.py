"""`hiqlite recover --repair`: a node that is alone and whose log or metadata are damaged starts again, with what can be
read. It must not be running."""

from __future__ import annotations

import argparse
import asyncio

from hiqlite.node_repair import repair

from .serve import configured


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repair", action="store_true", required=True, help="the only kind of recovery so far")
    parser.add_argument("-c", "--config-file", help="TOML or env file (default ~/.hiqlite/hiqlite.toml)")
    parser.add_argument("--data-dir", help="folder of this node's data")
    parser.set_defaults(node_id=None, log_statements=False)


def main(options: argparse.Namespace) -> None:
    done = asyncio.run(repair(configured(options)))
    print(f"the database holds everything up to entry {done.applied_index}; {done.from_log} entries came from the log")
    for what in done.lost:
        print(f"lost: {what}")
    print("what is not used any more lies in the folder `kept` of the data folder; remove it when nobody needs it")
