"""Makes sessions with a video channel, and says what pymef reads in them.

usage: make_videos.py FOLDER CORPUS_SESSION

Prints JSON: for each session the folder of the video's segment, its passwords,
and the metadata and clips that pymef finds with the second password.
"""

import contextlib
import io
import json
import os
import sys

import numpy as np
from pymef.mef_file.pymef3_file import create_vi_dtype
from pymef.mef_session import MefSession

START = 1591000000000000
OFFSET = 1590969600000000
CLIPS = [
    (START, START + 6_000_000, 0, 149, 0, 50_000),
    (START + 6_000_000, START + 10_000_000, 150, 249, 50_000, 40_000),
    (START + 12_000_000, START + 15_000_000, 250, 0xFFFFFFFE, 90_000, 1 << 40),
]
# The reference library fills what is not given with "no entry".
FIELDS = {
    "recording_duration": 15_000_000,
    "horizontal_resolution": 1920,
    "vertical_resolution": 1080,
    "frame_rate": 29.97,
    "number_of_clips": 3,
    "maximum_clip_bytes": 1 << 40,
    "video_format": b"H.264",
    "video_file_CRC": 0xFEDCBA98,
    "channel_description": "Caméra".encode(),
    "session_description": b"a night",
}


def write(path, passwords, offset, fields):
    first, second = passwords
    session = MefSession(path, second, False, True)
    subject = {
        "recording_time_offset": offset, "DST_start_time": 0, "DST_end_time": 0,
        "GMT_offset": 7200, "subject_name_1": b"Given", "subject_name_2": b"Family",
        "subject_ID": b"id", "recording_location": b"here",
    }
    end = CLIPS[-1][1]
    # pymef does not open a session without a time series.
    session.write_mef_ts_segment_metadata("eeg", 0, first, second, START, end, {
        "recording_duration": 0, "sampling_frequency": 100.0, "units_conversion_factor": 1.0,
        "units_description": b"uV", "start_sample": 0, "channel_description": b"",
        "session_description": b"",
    }, subject)
    samples = np.arange(1500, dtype=np.int32)
    session.write_mef_ts_segment_data("eeg", 0, first, second, 500, samples)
    session.write_mef_v_segment_metadata("cam", 0, first, second, START, end, fields, subject)
    clips = np.zeros(len(CLIPS), create_vi_dtype())
    for row, clip in enumerate(CLIPS):
        for field, value in zip(clips.dtype.names, clip):
            clips[field][row] = value
    session.write_mef_v_segment_indices("cam", 0, first, second, START, end, clips)
    session.close()


def number(value):
    return value.item() if hasattr(value, "item") else value


def read(path, passwords, stem="cam-000000"):
    session = MefSession(path, passwords[1])
    segment = session.session_md["video_channels"]["cam"]["segments"][stem]
    technical, subject = segment["section_2"][0], segment["section_3"][0]
    header = segment["universal_headers"]["metadata"][0]
    text = lambda value: bytes(value).split(b"\0")[0].decode()
    plain = [name for name in technical.dtype.names if not name.endswith("region")]
    return {
        "folder": os.path.join(path, "cam.vidd", f"{stem}.segd"),
        "passwords": passwords,
        "section_2": {name: text(technical[name]) if technical.dtype[name].kind == "S"
                      else number(technical[name]) for name in plain},
        "recording_time_offset": number(subject["recording_time_offset"]),
        "start": number(header["start_time"]), "end": number(header["end_time"]),
        "clips": [[number(value) for value in list(clip)[:6]] for clip in segment["indices"]],
    }


def main():
    folder, corpus = sys.argv[1:]
    sessions = [(corpus, (None, None))]
    with contextlib.redirect_stdout(io.StringIO()):
        for name, passwords, offset, fields in [
            ("plain", (None, None), 0, FIELDS),
            ("sparse", (None, None), 0, {}),
            ("offset", (None, None), OFFSET, FIELDS),
            ("encrypted", ("first", "second"), 0, FIELDS),
            ("encrypted offset", ("first", "second"), OFFSET, FIELDS),
        ]:
            path = os.path.join(folder, f"{name}.mefd")
            write(path, passwords, offset, fields)
            sessions.append((path, passwords))
        found = [read(*session) for session in sessions]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
