"""Lists the records of a session as mef3io reads them: type, time, channel, text.

Usage: read_records.py SESSION
"""

import json
import sys

import mef3io


def main(session):
    reader = mef3io.Reader(session)
    found = [
        [record["type"], record["time"], record["channel"], record["text"]]
        for record in map(plain, reader.records(level="all"))
    ]
    print(json.dumps(found))


def plain(record):
    """A record as a dictionary, whatever mef3io makes of it."""
    return record if isinstance(record, dict) else vars(record)


if __name__ == "__main__":
    main(*sys.argv[1:])
