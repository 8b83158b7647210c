"""Work that may crash: each piece in a process of its own, some at the same time."""

import contextlib
import gc
import json
import os
import sys
import traceback
import warnings


def run(works):
    """Runs functions in children, as many at a time as there are processors. Gives
    how each ended: 0 is success, a negative number the signal. `works` has a name of
    a file for each, which gets what it prints and what it complains of."""
    # Children need not copy what the collector would touch.
    gc.freeze()
    running, ended = {}, {}
    at_a_time = os.cpu_count() or 1

    def wait():
        pid, status = os.wait()
        ended[running.pop(pid)] = os.waitstatus_to_exitcode(status)

    for number, (work, log) in enumerate(works):
        while len(running) >= at_a_time:
            wait()
        running[_start(work, log)] = number
    while running:
        wait()
    return [ended[number] for number in sorted(ended)]


def _start(work, log):
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


def load(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)
