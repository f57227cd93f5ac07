"""What a mutant is: one small change to a source, and the part of the suite that has to notice.

Must not know how a mutant is run. Invariant: `old` occurs exactly once in `file`; where no file is named, nothing is
changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Killer(Enum):
    """Who has to notice. None of them was written for one mutant: they check what always holds."""

    SIMULATOR = "simulator"  # invariants, convergence and histories of random schedules
    FOUNDINGS = "foundings"  # of the simulator: how groups come to be, and nothing else
    LOG = "log properties"  # damage, tears, kills and residue at random places
    APPLY = "kills while applying"
    APPLYING = "programs applied in runs that are cut in other places"
    POISON = "statements that fail, each between innocent ones"
    GATE = "properties of the gate"
    SESSIONS = "random histories of sessions"
    CLOCK = "properties of the group's clock"
    SWEEP = "crash sweep"
    IMAGES = "images, and power loss while one is installed"
    CACHE = "properties of the cache group's state machine"
    HISTORIES = "histories of real clusters"
    BEATS = "the heartbeat thread"
    SCHEDULES = "engine schedules"  # members that change, images, damage: whole groups of engines without a wire
    PARTS = "engine properties"  # of one part alone, with random input


@dataclass(frozen=True, slots=True)
class Mutant:
    """`name` is that of the fixed list; a letter behind it marks another way to make the same mistake.

    Attributes:
        file: below `hiqlite/`, or `tests/sim/...`: the simulator's twin of what is native.
        native: the extension that is built anew, "" when plain Python runs as it stands.
    """

    name: str
    what: str
    file: str
    old: str
    new: str
    killer: Killer = Killer.SIMULATOR
    native: str = ""
