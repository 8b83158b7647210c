"""Drives a server as clients of brainmaze-mef3-server do, with stubs made from
this project's protocol file.

Usage: client_g1.py ADDRESS CORPUS SESSION...

CORPUS is the folder of the reference corpus; every SESSION is a session
folder. Samples are compared with what mef_tools reads.
"""

import random
import sys
import tempfile
from contextlib import contextmanager
from itertools import zip_longest
from math import ceil
from pathlib import Path

import grpc
import numpy as np
from grpc_tools import protoc
from mef_tools.io import MefReader

from check import by_rate, same, same_array

PROTOCOL = Path(__file__).resolve().parents[2] / "proto" / "gRPCMef3Server.proto"
SECOND = 1_000_000
# What a client of gRPC takes in one message unless told otherwise.
MESSAGE_LIMIT = 4 * 1024 * 1024
UNKNOWN = ["zzz", "it's", 'say "x"', "it's \"x\"", "back\\slash", "tab\t", "line\r\n", "\x1f\x7f\xa0\xad", "Ω", ""]


def make_stubs():
    """Makes the stubs and imports them."""
    with tempfile.TemporaryDirectory() as folder:
        made = protoc.main([
            "protoc", f"--proto_path={PROTOCOL.parent}", f"--python_out={folder}",
            f"--grpc_python_out={folder}", PROTOCOL.name,
        ])
        same(made, 0, "protoc")
        sys.path.insert(0, folder)
        import gRPCMef3Server_pb2
        import gRPCMef3Server_pb2_grpc
        sys.path.remove(folder)
    return gRPCMef3Server_pb2, gRPCMef3Server_pb2_grpc


pb2, pb2_grpc = make_stubs()


class Client:
    """The calls of the client of brainmaze-mef3-server, and their replies."""

    def __init__(self, address):
        # Connections to the same place are shared unless they are told not to be.
        self.channel = grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])
        self.stub = pb2_grpc.gRPCMef3ServerStub(self.channel)

    def open(self, path):
        return self.stub.OpenFile(pb2.OpenFileRequest(file_path=path))

    def close(self, path):
        return self.stub.CloseFile(pb2.FileInfoRequest(file_path=path))

    def info(self, path):
        return self.stub.FileInfo(pb2.FileInfoRequest(file_path=path))

    def list(self):
        reply = self.stub.ListOpenFiles(pb2.ListOpenFilesRequest())
        same_message(reply, "", "ListOpenFiles")
        return list(reply.file_paths)

    def set_size(self, path, seconds):
        request = pb2.SetSignalSegmentRequest(file_path=path, seconds=seconds)
        return self.stub.SetSignalSegmentSize(request)

    def count(self, path):
        reply = self.stub.GetNumberOfSegments(pb2.FileInfoRequest(file_path=path))
        same_message(reply, "", "GetNumberOfSegments")
        return reply.number_of_segments

    def set_active(self, path, names):
        request = pb2.SetActiveChannelsRequest(file_path=path, channel_names=names)
        return self.stub.SetActiveChannels(request)

    def active(self, path):
        return self.stub.GetActiveChannels(pb2.GetActiveChannelsRequest(file_path=path))

    def segment_messages(self, path, index):
        return self.stub.GetSignalSegment(pb2.SignalChunkRequest(file_path=path, chunk_idx=index))

    def segment(self, path, index):
        """A segment as the client puts it together."""
        return assemble(list(self.segment_messages(path, index)))

    def segment_error(self, path, index):
        return only_error(self.segment_messages(path, index))

    def range_messages(self, path, names, start, end):
        return self.stub.GetSignalRange(pb2.SignalRangeRequest(
            file_path=path, channel_names=names, start_uutc=start, end_uutc=end
        ))

    def range_error(self, path, names, start, end):
        return only_error(self.range_messages(path, names, start, end))


def same_message(reply, text, what):
    """An error_message that is set, be it to nothing."""
    assert reply.HasField("error_message"), f"{what}: error_message is unset"
    same(reply.error_message, text, what)


def assemble(messages):
    arrays = []
    for message in messages:
        same_message(message, "", "segment")
        assert message.ByteSize() < MESSAGE_LIMIT, message.ByteSize()
        same(message.channel_names, messages[0].channel_names, "names in each message")
        array = np.frombuffer(message.array_bytes, dtype=message.dtype).reshape(message.shape)
        arrays.append(array)
    return np.concatenate(arrays, axis=1)


def only_error(messages):
    """The text of a reply that is one message with nothing but an error."""
    [message] = messages
    expected = pb2.SignalChunk(file_path=message.file_path, error_message=message.error_message)
    same(message, expected, "error")
    assert message.error_message
    return message.error_message


class Recording:
    """A session as mef_tools reads it."""

    def __init__(self, path):
        self.path = path
        self.reader = MefReader(path)
        self.names = sorted(self.reader.channels)
        self.rates = self.of_all("fsamp")
        self.starts = [int(start) for start in self.of_all("start_time")]
        self.ends = [int(end) for end in self.of_all("end_time")]
        self.start, self.end = min(self.starts), max(self.ends)

    def of_all(self, key):
        return [self.reader.get_property(key, name) for name in self.names]

    def info(self):
        return pb2.FileInfoResponse(
            file_path=self.path,
            file_opened=True,
            number_of_channels=len(self.names),
            channel_names=self.names,
            channel_sampling_rates=self.rates,
            start_uutc=self.start,
            end_uutc=self.end,
            duration_s=(self.end - self.start) / 1e6,
            channel_start_uutc=self.starts,
            channel_end_uutc=self.ends,
            channel_served_sampling_rates=self.rates,
        )

    def groups(self):
        return by_rate(self.names, self.rates)

    def count(self, seconds):
        return max(ceil((self.end - self.start) / (seconds * SECOND)), 1)

    def segment(self, seconds, index, names):
        """A segment of a grid: the last one is as short as the recording has it."""
        start = self.start + index * seconds * SECOND
        end = min(start + seconds * SECOND, self.end)
        return np.stack([self.row(name, start, end) for name in names])

    def row(self, name, start, end):
        channel = self.names.index(name)
        if end < self.starts[channel] or start > self.ends[channel]:
            # Here pymef reads nothing, and its wrapper may give one NaN too few.
            samples = int((end - start) / 1e6 * self.rates[channel] + 0.5)
            return np.full(samples, np.nan)
        return np.ravel(self.reader.get_data(name, start, end))


@contextmanager
def opened(client, path):
    """A recording that is open for a while, as mef_tools reads it."""
    recording = Recording(path)
    reply = client.open(path)
    same(reply, recording.info(), f"{path}, OpenFile")
    assert not reply.HasField("error_message")
    yield recording
    closed = pb2.FileInfoResponse(file_path=path, file_opened=False, error_message="")
    same(client.close(path), closed, f"{path}, CloseFile")
    same(client.close(path), closed, f"{path}, second CloseFile")


def check_info(client, path):
    with opened(client, path) as recording:
        same(client.info(path), recording.info(), f"{path}, FileInfo")
        names = recording.names[-1:]
        client.set_active(path, names)
        client.set_size(path, 1)
        again = recording.info()
        again.error_message = f"File already open: {path}"
        same(client.open(path), again, f"{path}, second OpenFile")
        # What was set stays.
        same(client.active(path).active_channels, names, "active channels after OpenFile")
        same(client.count(path), recording.count(1), "segments after OpenFile")
    same(client.info(path), pb2.FileInfoResponse(file_path=path), f"{path}, closed")
    with opened(client, path) as recording:
        same(client.active(path).active_channels, recording.names, "after opening anew")
        same(client.count(path), 0, "segments after opening anew")


def check_samples(client, path):
    """Every segment of grids, of all channels that go together, in any order."""
    chance = random.Random(path)
    with opened(client, path) as recording:
        for names in recording.groups().values():
            for seconds in [3, 50]:
                reply = client.set_size(path, seconds)
                same_message(reply, "", "SetSignalSegmentSize")
                same(reply.number_of_segments, recording.count(seconds), "segments")
                same(client.count(path), recording.count(seconds), "segments")
                for index in range(recording.count(seconds)):
                    # Another choice for each: one must not come out of another.
                    choice = chance.choices(names, k=chance.randint(1, len(names) + 2))
                    for active in [names, choice, names[::-1]]:
                        check_segment(client, recording, seconds, index, active)


def check_segment(client, recording, seconds, index, active):
    path = recording.path
    what = f"{path}, {active} in segment {index} of {seconds} s"
    reply = client.set_active(path, active)
    same_message(reply, "", what)
    same(reply.active_channels, active, what)
    same(client.active(path).active_channels, active, what)
    messages = list(client.segment_messages(path, index))
    same(messages[0].channel_names, active, what)
    same(messages[0].fs, recording.rates[recording.names.index(active[0])], what)
    same(messages[0].start_uutc, recording.start + index * seconds * SECOND, what)
    end = min(messages[0].start_uutc + seconds * SECOND, recording.end)
    same(messages[-1].end_uutc, end, what)
    expected = recording.segment(seconds, index, active)
    same_array(assemble(messages), expected, what)
    column_bytes = 8 * len(active)
    whole = expected.shape[1] * column_bytes <= 2_621_440
    columns = expected.shape[1] if whole else max(131_072 // column_bytes, 1)
    same(len(messages), ceil(expected.shape[1] / columns), f"{what}, messages")


def check_grid(client, path):
    with opened(client, path) as recording:
        text = f"No chunks available for file: {path}. Set a segment size to init chunks."
        same(client.segment_error(path, 0), text, "no grid")
        same(client.count(path), 0, "no grid")
        for seconds in [2**63 - 1, 10**9, 2]:
            count = client.set_size(path, seconds).number_of_segments
            same(count, recording.count(seconds), f"segments of {seconds} s")
        for index in [-1, count, 2**40]:
            text = f"Invalid chunk request: {index} for {path}"
            same(client.segment_error(path, index), text, "no such segment")
        whole, last = client.segment(path, 0), client.segment(path, count - 1)
        assert last.shape[1] < whole.shape[1], "the last segment is short"
        zero = client.set_size(path, 0)
        same_message(zero, "Maximum allowed size exceeded", "segments of nothing")
        for reply in [zero, client.set_size(path, -5), client.set_size(path, -(2**63))]:
            same(reply.number_of_segments, 0, "no grid can be laid")
            assert reply.error_message
            same(client.count(path), count, "the grid before stays")


def check_active(client, path):
    with opened(client, path) as recording:
        everything, two = recording.names, recording.names[2::-2]

        def active(names, text, expected):
            reply = client.set_active(path, names)
            same_message(reply, text, f"active channels {names}")
            same(reply.active_channels, expected, f"active channels {names}")
            reply = client.active(path)
            same_message(reply, "", "GetActiveChannels")
            same(reply.active_channels, expected, f"active channels after {names}")

        reply = client.active(path)
        same(reply.active_channels, everything, "active channels at first")
        active(two, "", two)
        active(UNKNOWN, f"No valid channels in request. Invalid: {UNKNOWN}", two)
        active([*two, *UNKNOWN], f"Some channels do not exist: {UNKNOWN}", two)
        active([], "", everything)
        for name in UNKNOWN:
            active([name, *two], f"Some channels do not exist: {[name]}", two)


def check_mixed_rates(client, path):
    with opened(client, path) as recording:
        client.set_size(path, 2)
        text, rates = client.segment_error(path, 0).split(": ")
        same(text, "Requested channels do not share a sampling rate", "mixed rates")
        rates = sorted(map(float, rates.strip("{}").split(", ")))
        same(rates, sorted(recording.rates), "mixed rates")


def check_two_clients(client, other, path):
    """Clients without a name share what is set on a file."""
    with opened(client, path) as recording:
        assert other.open(path).error_message.startswith("File already open: ")
        names = recording.names[1::-1]
        client.set_active(path, names)
        other.set_size(path, 2)
        same(other.active(path).active_channels, names, "active channels of the other")
        same(client.count(path), recording.count(2), "segments of the other")
        # Both read at the same time, each another segment and in turns.
        replies = [client.segment_messages(path, 0), other.segment_messages(path, 1)]
        turns = list(zip_longest(*replies))
        for index, messages in enumerate(zip(*turns)):
            found = assemble([message for message in messages if message])
            same_array(found, recording.segment(2, index, names), f"client {index}")
        # An open stream outlives the file that it reads.
        running = client.segment_messages(path, 0)
        first = next(running)
        closed = other.close(path)
        same(closed.file_opened, False, "closed for everybody")
        same_array(assemble([first, *running]), recording.segment(2, 0, names), "after close")
        same(client.segment_error(path, 0), f"File not open: {path}", "closed by the other")


def check_not_open(client, path):
    text = f"File not open: {path}"
    size = pb2.SetSignalSegmentResponse(file_path=path, number_of_segments=0, error_message=text)
    same(client.set_size(path, 1), size, "SetSignalSegmentSize")
    same(client.count(path), 0, "GetNumberOfSegments")
    same(client.segment_error(path, 0), text, "GetSignalSegment")
    active = pb2.SetActiveChannelsResponse(file_path=path, error_message=text)
    same(client.set_active(path, ["x"]), active, "SetActiveChannels")
    active = pb2.GetActiveChannelsResponse(file_path=path, error_message=text)
    same(client.active(path), active, "GetActiveChannels")
    same(client.range_error(path, ["x"], 0, 1), text, "GetSignalRange")
    same(client.info(path), pb2.FileInfoResponse(file_path=path), "FileInfo")


def check_refused(client, corpus):
    """Files that cannot be opened are not open afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        empty = Path(folder) / "empty.mefd"
        empty.mkdir()
        missing = str(Path(folder) / "missing.mefd")
        text = f"File does not exist: {missing}"
        expected = pb2.FileInfoResponse(file_path=missing, error_message=text)
        same(client.open(missing), expected, "missing file")
        for path in [str(empty), folder, str(corpus / "encrypted_mef3io.mefd")]:
            reply = client.open(path)
            assert reply.error_message, f"{path} was opened"
            expected = pb2.FileInfoResponse(file_path=path, error_message=reply.error_message)
            same(reply, expected, f"{path}, refused")
    same(client.list(), [], "files that were refused")


def check_list(client, paths):
    # The name of a file is whatever string the client sent.
    names = [*paths[::-1], paths[0] + "/"]
    for name in names:
        client.open(name)
    same(client.list(), names, "open files")
    client.close(names[1])
    client.open(names[0])
    same(client.list(), names[:1] + names[2:], "open files after a close")
    client.open(names[1])
    same(client.list(), names[:1] + names[2:] + names[1:2], "open files after opening anew")
    for name in names:
        client.close(name)
    same(client.list(), [], "no open files")


def check_range(client, path):
    """The read of the second generation."""
    with opened(client, path) as recording:
        start, end = recording.start, recording.end
        names = [*recording.names[::-1], recording.names[0]]
        found = assemble(list(client.range_messages(path, names, start, end)))
        expected = np.stack([recording.row(name, start, end) for name in names])
        same_array(found, expected.astype(np.float32), "range")
        # Active channels are for segments: a range without names has them all.
        client.set_active(path, names[:1])
        found = next(client.range_messages(path, [], start, end))
        same(found.channel_names, recording.names, "range of all channels")
        text = f"Unknown channels: {UNKNOWN}"
        same(client.range_error(path, UNKNOWN, start, end), text, "unknown channels")
        text = "end_uutc must be greater than start_uutc"
        same(client.range_error(path, names, end, start), text, "no window")
        text = "Requested window is shorter than one sample"
        same(client.range_error(path, names, start, start + 10), text, "short window")


def main():
    address, corpus, paths = sys.argv[1], Path(sys.argv[2]), sys.argv[3:]
    client, other = Client(address), Client(address)
    eight = str(corpus / "eight_channels.mefd")
    check_refused(client, corpus)
    check_list(client, paths)
    check_not_open(client, eight)
    check_grid(client, str(corpus / "multi_segment.mefd"))
    check_active(client, eight)
    check_mixed_rates(client, str(corpus / "mixed_rates.mefd"))
    check_two_clients(client, other, eight)
    check_range(client, eight)
    for path in paths:
        check_info(client, path)
        check_samples(client, path)
    same(client.list(), [], "all are closed")


if __name__ == "__main__":
    main()
