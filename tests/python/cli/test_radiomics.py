"""`fovea info SCAN --mask MASK`: radiomic features from files."""

import csv
import json

import nibabel
import numpy
import pytest
from program import fovea


@pytest.fixture
def lesion(tmp_path):
    rng = numpy.random.default_rng(1)
    image = rng.integers(0, 300, (12, 11, 10)).astype(numpy.int16)
    mask = numpy.zeros(image.shape, numpy.uint8)
    mask[3:9, 2:8, 3:7] = 2
    affine = numpy.diag([1.0, 2.0, 3.0, 1.0])
    paths = tmp_path / "scan.nii.gz", tmp_path / "mask.nii.gz"
    for path, array in zip(paths, (image, mask)):
        nibabel.save(nibabel.Nifti1Image(array, affine), path)
    return *paths, image[mask == 2]


def test_features_are_printed_and_written_under_pyradiomics_names(lesion, tmp_path):
    scan, mask, values = lesion
    table = tmp_path / "features.csv"
    done = fovea("info", scan, "--mask", mask, "--label", 2, "-o", table, "--json")
    features = json.loads(done.stdout)[0]["radiomics"]
    assert len(features) == 107
    assert features["original_firstorder_Mean"] == pytest.approx(values.mean(), rel=1e-12)
    assert features["original_firstorder_Variance"] == pytest.approx(values.var(), rel=1e-12)
    assert features["original_shape_VoxelVolume"] == pytest.approx(values.size * 6, rel=1e-6)
    (row,) = csv.DictReader(table.open())
    assert {k: float(v) for k, v in row.items() if k not in ("Image", "Mask")} == features
    assert "original_glcm_JointEntropy" in fovea("info", scan, "-m", mask, "--label", 2).stdout


def test_a_mask_without_the_label_is_one_line_and_writes_nothing(lesion, tmp_path):
    scan, mask, _ = lesion
    table = tmp_path / "features.csv"
    done = fovea("info", scan, "--mask", mask, "-o", table, code=2)
    assert str(mask) in done.stderr and "label 1 is empty" in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert not table.exists()
    assert "give --mask" in fovea("info", scan, "-o", table, code=2).stderr
