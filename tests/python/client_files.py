"""Compares files that `mef3-server client read` has written with what they must hold.

Usage: client_files.py LIST

LIST is a JSON list of files, each with its channels, the start and the rate of its
columns, and a file of little-endian float64, channel after channel: NaN is no sample.
"""

import csv
import json
import sys

import numpy as np
import pyarrow as pa

from check import same, same_array

TYPES = {"f64": np.dtype("<f8"), "f32": np.dtype("<f4")}


def read_npy(path, _):
    return None, None, np.ascontiguousarray(np.load(path, allow_pickle=False))


def read_csv(path, dtype):
    with open(path, newline="", encoding="utf-8") as file:
        names, *lines = csv.reader(file)
    times = np.array([int(line[0]) for line in lines])
    values = [[float(cell) if cell else np.nan for cell in line[1:]] for line in lines]
    # Numbers of float32 are read as the nearest float64, and are the same again.
    return names, times, np.array(values, dtype).T.copy()


def read_arrow(path, dtype):
    with pa.ipc.open_file(path) as file:
        table = file.read_all()
    table.validate(full=True)
    time, *channels = table.columns
    same(time.type, pa.timestamp("us", "UTC"), f"{path}, type of times")
    rows = []
    for channel in channels:
        row = channel.to_numpy()
        same(channel.null_count, int(np.isnan(row).sum()), f"{path}, nulls")
        rows.append(row)
    return table.column_names, time.cast(pa.int64()).to_numpy(), np.array(rows, ndmin=2)


READERS = {"npy": read_npy, "csv": read_csv, "arrow": read_arrow}


def compare(read):
    what, channels, dtype = read["what"], read["channels"], TYPES[read["type"]]
    names, times, rows = READERS[read["format"]](read["path"], dtype)
    expected = np.fromfile(read["truth"], "<f8").reshape(len(channels), -1).astype(dtype)
    same_array(rows, expected, what)
    if names is None:
        return
    same(names, ["time_uutc", *channels], f"{what}, names")
    distance = np.floor(np.arange(expected.shape[1]) * 1e6 / read["rate"] + 0.5)
    same(times.tolist(), (read["start"] + distance.astype(np.int64)).tolist(), f"{what}, times")


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        reads = json.load(file)
    for read in reads:
        compare(read)
    print(f"{len(reads)} files")


main()
