"""`hiqlite demo`: three local nodes as three processes of `hiqlite serve`, and a live table of them until Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hiqlite.config import NodeConfig
from hiqlite.errors import HiqliteError
from hiqlite.transport.loopback import loopback_cluster

from .status import ask, lines

NODES = 3
REFRESH_S = 0.5
FORMING_S = 60.0
HOME_AND_CLEAR = "\x1b[H\x1b[J"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data-dir", type=Path, help="keep the nodes' data here (default: a temporary folder)")
    parser.add_argument("--seconds", type=float, help="end by itself so long after all nodes are there")


def toml(settings: dict[str, Any]) -> str:
    """The settings as a config file."""

    def value(given: Any) -> str:
        if isinstance(given, list):
            return "[" + ", ".join(value(item) for item in given) + "]"
        return str(given).lower() if isinstance(given, bool | int) else f'"{given}"'

    return "[hiqlite]\n" + "".join(f"{name} = {value(given)}\n" for name, given in settings.items())


def config_file(folder: Path) -> Path:
    """The demo's config, made once per folder; the nodes find their data again when it is kept."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "hiqlite.toml"
    if not file.exists():
        settings = {**loopback_cluster(folder, NODES, {})[1], "data_dir": str(folder / "node{node_id}")}
        settings.pop("node_id")
        file.touch(mode=0o600)  # it holds the secrets
        file.write_text(toml(settings), encoding="utf-8")
    return file


async def start_node(file: Path, number: int) -> asyncio.subprocess.Process:
    """One node as a process of its own session, so that Ctrl-C reaches the demo alone; it dies with the demo."""
    arguments = ["serve", "-c", str(file), "--node-id", str(number), "--die-with-parent"]
    with (file.parent / f"node{number}.log").open("ab") as log:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "hiqlite.server.main",
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


@contextlib.asynccontextmanager
async def nodes(file: Path) -> AsyncIterator[None]:
    """Three running nodes of the config `file`."""
    processes: list[asyncio.subprocess.Process] = []
    try:
        for number in range(1, NODES + 1):
            processes.append(await start_node(file, number))
        yield
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        for process in processes:
            try:
                await asyncio.wait_for(process.wait(), 10)
            except TimeoutError:
                process.kill()
                await process.wait()


class View:
    """The live table: status of each node, and writes per second since the last look."""

    def __init__(self, config: NodeConfig, folder: Path) -> None:
        self._config = config
        self._folder = folder
        self._before: tuple[float, int] | None = None
        self.formed = False  # all nodes have answered, and one of them led

    async def text(self) -> str:
        answers = await ask(self._config)
        now = time.monotonic()
        groups = [one["groups"]["db"] for one in answers.values() if isinstance(one, dict)]
        self.formed |= len(groups) == NODES and "leader" in [group["role"] for group in groups]
        newest = max((group["commit_index"] for group in groups), default=0)
        rate = 0.0
        if self._before is not None and newest >= self._before[1]:
            rate = (newest - self._before[1]) / (now - self._before[0])
        self._before = (now, newest)
        unreachable = [str(one) for one in answers.values() if isinstance(one, HiqliteError)]
        tail = [f"writes/s {rate:,.0f}", f"data, logs and config: {self._folder}", "Ctrl-C ends the demo"]
        return "\n".join([*lines(self._config, answers), "", *tail, *unreachable[:1]])


async def show(folder: Path, seconds: float | None) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    file = config_file(folder)
    async with nodes(file):
        view = View(NodeConfig.from_file(file).with_overrides(node_id=1), folder)
        end = time.monotonic() + FORMING_S if seconds is not None else float("inf")
        while not stop.is_set() and time.monotonic() < end:
            formed = view.formed
            text = await view.text()
            if seconds is not None and view.formed and not formed:
                end = time.monotonic() + seconds
            print((HOME_AND_CLEAR if sys.stdout.isatty() else "") + text, flush=True)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), REFRESH_S)


def main(options: argparse.Namespace) -> None:
    if options.data_dir is not None:
        asyncio.run(show(options.data_dir.absolute(), options.seconds))
        return
    with TemporaryDirectory(prefix="hiqlite-demo-") as folder:
        asyncio.run(show(Path(folder), options.seconds))
