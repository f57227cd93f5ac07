"""Peers that only an image of the database helps (Raft thesis 5; semantics.md section 10)."""

from __future__ import annotations

import pytest

from hiqlite.engine.model import (
    AppendReply,
    AppendRequest,
    Identity,
    Membership,
    ProbeReply,
    ProbeRequest,
    Restored,
    Role,
    SendImage,
    VoteReply,
    VoteRequest,
)
from tests.engine.engine_group import (
    MS,
    SECOND,
    Alone,
    accept,
    append,
    fresh,
    identities,
    lead,
    log_of,
    messages,
    refuse,
)

ONE, TWO, THREE = identities(3)
MEMBERS = Membership(0, (ONE, TWO, THREE))


def purged() -> Restored:
    """A log that begins behind (10, term 2) and ends at 15."""
    runs = log_of((2, 11, 15))
    return fresh(MEMBERS, term=2, base_index=10, base_term=2, runs=runs, applied_index=12, applied_term=2)


def needing() -> Alone:
    """A leader whose log begins behind 10, and node 2, which holds nothing."""
    node = lead(purged())
    assert [ready.images for ready in refuse(node, TWO, (0, 0)) if ready.images] == [[SendImage(2, 0)]]
    return node


def answer_rounds(node: Alone, *peers: Identity) -> None:
    """These peers answer the newest round, as check-quorum wants it."""
    for peer in peers:
        node.receive(ProbeReply(node.raft.term, peer, node.raft.state.reads.round))
    node.sync()


@pytest.mark.parametrize("hint", [(0, 0), (9, 1), (9, 2)])
def test_who_holds_nothing_at_the_base_needs_an_image(hint: tuple[int, int]) -> None:
    """It named an entry below the beginning of the leader's log: nothing in that log fits behind it."""
    node = lead(purged())
    assert [ready.images for ready in refuse(node, TWO, hint) if ready.images] == [[SendImage(2, 0)]]


def test_who_holds_another_term_at_the_base_needs_an_image() -> None:
    """Its hint is the base's index for ever, so a probe at the base that was refused ends the search."""
    node = lead(purged())
    taken = refuse(node, TWO, (15, 1))
    probes = [sent for sent in messages(taken, AppendRequest) if isinstance(sent, AppendRequest)]
    assert [(sent.previous_index, sent.previous_term) for sent in probes] == [(10, 2)]
    assert [ready.images for ready in refuse(node, TWO, (10, 1)) if ready.images] == [[SendImage(2, 0)]]


def test_a_base_that_fits_is_replicated_from() -> None:
    node = lead(purged())
    refuse(node, TWO, (10, 2))
    accept(node, TWO, match=10)
    peer = node.raft.progress(2)
    assert peer is not None and peer.replicating and not peer.needs_image and peer.match_index == 10


# --------------------------------------------------------------------------- the leader


def test_an_image_is_asked_for_once_and_nothing_else_is_sent_meanwhile() -> None:
    node = needing()
    assert node.raft.image_started(2, 12, node.now)
    node.raft.propose(1, 100, node.now)
    taken = node.sync()
    assert not [ready for ready in taken if ready.images]
    assert [send.peer_id for ready in taken for send in ready.sends if isinstance(send.message, AppendRequest)] == []


def test_the_log_behind_an_image_is_kept_until_its_peer_has_the_log_from_there() -> None:
    """The pin outlives the sending: only an answer to the probe behind the image lets it go."""
    node = needing()
    commit_everything(node)
    assert node.raft.purge_limit == node.raft.last_index
    assert node.raft.image_started(2, 12, node.now)
    assert node.raft.purge_limit == 12
    node.raft.image_finished(2, node.now)
    taken = node.sync()
    probes = [send.message for ready in taken for send in ready.sends if isinstance(send.message, AppendRequest)]
    assert [(sent.previous_index, sent.previous_term) for sent in probes] == [(12, 2)]
    assert node.raft.purge_limit == 12
    accept(node, TWO, match=12)
    assert node.raft.purge_limit == node.raft.last_index


def test_an_image_never_takes_back_what_its_peer_acknowledged() -> None:
    """A refusal that comes late asks for an image in vain; the next frame still begins behind what is acknowledged."""
    node = needing()
    commit_everything(node)
    assert node.raft.image_started(2, 12, node.now)
    known = node.raft.progress(2)
    assert known is not None
    node.receive(AppendReply(node.raft.term, TWO, True, 14, 0, 0, known.epoch, known.sequence))
    node.raft.image_finished(2, node.now)
    taken = node.sync()
    probes = [send.message for ready in taken for send in ready.sends if isinstance(send.message, AppendRequest)]
    assert [(sent.previous_index, sent.previous_term) for sent in probes] == [(14, 2)]
    assert known.match_index < known.next_index
def test_an_image_carries_the_configuration_that_was_in_force_at_its_index() -> None:
    """Not the newest one: what came later stands in the log behind the image."""
    first, later = Membership(4, (ONE, TWO)), Membership(12, (ONE, TWO, THREE))
    runs = log_of((2, 11, 15))
    known = {"base_index": 10, "base_term": 2, "applied_index": 12, "applied_term": 2, "memberships": (later,)}
    node = Alone(fresh(first, term=2, runs=runs, **known))
    assert [node.raft.membership_at(index) for index in (10, 11, 12, 15)] == [first, first, later, later]
    assert (node.raft.term_at(10), node.raft.term_at(9)) == (2, -1)


def test_a_resumable_image_keeps_its_pin_and_is_named_in_the_next_request() -> None:
    node = needing()
    commit_everything(node)
    assert node.raft.image_started(2, 12, node.now)
    node.raft.image_failed(2, True, node.now)
    assert node.raft.purge_limit == 12
    assert wait_for_request(node) == SendImage(2, 12)


def test_an_image_given_up_is_asked_for_anew_and_pins_nothing() -> None:
    node = needing()
    commit_everything(node)
    assert node.raft.image_started(2, 12, node.now)
    node.raft.image_failed(2, False, node.now)
    assert node.raft.purge_limit == node.raft.last_index
    assert wait_for_request(node) == SendImage(2, 0)


def test_an_image_that_nobody_began_to_send_is_asked_for_again() -> None:
    """The runtime may have refused for want of room: the need does not go away by itself."""
    node = needing()
    assert wait_for_request(node) == SendImage(2, 0)


def test_stale_offers_are_refused() -> None:
    """An image below the log's beginning cannot be gone on from; a peer that replicates, or is unknown, needs none."""
    node = needing()
    assert not node.raft.image_started(2, 9, node.now)
    assert not node.raft.image_started(3, 12, node.now)
    assert not node.raft.image_started(7, 12, node.now)
    node.raft.step_down(node.now, "test")
    assert not node.raft.image_started(2, 12, node.now)


def test_a_new_link_begins_with_a_probe_and_the_end_of_an_older_image_says_nothing() -> None:
    """The peer may have got the entries another way, or lost what it had."""
    node = needing()
    assert node.raft.image_started(2, 12, node.now)
    node.raft.peer_lost(2, False, node.now)
    node.raft.peer_connected(2, 2, node.now)
    node.raft.image_finished(2, node.now)
    peer = node.raft.progress(2)
    assert peer is not None and not peer.needs_image and not peer.image_runs and peer.match_index == 0


def test_a_silent_image_costs_the_peer_its_place_in_check_quorum() -> None:
    """A part that left and was not confirmed within the upper election timeout counts as silence (rule 17)."""
    node = needing()
    assert node.raft.image_started(2, 12, node.now)
    node.raft.image_progressed(2, node.now)
    for _ in range(30):
        if node.raft.leads:
            answer_rounds(node, TWO)
        node.wait(50 * MS)
    assert not node.raft.leads


# --------------------------------------------------------------------------- the peer


def installing(index: int, held: Restored | None = None) -> Alone:
    node = Alone(held or fresh(MEMBERS))
    node.receive(append(3, TWO, (20, 3)))
    node.sync()
    assert node.raft.begin_install(index, node.now)
    return node


def test_an_installed_image_is_the_beginning_of_the_log() -> None:
    """Term, configuration and commit index are those of the image; the log begins anew behind it."""
    node = installing(20)
    later = Membership(17, (ONE, TWO))
    node.raft.installed(20, 3, later, node.now)
    taken = node.sync()
    assert [(ready.reset.base_index, ready.reset.base_term) for ready in taken if ready.reset] == [(20, 3)]
    assert (node.raft.base_index, node.raft.last_index, node.raft.last_term) == (20, 20, 3)
    assert (node.raft.commit_index, node.raft.applied_index, node.raft.membership) == (20, 20, later)
    assert [ready.membership for ready in taken if ready.membership] == [later]
    assert [ready.apply for ready in taken if ready.apply] == []


def test_an_image_never_takes_back_a_configuration_that_the_metadata_named() -> None:
    """It is committed, though a loss of power took its entry (simulated schedule 8004009670)."""
    recorded = Membership(21, (ONE, TWO), (THREE,))
    node = installing(20, fresh(recorded, term=3))
    node.raft.installed(20, 3, MEMBERS, node.now)
    node.sync()
    assert node.raft.membership == recorded


def test_entries_behind_an_image_go_on_from_its_term() -> None:
    node = installing(20)
    node.raft.installed(20, 3, MEMBERS, node.now)
    node.sync()
    node.receive(append(3, TWO, (20, 3), (3, 21, 24), commit=22, sequence=2))
    taken = node.sync()
    assert [ready.apply for ready in taken if ready.apply] == [(21, 22)]
    assert [reply.match_index for reply in messages(taken, AppendReply) if isinstance(reply, AppendReply)] == [24]


def test_a_log_that_holds_the_entry_of_the_image_is_kept() -> None:
    """Its tail may have been acknowledged: it must not be lost by an image of what lies before (M53)."""
    node = installing(12, fresh(MEMBERS, term=3, runs=log_of((2, 1, 13), (3, 14, 18))))
    node.raft.installed(12, 2, MEMBERS, node.now)
    taken = node.sync()
    assert not [ready for ready in taken if ready.reset] and node.raft.last_index == 18
    assert node.raft.commit_index == 12 and node.raft.applied_index == 12


def test_a_log_with_another_term_at_the_images_index_is_dropped() -> None:
    """Both were longer, but it is the image that is committed (M53)."""
    node = installing(12, fresh(MEMBERS, term=3, runs=log_of((1, 1, 18))))
    node.raft.installed(12, 2, MEMBERS, node.now)
    assert [(ready.reset.base_index, ready.reset.base_term) for ready in node.sync() if ready.reset] == [(12, 2)]
    assert node.raft.last_index == 12


def test_nothing_is_applied_while_an_image_takes_the_databases_place() -> None:
    node = installing(25, fresh(MEMBERS, term=3, runs=log_of((3, 1, 20))))
    node.receive(append(3, TWO, (20, 3), commit=20, sequence=2))
    assert [ready.apply for ready in node.sync() if ready.apply] == []
    node.raft.install_failed(node.now)
    assert [ready.apply for ready in node.sync() if ready.apply] == [(1, 20)]


def test_an_image_of_what_is_committed_here_already_is_refused() -> None:
    """Its entries are in this log: to apply them is safe and cheap, and an older database never comes back."""
    node = Alone(fresh(MEMBERS, term=3, runs=log_of((3, 1, 20))))
    node.receive(append(3, TWO, (20, 3), commit=20))
    node.sync()
    assert not node.raft.begin_install(20, node.now) and not node.raft.begin_install(5, node.now)
    assert node.raft.begin_install(21, node.now)
    assert not node.raft.begin_install(22, node.now), "one at a time"


def test_a_node_in_the_middle_of_an_install_does_not_campaign() -> None:
    node = installing(20)
    node.wait(3000 * MS)
    assert node.raft.term == 3 and not messages(node.take(), VoteRequest)


# --------------------------------------------------------------------------- what the tests share


def commit_everything(node: Alone) -> None:
    accept(node, THREE)
    node.raft.applied(node.raft.commit_index)


def wait_for_request(node: Alone) -> SendImage:
    """The next image that is asked for, while the peers answer rounds."""
    for _ in range(40):
        answer_rounds(node, TWO, THREE)
        seen = len(node.readies)
        node.wait(50 * MS)
        node.sync()
        asked = [image for ready in node.readies[seen:] for image in ready.images]
        if asked:
            return asked[0]
    raise AssertionError("no image is asked for")


def test_a_candidate_begins_no_install() -> None:
    """Votes that are on their way could make it lead in the midst of it; it may once it follows."""
    node = Alone(fresh(MEMBERS, term=2, runs=log_of((2, 1, 5))))
    node.wait(3 * SECOND)
    node.sync()
    assert node.raft.role is Role.PRE_CANDIDATE
    assert not node.raft.begin_install(20, node.now)
    node.receive(VoteReply(3, TWO, True, True))
    node.sync()
    assert node.raft.role is Role.CANDIDATE
    assert not node.raft.begin_install(20, node.now)
    node.receive(ProbeRequest(3, THREE, 1))
    assert node.raft.begin_install(20, node.now)


def test_an_image_brings_the_configuration_whose_entry_is_damaged() -> None:
    """The log holds the image's entry and is kept; what it cannot read of what came before, the image says."""
    held = fresh(MEMBERS, term=2, runs=log_of((2, 1, 15)), applied_index=2, applied_term=2, faulty=((5, 5),))
    node = installing(12, held)
    configuration = Membership(5, (ONE, TWO))
    node.raft.installed(12, 2, configuration, node.now)
    node.sync()
    assert node.raft.membership == configuration and node.raft.membership_at(12) == configuration
    assert node.raft.last_index == 15 and node.raft.faulty == ()


def test_a_commit_message_never_follows_an_entry_that_was_purged() -> None:
    """A peer whose next entry was purged since it answered needs an image; the commit index alone is no help to it."""
    node = lead(purged())
    node.wait(300 * MS)
    accept(node, THREE)
    node.raft.propose(5, 500, node.now)
    node.sync()
    accept(node, THREE)
    last = node.raft.last_index
    node.raft.applied(last)
    peer = node.raft.progress(2)
    assert peer is not None
    node.receive(AppendReply(node.raft.term, TWO, True, 12, 0, 0, peer.epoch, peer.sequence))
    node.raft.purged(last)
    node.wait(100 * MS)
    sent = [one for one in messages(node.sync(), AppendRequest) if isinstance(one, AppendRequest)]
    assert all(one.previous_term >= 0 and one.previous_index >= node.raft.base_index for one in sent), sent
    assert SendImage(2, 0) in [image for ready in node.readies for image in ready.images]
