"""A table of patients becomes a model, predictions, scores and a page on one of them; what is wrong in it is said in a line."""
import csv
import json
import os
import pathlib
import shutil
import sys

import pytest
from program import fovea, refused

sys.path.insert(0, str(pathlib.Path(__file__).parents[3] / "scripts"))
import make_patients  # noqa: E402

TINY = """--set image.shape=[16,16,16] --set network.width=16 --set network.heads=2 --set network.blocks=1 --set network.image_channels=4
 --set train.steps=6 --set train.steps_per_epoch=3 --set train.batch_size=8 --seed 3 --threads 1 --no-progress""".split()


@pytest.fixture(scope="module")
def patients(tmp_path_factory):
    """Simulated patients: scan, mask, laboratory values, report, benign or malignant."""
    folder = tmp_path_factory.mktemp("data")
    make_patients.COUNT = 32
    make_patients.main(folder)
    return folder / "patients"


@pytest.fixture(scope="module")
def run(patients, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "patients"
    fovea("train", "-d", patients, "-o", folder, *TINY, "--set", "measures=true", "--set", "segmentation_weight=1")
    return folder


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_rows(path, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)


@pytest.fixture
def copied(patients, tmp_path):
    """A copy of the data that a test may spoil: the folder, its rows, and how to write them back."""
    folder = tmp_path / "patients"
    shutil.copytree(patients, folder)
    return folder, rows_of(folder / "patients.csv"), lambda rows: write_rows(folder / "patients.csv", rows)


def test_a_run_holds_model_predictions_metrics_and_a_report_that_says_simulated(patients, run):
    held_out = [row["id"] for row in rows_of(patients / "patients.csv") if row["split"] == "test"]
    predictions = rows_of(run / "predictions.csv")
    assert sorted(row["id"] for row in predictions) == held_out
    for row in predictions:
        assert abs(float(row["p_benign"]) + float(row["p_malignant"]) - 1) < 1e-5
        assert all(0 <= float(row[f"gate_{m}"]) <= 1 for m in ("ct", "table", "measures", "text"))
    metrics = json.loads((run / "metrics.json").read_text())
    assert set(metrics) == {"network", "network without ct", "network without table", "network without measures", "network without text",
                            "logistic regression on 3 columns", "patients"}
    assert "Simulated patients" in (run / "report.html").read_text()
    assert (run / "model/weights.safetensors").exists()


def test_predict_repeats_what_training_wrote_and_evaluate_scores_it(patients, run, tmp_path):
    fovea("predict", "-m", run / "model", "-i", patients, "-o", tmp_path / "all.csv", "--threads", 1)
    predicted = {row["id"]: row for row in rows_of(tmp_path / "all.csv")}
    assert len(predicted) == 32
    for row in rows_of(run / "predictions.csv"):
        assert float(row["p_malignant"]) == pytest.approx(float(predicted[row["id"]]["p_malignant"]), abs=1e-5)
    scores = json.loads(fovea("evaluate", "-p", run / "predictions.csv", "-r", patients, "--json").stdout)
    metrics = json.loads((run / "metrics.json").read_text())["network"]
    assert scores["AUC"]["value"] == pytest.approx(metrics["AUC"]["value"], abs=1e-9)
    assert scores["accuracy"]["value"] == metrics["accuracy"]["value"]


def test_new_patients_need_no_outcome_and_may_lack_a_modality(run, copied, tmp_path):
    folder, rows, write = copied
    for row in rows:
        del row["finding"], row["split"]
    rows[0].update(ct="", nodule=""), rows[1].update(age="", crp_mg_l="", smoker=""), rows[2].update(report="")
    write(rows)
    fovea("predict", "-m", run / "model", "-i", folder, "-o", tmp_path / "new.csv")
    new = rows_of(tmp_path / "new.csv")
    assert float(new[0]["gate_ct"]) == 0 and float(new[0]["gate_measures"]) == 0 and float(new[0]["gate_text"]) > 0
    assert float(new[1]["gate_table"]) == 0 and float(new[2]["gate_text"]) == 0


def test_the_page_of_a_patient_shows_gates_scan_values_and_words(patients, run, tmp_path):
    whole = next(row for row in rows_of(patients / "patients.csv") if all(row.values()))
    fovea("explain", "-m", run / "model", "-i", patients, "--patient", whole["id"], "-o", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    for text in (f"Patient {whole['id']}", "prediction without it", "as the network saw it", "crp_mg_l", whole["crp_mg_l"], whole["report"], "simulated patients"):
        assert text in page
    assert "<script" not in page and "http://" not in page.replace("http://www.w3.org", "")


def test_info_says_what_the_model_takes(run):
    (said,) = json.loads(fovea("info", run / "model", "--json").stdout)
    assert said["recipe"] == "patient" and said["simulated"] and said["modalities"] == ["ct", "table", "measures", "text"]
    assert said["outcome"]["classes"] == ["benign", "malignant"]


def test_a_run_that_exists_is_only_resumed(patients, run):
    refused("train", "-d", patients, "-o", run, *TINY, says="holds a run already", leaves=run)
    refused("train", "-d", patients, "-o", run, *TINY, "--resume", says="differs from the configuration", leaves=run)


@pytest.mark.parametrize("column, cell, says", [
    ("smoker", "sometimes", "'sometimes' is not among no, yes"), ("age", "old", "'old' is no number"), ("ct", "scans/none.nii.gz", "no file"),
    ("finding", "", "is empty, but the class is to be learnt"), ("id", "p000", "two rows are called 'p000'")])
def test_one_line_says_which_patient_and_column_is_wrong(copied, tmp_path, column, cell, says):
    folder, rows, write = copied
    rows[5][column] = cell
    write(rows)
    refused("train", "-d", folder, "-o", tmp_path / "run", *TINY, says=says)
    assert not (tmp_path / "run").exists()


def test_a_mask_of_another_patient_is_refused(copied, tmp_path):
    folder, rows, write = copied
    first, second = (row for row in rows[:4] if row["ct"]) if sum(bool(r["ct"]) for r in rows[:4]) == 2 else (rows[0], rows[1])
    first["nodule"] = second["nodule"]  # stored the other way round: another grid
    write(rows)
    refused("train", "-d", folder, "-o", tmp_path / "run", *TINY, says="its grid differs from the image's")


def test_flags_of_segmentation_are_refused_for_patients(patients, run, tmp_path):
    refused("predict", "-m", run / "model", "-i", patients, "-o", tmp_path / "o.csv", "--overlap", 0.5, says="--overlap is for segmentation")
    refused("explain", "-m", run / "model", "-i", patients, "-o", tmp_path / "o.html", says="say which with --patient")
    refused("explain", "-m", run / "model", "-i", patients, "--patient", "p00", "-o", tmp_path / "o.html", says="did you mean 'p00")
    refused("train", "-d", patients, "-o", tmp_path / "run", "--augment", "none", *TINY, says="--augment is for segmentation")


def test_survival_is_learnt_from_a_table_alone(tmp_path):
    rows = [{"id": i, "age": 40 + i % 30, "stage": "ABC"[i % 3], "days": 10 + (i * 37) % 50 + 20 * (i % 3), "dead": int(i % 4 != 0)} for i in range(60)]
    folder = tmp_path / "table"
    folder.mkdir()
    write_rows(folder / "patients.csv", rows)
    (folder / "patients.json").write_text(json.dumps({"numbers": ["age"], "categories": {"stage": ["A", "B", "C"]}, "time": "days", "event": "dead"}))
    for outcome in ("cox", "logistic_hazard", "mtlr", "deephit"):
        run = tmp_path / outcome
        fovea("train", "-d", folder, "-o", run, "--fold", 0, "--set", f"outcome={outcome}", "--set", "intervals=4", *TINY)
        rows = rows_of(run / "predictions.csv")
        assert len(rows) == 12 and all("risk" in row for row in rows)
        survival = [[float(v) for k, v in row.items() if k.startswith("survival_")] for row in rows]
        assert all(s == sorted(s, reverse=True) and all(0 < p <= 1 for p in s) for s in survival) and len(survival[0]) >= 3
        assert 0 < json.loads((run / "metrics.json").read_text())["network"]["Brier score"]["value"] < 0.3
        assert 0 <= json.loads((run / "metrics.json").read_text())["network"]["C-index"]["value"] <= 1
    (folder / "patients.json").write_text('{"numbers": ["age"]}')
    refused("train", "-d", folder, "-o", tmp_path / "none", *TINY, says="nothing to predict")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A folder of data that holds a small BERT with drawn weights in the place of MiniLM."""
    torch = pytest.importorskip("torch", reason="no torch: run scripts/setup")
    transformers = pytest.importorskip("transformers", reason="no transformers to make a small BERT with: run scripts/setup")
    from safetensors.torch import save_file
    folder = tmp_path_factory.mktemp("frozen") / "minilm"
    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"nodule in the right left lung , . mm it has grown since last scan not 2 3".split(), *(f"##{n}" for n in range(10))]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    config = transformers.BertConfig(vocab_size=len(words), hidden_size=24, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, max_position_embeddings=64)
    torch.manual_seed(0)
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    save_file(transformers.BertModel(config).state_dict(), folder / "model.safetensors")
    return folder


def test_a_frozen_encoder_reads_the_texts_and_must_be_the_one_of_training(patients, encoder, tmp_path):
    env = {**os.environ, "FOVEA_DATA": str(encoder.parent)}
    words = ("train", "-d", patients, "-o", tmp_path / "run", *TINY, "--set", "text_encoder=minilm")
    nowhere = {**os.environ, "FOVEA_DATA": str(tmp_path / "nowhere")}
    refused(*words, says=("minilm", "is not there", "scripts/data minilm"), env=nowhere)
    assert not (tmp_path / "run").exists()
    fovea(*words, env=env)
    model = tmp_path / "run/model"
    fovea("predict", "-m", model, "-i", patients, "-o", tmp_path / "all.csv", "--threads", 1, env=env)
    predicted = {row["id"]: row for row in rows_of(tmp_path / "all.csv")}
    for row in rows_of(tmp_path / "run/predictions.csv"):
        assert float(row["p_malignant"]) == pytest.approx(float(predicted[row["id"]]["p_malignant"]), abs=1e-5)
        assert 0 < float(row["gate_text"]) < 1
    whole = next(row for row in rows_of(patients / "patients.csv") if all(row.values()))
    fovea("explain", "-m", model, "-i", patients, "--patient", whole["id"], "-o", tmp_path / "page.html", env=env)
    assert "[CLS]" in (tmp_path / "page.html").read_text() and "nodule" in (tmp_path / "page.html").read_text()
    refused("predict", "-m", model, "-i", patients, "-o", tmp_path / "no.csv", says=("minilm", "is not there"), env=nowhere)
    other = tmp_path / "other/minilm"
    shutil.copytree(encoder, other)
    with open(other / "model.safetensors", "r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x3f")
    refused("predict", "-m", model, "-i", patients, "-o", tmp_path / "no.csv", says="is another text encoder than in training", env={**os.environ, "FOVEA_DATA": str(other.parent)})


def test_a_frozen_encoder_needs_texts(copied, tmp_path):
    folder, rows, write = copied
    columns = json.loads((folder / "patients.json").read_text())
    del columns["texts"]
    (folder / "patients.json").write_text(json.dumps(columns))
    for row in rows:
        del row["report"]
    write(rows)
    refused("train", "-d", folder, "-o", tmp_path / "run", *TINY, "--set", "text_encoder=minilm", says='text_encoder is minilm, but patients.json names no "texts"')


def test_outlines_lie_on_the_scans_own_grid_in_any_orientation(patients, run, copied, tmp_path):
    nibabel = pytest.importorskip("nibabel", reason="no nibabel: run scripts/setup")
    import numpy as np
    folder, rows, write = copied
    given = [row for row in rows if row["ct"]][:3]
    scans = {}
    for row, code in zip(given, ("RAS", "LPS", "AIR")):
        for column in ("ct", "nodule"):
            image = nibabel.load(folder / row[column])
            turn = nibabel.orientations.ornt_transform(nibabel.io_orientation(image.affine), nibabel.orientations.axcodes2ornt(code))
            nibabel.save(image.as_reoriented(turn), folder / row[column])
        scans[row["id"]] = nibabel.load(folder / row["ct"])
    without = next(dict(row, ct="", nodule="") for row in rows if row not in given)
    write([*given, without])
    fovea("predict", "-m", run / "model", "-i", folder, "-o", tmp_path / "new.csv", "--outlines", tmp_path / "outlines", "--threads", 1)
    assert sorted(p.name for p in (tmp_path / "outlines").iterdir()) == sorted(f"{i}.nii.gz" for i in scans)
    fovea("predict", "-m", run / "model", "-i", patients, "-o", tmp_path / "all.csv", "--outlines", tmp_path / "straight", "--threads", 1)
    for name, scan in scans.items():
        outline = nibabel.load(tmp_path / f"outlines/{name}.nii.gz")
        assert outline.shape == scan.shape and np.allclose(outline.affine, scan.affine) and outline.get_data_dtype() == np.uint8
        straight = nibabel.as_closest_canonical(nibabel.load(tmp_path / f"straight/{name}.nii.gz"))
        assert np.mean(np.asarray(nibabel.as_closest_canonical(outline).dataobj) != np.asarray(straight.dataobj)) < 1e-3, "a stored orientation changes no outline"


def test_outlines_need_a_model_that_outlines_and_ids_that_name_files(patients, run, copied, tmp_path):
    fovea("train", "-d", patients, "-o", tmp_path / "run", *TINY)
    refused("predict", "-m", tmp_path / "run/model", "-i", patients, "-o", tmp_path / "new.csv", "--outlines", tmp_path / "outlines", says="was not trained to outline")
    folder, rows, write = copied
    rows[0]["id"] = "../p"
    write(rows)
    refused("predict", "-m", run / "model", "-i", folder, "-o", tmp_path / "new.csv", "--outlines", tmp_path / "outlines", says="patient '../p' cannot name a file")
    assert not (tmp_path / "outlines").exists() and not (tmp_path / "p.nii.gz").exists()
