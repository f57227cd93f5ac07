# What goes into an Applier and what comes out: a part of apply.pyx, included there.

cdef class AppliedRun:
    """The answers of the entries `[first, last]`, applied in one transaction."""

    def __cinit__(self):
        self.result = NULL

    def __init__(self):
        raise TypeError("runs come from Applier.take()")

    def __dealloc__(self):
        hq_run_result_free(self.result)

    @property
    def first(self):
        return self.result.first

    @property
    def last(self):
        return self.result.last

    @property
    def last_term(self):
        return self.result.last_term

    @property
    def changed_schema(self):
        """Whether an entry of this run changed the schema."""
        return bool(self.result.changed_schema)

    @property
    def slow_texts(self):
        """Some of the statements that took long in this run."""
        return [text_of(self.result.slow_texts[i]) for i in range(self.result.slow_count)]

    def __len__(self):
        return self.result.last - self.result.first + 1

    cdef bint answer_at(self, uint64_t index, const uint8_t **data, size_t *size) noexcept nogil:
        cdef size_t begin
        if index < self.result.first or index > self.result.last:
            return False
        begin = self.result.offsets[index - self.result.first]
        size[0] = self.result.offsets[index - self.result.first + 1] - begin
        data[0] = self.result.answers + begin
        return size[0] > 0

    def answer(self, uint64_t index):
        """The answer of the entry at `index` (docs/formats.md section 4).

        Raises:
            LookupError: the entry is not of this run, or was submitted without a wish for answers.
        """
        cdef const uint8_t *data = NULL
        cdef size_t size = 0
        if not self.answer_at(index, &data, &size):
            raise LookupError(f"no answer was kept for entry {index}")
        return PyBytes_FromStringAndSize(<const char *>data, size)

    def __repr__(self):
        return f"AppliedRun(first={self.first}, last={self.last}, last_term={self.last_term})"


cdef int forget_jobs(hq_job *job) except -1:
    """Lets the owners of finished jobs go."""
    cdef hq_job *following
    while job != NULL:
        following = job.next
        Py_DECREF(<object><PyObject *>job.owner)
        free(job)
        job = following
    return 0


cdef hq_job *make_job(uint64_t first, uint64_t last, list pieces, bint want_answers) except NULL:
    cdef Py_ssize_t count = len(pieces), i
    cdef hq_job *job
    cdef bytes piece
    for i in range(count):
        if type(pieces[i]) is not bytes:
            raise TypeError("records are submitted as bytes")
    job = hq_job_new(<uint32_t>count)
    if job == NULL:
        raise MemoryError
    job.first, job.last, job.want_answers = first, last, want_answers
    for i in range(count):
        piece = <bytes>pieces[i]
        job.pieces[i].data = <const uint8_t *>PyBytes_AS_STRING(piece)
        job.pieces[i].size = PyBytes_GET_SIZE(piece)
        job.size += PyBytes_GET_SIZE(piece)
    job.owner = <PyObject *>pieces
    Py_INCREF(pieces)
    return job


cdef class Trial:
    """What became of writes that were tried and undone, one after the other.

    Attributes:
        spent_ns: how long each took that ran to its end.
        late: the one behind these was ended because its limit had passed.
        given_up: it ended early because nobody wants to know any more, or because the thread ends.
        changes_schema: the last of those that ran to their end did, until it was undone.
        out_of_disk, out_of_memory: it was ended because it took more of these than it was given.
        failure: (extended SQLite code, message) of this node's trouble that ended the one behind these, else None.
    """

    cdef readonly list spent_ns
    cdef readonly bint late
    cdef readonly bint given_up
    cdef readonly bint out_of_disk
    cdef readonly bint out_of_memory
    cdef readonly bint changes_schema
    cdef readonly object failure


cdef Trial trial_of(const hq_trial *ended):
    cdef Trial trial = Trial.__new__(Trial)
    cdef uint32_t i
    trial.spent_ns = [ended.writes[i].spent_ns for i in range(ended.passed)]
    trial.late = ended.late
    trial.given_up = ended.cancelled
    trial.changes_schema = ended.changes_schema
    trial.out_of_disk = ended.out_of == HQ_OUT_OF_DISK
    trial.out_of_memory = ended.out_of == HQ_OUT_OF_MEMORY
    if ended.why.code and not ended.late and not ended.cancelled and not ended.out_of:
        trial.failure = (ended.why.code, text_of(ended.why.message))
    return trial


cdef uint32_t limits_of(list records, list limits_ns, hq_tried *writes) except 0:
    """Where each record will begin when they stand behind one another, and its limit; how many there are."""
    cdef Py_ssize_t count = len(records), i
    cdef size_t at = 0
    if count == 0 or count > HQ_TRIAL_WRITES_MAX or len(limits_ns) != count:
        raise ValueError("a trial takes a few writes, each with a limit")
    for i in range(count):
        writes[i].at = at
        writes[i].limit_ns = limits_ns[i]
        writes[i].spent_ns = 0
        at += PyBytes_GET_SIZE(<bytes?>records[i])
    return <uint32_t>count
