"""Prints what a run's validation found: the command that trained it, its time and steps, then means over the cases.

    scripts/print_summary.py runs/hippocampus-0
"""
import json
import pathlib
import sys

run = pathlib.Path(sys.argv[1])
manifest, metrics = (json.loads((run / name).read_text()) for name in ("manifest.json", "metrics.json"))
summary = json.loads((run / "validation/summary.json").read_text())
print(f"trained by  {manifest['command']}")
print(f"            {metrics['steps']} steps in {metrics['seconds']:.0f} s on {manifest['threads']} threads of {manifest['cpu']} ({manifest['isa']}), seed {manifest['seed']}")
print(f"{len(summary['metric_per_case'])} held-out cases, surface convention {summary['fovea']['surface_convention']}")
for key, label in summary["fovea"]["labels"].items():
    means = label["mean"]
    print(f"{key} {label['name']}: " + ", ".join(f"{metric} {means[metric]['nan-excluded']['mean']:.4f}" for metric in ("Dice", "HD95_mm", "NSD_1mm") if metric in means))
