"""Our sliding window against MONAI's and against nnU-Net's published definition, with the same small network."""
import itertools
import os
import pathlib
import subprocess

import numpy as np
import pytest

torch = pytest.importorskip("torch")
PROBE = pathlib.Path(os.environ["FOVEA_BUILD"]) / "fovea_infer_probe"
CASES = [  # shape, patch, overlap, mirrored axes, batch, stripes
    ((17, 13, 19), (8, 6, 7), 0.5, "012", 1, (1, 1)),
    ((17, 13, 19), (8, 6, 7), 0.5, "-", 1, (3, 2)),
    ((20, 9, 33), (8, 8, 16), 0.25, "02", 3, (1, 2)),
    ((5, 30, 4), (8, 8, 8), 0.5, "1", 1, (4, 1)),  # padded along z and x
    ((16, 16, 16), (16, 16, 16), 0.25, "-", 1, (1, 1)),
]


def network(weights):
    def run(x):
        ramp = torch.linspace(0, 0.25, x.shape[4])
        return torch.tanh(torch.nn.functional.conv3d(x, weights, padding=1)) + ramp

    return run


def problem(shape, seed=5):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, *shape, generator=generator), torch.randn(4, 2, 3, 3, 3, generator=generator)


def ours(tmp_path, mode, rule, blending, image, weights, patch, overlap, mirror, batch, stripes):
    image.numpy().tofile(tmp_path / "image"), weights.numpy().tofile(tmp_path / "weights")
    arguments = [mode, rule, blending, overlap, *patch, mirror, batch, *stripes, *image.shape, weights.shape[0]]
    files = [tmp_path / "image", tmp_path / "weights", tmp_path / "out"]
    subprocess.run([PROBE, *map(str, arguments + files)], check=True)
    if mode == "labels":
        return np.fromfile(tmp_path / "out", np.uint8).reshape(image.shape[1:])
    return torch.from_numpy(np.fromfile(tmp_path / "out", np.float32).reshape(weights.shape[0], *image.shape[1:]))


@pytest.mark.parametrize("blending", ["constant", "gaussian"])
@pytest.mark.parametrize("case", CASES)
def test_scores_equal_monai(tmp_path, case, blending):
    inferers = pytest.importorskip("monai.inferers")
    shape, patch, overlap, _, batch, stripes = case
    image, weights = problem(shape)
    theirs = inferers.sliding_window_inference(image[None], patch, batch, network(weights), overlap=overlap, mode=blending)[0]
    scores = ours(tmp_path, "scores", "monai", blending, image, weights, patch, overlap, "-", batch, stripes)
    torch.testing.assert_close(scores, theirs, rtol=1e-6, atol=1e-6)
    labels = ours(tmp_path, "labels", "monai", blending, image, weights, patch, overlap, "-", batch, stripes)
    assert np.array_equal(labels, scores.argmax(0).numpy())


@pytest.mark.parametrize("patch", [(8, 6, 7), (16, 16, 16), (5, 33, 24)])
def test_gaussian_equals_monai(tmp_path, patch):
    utils = pytest.importorskip("monai.data.utils")
    subprocess.run([PROBE, "weights", "monai", *map(str, patch), tmp_path / "out"], check=True)
    theirs = utils.compute_importance_map(patch, mode="gaussian", sigma_scale=0.125).numpy()
    np.testing.assert_allclose(np.fromfile(tmp_path / "out", np.float32).reshape(patch), theirs, rtol=1e-6)


def nnunet_weights(patch):
    """An impulse in the middle, smoothed with sigma = size/8, maximum 10, in float16; zeros take the smallest other value."""
    ndimage = pytest.importorskip("scipy.ndimage")
    impulse = np.zeros(patch)
    impulse[tuple(p // 2 for p in patch)] = 1
    smooth = ndimage.gaussian_filter(impulse, [p / 8 for p in patch], mode="constant")
    half = (smooth / smooth.max() * 10).astype(np.float16)
    half[half == 0] = half[half > 0].min()
    return half


@pytest.mark.parametrize("patch", [(8, 6, 7), (16, 16, 16), (5, 33, 24), (64, 64, 64)])
def test_gaussian_equals_nnunets_definition(tmp_path, patch):
    subprocess.run([PROBE, "weights", "nnunet", *map(str, patch), tmp_path / "out"], check=True)
    assert np.array_equal(np.fromfile(tmp_path / "out", np.float32).reshape(patch), nnunet_weights(patch).astype(np.float32))


@pytest.mark.parametrize("case", CASES)
def test_scores_equal_nnunets_definition(tmp_path, case):
    shape, patch, overlap, mirror, _, stripes = case
    image, weights = problem(shape)
    net = network(weights)

    # Pad to the patch, half before; steps of at most patch * step, evenly spread, rounded.
    room = [max(p - s, 0) for s, p in zip(shape, patch)]
    padding = [(r // 2, r - r // 2) for r in room]
    padded = np.pad(image.numpy(), [(0, 0), *padding])
    starts = []
    for size, p in zip(padded.shape[1:], patch):
        count = int(np.ceil((size - p) / (p * (1 - overlap)))) + 1
        starts.append([int(np.round((size - p) / max(count - 1, 1) * i)) for i in range(count)])

    axes = [] if mirror == "-" else [int(c) + 2 for c in mirror]
    flips = [c for n in range(len(axes) + 1) for c in itertools.combinations(axes, n)]
    gaussian = torch.from_numpy(nnunet_weights(patch).astype(np.float32))
    total, weight = torch.zeros(weights.shape[0], *padded.shape[1:]), torch.zeros(padded.shape[1:])
    for z, y, x in itertools.product(*starts):
        place = (slice(z, z + patch[0]), slice(y, y + patch[1]), slice(x, x + patch[2]))
        window = torch.from_numpy(padded[(slice(None), *place)].copy())[None]
        logits = sum(torch.flip(net(torch.flip(window, f)), f) for f in flips)[0] / len(flips)
        total[(slice(None), *place)] += logits * gaussian
        weight[place] += gaussian
    inner = tuple(slice(before, before + size) for (before, _), size in zip(padding, shape))
    expected = (total / weight)[(slice(None), *inner)]

    scores = ours(tmp_path, "scores", "nnunet", "gaussian", image, weights, patch, overlap, mirror, 1, stripes)
    torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-6)
    labels = ours(tmp_path, "labels", "nnunet", "gaussian", image, weights, patch, overlap, mirror, 1, stripes)
    assert np.array_equal(labels, scores.argmax(0).numpy())
