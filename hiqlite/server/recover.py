"""`hiqlite recover`: a survivor of a cluster whose majority is lost for good becomes a cluster of its own.

Without --yes it only says what this node has and what may be missing; run it on every survivor, and recover the one
that has most. The others are started with empty data folders afterwards, and join. A survivor that is damaged goes on
with its database and what of its log can be read; the report says what is missing.

With --repair: a node that is alone, whose log or metadata are damaged, starts again with what can be read.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from hiqlite.config import NodeConfig
from hiqlite.node_recovery import RecoveryReport, recover
from hiqlite.node_repair import Repaired, repair


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-c", "--config-file", type=Path, help="TOML or env file (default ~/.hiqlite/hiqlite.toml)")
    parser.add_argument("--node-id", type=int, help="which of the config's nodes this is")
    parser.add_argument("--data-dir", help="folder of this node's data")
    parser.add_argument("--repair", action="store_true", help="a node that is alone: start again with what can be read")
    parser.add_argument("--yes", action="store_true", help="do it; without it nothing is written")


def repaired(done: Repaired) -> list[str]:
    """What a repair did, for people."""
    whole = f"the database holds everything up to entry {done.applied_index}; {done.from_log} entries came from the log"
    kept = "what is not used any more lies in the folder `kept` of the data folder; remove it when nobody needs it"
    return [whole, *(f"lost: {what}" for what in done.lost), kept]


def lines(report: RecoveryReport) -> list[str]:
    """The report for people."""

    def ids(numbers: tuple[int, ...]) -> str:
        return ", ".join(map(str, numbers)) or "none"

    found = [
        f"node {report.node_id} of cluster {report.cluster_id[:16] or 'unknown'}",
        f"voters {ids(report.voters)}; learners {ids(report.learners)}; others that answer: {ids(report.alive)}; "
        f"voters among these, with what they had: {ids(report.voting)}",
        *([f"not asked, address unknown: {ids(report.not_asked)}"] if report.not_asked else []),
        f"its log ends at index {report.last_index} of term {report.last_term}, its database holds all up to index "
        f"{report.applied_index}",
        "what may be missing: writes that a majority without this node had acknowledged, behind that end; nobody who "
        "is left can say how many",
    ]
    if report.uncertain:
        found.append(
            f"what may be too much: {report.uncertain} entries are in its log and not known to be acknowledged; they "
            "become part of the data"
        )
    for first, last in report.damaged:
        found.append(f"entries {first} to {last} of its log are damaged")
    found += [f"missing here, another survivor may have it: {what}" for what in report.missing]
    if report.new_cluster_id:
        if report.missing:
            found.append("what is not used any more lies in the folder `kept` of the data folder")
        found += [
            f"done: it is a cluster of one, {report.new_cluster_id[:16]}; start it",
            "start the others with empty data folders: with their old ones they belong to the old cluster",
        ]
    elif report.refusal:
        found.append(f"it cannot be recovered: {report.refusal}")
    else:
        found += [
            "of several survivors take the one with the highest term, then the highest index; one only",
            "run it with --yes to make this node a cluster of its own",
        ]
    return found


def main(options: argparse.Namespace) -> None:
    overrides = {"node_id": options.node_id, "data_dir": options.data_dir}
    given = {name: value for name, value in overrides.items() if value is not None}
    config = NodeConfig.from_file(options.config_file, overrides=given)
    if options.repair:
        print("\n".join(repaired(asyncio.run(repair(config)))))
    else:
        print("\n".join(lines(asyncio.run(recover(config, write=options.yes)))))
