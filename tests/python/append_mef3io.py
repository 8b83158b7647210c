"""Appends to a recording with mef3io, as an acquisition system would.

Usage: append_mef3io.py SESSION START_UUTC RATE SAMPLES PAUSE_S TIMES

Every sample is a function of its number since the start, so that a reader can
tell a right one from a wrong one. After each append the number of samples so far
is printed.
"""

import sys
import time

import mef3io
import numpy as np


def signal(first, count):
    """Samples from number `first` on; tests/live.rs has the same."""
    number = np.arange(first, first + count, dtype=np.int64)
    return (number * 7919 % 20011 - 10005).astype(np.int32)


def main(session, start, rate, samples, pause, times):
    written = 0
    for _ in range(times):
        at = start + round(written / rate * 1e6)
        with mef3io.Writer(session, overwrite=False, n_threads=1, units="uV") as writer:
            writer.write_int32("grow", signal(written, samples), 1.0, at, rate)
        written += samples
        print(written, flush=True)
        time.sleep(pause)


if __name__ == "__main__":
    _, session, *numbers = sys.argv
    start, rate, samples, pause, times = numbers
    main(session, int(start), float(rate), int(samples), float(pause), int(times))
