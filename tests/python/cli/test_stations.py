"""A table of measurements becomes a model, values where nobody measured, scores and who told a value; what is wrong in it is said in a line."""
import csv
import json
import math
import pathlib
import random
import signal
import time

import pytest
from program import digest, fovea, refused, start, wait_for_steps

SHORT = ["--set", "simulated_steps=150", "--set", "train.steps_per_epoch=20", "--steps", 60, "--seed", 3, "--no-progress"]
STATIONS, DAYS = 24, 30


def write(path, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
    return path


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def measured():
    """Waves of 300 km that move, stations on a flat map of 400 km; a fifth of the values are missing."""
    draw = random.Random(7)
    places = [(400 * draw.random(), 400 * draw.random()) for _ in range(STATIONS)]
    return [{"time": f"2020-01-{day + 1:02}", "station": f"s{s}", "x_km": f"{x:.3f}", "y_km": f"{y:.3f}", "height": f"{draw.random():.3f}",
             "value": f"{20 + 5 * math.sin(x / 50 + day) + 3 * math.cos(y / 50) + draw.gauss(0, .3):.4f}"}
            for day in range(DAYS) for s, (x, y) in enumerate(places) if draw.random() > .2]


@pytest.fixture(scope="module")
def table(measured, tmp_path_factory):
    return write(tmp_path_factory.mktemp("data") / "measured.csv", measured)


@pytest.fixture(scope="module")
def run(table, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "stations"
    fovea("train", "-d", table, "-o", folder, "--set", "columns.x_km=x_km", "--set", "columns.y_km=y_km", "--set", "columns.covariates=[\"height\"]", *SHORT)
    return folder


def test_the_result_stands_beside_kriging_and_the_simple_methods(run):
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["rmse"]["network"] < 0.7 * metrics["rmse"]["mean_of_others"]
    assert set(metrics["rmse"]) == {"network", "kriging", "kriging_of_logarithms", "kernel", "inverse_distance", "mean_of_others"}
    left_out = rows_of(run / "predictions.csv")
    assert len(left_out) == metrics["values"] and {row["time"] for row in left_out} == {f"2020-01-{day}" for day in range(25, 31)}
    squared = sum((float(row["mean"]) - float(row["value"])) ** 2 for row in left_out) / len(left_out)
    assert math.sqrt(squared) == pytest.approx(metrics["rmse"]["network"], rel=1e-6)
    report = (run / "report.html").read_text()
    assert "ordinary kriging" in report and "Stations told worst" in report


def test_empty_cells_and_a_second_file_of_places_are_told_and_scored(run, measured, table, tmp_path):
    gaps = [dict(row, value="" if i % 5 == 0 else row["value"]) for i, row in enumerate(measured)]
    asked = [{"time": "2020-01-30", "station": f"grid {i}", "x_km": 40 * i, "y_km": 200, "height": .5} for i in range(10)]
    fovea("predict", "-m", run / "model", "-i", write(tmp_path / "gaps.csv", gaps), "-i", write(tmp_path / "asked.csv", asked), "-o", tmp_path / "told.csv")
    told = rows_of(tmp_path / "told.csv")
    assert list(told[0]) == ["time", "station", "value", "value_low", "value_high"]
    assert len(told) == 10 + len(measured[::5])
    assert all(float(row["value_low"]) < float(row["value"]) < float(row["value_high"]) for row in told)
    scores = json.loads(fovea("evaluate", "-p", tmp_path / "told.csv", "-r", table, "--json").stdout)
    known = {(row["time"], row["station"]): float(row["value"]) for row in measured}
    errors = [float(row["value"]) - known[row["time"], row["station"]] for row in told if not row["station"].startswith("grid")]
    assert scores["RMSE"]["value"] == pytest.approx(math.sqrt(sum(e * e for e in errors) / len(errors)), rel=1e-6)
    assert scores["RMSE"]["low"] < scores["RMSE"]["value"] < scores["RMSE"]["high"] < 3.5


def test_the_told_value_is_the_sum_of_what_its_weights_say(run, table, tmp_path):
    """A value that rises by 1 moves what is told by its weight, and the weights say how much of each."""
    fovea("explain", "-m", run / "model", "-i", table, "--station", "s3", "--time", "2020-01-09", "-o", tmp_path / "who")
    before, weights = json.loads((tmp_path / "who/explain.json").read_text()), rows_of(tmp_path / "who/weights.csv")
    assert before["stations"] == len(weights) and "s3" not in {row["station"] for row in weights}
    assert sum(float(row["weight"]) for row in weights) == pytest.approx(before["sum_of_weights"], abs=1e-4)
    assert all(math.hypot(float(row["east_km"]), float(row["north_km"])) == pytest.approx(float(row["distance_km"]), abs=.01) for row in weights)
    raised = [dict(row, value=float(row["value"]) + (row["station"] == weights[0]["station"] and row["time"] == "2020-01-09")) for row in rows_of(table)]
    fovea("explain", "-m", run / "model", "-i", write(tmp_path / "raised.csv", raised), "--station", "s3", "--time", "2020-01-09", "-o", tmp_path / "again")
    after = json.loads((tmp_path / "again/explain.json").read_text())
    assert after["told"] - before["told"] == pytest.approx(float(weights[0]["weight"]), abs=1e-4)
    assert "<svg" in (tmp_path / "who/map.svg").read_text()


def test_info_says_what_a_model_tells(run):
    model = json.loads(fovea("info", run / "model", "--json").stdout)[0]
    assert (model["recipe"], model["tells"], model["columns"]["covariates"]) == ("station", "value", ["height"])


def test_a_run_that_is_interrupted_goes_on_to_the_same_bits(run, table, tmp_path):
    words = ["train", "-d", table, "-o", tmp_path / "run", "--set", "columns.x_km=x_km", "--set", "columns.y_km=y_km", "--set", "columns.covariates=[\"height\"]", *SHORT]
    process = start(words)
    wait_for_steps(process, tmp_path / "run", 5)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 3
    time.sleep(.1)
    fovea(*words, "--resume")
    assert digest(tmp_path / "run/model/weights.safetensors") == digest(run / "model/weights.safetensors")


def test_stations_that_are_held_out_alone_are_scored(table, tmp_path):
    fovea("train", "-d", table, "-o", tmp_path / "run", "--fold", 1, "--set", "columns.x_km=x_km", "--set", "columns.y_km=y_km", *SHORT)
    assert 4 <= len({row["station"] for row in rows_of(tmp_path / "run/predictions.csv")}) <= 5
    assert "not learnt from" in (tmp_path / "run/report.html").read_text()


@pytest.mark.parametrize("spoil, says", [
    (lambda rows: rows[5].update(x_km=""), ["station", "has no place"]),
    (lambda rows: rows[5].update(value="12,5x"), ["value", "12,5x"]),
    (lambda rows: rows.append(dict(rows[5])), ["stands in two lines"]),
    (lambda rows: rows[5].update(x_km="7"), ["is not where it was before"]),
    (lambda rows: rows.__setitem__(slice(None), [row for row in rows if row["station"] in ("s0", "s1", "s2", "s3")]), ["4 stations, expected 5 or more"]),
    (lambda rows: [row.update(value="") for row in rows], ["no time with 5 stations"]),
], ids=["no-place", "no-number", "twice", "moved", "few", "empty"])
def test_a_table_that_cannot_be_learnt_is_one_line(measured, tmp_path, spoil, says):
    rows = [dict(row) for row in measured]
    spoil(rows)
    path = write(tmp_path / "spoilt.csv", rows)
    refused("train", "-d", path, "-o", tmp_path / "run", "--set", "columns.x_km=x_km", "--set", "columns.y_km=y_km", *SHORT, says=says)
    assert not (tmp_path / "run").exists()


def test_a_line_that_is_no_row_is_named(table, tmp_path):
    broken = tmp_path / "broken.csv"
    broken.write_text(pathlib.Path(table).read_text() + "2020-01-30,s1\n")
    lines = len(broken.read_text().splitlines())
    refused("train", "-d", broken, "-o", tmp_path / "run", says=["broken.csv", f"line {lines}", "found 2 cells"])


def test_wrong_columns_times_and_flags_are_one_line(run, table, measured, tmp_path):
    flat = ["--set", "columns.x_km=x_km", "--set", "columns.y_km=y_km"]
    refused("train", "-d", table, "-o", tmp_path / "run", *flat, "--set", "columns.value=pm10", says=["pm10", "value"])
    refused("train", "-d", table, "-o", tmp_path / "run", *flat, "--set", "test_from=2021", says=["2020-01-01", "2020-01-30", "test_from=2021"])
    refused("train", "-d", table, "-o", tmp_path / "run", *flat, "--set", "scale=rot", says=["root"])
    refused("train", "-d", table, "-o", tmp_path / "run", "--pretrain", says=["--pretrain", "stations"])
    refused("predict", "-m", run / "model", "-i", table, "-o", tmp_path / "told.csv", says=["every line has a value"])
    refused("explain", "-m", run / "model", "-i", table, "--station", "s33", "--time", "2020-01-09", "-o", tmp_path / "who", says=["s33", "did you mean"])
    refused("explain", "-m", run / "model", "-i", table, "-o", tmp_path / "who", says=["--station and --time"])
    other = write(tmp_path / "other.csv", [dict(row, time=row["time"].replace("2020", "1999")) for row in measured])
    gap = write(tmp_path / "gap.csv", [dict(measured[0], value="")] + measured[1:])
    fovea("predict", "-m", run / "model", "-i", gap, "-o", tmp_path / "told.csv")
    refused("evaluate", "-p", tmp_path / "told.csv", "-r", other, says=["has none of the values"])
