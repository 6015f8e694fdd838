"""A dataset becomes a plan, a model, predictions, scores, attention maps: what each command leaves, read by other programs."""
import csv
import hashlib
import json
import math

import nibabel as nib
import numpy as np
import pytest
from phantom import LABELS, affine_of, phantom, write_dataset, write_image
from program import TINY, fovea


def labels_of(path):
    return np.asanyarray(nib.load(path).dataobj)


def dice(a, b):
    return 2 * np.logical_and(a, b).sum() / (a.sum() + b.sum())


# plan

def test_plan_is_json_with_comments_that_train_takes_back(dataset, tmp_path):
    printed = fovea("plan", "-d", dataset, "--patch", "32,64,32", "--batch", 1).stdout
    assert "// voxels of a training patch" in printed
    assert fovea("plan", "-d", dataset, "--patch", "32,64,32", "--batch", 1, "-o", tmp_path / "plan.json").stdout.split() == [str(tmp_path / "plan.json")]
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert plan["patch_size"] == [32, 64, 32] and plan["spacing_mm"] == [1, 1, 1] and plan["fingerprint"]["cases"] == 5
    assert [label["name"] for label in plan["labels"]] == list(LABELS)
    (tmp_path / "config.json").write_text('{"plan": ' + printed + "}")
    resolved = fovea("train", "-d", dataset, "-c", tmp_path / "config.json", "--print-config", "-o", tmp_path / "run").stdout
    assert '"patch_size": [32, 64, 32]' in resolved and not (tmp_path / "run").exists()


def test_verify_finds_nothing_wrong_with_the_phantoms(dataset):
    assert fovea("plan", "-d", dataset, "--verify").stdout == "Dataset001_Phantom: 5 training and 1 test cases, no problems\n"
    assert json.loads(fovea("plan", "-d", dataset, "--verify", "--json").stdout) == {"dataset": "Dataset001_Phantom", "problems": []}


# train

def test_training_answers_in_json_and_is_quiet_where_no_terminal_is(training, run_folder):
    answer = json.loads(training.stdout)
    assert answer["finished"] and answer["step"] == 24 and answer["skipped_steps"] == 0
    assert answer["model"] == str(run_folder / "model") and answer["report"] == str(run_folder / "report.html")
    assert training.stderr == ""


def test_run_folder_holds_everything_that_the_design_names(run_folder):
    assert {p.name for p in (run_folder / "model").iterdir()} == {"config.json", "weights.safetensors", "model_card.md"}
    with open(run_folder / "log.csv") as file:
        log = list(csv.DictReader(file))
    assert [int(row["step"]) for row in log] == list(range(1, 25))
    assert float(log[-1]["loss"]) < 0.8 * float(log[0]["loss"])
    with open(run_folder / "validation.csv") as file:
        validation = list(csv.DictReader(file))
    assert [int(row["step"]) for row in validation] == [12, 24]
    assert float(validation[-1]["dice/shell"]) > 0.5
    manifest = json.loads((run_folder / "manifest.json").read_text())
    assert "train" in manifest["command"] and manifest["seed"] == 3
    assert len(list((run_folder / "checkpoints").iterdir())) >= 1
    report = (run_folder / "report.html").read_text()
    assert report.startswith("<!DOCTYPE html>") and "<svg" in report
    assert "src=\"http" not in report and "href=\"http" not in report, "the report must open offline"


def test_manifest_names_every_training_file_by_its_sha256(run_folder, dataset):
    text = (run_folder / "manifest.json").read_text()
    held_out = {p.name for p in (run_folder / "validation").glob("*.nii.gz")}
    assert len(held_out) == 1
    for label in (dataset / "labelsTr").iterdir():
        assert (hashlib.sha256(label.read_bytes()).hexdigest() in text) == (label.name not in held_out), label.name


def test_summary_of_the_held_out_case_equals_an_independent_dice(run_folder, dataset):
    summary = json.loads((run_folder / "validation/summary.json").read_text())
    (prediction,) = (run_folder / "validation").glob("*.nii.gz")
    predicted, reference = labels_of(prediction), labels_of(dataset / "labelsTr" / prediction.name)
    for value in (1, 2):
        assert summary["mean"][str(value)]["Dice"] == pytest.approx(dice(predicted == value, reference == value), abs=1e-12)
    assert summary["mean"]["2"]["Dice"] > 0.5, "the network has learnt the shell"


def test_tensorboard_reads_the_curves(run_folder):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="no tensorboard: run scripts/setup")
    events = event_accumulator.EventAccumulator(str(run_folder))
    events.Reload()
    with open(run_folder / "log.csv") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    curves = {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]}
    (loss,) = [tag for tag in curves if tag.split("/")[-1] == "loss" or tag == "loss"]
    assert [e.step for e in curves[loss]] == list(range(1, 25))
    assert [e.value for e in curves[loss]] == pytest.approx(losses, rel=1e-6)
    assert any("dice" in tag for tag in curves)


def test_a_finished_run_is_not_trained_again_by_resume(run_folder, dataset, training):
    before = (run_folder / "model/weights.safetensors").read_bytes()
    answer = fovea("train", "-d", dataset, "--fold", 0, "--steps", 24, *TINY, "--augment", "none", "--set", "train.steps_per_epoch=12",
                   "--set", "train.optimizer.learning_rate=4e-3", "-o", run_folder, "--resume")
    assert answer.stdout == f"{run_folder / 'model'}\n"
    assert (run_folder / "model/weights.safetensors").read_bytes() == before


# predict

@pytest.mark.parametrize("codes, degrees, spacing, shape", [
    ("RAS", (0, 0), (1, 1, 1), (36, 33, 30)),
    ("LPS", (0, 0), (1, 1, 1), (36, 33, 30)),
    ("LPS", (17, -9), (1, 1, 1), (37, 32, 31)),
    ("SAL", (0, 0), (1.3, 0.9, 1.1), (25, 40, 29)),
    ("IRP", (5, 3), (2, 1, 1.5), (20, 35, 22)),
], ids=["RAS", "LPS", "LPS oblique", "SAL anisotropic", "IRP oblique, coarse"])
def test_prediction_lies_on_the_source_grid_bit_for_bit(model, tmp_path, codes, degrees, spacing, shape):
    images, _ = phantom(9, shape)
    write_image(tmp_path / "scan.nii.gz", images[0], affine_of(codes, spacing, degrees))
    done = fovea("predict", "-m", model, "-i", tmp_path / "scan.nii.gz", "-o", tmp_path / "labels.nii.gz")
    assert done.stdout == f"{tmp_path / 'labels.nii.gz'}\n"
    scan, labels = nib.load(tmp_path / "scan.nii.gz"), nib.load(tmp_path / "labels.nii.gz")
    assert labels.shape == scan.shape
    assert labels.affine.tobytes() == scan.affine.tobytes()
    for field in ("pixdim", "srow_x", "srow_y", "srow_z", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x"):
        assert labels.header[field].tobytes() == scan.header[field].tobytes(), field
    assert set(np.unique(labels_of(tmp_path / "labels.nii.gz"))) <= set(LABELS.values())


def test_the_same_anatomy_is_found_however_the_file_is_ordered(model, tmp_path):
    images, label = phantom(11)
    results = {}
    for codes in ("RAS", "LPS"):
        flip = (slice(None, None, -1), slice(None, None, -1), slice(None)) if codes == "LPS" else (slice(None),) * 3
        affine = affine_of("RAS")
        if codes == "LPS":  # the same points in space from the other corner
            corner = affine @ [label.shape[0] - 1, label.shape[1] - 1, 0, 1]
            affine = affine_of("LPS", origin=corner[:3])
        write_image(tmp_path / f"{codes}.nii.gz", np.ascontiguousarray(images[0][flip]), affine)
        fovea("predict", "-m", model, "-i", tmp_path / f"{codes}.nii.gz", "-o", tmp_path / f"{codes}_labels.nii.gz")
        results[codes] = labels_of(tmp_path / f"{codes}_labels.nii.gz")[flip]
    np.testing.assert_array_equal(results["RAS"], results["LPS"])
    assert dice(results["RAS"] == 2, label == 2) > 0.5


def test_a_folder_of_scans_gives_a_file_each_and_a_log(model, dataset, tmp_path):
    answer = json.loads(fovea("predict", "-m", model, "-i", dataset / "imagesTr", "-o", tmp_path / "out", "--json").stdout)
    assert [one["id"] for one in answer] == [f"scan{i}" for i in range(5)]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["prediction.json"] + [f"scan{i}.nii.gz" for i in range(5)]
    assert json.loads((tmp_path / "out/prediction.json").read_text())["cases"] == answer
    for one in answer:
        assert {"read and prepare", "infer", "write"} <= set(one["stages_s"]) and one["peak_bytes"] > 0 and one["windows"] >= 2


def test_memory_limit_cuts_the_volume_into_stripes_and_keeps_the_labels(dataset, tmp_path):
    """With many classes the scores of a whole slab are most of the memory; a limit below that is kept and changes no label."""
    torch = pytest.importorskip("torch", reason="no torch: run scripts/setup")
    nets = pytest.importorskip("monai.networks.nets", reason="no monai to make weights with: run scripts/setup")
    classes = 64
    torch.manual_seed(1)
    torch.save(nets.SwinUNETR(in_channels=1, out_channels=classes, feature_size=12).state_dict(), tmp_path / "swin.pt")
    plan = json.loads(fovea("plan", "-d", dataset, "--patch", "32,64,32", "--batch", 1, "--json").stdout)
    plan["labels"] = [{"name": f"class {k}", "values": [k]} for k in range(classes)]
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    fovea("import", tmp_path / "swin.pt", "--plan", tmp_path / "plan.json", "-o", tmp_path / "model")
    write_image(tmp_path / "scan.nii.gz", phantom(12, (96, 128, 32))[0][0], affine_of())
    words = ["predict", "-m", tmp_path / "model", "-i", tmp_path / "scan.nii.gz", "--overlap", 0.25, "--json", "-o"]
    (free,) = json.loads(fovea(*words, tmp_path / "free.nii.gz").stdout)
    assert free["stripes"] == [1, 1]
    limit = free["predicted_peak_bytes"] - free["dense_score_bytes"] // 4
    (cut,) = json.loads(fovea(*words, tmp_path / "cut.nii.gz", "--max-ram", limit).stdout)
    assert math.prod(cut["stripes"]) > 1 and cut["predicted_peak_bytes"] <= limit
    assert cut["peak_bytes"] < 1.1 * limit, "the announced peak is kept"
    np.testing.assert_array_equal(labels_of(tmp_path / "free.nii.gz"), labels_of(tmp_path / "cut.nii.gz"))


def test_several_channels_are_trained_on_and_predicted_from_files_or_a_folder(tmp_path):
    data = write_dataset(tmp_path / "Dataset002_Two", cases=2, channels=2)
    run = tmp_path / "run"
    assert fovea("train", "-d", data, "--steps", 2, *TINY, "-o", run).stdout == f"{run / 'model'}\n"
    info = json.loads(fovea("info", run / "model", "--json").stdout)[0]
    assert info["in_channels"] == 2 and info["out_channels"] == 3 and info["labels"] == list(LABELS)
    assert not (run / "validation").exists(), "no case was held out"
    first, second = (data / f"imagesTs/scan2_000{c}.nii.gz" for c in (0, 1))
    fovea("predict", "-m", run / "model", "-i", first, "-i", second, "-o", tmp_path / "files.nii.gz")
    fovea("predict", "-m", run / "model", "-i", data / "imagesTs", "-o", tmp_path / "folder")
    np.testing.assert_array_equal(labels_of(tmp_path / "files.nii.gz"), labels_of(tmp_path / "folder/scan2.nii.gz"))
    stacked = np.stack([nib.load(p).get_fdata(dtype=np.float32) for p in (first, second)], -1)
    write_image(tmp_path / "both.nii.gz", stacked, nib.load(first).affine)
    fovea("predict", "-m", run / "model", "-i", tmp_path / "both.nii.gz", "-o", tmp_path / "stacked.nii.gz")
    np.testing.assert_array_equal(labels_of(tmp_path / "files.nii.gz"), labels_of(tmp_path / "stacked.nii.gz"))


# evaluate

def test_evaluate_equals_an_independent_dice_and_iou(dataset, tmp_path):
    rng = np.random.default_rng(4)
    (tmp_path / "predictions").mkdir()
    for file in (dataset / "labelsTr").iterdir():
        scan = nib.load(file)
        noisy = labels_of(file).copy()
        noisy[rng.random(noisy.shape) < 0.1] = 2
        write_image(tmp_path / "predictions" / file.name, noisy, scan.affine)
    done = fovea("evaluate", "-p", tmp_path / "predictions", "-r", dataset / "labelsTr", "-d", dataset, "-o", tmp_path / "summary.json", "--json")
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert json.loads(done.stdout)["mean"] == summary["mean"]
    for value in (1, 2):
        scores = []
        for one in summary["metric_per_case"]:
            p, r = labels_of(one["prediction_file"]) == value, labels_of(one["reference_file"]) == value
            got = one["metrics"][str(value)]
            assert got["Dice"] == pytest.approx(dice(p, r), abs=1e-12)
            assert got["IoU"] == pytest.approx((p & r).sum() / (p | r).sum(), abs=1e-12)
            assert (got["TP"], got["n_pred"], got["n_ref"]) == ((p & r).sum(), p.sum(), r.sum())
            scores.append(got["Dice"])
        assert len(scores) == 5 and summary["mean"][str(value)]["Dice"] == pytest.approx(np.mean(scores), abs=1e-12)
    table = fovea("evaluate", "-p", tmp_path / "predictions", "-r", dataset / "labelsTr", "--label", "1=core", "--label", "1+2=ball").stdout
    assert "1 core" in table and "(1, 2) ball" in table and "HD95_mm" in table


# explain

def test_attention_of_every_head_sums_to_one_over_the_tokens_on_the_source_grid(model, tmp_path):
    images, _ = phantom(13, (70, 66, 44))
    affine = affine_of("LPS", degrees=(8, 15))
    write_image(tmp_path / "scan.nii.gz", images[0], affine)
    index = (33, 31, 20)
    assert fovea("explain", "-m", model, "-i", tmp_path / "scan.nii.gz", "--voxel", ",".join(map(str, index)), "-o", tmp_path / "maps").stdout == f"{tmp_path / 'maps'}\n"
    report = json.loads((tmp_path / "maps/explain.json").read_text())
    source = nib.load(tmp_path / "scan.nii.gz")
    assert report["voxel_mm"] == pytest.approx((source.affine @ [*index, 1])[:3], abs=1e-4)
    assert {p.name for p in (tmp_path / "maps").iterdir()} == {"explain.json"} | {b["file"] for b in report["blocks"]}
    assert len(report["blocks"]) == 5
    for block in report["blocks"]:
        image = nib.load(tmp_path / "maps" / block["file"])
        assert image.affine.tobytes() == source.affine.tobytes() and image.shape[:3] == source.shape
        maps = image.get_fdata()
        assert maps.shape[3] == len(block["heads"]) and maps.min() >= 0
        for h, head in enumerate(block["heads"]):
            assert maps[..., h].sum() / math.prod(block["voxels_a_token"]) == pytest.approx(1 - head["padded_share"], abs=1e-4), (block["name"], h)
            assert maps[index][h] > 0, "a token attends to its own window"
            assert 0 <= head["entropy_nats"] <= math.log(head["keys"]) + 1e-6


def test_explain_takes_the_same_voxel_by_index_and_by_millimetres(model, dataset, tmp_path):
    scan = dataset / "imagesTs/scan5_0000.nii.gz"
    x, y, z = (nib.load(scan).affine @ [17, 16, 15, 1])[:3]
    fovea("explain", "-m", model, "-i", scan, "--voxel", "17,16,15", "-o", tmp_path / "a")
    fovea("explain", "-m", model, "-i", scan, f"--mm={x + 0.2},{y - 0.2},{z}", "-o", tmp_path / "b")
    for file in (tmp_path / "a").glob("*.nii.gz"):
        np.testing.assert_array_equal(nib.load(file).get_fdata(), nib.load(tmp_path / "b" / file.name).get_fdata())


# report

def test_evaluate_writes_a_report_with_baseline_pictures_and_attention(model, run_folder, dataset, tmp_path):
    fovea("predict", "-m", model, "-i", dataset / "imagesTs", "-o", tmp_path / "out")
    scan = dataset / "imagesTs/scan5_0000.nii.gz"
    fovea("explain", "-m", model, "-i", scan, "--voxel", "17,16,15", "-o", tmp_path / "maps")
    fovea("evaluate", "-p", tmp_path / "out", "-r", dataset / "labelsTs", "-d", dataset, "--report", tmp_path / "report.html", "--run", run_folder,
          "--baseline", f"the reference itself={dataset / 'labelsTs'}", "--image", scan, "--attention", tmp_path / "maps", "--note", "Phantoms, not <people>.")
    report = (tmp_path / "report.html").read_text()
    for text in ("the reference itself", "core", "shell", "data:image/png;base64,", "Phantoms, not &lt;people&gt;."):
        assert text in report, text


# look-ups

def test_info_describes_scans_models_and_weights(model, dataset):
    scan, net, weights = json.loads(fovea("info", dataset / "imagesTr/scan1_0000.nii.gz", model, model / "weights.safetensors", "--json").stdout)
    assert scan["axes"] == "LPS" and scan["shape_zyx"] == [30, 33, 36] and scan["channels"] == 1
    assert net["out_channels"] == 3 and net["labels"] == list(LABELS)
    index = sum(math.prod(t["shape"]) for name, t in weights["tensors"].items() if name.endswith("relative_position_index"))
    assert weights["elements"] == net["parameters"] + index
    assert "shape_zyx" in fovea("info", dataset / "imagesTr/scan1_0000.nii.gz").stdout


def test_doctor_answers_in_json():
    found = {one["name"]: one for one in json.loads(fovea("doctor", "--json").stdout)}
    assert {"fovea", "libtorch", "memory", "attention kernel", "OpenMP runtimes"} <= set(found)
    assert found["attention kernel"]["ok"] and found["OpenMP runtimes"]["value"] == "1"
    assert "attention kernel" in fovea("doctor").stdout


def test_check_lists_its_rows():
    assert {line.split()[0] for line in fovea("check", "--list").stdout.splitlines()} >= {"P2", "P4", "P5", "P7"}


def test_help_shows_an_example_first_for_every_verb():
    for verb in ("doctor", "plan", "train", "predict", "evaluate", "explain", "run", "check", "import", "info"):
        assert f"Example: fovea {verb}" in fovea(verb, "--help").stdout.lstrip().splitlines()[0]
    assert fovea("--version").stdout.startswith("fovea ")


# weights of MONAI

def test_monai_weights_give_monai_logits(tmp_path):
    torch = pytest.importorskip("torch", reason="no torch: run scripts/setup")
    nets = pytest.importorskip("monai.networks.nets", reason="no monai to compare with: run scripts/setup")
    from safetensors.torch import load_file, save_file
    torch.manual_seed(0)
    theirs = nets.SwinUNETR(in_channels=1, out_channels=3, feature_size=12).eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if parameter.dim() == 1 or "bias_table" in name:  # zero as initialised: would hide a wrong bias
                parameter.add_(0.2 * torch.randn_like(parameter))
        x = torch.randn(1, 1, 64, 32, 64)
        expected = theirs(x)
    torch.save(theirs.state_dict(), tmp_path / "swin.pt")
    save_file({"x": x}, tmp_path / "x.safetensors")
    assert fovea("import", tmp_path / "swin.pt", "-o", tmp_path / "model").stdout == f"{tmp_path / 'model'}\n"
    fovea("run", "-m", tmp_path / "model", "--input", tmp_path / "x.safetensors", "--output", tmp_path / "y.safetensors")
    output = load_file(tmp_path / "y.safetensors")["output"]
    error = ((output - expected).abs().max() / expected.abs().max()).item()
    print(f"logits against MONAI: {error:.1e} of the largest")
    assert error <= 1e-4


def test_an_imported_network_with_a_plan_predicts(dataset, tmp_path):
    torch = pytest.importorskip("torch", reason="no torch: run scripts/setup")
    nets = pytest.importorskip("monai.networks.nets", reason="no monai to compare with: run scripts/setup")
    torch.save({"state_dict": nets.SwinUNETR(in_channels=1, out_channels=3, feature_size=12).state_dict()}, tmp_path / "swin.pt")
    fovea("plan", "-d", dataset, "--patch", "32,64,32", "--batch", 1, "-o", tmp_path / "plan.json")
    fovea("import", tmp_path / "swin.pt", "--plan", tmp_path / "plan.json", "-o", tmp_path / "model")
    fovea("predict", "-m", tmp_path / "model", "-i", dataset / "imagesTs", "-o", tmp_path / "out")
    assert nib.load(tmp_path / "out/scan5.nii.gz").shape == (36, 33, 30)
