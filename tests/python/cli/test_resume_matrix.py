"""A training that is stopped in the middle of an epoch, at its end or between the batches of one step, in f32 and bf16, with one or two
threads that load and one, two or four that compute, and is then resumed: weights and logs are those of the undisturbed run, to the bit.

Six cells by default, FOVEA_FULL=1: all 36.
"""
import functools
import itertools
import os
import signal
import time

import pytest
from phantom import write_dataset
from program import TINY, digest, fovea, same_result, start, wait_for_steps

CELLS = list(itertools.product(["f32", "bf16"], ["mid-epoch", "epoch-end", "mid-accumulation"], [1, 2], [1, 2, 4]))
SHORT = [("f32", "mid-epoch", 2, 2), ("f32", "epoch-end", 1, 4), ("f32", "mid-accumulation", 2, 1),
         ("bf16", "mid-epoch", 1, 1), ("bf16", "epoch-end", 2, 2), ("bf16", "mid-accumulation", 1, 2)]


@pytest.fixture(scope="module")
def data(workshop):
    return write_dataset(workshop / "Dataset005_Resumed", cases=2, tests=0)


def words_of(data, run, precision, moment, loader, compute):
    """Checkpoints every second of four steps an epoch, or at its end alone, or steps of three batches."""
    more = {"mid-epoch": ["train.checkpoint_every=2"], "epoch-end": ["train.checkpoint_every=0"], "mid-accumulation": ["train.accumulate=3", "train.checkpoint_every=2"]}
    words = ["train", "-d", data, *TINY, "--fold", 0, "--steps", 8, "--threads", compute, "-o", run]
    for assignment in [*more[moment], f"train.precision={precision}", f"loader.threads={loader}", "train.average_decay=0.9"]:
        words += ["--set", assignment]
    return words


@pytest.fixture(scope="module")
def undisturbed(workshop, data):
    """The run of a cell that nobody disturbs, and its seconds a step."""
    @functools.cache
    def run(*cell):
        folder = workshop / "-".join(map(str, cell))
        begin = time.monotonic()
        fovea(*words_of(data, folder, *cell))
        return folder, (time.monotonic() - begin) / 8
    return run


@pytest.mark.parametrize("cell", CELLS if os.environ.get("FOVEA_FULL") == "1" else SHORT, ids=lambda cell: "-".join(map(str, cell)))
def test_a_resumed_run_ends_with_the_bits_of_the_undisturbed_one(undisturbed, data, tmp_path, cell):
    whole, step_s = undisturbed(*cell)
    run = tmp_path / "run"
    process = start(words_of(data, run, *cell))
    wait_for_steps(process, run, 3 if cell[1] == "mid-accumulation" else 5)
    if cell[1] == "mid-accumulation":
        time.sleep(0.5 * step_s)  # between the batches of the next step
        process.send_signal(signal.SIGINT)
    else:
        process.kill()
    process.communicate(timeout=120)
    assert not (run / "model").exists(), "it was not at its end yet"
    fovea(*words_of(data, run, *cell), "--resume")
    same_result(run, whole)


def test_in_f32_neither_threads_nor_where_checkpoints_lie_change_a_bit(undisturbed):
    """What is stopped where and with how many threads is not in the weights: one digest for one, two and four threads."""
    cells = [("f32", "mid-epoch", 2, 2), ("f32", "epoch-end", 1, 4), ("f32", "epoch-end", 1, 1)]
    assert len({digest(undisturbed(*cell)[0] / "model/weights.safetensors") for cell in cells}) == 1
