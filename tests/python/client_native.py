"""Reads with stubs that Python's own tools make of the native protocol.

Usage: client_native.py ADDRESS PASSWORD SESSION...

Every SESSION is a session folder; PASSWORD opens those that are protected, and is "-"
where none is. Samples are compared with what mef3io reads. Of two hostile ones, the first
is the second after damage.
"""

import random
import sys
import tempfile
from pathlib import Path

import grpc
import mef3io
import numpy as np
from grpc_tools import protoc

import red
from check import same, same_array

PROTOCOLS = Path(__file__).resolve().parents[2] / "proto"
SECOND = 1_000_000


def make_stubs():
    """Makes the stubs and imports them."""
    with tempfile.TemporaryDirectory() as folder:
        made = protoc.main([
            "protoc", f"--proto_path={PROTOCOLS}", f"--python_out={folder}",
            f"--grpc_python_out={folder}", "mef3/v1/mef3.proto",
        ])
        same(made, 0, "protoc")
        sys.path.insert(0, folder)
        from mef3.v1 import mef3_pb2
        from mef3.v1 import mef3_pb2_grpc
        sys.path.remove(folder)
    return mef3_pb2, mef3_pb2_grpc


pb2, pb2_grpc = make_stubs()
TYPES = {
    pb2.SAMPLE_FORM_COUNTS: np.int32,
    pb2.SAMPLE_FORM_FLOAT32: np.float32,
    pb2.SAMPLE_FORM_FLOAT64: np.float64,
    pb2.SAMPLE_FORM_RED_BLOCKS: np.int32,
}
IN_COUNTS = (pb2.SAMPLE_FORM_COUNTS, pb2.SAMPLE_FORM_RED_BLOCKS)
# It takes a second to decode so many samples in Python.
MOST_RED_SAMPLES = 100_000


def messages(stub, metadata, chance, request):
    """The messages of a reply, which is cut now and then and goes on by its cursor."""
    while True:
        call = stub.ReadSignal(request, metadata=metadata)
        for message in call:
            if message.HasField("header") and request.cursor:
                continue
            yield message
            # Without one, more comes of the same columns.
            if message.cursor and chance.random() < 0.2:
                request.cursor = message.cursor
                call.cancel()
                break
        else:
            return


def read(stub, metadata, chance, form, **request):
    """Rows of a reply, those cells of each that are there, their scale; and samples that
    are lost."""
    request = pb2.ReadSignalRequest(form=form, on_damage=pb2.ON_DAMAGE_MASK, **request)
    reply = messages(stub, metadata, chance, request)
    header = next(reply).header
    rows, there, scale, blocks = {}, {}, {}, {}
    lost = 0
    for group in header.groups:
        for row in group.rows:
            rows[row] = np.zeros(group.columns, TYPES[form])
            there[row] = np.ones(group.columns, bool)
            scale[row] = np.ones(group.columns)
    for message in reply:
        chunk = message.chunk
        group = header.groups[chunk.group]
        first = chunk.first_column
        lost += sum(damage.samples for damage in chunk.damage)
        if form != pb2.SAMPLE_FORM_RED_BLOCKS:
            samples = np.frombuffer(chunk.samples, TYPES[form])
            samples = samples.reshape(len(group.rows), chunk.columns)
            for row, line in zip(group.rows, samples):
                rows[row][first:first + chunk.columns] = line
        for block in chunk.blocks:
            parts = blocks.setdefault((group.rows[block.row], block.order), [])
            same(sum(len(part.red) for part in parts), block.offset, "offset of a part")
            parts.append(block)
        for missing in chunk.missing:
            at = first + missing.first_column
            there[group.rows[missing.row]][at:at + missing.columns] = False
        for change in chunk.scales:
            scale[group.rows[change.row]][first + change.first_column:] = change.units_per_count
    for (row, _), parts in sorted(blocks.items()):
        place(rows[row], scale[row], parts)
    count = len(rows)
    return [rows[k] for k in range(count)], [there[k] for k in range(count)], [
        scale[k] for k in range(count)], lost


def place(row, scale, parts):
    """Decodes a block, and puts its samples where they belong."""
    samples = red.decode(b"".join(part.red for part in parts))
    same(len(samples), parts[0].samples, "samples of a block")
    first = parts[0].first_column
    from_, until = max(first, 0), min(first + len(samples), len(row))
    if from_ < until:
        row[from_:until] = samples[from_ - first:until - first]
        scale[from_:until] = parts[0].units_per_count


def check(stub, metadata, path, password):
    chance = random.Random(path)
    info = stub.GetRecording(pb2.GetRecordingRequest(recording=path), metadata=metadata)
    with mef3io.Reader(path, password=password) as reader:
        same([c.name for c in info.channels], sorted(reader.channels), f"{path}, channels")
        start, end = info.span.start_uutc, info.span.end_uutc
        windows = [(start, end), (start - SECOND, end + SECOND)]
        for _ in range(4):
            first = chance.randint(start - SECOND, end)
            windows.append((first, first + chance.randint(SECOND // 2, end - start + SECOND)))
        for window in windows:
            names = [c.name for c in info.channels]
            names = chance.choices(names, k=chance.randint(1, 5))
            span = pb2.TimeSpan(start_uutc=window[0], end_uutc=window[1])
            for form in TYPES:
                rates = (c.sampling_frequency for c in info.channels if c.name in names)
                samples = len(names) * max(rates) * (window[1] - window[0]) / SECOND
                if form == pb2.SAMPLE_FORM_RED_BLOCKS and samples > MOST_RED_SAMPLES:
                    continue
                found = read(stub, metadata, chance, form, recording=path, channels=names, time=span)
                same(found[3], 0, f"{path}, lost samples")
                for name, row, there, scale in zip(names, *found[:3]):
                    what = f"{path}, {name} in {window}, form {form}"
                    expected = reader.read(name, *window)
                    same_array(there.astype(float), (~np.isnan(expected)).astype(float), what)
                    if form in IN_COUNTS:
                        row = np.where(there, row.astype(np.float64) * scale, np.nan)
                    same_array(row.astype(np.float64),
                               expected.astype(TYPES[form]).astype(np.float64)
                               if form not in IN_COUNTS else expected, what)


def check_damaged(stub, path, whole):
    """What can be read of a damaged session is what the whole one has."""
    chance = random.Random(path)
    info = stub.GetRecording(pb2.GetRecordingRequest(recording=path))
    with mef3io.Reader(whole) as reader:
        for form in TYPES:
            *found, lost = read(stub, None, chance, form, recording=path, time=info.span)
            missing = 0
            for channel, row, there, scale in zip(info.channels, *found):
                expected = reader.read(channel.name, info.span.start_uutc, info.span.end_uutc)
                same(len(row), len(expected), f"{path}, columns")
                missing += int(np.sum(~there))
                if form in IN_COUNTS:
                    row = row.astype(np.float64) * scale
                else:
                    expected = expected.astype(TYPES[form]).astype(np.float64)
                same_array(row.astype(np.float64)[there], expected[there], f"{path}, form {form}")
            same(lost > 0 and missing, lost, f"{path}, missing samples")


def main():
    address, password, paths = sys.argv[1], sys.argv[2], sys.argv[3:]
    channel = grpc.insecure_channel(address)
    stub = pb2_grpc.RecordingServiceStub(channel)
    metadata = None if password == "-" else (("x-mef3-password", password),)
    if "hostile" in paths[0]:
        check_damaged(stub, *paths)
        return
    for path in paths:
        check(stub, metadata, path, None if password == "-" else password)
    try:
        stub.GetRecording(pb2.GetRecordingRequest(recording="/nowhere.mefd"))
        raise AssertionError("a recording that is not there was described")
    except grpc.RpcError as error:
        same(error.code(), grpc.StatusCode.NOT_FOUND, "a recording that is not there")


if __name__ == "__main__":
    main()
