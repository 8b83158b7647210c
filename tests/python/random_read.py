"""Reads windows of sessions with both references, each session in processes of its
own, for a test to compare with.

Usage: random_read.py REQUESTS FOLDER

REQUESTS is a JSON list of sessions: number, path, where it is to be packed first
(archive, by), password, level_1, offset, and windows as lists of channel, start and end.
FOLDER gets for each session and reader NUMBER.READER.json, what the reader says of
the session, and NUMBER.READER.bin, the samples of the windows one after another:
64-bit floats, and then the counts: from pymef as 64-bit floats, from mef3io as
32-bit integers, and a byte for each that says whether it is one. All numbers are
little-endian.

Where pymef crashes, windows are read one by one. How readers ended is printed
as a JSON object by number.
"""

import json
import sys
import tarfile
from functools import partial
from pathlib import Path

import mef3io
import numpy as np
from mef_tools.io import MefReader

import children

READERS = "mef3io", "pymef"


def plain(thing):
    """The same in types that JSON knows."""
    if isinstance(thing, dict):
        return {str(key): plain(value) for key, value in thing.items()}
    if isinstance(thing, (list, tuple)):
        return [plain(value) for value in thing]
    if isinstance(thing, bytes):
        return thing.decode("utf-8", "replace")
    return plain(thing.tolist()) if hasattr(thing, "tolist") else thing


class Answer:
    """What a reader makes of a session."""

    def __init__(self, stem):
        self.stem = stem
        self.said = {"windows": []}
        self.samples = open(f"{stem}.bin", "wb")

    def window(self, read):
        """Adds a window, or why it cannot be read."""
        try:
            arrays = read()
        except Exception as error:
            self.said["windows"].append({"error": f"{type(error).__name__}: {error}"})
            return
        self.said["windows"].append({"columns": len(arrays[0])})
        for array in arrays:
            self.samples.write(array.tobytes())

    def close(self):
        self.samples.close()
        with open(f"{self.stem}.json", "w", encoding="utf-8") as file:
            json.dump(plain(self.said), file)


def read_mef3io(request, stem):
    answer = Answer(stem)
    path = request["archive"] or request["path"]
    with mef3io.Reader(path, request["password"] or "", n_threads=1) as reader:
        answer.said["channels"] = {name: reader.info(name) for name in reader.channels}
        answer.said["blocks"] = {
            name: [[block["start_uutc"], block["number_of_samples"], bool(block["discontinuity"])]
                   for block in reader.toc(name)]
            for name in reader.channels
        }
        answer.said["records"] = reader.records(level="all")
        for window in request["windows"]:

            def read():
                raw = reader.read_raw(*window)
                return [
                    reader.read(*window).astype("<f8"),
                    raw["samples"].astype("<i4"),
                    raw["valid"].astype("u1"),
                ]

            answer.window(read)
    if request["level_1"]:
        answer.said["level_1"] = read_level_1(request, path)
    answer.close()


def read_level_1(request, path):
    """What mef3io sees with the level-1 password: the signal, and not the subject
    (section 10.3). The offset is locked, too, and times are without it (section 5)."""
    offset = request["offset"]
    with (
        mef3io.Reader(path, request["password"], n_threads=1) as full,
        mef3io.Reader(path, request["level_1"], n_threads=1) as locked,
    ):
        return {
            "subject": any(locked.info(name)["section3_available"] for name in locked.channels),
            "same": all(
                np.array_equal(
                    locked.read(name, start - offset, end - offset),
                    full.read(name, start, end),
                    equal_nan=True,
                )
                for name, start, end in request["windows"][:4]
            ),
        }


def pymef_records(session, channels):
    """Records with their channel and the number of their segment."""
    places = [(None, None)]
    for channel in channels:
        segments = session.session_md["time_series_channels"][channel]["segments"]
        places += [(channel, None)] + [(channel, int(name[-6:])) for name in segments]
    found = []
    for channel, segment in places:
        try:
            records = session.read_records(channel, segment)
        except KeyError:
            # There is no record file.
            continue
        for record in records:
            if record["type"] == "LNTP":
                # It goes on into memory beyond the record (README of the corpus).
                record["template"] = record["template"][: record["length"]]
            found.append(record | {"channel": channel, "segment": segment})
    return found


def read_pymef(request, stem, windows):
    answer = Answer(stem)
    reader = MefReader(request["path"], request["password"])
    answer.said["channels"] = {info["name"]: plain(info) for info in reader.bi}
    answer.said["records"] = pymef_records(reader.session, reader.channels)
    for window in windows:
        answer.window(
            lambda: [
                np.asarray(reader.get_data(*window), "<f8"),
                np.asarray(reader.get_raw_data(*window)[0], "<f8"),
            ]
        )
    answer.close()


def read_pymef_singly(request, stem, log):
    """Reads window by window, puts the answers together, and gives the number of
    crashes."""
    works, parts = [], []
    # What pymef says of the session is asked for once, without a window.
    for number, windows in enumerate([[], *([window] for window in request["windows"])]):
        parts.append(f"{stem}.{number}")
        works.append((partial(read_pymef, request, parts[-1], windows), f"{log}.{number}"))
    statuses = children.run(works)
    whole = Answer(stem)
    for number, (part, status) in enumerate(zip(parts, statuses)):
        if status:
            whole.said["windows"] += [{"crash": status}] if number else []
            continue
        answer = children.load(f"{part}.json")
        whole.said = answer | {"windows": whole.said["windows"] + answer["windows"]}
        whole.samples.write(Path(f"{part}.bin").read_bytes())
    whole.close()
    return sum(status != 0 for status in statuses)


def pack(request):
    if request["by"] == "mef3io":
        mef3io.archive_session(request["path"], request["archive"])
    elif request["by"] == "tar":
        with tarfile.open(request["archive"], "w") as archive:
            archive.add(request["path"], Path(request["path"]).name)


def main(requests, folder):
    requests = children.load(requests)
    works, ended = [], {}
    for request in requests:
        pack(request)
        mef3io_stem, pymef_stem = (
            Path(folder) / f"{request['number']}.{reader}" for reader in READERS
        )
        works.append((partial(read_mef3io, request, mef3io_stem), f"{mef3io_stem}.log"))
        windows = request["windows"]
        works.append((partial(read_pymef, request, pymef_stem, windows), f"{pymef_stem}.log"))
    statuses = iter(children.run(works))
    logs = iter(log for _, log in works)
    for request in requests:
        number = request["number"]
        ended[number] = {"crashes": 0}
        for reader, status, log in zip(READERS, statuses, logs):
            ended[number][reader] = status
            if status:
                said = Path(log).read_text(encoding="utf-8")
                ended[number][f"{reader}_log"] = said[-2000:]
        if ended[number]["pymef"] < 0:
            stem = Path(folder) / f"{number}.pymef"
            ended[number]["crashes"] = 1 + read_pymef_singly(request, stem, f"{stem}.log")
    json.dump(ended, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
