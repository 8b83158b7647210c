"""Work that may crash: each piece in a process of its own."""

import contextlib
import json
import os
import sys
import traceback
import warnings


def start(work, log):
    """Starts `work()` in a child, and gives its process number. What it complains
    of, and what it prints, goes to the file `log`."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    with open(log, "w", encoding="utf-8", errors="replace") as complaints:
        os.dup2(complaints.fileno(), 1)
        os.dup2(complaints.fileno(), 2)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                work()
            status = 0
        except BaseException:
            traceback.print_exc(file=complaints)
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
    # Nothing of the parent is to be ended here.
    os._exit(status)


def finish(pid):
    """Waits for a child: 0 is success, a negative number the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def load(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)
