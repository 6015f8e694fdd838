"""Fovea's networks against MONAI's: same weights, same input; logits, every parameter gradient, every stage.

FOVEA_FULL=1 adds 96^3 at feature sizes 24 and 48, version 1 and 2. Figures are printed with `pytest -s`.
"""
import json
import os
import pathlib
import re
import subprocess

import pytest

torch = pytest.importorskip("torch", reason="no torch: run scripts/setup")
pytest.importorskip("monai", reason="no monai to compare with: run scripts/setup")
from monai.networks import nets  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

PROBE = pathlib.Path(os.environ.get("FOVEA_BUILD", "build/release")) / "fovea_models_probe"
if not PROBE.exists():
    pytest.skip(f"{PROBE} is not built", allow_module_level=True)


def perturb(network, seed=1):
    """Defaults (zero biases, unit norms, tiny tables) hide errors: give every parameter a value of its own."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "relative_position_bias_table" in name:
                parameter.copy_(noise)
            elif parameter.dim() == 1 or "position_embeddings" in name:
                parameter.add_(0.2 * noise)


def run_probe(folder, network, config, tensors):
    (folder / "config.json").write_text(json.dumps(config))
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, folder / "weights.safetensors")
    save_file(tensors, folder / "input.safetensors")
    files = [str(folder / name) for name in ("config.json", "weights.safetensors", "input.safetensors", "output.safetensors")]
    done = subprocess.run([str(PROBE), *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return load_file(files[3])


def relative(ours, theirs):
    """Largest difference over the largest value."""
    return ((ours - theirs).abs().max() / theirs.abs().max().clamp_min(1e-30)).item()


def monai_gradients(network, x, probe):
    network.zero_grad()
    x = x.clone().requires_grad_()
    output = network(x)
    (output * probe).sum().backward()
    gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    return output.detach(), gradients, x.grad


def hook_stages(network):
    """Outputs of the encoder's blocks and mergings and of the decoder's blocks, by module name, as forward runs."""
    outputs = {}
    for name, module in network.named_modules():
        if re.fullmatch(r"swinViT\.layers\d\.0(\.blocks\.\d+|\.downsample)?|encoder\d+|decoder\d", name):
            module.register_forward_hook(lambda m, i, o, name=name: outputs.__setitem__(name, o.detach()))
    return outputs


def hook_corners(network):
    """What every leaky ReLU returns, under the names that the probe gives to first and second calls."""
    outputs = {}

    def keep(name, output):
        outputs[name if name not in outputs else name + "#2"] = output.detach().clone()

    for name, module in network.named_modules():
        if isinstance(module, torch.nn.LeakyReLU):
            module.register_forward_hook(lambda m, i, o, name=name: keep(name, o))
    return outputs


def draw(network, size, seed=2):
    generator = torch.Generator().manual_seed(seed)
    size = (size,) * 3 if isinstance(size, int) else size
    x = torch.randn(1, network.encoder1.layer.conv1.conv.in_channels, *size, generator=generator)
    return x, torch.randn(1, network.out.conv.conv.out_channels, *size, generator=generator)


def compare(folder, network, config, size):
    network.eval()
    x, probe = draw(network, size)
    outputs, corners = hook_stages(network), hook_corners(network)
    expected, gradients, input_gradient = monai_gradients(network, x, probe)
    got = run_probe(folder, network, config, {"x": x, "probe": probe})

    errors = {name: ((got["grad." + name] - g).norm() / g.norm()).item() for name, g in gradients.items() if not vanishes(name)}
    figures = {
        "logits": relative(got["output"], expected),
        "input gradient": ((got["grad.x"] - input_gradient).norm() / input_gradient.norm()).item(),
        "median parameter gradient": sorted(errors.values())[len(errors) // 2],
        "worst parameter gradient": max(errors.values()),
    }
    print(f"\n{config} {tuple(x.shape)}: " + ", ".join(f"{k} {v:.1e}" for k, v in figures.items()) + f" ({max(errors, key=errors.get)})")
    stages = [name for name, tensor in outputs.items() if "trace." + name in got]
    assert len(stages) >= 5
    for name in stages:
        assert relative(got["trace." + name], outputs[name]) <= 1e-4, name
    assert {name[5:] for name in got if name.startswith("grad.") and name != "grad.x"} == set(gradients)
    assert figures["logits"] <= 1e-5
    # A leaky ReLU passes 1 or 0.01: where two correct float programs disagree about the sign of a value near 0, gradients
    # differ by more than rounding. Such voxels are counted; exactness is the business of the float64 tests below.
    flips = sum(((got["trace." + name] > 0) != (tensor > 0)).sum().item() for name, tensor in corners.items())
    print(f"{flips} voxels on the other side of a leaky ReLU's corner")
    assert figures["worst parameter gradient"] <= (1e-3 if flips == 0 else 2e-2)
    assert flips <= 1e-5 * sum(tensor.numel() for tensor in corners.values())


def vanishes(name):
    """With one input channel conv3 only scales what instance norm then scales back: its gradient is rounding noise."""
    return name == "encoder1.layer.conv3.conv.weight"


FULL = os.environ.get("FOVEA_FULL") == "1"
CASES = {
    "v1-12": (64, dict(feature_size=12)),
    "v1-24-two-channels-in": ((64, 64, 32), dict(feature_size=24, in_channels=2, out_channels=3)),
    "v2-12-mergingv2": ((64, 32, 64), dict(feature_size=12, use_v2=True, downsample="mergingv2")),
    "odd-options": ((32, 64, 96), dict(feature_size=12, window_size=(5, 3, 7), depths=(1, 3, 2, 1), qkv_bias=False, patch_norm=True, normalize=False, mlp_ratio=2.0)),
}
if FULL:
    CASES |= {f"full-{'v2' if v2 else 'v1'}-{f}": (96, dict(feature_size=f, use_v2=v2, out_channels=14)) for f in (24, 48) for v2 in (False, True)}


def swin_unetr(options):
    options = {"in_channels": 1, "out_channels": 2, **options}
    torch.manual_seed(0)
    network = nets.SwinUNETR(**options)
    perturb(network)
    config = {key: list(value) if isinstance(value, tuple) else value for key, value in options.items()}
    return network, {"network": "swin_unetr", "config": config}


@pytest.mark.parametrize("size,options", CASES.values(), ids=CASES.keys())
def test_swin_unetr_equals_monai(tmp_path, size, options):
    network, config = swin_unetr(options)
    compare(tmp_path, network, config, size)


@pytest.mark.parametrize("options", [dict(feature_size=12), dict(feature_size=12, use_v2=True, downsample="mergingv2")], ids=["v1", "v2"])
def test_every_gradient_equals_monais_in_float64(tmp_path, options):
    network, config = swin_unetr(options)
    network.double().eval()
    x, probe = (t.double() for t in draw(network, (64, 32, 32)))
    expected, gradients, input_gradient = monai_gradients(network, x, probe)
    got = run_probe(tmp_path, network, config, {"x": x, "probe": probe})
    assert relative(got["output"], expected) <= 1e-11
    assert relative(got["grad.x"], input_gradient) <= 1e-8
    for name, gradient in gradients.items():
        error = (got["grad." + name] - gradient).norm().item()
        assert error <= 1e-8 * gradient.norm().item() or vanishes(name) and error <= 1e-8, (name, error, gradient.norm().item())


UNETR = dict(in_channels=2, out_channels=3, img_size=(32, 48, 64), feature_size=4, hidden_size=48, mlp_dim=96, num_heads=4)


@pytest.mark.parametrize(
    "options", [dict(), dict(proj_type="perceptron", qkv_bias=True), dict(conv_block=False, res_block=False)], ids=["default", "perceptron", "plain-blocks"]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_unetr_equals_monai(tmp_path, options, dtype):
    options = {**UNETR, **options}
    torch.manual_seed(0)
    network = nets.UNETR(**options)
    perturb(network)
    network.to(dtype).eval()
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(1, 2, *options["img_size"], generator=generator, dtype=dtype)
    probe = torch.randn(1, 3, *options["img_size"], generator=generator, dtype=dtype)
    expected, gradients, input_gradient = monai_gradients(network, x, probe)
    config = {key: list(value) if isinstance(value, tuple) else value for key, value in options.items()}
    got = run_probe(tmp_path, network, {"network": "unetr", "config": config}, {"x": x, "probe": probe})
    exact = dtype == torch.float64
    assert relative(got["output"], expected) <= (1e-11 if exact else 1e-4)
    for name, gradient in gradients.items():
        error = (got["grad." + name] - gradient).norm().item()
        assert error <= (1e-8 if exact else 2e-2) * gradient.norm().item() + 1e-8, (name, error, gradient.norm().item())


def test_old_unetr_weights_with_unused_cross_attention_load(tmp_path):
    """MONAI 1.4 stored a cross attention in every block that nothing called."""
    torch.manual_seed(0)
    network = nets.UNETR(**UNETR)
    state = dict(network.state_dict())
    state["vit.blocks.0.cross_attn.to_q.weight"] = torch.zeros(48, 48)
    network.state_dict = lambda: state
    x = torch.randn(1, 2, 32, 48, 64)
    config = {key: list(value) if isinstance(value, tuple) else value for key, value in UNETR.items()}
    got = run_probe(tmp_path, network, {"network": "unetr", "config": config}, {"x": x})
    with torch.no_grad():
        assert relative(got["output"], network(x)) <= 1e-4


def count(network):
    return sum(p.numel() for p in network.parameters())


def test_unetr_counts_are_monais_and_those_of_the_literature():
    """MONAI 1.6 keeps a norm in each block, older ones a whole cross attention, that nothing calls."""
    network = nets.UNETR(in_channels=1, out_channels=14, img_size=(96, 96, 96))
    unused = sum(p.numel() for name, p in network.named_parameters() if "cross" in name)
    assert count(network) - unused == 92784046
    cross_attention = 3 * 768 * 768 + 768 * 768 + 768
    assert count(network) + 12 * cross_attention == 121123246


VIT = dict(in_channels=2, img_size=(16, 24, 32), patch_size=(8, 4, 8), hidden_size=48, mlp_dim=96, num_layers=3, num_heads=4)


@pytest.mark.parametrize(
    "options",
    [dict(), dict(proj_type="perceptron", qkv_bias=True), dict(pos_embed_type="sincos"), dict(pos_embed_type="none"),
     dict(classification=True, num_classes=5), dict(classification=True, post_activation="none")],
    ids=["default", "perceptron", "sincos", "no-position", "classes", "classes-without-tanh"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_vit_equals_monai(tmp_path, options, dtype):
    options = {**VIT, **options}
    torch.manual_seed(0)
    network = nets.ViT(**options)
    perturb(network)
    network.to(dtype).eval()
    fixed = options.get("pos_embed_type", "learnable") != "learnable"
    if fixed:  # ours is its own table: none is handed over
        reference = nets.ViT(**options).to(dtype).patch_embedding.position_embeddings
        network.patch_embedding.position_embeddings.data.copy_(reference)
        state = {k: v for k, v in network.state_dict().items() if not k.endswith("position_embeddings")}
        network.state_dict = lambda: state
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(2, 2, *options["img_size"], generator=generator, dtype=dtype)
    with torch.no_grad():
        expected = network(x)[0]
    probe = torch.randn(expected.shape, generator=generator, dtype=dtype)
    x.requires_grad_()
    (network(x)[0] * probe).sum().backward()
    config = {key: list(value) if isinstance(value, tuple) else value for key, value in options.items()}
    got = run_probe(tmp_path, network, {"vit": config}, {"x": x.detach(), "probe": probe})
    exact = dtype == torch.float64
    # The sin-cos table is made in float by both.
    assert relative(got["output"], expected) <= (1e-6 if exact and fixed else 1e-11 if exact else 1e-5)
    for name, parameter in network.named_parameters():
        if parameter.grad is None or fixed and name.endswith("position_embeddings"):  # MONAI trains the zeros of "none"
            continue
        error = (got["grad." + name] - parameter.grad).norm().item()
        assert error <= (1e-6 if exact and fixed else 1e-9 if exact else 1e-4) * parameter.grad.norm().item() + 1e-8, name


@pytest.mark.parametrize("grid, width", [((2, 3, 4), 12), ((6, 6, 6), 768), ((1, 5, 2), 6)])
def test_sincos_positions_equal_monais(tmp_path, grid, width):
    """With one layer of zero weights, the tokens are the normed positions: compared through the whole ViT."""
    from monai.networks.blocks.pos_embed_utils import build_sincos_position_embedding

    config = dict(in_channels=1, img_size=grid, patch_size=(1, 1, 1), hidden_size=width, mlp_dim=1, num_layers=1, num_heads=1, pos_embed_type="sincos")
    network = nets.ViT(**config)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if not name.endswith("position_embeddings") and "norm" not in name:
                parameter.zero_()
    state = {k: v for k, v in network.state_dict().items() if not k.endswith("position_embeddings")}
    network.state_dict = lambda: state
    got = run_probe(tmp_path, network, {"vit": {k: list(v) if isinstance(v, tuple) else v for k, v in config.items()}}, {"x": torch.zeros(1, 1, *grid)})
    positions = build_sincos_position_embedding(grid, width, 3)
    expected = torch.nn.functional.layer_norm(positions, (width,))
    assert (got["output"] - expected).abs().max() <= 1e-6 * expected.abs().max().clamp_min(1)
