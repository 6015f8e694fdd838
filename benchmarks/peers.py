"""Fovea's Swin block and encoder against MONAI's: one thread each, processes in turns, best run of all turns.

    PYTHONPATH= .venv/bin/python benchmarks/peers.py build/release/fovea [--turns 3] [--seconds 3] [--json]

A turn is one process of `fovea bench block encoder` and one of MONAI for each of its settings (default, flash).
Forward runs without gradients; forward + backward uses MONAI's default, since its flash switch works without gradients only.
"""
import argparse
import json
import subprocess
import sys

MONAI = r"""
import json, sys, time, warnings
warnings.filterwarnings("ignore")
import torch
from monai.networks.nets.swin_unetr import SwinTransformer, SwinTransformerBlock, compute_mask
torch.set_num_threads(1)
flash, seconds = sys.argv[1] == "flash", float(sys.argv[2])

def best_ms(run):
    run()
    best, start, runs = float("inf"), time.perf_counter(), 0
    while runs < 3 or time.perf_counter() - start < seconds:
        before = time.perf_counter()
        run()
        best, runs = min(best, time.perf_counter() - before), runs + 1
    return 1000 * best

times = {}
torch.manual_seed(0)
x = torch.randn(1, 48, 48, 48, 48)
for shift in (0, 3):
    block = SwinTransformerBlock(48, 3, (7, 7, 7), (shift,) * 3, use_flash_attention=flash)
    mask = compute_mask([49, 49, 49], (7, 7, 7), (shift,) * 3, "cpu") if shift else None
    name = "shifted Swin block" if shift else "Swin block"
    with torch.no_grad():
        times[name + " forward"] = best_ms(lambda: block(x, mask))
    if not flash:
        leaf, upstream = x.clone().requires_grad_(), torch.randn_like(x)
        def train():
            block.zero_grad(), setattr(leaf, "grad", None)
            block(leaf, mask).backward(upstream)
        times[name + " forward + backward"] = best_ms(train)
encoder = SwinTransformer(1, 48, (7, 7, 7), (2, 2, 2), (2, 2, 2, 2), (3, 6, 12, 24), use_flash_attention=flash)
volume = torch.randn(1, 1, 96, 96, 96)
with torch.no_grad():
    times["encoder 96^3 forward"] = best_ms(lambda: encoder(volume))
print(json.dumps(times))
"""


def run(command):
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fovea")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3, help="a row and turn")
    parser.add_argument("--json", action="store_true")
    a = parser.parse_args()
    best = {"fovea": {}, "default": {}, "flash": {}}

    def keep(side, times):
        for name, ms in times.items():
            best[side][name] = min(ms, best[side].get(name, float("inf")))

    for _ in range(a.turns):
        report = run([a.fovea, "bench", "block", "encoder", "--json", "--seconds", str(2 * a.seconds)])
        keep("fovea", {row["name"]: row["ours_best_ms"] for row in report["rows"]})
        for side in ("default", "flash"):
            keep(side, run([sys.executable, "-c", MONAI, side, str(a.seconds)]))
    rows = [{"name": name, "fovea_ms": best["fovea"][name], "monai_default_ms": ms, "monai_flash_ms": best["flash"].get(name)}
            for name, ms in best["default"].items()]
    if a.json:
        print(json.dumps({"isa": report["isa"], "peaks": report["peaks"], "rows": rows}, indent=2))
        return
    print(f"{report['cpu']}, {report['isa']}, {report['peaks']['fma_gflops']:.0f} GFLOP/s, one thread, best of {a.turns} turns")
    for r in rows:
        flash = r["monai_flash_ms"]
        print(f"{r['name']:38} fovea {r['fovea_ms']:8.1f} ms   MONAI default {r['monai_default_ms']:8.1f} ms = {r['monai_default_ms'] / r['fovea_ms']:5.2f} x"
              + (f"   flash {flash:8.1f} ms = {flash / r['fovea_ms']:5.2f} x" if flash else ""))


main()
