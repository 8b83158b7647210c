#!/bin/sh
# Makes the Python environment that the peer tests run in: target/peers.
# PYTHON chooses the interpreter it is made from.
set -eu

tests=$(cd "$(dirname "$0")" && pwd)
peers=$tests/../../target/peers

"${PYTHON:-python3}" -m venv "$peers"
"$peers/bin/python" -m pip install --quiet --requirement "$tests/requirements.txt"
# Only now, and with what it has: an interrupted installation, or one of other packages,
# is made anew.
cp "$tests/requirements.txt" "$peers/complete"
