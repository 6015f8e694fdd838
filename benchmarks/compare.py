#!/usr/bin/env python3
"""Compares the ratios of a `fovea bench` run with those kept for the same processor.

    benchmarks/compare.py RESULT.json [--update] [--baselines FOLDER]

RESULT.json is what `fovea bench all --output` writes. Ratios to a peer in the same run are compared, not times: clocks
drift by tens of percent. The baseline is FOLDER/PROCESSOR-ISA.json (-fovea-memory with --memory fovea); --update
writes it: rows of the result replace rows of the same name, shape and dtype, the others stay.
Exit 1, but not with --update: a ratio fell by more than 5 %, or an error is above its bound. Exit 2: the result is not one of `fovea bench`.
"""
import argparse
import json
import pathlib
import re
import sys

LARGEST_LOSS = 0.05


def baseline_path(folder, result):
    words = [result["cpu"], result["isa"]] + ["fovea memory"] * (result.get("memory") == "fovea")
    return folder / (re.sub(r"[^a-z0-9]+", "-", " ".join(words).lower()).strip("-") + ".json")


def key(row):
    return row["name"], row["shape"], row["dtype"]


def compare(result, baseline):
    """One line a row, and how many rows lost too much or are wrong."""
    before = {key(row): row["ratio"] for row in baseline["rows"]} if baseline else {}
    lines, flagged = [], 0
    for row in result["rows"]:
        old, new = before.pop(key(row), 0), row["ratio"]
        if row["error"] > row["error_bound"]:
            verdict, flagged = f"WRONG: error {row['error']:.1e}, bound {row['error_bound']:.1e}", flagged + 1
        elif not new:
            continue  # no peer in that process
        elif not old:
            verdict = "new"
        else:
            change = new / old - 1
            slower = change < -LARGEST_LOSS
            verdict, flagged = f"{100 * change:+6.1f} %" + ("  SLOWER" if slower else ""), flagged + slower
        lines.append(f"{'  '.join(key(row)):100} {old:7.2f} -> {new:7.2f}  {verdict}")
    lines += [f"{'  '.join(k):100} {ratio:7.2f} -> not measured" for k, ratio in before.items()]
    return lines, flagged


def merged(result, baseline):
    """The next baseline as text, one line a row. Times are kept too; they say nothing on another processor."""
    rows = {key(row): row for row in baseline["rows"]} if baseline else {}
    kept = ("name", "shape", "dtype", "peer", "ratio", "ours_best_ms", "peer_best_ms")
    rows.update({key(row): {name: row[name] for name in kept} for row in result["rows"] if row["ratio"]})
    head = json.dumps({name: result[name] for name in ("cpu", "isa", "version", "peaks")})
    return head[:-1] + ', "rows": [\n' + ",\n".join(json.dumps(row) for row in rows.values()) + "\n]}\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", type=pathlib.Path)
    parser.add_argument("--update", action="store_true")
    parser.add_argument("--baselines", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parent / "baselines")
    arguments = parser.parse_args()
    try:
        result = json.loads(arguments.result.read_text())
        path = baseline_path(arguments.baselines, result)
        baseline = json.loads(path.read_text()) if path.exists() else None
        lines, flagged = compare(result, baseline)
    except (OSError, ValueError, KeyError, TypeError) as problem:
        print(f"compare: {arguments.result} against the baseline of its processor: {problem!r}; expected what `fovea bench --output` writes", file=sys.stderr)
        return 2
    print("\n".join(lines))
    if arguments.update:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(merged(result, baseline))
        print(f"compare: wrote {path}")
    elif baseline is None:
        print(f"compare: no baseline for this processor yet; --update writes {path}")
    print(f"compare: {flagged} of {len(result['rows'])} rows slower by more than {100 * LARGEST_LOSS:.0f} % or wrong")
    return 1 if flagged and not arguments.update else 0


if __name__ == "__main__":
    sys.exit(main())
