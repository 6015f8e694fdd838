"""fovea cost: the figures of the textbook, what is refused, and what a user can get wrong."""
import json

import nibabel as nib
import numpy as np
import pytest
from program import fovea, refused


def plan(section, attention):
    return next(p for p in section["plans"] if p["attention"] == attention)


def test_windows_of_8_on_128_save_4096_on_voxels_and_8_on_patches():
    answer = json.loads(fovea("cost", 128, "--window", 8, "--json").stdout)
    voxels, patches = answer["grids"]
    assert (voxels["tokens"], patches["tokens"]) == (2097152, 4096)
    assert voxels["windows_save"]["dot_products"] == 4096 and patches["windows_save"]["dot_products"] == 8
    assert 3449 <= voxels["windows_save"]["with_projections"] < 3450
    assert plan(voxels, "global")["dot_products_a_head"] == 4398046511104
    assert plan(voxels, "windows")["plain_score_bytes"] == 3 * 4 * 2**30
    assert plan(voxels, "windows")["lse_bytes"] == 3 * 2097152 * 4
    assert plan(voxels, "shifted")["dot_products_a_head"] < plan(voxels, "windows")["dot_products_a_head"]
    assert answer["machine"]["memory_bytes"] > 0


def test_the_table_names_every_kind_of_attention():
    lines = fovea("cost", "64,32,16", "--patch", "4,4,2", "--heads", 6).stdout.splitlines()
    assert any("1024 tokens (16x8x8)" in line for line in lines)
    assert {line.split()[0] for line in lines[-5:]} == {"global", "windows", "shifted", "axes"}


def test_a_token_for_each_voxel_is_refused_with_the_reason():
    line = refused("cost", 128, "--patch", 1, "--attention", "global", "--max-time", "1s", code=3,
                   says=["2097152 tokens", "4398046511104 dot products", "16 TiB"])
    assert "use windows or larger patches" in line


def test_the_whole_table_says_which_row_is_refused_and_ends_well():
    out = fovea("cost", 128, "--patch", 1, "--max-time", "1s").stdout
    assert "global attention refused: 2097152 tokens" in out and "windows attention refused" not in out


def test_the_grid_can_come_from_a_scan(tmp_path):
    nib.save(nib.Nifti1Image(np.zeros((30, 20, 10), np.uint8), np.eye(4)), tmp_path / "scan.nii.gz")
    answer = json.loads(fovea("cost", "--image", tmp_path / "scan.nii.gz", "--patch", 4, "--json").stdout)
    assert answer["voxels"] == [10, 20, 30] and answer["grids"][0]["token_grid"] == [3, 5, 8]


def test_a_window_larger_than_the_grid_is_clipped_to_it():
    section = json.loads(fovea("cost", 16, "--patch", 4, "--window", 99, "--json").stdout)["grids"][0]
    assert plan(section, "windows")["dot_products_a_head"] == plan(section, "global")["dot_products_a_head"] == 64 * 64


@pytest.mark.parametrize("words, says", [
    (["--heads", 5], ["width is 48", "5 heads"]),
    (["--heads", 0], "0 heads"),
    (["--patch", 0], ["--patch 0", "at least 1"]),
    (["--window", "8,8"], "--window 8,8"),
    (["--dtype", "f8"], ["f8", "f32 or bf16"]),
    (["--attention", "local"], ["local", "windows"]),
    (["--max-time", "soon"], "--max-time soon"),
    (["--image", "missing.nii"], "missing.nii"),
    (["--image", "missing.nii", "64"], "give one"),
    (["100000"], ["tokens, expected at most"]),
    (["--windw", 7], "did you mean --window?"),
])
def test_bad_input_is_one_line(words, says):
    refused("cost", *words, says=says)
