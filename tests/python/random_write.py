"""Writes the sessions of a test as mef3io, pymef and mef_tools write them.

Usage: random_write.py PLANS

PLANS is a JSON list of sessions: tests/random_sessions/plan.rs says what is in
one. The first writer of a session is the one that it names, unless that is not a
Python one; the second goes on with it. Sessions that could not be written are
printed as a JSON object, the reasons by their numbers.
"""

import json
import sys
from functools import partial
from pathlib import Path

import mef3io
import numpy as np
import pandas as pd
from mef_tools.io import MefWriter
from pymef.mef_file.pymef3_file import write_mef_ts_data_and_indices
from pymef.mef_session import MefSession

import children


def tick(start, sample, rate):
    """The time of a sample, to the nearest microsecond."""
    return start + int(np.floor(sample / rate * 1e6 + 0.5))


def passwords(plan):
    return plan["passwords"] or (None, None)


def calls(plan, opening):
    """Channels and their calls of an opening of the session, with the samples."""
    for channel in plan["channels"]:
        kind = "<f8" if plan["input"] == "float" else "<i4"
        data = np.fromfile(channel["data"], kind)
        for call in channel["calls"]:
            if call["opening"] == opening:
                yield channel, call, data[call["first"] : call["first"] + call["samples"]]


def records(plan, opening):
    """The records of an opening, by channel and segment."""
    places = {}
    for record in plan["records"]:
        if record["opening"] == opening:
            place = record["channel"], record["segment"]
            places.setdefault(place, []).append(record)
    return places.items()


class Utf8Text(str):
    """A text whose length is that of its UTF-8 form: pymef takes the number of
    characters for that of bytes, and then writes beyond what it has reserved."""

    def __len__(self):
        return len(self.encode())

    def __add__(self, other):
        return Utf8Text(str.__add__(self, other))


def body(record):
    """A record with the fields of its type; records.rs has the same."""
    kind, time, duration, text = (record[key] for key in ("kind", "time", "duration", "text"))
    later = time + duration
    fields = {
        "Note": {"text": Utf8Text(text)},
        "SyLg": {"text": Utf8Text(text)},
        "EDFA": {"text": Utf8Text(text), "duration": duration},
        "LNTP": {"template": np.arange(-8, 9, dtype=np.int64) * 1000},
        "CSti": {
            "task_type": "n-back",
            "stimulus_duration": duration,
            "stimulus_type": text,
            "patient_response": "yes",
        },
        "ESti": {
            "amplitude": 1.5,
            "frequency": 50.25,
            "pulse_width": 200,
            "ampunit_code": 1,
            "mode_code": 2,
            "waveform": text,
            "anode": "A1",
            "catode": "A2",
        },
        "Seiz": {
            "earliest_onset": time,
            "latest_offset": later,
            "duration": duration,
            "number_of_channels": 2,
            "onset_code": 2,
            "marker_name_1": "m1",
            "marker_name_2": "m2",
            "annotation": text,
            "channels": [
                {"name": "r1", "onset": time, "offset": later},
                {"name": "r2", "onset": time + 1, "offset": later},
            ],
        },
        "Curs": {
            "id_number": 3,
            "trace_timestamp": time,
            "latency": -12,
            "value": 0.5,
            "name": text,
        },
        "Epoc": {
            "id_number": 4,
            "timestamp": time,
            "end_timestamp": later,
            "duration": duration,
            "epoch_type": "stage",
            "text": text,
        },
    }
    return {"type": kind, "time": time} | fields[kind]


def write_mef3io(plan, opening):
    level_1, level_2 = passwords(plan)
    metadata = None
    subject = plan["subject"]
    if subject and opening == 0:
        metadata = mef3io.Metadata(
            subject=mef3io.Subject(
                name_1=subject["name_1"],
                name_2=subject["name_2"],
                id=subject["id"],
                recording_location=subject["location"],
                gmt_offset=subject["gmt_offset"],
            )
        )
    with mef3io.Writer(
        plan["path"],
        password1=level_1 or "",
        password2=level_2 or "",
        units=plan["unit"],
        block_length=plan["block_samples"],
        n_threads=1,
        metadata=metadata,
    ) as writer:
        for channel, call, data in calls(plan, opening):
            new_segment = call["begins_segment"] and call["segment"] > 0
            place = call["start"], channel["rate"]
            if plan["input"] == "float":
                precision = -1 if channel["precision"] is None else channel["precision"]
                writer.write(channel["name"], data, *place, precision, new_segment)
                continue
            valid = np.zeros(len(data), bool)
            for first, samples in call["runs"]:
                valid[first : first + samples] = True
            writer.write_int32(
                channel["name"], data, channel["factor"], *place, valid, new_segment=new_segment
            )
        for (channel, _), some in records(plan, opening):
            writer.write_annotations(
                [
                    {"type": r["kind"], "time": r["time"], "text": r["text"]}
                    | ({"duration": r["duration"]} if r["kind"] == "EDFA" else {})
                    for r in some
                ],
                channel=channel,
            )


def section_3(plan):
    subject = plan["subject"] or {}

    def text(field):
        return subject.get(field, "").encode()

    return {
        "recording_time_offset": plan["offset"],
        "DST_start_time": 0,
        "DST_end_time": 0,
        "GMT_offset": subject.get("gmt_offset", 0),
        "subject_name_1": text("name_1"),
        "subject_name_2": text("name_2"),
        "subject_ID": text("id"),
        "recording_location": text("location"),
    }


def write_pymef(plan, opening):
    keys = passwords(plan)
    session = MefSession(plan["path"], keys[1], False, opening == 0)
    for channel, call, data in calls(plan, opening):
        name, rate = channel["name"], channel["rate"]
        block = plan["block_samples"] or (int(rate) if rate >= 5000 else max(1, int(10 * rate)))
        for number, (first, samples) in enumerate(call["runs"]):
            part = np.ascontiguousarray(data[first : first + samples])
            start = tick(call["start"], first, rate)
            end = tick(start, samples, rate)
            if number or not call["begins_segment"]:
                session.append_mef_ts_segment_data(
                    name, call["segment"], *keys, start, end, block, part, number > 0
                )
                continue
            before = sum(
                samples
                for earlier in channel["calls"]
                if earlier["segment"] < call["segment"]
                for _, samples in earlier["runs"]
            )
            section_2 = {
                "recording_duration": 0,
                "sampling_frequency": rate,
                "units_conversion_factor": channel["factor"],
                "units_description": plan["unit"].encode(),
                "start_sample": before,
                "channel_description": b"",
                "session_description": b"",
            }
            segment = name, call["segment"], *keys
            session.write_mef_ts_segment_metadata(*segment, start, end, section_2, section_3(plan))
            if plan["lossy"]:
                stem = f"{name}-{call['segment']:06}"
                folder = f"{plan['path']}/{name}.timd/{stem}.segd/"
                write_mef_ts_data_and_indices(folder, *keys, block, part, 1)
            else:
                session.write_mef_ts_segment_data(*segment, block, part)
    for (channel, segment), some in records(plan, opening):
        bodies = [body(record) for record in some]
        times = [record["time"] for record in some]
        session.write_mef_records(
            *keys,
            min(times),
            max(times),
            plan["offset"],
            bodies,
            channel=channel,
            segment_n=segment,
        )
    session.close()


def write_mef_tools(plan, opening):
    level_1, level_2 = passwords(plan)
    writer = MefWriter(plan["path"], password1=level_1, password2=level_2)
    writer.data_units = plan["unit"]
    writer.record_offset = plan["offset"]
    writer.section3_dict = section_3(plan)
    writer.mef_block_len = plan["block_samples"]
    if not plan["zeros"]:
        writer.max_nans_written = 0
    for channel, call, data in calls(plan, opening):
        new_segment = call["begins_segment"] and call["segment"] > 0
        written = writer.write_data(
            data,
            channel["name"],
            call["start"],
            channel["rate"],
            precision=channel["precision"],
            new_segment=new_segment,
        )
        assert written, f"{channel['name']}: mef_tools refuses {call}"
    for (channel, _), some in records(plan, opening):
        rows = [
            {"type": r["kind"], "time": r["time"], "text": r["text"], "duration": r["duration"]}
            for r in some
        ]
        writer.write_annotations(pd.DataFrame(rows), channel=channel)
    writer.session.close()


def write(plan):
    for opening, writer in enumerate([plan["writer"], plan["second"]]):
        if writer == "Mef3io":
            write_mef3io(plan, opening)
        elif writer == "Pymef" and plan["input"] == "float":
            write_mef_tools(plan, opening)
        elif writer == "Pymef":
            write_pymef(plan, opening)


def main(plans):
    sessions = children.load(plans)
    logs = [f"{plans}.{plan['number']}.log" for plan in sessions]
    works = [partial(write, plan) for plan in sessions]
    failed = {}
    for plan, log, status in zip(sessions, logs, children.run(zip(works, logs))):
        if status:
            said = Path(log).read_text(encoding="utf-8")
            failed[plan["number"]] = f"status {status}: {said[-2000:]}"
    json.dump(failed, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
