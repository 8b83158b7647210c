"""Reads windows of a session with both references, for a test to compare with.

Usage: read_reference.py REQUEST VALUES

REQUEST is a JSON file: the path of the session, and its windows as lists of
channel, start and end. VALUES becomes the values of all windows as raw
little-endian 64-bit floats: first those of mef_tools over pymef, then those of
mef3io. The numbers of values are printed as JSON, as lists by reader.
"""

import json
import sys
from pathlib import Path

import mef3io
import numpy as np
from mef_tools.io import MefReader


def read_mef_tools(session, windows):
    reader = MefReader(session)
    # A window that misses the recording comes as NaN, and its length is cut to
    # whole samples where that of all others is rounded.
    return [np.ravel(reader.get_data(channel, t0, t1)) for channel, t0, t1 in windows]


def read_mef3io(session, windows):
    with mef3io.Reader(session) as reader:
        return [reader.read(channel, t0, t1) for channel, t0, t1 in windows]


def main():
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    session, windows = request["session"], request["windows"]
    lengths = {}
    with open(sys.argv[2], "wb") as values:
        for name, read in [("mef_tools", read_mef_tools), ("mef3io", read_mef3io)]:
            rows = read(session, windows)
            lengths[name] = [len(row) for row in rows]
            for row in rows:
                values.write(np.asarray(row, "<f8").tobytes())
    print(json.dumps(lengths))


if __name__ == "__main__":
    main()
