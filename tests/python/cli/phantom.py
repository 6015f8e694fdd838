"""Small brain-like scans whose labels a network can learn in seconds, as nnU-Net datasets."""
import json

import nibabel as nib
import numpy as np

LABELS = {"background": 0, "core": 1, "shell": 2}


def rotation(degrees_x, degrees_z):
    """About x, then about z."""
    a, b = np.radians([degrees_x, degrees_z])
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    return about_z @ about_x


def affine_of(codes="RAS", spacing=(1, 1, 1), degrees=(0, 0), origin=(-11.3, 7.2, 30.1)):
    """Voxel index to RAS+ mm of an array whose axes run to `codes`, turned by `degrees` about x and z."""
    axes = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}
    directions = rotation(*degrees) @ np.array([axes[c] for c in codes], float).T
    affine = np.eye(4)
    affine[:3, :3] = directions * np.asarray(spacing, float)
    affine[:3, 3] = origin
    return affine


def phantom(seed, shape=(36, 33, 30), channels=1):
    """Channels as (x, y, z) float32, and labels: a bright core in a middling shell on noise."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1)
    centre = np.array(shape) / 2 + rng.uniform(-2, 2, 3)
    distance = np.linalg.norm((grid - centre) / rng.uniform(0.9, 1.1, 3), axis=-1)
    label = np.zeros(shape, np.uint8)
    label[distance < 11] = LABELS["shell"]
    label[distance < 6] = LABELS["core"]
    brightness = np.array([0, 200, 100])[label]
    images = [(brightness * (1 if c == 0 else -0.5) + rng.normal(100, 10, shape)).astype(np.float32) for c in range(channels)]
    return images, label


def write_image(path, voxels, affine):
    image = nib.Nifti1Image(voxels, affine)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    nib.save(image, path)


GRIDS = [dict(codes="RAS"), dict(codes="LPS"), dict(codes="RAS", degrees=(12, 20)), dict(codes="PSR"), dict(codes="LAS", spacing=(1.1, 1, 0.9))]


def write_dataset(folder, cases=5, channels=1, tests=1):
    """nnU-Net 2 layout; every case on another kind of grid. Returns the folder."""
    for name in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
        (folder / name).mkdir(parents=True)
    for i in range(cases + tests):
        images, label = phantom(i, channels=channels)
        affine = affine_of(**GRIDS[i % len(GRIDS)])
        kind = "Tr" if i < cases else "Ts"
        for c, image in enumerate(images):
            write_image(folder / f"images{kind}" / f"scan{i}_{c:04d}.nii.gz", image, affine)
        write_image(folder / f"labels{kind}" / f"scan{i}.nii.gz", label, affine)
    description = {"channel_names": {str(c): f"T{c + 1}" for c in range(channels)}, "labels": LABELS, "numTraining": cases, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder
