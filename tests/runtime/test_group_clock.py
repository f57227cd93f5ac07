"""Group time: never goes back, whoever leads and whatever a clock says."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hiqlite.runtime.group_time import GroupTime

SECOND_NS = 1_000_000_000


def test_a_new_group_begins_at_zero_and_advances_with_the_leaders_boot_clock() -> None:
    """Group time counts from the election, not from the epoch of any clock."""
    clock = GroupTime()
    clock.elected(500 * SECOND_NS)
    assert clock.read(500 * SECOND_NS) == 0
    assert clock.read(503 * SECOND_NS) == 3 * SECOND_NS


def test_a_leader_goes_on_from_the_newest_entry_of_its_log() -> None:
    """The base is what the log ends with."""
    clock = GroupTime(newest_seen_ns=70 * SECOND_NS)
    clock.elected(5 * SECOND_NS)
    assert clock.read(6 * SECOND_NS) == 71 * SECOND_NS


def test_a_heartbeat_ahead_of_the_log_raises_the_base() -> None:
    """A follower that heard more than its log holds does not go back when it is elected."""
    clock = GroupTime(newest_seen_ns=70)
    clock.saw(90)
    clock.saw(80)
    clock.elected(1000)
    assert clock.read(1000) == 90


def test_a_reading_before_the_election_does_not_go_back() -> None:
    """A boot clock that was read before the election, on another thread say, moves nothing."""
    clock = GroupTime(newest_seen_ns=50)
    clock.elected(1000)
    assert clock.read(990) == 50


def test_what_was_heard_while_leading_is_not_undercut() -> None:
    """A deposed leader that is elected again goes on above all it has heard in between."""
    clock = GroupTime()
    clock.elected(0)
    assert clock.read(10) == 10
    clock.saw(500)
    assert clock.read(20) == 500
    clock.elected(30)
    assert clock.read(31) == 501


@given(
    events=st.lists(
        st.tuples(st.sampled_from(["elected", "saw", "read"]), st.integers(0, 10**6), st.integers(0, 1000)), max_size=40
    )
)
def test_readings_never_go_back(events: list[tuple[str, int, int]]) -> None:
    """Over any order of elections, heartbeats and readings on a boot clock that only advances."""
    clock, now_ns, newest = GroupTime(), 0, 0
    for event, heard_ns, step_ns in events:
        now_ns += step_ns
        if event == "elected":
            clock.elected(now_ns)
        elif event == "saw":
            clock.saw(heard_ns)
            newest = max(newest, heard_ns)
        else:
            time_ns = clock.read(now_ns)
            assert time_ns >= newest
            newest = time_ns
