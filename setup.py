"""Extensions only; everything else stands in pyproject.toml.

Switches, all by environment:
  HIQLITE_BUILD=wal,beat   build only the named extensions (for work on one of them)
  HIQLITE_DEBUG=1          bounds checks, line tracing, assertions in C, no optimisation
  HIQLITE_SANITIZE=address build with a sanitizer
  HIQLITE_PURE_ENGINE=1    leave the engine as plain Python
"""

import os
import sys
from pathlib import Path

from setuptools import Extension, setup

NATIVE = "hiqlite/_accel/native"
VENDOR = "hiqlite/_accel/vendor"

# Short name -> (module, sources). One extension per .pyx.
ACCEL = {
    "values": ["values.pyx"],
    "commands": ["commands.pyx"],
    "records": ["records.pyx"],
    "answers": ["answers.pyx"],
    "frames": ["frames.pyx"],
    "session": ["session.pyx"],
    "batch": ["batch.pyx"],
    "pending": ["pending.pyx"],
    "guard": ["guard.pyx"],
    "apply": ["apply.pyx"],
    "reads": ["reads.pyx"],
    "readpool": ["readpool.pyx", "native/reads_prepare.c", "native/reads_inspect.c"],
    "wal": ["wal.pyx"],
    "beat": ["beat.pyx"],
    "forks": ["forks.pyx"],
}

# Plain Python with .pxd beside it: compiles, and runs uncompiled.
ENGINE = [
    "quorum", "progress", "log", "window", "membership", "reads", "ready", "state", "role", "repair", "shape",
    "snapshot", "transfer", "follower", "replication", "reconfiguration", "election", "views", "raft",
]  # fmt: skip

DEBUG = os.environ.get("HIQLITE_DEBUG") == "1"
SANITIZE = os.environ.get("HIQLITE_SANITIZE", "")
ONLY = {name for name in os.environ.get("HIQLITE_BUILD", "").split(",") if name}

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": DEBUG,
    "wraparound": False,
    "initializedcheck": DEBUG,
    "cdivision": True,
    "linetrace": DEBUG,
    "annotation_typing": False,  # the engine's annotations are for people and mypy; its C types stand in the .pxd
    "freethreading_compatible": False,
}


def native_sources(prefix: str) -> list[str]:
    """C files of one extension: native/<name>_*.c (headers beside them are shared)."""
    return sorted(str(path) for path in Path(NATIVE).glob(f"{prefix}_*.c"))


def extensions() -> list[Extension]:
    cflags = ["-O0", "-g", "-DHQ_DEBUG=1"] if DEBUG else ["-O2", "-DNDEBUG"]
    cflags += ["-std=gnu11", "-Wall", "-Wno-unused-function", "-fvisibility=hidden"]
    if SANITIZE:
        cflags += [f"-fsanitize={SANITIZE}", "-fno-omit-frame-pointer"]
    link = [f"-fsanitize={SANITIZE}"] if SANITIZE else []
    if sys.platform != "win32":
        link.append("-pthread")
    found = []
    for name, sources in ACCEL.items():
        if ONLY and name not in ONLY:
            continue
        found.append(
            Extension(
                f"hiqlite._accel.{name}",
                [f"hiqlite/_accel/{source}" for source in sources] + native_sources(name),
                include_dirs=[NATIVE, VENDOR],
                depends=[str(path) for path in Path(NATIVE).glob("*.h")],
                extra_compile_args=cflags,
                extra_link_args=link,
            )
        )
    if os.environ.get("HIQLITE_PURE_ENGINE") != "1":
        for name in ENGINE:
            if ONLY and "engine" not in ONLY:
                continue
            path = f"hiqlite/engine/{name}.py"
            if Path(path).exists():
                module = f"hiqlite.engine.{name}"
                found.append(Extension(module, [path], extra_compile_args=cflags, extra_link_args=link))
    return found


def cythonized() -> list[Extension]:
    from Cython.Build import cythonize

    return cythonize(extensions(), compiler_directives=DIRECTIVES, annotate=DEBUG, build_dir="build/cython")


setup(ext_modules=cythonized())
