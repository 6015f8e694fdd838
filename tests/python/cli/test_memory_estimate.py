"""The memory that a plan expects of its training is what the training takes, within a tenth.

FOVEA_FULL=1: 20 networks, patches and sets of scans instead of 3.
"""
import json
import os

import nibabel as nib
import numpy as np
import pytest
from program import peak_of

SMALL, LARGE, MANY = ((100, 100, 100), 1, 2), ((256, 256, 200), 1, 2), ((200, 200, 160), 2, 12)
SHORT = [("swin_unetr_12", [96, 96, 96], 1, SMALL, []), ("swin_unetr_24", [64, 96, 96], 1, SMALL, ["train.average_decay=0.9"]), ("unetr", [64, 64, 64], 1, SMALL, [])]
FULL = SHORT + [
    ("swin_unetr_12", [64, 64, 64], 2, SMALL, []), ("swin_unetr_12", [96, 96, 96], 2, SMALL, []), ("swin_unetr_12", [128, 128, 128], 1, SMALL, []),
    ("swin_unetr_12", [96, 96, 96], 2, SMALL, ['train.precision="bf16"']), ("swin_unetr_12", [96, 96, 96], 2, LARGE, []), ("swin_unetr_12", [128, 96, 96], 1, MANY, []),
    ("swin_unetr_12", [96, 96, 96], 1, ((100, 100, 100), 1, 60), []), ("swin_unetr_24", [96, 96, 96], 1, SMALL, []), ("swin_unetr_24", [128, 128, 96], 1, SMALL, []),
    ("swin_unetr_24", [96, 96, 96], 1, SMALL, ['train.precision="bf16"']), ("swin_unetr_24", [96, 96, 96], 1, MANY, []), ("swin_unetr_48", [64, 64, 64], 1, SMALL, []),
    ("swin_unetr_48", [96, 96, 96], 1, SMALL, []), ("swin_unetr_v2_48", [96, 96, 96], 1, SMALL, []), ("unetr", [96, 96, 96], 1, SMALL, []),
    ("unetr", [96, 96, 96], 2, SMALL, []), ("unetr", [96, 96, 96], 2, MANY, [])]


def write_scans(folder, shape, channels, classes):
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    chance = np.random.default_rng(0)
    for i in range(2):
        for c in range(channels):
            nib.save(nib.Nifti1Image(chance.normal(100, 10, shape).astype(np.int16), np.eye(4)), folder / f"imagesTr/scan{i}_{c:04}.nii.gz")
        label = np.zeros(shape, np.uint8)
        for k in range(1, classes):
            label[k:k + 30, k:k + 30, k:k + 30] = k
        nib.save(nib.Nifti1Image(label, np.eye(4)), folder / f"labelsTr/scan{i}.nii.gz")
    (folder / "dataset.json").write_text(json.dumps({"channel_names": {str(c): f"MR{c}" for c in range(channels)}, "numTraining": 2, "file_ending": ".nii.gz",
                                                     "labels": {"background": 0} | {f"part{k}": k for k in range(1, classes)}}))


@pytest.mark.parametrize("network, patch, batch, scans, more", FULL if os.environ.get("FOVEA_FULL") == "1" else SHORT, ids=str)
def test_the_plan_expects_the_memory_that_training_takes(workshop, tmp_path, network, patch, batch, scans, more):
    shape, channels, classes = scans
    data = workshop / ("Dataset012_" + "x".join(map(str, (*shape, channels, classes))))
    if not data.exists():
        write_scans(data, shape, channels, classes)
    words = ["train", "-d", data, "--steps", 2, "--max-ram", "20G", "-o", tmp_path / "run"]
    for assignment in [f"plan.network={network}", f"plan.patch_size={patch}", f"plan.batch_size={batch}", "plan.spacing_mm=[1,1,1]", *more]:
        words += ["--set", assignment]
    peak = peak_of(words, "VmHWM")
    expected = json.loads((tmp_path / "run/config.json").read_text())["plan"]["estimated_bytes"]
    print(f"{network} {patch} batch {batch}, scans {shape} of {channels} channels and {classes} classes {more}: expected {expected >> 20} MiB, took {peak >> 20} MiB: {expected / peak:.2f}")
    assert 0.9 <= expected / peak <= 1.1
