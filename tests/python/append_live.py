"""Appends to a recording, as an acquisition system would.

Usage: append_live.py mef3io|pymef SESSION START_UUTC RATE SAMPLES PAUSE_S TIMES

Every sample is a function of its number since the start, so that a reader can
tell a right one from a wrong one. After each append the number of samples so far
is printed.
"""

import sys
import time
from pathlib import Path

import mef3io
import numpy as np
from mef_tools.io import MefWriter


def signal(first, count):
    """Samples from number `first` on; tests/live.rs has the same."""
    number = np.arange(first, first + count, dtype=np.int64)
    return (number * 7919 % 20011 - 10005).astype(np.int32)


def append_mef3io(session, samples, at, rate):
    with mef3io.Writer(session, overwrite=False, n_threads=1, units="uV") as writer:
        writer.write_int32("grow", samples, 1.0, at, rate)


def append_pymef(session, samples, at, rate):
    new = not Path(session).exists()
    writer = MefWriter(session, overwrite=new)
    writer.mef_block_len = int(rate)
    # Counts are stored as they are with a precision of zero.
    writer.write_data(samples.astype(float), "grow", at, rate, precision=0)
    writer.session.close()


def main(append, session, start, rate, samples, pause, times):
    written = 0
    for _ in range(times):
        append(session, signal(written, samples), start + round(written / rate * 1e6), rate)
        written += samples
        print(written, flush=True)
        time.sleep(pause)


if __name__ == "__main__":
    _, library, session, *numbers = sys.argv
    append = {"mef3io": append_mef3io, "pymef": append_pymef}[library]
    start, rate, samples, pause, times = numbers
    main(append, session, int(start), float(rate), int(samples), float(pause), int(times))
