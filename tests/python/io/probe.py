"""Runs fovea_io_probe, the test program that shows what fovea/io reads and writes."""
import hashlib
import json
import os
import pathlib
import subprocess

import numpy as np
import pytest

PROBE = pathlib.Path(os.environ.get("FOVEA_BUILD", "build/release")) / "fovea_io_probe"


def run(*words, environment=None):
    if not PROBE.exists():
        pytest.skip(f"{PROBE} is not built")
    return subprocess.run([PROBE, *map(str, words)], capture_output=True, text=True, timeout=60, env=dict(os.environ, **(environment or {})))


def ask(*words):
    """Result of a command that must succeed."""
    done = run(*words)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) if done.stdout else None


def refusal(*words):
    """The one line of a command that must be refused with exit code 2."""
    done = run(*words)
    assert done.returncode == 2, (done.returncode, done.stdout[:200], done.stderr)
    assert done.stdout == "" and done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def digest(array):
    """SHA-256 of an array's elements in C order, little-endian."""
    array = np.ascontiguousarray(array)
    return hashlib.sha256(array.astype(array.dtype.newbyteorder("<")).tobytes()).hexdigest()


def shared():
    """Folder of shared example data, or None."""
    if "FOVEA_SHARED" in os.environ:
        return pathlib.Path(os.environ["FOVEA_SHARED"])
    for folder in pathlib.Path(__file__).resolve().parents:
        if (folder.parent / "shared").is_dir():
            return folder.parent / "shared"
    return None
