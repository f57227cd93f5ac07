"""Runs points of the crash sweep, each in forked processes of its own: so nothing is imported twice.

Obeys lines of JSON: {"folder": ..., "k": ..., "how": ..., "seed": ...} and answers each with
{"killed": bool, "steps": int, "wrong": [...]}. Started with killpoint.c and powerloss.c preloaded.
"""

from __future__ import annotations

import ctypes
import faulthandler
import json
import logging
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import name_all_in_shadow
from sweep_lives import Place, check, come_back, live, look, run

import hiqlite
import hiqlite.node  # once, here: every forked process has it

LIMIT_S = 120  # of one life; then it says where its threads stand and ends, which is a violation
LOSS = {"kill": -1, "half": -1, "drop": 0, "torn": 1, "any": 2}
SECOND = {
    "again": ("kill", "kill"),
    "again_any": ("any", "any"),
    "then_drop": ("kill", "drop"),
    "then_any": ("kill", "any"),
    "look": ("kill", "drop"),
}
libraries = ctypes.CDLL(None)


def arm(place: Place, k: int, how: str, seed: int, tracked: bool) -> None:
    """From here on this process dies at its k-th change of the disk, or counts them.

    `tracked`: what is durable is noted, for this life or for the next one, which goes on with what this one leaves.
    """
    loss = LOSS[how]
    if tracked:
        libraries.hq_powerloss_begin(os.fsencode(place.data), os.fsencode(place.durable))
    libraries.hq_kill_arm(
        os.fsencode(place.data), ctypes.c_ulong(k), how == "half", loss, ctypes.c_ulonglong(seed)
    )


def forked(work: Callable[[], Any]) -> tuple[int, Any]:
    """What `work` gives in a process of its own: (wait status, result or None)."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        faulthandler.dump_traceback_later(LIMIT_S, exit=True)
        try:
            result = work()
        except BaseException:  # whatever it was, it goes to the parent
            result = {"wrong": [traceback.format_exc()]}
        os.write(writer, json.dumps(result).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        data = pipe.read()
    _, status = os.waitpid(child, 0)
    return status, json.loads(data) if data else None


def life(
    place: Place, k: int, how: str, seed: int, work: Callable[[Place], Any], tracked: bool
) -> Callable[[], Any]:
    def go() -> Any:
        arm(place, k, how, seed, tracked)
        run(work(place))
        return {"steps": libraries.hq_kill_steps()}

    return go


def cut_short(
    place: Place, k: int, how: str, seed: int, work: Callable[[Place], Any], tracked: bool
) -> dict[str, Any]:
    """One life that ends at the k-th step, unless it has fewer; then what the disk has after it."""
    if tracked and not place.durable.exists():
        shutil.copytree(place.data, place.durable)
    elif tracked:
        name_all_in_shadow(place.data, place.durable)
    status, result = forked(life(place, k, how, seed, work, tracked))
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    answer = {"killed": killed, "steps": 0, "wrong": [], **(result or {})}
    if not killed and result is None:
        answer["wrong"] = [f"the process ended with status {status}"]
    if killed and LOSS[how] >= 0:
        shutil.rmtree(place.data)
        place.durable.rename(place.data)
    return answer


def point(command: dict[str, Any]) -> dict[str, Any]:
    """One point: a life cut short, in some ways the next start too, and then the checks."""
    place = Place(Path(command["folder"]))
    shutil.rmtree(place.folder, ignore_errors=True)
    place.data.mkdir(parents=True)
    k, how, seed = command["k"], command["how"], command["seed"]
    first, second = SECOND.get(how, (how, None))
    tracked = LOSS[first] >= 0 or (second is not None and LOSS[second] >= 0)
    answer = cut_short(place, k, first, seed, live, tracked)
    if answer["killed"] and second is not None:
        at, work = (0, look) if how == "look" else (1 + seed % 60, come_back)
        answer["wrong"] += cut_short(place, at, second, seed + 1, work, LOSS[second] >= 0)["wrong"]
    if answer["killed"]:
        status, wrong = forked(lambda: run(check(place)))
        if isinstance(wrong, dict):
            wrong = wrong["wrong"]
        answer["wrong"] += wrong if wrong is not None else [f"the check ended with status {status}"]
    if not answer["wrong"]:
        shutil.rmtree(place.folder)
    return answer


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    libraries.prctl(1, signal.SIGKILL)  # dies with the sweep
    assert hiqlite.__name__
    for line in sys.stdin:
        print(json.dumps(point(json.loads(line))), flush=True)
