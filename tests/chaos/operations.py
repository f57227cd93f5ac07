"""What clients did to a cluster and what they were told: the operations of a history, and the files they are kept in.

A client's process writes one line before each call and one after it, straight to a file, so that kill -9 loses none:

    {"o": 7, "n": node, "f": family, "k": key, "c": call, "a": argument, "l": local, "d": timeout, "t": ns}
    {"o": 7, "x": outcome, "r": result, "e": error, "t": ns}

and into another file, whenever it changed, what the node believed:

    {"g": group, "term": 3, "leader": 1, "role": "leader", "i": last index, "n": node, "t": ns}

A call without a second line is of unknown outcome. Times are of the machine's one monotonic clock, so those of
different processes compare. Invariant: `invoked` was read before the call began and `returned` after it had ended.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NEVER = 1 << 62  # later than every moment: the return of a call that nobody saw return

OK, UNKNOWN, NOT_APPLIED = "ok", "unknown", "not_applied"


@dataclass(frozen=True, slots=True)
class Operation:
    """One call.

    Args:
        family: the kind of object: register, list, counter, bank, role or token.
        key: which object of that family.
        call: read, write, cas, append, add, transfer or take.
        result: what the call gave; None while its outcome is not `OK`.
        invoked, returned: nanoseconds; `returned` is `NEVER` when the outcome is unknown.
        node, life: where the call was made: the node's id, and a number that no other process of the history has.
        local: a read of the node's own state, which may be old.
        timeout_s: what the call was given; 0 where nobody asks.
    """

    family: str
    key: str
    call: str
    argument: tuple[Any, ...]
    result: Any
    invoked: int
    returned: int
    outcome: str = OK
    node: int = 0
    life: int = 0
    local: bool = False
    timeout_s: float = 0.0

    @property
    def known(self) -> bool:
        return self.outcome == OK

    @property
    def changes(self) -> bool:
        """Whether it is a write; one that was found to have no effect (a cas that did not match) is none."""
        return self.call != "read" and self.result is not False

    def __str__(self) -> str:
        told = {OK: f"-> {shortened(self.result)}", UNKNOWN: "-> ?", NOT_APPLIED: "-> not applied"}[self.outcome]
        end = "never" if self.returned == NEVER else f"{self.returned / 1e6:.3f}"
        where = f"node {self.node}/{self.life}{' local' if self.local else ''}"
        call = f"{self.family} {self.key} {self.call}({', '.join(map(str, self.argument))})"
        return f"[{self.invoked / 1e6:.3f} .. {end} ms] {where}: {call} {told}"


def shortened(result: Any) -> str:
    """Long lists by their end."""
    if isinstance(result, tuple) and len(result) > 12:
        return f"{len(result)} values, the last ones {result[-10:]}"
    if isinstance(result, tuple):
        return f"({', '.join(map(shortened, result))})"
    return str(result)


@dataclass(frozen=True, slots=True)
class Belief:
    """What a node held for true of a group from `at` on. `last_index`: of its log at that moment."""

    at: int
    node: int
    life: int
    term: int
    leader: int
    role: str
    group: str = "db"
    last_index: int = 0


@dataclass
class Record:
    """All that the clients of a history wrote down."""

    operations: list[Operation] = field(default_factory=list)
    beliefs: list[Belief] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)


def read_record(files: Iterable[tuple[int, Path]]) -> Record:
    """The record of the given (life, file) pairs; a last line that was cut off by kill -9 does not count."""
    record = Record()
    for life, file in files:
        if not file.exists():  # killed before its first line
            continue
        calls: dict[int, dict[str, Any]] = {}
        ends: dict[int, dict[str, Any]] = {}
        for text in file.read_text().split("\n")[:-1]:
            line = json.loads(text)
            if "term" in line:
                record.beliefs.append(Belief(line["t"], line["n"], life, line["term"], line["leader"] or 0,
                                             line["role"], line["g"], line["i"]))  # fmt: skip
            elif "f" in line:
                calls[line["o"]] = line
            else:
                ends[line["o"]] = line
                if line.get("e"):
                    record.errors[f"{line['e']} ({line['x']})"] += 1
        record.operations.extend(_operation(life, call, ends.get(number)) for number, call in calls.items())
    return record


def _operation(life: int, call: dict[str, Any], end: dict[str, Any] | None) -> Operation:
    outcome = UNKNOWN if end is None else end["x"]
    result = frozen(end["r"]) if end is not None and outcome == OK else None
    if outcome == "applied":
        # It happened, with an answer that got lost and perhaps not on this node yet: so it is of no process's life.
        done = True if call["c"] == "transfer" or call["f"] == "role" else None
        told = done or call["c"] in ("write", "append")
        outcome, life, result = (OK, 0, done) if told else (UNKNOWN, life, None)
    return Operation(
        call["f"], call["k"], call["c"], frozen(call["a"]), result,
        call["t"],
        NEVER if end is None or outcome == UNKNOWN else end["t"],
        outcome, call["n"], life, call["l"], call.get("d", 0.0),
    )  # fmt: skip


def frozen(value: Any) -> Any:
    """Lists of JSON as tuples."""
    return tuple(map(frozen, value)) if isinstance(value, list) else value
