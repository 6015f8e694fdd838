"""What loading the library does to a process, each seen from a fresh one."""
import os
import pathlib
import re
import subprocess
import sys

import pytest


def python(code):
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.skipif(not pathlib.Path("/proc/self/maps").exists(), reason="needs /proc/self/maps")
def test_exactly_one_openmp_runtime_is_mapped():
    maps = python("""
import torch, fovea
q = torch.randn(1, 2, 300, 8)
fovea.attention(q, q, q)
print(open("/proc/self/maps").read())
""")
    runtimes = {line.split()[-1] for line in maps.splitlines() if re.search(r"/lib(gomp|iomp5|omp)\b[^/]*\.so", line)}
    assert len(runtimes) == 1, runtimes


def test_loading_leaves_denormals_alone():
    out = python("""
import sys, fovea
half = sys.float_info.min / 2
print(half > 0)
""")
    assert out.strip() == "True"


def test_a_missing_library_says_what_to_do(tmp_path):
    result = subprocess.run([sys.executable, "-c", "import fovea"], capture_output=True, text=True,
                            env={**os.environ, "FOVEA_OPS_LIBRARY": str(tmp_path / "none.so")})
    assert f"ImportError: fovea: {tmp_path}/none.so does not exist, expected the operator library" in result.stderr


@pytest.mark.parametrize("channels, backward", [(64, False), (32, True)], ids=["forward", "backward"])
def test_memory_of_16384_tokens_stays_below_64_mib_where_the_matrix_is_1_gib(channels, backward):
    extra_mib = float(python(f"""
import resource, torch, fovea
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
torch.set_num_threads(2)
small = torch.randn(1, 1, 256, {channels}, requires_grad=True)
fovea.attention(small, small, small)[0].sum().backward()  # start-up of autograd and threads
q, k, v = (torch.randn(1, 1, 16384, {channels}, requires_grad={backward}) for _ in range(3))
before = peak()
out, lse = fovea.attention(q, k, v)
if {backward}:
    out.sum().backward()
print(peak() - before)
"""))
    assert extra_mib < 64
