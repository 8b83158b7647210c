"""Sessions for the tests of the record writer, and what the peers make of them.

Usage: record_peers.py make FOLDER
       record_peers.py read SESSION [PASSWORD]
       record_peers.py read_mef3io SESSION [PASSWORD]
       record_peers.py append SESSION [PASSWORD1 PASSWORD2]

`make` writes plain.mefd and protected.mefd (passwords "one" and "two") with
mef3io: one channel "c.x", and a note at the level of the session. `read` prints
as JSON what mef3io and pymef read, and which record files mef3io would repair;
`read_mef3io` leaves out pymef, which crashes on records of other types.
`append` adds a note to the session and one to the channel.
"""

import json
import sys
from pathlib import Path

import mef3io
import numpy as np
from mef_tools.io import MefReader

START = 1_600_000_000_000_000


def make(folder):
    for name, passwords in [("plain", ["", ""]), ("protected", ["one", "two"])]:
        path = str(Path(folder) / f"{name}.mefd")
        with mef3io.Writer(path, False, *passwords, units="uV") as writer:
            counts = np.arange(1000, dtype=np.int32)
            writer.write_int32("c.x", counts, 1.0, START, 100.0)
            writer.write_annotations([note(1)])


def append(session, *passwords):
    with mef3io.Writer(session, False, *passwords) as writer:
        writer.write_annotations([note(2)])
        writer.write_annotations([note(3)], channel="c.x")


def note(number):
    return {"type": "Note", "time": START + number, "text": "by mef3io"}


def read(session, password=""):
    return read_mef3io(session, password) | {"pymef": read_pymef(session, password)}


def read_mef3io(session, password=""):
    with mef3io.Reader(session, password) as reader:
        records = plain(reader.records(level="all"))
    # A dry run, which changes nothing.
    repair = mef3io.recover_session(session, password=password)
    files = [str(file) for file in repair.record_files + repair.skipped]
    return {"mef3io": records, "repair": files}


def read_pymef(session, password):
    reader = MefReader(session, password or None)
    read = {}
    for level, place in [
        ("session", ()),
        ("channel", ("c.x",)),
        ("segment", ("c.x", 0)),
    ]:
        try:
            records = reader.session.read_records(*place)
        except KeyError:
            # There is no record file.
            records = []
        for record in records:
            if record["type"] == "LNTP":
                # It returns memory from beyond the template.
                del record["template"]
        read[level] = plain(records)
    return read


def plain(thing):
    """The same in types that JSON knows."""
    if isinstance(thing, dict):
        return {key: plain(value) for key, value in thing.items()}
    if isinstance(thing, (list, tuple)):
        return [plain(value) for value in thing]
    return plain(thing.tolist()) if hasattr(thing, "tolist") else thing


if __name__ == "__main__":
    command = {
        "make": make,
        "append": append,
        "read": read,
        "read_mef3io": read_mef3io,
    }[sys.argv[1]]
    json.dump(command(*sys.argv[2:]), sys.stdout)
