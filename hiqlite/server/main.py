"""The command line: `hiqlite serve | demo | status | recover | bench`.

Parses arguments and hands on; each command stands in a file of its own. Must not know rooms below the node.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from hiqlite import errors
from hiqlite.bench import command as bench

from . import demo, recover, serve, status


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="hiqlite", description="Embeddable SQLite that forms a Raft cluster.")
    commands = top.add_subparsers(dest="command", required=True, metavar="command")
    for name, module, text in (
        ("serve", serve, "run one node until it is stopped"),
        ("demo", demo, "run three local nodes with a live view"),
        ("status", status, "ask the nodes of a config how they are"),
        ("recover", recover, "make a node start again whose data are damaged"),
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
        options.run(options)
    except errors.HiqliteError as error:
        print(f"hiqlite: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
