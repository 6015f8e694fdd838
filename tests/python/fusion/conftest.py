"""Runs a layer of Fovea through fovea_fusion_probe, in float64."""
import json
import os
import pathlib
import subprocess

import pytest

torch = pytest.importorskip("torch", reason="no torch: run scripts/setup")
from safetensors.torch import load_file, save_file  # noqa: E402

PROBE = pathlib.Path(os.environ.get("FOVEA_BUILD", "build/release")) / "fovea_fusion_probe"


@pytest.fixture
def fovea_layer(tmp_path):
    """fovea_layer(config, weights, inputs) -> outputs and gradients by name."""
    if not PROBE.exists():
        pytest.skip(f"{PROBE} is not built")

    def run(config, weights, inputs):
        (tmp_path / "config.json").write_text(json.dumps(config))
        save_file({k: v.detach().contiguous() for k, v in weights.items()}, tmp_path / "weights.safetensors")
        save_file({k: v.detach().contiguous() for k, v in inputs.items()}, tmp_path / "input.safetensors")
        files = [str(tmp_path / n) for n in ("config.json", "weights.safetensors", "input.safetensors", "output.safetensors")]
        done = subprocess.run([str(PROBE), *files], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return load_file(files[3])

    return run


def relative(got, expected):
    return ((got - expected).norm() / expected.norm().clamp_min(1e-30)).item()
