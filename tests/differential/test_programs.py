"""Programs of SQL give on a cluster what they give on one SQLite."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from .comparing import Comparing, compare, comparing
from .programs import Program

FIRST = 1_000_000
SLICE = 20
EXAMPLES = 8
LENGTH = 6  # steps of an example: short ones are made smaller sooner


@pytest.mark.timeout(300)
async def test_a_cluster_is_one_sqlite(tmp_path: Path) -> None:
    """The same answers, errors and rows on every node, while nodes are stopped, killed and started between any two."""
    result = await compare(tmp_path, range(FIRST, FIRST + SLICE))
    assert result.difference is None, str(result.difference)
    assert result.ended == result.begun == SLICE
    assert result.restarts > 0


def hold(runner: asyncio.Runner, two: Comparing, examples: int) -> None:
    """Whatever Hypothesis makes of steps, of nodes that are asked, and of nodes that are restarted, there is no
    difference; where there is one, it is told as small as it can be."""
    numbers = count(1)

    @settings(max_examples=examples)
    @given(st.randoms(use_true_random=False))
    def holds(chance: Random) -> None:
        program = Program(chance, f"h{next(numbers)}", LENGTH)
        note(str(program))
        difference = runner.run(two.program(program, chance))
        assert difference is None, str(difference)

    holds()


@pytest.mark.timeout(600)  # Hypothesis makes a difference smaller for five minutes at most, and tells it then
def test_a_cluster_is_one_sqlite_whatever_hypothesis_makes_of_it(tmp_path: Path) -> None:
    """The same in one cluster that stays, so that an example costs what its steps cost."""
    with asyncio.Runner() as runner:
        opened = AsyncExitStack()
        two = runner.run(opened.enter_async_context(comparing(tmp_path)))
        try:
            hold(runner, two, EXAMPLES)
            assert runner.run(two.equal())
        finally:
            runner.run(opened.aclose())
