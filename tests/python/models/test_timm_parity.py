"""Multi-head attention with QK-norm against timm's Attention(qk_norm=True), forward and backward.

timm imports torchvision, which has no build for a CPU torch, for one class that attention never uses. Only timm.layers is
loaded here, with an empty stand-in for that class; the attention that runs is timm's own, unchanged.
"""
import functools
import importlib.util
import os
import pathlib
import subprocess
import sys
import types

import pytest
import torch
from safetensors.torch import load_file, save_file

BUILD = pathlib.Path(os.environ.get("FOVEA_BUILD", pathlib.Path(__file__).resolve().parents[3] / "build/release"))


@pytest.fixture(scope="module")
def timm_attention():
    spec = importlib.util.find_spec("timm")
    if spec is None:
        pytest.skip("timm is not installed")
    names = ["timm"]
    package = types.ModuleType("timm")
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules["timm"] = package
    if importlib.util.find_spec("torchvision") is None:
        names += ["torchvision", "torchvision.ops", "torchvision.ops.misc"]
        for name in names[1:]:
            sys.modules[name] = types.ModuleType(name)
        sys.modules["torchvision.ops.misc"].FrozenBatchNorm2d = type("FrozenBatchNorm2d", (), {})
    from timm.layers.attention import Attention

    for name in names:
        del sys.modules[name]
    return Attention


def run_ours(folder, heads, weights, x, upstream):
    save_file(weights, folder / "weights.safetensors")
    save_file({"x": x.detach(), "upstream": upstream}, folder / "input.safetensors")
    subprocess.run([BUILD / "fovea_attention_layer_probe", str(heads), folder / "weights.safetensors",
                    folder / "input.safetensors", folder / "output.safetensors"], check=True)
    return load_file(folder / "output.safetensors")


def ours_from_timm(tensors):
    """timm's qkv [3E, ...] as three maps, its proj as out_proj, its norms as those of qk_norm."""
    named = {}
    for name, t in tensors.items():
        layer, kind = name.split(".")
        if layer == "qkv":
            named |= {f"{part}_proj.{kind}": piece.contiguous() for part, piece in zip("qkv", t.chunk(3))}
        else:
            named[{"proj": "out_proj"}.get(layer, f"qk_norm.{layer}") + "." + kind] = t
    return named


# The bounds of the issue: forward 1e-5 and gradients 1e-4 in float32, 1e-12 forward in float64.
@pytest.mark.parametrize("dtype, forward_bound, gradient_bound", [(torch.float32, 1e-5, 1e-4), (torch.float64, 1e-12, 1e-11)])
@pytest.mark.parametrize("batch, tokens, dim, heads", [(2, 17, 48, 3), (1, 1, 16, 1), (3, 50, 64, 8)])
def test_qk_norm_equals_timm(timm_attention, tmp_path, dtype, forward_bound, gradient_bound, batch, tokens, dim, heads):
    torch.manual_seed(batch + tokens)
    theirs = timm_attention(dim, heads, qkv_bias=True, qk_norm=True, norm_layer=functools.partial(torch.nn.LayerNorm, eps=1e-6))
    with torch.no_grad():  # gains and shifts that are not 1 and 0
        for p in (*theirs.q_norm.parameters(), *theirs.k_norm.parameters()):
            p.add_(0.3 * torch.randn_like(p))
    theirs = theirs.to(dtype)
    x = (3 * torch.randn(batch, tokens, dim, dtype=dtype)).requires_grad_()
    upstream = torch.randn(batch, tokens, dim, dtype=dtype)
    expected = theirs(x)
    (expected * upstream).sum().backward()

    got = run_ours(tmp_path, heads, ours_from_timm({n: p.detach() for n, p in theirs.named_parameters()}), x, upstream)
    assert (got["output"] - expected).abs().max() <= forward_bound
    gradients = ours_from_timm({n: p.grad for n, p in theirs.named_parameters()}) | {"x": x.grad}
    assert set(got) == {"output"} | {f"grad.{n}" for n in gradients}
    for name, g in gradients.items():
        assert (got[f"grad.{name}"] - g).abs().max() <= gradient_bound * max(1, g.abs().max()), name
