"""Damaged files of every format: no signal, nothing left behind, one line. FOVEA_FULL=1: the 500 cuts, 300 flips and 400 fields of a release."""
import os

import pytest

import malformed

FULL = os.environ.get("FOVEA_FULL") == "1"
COUNTS = (500, 300, 400) if FULL else (20, 15, 20)


@pytest.mark.parametrize("kind", list(malformed.GOOD))
def test_no_damaged_file_brings_a_reader_down(kind):
    if not (malformed.BUILD / "fovea_io_probe").exists():
        pytest.skip(f"{malformed.BUILD / 'fovea_io_probe'} is not built")
    cuts, flips, fields = COUNTS
    refused = {}
    for found, damage, tally in malformed.campaign(cuts, flips, fields, seed=1, kinds=[kind]):
        assert not tally["problems"], (found, damage, tally["problems"][:5])
        refused[damage] = tally["refused"]
    assert refused["cuts"] == cuts
    assert kind != "nrrd" or refused["paths"] == 40
    assert refused["flips"] > 0 and refused["fields"] > 0
