"""What this machine gives to anybody: plain SQLite, a loopback round trip, a flush. Printed with each run, so that
ratios taken on different days can be compared. Measures files in a folder of its own, never a node's.
"""

from __future__ import annotations

import os
import socket
import sqlite3
import statistics
import threading
import time
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

from .phases import CREATE, TIMESTAMP

INSERT = "INSERT INTO _bench (id, ts, name) VALUES (?, ?, ?)"


def sqlite_rate(folder: Path, synchronous: str, rows: int, ranges: int = 16) -> float:
    """Autocommit INSERTs per second of the standard library's sqlite3, keys in `ranges` interleaved ranges."""
    db = sqlite3.connect(folder / f"{synchronous}.db", isolation_level=None)
    try:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute(f"PRAGMA synchronous={synchronous}")
        db.execute(CREATE)
        keys = [part * rows + step for step in range(rows // ranges) for part in range(ranges)]
        start = time.perf_counter()
        for key in keys:
            db.execute(INSERT, (key, TIMESTAMP, f"Name {key}"))
        return len(keys) / (time.perf_counter() - start)
    finally:
        db.close()


def echo(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while data := peer.recv(64):
            peer.sendall(data)


def round_trip_us(count: int = 2000) -> float:
    """Median loopback TCP round trip between two processes."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        child = get_context("spawn").Process(target=echo, args=(server.getsockname()[1],), daemon=True)
        child.start()
        peer, _ = server.accept()
        with peer:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            taken = []
            for _ in range(count):
                start = time.perf_counter_ns()
                peer.sendall(b"x" * 32)
                peer.recv(64)
                taken.append(time.perf_counter_ns() - start)
        child.join(10)
    return statistics.median(taken) / 1e3


def flush_us(folder: Path, at_once: int, count: int = 200) -> float:
    """Median fdatasync of 4 KiB in a zero-filled file, `at_once` files at the same time."""
    medians: list[float] = []

    def run(number: int) -> None:
        file = os.open(folder / f"flush{number}", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.pwrite(file, bytes(4 << 20), 0)
            os.fsync(file)
            taken = []
            for step in range(count):
                start = time.perf_counter_ns()
                os.pwrite(file, b"y" * 4096, step * 4096)
                os.fdatasync(file)
                taken.append(time.perf_counter_ns() - start)
            medians.append(statistics.median(taken) / 1e3)
        finally:
            os.close(file)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(at_once)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return statistics.mean(medians)


def calibrate(base: Path | None = None) -> dict[str, float]:
    """All figures, on the file system of `base`."""
    with TemporaryDirectory(dir=base) as name:
        folder = Path(name)
        return {
            "sqlite3_off_per_s": round(sqlite_rate(folder, "OFF", 20_000)),
            "sqlite3_normal_per_s": round(sqlite_rate(folder, "NORMAL", 20_000)),
            "sqlite3_full_per_s": round(sqlite_rate(folder, "FULL", 1_600)),
            "round_trip_us": round(round_trip_us(), 1),
            "fdatasync_us": round(flush_us(folder, 1), 1),
            "fdatasync_three_at_once_us": round(flush_us(folder, 3), 1),
        }
