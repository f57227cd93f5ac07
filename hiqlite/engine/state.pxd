cimport cython
from .log cimport Log
from .membership cimport Configuration
from .progress cimport Progress
from .reads cimport Reads
from .ready cimport Outbox
from .window cimport Window

cdef class State:
    cdef readonly object own
    cdef readonly object random_state
    cdef readonly long long heartbeat_ns
    cdef readonly long long election_min_ns
    cdef readonly long long election_max_ns
    cdef readonly long long grace_ns
    cdef readonly long long commit_delay_ns
    cdef readonly long long resend_ns           # an unanswered frame older than this is looked after by a probe
    cdef readonly long long frame_bytes_max
    cdef readonly int window_frames
    cdef readonly long long window_bytes
    cdef readonly long long memory_window_bytes
    cdef public long long now_ns                # of the newest input

    cdef public long long term
    cdef public object vote
    cdef readonly Log log
    cdef readonly Outbox outbox
    cdef readonly Reads reads
    cdef readonly Window window
    cdef readonly Configuration config
    cdef readonly list history                  # configurations, oldest first: one at or below the base, those above
    cdef public bint membership_changed         # the one in force is news for the runtime
    cdef readonly dict links                    # peer id -> session epoch, of members and of others
    cdef readonly list peers
    cdef readonly dict peers_by_id
    cdef readonly list values                   # scratch: one value per slot, for quorums
    cdef public list granted                    # votes of the running (pre-)campaign, one per slot
    cdef public object role
    cdef public bint leads
    cdef public long long leader_id             # 0: unknown

    cdef public long long commit_index
    cdef public long long handed_index          # highest index given to the state machine
    cdef public long long applied_index
    cdef public long long verified_index        # last index that an append of this term verified in this process life
    cdef public bint unconfirmed                # the database is ahead of the log; nothing is acknowledged yet
    cdef public list faulty                     # closed ranges whose payload is damaged, ascending
    cdef public list unknown                    # those of them of which the term is lost too

    cdef public long long heard_ns              # newest sign of life of the leader of this term
    cdef public long long timeout_ns            # the election timeout drawn last
    cdef public long long election_deadline_ns
    cdef public long long refused_since_ns      # since when redials to the leader are refused, 0: they are not
    cdef public bint quorum_linked              # links to a majority were up when last looked

    cdef public long long opened_index          # index of the entry that opened the own term of leadership
    cdef public bint made_taken                 # entries whose records the runtime makes were all given to it
    cdef public long long transfer_id           # to whom leadership is being handed, 0: to nobody
    cdef public long long transfer_deadline_ns
    cdef public bint transfer_sent              # that peer was told to campaign
    cdef public bint handed_over                # the running campaign was asked for by the leader
    cdef public long long quorum_floor_ns       # check-quorum counts everybody until this time
    cdef public long long round_due_ns
    cdef public long long commit_due_ns         # when peers must be told of the commit index, 0: they know it
    cdef readonly object uncommitted            # (last index, size) of own proposals
    cdef public long long uncommitted_bytes

    cdef public bint disk_full                  # no proposals until there is room again
    cdef public long long disk_waits_since_ns   # since when writes wait without any progress, 0: none waits
    cdef public bint installing                 # an image takes the database's place: nothing is given to apply
    cdef public long long repair_due_ns         # when peers are asked for damaged entries again

    cdef public bint role_changed
    cdef public long long lost_from
    cdef public str fatal
    cdef public bint dirty                      # an input came since the last Ready

    cdef _restore_log(self, object restored)
    @cython.locals(place=cython.Py_ssize_t)
    cpdef take_membership(self, object membership)
    cpdef cut_memberships(self, long long last_kept)
    cpdef drop_memberships(self, long long base_index)
    cpdef begin_memberships(self, object membership)
    cpdef tuple memberships_of(self, long long first, long long last)
    @cython.locals(peer=Progress, count=cython.Py_ssize_t)
    cdef _resolve(self)
    cpdef object resting_role(self)
    @cython.locals(count=cython.Py_ssize_t)
    cpdef bint can_campaign(self) except *
    cpdef bint commit_to(self, long long index) except *
    cpdef long long last_for_votes(self) except? -1
    cpdef Progress peer_of(self, object identity)
    cpdef break_promise(self, str text)
    cpdef long long draw_ns(self, long long below_ns) except? -1
    cpdef long long draw_timeout_ns(self) except? -1
