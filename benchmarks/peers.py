"""Fovea's Swin block, encoder and network against MONAI and OpenVINO: one thread each, processes in turns, best of all turns.

    PYTHONPATH= .venv/bin/python benchmarks/peers.py build/release/fovea [PART...] [--turns 3] [--seconds 3] [--peers NAME...] [--json]

PART     block encoder network train-step: those of `fovea bench`; without any, all that this fovea has.
peers    monai-default    MONAI as it comes
         monai-flash      use_flash_attention=True; in MONAI it acts without gradients only
         monai-compiled   torch.compile of the flash setting; needs a C++ compiler
         openvino         forward only, float32; in a virtual environment of its own, build/peers, made on the first run
A turn is one process of fovea and one of each peer. The first call of each side (compilation, warm-up) and OpenVINO's
conversion are timed apart and printed as preparation. A peer that fails is named with its reason, the others go on.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
PEERS = ("monai-default", "monai-flash", "monai-compiled", "openvino")
BEST = "best of MONAI"  # the fastest of its three settings

# part -> row -> ratios to reach. Rows have the names that `fovea bench PART` reports.
ROWS = {
    "block": {
        "Swin block forward": {"monai-flash": 2.2},
        "Swin block forward + backward": {BEST: 5},
        "shifted Swin block forward": {"monai-flash": 4},
        "shifted Swin block forward + backward": {BEST: 5},
    },
    "encoder": {"encoder 96^3 forward": {"monai-flash": 2.2}},
    "network": {"network 96^3 forward": {"monai-default": 6.5, "monai-flash": 3.5, "openvino": 2}},
    "train-step": {"network 96^3 train step": {"monai-default": 3.5}},
}


# ------------------------------------------------------------------------------------------------ one peer, one process

def best_ms(call, seconds):
    """Preparation (the first call) in seconds and the best of at least three further calls in milliseconds."""
    start = time.perf_counter()
    call()
    preparation = time.perf_counter() - start
    best, runs, start = float("inf"), 0, time.perf_counter()
    while runs < 3 or time.perf_counter() - start < seconds:
        before = time.perf_counter()
        call()
        best, runs = min(best, time.perf_counter() - before), runs + 1
    return {"ms": 1000 * best, "preparation_s": preparation}


def monai_case(row, flash):
    """The module of a row and its inputs."""
    import torch
    from monai.networks.nets.swin_unetr import SwinTransformer, SwinTransformerBlock, SwinUNETR, compute_mask
    torch.manual_seed(0)
    if "block" in row:
        shift = 3 if row.startswith("shifted") else 0
        block = SwinTransformerBlock(48, 3, (7, 7, 7), (shift,) * 3, use_flash_attention=flash)
        mask = (compute_mask([49, 49, 49], (7, 7, 7), (shift,) * 3, "cpu"),) if shift else (None,)
        return block, (torch.randn(1, 48, 48, 48, 48), *mask)
    volume = torch.randn(1, 1, 96, 96, 96)
    if "encoder" in row:
        return SwinTransformer(1, 48, (7, 7, 7), (2, 2, 2), (2, 2, 2, 2), (3, 6, 12, 24), use_flash_attention=flash), (volume,)
    return SwinUNETR(1, 3, feature_size=48, use_flash_attention=flash), (volume,)


def trains(row):
    return "backward" in row or "train step" in row


def time_torch(row, setting, seconds):
    import torch
    module, inputs = monai_case(row, flash=setting != "monai-default")
    module.train("train" in row)
    call = torch.compile(module) if setting == "monai-compiled" else module
    if not trains(row):
        with torch.no_grad():
            return best_ms(lambda: call(*inputs), seconds)
    leaf = inputs[0].clone().requires_grad_("block" in row)
    with torch.no_grad():
        upstream = torch.randn_like(module(*inputs))
    optimizer = torch.optim.AdamW(module.parameters()) if "train step" in row else None

    def step():
        module.zero_grad()
        leaf.grad = None
        call(leaf, *inputs[1:]).backward(upstream)
        if optimizer:
            optimizer.step()
    return best_ms(step, seconds)


def time_openvino(row, seconds):
    import openvino
    import torch
    module, inputs = monai_case(row, flash=True)
    inputs = tuple(i for i in inputs if i is not None)
    if "shifted" not in row and "block" in row:
        block = module
        module = torch.nn.Module()
        module.block, module.forward = block, lambda x: block(x, None)
    start = time.perf_counter()
    with torch.no_grad():
        model = openvino.convert_model(module.eval(), example_input=inputs if len(inputs) > 1 else inputs[0],
                                       input=[list(i.shape) for i in inputs])
    compiled = openvino.Core().compile_model(model, "CPU", {
        "INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"})
    converted = time.perf_counter() - start
    arrays = [i.numpy() for i in inputs]
    request = compiled.create_infer_request()
    measured = best_ms(lambda: request.infer(arrays), seconds)
    return {**measured, "preparation_s": converted + measured["preparation_s"]}


def time_peer(setting, rows, seconds):
    """One JSON line a row: {"row", "ms", "preparation_s"} or {"row", "problem"}."""
    import resource
    import warnings
    warnings.filterwarnings("ignore")
    import torch
    torch.set_num_threads(1)
    for row in rows:
        try:
            result = time_openvino(row, seconds) if setting == "openvino" else time_torch(row, setting, seconds)
        except Exception as problem:  # a peer's failure is a result
            result = {"problem": f"{type(problem).__name__}: {str(problem).strip().splitlines()[0] if str(problem) else ''}"[:200]}
        result["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"row": row, **result}), flush=True)


# ------------------------------------------------------------------------------------------------ all sides, in turns

def openvino_python():
    """The interpreter of build/peers: OpenVINO beside the torch and MONAI of .venv. Made on the first call."""
    venv = ROOT / "build/peers"
    packages = ROOT / "benchmarks/peers-packages.txt"
    stamp = venv / "installed.txt"
    if not stamp.exists() or stamp.read_text() != packages.read_text():
        print("peers: installing OpenVINO into build/peers", file=sys.stderr)
        subprocess.run([ROOT / ".venv/bin/python", "-m", "venv", "--clear", venv], check=True)
        subprocess.run([venv / "bin/python", "-m", "pip", "install", "-q", "--disable-pip-version-check", "-r", packages], check=True)
        own = next(venv.glob("lib/python3*/site-packages"))
        (own / "fovea.pth").write_text(str(next(ROOT.glob(".venv/lib/python3*/site-packages"))) + "\n")
        stamp.write_text(packages.read_text())
    return venv / "bin/python"


def fovea_rows(fovea, part, seconds):
    """The rows of `fovea bench PART` by name, and the report's head; nothing where this fovea has no such part."""
    done = subprocess.run([fovea, "bench", part, "--json", "--memory", "fovea", "--seconds", str(2 * seconds)], capture_output=True, text=True)
    if done.returncode == 2:
        return {}, None
    done.check_returncode()
    report = json.loads(done.stdout)
    return {row["name"]: {"ms": row["ours_best_ms"], "peak_mib": report["peak_resident_bytes"] / 2**20} for row in report["rows"]}, report


def peer_rows(setting, rows, seconds, limit_s):
    python = openvino_python() if setting == "openvino" else sys.executable
    environment = {**os.environ, "PYTHONPATH": "", "OMP_NUM_THREADS": "1", "TORCHINDUCTOR_CACHE_DIR": str(ROOT / "build/peers-inductor")}
    command = [python, __file__, "-", "--peers", setting, "--seconds", str(seconds), "--rows", *rows]
    try:
        out = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=limit_s)
        text, problem = out.stdout, (out.stderr.strip().splitlines() or [f"ended with {out.returncode}"])[-1]
    except subprocess.TimeoutExpired as late:
        text, problem = (late.stdout or b"").decode(), f"not done after {limit_s:.0f} s"
    answers = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    results = {answer.pop("row"): answer for answer in answers}
    return {row: results.get(row, {"problem": problem}) for row in rows}


def keep_best(known, new):
    for row, result in new.items():
        old = known.setdefault(row, result)
        if result.get("ms", float("inf")) < old.get("ms", float("inf")):
            old["ms"] = result["ms"]
        if "preparation_s" in result:
            old["preparation_s"] = max(old.get("preparation_s", 0), result["preparation_s"])  # later turns find caches


def table(ours, theirs):
    rows = []
    for part in ROWS.values():
        for name, targets in part.items():
            if name not in ours:
                continue
            peers = {setting: dict(results[name]) for setting, results in theirs.items() if name in results}
            settings = [p for p in peers if p.startswith("monai") and "ms" in peers[p]]
            if settings:
                peers[BEST] = {"ms": min(peers[p]["ms"] for p in settings)}
            for setting, result in peers.items():
                if "ms" in result:
                    result["ratio"] = result["ms"] / ours[name]["ms"]
                    if setting in targets:
                        result.update(target=targets[setting], ok=result["ratio"] >= targets[setting])
            rows.append({"name": name, "fovea_ms": ours[name]["ms"], "fovea_peak_mib": ours[name]["peak_mib"], "peers": peers})
    return rows


def print_table(rows):
    for row in rows:
        alone = "network" in row["name"]  # the only row of its process, whose peak memory is then its own
        print(f"{row['name']:40} fovea {row['fovea_ms']:9.1f} ms" + (f"   peak {row['fovea_peak_mib']:.0f} MiB" if alone else ""))
        for setting, r in row["peers"].items():
            if "problem" in r:
                print(f"    {setting:36} {r['problem']}")
                continue
            verdict = "" if "target" not in r else f"   target {r['target']:4.1f}  {'ok' if r['ok'] else 'MISS'}"
            preparation = f"   prepared in {r['preparation_s']:.1f} s" if setting in ("openvino", "monai-compiled") else ""
            print(f"    {setting:36} {r['ms']:15.1f} ms = {r['ratio']:5.2f} x{verdict}{preparation}" + (f"   peak {r['peak_mib']:.0f} MiB" if alone and "peak_mib" in r else ""))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fovea")
    parser.add_argument("parts", nargs="*", metavar="PART", help=" ".join(ROWS))
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3, help="a row, side and turn")
    parser.add_argument("--limit", type=float, default=900, help="longest process of a peer, in seconds")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=PEERS)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rows", nargs="+", help=argparse.SUPPRESS)  # of the process that times one peer
    a = parser.parse_args()
    if a.rows:
        return time_peer(a.peers[0], a.rows, a.seconds)
    unknown = [part for part in a.parts if part not in ROWS]
    if unknown:
        parser.error(f"no part is called {unknown[0]}; there are {', '.join(ROWS)}")
    ours, theirs, head = {}, {setting: {} for setting in a.peers}, None
    for turn in range(a.turns):
        for part in a.parts or ROWS:
            rows, report = fovea_rows(a.fovea, part, a.seconds)
            if report is None:
                if turn == 0:
                    print(f"peers: {a.fovea} has no bench part {part}", file=sys.stderr)
                continue
            head = report
            keep_best(ours, rows)
            for setting in a.peers:
                print(f"peers: turn {turn + 1} of {a.turns}: {part}, {setting}", file=sys.stderr)
                wanted = [row for row in ROWS[part] if row in rows and (setting != "openvino" or not trains(row))]
                keep_best(theirs[setting], peer_rows(setting, wanted, a.seconds, a.limit) if wanted else {})
    if head is None:
        parser.error("nothing to compare")
    rows = table(ours, theirs)
    if a.json:
        print(json.dumps({"cpu": head["cpu"], "isa": head["isa"], "peaks": head["peaks"], "turns": a.turns, "rows": rows}, indent=2))
    else:
        print(f"{head['cpu']}, {head['isa']}, {head['peaks']['fma_gflops']:.0f} GFLOP/s of multiply-adds, one thread, best of {a.turns} turns")
        print_table(rows)


main()
