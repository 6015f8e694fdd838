"""Training and prediction with less and less address space: they end well, or with exit code 3 and one line, never by a signal.

FOVEA_FULL=1: 20 levels of each instead of 4.
"""
import os
import resource
import subprocess

import pytest
from phantom import write_dataset
from program import TINY, arguments, files_in, fovea, peak_of

LEVELS = 20 if os.environ.get("FOVEA_FULL") == "1" else 4
endings = []


def limited(words, limit):
    return subprocess.run(arguments(words), capture_output=True, text=True, timeout=600,
                          preexec_fn=lambda: (resource.setrlimit(resource.RLIMIT_AS, (limit, limit)), resource.setrlimit(resource.RLIMIT_CORE, (0, 0))))


def levels(least, most):
    """From what the program needs before it begins to what the run takes."""
    return [least + (most - least) * i // LEVELS for i in range(LEVELS)]


def check(done, limit):
    lines = [line for line in done.stderr.splitlines() if not line.startswith(("warning: ", "note: "))]
    where = f"limit {limit >> 20} MiB: exit {done.returncode}\n{done.stderr[-2000:]}"
    assert done.returncode in (0, 3), where
    assert done.returncode == 0 or (len(lines) == 1 and done.stdout == ""), where
    endings.append(done.returncode)


@pytest.fixture(scope="module")
def smallest():
    return peak_of(["--version"], "VmPeak")


def test_prediction_ends_well_or_with_exit_code_3(model, dataset, tmp_path, smallest):
    scan = dataset / "imagesTs/scan5_0000.nii.gz"
    words = ["predict", "-m", model, "-i", scan, "--threads", 1, "-o"]
    most = peak_of([*words, tmp_path / "whole.nii.gz"], "VmPeak")
    for i, limit in enumerate(levels(smallest, most)):
        folder = tmp_path / str(i)
        folder.mkdir()
        done = limited([*words, folder / "labels.nii.gz"], limit)
        check(done, limit)
        assert done.returncode == 0 or not files_in(folder), f"limit {limit}: left {list(files_in(folder))}"
        assert done.returncode != 0 or (folder / "labels.nii.gz").exists()


def test_training_ends_well_or_with_exit_code_3_and_goes_on_when_there_is_memory(workshop, tmp_path, smallest):
    data = write_dataset(workshop / "Dataset008_Limited", cases=2, tests=0)
    words = ["train", "-d", data, *TINY, "--fold", 0, "--steps", 2, "--threads", 1, "-o"]
    most = peak_of([*words, tmp_path / "whole"], "VmPeak")
    furthest = None
    for i, limit in enumerate(levels(smallest, most)):
        run = tmp_path / str(i)
        done = limited([*words, run], limit)
        check(done, limit)
        assert done.returncode != 0 or (run / "model").exists()
        if done.returncode == 3 and (run / "config.json").exists():
            furthest = run
    assert furthest, "no run came to its first step"
    fovea(*words, furthest, "--resume")
    assert (furthest / "model").exists()
    print(f"\n{len(endings)} of {2 * LEVELS} runs under an address limit ended well ({endings.count(0)}) or with exit code 3 and one line ({endings.count(3)})")
