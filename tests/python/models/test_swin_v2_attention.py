"""Windows with Swin-v2's cosine scores and continuous bias, in two and three dimensions, against its formulas in torch.

Liu et al. 2022, arXiv:2111.09883: scores are cosines times exp(min(logit_scale, ln 100)), the bias is 16 sigmoid of a
perceptron over log-spaced displacements, keys have no bias, the mask of a shift is -100.
"""
import json
import math
import os
import pathlib
import subprocess

import pytest

torch = pytest.importorskip("torch", reason="no torch: run scripts/setup")
from safetensors.torch import load_file, save_file  # noqa: E402

PROBE = pathlib.Path(os.environ.get("FOVEA_BUILD", "build/release")) / "fovea_models_probe"
if not PROBE.exists():
    pytest.skip(f"{PROBE} is not built", allow_module_level=True)


def draw_weights(dim, heads, axes, dtype, seed=0):
    """Named as in a checkpoint of the given number of axes. One head's temperature lies beyond its bound."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape, scale=1.0):
        return torch.randn(*shape, generator=generator, dtype=dtype) * scale

    logit_scale = math.log(10) + normal(heads, 1, 1)
    logit_scale[-1] = 6
    return {
        "qkv.weight": normal(3 * dim, dim, scale=dim**-0.5), "q_bias": normal(dim), "v_bias": normal(dim),
        "proj.weight": normal(dim, dim, scale=dim**-0.5), "proj.bias": normal(dim), "logit_scale": logit_scale,
        "cpb_mlp.0.weight": normal(512, axes), "cpb_mlp.0.bias": normal(512), "cpb_mlp.2.weight": normal(heads, 512, scale=0.1),
    }


def per_axis(length, window, shift):
    """For each position of the rolled axis: the token, its window, its place there, its region."""
    position = torch.arange(length)
    region = torch.zeros(length, dtype=torch.long)
    if shift:
        region[length - window:length - shift], region[length - shift:] = 1, 2
    return (position + shift) % length, position // window, position % window, region


def swin_v2(x, w, heads, window, shift, trained):
    """x [B,*grid,E], window etc. one number an axis; every pair of tokens of the grid is looked at, strangers get -inf."""
    grid, dim = x.shape[1:-1], x.shape[-1]
    tokens = x.flatten(1, -2)
    bias = torch.cat([w["q_bias"], torch.zeros_like(w["q_bias"]), w["v_bias"]])
    qkv = tokens @ w["qkv.weight"].T + bias
    q, k, v = qkv.unflatten(-1, (3, heads, dim // heads)).permute(2, 0, 3, 1, 4)  # b h n c
    cosine = torch.nn.functional.normalize(q, dim=-1) @ torch.nn.functional.normalize(k, dim=-1).transpose(-1, -2)
    scores = cosine * w["logit_scale"].clamp(max=math.log(100)).exp()

    axes = [per_axis(*lengths) for lengths in zip(grid, window, shift)]
    at = torch.cartesian_prod(*[torch.arange(n) for n in grid]).reshape(-1, len(grid))  # rolled position of each token
    token, which, place, region = (torch.stack([axes[a][i][at[:, a]] for a in range(len(grid))], 1) for i in range(4))
    order = torch.zeros(len(at), dtype=torch.long)  # rolled position of token n
    flat = token[:, 0]
    for a in range(1, len(grid)):
        flat = flat * grid[a] + token[:, a]
    order[flat] = torch.arange(len(at))
    which, place, region = which[order], place[order], region[order]

    displacement = (place[:, None] - place[None]).to(x.dtype)  # n n axes
    r = torch.stack([displacement[..., a] * 8 / max(trained[a] - 1, 1) for a in range(len(grid))], -1)
    coordinate = r.sign() * torch.log2(r.abs() + 1) / math.log2(8)
    hidden = torch.relu(coordinate @ w["cpb_mlp.0.weight"].T + w["cpb_mlp.0.bias"])
    scores = scores + (16 * torch.sigmoid(hidden @ w["cpb_mlp.2.weight"].T)).permute(2, 0, 1)
    scores = scores - 100.0 * (region[:, None] != region[None]).any(-1)
    scores = scores.masked_fill((which[:, None] != which[None]).any(-1), -math.inf)
    out = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
    return (out @ w["proj.weight"].T + w["proj.bias"]).reshape(x.shape)


def ours(folder, x, probe, weights, heads, window, shift, trained):
    """Two dimensions become three by a z edge of 1, and a column of zeros for z in the perceptron."""
    if len(window) == 2:
        x, probe = x.unsqueeze(1), probe.unsqueeze(1)
        window, shift, trained = (1, *window), (0, *shift), (1, *trained)
        first = weights["cpb_mlp.0.weight"]
        weights = {**weights, "cpb_mlp.0.weight": torch.cat([torch.zeros_like(first[:, :1]), first], 1)}
    config = {"swin_v2_attention": {"dim": x.shape[-1], "heads": heads, "window": window, "shift": shift, "trained_window": trained}}
    (folder / "config.json").write_text(json.dumps(config))
    save_file({k: v.detach().contiguous() for k, v in weights.items()}, folder / "weights.safetensors")
    save_file({"x": x.detach(), "probe": probe}, folder / "input.safetensors")
    files = [str(folder / name) for name in ("config.json", "weights.safetensors", "input.safetensors", "output.safetensors")]
    done = subprocess.run([str(PROBE), *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return load_file(files[3])


CASES = {
    "2-D": ((8, 12), (4, 4), (0, 0), (4, 4)),
    "2-D-shifted": ((8, 12), (4, 6), (2, 3), (4, 6)),
    "2-D-from-a-smaller-window": ((8, 8), (8, 8), (0, 0), (6, 6)),
    "3-D-shifted": ((4, 6, 8), (2, 3, 4), (1, 1, 2), (2, 3, 4)),
    "3-D-from-a-larger-window": ((4, 4, 4), (2, 4, 2), (1, 0, 1), (4, 8, 1)),
}


@pytest.mark.parametrize("dtype, forward, backward", [(torch.float32, 1e-5, 1e-4), (torch.float64, 1e-12, 1e-10)], ids=["float32", "float64"])
@pytest.mark.parametrize("grid, window, shift, trained", CASES.values(), ids=CASES.keys())
def test_cosine_scores_and_continuous_bias_equal_swin_v2(tmp_path, grid, window, shift, trained, dtype, forward, backward):
    dim, heads = 24, 3
    weights = {k: v.requires_grad_() for k, v in draw_weights(dim, heads, len(grid), dtype).items()}
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, *grid, dim, generator=generator, dtype=dtype).requires_grad_()
    probe = torch.randn(2, *grid, dim, generator=generator, dtype=dtype)
    expected = swin_v2(x, weights, heads, window, shift, trained)
    (expected * probe).sum().backward()
    got = ours(tmp_path, x, probe, weights, heads, window, shift, trained)
    output = got["output"].reshape(expected.shape)
    assert (output - expected).abs().max() <= forward * expected.abs().max()
    assert (got["grad.x"].reshape(x.shape) - x.grad).norm() <= backward * x.grad.norm()
    for name, parameter in weights.items():
        gradient = got["grad." + name]
        if name == "cpb_mlp.0.weight":
            gradient = gradient[:, -len(grid):]
        assert (gradient - parameter.grad).norm() <= backward * parameter.grad.norm(), name
    assert weights["logit_scale"].grad[-1] == 0  # beyond its bound
