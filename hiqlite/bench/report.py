"""The bench's output: one JSON object (docs/performance) and one table for people."""

from __future__ import annotations

import os
import platform
import statistics
from importlib.metadata import version
from typing import Any


def machine() -> dict[str, Any]:
    model = ""
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            model = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), "")
    return {"cores": os.cpu_count(), "cpu": model, "system": platform.platform()}


def versions() -> dict[str, str]:
    import apsw

    found = {name: version(name) for name in ("hiqlite", "uvloop", "apsw", "lmdb")}
    return {"python": platform.python_version(), "sqlite": apsw.sqlite_lib_version(), **found}


def combine(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """The round with the median rate, with all rates beside it."""
    rates = [one["ops_per_s"] for one in rounds]
    middle = sorted(rounds, key=lambda one: one["ops_per_s"])[len(rounds) // 2]
    return {**middle, "ops_per_s": statistics.median_high(rates), "rounds": rates}


def heading(report: dict[str, Any]) -> list[str]:
    """What every table begins with."""
    return [
        f"{report['machine']['cores']} cores, {report['machine']['cpu']}, {report['machine']['system']}",
        ", ".join(f"{name} {value}" for name, value in report["versions"].items()),
        ", ".join(f"{name} {value}" for name, value in report["settings"].items()),
    ]


def table(report: dict[str, Any]) -> str:
    calibration = report["calibration"]
    lines = [
        *heading(report),
        ", ".join(f"{name} {value:,}" for name, value in calibration.items()),
        "",
        f"{'bench':28} {'C':>4} {'n':>8} {'ops/s':>10} {'p50 us':>9} {'p99 us':>9} {'p999 us':>9} "
        f"{'max us':>10} {'/ K':>6}  cpu s per process  rss MB",
    ]
    base = calibration["sqlite3_normal_per_s"]
    for row in report["rows"]:
        cpu = "/".join(f"{seconds:.1f}" for seconds in row["cpu_s"])
        rss = "/".join(f"{size:.0f}" for size in row["rss_mb"])
        lines.append(
            f"{row['bench']:28} {row['c']:>4} {row['n']:>8} {row['ops_per_s']:>10,.0f} {row['p50_us']:>9,.1f} "
            f"{row['p99_us']:>9,.1f} {row['p999_us']:>9,.1f} {row['max_us']:>10,.1f} {row['ops_per_s'] / base:>6.2f}  "
            f"{cpu:18} {rss}"
        )
    return "\n".join(lines)
