"""Which CPUs a thread is bound to, where the system can do that.

Must not know what the thread does.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from hiqlite.errors import ConfigError

CPUS_MIN_FOR_OWN = 4


def cpus_of(affinity: str | Sequence[int]) -> list[int]:
    """The CPUs that the apply thread is bound to; empty: any.

    `auto` binds it from four CPUs up. On fewer it stays free: short runs are applied on the loop anyway, and long ones
    gain by running beside it.
    """
    if affinity == "none" or not hasattr(os, "sched_getaffinity"):
        return []
    allowed = sorted(os.sched_getaffinity(0))
    if not isinstance(affinity, str):
        absent = sorted(set(affinity) - set(allowed))
        if absent:
            raise ConfigError(
                f"cpu_affinity names CPU {', '.join(map(str, absent))}, which this process may not use",
                hint=f"CPUs that it may use: {', '.join(map(str, allowed))}",
                key="cpu_affinity",
            )
        return list(affinity)
    if affinity != "auto":
        raise ValueError(f"cpu_affinity must be auto, none or numbers of CPUs, not {affinity!r}")
    # By process, so that several nodes on one machine do not meet on one core.
    return [allowed[os.getpid() % len(allowed)]] if len(allowed) >= CPUS_MIN_FOR_OWN else []
