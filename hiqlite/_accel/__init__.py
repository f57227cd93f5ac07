"""Native code: codecs, apply, log thread, heartbeat thread, reads.

What this is for: work on bytes and integers that Python is too slow for, or that must go on without the GIL.
Must not know: Raft; it starts no event loop.
Invariant: codecs mean what their plain twins in `plain/` mean; this is the only place that asks "compiled?".
"""

from __future__ import annotations

from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec


def compiled(module: str) -> bool:
    """Whether a module of this package runs as native code.

    Args:
        module: its name behind `hiqlite.` ("_accel.wal", "engine.raft").
    """
    try:
        spec = find_spec(f"hiqlite.{module}")
    except ModuleNotFoundError:
        return False
    origin = spec.origin if spec is not None else None
    return origin is not None and origin.endswith(tuple(EXTENSION_SUFFIXES))
