"""Runs the fovea program as a user does, and what a refusal must look like."""
import hashlib
import os
import pathlib
import subprocess
import time

PROGRAM = str(pathlib.Path(os.environ.get("FOVEA_BUILD", "build/release")).resolve() / "fovea")

# A network, patch and length that train in seconds. One thread: tests may run beside other work.
TINY = """--set plan.patch_size=[32,64,32] --set plan.spacing_mm=[1,1,1] --set plan.batch_size=1 --set plan.network=swin_unetr_12
 --set plan.network_config={"depths":[2,1,1,1],"window_size":[4,4,4]} --set train.steps_per_epoch=4 --seed 3""".split()


def arguments(words):
    return [PROGRAM, *map(str, words)]


def fovea(*words, code=0, **options):
    """Runs the program; fails the test with its output when the exit code is another one."""
    done = subprocess.run(arguments(words), capture_output=True, text=True, timeout=900, **options)
    assert done.returncode == code, f"fovea {' '.join(map(str, words))}\nexit {done.returncode}, expected {code}\n{done.stdout}\n{done.stderr}"
    return done


def files_in(folder):
    """Every file below a folder with its content: a refused command must leave it as it was."""
    folder = pathlib.Path(folder)
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


def refused(*words, code=2, says=(), leaves=None, **options):
    """The command ends with `code` and one line on stderr that holds every text of `says`, prints no result, and leaves
    the folder `leaves` as it was. Returns the line."""
    before = files_in(leaves) if leaves else None
    done = fovea(*words, code=code, **options)
    lines = done.stderr.splitlines()
    assert len(lines) == 1, f"expected one line:\n{done.stderr}"
    assert lines[0].startswith("fovea: ")
    for text in says if isinstance(says, (list, tuple)) else [says]:
        assert str(text) in lines[0], f"expected '{text}' in: {lines[0]}"
    assert done.stdout == ""
    if leaves:
        after = files_in(leaves)
        assert after == before, f"left behind: {sorted(set(after) ^ set(before)) or 'changed content'}"
    return lines[0]


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def start(words):
    return subprocess.Popen(arguments(words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def peak_of(words, field):
    """The largest `field` of /proc/PID/status (VmHWM: resident, VmPeak: address space) while the program runs, in bytes."""
    process = subprocess.Popen(arguments(words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        try:
            with open(f"/proc/{process.pid}/status") as status:
                peak = max([peak, *(int(line.split()[1]) * 1024 for line in status if line.startswith(field))])
        except ProcessLookupError:
            break
        time.sleep(0.001)  # a program that ends at once is seen, too
    assert process.wait() == 0, f"fovea {' '.join(map(str, words))}: exit {process.returncode}"
    return peak


def steps_in(log):
    return max(0, len(log.read_text().splitlines()) - 1) if log.exists() else 0


def wait_for_steps(process, run, steps):
    while steps_in(run / "log.csv") < steps:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def same_result(run, undisturbed):
    assert digest(run / "model/weights.safetensors") == digest(undisturbed / "model/weights.safetensors")
    for name in ("log.csv", "validation.csv"):
        assert (run / name).read_text() == (undisturbed / name).read_text(), name
