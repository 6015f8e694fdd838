"""Whole slides through the program: simulated pyramids with planted tumours, from the file to the pathologist's heat map."""
import csv
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time
import xml.etree.ElementTree as xml

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

BUILD = pathlib.Path(os.environ.get("FOVEA_BUILD", "build/release")).resolve()
PROGRAM, PROBE = BUILD / "fovea", BUILD / "fovea_slides_probe"
TILES = ["--tile-um", "1", "--tile-px", "64"]

if not PROGRAM.exists() or not PROBE.exists():
    pytest.skip(f"{PROGRAM} is not built", allow_module_level=True)


def fovea(*words, code=0):
    done = subprocess.run([PROGRAM, *map(str, words)], capture_output=True, text=True, timeout=600)
    assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def refused(*words, says):
    done = fovea(*words, code=2)
    lines = done.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("fovea: ") and says in lines[0], done.stderr
    return lines[0]


def phantom(path, seed, tumours, um="1.0", *glass):
    done = subprocess.run([PROBE, "phantom", path, str(seed), str(tumours), um, *glass], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["tumours"]


@pytest.fixture(scope="module")
def study():
    """16 slides of 16 cases, every second one with a tumour; features made by `fovea import`."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if pathlib.Path("/dev/shm").is_dir() else None) as folder:
        root = pathlib.Path(folder)
        (root / "slides").mkdir()
        root_tumours, lines = {}, ["case_id,slide_id,label"]
        for i in range(16):
            root_tumours[f"s{i}"] = phantom(root / f"slides/s{i}.tif", i, i % 2)
            lines.append(f"c{i},s{i},{'tumour' if i % 2 else 'normal'}")
        (root / "slides.csv").write_text("\n".join(lines) + "\n")
        (root / "slides.json").write_text('{"name": "simulated slides", "simulated": true}')
        fovea("import", root / "slides", "-o", root, *TILES)
        fovea("train", "-d", root, "-o", root / "run", "--fold", "0", "--steps", "400", "--set", "width=64", "--set", "hidden=32", "--seed", "1")
        yield root, root_tumours


def inside(x, y, edge, tumours):
    """Whether a tile's middle lies in a tumour."""
    return any(np.hypot(x + edge / 2 - t["x"], y + edge / 2 - t["y"]) < t["radius"] for t in tumours)


def test_training_leaves_scores_of_held_out_slides_beside_baselines_and_evaluate_repeats_them(study):
    root, _ = study
    metrics = json.loads((root / "run/metrics.json").read_text())
    assert metrics["slides"] == 4 and len(metrics) == 4
    assert metrics["network"]["AUC"]["low"] <= metrics["network"]["AUC"]["value"] <= metrics["network"]["AUC"]["high"]
    again = json.loads(fovea("evaluate", "-p", root / "run/predictions.csv", "-r", root, "--json").stdout)
    assert again["AUC"]["value"] == pytest.approx(metrics["network"]["AUC"]["value"])
    page = (root / "run/report.html").read_text()
    assert "Simulated slides" in page and "logistic regression on a slide" in page
    info = json.loads(fovea("info", root / "run/model", "--json").stdout)[0]
    assert info["recipe"] == "slide" and info["encoder"] == "colour-texture-48" and info["simulated"]


def test_prediction_of_a_table_without_labels_ranks_tumours_first(study):
    root, _ = study
    with tempfile.TemporaryDirectory() as folder:
        table = pathlib.Path(folder) / "slides.csv"
        table.write_text("case_id,slide_id\n" + "".join(f"c{i},s{i}\n" for i in range(16)))
        fovea("predict", "-m", root / "run/model", "-i", table, "--features", root, "-o", f"{folder}/p.csv")
        rows = list(csv.DictReader(open(f"{folder}/p.csv")))
        scores = [float(r["p_tumour"]) for r in rows]
        assert min(scores[1::2]) > max(scores[0::2])
        assert all(1 <= float(r["effective_tiles"]) <= int(r["tiles"]) for r in rows)
        refused("predict", "-m", root / "run/model", "-i", table, "-o", f"{folder}/p.csv", says="has no features of slide 's0'")


def test_the_heat_map_lies_on_the_tumour_in_every_file_that_shows_it(study, tmp_path):
    root, tumours = study
    fovea("explain", "-m", root / "run/model", "-i", root / "slides/s3.tif", "--features", root, "-o", tmp_path)
    with h5py.File(root / "h5_files/s3.h5") as f:
        coords, edge = f["coords"][:], int(f["coords"].attrs["patch_size_level0"])
    collection = json.loads((tmp_path / "attention.geojson").read_text())
    assert collection["type"] == "FeatureCollection" and len(collection["features"]) == len(coords)
    weights, where = [], []
    for feature, (x, y) in zip(collection["features"], coords):  # exact, and in the order of the features
        assert feature["type"] == "Feature" and feature["geometry"]["type"] == "Polygon"
        assert feature["geometry"]["coordinates"] == [[[x, y], [x + edge, y], [x + edge, y + edge], [x, y + edge], [x, y]]]
        assert feature["properties"]["objectType"] == "tile" and 0 < feature["properties"]["measurements"]["attention percentile"] <= 1
        weights.append(feature["properties"]["measurements"]["attention"])
        where.append(inside(x, y, edge, tumours["s3"]))
    assert sum(weights) == pytest.approx(1, abs=1e-4)
    weights, where = np.array(weights), np.array(where)
    assert (weights[where][:, None] > weights[~where][None]).mean() >= 0.9, "AUC of the attention for tumour tiles"
    rows = list(csv.DictReader(open(tmp_path / "attention.csv")))
    assert [(int(r["x"]), int(r["y"])) for r in rows] == [tuple(c) for c in coords]
    # The picture: brighter over the tumour than over other tissue.
    heat, plain = np.asarray(Image.open(tmp_path / "heat_map.png"), float), np.asarray(Image.open(tmp_path / "overview.png"), float)
    assert heat.shape == plain.shape == (1280, 1408, 3)
    red = heat[..., :2].sum(2)
    best, worst = coords[weights.argmax()], coords[weights.argmin()]
    assert red[best[1] + 9 : best[1] + 50, best[0] + 9 : best[0] + 50].mean() > red[worst[1] + 9 : worst[1] + 50, worst[0] + 9 : worst[0] + 50].mean()


def test_the_deep_zoom_pyramid_is_whole_and_its_tiles_join_to_the_picture(study, tmp_path):
    root, _ = study
    fovea("explain", "-m", root / "run/model", "-i", root / "slides/s1.tif", "-o", tmp_path, "--deep-zoom-um", "1")
    image = xml.parse(tmp_path / "attention.dzi").getroot()
    ns = "{http://schemas.microsoft.com/deepzoom/2008}"
    size, tile, overlap = image.find(ns + "Size"), int(image.get("TileSize")), int(image.get("Overlap"))
    width, height = int(size.get("Width")), int(size.get("Height"))
    assert (width, height) == (1408, 1280)
    levels = sorted(int(p.name) for p in (tmp_path / "attention_files").iterdir())
    assert levels == list(range(12))  # 2^11 >= 1408
    whole = np.zeros((height, width, 3), np.uint8)
    for level in levels:
        w, h = -(-width // 2 ** (11 - level)), -(-height // 2 ** (11 - level))
        files = list((tmp_path / f"attention_files/{level}").iterdir())
        assert len(files) == -(-w // tile) * -(-h // tile)
        for file in files:
            column, row = map(int, file.stem.split("_"))
            pixels = np.asarray(Image.open(file))
            x, y = max(0, column * tile - overlap), max(0, row * tile - overlap)
            assert pixels.shape[:2] == (min(h, (row + 1) * tile + overlap) - y, min(w, (column + 1) * tile + overlap) - x)
            if level == 11:
                whole[y : y + pixels.shape[0], x : x + pixels.shape[1]] = pixels
    np.testing.assert_array_equal(whole, np.asarray(Image.open(tmp_path / "heat_map.png")))


def test_without_a_feature_file_the_same_map_is_made_from_the_slide_alone(study, tmp_path):
    root, _ = study
    fovea("explain", "-m", root / "run/model", "-i", root / "slides/s5.tif", "-o", tmp_path / "a")
    fovea("explain", "-m", root / "run/model", "-i", root / "slides/s5.tif", "--features", root / "h5_files/s5.h5", "-o", tmp_path / "b")
    assert (tmp_path / "a/attention.csv").read_bytes() == (tmp_path / "b/attention.csv").read_bytes()


def test_a_training_that_was_killed_goes_on_to_the_same_bits(study, tmp_path):
    root, _ = study
    words = ["train", "-d", root, "--fold", "1", "--steps", "200", "--set", "width=32", "--set", "network=clam_sb", "--set", "train.steps_per_epoch=10"]
    fovea(*words, "-o", tmp_path / "whole")
    running = subprocess.Popen([PROGRAM, *map(str, words), "-o", str(tmp_path / "cut")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while running.poll() is None and not list((tmp_path / "cut").glob("checkpoints/*")):
        time.sleep(0.02)
    running.send_signal(signal.SIGKILL)
    running.wait()
    if not (tmp_path / "cut/model").exists():
        fovea(*words, "-o", tmp_path / "cut", "--resume")
    for name in ["model/weights.safetensors", "log.csv", "predictions.csv"]:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes(), name


def test_clams_own_checkpoint_predicts_from_clams_own_folder(tmp_path):
    g = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=g) * 0.05  # noqa: E731
    state = {"attention_net.0.weight": draw(512, 1024), "attention_net.0.bias": draw(512)}
    for name, rows in [("attention_a.0", 256), ("attention_b.0", 256)]:
        state |= {f"attention_net.3.{name}.weight": draw(rows, 512), f"attention_net.3.{name}.bias": draw(rows)}
    state |= {"attention_net.3.attention_c.weight": draw(1, 256), "attention_net.3.attention_c.bias": draw(1), "classifiers.weight": draw(2, 512), "classifiers.bias": draw(2)}
    for c in range(2):
        state |= {f"instance_classifiers.{c}.weight": draw(2, 512), f"instance_classifiers.{c}.bias": draw(2)}
    torch.save(state, tmp_path / "s_0_checkpoint.pt")
    x = torch.randn(50, 1024, generator=g)
    (tmp_path / "pt_files").mkdir()
    torch.save(x, tmp_path / "pt_files/a.pt")
    (tmp_path / "slides.csv").write_text("case_id,slide_id,label\nc,a,tumor\n")
    fovea("import", tmp_path / "s_0_checkpoint.pt", "-o", tmp_path / "model", "--classes", "normal,tumor")
    fovea("predict", "-m", tmp_path / "model", "-i", tmp_path, "-o", tmp_path / "p.csv")
    row = next(csv.DictReader(open(tmp_path / "p.csv")))
    h = torch.relu(x @ state["attention_net.0.weight"].T + state["attention_net.0.bias"])
    a = torch.tanh(h @ state["attention_net.3.attention_a.0.weight"].T + state["attention_net.3.attention_a.0.bias"])
    b = torch.sigmoid(h @ state["attention_net.3.attention_b.0.weight"].T + state["attention_net.3.attention_b.0.bias"])
    weights = torch.softmax((a * b) @ state["attention_net.3.attention_c.weight"].T + state["attention_net.3.attention_c.bias"], 0)
    logits = (weights * h).sum(0) @ state["classifiers.weight"].T + state["classifiers.bias"]
    assert float(row["p_tumor"]) == pytest.approx(torch.softmax(logits, 0)[1].item(), abs=1e-6)
    refused("explain", "-m", tmp_path / "model", "-i", tmp_path / "none.tif", "-o", tmp_path / "x", says="no such file")


def test_what_cannot_be_is_one_line(study, tmp_path):
    root, _ = study
    model = root / "run/model"
    phantom(tmp_path / "glass.tif", 0, 0, "1.0", "glass")
    refused("import", tmp_path / "glass.tif", "-o", tmp_path / "f", *TILES, says="holds no tissue")
    phantom(tmp_path / "unknown.tif", 0, 0, "none")
    refused("import", tmp_path / "unknown.tif", "-o", tmp_path / "f", *TILES, says="give it with --um-per-pixel")
    fovea("import", tmp_path / "unknown.tif", "-o", tmp_path / "f", *TILES, "--um-per-pixel", "1")
    refused("import", tmp_path / "unknown.tif", "-o", tmp_path / "f", "--um-per-pixel", "1", says="give --tile-um 1.0")
    whole = (root / "slides/s1.tif").read_bytes()
    (tmp_path / "cut.tif").write_bytes(whole[: len(whole) // 2])
    refused("import", tmp_path / "cut.tif", "-o", tmp_path / "f", *TILES, says="truncated")
    refused("explain", "-m", model, "-i", tmp_path / "cut.tif", "-o", tmp_path / "h", says="truncated")
    (tmp_path / "bad").mkdir()
    shutil.copy(root / "slides/s1.tif", tmp_path / "bad/a.tif")
    shutil.copy(tmp_path / "cut.tif", tmp_path / "bad/b.tif")
    done = fovea("import", tmp_path / "bad", "-o", tmp_path / "g", *TILES, code=2)
    assert (tmp_path / "g/h5_files/a.h5").exists() and "1 of its 2 slides" in done.stderr.splitlines()[-1]
    features = torch.rand(5, 48)
    torch.save(features, tmp_path / "a.pt")
    refused("explain", "-m", model, "-i", root / "slides/s1.tif", "--features", tmp_path / "a.pt", "-o", tmp_path / "h", says="has no coordinates")
    torch.save({"features": features, "coords": 90000 + 64 * torch.arange(10).reshape(5, 2)}, tmp_path / "a.pt")
    refused("explain", "-m", model, "-i", root / "slides/s1.tif", "--features", tmp_path / "a.pt", "-o", tmp_path / "h", says="features of another slide")
    torch.save({"features": features[:4], "coords": torch.zeros(5, 2, dtype=torch.int64)}, tmp_path / "a.pt")
    refused("explain", "-m", model, "-i", root / "slides/s1.tif", "--features", tmp_path / "a.pt", "-o", tmp_path / "h", says="4 rows of features and 5 coordinates")
    torch.save({"features": features[:, :7], "coords": 64 * torch.arange(10).reshape(5, 2)}, tmp_path / "a.pt")
    refused("explain", "-m", model, "-i", root / "slides/s1.tif", "--features", tmp_path / "a.pt", "-o", tmp_path / "h", says="the model takes 48")
    refused("train", "-d", root, "-o", tmp_path / "r", "--set", "network=clamsb", says="clam_sb")
    refused("train", "-d", root, "-o", tmp_path / "r", "--augment", "strong", says="table of slides")
    refused("predict", "-m", model, "-i", root, "-o", tmp_path / "p.csv", "--preset", "monai", says="is for segmentation")
    assert not (tmp_path / "r").exists()
