"""How a leader's writes are counted and timed."""

from __future__ import annotations

from hiqlite.runtime.flow import Flow


class Seconds:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_each_write_of_a_batch_has_the_time_of_its_batch() -> None:
    """From its place in the log to the state machine; one run may end several batches, or half of them."""
    time = Seconds()
    flow = Flow(time)
    flow.proposed(5, 3, 300)
    time.now += 0.001
    flow.proposed(8, 1, 50)
    flow.applied(7)
    time.now += 0.002
    flow.applied(7)
    assert flow.counters()["writes_applied"] == 3
    flow.applied(20)
    found = flow.counters()
    assert (found["writes_proposed"], found["writes_batches"], found["writes_bytes"]) == (4, 2, 350)
    assert found["writes_applied"] == 4
    assert 900 <= found["writes_p50_us"] <= 1100 and 1900 <= found["writes_max_us"] <= 2100


def test_what_became_of_a_lost_leaders_writes_is_not_counted() -> None:
    """The same indexes come again, with other writes."""
    time = Seconds()
    flow = Flow(time)
    flow.proposed(5, 3, 300)
    flow.dropped()
    flow.applied(10)
    assert flow.counters()["writes_applied"] == 0
