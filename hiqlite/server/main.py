"""The command line: `hiqlite serve | demo | status | config | members | doctor | recover | bench`.

Parses arguments and hands on; each command stands in a file of its own. Must not know rooms below the node.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from hiqlite import errors
from hiqlite.bench import command as bench

from . import config_check, demo, doctor, members, recover, serve, status


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="hiqlite", description="Embeddable SQLite that forms a Raft cluster.")
    commands = top.add_subparsers(dest="command", required=True, metavar="command")
    for name, module, text in (
        ("serve", serve, "run one node until it is stopped"),
        ("demo", demo, "run three local nodes with a live view"),
        ("status", status, "ask the nodes of a config how they are"),
        ("config", config_check, "check config files"),
        ("members", members, "who the members are, and the calls that change them"),
        ("doctor", doctor, "compare the data of all nodes"),
        ("recover", recover, "start again after a majority, or a lone node's data, were lost"),
        ("bench", bench, "measure this machine"),
    ):
        one = commands.add_parser(name, help=text, description=module.__doc__)
        module.add_arguments(one)
        one.set_defaults(run=module.main)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the `hiqlite` command. Returns the exit code."""
    options = parser().parse_args(arguments)
    try:
        return int(options.run(options) or 0)
    except errors.HiqliteError as error:
        print(f"hiqlite: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
