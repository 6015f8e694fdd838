"""Dice + cross-entropy against MONAI and torch; TensorBoard's own reader on our event files."""
import json
import os
import pathlib
import subprocess

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

PROBE = pathlib.Path(os.environ["FOVEA_BUILD"]) / "fovea_train_probe"


def probe(*arguments):
    subprocess.run([PROBE, *map(str, arguments)], check=True, capture_output=True, text=True)


def ours(folder, logits, labels, **config):
    save_file({"logits": logits.detach().contiguous(), "labels": labels.contiguous()}, folder / "in.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    probe("loss", folder / "in.safetensors", folder / "out.safetensors", folder / "config.json")
    out = load_file(folder / "out.safetensors")
    return out["loss"].item(), out["gradient"]


@pytest.mark.parametrize("include_background", [False, True])
@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("classes", [2, 14])
def test_value_and_gradient_equal_monai_dice_ce_loss(tmp_path, include_background, batch_dice, classes):
    losses = pytest.importorskip("monai.losses", reason="MONAI is not installed")
    torch.manual_seed(classes)
    logits = (3 * torch.randn(2, classes, 9, 17, 12, dtype=torch.float64)).requires_grad_()
    labels = torch.randint(0, classes, (2, 1, 9, 17, 12))
    theirs = losses.DiceCELoss(include_background=include_background, to_onehot_y=True, softmax=True, smooth_nr=1e-5, smooth_dr=1e-5,
                               batch=batch_dice)(logits, labels)
    theirs.backward()
    value, gradient = ours(tmp_path, logits, labels.to(torch.uint8), include_background=include_background, batch_dice=batch_dice)
    assert value == pytest.approx(theirs.item(), abs=1e-12)
    assert torch.allclose(gradient, logits.grad, rtol=1e-9, atol=1e-15)


def test_cross_entropy_with_weights_and_ignored_voxels_equals_torch(tmp_path):
    torch.manual_seed(1)
    logits = torch.randn(3, 4, 8, 8, 5, dtype=torch.float64).requires_grad_()
    labels = torch.randint(0, 4, (3, 8, 8, 5))
    labels[torch.rand(labels.shape) < 0.3] = 255
    weights = [0.1, 1.0, 2.0, 5.0]
    theirs = torch.nn.functional.cross_entropy(logits, labels, weight=torch.tensor(weights, dtype=torch.float64), ignore_index=255)
    theirs.backward()
    value, gradient = ours(tmp_path, logits, labels.to(torch.int16), dice_weight=0, class_weights=weights, ignore_label=255)
    assert value == pytest.approx(theirs.item(), abs=1e-12)
    assert torch.allclose(gradient, logits.grad, rtol=1e-9, atol=1e-15)


def scalars(folder, tag):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed")
    events = accumulator.EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return [(e.step, e.value) for e in events.Scalars(tag)]


def test_tensorboard_reads_the_events_of_a_resumed_run(tmp_path):
    probe("events", tmp_path)
    assert len(list(tmp_path.glob("events.out.tfevents.*"))) == 2
    loss = scalars(tmp_path, "train/loss")
    # Steps 6 to 10 of the first file were taken back by the resumed run, which wrote 6 to 8 anew.
    assert loss == [(step, pytest.approx(1 / step)) for step in range(1, 6)] + [(6, 106), (7, 107), (8, 108)]


def test_tensorboard_reads_images(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed")
    probe("events", tmp_path)
    first = sorted(tmp_path.glob("events.out.tfevents.*"))[0]
    events = accumulator.EventAccumulator(str(first), size_guidance={"images": 0})
    events.Reload()
    (image,) = events.Images("slices")
    assert (image.step, image.height, image.width) == (10, 1, 1)
    assert image.encoded_image_string.startswith(b"\x89PNG")


def test_tensorboard_reads_the_events_of_a_training(tmp_path):
    probe("train", tmp_path / "run", "--set", "steps=10")
    log = np.genfromtxt(tmp_path / "run/log.csv", delimiter=",", names=True)
    for tag, column in [("train/loss", "loss"), ("train/learning_rate", "learning_rate"), ("train/gradient_norm", "gradient_norm")]:
        assert scalars(tmp_path / "run", tag) == [(step, pytest.approx(value, rel=1e-6)) for step, value in zip(range(1, 11), log[column], strict=True)]
    assert [step for step, _ in scalars(tmp_path / "run", "validation/accuracy")] == [10]
