"""fovea import --onto: a scan on another scan's grid is what SimpleITK makes of it; labels keep their values; no overlap is a line."""
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from program import fovea, refused


@pytest.fixture
def scans(tmp_path):
    """A fine oblique scan and a coarse straight one that reaches beyond it."""
    draw = np.random.default_rng(4)
    turned = nib.eulerangles.euler2mat(0.2, -0.3, 0.1) @ np.diag([-1.2, 1.1, 2.5])
    nib.save(nib.Nifti1Image(draw.normal(size=(25, 22, 14)).astype(np.float32), nib.affines.from_matvec(turned, [12, -9, -20])), tmp_path / "ct.nii.gz")
    pet = draw.normal(3, 1, (12, 13, 9)).astype(np.float32)
    nib.save(nib.Nifti1Image(pet, nib.affines.from_matvec(np.diag([4, 4, 5]), [-30, -20, -25])), tmp_path / "pet.nii.gz")
    nib.save(nib.Nifti1Image((pet > 3).astype(np.uint8) * 5, nib.affines.from_matvec(np.diag([4, 4, 5]), [-30, -20, -25])), tmp_path / "tumour.nii.gz")
    return tmp_path


@pytest.mark.parametrize("moved, onto, labels", [("pet", "ct", False), ("ct", "pet", False), ("tumour", "ct", True)])
def test_onto_another_grid_is_what_itk_makes_of_it(scans, moved, onto, labels):
    fovea("import", scans / f"{moved}.nii.gz", "--onto", scans / f"{onto}.nii.gz", *(["--labels"] if labels else []), "-o", scans / "out.nii.gz")
    source, grid = sitk.ReadImage(str(scans / f"{moved}.nii.gz")), sitk.ReadImage(str(scans / f"{onto}.nii.gz"))
    outside = 0.0 if labels else float(sitk.GetArrayFromImage(source).min())
    expected = sitk.GetArrayFromImage(sitk.Resample(source, grid, sitk.Transform(), sitk.sitkNearestNeighbor if labels else sitk.sitkLinear, outside))
    ours = sitk.ReadImage(str(scans / "out.nii.gz"))
    assert np.allclose(ours.GetOrigin(), grid.GetOrigin()) and np.allclose(ours.GetDirection(), grid.GetDirection(), atol=1e-6)
    got = sitk.GetArrayFromImage(ours)
    assert got.shape == expected.shape and (got.dtype == np.uint8) == labels
    assert np.mean(np.abs(got.astype(float) - expected) > (0 if labels else 1e-4)) < (2e-3 if labels else 1e-9)


def test_what_is_not_covered_is_said_and_no_overlap_is_one_line(scans):
    done = fovea("import", scans / "ct.nii.gz", "--onto", scans / "pet.nii.gz", "-o", scans / "out.nii.gz")
    assert "does not cover" in done.stderr
    far = nib.load(scans / "pet.nii.gz")
    nib.save(nib.Nifti1Image(far.get_fdata().astype(np.float32), nib.affines.from_matvec(np.diag([4, 4, 5]), [5000, 0, 0])), scans / "far.nii.gz")
    refused("import", scans / "far.nii.gz", "--onto", scans / "ct.nii.gz", "-o", scans / "no.nii.gz", says=["far.nii.gz", "do not overlap"])
    refused("import", scans / "ct.nii.gz", "--labels", "-o", scans / "no.nii.gz", says=["--onto"])
    assert not (scans / "no.nii.gz").exists()
