"""Fovea's networks against MONAI's: same weights, same input; logits, every parameter gradient, every stage.

FOVEA_FULL=1 adds 96^3 at feature sizes 24 and 48, version 1 and 2. Figures are printed with `pytest -s`.
"""
import json
import os
import pathlib
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


def compare(folder, network, config, x, seed=2):
    generator = torch.Generator().manual_seed(seed)
    network.eval()
    probe = torch.randn(1, network.out.conv.conv.out_channels, *x.shape[2:], generator=generator)
    outputs = {}
    hooks = [module.register_forward_hook(lambda m, i, o, name=name: outputs.__setitem__(name, o)) for name, module in network.named_modules()
             if name.endswith(("downsample", ".0")) and name.startswith("swinViT") or name.count(".") == 0 and name.startswith(("encoder", "decoder"))]
    expected, gradients, input_gradient = monai_gradients(network, x, probe)
    for hook in hooks:
        hook.remove()
    got = run_probe(folder, network, config, {"x": x, "probe": probe})

    figures = {"logits": relative(got["output"], expected), "input gradient": relative(got["grad.x"], input_gradient)}
    worst_name, worst = "", 0.0
    for name, gradient in gradients.items():
        error = ((got["grad." + name] - gradient).norm() / gradient.norm().clamp_min(1e-30)).item()
        if error > worst:
            worst_name, worst = name, error
    figures["parameter gradients"] = worst
    print(f"\n{config} {tuple(x.shape)}: " + ", ".join(f"{k} {v:.1e}" for k, v in figures.items()) + f" ({worst_name})")
    stages = [name for name, tensor in outputs.items() if "trace." + name in got and got["trace." + name].shape == tensor.shape]
    assert len(stages) >= 5
    for name in stages:
        assert relative(got["trace." + name], outputs[name]) <= 1e-4, name
    ours = {name[5:] for name in got if name.startswith("grad.") and name != "grad.x"}
    assert ours == set(gradients)
    assert figures["logits"] <= 1e-4
    assert figures["input gradient"] <= 1e-3
    assert figures["parameter gradients"] <= 1e-3


FULL = os.environ.get("FOVEA_FULL") == "1"
CASES = [
    ("v1-12", 64, dict(feature_size=12), {}),
    ("v1-24-two-channels-in", 64, dict(feature_size=24, in_channels=2, out_channels=3), {}),
    ("v2-12-mergingv2", 64, dict(feature_size=12, use_v2=True, downsample="mergingv2"), {}),
    ("oblong-odd-windows", (32, 64, 96), dict(feature_size=12, window_size=(5, 3, 7), depths=(1, 3, 2, 1), qkv_bias=False, patch_norm=True, normalize=False, mlp_ratio=2.0), {}),
]
if FULL:
    CASES += [(f"full-{'v2' if v2 else 'v1'}-{f}", 96, dict(feature_size=f, use_v2=v2, out_channels=14), {}) for f in (24, 48) for v2 in (False, True)]


@pytest.mark.parametrize("size,options", [case[1:3] for case in CASES], ids=[case[0] for case in CASES])
def test_swin_unetr_equals_monai(tmp_path, size, options):
    options = {"in_channels": 1, "out_channels": 2, **options}
    torch.manual_seed(0)
    network = nets.SwinUNETR(**options)
    perturb(network)
    size = (size,) * 3 if isinstance(size, int) else size
    x = torch.randn(1, options["in_channels"], *size, generator=torch.Generator().manual_seed(3))
    config = {key: list(value) if isinstance(value, tuple) else value for key, value in options.items()}
    compare(tmp_path, network, {"network": "swin_unetr", "config": config}, x)
