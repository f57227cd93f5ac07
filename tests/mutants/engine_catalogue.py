"""The mutants whose place is the engine (elections, replication, reads, apply)."""

# ruff: noqa: E501 (the source that is replaced stands in one piece, so that it can be searched for)
from __future__ import annotations

from .model import Killer, Mutant

BEAT = "_accel/native/beat_thread.c"

ENGINE = (
    Mutant(
        "M1", "vote without the up-to-date check", "engine/election.py",
        "        and (request.last_term, request.last_index) >= (state.log.last_term, state.last_for_votes())\n", "",
    ),
    Mutant(
        "M2", "last index compared before last term", "engine/election.py",
        "(request.last_term, request.last_index) >= (state.log.last_term, state.last_for_votes())",
        "(request.last_index, request.last_term) >= (state.last_for_votes(), state.log.last_term)",
    ),
    Mutant("M3", "messages do not wait for the hard state", "engine/ready.py", "if self.synced_io >= self.term_io:", "if True:"),
    Mutant(
        "M4", "a term adopted from a reply does not become durable", "engine/role.py",
        "    state.outbox.write_hard_state(term, vote)\n", "    if vote:\n        state.outbox.write_hard_state(term, vote)\n",
    ),
    Mutant("M5", "the vote is forgotten by a restart", "engine/state.py", "= restored.vote", "= None"),
    Mutant(
        "M6", "a pre-vote raises the term", "engine/election.py",
        "    if request.pre:\n        _reply(state, request, request.term if grant",
        "    if request.pre:\n        if request.term > state.term:\n            adopt(state, request.term, None)\n"
        "        _reply(state, request, request.term if grant",
    ),
    Mutant("M7", "stickiness ignored", "engine/election.py", "not request.transfer and _hears_leader(state):", "False:"),
    Mutant(
        "M8", "votes of an earlier campaign are kept", "engine/election.py",
        "    state.granted = [0] * state.config.size()\n    state.granted[0] = 1 if pre else 0\n",
        "    state.granted[0] = 1 if pre else 0\n",
    ),
    Mutant(
        "M10", "a leader that adopted a higher term goes on", "engine/role.py",
        "    if was_leader:\n        leave_leadership(state)\n    state.term", "    state.term",
    ),
    Mutant(
        "M11", "a learner votes and counts", "engine/membership.py",
        "        self.voter_sets:", "        counted[0] = membership.voters + membership.learners\n        self.voter_sets:",
    ),
    Mutant(
        "M12", "a joint quorum needs only one of its two majorities", "engine/quorum.py",
        "        if lowest < 0 or best < lowest:\n", "        if best > lowest:\n",
    ),
    Mutant(
        "M12b", "where seven are to vote their predecessors are not asked", "engine/quorum.py",
        "    for slots in voter_sets:\n", "    for slots in voter_sets[:1] if len(voter_sets[0]) == 7 else voter_sets:\n",
    ),
    Mutant(
        "M12c", "three are a majority of any set of voters", "engine/quorum.py",
        "need = len(slots) // 2 + 1", "need = min(len(slots) // 2 + 1, 3)",
    ),
    Mutant(
        "M13", "a node with damaged entries campaigns", "engine/state.py",
        "if self.faulty or self.fatal", "if self.fatal",
    ),
    Mutant(
        "M14", "a wiped disk votes as its earlier incarnation", "engine/membership.py",
        "self.is_voter: bool = own in self.voters", "self.is_voter: bool = own.id in {one.id for one in self.voters}",
    ),
    Mutant(
        "M16", "the heartbeat goes on after stepping down", "engine/raft.py",
        "self.state.leads and not self.state.fatal", "self.state.vote == self.state.own and not self.state.fatal",
    ),
    Mutant("M17", "a stamp of another term is a sign of life", "engine/follower.py", "or term != state.term or state.leads", "or state.leads"),
    Mutant(
        "M18", "check-quorum satisfied without round trips", "engine/progress.py",
        "until = self.round_trip_ns + window_ns", "until = self.round_trip_ns + 1000 * window_ns",
    ),
    Mutant(
        "M18b", "an unanswered append is overlooked", "engine/progress.py",
        "        if self.unacked_since_ns and", "        if False and",
    ),
    Mutant("M21", "acknowledged before it is durable", "engine/ready.py", "io = max(self.log_io, self.term_io)", "io = self.term_io"),
    Mutant(
        "M22", "the leader counts itself before its own write is durable", "engine/replication.py",
        "state.values[0] = state.outbox.synced_index", "state.values[0] = state.log.last_index",
    ),
    Mutant("M23", "commit without the own-term rule", "engine/replication.py", " or state.log.term_at(index) != state.term:", ":"),
    Mutant(
        "M24", "a short stale append cuts a longer tail", "engine/follower.py",
        "    if conflict == 0:\n        return True\n",
        "    if conflict == 0:\n        if request.last_index >= log.last_index:\n            return True\n"
        "        conflict = request.last_index + 1\n        log.truncate(conflict - 1)\n"
        "        state.outbox.write_truncate(conflict - 1)\n        return True\n",
    ),
    Mutant(
        "M25", "a follower commits beyond the verified prefix", "engine/follower.py",
        "state.commit_to(min(request.commit_index, last))", "state.commit_to(min(request.commit_index, state.log.last_index))",
    ),
    Mutant(
        "M26", "an unverified suffix is acknowledged", "engine/follower.py",
        "request.sender.id, last, request.epoch", "request.sender.id, state.log.last_index, request.epoch",
    ),
    Mutant(
        "M27", "the heartbeat's commit bound is not capped", "engine/follower.py",
        "min(commit_bound, state.verified_index)", "min(commit_bound, state.log.last_index)",
    ),
    Mutant("M28", "an answer of an earlier session counts", "engine/replication.py", " or reply.epoch != peer.epoch", ""),
    Mutant("M29", "an answer of another incarnation counts", "engine/state.py", " or peer.identity.incarnation != identity.incarnation", ""),
    Mutant(
        "M30", "a completion counts after its range was cut", "engine/ready.py",
        "        self.unwritten = _lowered(self.unwritten, last_kept)\n        self.unsynced = _lowered(self.unsynced, last_kept)\n",
        "",
    ),
    Mutant(
        "M31", "a hint is taken for a match", "engine/progress.py",
        "        self.unacked_since_ns = 0\n        return True\n\n    def oldest", "        self.match_index = max(self.match_index, next_index - 1)\n"
        "        self.next_index = max(self.next_index, self.match_index + 1)\n        return True\n\n    def oldest",
    ),
    Mutant(
        "M32", "the window is not freed after a rejection", "engine/progress.py",
        "        self.inflight.clear()\n        self.inflight_bytes = 0\n        self.probe_sent_ns = 0", "        self.probe_sent_ns = 0",
    ),
    Mutant(
        "M33", "a configuration counts only when it is committed", "engine/state.py",
        "        newest = self.history[count - 1]\n",
        "        while count > 1 and self.history[count - 1].index > self.commit_index:\n            count -= 1\n"
        "        newest = self.history[count - 1]\n",
    ),
    Mutant(
        "M34", "a configuration stays though its entry was cut", "engine/state.py",
        "        known = len(self.history)\n", "        return\n        known = len(self.history)\n",
    ),
    Mutant(
        "M35", "a joint configuration is left before it is committed", "engine/reconfiguration.py",
        "    if newest.index > state.commit_index or state.commit_index < state.opened_index or state.transfer_id:\n",
        "    if state.commit_index < state.opened_index or state.transfer_id:\n",
    ),
    Mutant("M38", "an applied index beyond the log is acknowledged", "engine/follower.py", "if state.unconfirmed and not", "if False and not"),
    Mutant(
        "M39", "a read is answered before the first own-term commit", "engine/replication.py",
        "read_index = state.commit_index if state.commit_index >= state.opened_index else 0", "read_index = state.commit_index",
    ),
    Mutant(
        "M40", "a read is confirmed by answers sent before it arrived", "engine/reads.py",
        "self.rounds.append((self.round, read_index", "self.rounds.append((self.round - 1, read_index",
    ),
    Mutant(
        "M41", "a read is confirmed by answers of an older term", "engine/replication.py",
        "    if not state.leads or reply.term != state.term:\n        return\n    sent_ns", "    if not state.leads:\n        return\n    sent_ns",
    ),
    Mutant("M43", "two reads share a token", "engine/reads.py", "        self.token += 1\n", "        self.token += len(self.queued) == 0\n"),
    Mutant("M59", "applied beyond the own written log", "engine/raft.py", "min(state.commit_index, state.outbox.written_index)", "state.commit_index"),
    Mutant(
        "M9", "check-quorum counts who was removed", "engine/election.py",
        "    return quorum.reached(state.config.voter_sets, state.values)\n\n\ndef check_disk",
        "    alive = sorted([FAR_FUTURE_NS, *[state.values[peer.slot] for peer in state.peers]], reverse=True)\n"
        "    return alive[len(alive) // 2]\n\n\ndef check_disk", Killer.PARTS,
    ),
    Mutant(
        "M36", "a removed leader stops before that is committed", "engine/reconfiguration.py",
        "    if newest.index > state.commit_index or state.commit_index < state.opened_index or state.transfer_id:\n        return\n",
        "    if not state.config.is_voter and not newest.joint:\n        resign(state)\n        return\n"
        "    if newest.index > state.commit_index or state.commit_index < state.opened_index or state.transfer_id:\n        return\n",
    ),
    Mutant("M36b", "a removed leader leads on", "engine/reconfiguration.py", "        resign(state)\n", ""),
    Mutant(
        "M36c", "a voter that leaves does not campaign before it has left", "engine/state.py",
        "        return self.own in before.voters or self.own in before.outgoing", "        return False",
    ),
    Mutant("M51b", "what is not applied may be purged", "engine/snapshot.py", "    limit = min(state.applied_index, state.handed_index)\n", "    limit = state.commit_index\n"),
    Mutant("M51c", "the log behind an image under way may be purged", "engine/snapshot.py", "        if peer.image_index:\n", "        if False:\n"),
    Mutant(
        "M53", "an install keeps a log of another term", "engine/snapshot.py",
        "    keeps_log = not state.unconfirmed and log.term_at(index) == term and", "    keeps_log = not state.unconfirmed and index <= log.last_index and",
    ),
    Mutant(
        "M53b", "an install drops a log that fits", "engine/snapshot.py",
        "    keeps_log = not state.unconfirmed and log.term_at(index) == term and", "    keeps_log = False and",
    ),
    Mutant("M53c", "an install forgets the members", "engine/snapshot.py", "        state.begin_memberships(membership)\n", ""),
    Mutant("M53d", "entries are given to apply while a database is replaced", "engine/raft.py", "        if state.installing:\n            return None\n", ""),
    Mutant("M53e", "a node campaigns while its database is replaced", "engine/state.py", " or self.fatal or self.installing", " or self.fatal"),
    Mutant(
        "M70", "leadership is handed to a log that is not whole", "engine/transfer.py",
        "    elif not state.transfer_sent and peer.match_index == state.log.last_index:\n", "    elif not state.transfer_sent:\n",
    ),
    Mutant("M71", "proposals are taken while leadership is handed over", "engine/replication.py", "or state.transfer_id or state.disk_full", "or state.disk_full"),
    Mutant("M72", "handing over never ends", "engine/transfer.py", "    if state.transfer_id and state.now_ns >= state.transfer_deadline_ns:\n", "    if False:\n"),
    Mutant("M73", "whoever campaigns says that it was told to", "engine/election.py", "    transfer = state.handed_over and not pre\n", "    transfer = not pre\n"),
    Mutant("M74", "a leader's disk may stand still", "engine/election.py", "    if state.now_ns >= disk_deadline_ns(state):\n", "    if False:\n"),
    Mutant(
        "M75", "damaged entries do not count when votes are given", "engine/state.py",
        "            last = max(last, faulty_last)\n", "            last = min(last, faulty_last - 1)\n", Killer.PARTS,
    ),
    Mutant(
        "M75b", "committed entries are put behind a stale tail", "engine/repair.py",
        "        if state.log.term_at(before) != reply.previous_term:\n", "        if False:\n",
    ),
    Mutant(
        "R1", "a new reign counts the tokens of reads anew", "engine/reads.py",
        "        self.rounds.clear()\n        self.queued = []\n", "        self.rounds.clear()\n        self.queued = []\n        self.token = 0\n",
    ),
    Mutant(
        "R2", "a read joins a round that is on its way", "engine/reads.py",
        "        self.queued.append(self.token)\n", "        (self.rounds[-1][2] if self.rounds else self.queued).append(self.token)\n",
    ),
    Mutant(
        "R3", "a leader that was handed its term reads before it opened it", "engine/replication.py",
        "read_index = state.commit_index if state.commit_index >= state.opened_index else 0",
        "read_index = state.commit_index if state.commit_index >= state.opened_index or state.handed_over else 0",
    ),
    Mutant(
        "R4", "a node reads before it has applied the read index (simulated)", "tests/sim/reading.py",
        "        ready = [(index, floor) for index, floor in self.waiting if index <= applied]\n", "        ready = self.waiting\n",
    ),
    Mutant(
        "R5", "a leader answers another node's read without a round (simulated)", "tests/sim/reading.py",
        "        if not token:\n            self.tell(node_id, number, FAILED)\n",
        "        if token and node_id != self.node.id:\n            self.tell(node_id, number, self.node.raft.commit_index)\n            return\n"
        "        if not token:\n            self.tell(node_id, number, FAILED)\n",
    ),
    Mutant(
        "R6", "a read joins those of its node that are asked for (simulated)", "tests/sim/reading.py",
        "        self.coming.append(", "        (self.joined or self.coming).append(",
    ),
    Mutant(
        "D1", "proposals are taken on a full disk", "engine/replication.py",
        "state.transfer_id or state.disk_full or state.fatal", "state.transfer_id or state.fatal",
    ),
    Mutant(
        "D2", "who is elected with a full disk leads on", "engine/transfer.py",
        "    elif state.disk_full and not state.transfer_id and not state.handed_over:\n", "    elif False:\n",
    ),
    Mutant(
        "D3", "a node whose log failed goes on (simulated)", "tests/sim/writing.py",
        "            self.fail()\n            return\n", "            pass\n",
    ),
    Mutant(
        "L1", "a learner's copy counts for a commit", "engine/replication.py",
        "    index = quorum.reached(state.config.voter_sets, state.values)\n",
        "    learning = [peer.slot for peer in state.peers if peer.learner]\n"
        "    index = quorum.reached([[*slots, *learning] for slots in state.config.voter_sets], state.values)\n",
    ),
    Mutant(
        "T5", "leadership is handed to who holds what is committed, not all", "engine/transfer.py",
        "peer.match_index == state.log.last_index:", "peer.match_index >= state.commit_index:",
    ),
    Mutant(
        "T5b", "who is told to campaign does, whatever its log lacks", "engine/election.py",
        "    if state.can_campaign():\n        _campaign(state, True)\n", "    _campaign(state, True)\n",
    ),
    Mutant(
        "T5c", "a word to campaign of an older term counts", "engine/election.py",
        "    if message.term != state.term or message.sender.id != state.leader_id or state.leads:\n", "    if state.leads:\n",
        Killer.PARTS,
    ),
    Mutant(
        "M53f", "a follower keeps a log of another term behind an image", "engine/snapshot.py",
        "log.term_at(index) == term and",
        "(log.term_at(index) == term or (state.role is Role.FOLLOWER and index <= log.last_index)) and",
    ),
    Mutant(
        "M35b", "a second change of members before the first is committed", "engine/reconfiguration.py",
        "    if newest.joint or newest.index > state.commit_index:\n", "    if newest.joint:\n",
    ),
    Mutant(
        "M35c", "members change before the term has a committed entry", "engine/reconfiguration.py",
        "    if not state.made_taken or state.commit_index < state.opened_index:\n", "    if not state.made_taken:\n",
    ),
    Mutant(
        "B1", "a leader whose loop stands still beats on (simulated)", "tests/sim/beat.py",
        "        if self.node.stalled and now_ns - self.node.stalled_since_ns > self.stall_ns:\n", "        if False:\n",
    ),
    Mutant(
        "B1b", "a leader whose disk stands still beats on (simulated)", "tests/sim/beat.py",
        "        return waiting_ns == 0 or now_ns - waiting_ns <= self.stall_ns\n", "        return waiting_ns is not None\n",
    ),
    Mutant(
        "B1c", "a loop that stands for a moment ends the beats (simulated)", "tests/sim/beat.py",
        "        if self.node.stalled and now_ns - self.node.stalled_since_ns > self.stall_ns:\n", "        if self.node.stalled:\n",
    ),
    Mutant(
        "B2", "a leader whose loop stands still beats on (native)", BEAT,
        "  if (now_ns - atomic_load(&beat->loop_tick_ns) > beat->stall_ns) return 0;\n", "", Killer.BEATS, "beat",
    ),
    Mutant(
        "B2b", "a leader whose disk stands still beats on (native)", BEAT,
        "  return !(waiting && now_ns - waiting > beat->stall_ns);\n", "  return waiting >= 0;\n", Killer.BEATS, "beat",
    ),
)  # fmt: skip
