"""Training that is stopped by a user, killed, or runs out of disk: what is left is whole, and the resumed run ends with the same bits.

FOVEA_FULL=1: 20 random moments instead of 3.
"""
import os
import pathlib
import pty
import random
import shlex
import shutil
import signal
import subprocess
import tempfile
import time

import pytest
from phantom import write_dataset
from program import TINY, arguments, digest, files_in, fovea, refused, same_result, start, wait_for_steps

MOMENTS = 20 if os.environ.get("FOVEA_FULL") == "1" else 3
WORDS = [*TINY, "--set", "train.checkpoint_every=2", "--set", "train.average_decay=0.9", "--fold", 0, "--steps", 8]


@pytest.fixture(scope="module")
def data(workshop):
    return write_dataset(workshop / "Dataset004_Interrupted", cases=2, tests=0)


def train(data, run, *more):
    return ["train", "-d", data, *WORDS, "--threads", 1, "-o", run, *more]


@pytest.fixture(scope="module")
def undisturbed(workshop, data):
    """The run that nobody disturbs, and how long its steps took from start to end."""
    run = workshop / "undisturbed"
    begin = time.monotonic()
    fovea(*train(data, run))
    return run, time.monotonic() - begin


@pytest.mark.parametrize("more", [[], ["--set", "train.accumulate=2"]], ids=["plain", "accumulated"])
def test_threads_of_kernels_and_loader_change_no_bit_of_the_weights(data, tmp_path, more):
    digests = set()
    for threads in (1, 2, 3):
        run = tmp_path / str(threads)
        fovea("train", "-d", data, *WORDS, *more, "--set", f"loader.threads={min(threads, 2)}", "--threads", threads, "-o", run)
        digests.add(digest(run / "model/weights.safetensors"))
    assert len(digests) == 1


@pytest.mark.parametrize("moment", range(MOMENTS))
def test_a_killed_run_goes_on_to_the_same_bits(undisturbed, data, tmp_path, moment):
    """SIGKILL after a random time, several in a row if it comes to that, then --resume."""
    whole, seconds = undisturbed
    chance = random.Random(1000 + moment)
    run = tmp_path / "run"
    wait = chance.uniform(0.02, 0.98) * seconds
    print(f"killed after {wait:.2f} s of {seconds:.2f} s")
    process = start(train(data, run))
    try:
        process.wait(wait)
    except subprocess.TimeoutExpired:
        process.kill()
    process.communicate()
    fovea(*train(data, run, *(["--resume"] if (run / "config.json").exists() else [])))
    same_result(run, whole)


def test_a_run_killed_twice_goes_on_to_the_same_bits(undisturbed, data, tmp_path):
    run = tmp_path / "run"
    for steps, more in ((3, []), (5, ["--resume"])):
        process = start(train(data, run, *more))
        wait_for_steps(process, run, steps)
        process.kill()
        process.communicate()
    fovea(*train(data, run, "--resume"))
    same_result(run, undisturbed[0])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_stopped_run_says_how_to_go_on_and_does(undisturbed, data, tmp_path, number):
    run = tmp_path / "a run"  # the blank must survive in the command that it prints
    process = start(train(data, run))
    wait_for_steps(process, run, 3)
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 3, err
    assert out == "", "no result yet"
    (line,) = err.splitlines()
    assert line.startswith("stopped at step ") and "everything is saved" in line, line
    assert not (run / "model").exists()
    command = shlex.split(line[line.index("fovea train"):])
    assert command == ["fovea", *map(str, train(data, run, "--resume"))]
    fovea(*command[1:])
    same_result(run, undisturbed[0])


def test_two_trainings_do_not_share_a_folder(data, tmp_path):
    run = tmp_path / "run"
    process = start(train(data, run))
    wait_for_steps(process, run, 1)
    refused(*train(data, run, "--resume"), says=[run])
    process.kill()
    process.communicate()


def test_a_damaged_checkpoint_is_passed_over(undisturbed, data, tmp_path):
    run = tmp_path / "run"
    process = start(train(data, run))
    wait_for_steps(process, run, 6)
    process.kill()
    process.communicate()
    newest = max((run / "checkpoints").glob("step-*"), key=lambda p: int(p.name.split("-")[1]))
    weights = bytearray((newest / "weights.safetensors").read_bytes())
    weights[len(weights) // 3] ^= 8
    (newest / "weights.safetensors").write_bytes(weights)
    done = fovea(*train(data, run, "--resume"))
    assert str(newest) in done.stderr or newest.name in done.stderr, f"the damage is told: {done.stderr}"
    same_result(run, undisturbed[0])


# no space left

@pytest.fixture
def full_disk():
    """Mounts a small file system and gives a function that leaves it with so many free KiB."""
    folder = pathlib.Path(tempfile.mkdtemp())
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64M", "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode != 0:
        folder.rmdir()
        pytest.skip(f"cannot mount a small file system: {mounted.stderr.strip()}")

    def leave(free_kib):
        free = shutil.disk_usage(folder).free
        with open(folder / "filler", "wb") as file:
            file.write(b"\0" * (free - free_kib * 1024))
        return folder

    yield leave
    subprocess.run(["umount", folder], check=True)
    folder.rmdir()


def test_prediction_without_space_leaves_nothing(model, dataset, full_disk):
    disk = full_disk(0)
    scan = dataset / "imagesTs/scan5_0000.nii.gz"
    refused("predict", "-m", model, "-i", scan, "-o", disk / "labels.nii.gz", code=3, says=[disk, "No space left on device"], leaves=disk)


def test_other_results_without_space_leave_nothing(model, dataset, full_disk):
    disk = full_disk(0)
    scan = dataset / "imagesTs/scan5_0000.nii.gz"
    refused("plan", "-d", dataset, "-o", disk / "plan.json", code=3, says=[disk, "No space left"], leaves=disk)
    refused("evaluate", "-p", dataset / "labelsTr", "-r", dataset / "labelsTr", "-d", dataset, "-o", disk / "summary.json", code=3,
            says=[disk, "No space left"], leaves=disk)
    refused("import", model / "weights.safetensors", "-o", disk / "model", code=3, says=[disk, "No space left"], leaves=disk)
    refused("explain", "-m", model, "-i", scan, "--voxel", "9,9,9", "-o", disk / "maps", code=3, says=[disk, "No space left"], leaves=disk)


def test_training_without_space_for_a_checkpoint_goes_on_when_there_is_some(undisturbed, data, full_disk):
    disk = full_disk(20 * 1024)  # weights alone take 15 MB, a checkpoint 60
    done = fovea(*train(data, disk / "run"), code=3)
    (line,) = done.stderr.splitlines()
    assert str(disk / "run") in line and "No space left on device" in line and done.stdout == ""
    assert not (disk / "run/model").exists()
    assert not [p for p in files_in(disk / "run/checkpoints") if p.endswith(".safetensors")], "no half checkpoint"
    (disk / "filler").unlink()
    subprocess.run(["mount", "-o", "remount,size=1G", disk], check=True)
    fovea(*train(data, disk / "run", "--resume"))
    same_result(disk / "run", undisturbed[0])


def test_stdout_that_is_closed_or_full_is_no_silent_success(dataset):
    with open("/dev/full", "w") as full:
        done = subprocess.run(arguments(["plan", "-d", dataset, "--json"]), stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 3 and len(done.stderr.splitlines()) == 1, (done.returncode, done.stderr)


def test_progress_is_drawn_on_a_terminal_only(model, dataset, tmp_path):
    words = ["predict", "-m", model, "-i", dataset / "imagesTs/scan5_0000.nii.gz", "-o", tmp_path / "labels.nii.gz", "--json"]
    assert fovea(*words).stderr == ""
    ours, theirs = pty.openpty()
    done = subprocess.Popen(arguments(words), stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    drawn = b""
    try:
        while chunk := os.read(ours, 4096):
            drawn += chunk
    except OSError:  # how a terminal ends
        pass
    done.communicate()
    os.close(ours)
    assert done.returncode == 0 and b"scan5" in drawn and b"\r" in drawn
