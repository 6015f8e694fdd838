"""Attention over the points of a field against the code of the Galerkin transformer and of OFormer, under their weights; float64."""
import os
import pathlib

import pytest

torch = pytest.importorskip("torch", reason="no torch: run scripts/setup")
from peer import file_of, loaded  # noqa: E402
from test_co_attention import compare, normal  # noqa: E402


@pytest.mark.parametrize("kind", ["softmax", "fourier", "galerkin"])
def test_attention_equals_the_galerkin_transformer(fovea_layer, kind):
    torch.manual_seed(1)
    dim, heads, points = 12, 3, 17
    peer = file_of("galerkin_transformer", "layers.py").SimpleAttention(heads, dim, pos_dim=-1, attention_type=kind, norm=kind != "softmax").double()
    peer.dropout = None  # otherwise half of the weights are dropped, whatever its probability and in evaluation too
    # Its Fourier kind also divides by the root of the channels, which the paper's formula and ours leave to the norms.
    size = (dim // heads) ** -0.5 if kind == "fourier" else 1
    named = {"to_out.weight": size * torch.eye(dim, dtype=torch.float64), "to_out.bias": torch.zeros(dim, dtype=torch.float64)}  # it ends before
    for part, linear in zip("qkv", peer.linears):
        torch.nn.init.zeros_(linear.bias)  # ours has none
        named[f"to_{part}.weight"] = torch.nn.init.normal_(linear.weight)
    norms = {"softmax": [], "fourier": ["norm_Q", "norm_K"], "galerkin": ["norm_K", "norm_V"]}[kind]
    for i, name in enumerate(norms, 1):
        for part in ("weight", "bias"):
            ours = named[f"norm{i}_{part}"] = normal(heads, dim // heads).requires_grad_()
            for head, norm in enumerate(getattr(peer, name)):  # one module a head there, one row a head here
                delattr(norm, part)
                setattr(norm, part, ours[head])
    x = normal(2, points, dim).requires_grad_()
    outputs = {"out": peer(x, x, x)[0]}
    upstream = {"out": torch.randn_like(outputs["out"])}
    # At 0 the rotation by coordinates, which the peer does not have, leaves everything as it is.
    got = fovea_layer(dict(layer="field_attention", dim=dim, heads=heads, axes=1, kind=kind), named,
                      {"x": x, "coordinates": torch.zeros(points, 1, dtype=torch.float64), "upstream.out": upstream["out"]})
    compare(got, outputs, upstream, {k: v for k, v in {**named, "x": x}.items() if v.requires_grad}, forward=1e-12, backward=1e-11)


@pytest.mark.parametrize("axes", [1, 2])
@pytest.mark.parametrize("kind", ["fourier", "galerkin"])
def test_attention_with_rotary_coordinates_equals_oformer(fovea_layer, kind, axes):
    if not (folder := os.environ.get("FOVEA_OFORMER")):
        pytest.skip("FOVEA_OFORMER names no copy of OFormer's code (Li et al. 2023, BaratiLab/OFormer), which is no package")
    torch.manual_seed(2)
    dim, heads, points = 24, 3, 17
    layers = loaded(pathlib.Path(folder) / "uniform_grids/nn_module/attention_module.py")
    peer = layers.LinearAttention(dim, kind, heads, dim // heads, init_params=False, relative_emb=True, relative_emb_dim=axes).double().eval()
    channels = dim // heads // axes
    peer.emb_module.inv_freq = 10000 ** (-torch.arange(0, channels, 2).double() / channels)  # it computes them in float32
    x, coordinates = normal(2, points, dim).requires_grad_(), torch.rand(points, axes, dtype=torch.float64)
    qkv = [t.detach().clone().requires_grad_() for t in peer.to_qkv.weight.chunk(3)]
    del peer.to_qkv.weight
    peer.to_qkv.weight = torch.cat(qkv)
    named = {f"to_{part}.weight": t for part, t in zip("qkv", qkv)}
    named |= {"to_out.weight": peer.to_out[0].weight, "to_out.bias": peer.to_out[0].bias}
    for i in (1, 2):  # its norms have no weights
        named |= {f"norm{i}_weight": torch.ones(heads, dim // heads).double(), f"norm{i}_bias": torch.zeros(heads, dim // heads).double()}
    outputs = {"out": peer(x, coordinates.expand(2, points, axes))}
    upstream = {"out": torch.randn_like(outputs["out"])}
    got = fovea_layer(dict(layer="field_attention", dim=dim, heads=heads, axes=axes, kind=kind), named,
                      {"x": x, "coordinates": coordinates, "upstream.out": upstream["out"]})
    compare(got, outputs, upstream, {k: v for k, v in {**named, "x": x}.items() if v.requires_grad}, forward=1e-12, backward=1e-11)
