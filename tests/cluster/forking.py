"""Forked children of this process: what they do, how they end, and that none of them hangs."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable

CHILD_LIMIT_S = 30


def forked(work: Callable[[], object]) -> int:
    """Begins `work` in a forked child, which ends without any of the parent's clean-up; its pid."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(CHILD_LIMIT_S)
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def exit_code(child: int) -> int:
    """Waits for the child. A negative number is the signal that ended it; that of the alarm: it hung."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
