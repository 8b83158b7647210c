"""Drives a server with the Python client of mef3io-server 3.1 in what only that
generation has: served rates, points and envelopes.

Usage: client_reduced.py ADDRESS TILE_SECONDS RESPECT_BLOCKS SESSION...

Every SESSION is a session folder. What is answered is compared with what the
Python server's own code makes of what mef3io reads, and with mef3io itself.
"""

import random
import sys

import mef3io
import numpy as np
from mef3io_server.client import Mef3Client
from mef3io_server.server import file_manager
from mef3io_server.server.file_manager import FileManager

from check import same, same_array

SECOND = 1_000_000
# In a container the reference looks for recordings below /host_root.
file_manager.is_running_in_docker = lambda: False


class Reference:
    """The Python server's reads, in this process."""

    def __init__(self, path, rate, tile, whole_blocks):
        self.path = path
        self.manager = FileManager(
            use_process_pool=False, tile_duration_s=tile, respect_mef_blocks=whole_blocks,
            prefetch_ahead_windows=0, prefetch_behind_windows=0,
        )
        info = self.manager.open_file(path, "test", rate, True)
        assert info.file_opened, info.error_message

    def read(self, names, window, points=None):
        return self.manager.read_signal_range(
            self.path, names, *window, prefetch=False, client_id="test", n_points=points)

    def close(self):
        self.manager.shutdown()


def windows(info, rate, chance):
    """The whole, and windows within, across and outside of the recording.

    None begins in the middle between two samples: there the Python server takes the
    even one, and mef3io, whose samples are served here, the later one.
    """
    start, end = info["start_uutc"], info["end_uutc"]
    sample = int(SECOND / rate) + 1
    yield start, end
    yield start - 3 * SECOND - 7, start + 9 * sample
    yield end - 9 * sample, end + 3 * SECOND
    yield start - 20 * SECOND - 17, start - 10 * SECOND
    yield end + 1200 * SECOND, end + 1203 * SECOND + 33
    for _ in range(6):
        first = chance.randint(start - SECOND, end)
        yield first, first + 2 * sample + chance.randint(0, end - start)


def rates(info):
    """Rates below and between those of the channels."""
    native = sorted(set(info["channel_served_sampling_rates"]))
    for rate in native:
        yield rate / 2
        yield rate / 7.3
    yield native[-1] * 0.999
    yield min(1.0, native[0] / 3)


def compare(found, expected, window, what):
    same(found["error_message"], "", what)
    same_array(found["array"], expected["array"], what)
    same(found["channel_names"], expected["channel_names"], what)
    same(found["fs"], expected["fs"], f"{what}, rate")
    same((found["start_uutc"], found["end_uutc"]), window, what)


def check_served(client, path, tile, whole_blocks):
    chance = random.Random(path.rsplit("/", 1)[-1])
    native = client.open_file(path)
    for rate in rates(native):
        info = client.open_file(path, cache_fs=rate, allow_mixed_rates=True)
        assert info["file_opened"], info
        served = [min(rate, fs) for fs in native["channel_served_sampling_rates"]]
        same(info["channel_served_sampling_rates"], served, f"{path} at {rate}")
        same(info["cache_fs"], rate, f"{path} at {rate}")
        same(client.get_file_info(path), info, f"{path} at {rate}, file info")
        reference = Reference(path, rate, tile, whole_blocks)
        reduced = [n for n, fs in zip(info["channel_names"], served) if fs == rate]
        for window in windows(info, rate, chance):
            names = chance.choices(reduced, k=chance.randint(1, 4))
            what = f"{path}, {names} in {window} at {rate} Hz"
            found = client.get_signal_range(path, names, *window)
            if "shorter than one sample" in found["error_message"]:
                assert round((window[1] - window[0]) * rate / 1e6) < 1, what
                continue
            compare(found, reference.read(names, window), window, what)
            check_points(client, path, reference, names, window, chance, what)
        reference.close()


def check_points(client, path, reference, names, window, chance, what):
    for points in [1, chance.randint(2, 50), chance.randint(50, 3000), 10**6]:
        found = client.get_signal_range(path, names, *window, n_points=points)
        try:
            expected = reference.read(names, window, points)
        except ValueError as error:
            if "shorter than one sample" in str(error):
                same(found["error_message"], str(error), what)
                continue
            # Where the rates differ and the served one has too few samples.
            assert "do not share" in str(error), error
            check_mixed_points(found, reference, names, window, points, what)
            continue
        compare(found, expected, window, f"{what}, {points} points")


def check_mixed_points(found, reference, names, window, points, what):
    """Each row is what it is alone, or has its samples somewhere, in their order."""
    what = f"{what}, {points} points of mixed rates"
    same(found["error_message"], "", what)
    same(found["array"].shape, (len(names), points), what)
    for name, row in zip(names, found["array"]):
        try:
            expected = reference.read([name], window, points)["array"][0]
        except ValueError as error:
            # A row that is alone in having no sample there is a gap.
            assert "shorter than one sample" in str(error), error
            assert np.isnan(row).all(), what
            continue
        if len(expected) < points:
            real = expected[~np.isnan(expected)]
            same_array(row[~np.isnan(row)], real, f"{what}, {name}")
        else:
            same_array(row, expected, f"{what}, {name}")


def check_native_points(client, path):
    """Points of what is served as it is."""
    chance = random.Random(path)
    info = client.open_file(path)
    reference = Reference(path, None, 60, False)
    for window in windows(info, max(info["channel_served_sampling_rates"]), chance):
        names = chance.sample(info["channel_names"], min(3, len(info["channel_names"])))
        for group in [names, names[:1]]:
            check_points(client, path, reference, group, window, chance, f"{path}, {group}")
    reference.close()


def check_envelope(client, path):
    chance = random.Random(path)
    with mef3io.Reader(path) as reader:
        info = client.open_file(path)
        start, end = info["start_uutc"], info["end_uutc"]
        spans = [(None, None), (start, end), (end, start), (None, start), (end, None)]
        for _ in range(8):
            first = chance.randint(start - SECOND, end)
            spans.append((first, first + chance.randint(0, end - start)))
        for span in spans:
            names = chance.sample(info["channel_names"], len(info["channel_names"]))
            found = client.get_envelope(path, names, *span)
            same(list(found), names, f"{path}, envelope over {span}")
            for name in names:
                expected = reader.block_envelope(name, *span)
                for column in ["start_uutc", "end_uutc", "min", "max"]:
                    what = f"{path}, {name}, {column} over {span}"
                    if column in ["min", "max"]:
                        same_array(found[name][column], expected[column], what)
                    else:
                        same(found[name][column].tolist(), expected[column].tolist(), what)
        same(list(client.get_envelope(path)), info["channel_names"], f"{path}, all channels")


def refused(message, call):
    try:
        found = call()
    except RuntimeError as error:
        found = {"error_message": str(error)}
    assert message in found["error_message"], f"{message!r} is not in {found!r}"
    return found


def check_errors(client, path):
    info = client.open_file(path)
    window = info["start_uutc"], info["end_uutc"]
    for rate in [0.0, -1.0, float("nan"), float("inf")]:
        text = f"cache_fs must be a positive sampling rate (Hz), not {rate}"
        found = refused(text, lambda: client.open_file(path, cache_fs=rate))
        same(found["file_opened"], False, text)
    found = refused("channels", lambda: client.open_file(path, cache_fs=1e9))
    same(found["file_opened"], False, "a rate above all others")
    for name in info["channel_names"][:10]:
        assert name in found["error_message"], found
    # What is set stays.
    same(client.get_file_info(path), info, "after refused opens")
    nobody = "nowhere.mefd"
    refused(f"File not open: {nobody}", lambda: client.get_envelope(nobody))
    refused("Unknown channels: ['q']", lambda: client.get_envelope(path, ["q"]))
    # The order of the checks with points.
    refused("n_points must be positive",
            lambda: client.get_signal_range(nobody, ["q"], 2, 1, n_points=0))
    refused("end_uutc must be greater than start_uutc",
            lambda: client.get_signal_range(nobody, ["q"], 2, 1, n_points=5))
    refused(f"File not open: {nobody}",
            lambda: client.get_signal_range(nobody, ["q"], 1, 2, n_points=5))
    refused("Unknown channels: ['q']",
            lambda: client.get_signal_range(path, ["q"], *window, n_points=5))
    refused("limits.points_mb",
            lambda: client.get_signal_range(path, info["channel_names"], window[0],
                                            window[0] + 10**15, n_points=10**8))


def main():
    address, tile, whole_blocks = sys.argv[1], float(sys.argv[2]), sys.argv[3] == "true"
    client = Mef3Client(address)
    for path in sys.argv[4:]:
        check_served(client, path, tile, whole_blocks)
        check_native_points(client, path)
        check_envelope(client, path)
        check_errors(client, path)
    client.shutdown()


if __name__ == "__main__":
    main()
