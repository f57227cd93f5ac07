"""What is reported as a split brain, and what is not: nodes' words, compared."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiqlite.engine.model import Identity, Membership
from hiqlite.errors import ProtocolError
from hiqlite.runtime.split_brain import FACTS_MAX, RETURNS_MAX, STEADY_WORDS, VALUES_MAX, Book, Kind
from hiqlite.runtime.word import GROUPS_MAX, GroupWord, Word

CLUSTER, OTHER = b"c" * 32, b"o" * 32
ONE, TWO, THREE, FOUR = (Identity(number, 10 * number) for number in (1, 2, 3, 4))
FOUNDERS = Membership(0, (ONE, TWO, THREE))


def word(
    node_id: int, *, process: int = 0, cluster_id: bytes = CLUSTER, twice: tuple[int, ...] = (), **group: Any
) -> Word:
    """What a node says of its database group; each node is one process unless it is said otherwise."""
    said = GroupWord(10 * node_id, **group)
    return Word(node_id, process or 1000 + node_id, cluster_id, {"db": said}, twice)


def book_of(own: Word, *others: Word) -> Book:
    book = Book(own.node_id)
    for one in (own, *others):
        book.hear(one)
    return book


def kinds(book: Book) -> list[Kind]:
    return [one.kind for one in book.contradictions().values()]


def only(book: Book) -> Any:
    (found,) = book.contradictions().values()
    return found


# --------------------------------------------------------------------------- contradictions


def test_two_leaders_of_one_term_are_reported_with_who_says_so() -> None:
    found = only(book_of(word(1, term=7, leader_id=1), word(2, term=7, leader_id=2), word(3, term=7, leader_id=2)))
    assert (found.kind, found.nodes, found.group) == (Kind.LEADER, (1, 2, 3), "db")
    assert found.text == "db group: two leaders of term 7: node 1, say node 1; node 2, say nodes 2, 3"


def test_two_peers_that_contradict_each_other_are_reported_by_a_third() -> None:
    """This node itself knows no leader of that term."""
    book = book_of(word(1, term=9, leader_id=1), word(2, term=7, leader_id=2), word(3, term=7, leader_id=3))
    assert only(book).nodes == (2, 3)


def test_a_leader_that_is_named_by_others_only_takes_part_in_the_contradiction() -> None:
    found = only(book_of(word(1, term=7, leader_id=4), word(2, term=7, leader_id=5)))
    assert found.nodes == (1, 2, 4, 5)


def test_an_old_word_contradicts_a_new_one() -> None:
    """Who led a term stays true for ever: that both have moved on since changes nothing."""
    book = book_of(word(1, term=7, leader_id=1))
    book.hear(word(1, term=8, leader_id=2))
    book.hear(word(2, term=8, leader_id=2))
    book.hear(word(2, term=7, leader_id=2))
    assert kinds(book) == [Kind.LEADER]


def test_two_memberships_committed_at_one_index_are_reported() -> None:
    found = only(
        book_of(
            word(1, members=Membership(12, (ONE, TWO, THREE))),
            word(2, members=Membership(12, (TWO, FOUR), learners=(ONE,), outgoing=(THREE,))),
        )
    )
    assert (found.kind, found.nodes) == (Kind.MEMBERS, (1, 2))
    assert found.text == (
        "db group: two memberships committed at index 12: voters 1/2/3, say node 1; "
        "voters 2/4, learners 1, outgoing voters 3, say node 2"
    )


def test_another_incarnation_of_a_member_is_another_membership() -> None:
    later = Membership(12, (ONE, TWO, Identity(3, 31)))
    found = only(book_of(word(1, members=Membership(12, (ONE, TWO, THREE))), word(2, members=later)))
    assert found.kind is Kind.MEMBERS
    assert "voters 1(a)/2(14)/3(1e), say node 1; voters 1(a)/2(14)/3(1f), say node 2" in found.text


@pytest.mark.parametrize("asked", [True, False])
def test_two_terms_of_one_committed_entry_are_reported(asked: bool) -> None:
    """The peer says it of its newest entry, or of the one that it was asked about."""
    said: dict[str, Any] = {"committed": (900, 6), "held": (500, 5)} if asked else {"committed": (500, 5)}
    found = only(book_of(word(1, committed=(500, 3)), word(2, **said)))
    assert (found.kind, found.nodes) == (Kind.ENTRY, (1, 2))
    assert "index 500: one of term 3, say node 1; one of term 5, say node 2" in found.text


def test_of_several_contradictions_of_a_kind_the_earliest_is_told() -> None:
    """Two logs that parted differ in every entry from there on: one report says where it began."""
    book = book_of(word(1, committed=(500, 3)), word(2, committed=(500, 5)))
    for one in (word(1, committed=(400, 3)), word(2, committed=(600, 5), held=(400, 5)), word(1, committed=(600, 3))):
        book.hear(one)
    assert "at index 400" in only(book).text


def test_kinds_and_groups_are_reported_apart() -> None:
    book = Book(1)
    for number, leader in ((1, 1), (2, 2)):
        groups = {name: GroupWord(number, term=7, leader_id=leader, committed=(5, leader)) for name in ("db", "cache")}
        book.hear(Word(number, number, CLUSTER, groups))
    assert sorted(book.contradictions()) == [
        (kind, group) for kind in sorted((Kind.LEADER, Kind.ENTRY)) for group in ("cache", "db")
    ]


def test_two_processes_that_answer_by_turns_as_one_node_are_reported() -> None:
    """A copy of a data folder was started elsewhere; this node tells that one too. Each may say something several
    times before the other one comes again."""
    book = book_of(word(1))
    for _ in range(RETURNS_MAX):
        for process in (5, 5, 5, 6, 6, 6):
            book.hear(word(2, process=process))
    assert (only(book).kind, only(book).nodes, book.twice) == (Kind.TWICE, (2,), (2,))


def test_a_node_hears_that_it_runs_twice() -> None:
    """It cannot see that itself: nobody dials himself. It counts as long as a peer says so."""
    book = book_of(word(1), word(2, twice=(1,)), word(3, twice=(1, 4)))
    assert (only(book).kind, only(book).nodes) == (Kind.TWICE, (1,))
    assert "nodes 2, 3" in only(book).text
    book.hear(word(2))
    assert "say node 3" in only(book).text
    book.hear(word(3, twice=(4,)))
    assert kinds(book) == []


# --------------------------------------------------------------------------- what is transient


def test_an_election_contradicts_nothing() -> None:
    """Nobody knows a leader, each knows another term, one still follows the leader before."""
    book = book_of(word(1, term=8, leader_id=0), word(2, term=7, leader_id=3), word(3, term=7, leader_id=3))
    book.hear(word(1, term=9, leader_id=1))
    book.hear(word(2, term=9, leader_id=0))
    book.hear(word(2, term=9, leader_id=1))
    book.hear(word(3, term=9, leader_id=1))
    assert kinds(book) == []


def test_a_stale_answer_contradicts_nothing() -> None:
    """Words of one node in any order: each was true when it was said, and stays so."""
    said = [
        word(2, term=7, leader_id=3, committed=(10, 6), members=FOUNDERS),
        word(2, term=7, leader_id=3, committed=(12, 7), members=Membership(11, (ONE, TWO), outgoing=(THREE,))),
        word(2, term=8, leader_id=1, committed=(20, 8), members=Membership(12, (ONE, TWO))),
    ]
    book = book_of(word(1, term=8, leader_id=1, committed=(20, 8), members=Membership(12, (ONE, TWO))))
    for one in (said[2], said[0], said[1], said[2], said[0]):
        book.hear(one)
    assert kinds(book) == []


def test_a_change_of_members_under_way_contradicts_nothing() -> None:
    """The joint configuration, the one before and the one after stand at three indexes."""
    joint, after = Membership(11, (ONE, TWO, FOUR), outgoing=(ONE, TWO, THREE)), Membership(12, (ONE, TWO, FOUR))
    book = book_of(word(1, members=joint), word(2, members=FOUNDERS), word(3, members=after), word(4, members=joint))
    assert kinds(book) == []


def test_one_membership_in_another_order_contradicts_nothing() -> None:
    book = book_of(
        word(1, members=Membership(12, (ONE, TWO), (THREE, FOUR))),
        word(2, members=Membership(12, (TWO, ONE), (FOUR, THREE), removed=(9,))),
    )
    assert kinds(book) == []


def test_founding_members_contradict_nobody() -> None:
    """A node that was let in knows of the members before it has their log: that has no index."""
    assert kinds(book_of(word(1, members=FOUNDERS), word(2, members=replace(FOUNDERS, voters=(TWO,))))) == []


def test_what_is_not_known_contradicts_nothing() -> None:
    book = book_of(word(1, term=7, leader_id=1, committed=(500, 3)), word(2), word(3, term=7, committed=(500, 0)))
    assert kinds(book) == []


@pytest.mark.parametrize("cluster_id", [OTHER, b""])
def test_a_node_of_another_cluster_or_of_none_contradicts_nothing(cluster_id: bytes) -> None:
    """Their terms and logs have nothing to do with this one's; that they meet at all is told elsewhere."""
    assert kinds(book_of(word(1, term=7, leader_id=1), word(2, cluster_id=cluster_id, term=7, leader_id=2))) == []
    assert kinds(book_of(word(1, cluster_id=b"", term=7, leader_id=1), word(2, term=7, leader_id=2))) == []


def test_a_restarted_node_may_say_something_else() -> None:
    """It lost its data, or gave up what it had: only what the process that lives says is held against it."""
    book = book_of(word(1, committed=(500, 3)), word(2, committed=(500, 5)))
    assert kinds(book) == [Kind.ENTRY]
    book.hear(word(2, process=77, committed=(500, 3)))
    assert kinds(book) == []


def test_a_restarted_node_that_says_the_same_is_reported_again() -> None:
    book = book_of(word(1, committed=(500, 3)), word(2, committed=(500, 5)))
    book.hear(word(2, process=77, committed=(700, 5), held=(500, 5)))
    assert kinds(book) == [Kind.ENTRY]


def test_a_removed_node_is_forgotten_and_this_one_is_not() -> None:
    book = book_of(word(1, term=7, leader_id=1), word(2, term=7, leader_id=2), word(3, twice=(1,)))
    book.forget((2, 3, 1, 4))
    assert kinds(book) == []
    book.hear(word(2, term=7, leader_id=2))
    assert kinds(book) == [Kind.LEADER]


def test_restarts_are_no_second_process() -> None:
    """Not even when the last words of the dead process come late, over both links, in between."""
    book = book_of(word(1))
    for life in range(1, 20):
        for process in (life, life + 1, life, life + 1, life, life + 1):
            book.hear(word(2, process=process))
    assert kinds(book) == [] and book.twice == ()


def test_a_second_process_that_ended_is_no_news_any_more() -> None:
    book = book_of(word(1))
    for _ in range(RETURNS_MAX):
        book.hear(word(2, process=5))
        book.hear(word(2, process=6))
    for _ in range(STEADY_WORDS):
        assert kinds(book) == [Kind.TWICE]
        book.hear(word(2, process=6))
    assert kinds(book) == []


# --------------------------------------------------------------------------- groups that are forgotten


def forgetful(node_id: int, life: int, *members: tuple[int, int], **said: Any) -> Word:
    voters = tuple(Identity(number, incarnation) for number, incarnation in members)
    group = GroupWord(life, True, members=Membership(0, voters) if voters else None, **said)
    return Word(node_id, 1000 + node_id, CLUSTER, {"cache": group})


def test_a_group_that_began_anew_contradicts_nothing_of_the_one_before() -> None:
    """The same term, the same index, other leaders, other entries: two lives of the group."""
    old, new = ((1, 10), (2, 20), (3, 30)), ((1, 11), (2, 21), (3, 31))
    book = book_of(forgetful(1, 10, *old, term=3, leader_id=1, committed=(5, 3)))
    for one in (
        forgetful(2, 20, *old, term=3, leader_id=1, committed=(5, 3)),
        forgetful(2, 21, *new, term=3, leader_id=2, committed=(5, 2)),  # this node is still in the life before
        forgetful(1, 11, *new, term=3, leader_id=2, committed=(5, 2)),
        forgetful(3, 30, *old, term=3, leader_id=1, committed=(5, 3)),  # and now that one is
        forgetful(3, 31, term=3, leader_id=3, committed=(5, 9)),  # of which nobody knows the members
    ):
        book.hear(one)
    assert kinds(book) == []


def test_a_contradiction_within_one_life_of_such_a_group_is_reported() -> None:
    members = ((1, 11), (2, 21), (3, 31))
    book = book_of(
        forgetful(1, 11, *members, term=3, leader_id=1), forgetful(2, 21, *members, term=3, leader_id=2)
    )
    assert kinds(book) == [Kind.LEADER]


def test_a_group_that_this_node_does_not_host_is_judged_if_it_is_kept() -> None:
    """Whoever knows of a contradiction reports it; in a group that is forgotten nobody outside can tell the lives."""
    for forgets, found in ((False, [Kind.LEADER]), (True, [])):
        book = book_of(word(1))
        for number in (2, 3):
            said = GroupWord(number, forgets, 4, number, members=FOUNDERS)
            book.hear(Word(number, number, CLUSTER, {"cache": said}))
        assert kinds(book) == found


# --------------------------------------------------------------------------- bounds


def test_memory_is_bounded_and_a_contradiction_outlives_what_is_settled() -> None:
    book = book_of(word(1, term=7, leader_id=1), word(2, term=7, leader_id=2))
    for term in range(8, 8 + 4 * FACTS_MAX):
        book.hear(word(3, term=term, leader_id=3, committed=(term, term), members=Membership(term, (ONE,))))
    assert kinds(book) == [Kind.LEADER]
    assert all(len(facts) <= FACTS_MAX for facts in book._claims.values())


def test_contradictions_alone_are_bounded_too() -> None:
    book = book_of(word(1))
    for term in range(1, 4 * FACTS_MAX):
        for number in (2, 3):
            book.hear(word(number, term=term, leader_id=number))
    assert kinds(book) == [Kind.LEADER]
    assert all(len(facts) <= FACTS_MAX for facts in book._claims.values())


def history() -> st.SearchStrategy[list[Word]]:
    """Words of nodes of one sound cluster: each names a prefix of the same history, from any moment of it."""

    def said(node_id: int, at: int, knows_leader: bool, asked: int) -> Word:
        term, members = 1 + at // 3, max((index for index in (1, 5, 9) if index <= at), default=0)
        sets = {0: (ONE,), 1: (ONE, TWO), 5: (ONE, TWO, THREE), 9: (TWO, THREE)}
        held = (asked, 1 + asked // 3) if 0 < asked <= at else (0, 0)
        leader = (1 + term % 3) if knows_leader else 0
        return word(node_id, term=term, leader_id=leader, committed=(at, 1 + at // 3) if at else (0, 0), held=held,
                    members=Membership(members, sets[members]))  # fmt: skip

    one = st.builds(said, st.integers(1, 4), st.integers(0, 12), st.booleans(), st.integers(0, 14))
    return st.lists(one, max_size=40)


@given(history(), st.integers(1, 4))
def test_nodes_of_a_sound_cluster_never_contradict_each_other(words: list[Word], own: int) -> None:
    """In whatever order their words are heard, and however old they are."""
    book = Book(own)
    for one in words:
        book.hear(one)
        assert book.contradictions() == {}


# --------------------------------------------------------------------------- on the wire


def test_a_word_travels_whole() -> None:
    said = Word(
        2, 77, CLUSTER,
        {
            "db": GroupWord(20, False, 7, 3, (500, 6), Membership(12, (ONE, TWO), (THREE,), (FOUR,)), (400, 5)),
            "cache": GroupWord(21, True),
        },
        (4,),
    )  # fmt: skip
    assert Word.from_wire(2, said.to_wire()) == said


def test_what_later_versions_add_is_passed_over() -> None:
    wire = word(2, term=7, leader_id=1).to_wire()
    wire["groups"]["db"]["mood"] = "good"
    assert Word.from_wire(2, {**wire, "weather": 5}) == word(2, term=7, leader_id=1)


@pytest.mark.parametrize(
    "change",
    [
        {"process": 0}, {"process": -1}, {"process": "x"}, {"process": True}, {"process": 1 << 64},
        {"cluster_id": b"short"}, {"cluster_id": "c" * 32}, {"cluster_id": None},
        {"groups": []}, {"groups": {1: {}}}, {"groups": {"x" * 33: {}}}, {"groups": {"db": 5}}, {"groups": {"db": {}}},
        {"groups": {str(number): GroupWord(1).to_wire() for number in range(9)}},
        {"twice": 5}, {"twice": ["x"]}, {"twice": [1] * 257},
        *(
            {"groups": {"db": {**GroupWord(1).to_wire(), **one}}}
            for one in (
                {"term": -1}, {"leader": None}, {"incarnation": 1.5}, {"committed": [1]}, {"committed": [1, "x"]},
                {"committed": 5}, {"held": [1, 2, 3]}, {"members": b"\xc1"}, {"members": "text"}, {"members": [1]},
            )
        ),
    ],
)  # fmt: skip
def test_what_is_no_word_is_a_protocol_error(change: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        Word.from_wire(2, {**word(2).to_wire(), **change})


@pytest.mark.parametrize("wire", [None, 5, [], b"", "text", {}, [1, 2, 3]])
def test_what_is_no_map_is_a_protocol_error(wire: Any) -> None:
    with pytest.raises(ProtocolError):
        Word.from_wire(2, wire)


def test_neither_many_answers_to_one_question_nor_many_groups_take_memory() -> None:
    """What a peer says that lies, or is broken."""
    book = book_of(word(1))
    for number in range(1, 4 * FACTS_MAX):
        book.hear(word(2, term=7, leader_id=number))
        book.hear(Word(3, 1003, CLUSTER, {f"group {number}": GroupWord(30, term=7, leader_id=3)}))
    assert kinds(book) == [Kind.LEADER]
    assert len(book._claims) <= GROUPS_MAX
    assert all(len(values) <= VALUES_MAX for facts in book._claims.values() for values in facts.values())
