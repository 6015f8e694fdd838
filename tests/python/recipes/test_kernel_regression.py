"""Kernel regression through attention against statsmodels' KernelReg: values, and each sample predicted from the others."""
import os
import pathlib
import subprocess

import numpy as np
import pytest
from statsmodels.nonparametric.kernel_regression import KernelReg

PROBE = pathlib.Path(os.environ.get("FOVEA_BUILD", "build/release")).resolve() / "fovea_kernel_regression_probe"
KIND = {"constant": "lc", "plane": "ll"}


def samples(n, axes, seed=0):
    random = np.random.default_rng(seed)
    x = random.uniform(-1, 2, (n, axes))
    return x, np.sin(2 * x).sum(1) + 0.3 * random.normal(size=n)


def save(path, matrix):
    np.savetxt(path, matrix, delimiter=",", fmt="%.17g", comments="", header=",".join(f"c{i}" for i in range(matrix.shape[1])))
    return path


def ours(folder, x, y, places, fit, bandwidth):
    words = [PROBE, save(folder / "samples.csv", np.column_stack([x, y])), save(folder / "places.csv", places), fit, *map(str, bandwidth)]
    lines = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    there = np.array([line.split() for line in lines[:len(places)]], float)
    return there[:, 0], there[:, 1], np.array(lines[len(places):], float)


def oracle(x, y, fit, bandwidth, places):
    return KernelReg(y, x, "c" * x.shape[1], KIND[fit], list(bandwidth)).fit(places)[0]


@pytest.mark.parametrize("fit", ["constant", "plane"])
@pytest.mark.parametrize("axes,bandwidth", [(1, [0.2]), (1, [0.05]), (2, [0.3, 0.5]), (3, [0.5, 0.7, 0.4])])
def test_values_equal_statsmodels(tmp_path, fit, axes, bandwidth):
    x, y = samples(120, axes)
    places = np.random.default_rng(1).uniform(-1, 2, (40, axes))
    value, _, _ = ours(tmp_path, x, y, places, fit, bandwidth)
    assert np.abs(value - oracle(x, y, fit, bandwidth, places)).max() <= 1e-8


@pytest.mark.parametrize("fit", ["constant", "plane"])
def test_left_out_values_equal_statsmodels_without_the_sample(tmp_path, fit):
    x, y = samples(40, 2)
    _, _, left_out = ours(tmp_path, x, y, x[:1], fit, [0.5, 0.6])
    for i in range(len(y)):
        others = np.arange(len(y)) != i
        assert abs(left_out[i] - oracle(x[others], y[others], fit, [0.5, 0.6], x[i:i + 1])[0]) <= 1e-8


@pytest.mark.parametrize("fit", ["constant", "plane"])
def test_weight_norms_are_those_of_the_smoother(tmp_path, fit):
    """Column j of the smoother is its answer to values that are 1 at sample j and 0 elsewhere."""
    x, y = samples(30, 2)
    places = x[:5] + 0.05
    _, norm, _ = ours(tmp_path, x, y, places, fit, [0.5, 0.6])
    rows = np.stack([ours(tmp_path, x, np.eye(len(y))[j], places, fit, [0.5, 0.6])[0] for j in range(len(y))])
    assert np.abs(norm - np.sqrt((rows ** 2).sum(0))).max() <= 1e-9


def test_a_place_far_from_all_samples_takes_the_nearest_value(tmp_path):
    x, y = samples(20, 1)
    value, _, _ = ours(tmp_path, x, y, np.array([[1e4]]), "constant", [0.1])
    assert value[0] == pytest.approx(y[np.argmax(x[:, 0])], abs=1e-12)


def test_a_coordinate_that_is_no_number_is_one_line(tmp_path):
    (tmp_path / "samples.csv").write_text("x,y\n1,2\nfar,3\n")
    done = subprocess.run([PROBE, tmp_path / "samples.csv", tmp_path / "samples.csv", "constant", "1"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert "line 3, column x: 'far' is no number" in done.stderr and done.stderr.count("\n") == 1
