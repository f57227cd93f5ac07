"""What a forked child has inherited from a parent with an open node: nothing that it may use, close, or keep open.

Threads do not come along, locks may be held for ever, and files and connections are the parent's: its SQLite would be
closed under it, its peers would talk to a child that never answers. What the loop waits with is shared too: a child that
stops watching a descriptor there stops the parent from watching it. Must not know what its holders are. Invariant: in a
forked child every holder has been told, and is never freed, before any other code of the child runs.
"""

import contextlib
import os
import select
import weakref

from cpython.ref cimport Py_INCREF

cdef int forks = 0
cdef object holders = weakref.WeakKeyDictionary()  # -> a descriptor that its loop watches, or -1
cdef dict sockets = {}  # descriptor -> (device, inode) of what it was
cdef bint beside_a_node = False


def count():
    """How many forks lie between this process and the one that imported this."""
    return forks


def beside_node():
    """Whether this process was forked from one with open holders: SQLite's own locks may be held for ever in it."""
    return beside_a_node


def watch(holder, int watched=-1):
    """`holder.left_to_parent()` is called in a forked child, and `holder` is never freed there.

    Args:
        watched: a descriptor that the holder's loop watches: in a child that loop waits with nothing of the parent's.
    """
    holders[holder] = watched


def forget(holder):
    """`holder` is closed: a child may have it."""
    holders.pop(holder, None)


def keep(left):
    """Never free `left`, not even at the end of the process: freeing it would close what is the parent's."""
    Py_INCREF(left)


def watch_socket(int descriptor):
    """A child gives the socket up at once, else its peers never hear that the parent died."""
    found = os.fstat(descriptor)
    sockets[descriptor] = found.st_dev, found.st_ino


def _in_child():
    global forks, beside_a_node
    forks += 1
    left = dict(holders)
    holders.clear()
    beside_a_node = beside_a_node or bool(left)
    for holder in left:
        Py_INCREF(holder)
    with contextlib.ExitStack() as steps:  # one that fails, for want of a descriptor say, keeps none from being done
        steps.callback(_give_up_loops, {descriptor for descriptor in left.values() if descriptor >= 0})
        steps.callback(_give_up_sockets)
        for holder in left:
            steps.callback(holder.left_to_parent)


def _give_up_sockets():
    """The numbers stay taken: what still believes in them may close them, and hits nobody."""
    cdef int nothing
    if not sockets:
        return
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for descriptor, known in sockets.items():
        try:
            found = os.fstat(descriptor)
        except OSError:
            continue  # closed long ago
        if (found.st_dev, found.st_ino) == known:
            os.dup2(nothing, descriptor, inheritable=False)
    os.close(nothing)
    sockets.clear()


def _give_up_loops(watched):
    """In place of each epoll instance that watches one of these there is an empty one. (kqueues are not inherited.)"""
    if not watched or not hasattr(select, "epoll"):
        return
    for name in os.listdir("/proc/self/fd"):
        try:
            with open(f"/proc/self/fdinfo/{name}") as lines:
                known = {int(line.split()[1]) for line in lines if line.startswith("tfd:")}
        except OSError:
            continue  # that of the listing itself
        if known & watched:
            empty = select.epoll()
            os.dup2(empty.fileno(), int(name), inheritable=False)
            empty.close()


os.register_at_fork(after_in_child=_in_child)
