import pathlib
import tempfile

import pytest


@pytest.fixture
def tmp_path():
    """In memory where there is such a place: everything written here is flushed to the disk."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if pathlib.Path("/dev/shm").is_dir() else None) as folder:
        yield pathlib.Path(folder)
