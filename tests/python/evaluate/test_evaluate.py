"""evaluate_folders against nnU-Net's summary.json, written here from its published definition, and its refusals."""
import json
import os
import pathlib
import subprocess

import numpy as np
import pytest

nib = pytest.importorskip("nibabel")
PROBE = pathlib.Path(os.environ["FOVEA_BUILD"]) / "fovea_evaluate_probe"
AFFINE = np.diag([1.5, 1.0, 2.0, 1.0])


def save(folder, name, labels, affine=AFFINE):
    folder.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(labels, affine), folder / name)


def evaluate(tmp_path, *labels, kind="plain", ignore=-1):
    command = [PROBE, tmp_path / "pred", tmp_path / "ref", tmp_path / "summary.json", kind, ignore, *labels]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True)


@pytest.fixture
def folders(tmp_path):
    rng = np.random.default_rng(2)
    for i in range(4):
        ref = rng.integers(0, 4, (6, 7, 8)).astype(np.uint8)
        pred = np.where(rng.random(ref.shape) < 0.7, ref, rng.integers(0, 4, ref.shape)).astype(np.uint8)
        if i == 1:
            ref[ref == 2], pred[pred == 2] = 0, 0  # in neither
        if i == 2:
            pred[pred == 1] = 0  # missed
        save(tmp_path / "ref", f"case_{i}.nii.gz", ref), save(tmp_path / "pred", f"case_{i}.nii.gz", pred)
    return tmp_path


def nnunet_summary(folder, labels, ignore=None):
    def mask(volume, label):
        return np.isin(volume, label if isinstance(label, tuple) else [label])

    cases = []
    for file in sorted((folder / "pred").iterdir()):
        ref, pred = (np.asarray(nib.load(f).dataobj) for f in (folder / "ref" / file.name, file))
        use = np.ones(ref.shape, bool) if ignore is None else ref != ignore
        metrics = {}
        for label in labels:
            r, p = mask(ref, label), mask(pred, label)
            tp, fp = int((r & p & use).sum()), int((~r & p & use).sum())
            fn, tn = int((r & ~p & use).sum()), int((~r & ~p & use).sum())
            dice = 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else float("nan")
            iou = tp / (tp + fp + fn) if tp + fp + fn else float("nan")
            metrics[str(label)] = dict(Dice=dice, IoU=iou, FP=fp, TP=tp, FN=fn, TN=tn, n_pred=fp + tp, n_ref=fn + tp)
        cases.append({"reference_file": str(folder / "ref" / file.name), "prediction_file": str(file), "metrics": metrics})
    names = list(cases[0]["metrics"]["1"])
    mean = {str(k): {m: float(np.nanmean([c["metrics"][str(k)][m] for c in cases])) for m in names} for k in labels}
    foreground = {m: float(np.mean([mean[str(k)][m] for k in labels if k != 0])) for m in names}
    return {"metric_per_case": cases, "mean": mean, "foreground_mean": foreground}


def close(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(close(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(close, a, b))
    if isinstance(a, float):
        return type(b) is float and (a == pytest.approx(b, rel=1e-14) or (a != a and b != b))
    return type(a) is type(b) and a == b


@pytest.mark.parametrize("labels,ignore", [((1, 2, 3), None), ((0, 1, (2, 3)), None), ((1, 2), 3)])
def test_summary_is_nnunets(folders, labels, ignore):
    if ignore is not None:
        for file in (folders / "pred").iterdir():  # the ignored label is never predicted
            pred = np.asarray(nib.load(file).dataobj).copy()
            pred[pred == ignore] = 0
            save(folders / "pred", file.name, pred)
    words = ["+".join(map(str, k)) if isinstance(k, tuple) else str(k) for k in labels]
    assert evaluate(folders, *words, ignore=-1 if ignore is None else ignore).returncode == 0
    text = (folders / "summary.json").read_text()
    expected = nnunet_summary(folders, labels, ignore)
    assert close(json.loads(text), expected)
    assert text == json.dumps(json.loads(text), indent=4, sort_keys=True)  # the layout of nnU-Net's writer


def test_our_own_metrics_come_under_one_key_of_their_own(folders):
    assert evaluate(folders, "1", "2", "3", kind="fovea").returncode == 0
    summary = json.loads((folders / "summary.json").read_text())
    ours = summary.pop("fovea")
    assert close(summary, nnunet_summary(folders, (1, 2, 3)))
    assert ours["surface_convention"] == "surface-distance" and ours["empty_policy"] == "nan-excluded"
    assert ours["labels"]["2"]["cases"] == {"in_both": 3, "only_in_reference": 0, "only_in_prediction": 0, "in_neither": 1}
    assert ours["labels"]["1"]["cases"]["only_in_reference"] == 1
    hd95 = ours["labels"]["1"]["mean"]["HD95_mm"]
    assert (hd95["nan-excluded"]["used"], hd95["nan-excluded"]["excluded"]) == (3, 1)
    assert (hd95["penalised"]["used"], hd95["penalised"]["excluded"]) == (4, 0)
    assert hd95["penalised"]["mean"] > hd95["nan-excluded"]["mean"]
    diagonal = np.linalg.norm(np.array([6, 7, 8]) * [1.5, 1.0, 2.0])
    assert ours["per_case"][0]["diagonal_mm"] == pytest.approx(diagonal, rel=1e-12)
    assert set(ours["per_case"][0]["metrics"]["1"]) >= {"HD_mm", "HD95_mm", "ASSD_mm", "NSD_1mm", "NSD_2mm", "volume_ref_ml"}


def test_table_prints_the_counts_of_missing_structures(folders):
    table = evaluate(folders, "1", "2", "3").stdout
    assert "4 cases, surface convention surface-distance, empty structures nan-excluded" in table
    assert "1 1: in both 3, only in reference 1, only in prediction 0, in neither 0" in table


def refused(tmp_path, *labels):
    result = evaluate(tmp_path, *labels)
    assert result.returncode == 2 and not (tmp_path / "summary.json").exists()
    assert len(result.stderr.splitlines()) == 1
    return result.stderr


def test_grids_that_differ_are_refused_and_both_are_named(folders):
    shifted = AFFINE.copy()
    shifted[0, 3] = 3
    save(folders / "pred", "case_3.nii.gz", np.zeros((6, 7, 8), np.uint8), shifted)
    message = refused(folders, "1", "2", "3")
    assert "pred/case_3.nii.gz: has grid 6x7x8" in message and "ref/case_3.nii.gz" in message and message.count("spacing") == 2


def test_a_label_outside_the_set_is_refused_and_located(folders):
    labels = np.zeros((6, 7, 8), np.uint8)
    labels[2, 3, 4] = 9
    save(folders / "pred", "case_0.nii.gz", labels)
    assert "pred/case_0.nii.gz: label 9 at voxel (x, y, z) = (2, 3, 4), expected one of 0, 1, 2, 3" in refused(folders, "1", "2", "3")


def test_fractions_and_negative_labels_are_refused(folders):
    for value in (0.5, -1):
        save(folders / "pred", "case_0.nii.gz", np.full((6, 7, 8), value, np.float32))
        assert "expected a label: an integer from 0 on" in refused(folders, "1")


def test_missing_files_are_refused_on_either_side(folders):
    (folders / "ref" / "case_2.nii.gz").rename(folders / "kept")
    assert "pred/case_2.nii.gz: has no reference" in refused(folders, "1", "2", "3")
    (folders / "kept").rename(folders / "ref" / "case_2.nii.gz")
    (folders / "pred" / "case_1.nii.gz").unlink()
    assert "ref/case_1.nii.gz: has no prediction" in refused(folders, "1", "2", "3")


def test_two_files_of_one_case_and_an_empty_folder_are_refused(folders, tmp_path_factory):
    save(folders / "pred", "case_0.nii", np.zeros((6, 7, 8), np.uint8))
    assert "second image of case case_0" in refused(folders, "1", "2", "3")
    empty = tmp_path_factory.mktemp("empty")
    (empty / "pred").mkdir(), (empty / "ref").mkdir()
    assert "holds no image" in refused(empty, "1")
