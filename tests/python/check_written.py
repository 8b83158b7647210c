"""Compares a written session with what its writer meant to write.

Usage: check_written.py FOLDER

FOLDER holds expected.json, the counts of each channel as raw little-endian
32-bit integers, and the session. The session is read with mef3io and with
pymef and mef_tools, checked by mef3io's validator, and compared byte by byte
with a session that mef3io writes from the same runs. Every difference is a
line on standard output, and any difference makes the exit code 1.
"""

import json
import struct
import sys
from dataclasses import dataclass
from fractions import Fraction
from math import floor
from pathlib import Path

import mef3io
import numpy as np
from mef_tools.io import MefReader
from pymef.mef_session import MefSession

HEADER_BYTES = 1024
INDEX_ENTRY = struct.Struct("<qqqIIii4sB3s8s")

problems = []


def expect(what, found, expected):
    """Notes a difference; NaN equals NaN in arrays of floats."""
    if isinstance(expected, np.ndarray):
        same = np.shape(found) == expected.shape and np.array_equal(
            found, expected, equal_nan=expected.dtype.kind == "f"
        )
        if not same:
            found, expected = summary(found), summary(expected)
    else:
        same = found == expected
    if not same:
        problems.append(f"{what}: found {found}, expected {expected}")


def summary(values):
    values = np.asarray(values)
    return f"{values.shape} {values.dtype} {values[:5]} ... {values[-5:]}"


@dataclass
class Block:
    segment: int
    start: int
    samples: np.ndarray
    discontinuity: bool


class Channel:
    """The blocks, times and grid that follow from the runs of a channel."""

    def __init__(self, folder, description):
        self.name = description["name"]
        self.fs = description["sampling_frequency"]
        self.factor = description["units_conversion_factor"]
        self.units = description["units_description"]
        self.block_samples = description["block_samples"]
        self.pieces = description["pieces"]
        self.counts = np.fromfile(folder / description["counts"], "<i4")
        self.blocks = list(self._blocks())
        self.start = self.blocks[0].start
        last = self.blocks[-1]
        self.end = last.start + self.duration(len(last.samples))

    def duration(self, samples):
        """Exact microseconds of a number of samples, rounded half up."""
        exact = Fraction(samples) / Fraction(self.fs) * 1_000_000
        return floor(exact + Fraction(1, 2))

    def _blocks(self):
        first, segment = 0, None
        for piece in self.pieces:
            if piece["start"] is not None:
                run_start, in_run = piece["start"], 0
            for offset in range(0, piece["samples"], self.block_samples):
                size = min(self.block_samples, piece["samples"] - offset)
                yield Block(
                    piece["segment"],
                    run_start + self.duration(in_run),
                    self.counts[first : first + size],
                    in_run == 0 or piece["segment"] != segment,
                )
                first, in_run, segment = first + size, in_run + size, piece["segment"]
        assert first == len(self.counts)

    def grid(self):
        """Counts and validity of all slots from the start to the end."""
        length = floor(Fraction(self.end - self.start) * Fraction(self.fs) / 1_000_000 + Fraction(1, 2))
        counts, valid = np.zeros(length, "<i4"), np.zeros(length, bool)
        for block in self.blocks:
            slot = round(Fraction(block.start - self.start) * Fraction(self.fs) / 1_000_000)
            counts[slot : slot + len(block.samples)] = block.samples
            valid[slot : slot + len(block.samples)] = True
        return counts, valid

    def segments(self):
        return sorted({block.segment for block in self.blocks})


def check_mef3io(path, session, channels):
    report = mef3io.validate_session(str(path))
    for finding in (*report.findings, *report.skipped):
        problems.append(f"mef3io validator: {finding}")
    expect("segments validated", report.segments_checked, sum(len(c.segments()) for c in channels))

    reader = mef3io.Reader(str(path))
    for channel in channels:
        what = f"mef3io, {channel.name}"
        info = reader.info(channel.name)
        for field, value in {
            "sampling_frequency": channel.fs,
            "units_conversion_factor": channel.factor,
            "units_description": channel.units,
            "start_time": channel.start,
            "end_time": channel.end,
            "number_of_samples": len(channel.counts),
            "n_segments": len(channel.segments()),
            "recording_time_offset": 0,
            "gmt_offset": 3600,
            "subject_id": session["subject_id"],
        }.items():
            expect(f"{what}, {field}", info[field], value)

        table = reader.toc(channel.name)
        for field, of_block in {
            "start_uutc": lambda block: block.start,
            "number_of_samples": lambda block: len(block.samples),
            "minimum_sample_value": lambda block: int(block.samples.min()),
            "maximum_sample_value": lambda block: int(block.samples.max()),
            "discontinuity": lambda block: block.discontinuity,
        }.items():
            found = [entry[field] for entry in table]
            expect(f"{what}, {field}", found, [of_block(block) for block in channel.blocks])

        counts, valid = channel.grid()
        raw = reader.read_raw(channel.name)
        expect(f"{what}, valid", raw["valid"].astype(bool), valid)
        expect(f"{what}, counts", raw["samples"][valid], counts[valid])
        values = reader.read(channel.name)
        expect(f"{what}, values", values, np.where(valid, counts * channel.factor, np.nan))
    reader.close()


def check_pymef(path, channels):
    session = MefSession(str(path), "")
    basics = {basic["name"]: basic for basic in session.read_ts_channel_basic_info()}
    expect("pymef, channels", sorted(basics), sorted(channel.name for channel in channels))
    for channel in channels:
        what = f"pymef, {channel.name}"
        basic = basics[channel.name]
        expect(f"{what}, fsamp", float(np.ravel(basic["fsamp"])[0]), channel.fs)
        expect(f"{what}, ufact", float(np.ravel(basic["ufact"])[0]), channel.factor)
        expect(f"{what}, start", int(np.ravel(basic["start_time"])[0]), channel.start)
        expect(f"{what}, end", int(np.ravel(basic["end_time"])[0]), channel.end)
        expect(f"{what}, samples", int(np.ravel(basic["nsamp"])[0]), len(channel.counts))

        table = session.get_channel_toc(channel.name)
        blocks = channel.blocks
        expect(f"{what}, flags", table[0], np.array([int(b.discontinuity) for b in blocks]))
        expect(f"{what}, block samples", table[1], np.array([len(b.samples) for b in blocks]))
        expect(f"{what}, block starts", table[3], np.array([b.start for b in blocks]))

        stored = session.read_ts_channels_sample(channel.name, [[0, len(channel.counts)]])
        expect(f"{what}, stored counts", np.ravel(stored), channel.counts.astype(float))
        check_pymef_windows(what, session, channel)
    session.close()


def check_pymef_windows(what, session, channel):
    """Reads of the whole and of its parts, with gaps as NaN."""
    counts, valid = channel.grid()
    grid = np.where(valid, counts, np.nan)
    slots = len(grid)
    for first, last in [(0, slots), (slots // 3, 2 * slots // 3), (slots // 2, slots)]:
        if last <= first:
            continue
        # In the middle between two slots' times nothing hangs on rounding.
        half = channel.duration(1) // 2
        t0 = channel.start + channel.duration(first) - (half // 2 if first else 0)
        t1 = channel.end if last == slots else t0 + channel.duration(last - first)
        found = session.read_ts_channels_uutc(channel.name, [t0, t1])
        expect(f"{what}, slots {first} to {last}", np.ravel(found), grid[first:last])


def check_mef_tools(path, channels):
    reader = MefReader(str(path))
    expect("mef_tools, channels", sorted(reader.channels), sorted(c.name for c in channels))
    for channel in channels:
        what = f"mef_tools, {channel.name}"
        counts, valid = channel.grid()
        unit = reader.get_property("unit", channel.name)
        expect(f"{what}, unit", unit.decode(), channel.units)
        found = reader.get_data(channel.name, channel.start, channel.end)
        values = np.where(valid, counts * channel.factor, np.nan)
        expect(f"{what}, values", np.ravel(found), values)
    reader.close()


def check_bytes(path, folder, channels):
    """The blocks, index and declarations that mef3io makes of the same runs."""
    for number, channel in enumerate(channels):
        # mef3io begins a new run with every segment: nothing to compare with.
        if any(piece["start"] is None for piece in channel.pieces):
            continue
        twin = folder / f"twin{number}.mefd"
        writer = mef3io.Writer(str(twin), units=channel.units, block_length=channel.block_samples)
        first, segment = 0, 0
        for piece in channel.pieces:
            data = channel.counts[first : first + piece["samples"]]
            new_segment = piece["segment"] != segment
            writer.write_int32(
                channel.name, data, channel.factor, piece["start"], channel.fs, new_segment=new_segment
            )
            first, segment = first + len(data), piece["segment"]
        writer.close()
        for segment in channel.segments():
            compare_segments(channel, segment, path, twin)


def compare_segments(channel, segment, ours, theirs):
    stem = f"{channel.name}-{segment:06}"

    def read(root, extension):
        file = root / f"{channel.name}.timd" / f"{stem}.segd" / f"{stem}.{extension}"
        return file.read_bytes()

    data, twin_data = read(ours, "tdat"), read(theirs, "tdat")
    if data[HEADER_BYTES:] != twin_data[HEADER_BYTES:]:
        problems.append(f"{stem}: blocks differ from those of mef3io")

    in_segment = 0
    entries = list(INDEX_ENTRY.iter_unpack(read(ours, "tidx")[HEADER_BYTES:]))
    twin_entries = list(INDEX_ENTRY.iter_unpack(read(theirs, "tidx")[HEADER_BYTES:]))
    expect(f"{stem}, index length", len(entries), len(twin_entries))
    for entry, twin in zip(entries, twin_entries):
        # Ours count from the segment's start, those of mef3io from the channel's.
        expect(f"{stem}, start_sample", entry[2], in_segment)
        expect(f"{stem}, index entry", entry[:2] + entry[3:], twin[:2] + twin[3:])
        in_segment += entry[3]

    for extension in ("tdat", "tidx", "tmet"):
        header, twin = read(ours, extension), read(theirs, extension)
        # CRCs, names of the session and identifiers are each file's own.
        expect(f"{stem}.{extension}, header", header[8:308], twin[8:308])
    declared = slice(8896, 8992)
    metadata, twin = read(ours, "tmet"), read(theirs, "tmet")
    layout = struct.Struct("<2d4q2I5q")
    expect(
        f"{stem}, declarations",
        layout.unpack(metadata[declared]),
        layout.unpack(twin[declared]),
    )
    expect(f"{stem}, duration", metadata[6656:6664], twin[6656:6664])


def main():
    folder = Path(sys.argv[1])
    session = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    channels = [Channel(folder, description) for description in session["channels"]]
    path = folder / session["session"]
    check_mef3io(path, session, channels)
    check_pymef(path, channels)
    check_mef_tools(path, channels)
    check_bytes(path, folder, channels)
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
