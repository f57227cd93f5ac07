"""Makes a failing schedule small: fewer strikes, then a calmer world, as long as the same invariant breaks.

Must not know what the strikes do. Invariant: what is returned fails in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from .profile import Profile
from .schedule import Outcome, Script, run_script

RUNS_MAX = 600


def shrink(script: Script, breaks: Callable[[Script], bool]) -> Script:
    """The smallest script found in a bounded number of runs for which `breaks` still holds."""
    left = RUNS_MAX

    def fails(candidate: Script) -> bool:
        nonlocal left
        left -= 1
        return breaks(candidate)

    size = max(len(script.strikes) // 2, 1)
    while left > 0:
        smaller = next((one for one in _without(script, size) if left > 0 and fails(one)), None)
        if smaller is not None:
            script = smaller
            size = min(size, max(len(script.strikes) // 2, 1))
        elif size > 1:
            size //= 2
        else:
            break
    for profile in _calmer(script.profile):
        calmer = replace(script, profile=replace(script.profile, **profile))
        if left > 0 and fails(calmer):
            script = calmer
    return script


def breaks_like(script: Script) -> Callable[[Script], bool]:
    """Whether another script breaks the same property as this one."""
    invariant = invariant_of(run_script(script))
    return lambda other: invariant_of(run_script(other)) == invariant


def invariant_of(outcome: Outcome) -> str:
    return outcome.violation.partition(":")[0]


def _without(script: Script, size: int) -> Iterator[Script]:
    for first in range(0, len(script.strikes), size):
        yield replace(script, strikes=script.strikes[:first] + script.strikes[first + size :])


def _calmer(profile: Profile) -> Iterator[dict[str, float]]:
    """One source of noise after the other is turned off."""
    for name in (
        "loss", "duplicate", "late", "stale_session", "disk_stall", "batch", "reads_per_s", "learners", "stands_still",
        "sick",
    ):  # fmt: skip
        if getattr(profile, name):
            yield {name: 0}
