"""Our metrics against surface-distance, MONAI and SimpleITK on the same masks; see docs/reference/metrics.md."""
import os
import pathlib
import subprocess

import numpy as np
import pytest

BUILD = pathlib.Path(os.environ["FOVEA_BUILD"])
PROBE = BUILD / "fovea_metrics_probe"
ROOT = pathlib.Path(__file__).resolve().parents[3]
TOLERANCES = (0.0, 0.5, 1.0, 2.0, 5.0)
FIELDS = ("dice", "iou", "vs", "ml_pred", "ml_ref", "hd", "hd95", "assd", "mean_pred", "mean_ref")


def shared():
    if os.environ.get("FOVEA_SHARED"):
        return pathlib.Path(os.environ["FOVEA_SHARED"])
    for folder in ROOT.parents:
        if (folder / "shared" / "data").is_dir():
            return folder / "shared"
    return None


def ask(lines):
    out = subprocess.run([PROBE], input="\n".join(lines) + "\n", capture_output=True, text=True, check=True).stdout
    return [[float(v) for v in line.split()] for line in out.splitlines()]


@pytest.fixture(scope="module")
def measure(tmp_path_factory):
    folder = tmp_path_factory.mktemp("masks")

    def run(cases, convention):
        lines = []
        for i, (pred, ref, spacing) in enumerate(cases):
            pred.astype(np.uint8).tofile(folder / f"p{i}"), ref.astype(np.uint8).tofile(folder / f"r{i}")
            numbers = " ".join(map(repr, [*pred.shape, *map(float, spacing)]))
            lines.append(f"{folder}/p{i} {folder}/r{i} {numbers} {convention} " + " ".join(map(str, TOLERANCES)))
        results = []
        for row in ask(lines):
            result = dict(zip(("tp", "fp", "fn", "tn"), row[:4])) | dict(zip(FIELDS, row[4:14]))
            results.append(result | {"nsd": row[14:]})
        assert len(results) == len(cases)
        return results

    return run


def blob(rng, shape, level):
    from scipy import ndimage

    return ndimage.gaussian_filter(rng.normal(size=shape), 1.5) > level


def generated():
    """Blobs in an odd grid, blobs that touch the border, single voxels, nested boxes, a plane, disjoint corners."""
    rng = np.random.default_rng(7)
    cases = []
    for shape, spacing in (((9, 14, 11), (1, 1, 1)), ((17, 8, 21), (2.5, 0.7, 1.3)), ((12, 12, 5), (0.5, 3.0, 1.0)), ((1, 15, 13), (4, 1, 1))):
        for level in (0.0, 0.05, 0.1):
            cases.append((blob(rng, shape, level), blob(rng, shape, level), spacing))
    one, other = np.zeros((6, 7, 8), bool), np.zeros((6, 7, 8), bool)
    one[2, 3, 4] = other[5, 0, 7] = True
    cases += [(one, other, (1.5, 1, 0.5)), (one, one, (1, 1, 1))]
    box, inner = np.zeros((10, 11, 12), bool), np.zeros((10, 11, 12), bool)
    box[1:9, 2:10, 0:12] = True
    inner[4:6, 4:7, 5:8] = True
    cases += [(box, inner, (1, 2, 3)), (inner, box, (0.9, 0.9, 0.9)), (np.ones((4, 5, 6), bool), inner[3:7, 3:8, 4:10], (1, 1, 2))]
    return cases


def hippocampus():
    folder = shared() and shared() / "data" / "msd-hippocampus" / "labelsTr"
    if not folder or not folder.is_dir():
        pytest.skip("no ../shared: real labels are not at hand")
    nib = pytest.importorskip("nibabel")
    from scipy import ndimage

    cases = []
    for path in sorted(folder.glob("*.nii.gz"))[:6]:
        image = nib.load(path)
        labels = np.asarray(image.dataobj).transpose(2, 1, 0)
        spacing = np.asarray(image.header.get_zooms()[:3], np.float64)[::-1]
        for label in (1, 2):
            ref = labels == label
            cases.append((ndimage.binary_erosion(np.roll(ref, 1, 1)) | (np.roll(ref, 2, 2) & ref), ref, spacing * (1, 1.2, 0.8)))
    return cases


SOURCES = pytest.mark.parametrize("source", [generated, hippocampus])


def test_area_table_equals_the_table_of_surface_distance():
    tables = pytest.importorskip("surface_distance.lookup_tables")
    for spacing in ((1, 1, 1), (0.7, 1.3, 2.1), (5, 0.4, 0.9)):
        (ours,) = ask(["table " + " ".join(map(str, spacing))])
        np.testing.assert_allclose(ours, tables.create_table_neighbour_code_to_surface_area(spacing), rtol=1e-12, atol=1e-12)


@SOURCES
def test_equals_surface_distance(source, measure, record_property):
    sd = pytest.importorskip("surface_distance")
    np.Inf = np.inf  # the package predates numpy 2
    worst = 0.0
    cases = source()
    for (pred, ref, spacing), ours in zip(cases, measure(cases, "surface-distance")):
        theirs = sd.compute_surface_distances(ref, pred, spacing)
        to_pred, to_ref = sd.compute_average_surface_distance(theirs)
        expected = {
            "hd": sd.compute_robust_hausdorff(theirs, 100),
            "hd95": sd.compute_robust_hausdorff(theirs, 95),
            "mean_pred": to_ref,
            "mean_ref": to_pred,
            "dice": sd.compute_dice_coefficient(ref, pred),
        }
        for name, value in expected.items():
            worst = max(worst, abs(ours[name] - value))
        for tolerance, nsd in zip(TOLERANCES, ours["nsd"]):
            worst = max(worst, abs(nsd - sd.compute_surface_dice_at_tolerance(theirs, tolerance)))
    print(f"largest difference to surface-distance over {len(cases)} cases: {worst:.3g}")
    assert worst < 1e-9


@SOURCES
def test_equals_monai(source, measure):
    torch = pytest.importorskip("torch")
    metrics = pytest.importorskip("monai.metrics")
    worst = 0.0
    cases = source()
    for (pred, ref, spacing), ours in zip(cases, measure(cases, "monai")):
        p, r = (torch.from_numpy(m.astype(np.float32))[None, None] for m in (pred, ref))
        spacing = [float(s) for s in spacing]
        arguments = dict(include_background=True, spacing=spacing)
        expected = {
            "hd": metrics.compute_hausdorff_distance(p, r, **arguments),
            "hd95": metrics.compute_hausdorff_distance(p, r, percentile=95, **arguments),
            "assd": metrics.compute_average_surface_distance(p, r, symmetric=True, **arguments),
            "mean_pred": metrics.compute_average_surface_distance(p, r, **arguments),
            "dice": metrics.compute_dice(p, r),
            "iou": metrics.compute_iou(p, r),
        }
        for name, value in expected.items():  # MONAI keeps distances in float32
            worst = max(worst, abs(ours[name] - value.item()) / max(1.0, value.item()))
        for tolerance, nsd in zip(TOLERANCES, ours["nsd"]):
            value = metrics.compute_surface_dice(p, r, class_thresholds=[tolerance], include_background=True, spacing=spacing).item()
            worst = max(worst, abs(nsd - value))
    print(f"largest relative difference to MONAI over {len(cases)} cases: {worst:.3g}")
    assert worst < 1e-6


@SOURCES
def test_equals_simpleitk(source, measure):
    sitk = pytest.importorskip("SimpleITK")
    worst = 0.0
    cases = source()
    for (pred, ref, spacing), ours in zip(cases, measure(cases, "simpleitk")):
        images = []
        for mask in (pred, ref):
            image = sitk.GetImageFromArray(mask.astype(np.uint8))
            image.SetSpacing([float(s) for s in spacing][::-1])
            images.append(image)
        distance = sitk.HausdorffDistanceImageFilter()
        distance.Execute(*images)
        overlap = sitk.LabelOverlapMeasuresImageFilter()
        overlap.Execute(images[1], images[0])
        differences = {
            "hd": ours["hd"] - distance.GetHausdorffDistance(),
            "average": ours["assd"] - distance.GetAverageHausdorffDistance(),
            "dice": ours["dice"] - overlap.GetDiceCoefficient(),
            "iou": ours["iou"] - overlap.GetJaccardCoefficient(),
        }
        # ITK's signed Maurer map is float32.
        worst = max(worst, max(map(abs, differences.values())) / max(1.0, ours["hd"]))
        # ITK's volume similarity is signed, 2 (n_source - n_target) / (n_source + n_target).
        assert ours["vs"] == pytest.approx(1 - abs(overlap.GetVolumeSimilarity()) / 2, abs=1e-9)
    print(f"largest relative difference to SimpleITK over {len(cases)} cases: {worst:.3g}")
    assert worst < 1e-6


def test_volumes_are_voxels_times_voxel_size(measure):
    for (pred, ref, spacing), ours in zip(generated(), measure(generated(), "monai")):
        assert ours["ml_pred"] == pytest.approx(pred.sum() * np.prod(spacing) / 1000, rel=1e-12)
        assert ours["ml_ref"] == pytest.approx(ref.sum() * np.prod(spacing) / 1000, rel=1e-12)
        assert (ours["tp"], ours["fn"]) == ((pred & ref).sum(), (ref & ~pred).sum())
