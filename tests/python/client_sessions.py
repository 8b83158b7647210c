"""Drives a server with several Python clients of mef3io-server 3.1: what each has set
is its own, ends when it is idle or there are too many, and comes back.

Usage: client_sessions.py ADDRESS IDLE_SECONDS MOST FIRST SECOND

The server ends sessions after IDLE_SECONDS, and has MOST at a time. FIRST and SECOND
are sessions of one sampling rate.
"""

import sys
import time

import grpc
from mef3io_server.client import Mef3Client
from mef3io_server.protobufs import gRPCMef3Server_pb2 as pb2
from mef3io_server.protobufs import gRPCMef3Server_pb2_grpc as pb2_grpc

from check import same


class Plain:
    """A client of an earlier generation, without an id."""

    def __init__(self, address):
        self.channel = grpc.insecure_channel(address)
        self.stub = pb2_grpc.gRPCMef3ServerStub(self.channel)

    def open(self, path, **more):
        return self.stub.OpenFile(pb2.OpenFileRequest(file_path=path, **more))

    def info(self, path):
        return self.stub.FileInfo(pb2.FileInfoRequest(file_path=path))

    def close(self, path):
        return self.stub.CloseFile(pb2.FileInfoRequest(file_path=path))


def rate_of(client, path):
    """The rate at which a client is served, of a recording that is open."""
    info = client.get_file_info(path)
    start = info["start_uutc"]
    found = client.get_signal_range(path, info["channel_names"][:1], start, start + 2_000_000)
    same(found["error_message"], "", "a read")
    return found["fs"]


def check_rates_are_each_clients_own(address, path):
    first, second, plain = Mef3Client(address), Mef3Client(address), Plain(address)
    native = first.open_file(path)["channel_served_sampling_rates"][0]
    second.open_file(path, cache_fs=native / 2)
    same(rate_of(first, path), native, "without a rate")
    same(rate_of(second, path), native / 2, "at half the rate")
    same(second.get_file_info(path)["cache_fs"], native / 2, "file info")
    same(first.get_file_info(path)["cache_fs"], None, "file info of the other one")
    answer = plain.open(path, cache_fs=1.0)
    assert not answer.file_opened and "client id" in answer.error_message, answer
    # Settings are replaced by each opening, and a refused one changes nothing.
    assert not second.open_file(path, cache_fs=-1.0)["file_opened"]
    same(rate_of(second, path), native / 2, "after a refused opening")
    second.open_file(path)
    same(rate_of(second, path), native, "opened anew without a rate")
    # It closes for each alone, and with the last one.
    same(first.close_file(path)["file_opened"], True, "closed by the first")
    same(plain.close(path).file_opened, True, "closed by one that never opened it")
    same(second.close_file(path)["file_opened"], False, "closed by the last")
    same(plain.info(path).file_opened, False, "after the last")
    same(first.list_open_files(), [], "after the last")
    # What is opened for a refused call only is closed again.
    assert not first.open_file(path, cache_fs=-1.0)["file_opened"]
    same(first.list_open_files(), [], "after a refused opening")


def check_idle_sessions_end(address, idle, path):
    viewer, other, plain = Mef3Client(address), Mef3Client(address), Plain(address)
    native = viewer.open_file(path)["channel_served_sampling_rates"][0]
    viewer.open_file(path, cache_fs=native / 2)
    # Asking what a file is keeps a session, as reading does.
    until = time.monotonic() + 2 * idle
    while time.monotonic() < until:
        assert viewer.get_file_info(path)["file_opened"]
        time.sleep(idle / 4)
    time.sleep(2.5 * idle + 2)
    same(plain.info(path).file_opened, False, "after all sessions were idle")
    found = viewer.get_signal_range(path, None, 0, 1)
    same(found["error_message"], f"File not open: {path}", "a read after that")
    # While others have it open, the next read goes on as before.
    plain.open(path)
    viewer.open_file(path, cache_fs=native / 2)
    time.sleep(2.5 * idle + 2)
    same(rate_of(viewer, path), native / 2, "after an idle session came back")
    # The shared session does not end.
    assert plain.info(path).file_opened
    same(rate_of(other, path), native, "of one without a session")
    viewer.close_file(path)
    same(rate_of(viewer, path), native, "after the client's own close")
    plain.close(path)
    viewer.close_file(path)


def check_too_many_sessions(address, most, path, second):
    plain = Plain(address)
    plain.open(path)
    clients = [Mef3Client(address) for _ in range(most + 1)]
    native = plain.info(path).channel_served_sampling_rates[0]
    for client in clients:
        client.open_file(path, cache_fs=native / 2)
    # The first one's session has made way, and comes back with its next read.
    for client in clients:
        same(rate_of(client, path), native / 2, "one of too many")
    # The file of a session that made way is closed with it.
    clients[0].open_file(second)
    for client in clients[1:]:
        rate_of(client, path)
    same(plain.info(second).file_opened, False, "the file of a session that made way")
    for client in clients:
        client.close_file(path)
    plain.close(path)
    same(clients[0].list_open_files(), [], "at the end")


def main():
    address, idle, most, path, second = sys.argv[1:]
    check_rates_are_each_clients_own(address, path)
    check_idle_sessions_end(address, float(idle), path)
    check_too_many_sessions(address, int(most), path, second)


if __name__ == "__main__":
    main()
