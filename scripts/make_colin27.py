"""Splits Colin27 into a training and a test hemisphere as an nnU-Net dataset folder.

Voxels x < 0 mm (left) become the training case, x >= 0 mm the test case: no voxel is in both. Six deep structures of
the AAL atlas are kept. Two baselines that use no network: the left labels mirrored onto the right at x = 0 mm
(baselines/mirrored), and at the plane half a voxel further where the scan is most like its mirror image
(baselines/mirrored_best_plane).
"""
import json
import pathlib
import sys

import nibabel
import numpy

TEMPLATES = pathlib.Path("/usr/share/mricron/templates")
# name -> AAL values (left, right) of aal.nii.txt
STRUCTURES = {"thalamus": (77, 78), "caudate": (71, 72), "putamen": (73, 74), "pallidum": (75, 76), "hippocampus": (37, 38), "amygdala": (41, 42)}


def hemisphere(image, voxels, start, stop):
    affine = image.affine.copy()
    affine[:3, 3] = (image.affine @ [start, 0, 0, 1])[:3]
    return nibabel.Nifti1Image(numpy.ascontiguousarray(voxels[start:stop]), affine)


def main(folder):
    missing = [name for name in ("ch2.nii.gz", "aal.nii.gz") if not (TEMPLATES / name).exists()]
    if missing:
        print(f"{TEMPLATES}: {', '.join(missing)} not found; install the Debian package mricron-data", file=sys.stderr)
        return 2
    scan, atlas = nibabel.load(TEMPLATES / "ch2.nii.gz"), nibabel.load(TEMPLATES / "aal.nii.gz")
    t1, regions = numpy.asarray(scan.dataobj), numpy.asarray(atlas.dataobj)
    middle = int(round(-scan.affine[0, 3] / scan.affine[0, 0]))  # voxel of x = 0 mm
    left, right = numpy.zeros_like(regions, numpy.uint8), numpy.zeros_like(regions, numpy.uint8)
    for value, (left_id, right_id) in enumerate(STRUCTURES.values(), 1):
        left[regions == left_id], right[regions == right_id] = value, value
    left[middle:], right[:middle] = 0, 0
    mirrored, best_plane = numpy.zeros_like(left), numpy.zeros_like(left)
    mirrored[middle + 1:2 * middle + 1] = left[:middle][::-1]      # voxel i -> 2 * middle - i
    best_plane[middle + 2:2 * middle + 1] = left[1:middle][::-1]   # voxel i -> 2 * middle + 1 - i

    root = pathlib.Path(folder) / "Dataset027_Colin27"
    for name in ("imagesTr", "labelsTr", "imagesTs", "labelsTs", "baselines/mirrored", "baselines/mirrored_best_plane"):
        (root / name).mkdir(parents=True, exist_ok=True)
    end = t1.shape[0]
    nibabel.save(hemisphere(scan, t1, 0, middle), root / "imagesTr/left_0000.nii.gz")
    nibabel.save(hemisphere(scan, left, 0, middle), root / "labelsTr/left.nii.gz")
    nibabel.save(hemisphere(scan, t1, middle, end), root / "imagesTs/right_0000.nii.gz")
    nibabel.save(hemisphere(scan, right, middle, end), root / "labelsTs/right.nii.gz")
    nibabel.save(hemisphere(scan, mirrored, middle, end), root / "baselines/mirrored/right.nii.gz")
    nibabel.save(hemisphere(scan, best_plane, middle, end), root / "baselines/mirrored_best_plane/right.nii.gz")
    description = {
        "name": "Colin27 hemispheres", "description": "one subject: left hemisphere for training, right one for testing",
        "reference": "Colin27 T1 and AAL labels of the Debian package mricron-data", "channel_names": {"0": "T1"},
        "labels": {"background": 0, **{name: value for value, name in enumerate(STRUCTURES, 1)}}, "numTraining": 1, "file_ending": ".nii.gz",
    }
    (root / "dataset.json").write_text(json.dumps(description, indent=2) + "\n")
    print(root)
    return 0


sys.exit(main(sys.argv[1]))
