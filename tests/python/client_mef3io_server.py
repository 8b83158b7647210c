"""Drives a server with the Python client of mef3io-server 3.1.

Usage: client_mef3io_server.py ADDRESS CORPUS SESSION...

CORPUS is the folder of the reference corpus; every SESSION is a session
folder. Whatever the client is told is compared with what mef3io reads.
"""

import random
import sys
from pathlib import Path

import mef3io
import numpy as np
from mef3io_server.client import Mef3Client

from check import by_rate, same, same_array

SECOND = 1_000_000


def expected_info(path, reader):
    """What the client makes of an open recording, as mef3io tells it."""
    infos = [reader.info(name) for name in sorted(reader.channels)]
    rates = [info["sampling_frequency"] for info in infos]
    starts = [info["start_time"] for info in infos]
    ends = [info["end_time"] for info in infos]
    return {
        "file_path": path,
        "file_opened": True,
        "number_of_channels": len(infos),
        "channel_names": [info["name"] for info in infos],
        "channel_sampling_rates": [float(np.float32(rate)) for rate in rates],
        "channel_start_uutc": starts,
        "channel_end_uutc": ends,
        "channel_served_sampling_rates": rates,
        "cache_fs": None,
        "start_uutc": min(starts),
        "end_uutc": max(ends),
        "duration_s": (max(ends) - min(starts)) / 1e6,
        "error_message": "",
    }


def check_recording(client, path):
    with mef3io.Reader(path) as reader:
        expected = expected_info(path, reader)
        same(client.open_file(path), expected, f"{path}, open_file")
        same(client.get_file_info(path), expected, f"{path}, get_file_info")
        # A client that names itself is not told that the file was open.
        same(client.open_file(path), expected, f"{path}, second open_file")
        rates = expected["channel_served_sampling_rates"]
        for rate, names in by_rate(expected["channel_names"], rates).items():
            for window in windows(expected, rate):
                for choice in choices(names):
                    check_range(client, path, reader, choice, window, rate)
        if len(set(rates)) == 1:
            whole = expected["start_uutc"], expected["end_uutc"]
            for nobody in [None, []]:
                found = client.get_signal_range(path, nobody, *whole)
                same(found["channel_names"], expected["channel_names"], f"{path}, all channels")


def windows(info, rate):
    """Windows within the recording, across its ends and beyond them."""
    start, end = info["start_uutc"], info["end_uutc"]
    sample = int(SECOND / rate) + 1
    yield start, end
    yield start - 3 * SECOND, start + 5 * sample
    yield end - 5 * sample, end + 3 * SECOND
    yield start - 20 * SECOND, start - 10 * SECOND
    yield end + 1200 * SECOND, end + 1203 * SECOND
    chance = random.Random(str(info["channel_names"]))
    for _ in range(5):
        first = chance.randint(start - SECOND, end)
        yield first, first + chance.randint(sample, end - start + SECOND)


def choices(names):
    """One channel, all, some in another order, and some more than once."""
    chance = random.Random(str(names))
    yield [chance.choice(names)]
    yield names
    yield chance.sample(names, len(names))
    yield chance.choices(names, k=len(names) + 2)


def check_range(client, path, reader, names, window, rate):
    what = f"{path}, {names} in {window}"
    found = client.get_signal_range(path, names, *window)
    same(found["error_message"], "", what)
    rows = {name: reader.read(name, *window).astype(np.float32) for name in set(names)}
    expected = np.stack([rows[name] for name in names])
    same_array(found["array"], expected, what)
    described = {
        "channel_names": names,
        "fs": rate,
        "start_uutc": window[0],
        "end_uutc": window[1],
        "dtype": "float32",
        "shape": expected.shape,
    }
    same({key: found[key] for key in described}, described, what)


def check_errors(client, corpus):
    path = str(corpus / "mixed_rates.mefd")
    info = client.open_file(path)
    start, end = info["start_uutc"], info["end_uutc"]

    def refused(text, names, *window, of=path, **more):
        found = client.get_signal_range(of, names, *window, **more)
        same(found["array"], None, text)
        same(found["error_message"], text, f"{names} in {window}")

    refused("File not open: nowhere.mefd", ["eeg"], start, end, of="nowhere.mefd")
    refused("Unknown channels: ['q', \"it's\"]", ["q", "eeg", "it's"], start, end)
    refused("end_uutc must be greater than start_uutc", ["eeg"], end, start)
    refused("end_uutc must be greater than start_uutc", ["eeg"], start, start)
    refused("Requested window is shorter than one sample", ["eeg"], start, start + 1000)
    refused("n_points must be positive", ["eeg"], start, end, n_points=0)
    refused("n_points must be positive", ["eeg"], start, end, n_points=-1)
    # What is checked first is told.
    refused("File not open: nowhere.mefd", ["q"], end, start, of="nowhere.mefd")
    refused("Unknown channels: ['q']", ["q", "eeg"], end, start)
    refused("end_uutc must be greater than start_uutc", ["eeg", "emg"], end, start)

    for names in [["eeg", "emg"], None]:
        found = client.get_signal_range(path, names, start, end)
        text, rates = found["error_message"].split(": ")
        same(text, "Requested channels do not share a sampling rate", "mixed rates")
        # Theirs is the text of a Python set, whose order means nothing.
        asked = [r for n, r in channel_rates(info) if names is None or n in names]
        same(sorted(map(float, rates.strip("{}").split(", "))), sorted(asked), "mixed rates")

    client.close_file(path)


def channel_rates(info):
    return zip(info["channel_names"], info["channel_served_sampling_rates"])


def check_files(client, corpus, paths):
    """Opening, listing and closing."""
    same(client.list_open_files(), [], "list of nothing")
    missing = str(corpus / "missing.mefd")
    found = client.open_file(missing)
    same(found["file_opened"], False, "missing file")
    same(found["error_message"], f"File does not exist: {missing}", "missing file")
    nobody = {"file_path": missing, "file_opened": False}
    found = client.get_file_info(missing)
    same({key: value for key, value in found.items() if value}, {"file_path": missing}, "no info")
    same(client.close_file(missing), nobody, "close of what is not open")
    encrypted = str(corpus / "encrypted_mef3io.mefd")
    found = client.open_file(encrypted)
    assert not found["file_opened"] and found["error_message"], found
    for path in reversed(paths):
        client.open_file(path)
    # The name of a file is whatever string the client sent.
    client.open_file(paths[0] + "/")
    same(client.list_open_files(), [*reversed(paths), paths[0] + "/"], "list")
    for path in [paths[0], paths[0]]:
        same(client.close_file(path), {"file_path": path, "file_opened": False}, "close")
    same(client.list_open_files(), [*reversed(paths[1:]), paths[0] + "/"], "list after a close")
    for path in client.list_open_files():
        client.close_file(path)
    same(client.list_open_files(), [], "list after all closes")


def main():
    address, corpus, paths = sys.argv[1], Path(sys.argv[2]), sys.argv[3:]
    client = Mef3Client(address)
    check_files(client, corpus, paths)
    check_errors(client, corpus)
    for path in paths:
        check_recording(client, path)
    client.shutdown()


if __name__ == "__main__":
    main()
