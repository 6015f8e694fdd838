"""Prints the means and case counts of a summary.json."""
import json
import sys

summary = json.load(open(sys.argv[1]))
labels = summary["fovea"]["labels"]
print(f"{len(summary['metric_per_case'])} held-out cases, surface convention {summary['fovea']['surface_convention']}")
for key, label in labels.items():
    means = label["mean"]
    print(f"{key} {label['name']}: " + ", ".join(f"{metric} {means[metric]['nan-excluded']['mean']:.4f}" for metric in ("Dice", "HD95_mm", "NSD_1mm") if metric in means))
