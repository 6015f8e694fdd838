"""What a user can get wrong: exit code, one line that names file or flag and what was expected, and nothing left behind."""
import json
import os
import shutil

import nibabel as nib
import numpy as np
import pytest
from phantom import affine_of, phantom, write_dataset, write_image
from program import TINY, fovea, refused


@pytest.fixture(scope="module")
def scan(dataset):
    return dataset / "imagesTs/scan5_0000.nii.gz"


@pytest.fixture
def copy_of_dataset(dataset, tmp_path):
    return shutil.copytree(dataset, tmp_path / "Dataset009_Broken")


@pytest.fixture
def output(tmp_path):
    """An empty folder that must stay so."""
    (tmp_path / "output").mkdir()
    return tmp_path / "output"


def rewritten(path, change):
    image = nib.load(path)
    voxels = np.asanyarray(image.dataobj).copy()
    changed = change(voxels)
    write_image(path, voxels if changed is None else changed, image.affine)


# files to predict

def text_file(path):
    path.write_text("this is no image\n")


def cut_file(path):
    write_image(path, phantom(1)[0][0], affine_of())
    path.write_bytes(path.read_bytes()[:20000])


def flipped_byte(path):
    write_image(path, phantom(1)[0][0], affine_of())
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


def nan_voxel(path):
    voxels = phantom(1)[0][0]
    voxels[3, 4, 5] = np.nan
    write_image(path, voxels, affine_of())


def four_dimensions(path):
    write_image(path, np.stack(phantom(1, channels=2)[0], -1), affine_of())


SCANS = {
    "absent": (lambda path: None, ["no such file"]),
    "text": (text_file, ["expected NIfTI"]),
    "truncated": (cut_file, ["20000", "truncated"]),
    "one flipped byte": (flipped_byte, []),
    "NaN": (nan_voxel, ["NaN", "(3, 4, 5)"]),
    "4-D": (four_dimensions, ["2 channels", "expected a 3-D file"]),
}


@pytest.mark.parametrize("kind", SCANS)
@pytest.mark.parametrize("verb", ["predict", "predict into a folder", "explain"])
def test_a_scan_that_cannot_be_used_is_named(model, tmp_path, output, verb, kind):
    make, says = SCANS[kind]
    path = tmp_path / "scan.nii.gz"
    make(path)
    target = {"predict": output / "labels.nii.gz", "predict into a folder": output / "labels", "explain": output / "maps"}[verb]
    voxel = ["--voxel", "1,1,1"] if verb == "explain" else []
    refused(verb.split()[0], "-m", model, "-i", path, "-o", target, *voxel, says=[path, *says], leaves=output)


def test_scans_whose_channels_do_not_match_the_model(model, scan, output, tmp_path):
    refused("predict", "-m", model, "-i", scan, "-i", scan, "-o", output / "o.nii.gz", says=[scan, "2", "expected 1"], leaves=output)
    data = write_dataset(tmp_path / "Dataset003_Two", cases=1, channels=2)
    refused("predict", "-m", model, "-i", data / "imagesTr", "-o", output / "o", says=[data / "imagesTr", "scan0", "2 channel", "expected 1"], leaves=output)
    (data / "imagesTr/scan0_0000.nii.gz").unlink()
    refused("predict", "-m", model, "-i", data / "imagesTr", "-o", output / "o", says=["scan0_0000"], leaves=output)


def test_several_scans_do_not_fit_into_one_file(model, dataset, output):
    refused("predict", "-m", model, "-i", dataset / "labelsTr", "-o", output / "o.nii.gz", says=["--output", "5 cases", "folder"], leaves=output)


def test_a_folder_without_scans(model, tmp_path, output):
    refused("predict", "-m", model, "-i", output, "-o", tmp_path / "o", says=[output, "no images"], leaves=tmp_path)


@pytest.mark.parametrize("verb", ["predict", "plan", "evaluate"])
def test_an_output_in_no_folder_is_refused_before_the_work(model, dataset, tmp_path, verb):
    """Not after an hour of it: predict does not even come to the scan, which is none."""
    nowhere = tmp_path / "nowhere"
    says = [nowhere, "does not exist"]
    if verb == "predict":
        (tmp_path / "text.nii.gz").write_text("never read")
        refused("predict", "-m", model, "-i", tmp_path / "text.nii.gz", "-o", nowhere / "o.nii.gz", says=says, leaves=tmp_path)
    elif verb == "plan":
        refused("plan", "-d", dataset, "-o", nowhere / "plan.json", says=says, leaves=tmp_path)
    else:
        refused("evaluate", "-p", dataset / "labelsTr", "-r", dataset / "labelsTr", "-d", dataset, "-o", nowhere / "s.json", says=says, leaves=tmp_path)


# models

def test_no_model_at_that_path(scan, output):
    for verb in ("predict", "explain"):
        refused(verb, "-m", output / "none", "-i", scan, "-o", output / "o", says=[output / "none", "expected"], leaves=output)
    refused("predict", "-m", scan, "-i", scan, "-o", output / "o.nii.gz", says=[scan, "model"], leaves=output)


@pytest.mark.parametrize("damage", ["flipped byte", "truncated", "config cut", "weights of another network", "no weights"])
def test_a_damaged_model_is_refused(model, scan, output, tmp_path, damage):
    broken = shutil.copytree(model, tmp_path / "model")
    weights, config = broken / "weights.safetensors", broken / "config.json"
    named = weights
    if damage == "flipped byte":
        content = bytearray(weights.read_bytes())
        content[len(content) // 2] ^= 1
        weights.write_bytes(content)
    elif damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:-1000])
    elif damage == "config cut":
        config.write_bytes(config.read_bytes()[:200])
        named = config
    elif damage == "weights of another network":
        config.write_text(config.read_text().replace('"feature_size": 12', '"feature_size": 24'))
    else:
        weights.unlink()
    refused("predict", "-m", broken, "-i", scan, "-o", output / "o.nii.gz", says=named if damage != "no weights" else broken, leaves=output)
    refused("info", broken, says=broken)


def test_weights_that_are_none(output, tmp_path, model):
    (tmp_path / "text.pt").write_text("no weights")
    refused("import", tmp_path / "text.pt", "-o", output / "model", says=tmp_path / "text.pt", leaves=output)
    refused("import", tmp_path / "absent.pt", "-o", output / "model", says=tmp_path / "absent.pt", leaves=output)
    refused("run", "-m", model, "--input", tmp_path / "text.pt", "-o", output / "y.safetensors", says=tmp_path / "text.pt", leaves=output)


def test_a_pickle_that_would_run_code_is_refused_and_not_run(output, tmp_path):
    torch = pytest.importorskip("torch", reason="no torch: run scripts/setup")
    import os

    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    torch.save({"weight": torch.zeros(3), "trap": Trap()}, tmp_path / "trap.pt")
    refused("import", tmp_path / "trap.pt", "-o", output / "model", says=tmp_path / "trap.pt", leaves=output)
    assert not (tmp_path / "sprung").exists()


# memory

def test_too_little_memory_is_said_before_the_run(model, scan, output):
    line = refused("predict", "-m", model, "-i", scan, "-o", output / "o.nii.gz", "--max-ram", "100M", code=3, says=["needs", "limit 100 MiB"], leaves=output)
    needed = int(line.split("--max-ram ")[1].split("M")[0])
    fovea("predict", "-m", model, "-i", scan, "-o", output / "o.nii.gz", "--max-ram", f"{int(needed * 1.1)}M")


def test_a_plan_that_does_not_fit_the_memory(dataset, output):
    refused("plan", "-d", dataset, "--max-ram", "100M", "-o", output / "plan.json", code=3, says=["needs", "limit is 100 MiB"], leaves=output)
    refused("train", "-d", dataset, "--steps", 2, *TINY, "--max-ram", "100M", "-o", output / "run", code=3, says=["needs", "limit is 100 MiB"], leaves=output)


# datasets

def label_out_of_range(folder):
    rewritten(folder / "labelsTr/scan1.nii.gz", lambda v: v.__setitem__((4, 5, 6), 7))
    return "labelsTr/scan1.nii.gz", ["7", "not declared"]


def other_grid(folder):
    path = folder / "labelsTr/scan1.nii.gz"
    image = nib.load(path)
    write_image(path, np.asanyarray(image.dataobj), image.affine @ np.diag([1, 1, 1.2, 1]))
    return "labelsTr/scan1.nii.gz", ["1x1x1.2 mm", "expected", "1x1x1 mm"]


def other_shape(folder):
    rewritten(folder / "labelsTr/scan1.nii.gz", lambda v: v[:-1])
    return "labelsTr/scan1.nii.gz", ["35x33x30", "expected", "36x33x30"]


def four_dimensional_image(folder):
    rewritten(folder / "imagesTr/scan1_0000.nii.gz", lambda v: np.stack([v, v], -1))
    return "imagesTr/scan1_0000.nii.gz", ["2 channels", "expected a 3-D file"]


def nan_in_training(folder):
    rewritten(folder / "imagesTr/scan1_0000.nii.gz", lambda v: v.__setitem__((1, 2, 3), np.nan))
    return "imagesTr/scan1_0000.nii.gz", ["NaN", "(1, 2, 3)"]


def truncated_image(folder):
    path = folder / "imagesTr/scan1_0000.nii.gz"
    path.write_bytes(path.read_bytes()[:5000])
    return "imagesTr/scan1_0000.nii.gz", ["byte 5000", "truncated"]


def missing_label(folder):
    (folder / "labelsTr/scan1.nii.gz").unlink()
    return "labelsTr/scan1.nii.gz", ["missing label file"]


def fractional_label(folder):
    rewritten(folder / "labelsTr/scan1.nii.gz", lambda v: (v * 0.5).astype(np.float32))
    return "labelsTr/scan1.nii.gz", ["0.5", "no integer"]


def text_for_image(folder):
    (folder / "imagesTr/scan1_0000.nii.gz").write_text("no image")
    return "imagesTr/scan1_0000.nii.gz", ["expected NIfTI"]


@pytest.mark.parametrize("damage", [label_out_of_range, other_grid, other_shape, four_dimensional_image, nan_in_training, truncated_image,
                                    missing_label, fractional_label, text_for_image], ids=lambda f: f.__name__)
def test_training_data_that_cannot_be_used_is_named(copy_of_dataset, output, damage):
    file, says = damage(copy_of_dataset)
    says = [copy_of_dataset / file, *says]
    refused("plan", "-d", copy_of_dataset, "-o", output / "plan.json", says=says, leaves=output)
    refused("train", "-d", copy_of_dataset, "--steps", 2, *TINY, "-o", output / "run", says=says, leaves=output)
    verified = fovea("plan", "-d", copy_of_dataset, "--verify", code=2)
    (problem,) = verified.stdout.splitlines()
    assert problem.startswith(f"scan1: {copy_of_dataset / file}: "), problem
    assert verified.stderr == f"fovea: {copy_of_dataset}: 1 problem found, expected none; it is listed above\n"


def test_verify_lists_every_broken_case(copy_of_dataset):
    rewritten(copy_of_dataset / "labelsTr/scan0.nii.gz", lambda v: v.__setitem__((4, 5, 6), 7))
    nan_in_training(copy_of_dataset)
    (copy_of_dataset / "labelsTr/scan3.nii.gz").unlink()
    done = fovea("plan", "-d", copy_of_dataset, "--verify", "--json", code=2)
    assert [p.split(":")[0] for p in json.loads(done.stdout)["problems"]] == ["scan0", "scan1", "scan3"]
    assert "3 problems" in done.stderr


def test_paths_that_are_no_dataset(dataset, output):
    for path in (output / "none", dataset / "imagesTr"):
        refused("plan", "-d", path, says=[path, "expected"])
        refused("train", "-d", path, "--steps", 2, "-o", output / "run", says=[path, "expected"], leaves=output)
    (output / "dataset.json").write_text("{")
    refused("plan", "-d", output, says=output / "dataset.json")


# configuration and flags

@pytest.mark.parametrize("setting, says", [
    ("train.stepz=3", ["stepz", 'did you mean "steps"']),
    ("trian.steps=3", ["trian", 'did you mean "train"']),
    ("plan.network_config.depth=[1,1,1,1]", ["depth", 'did you mean "depths"']),
    ("plan.network=swin_unter", ["swin_unter", "did you mean 'swin_unetr'"]),
    ("train.steps", ["train.steps", "expected key=value"]),
    ("train.steps=abc", ["train.steps", "expected an integer", "abc"]),
    ('plan.batch_size="a"', ["plan", "batch_size", "expected"]),
    ("plan.batch_size=0", ["batch", "0", "expected"]),
    ("plan.patch_size=[32,64]", ["plan", "patch_size", "expected"]),
    ("plan.patch_size=[33,64,32]", ["33", "expected multiples of 32"]),
    ("plan.patch_size=[32,32,32]", ["32", "expected more than 32"]),
    ("plan.spacing_mm=1", ["plan", "spacing_mm", "expected"]),
    ("plan.spacing_mm=[1,0,1]", ["spacing", "expected positive"]),
    ("plan.network=5", ["plan", "network", "expected"]),
    ("plan=5", ["plan", "expected"]),
    ("train.optimizer.learning_rate=-1", ["learning_rate", "-1"]),
    ("loader.foreground_fraction=2", ["foreground_fraction", "2"]),
    ("predict.overlap=1", ["overlap", "1"]),
])
def test_a_setting_that_is_none_names_its_key(dataset, output, setting, says):
    refused("train", "-d", dataset, "--steps", 2, *TINY, "--set", setting, "-o", output / "run", says=says, leaves=output)


def test_a_config_file_is_named_with_the_key(dataset, output, tmp_path):
    config = tmp_path / "config.json"
    for text, says in [('{"train": {"step": 3}}', ["step", 'did you mean "steps"']), ('{"train": {"steps": 3, "steps": 4}}', ["steps", "twice"]),
                       ('{"train": {"steps": 3}', ["line 1"]), ("[]", ["expected"])]:
        config.write_text(text)
        refused("train", "-d", dataset, "--steps", 2, *TINY, "-c", config, "-o", output / "run", says=[config, *says], leaves=output)
    config.unlink()
    refused("train", "-d", dataset, "--steps", 2, "-c", config, "-o", output / "run", says=[config, "no such file"], leaves=output)


@pytest.mark.parametrize("fold", ["5", "-1", "abc", "1x", "99999999999999999999", "", " 1"])
def test_a_fold_that_is_none(dataset, output, fold):
    refused("train", "-d", dataset, "--steps", 2, *TINY, "--fold", fold, "-o", output / "run", says=["--fold", "expected", "all"], leaves=output)


@pytest.mark.parametrize("words, says", [
    (["--overlapp", "0.2"], ["--overlapp", "did you mean --overlap?"]),
    (["--overlap", "2"], ["--overlap", "2", "0.95"]),
    (["--preset", "foo"], ["--preset foo", "expected nnunet or monai"]),
    (["--mirror-axes", "7"], ["mirror", "7", "expected"]),
    (["--max-ram", "lots"], ["lots", "expected"]),
    (["--device", "tpu"], ["--device tpu", "cpu"]),
    (["--threads", "-1"], ["--threads", "-1"]),
    (["--threads", "many"], ["--threads", "many"]),
])
def test_a_flag_that_is_none_names_the_nearest(model, scan, output, words, says):
    line = refused("predict", "-m", model, "-i", scan, "-o", output / "o.nii.gz", *words, says=says, leaves=output)
    assert len(line) < 250, line


@pytest.mark.parametrize("words, says", [
    (["predicd"], ["predicd", "did you mean predict?"]),
    (["--versoin"], ["--versoin", "did you mean --version?"]),
    ([], ["--help"]),
    (["predict", "-i", "x"], ["--model", "required"]),
    (["check", "P99"], ["P99", "expected"]),
    (["info", "/no/such"], ["/no/such", "no such file"]),
])
def test_a_verb_that_is_none_names_the_nearest(words, says):
    refused(*words, says=says)


def test_a_check_without_its_images_names_their_package(tmp_path):
    (tmp_path / "fashion-mnist").mkdir()
    refused("check", "P8", says=[tmp_path / "fashion-mnist", "dataset-fashion-mnist"], env={**os.environ, "FOVEA_DATA": str(tmp_path)})


@pytest.mark.parametrize("words, says", [
    (["--steps", "-3"], ["--steps", "-3"]),
    (["--steps", "1.5"], ["--steps", "1.5"]),
    (["--max-time", "10x"], ["--max-time 10x", "expected s, m or h"]),
    (["--max-time", "-5m"], ["--max-time", "-5m"]),
])
def test_a_length_of_training_that_is_none(dataset, output, words, says):
    refused("train", "-d", dataset, *TINY, *words, "-o", output / "run", says=says, leaves=output)


@pytest.mark.parametrize("words, says", [
    (["--patch", "33,32,32"], ["33", "expected multiples of 32"]),
    (["--patch", "32.5,32,64"], ["--patch 32.5,32,64", "expected three whole numbers"]),
    (["--spacing", "0,1,1"], ["spacing", "expected positive"]),
    (["--batch", "-1"], ["--batch", "-1"]),
    (["--network", "swin_unter_12"], ["swin_unter_12", "did you mean"]),
])
def test_a_plan_asked_for_wrongly(dataset, output, words, says):
    refused("plan", "-d", dataset, *words, "-o", output / "plan.json", says=says, leaves=output)


@pytest.mark.parametrize("words, says", [
    ([], ["--mm", "--voxel"]),
    (["--voxel", "1,1,1", "--mm", "1,1,1"], ["--mm", "--voxel"]),
    (["--voxel", "1,2"], ["--voxel 1,2", "expected three"]),
    (["--voxel", "1.5,2,3"], ["--voxel 1.5,2,3", "expected three whole numbers"]),
    (["--voxel", "99,1,1"], ["99,1,1", "outside the scan", "36x33x30"]),
    (["--mm", "900,1,1"], ["900", "outside"]),
])
def test_a_voxel_that_is_none(model, scan, output, words, says):
    refused("explain", "-m", model, "-i", scan, *words, "-o", output / "maps", says=says, leaves=output)


def test_explain_does_not_replace_a_folder_of_something_else(model, scan, output):
    (output / "thesis.txt").write_text("years of work")
    refused("explain", "-m", model, "-i", scan, "--voxel", "1,1,1", "-o", output, says=[output, "something else"], leaves=output)


# a folder that holds a run

def test_a_run_is_not_overwritten(dataset, run_folder):
    words = ["train", "-d", dataset, "--fold", 0, *TINY, "-o", run_folder]
    refused(*words, "--steps", 24, says=[run_folder, "--resume"], leaves=run_folder)
    refused(*words, "--steps", 30, "--resume", says=[run_folder / "config.json", "differs"], leaves=run_folder)


# scores

@pytest.fixture
def predictions(dataset, tmp_path):
    return shutil.copytree(dataset / "labelsTr", tmp_path / "predictions")


def test_scores_need_both_files_of_a_case(dataset, predictions, output):
    words = ["evaluate", "-p", predictions, "-r", dataset / "labelsTr", "-d", dataset, "-o", output / "summary.json"]
    (predictions / "scan1.nii.gz").rename(predictions / "other.nii.gz")
    refused(*words, says=["other", "has no reference"], leaves=output)
    (predictions / "other.nii.gz").unlink()
    refused(*words, says=[dataset / "labelsTr/scan1.nii.gz", "has no prediction"], leaves=output)
    refused("evaluate", "-p", output / "none", "-r", predictions, "-d", dataset, says=output / "none")


def test_scores_need_the_same_grid_and_labels(dataset, predictions, output):
    words = ["evaluate", "-p", predictions, "-r", dataset / "labelsTr", "-d", dataset, "-o", output / "summary.json"]
    rewritten(predictions / "scan1.nii.gz", lambda v: v.__setitem__((4, 5, 6), 7))
    refused(*words, says=[predictions / "scan1.nii.gz", "label 7", "(4, 5, 6)", "expected one of 0, 1, 2"], leaves=output)
    other_grid_of = nib.load(predictions / "scan1.nii.gz")
    write_image(predictions / "scan1.nii.gz", np.zeros((36, 33, 30), np.uint8), other_grid_of.affine @ np.diag([1, 1, 1.2, 1]))
    refused(*words, says=[predictions / "scan1.nii.gz", "1x1x1.2 mm", "expected", dataset / "labelsTr/scan1.nii.gz"], leaves=output)


@pytest.mark.parametrize("words, says", [
    ([], ["--dataset", "--label"]),
    (["--label", "a=b"], ["--label a=b", "expected"]),
    (["--label", "1+2=x", "--empty", "foo"], ["foo", "expected nan-excluded or penalised"]),
    (["--label", "1+2=x", "--convention", "foo"], ["foo", "expected"]),
    (["--label", "1+2=x", "--baseline", "foo"], ["--baseline foo", "expected NAME=FOLDER"]),
    (["--label", "1+2=x", "--report", "report.html"], ["--report", "--run"]),
    (["--label", "1+2=x", "--tolerance", "-1"], ["tolerance", "-1"]),
])
def test_scores_asked_for_wrongly(dataset, predictions, output, words, says):
    refused("evaluate", "-p", predictions, "-r", dataset / "labelsTr", "-o", output / "summary.json", *words, says=says, leaves=output)
