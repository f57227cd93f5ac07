"""What a node could leave behind in its process: tasks of the loop, threads of Python and of C, open files."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
from collections import Counter
from pathlib import Path

from tests.waiting import MOMENT_S, TURNS

DEADLINE_S = 20.0


def native_threads() -> Counter[str]:
    """Threads of this process as the kernel knows them, by name; those of C are among them."""
    names: Counter[str] = Counter()
    for task in Path("/proc/self/task").iterdir():
        try:
            names[(task / "comm").read_text().strip()] += 1
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
    return names


def open_files() -> Counter[str]:
    """What this process holds open, by what it is; numbers of sockets and pipes are left out."""
    found: Counter[str] = Counter()
    for entry in os.listdir("/proc/self/fd"):
        try:
            found[os.readlink(f"/proc/self/fd/{entry}").partition(":[")[0]] += 1
        except FileNotFoundError:
            continue
    return found


def tasks() -> set[asyncio.Task[object]]:
    """Of the running loop; between two loops there are none."""
    return asyncio.all_tasks() if asyncio._get_running_loop() is not None else set()


class Traces:
    """What is there now, to compare with later."""

    def __init__(self) -> None:
        gc.collect()
        self.tasks = tasks()
        self.threads = set(threading.enumerate())
        self.native = native_threads()
        self.files = open_files()

    def new(self) -> list[str]:
        """What has come since, in words."""
        found = [f"task {task.get_name()}" for task in tasks() - self.tasks]
        found += [f"thread {thread.name}" for thread in set(threading.enumerate()) - self.threads]
        found += [f"native thread {name} ({count})" for name, count in (native_threads() - self.native).items()]
        return found + [f"file {name} ({count})" for name, count in (open_files() - self.files).items()]

    async def gone(self) -> None:
        """All that came since is gone; the kernel may take a moment to forget a thread that was joined."""
        deadline, looks = time.monotonic() + DEADLINE_S, 0
        while self.new() and time.monotonic() < deadline:
            gc.collect()
            looks += 1
            await asyncio.sleep(0 if looks < TURNS else MOMENT_S)
        found = self.new()
        assert found == [], found
