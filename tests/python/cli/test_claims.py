"""fovea claims: the table, its machine-readable form, and what a user can get wrong. The bands stand in tests/recipes."""
import json
import os

import nibabel as nib
import numpy as np
from program import fovea, refused


def test_a_line_has_statement_claimed_computed_verdict_and_seconds():
    lines = fovea("claims", "--only", "C13,C19").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["C13", "C19"]
    cells = [cell.strip() for cell in lines[0].split("|")]
    assert len(cells) == 5 and cells[1] == "1/4096" and "1/3449" in cells[2] and cells[3] == "holds, if the tokens are voxels"
    assert float(cells[4]) < 10


def test_json_says_how_each_figure_came_about():
    claims = json.loads(fovea("claims", "--only", "C6,C20", "--json", "--seed", 5).stdout)
    budget, nodules = claims
    assert budget["verdict"] == "exact" and budget["figures"]["sum_error"] <= 1e-12
    assert "seed 5" in budget["inputs"] and "fovea::attention_rows" in budget["with"]
    assert budget["seed"] == 5 and budget["isa"] and budget["device"] == "cpu" and budget["version"]
    assert nodules["verdict"] is None and nodules["not_evaluated"] == "needs --full"


def test_a_trained_claim_whose_data_are_not_there_says_what_to_fetch(tmp_path):
    done = fovea("claims", "--only", "C31", "--full", env={**os.environ, "FOVEA_DATA": str(tmp_path)})
    assert "needs scripts/data mnist" in done.stdout and done.stderr == ""


def test_c8_counts_the_voxels_of_a_given_scan(tmp_path):
    for name, shape in ("large", (100, 120, 110)), ("small", (20, 20, 20)):
        nib.save(nib.Nifti1Image(np.zeros(shape, np.uint8), np.eye(4)), tmp_path / f"{name}.nii.gz")
    large, small = (json.loads(fovea("claims", "--only", "C8", "--image", tmp_path / f"{name}.nii.gz", "--json").stdout)[0] for name in ("large", "small"))
    assert large["verdict"] == "holds" and large["figures"]["voxels"] == 1320000 and "100x120x110" in large["computed"]
    assert small["verdict"] == "false"  # and the program ends well: a verdict is no error


def test_bad_input_is_one_line(tmp_path):
    refused("claims", "--only", "C11,C99", says=["C99", "there are C1 to C50"])
    refused("claims", "--only", "c11", says="did you mean C11?")
    refused("claims", "--image", tmp_path / "missing.nii", says="missing.nii")
    refused("claims", "--onyl", "C1", says="did you mean --only?")
