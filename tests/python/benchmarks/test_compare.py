"""benchmarks/compare.py on made-up results: what it flags, what it lets pass, what --update keeps."""
import json
import pathlib
import subprocess
import sys

import pytest

COMPARE = pathlib.Path(__file__).resolve().parents[3] / "benchmarks/compare.py"


def row(name, ratio, **changes):
    return {"name": name, "shape": "(1,2,3)", "dtype": "f32", "peer": "torch", "ours_best_ms": 1.0, "peer_best_ms": ratio, "ratio": ratio,
            "error": 1e-7, "error_bound": 2e-6, **changes}


@pytest.fixture
def compare(tmp_path):
    def run(rows, *options, memory="torch"):
        result = tmp_path / "result.json"
        result.write_text(json.dumps({"cpu": "Make X-1 (R)", "isa": "avx2", "version": "1", "memory": memory, "peaks": {}, "rows": rows}))
        return subprocess.run([sys.executable, COMPARE, result, "--baselines", tmp_path / "baselines", *options], capture_output=True, text=True)
    return run


def test_a_ratio_more_than_five_percent_below_the_baseline_is_flagged(compare):
    assert compare([row("a", 4.0), row("b", 2.0)], "--update").returncode == 0
    done = compare([row("a", 3.76), row("b", 1.88)])
    assert done.returncode == 1
    assert done.stdout.count("SLOWER") == 2 and "-6.0 %" in done.stdout


def test_a_smaller_loss_or_a_gain_passes(compare):
    compare([row("a", 4.0), row("b", 2.0)], "--update")
    done = compare([row("a", 3.84), row("b", 3.0)])
    assert done.returncode == 0
    assert "-4.0 %" in done.stdout and "+50.0 %" in done.stdout and "SLOWER" not in done.stdout


def test_times_do_not_matter_while_their_ratio_stays(compare):
    compare([row("a", 4.0)], "--update")
    assert compare([row("a", 4.0, ours_best_ms=2.0, peer_best_ms=8.0)]).returncode == 0


def test_an_error_above_its_bound_is_flagged_however_fast(compare):
    compare([row("a", 4.0)], "--update")
    done = compare([row("a", 9.0, error=3e-6)])
    assert done.returncode == 1 and "WRONG" in done.stdout


def test_rows_are_told_apart_by_shape_and_dtype(compare):
    compare([row("a", 4.0), row("a", 1.0, dtype="bf16"), row("a", 2.0, shape="(9)")], "--update")
    assert compare([row("a", 4.0), row("a", 1.0, dtype="bf16"), row("a", 2.0, shape="(9)")]).returncode == 0


def test_new_and_missing_rows_are_named_but_not_flagged(compare):
    compare([row("a", 4.0)], "--update")
    done = compare([row("b", 4.0)])
    assert done.returncode == 0
    assert "new" in done.stdout and "not measured" in done.stdout


def test_update_keeps_rows_that_were_not_measured_again(compare, tmp_path):
    compare([row("a", 4.0), row("b", 2.0)], "--update")
    compare([row("b", 3.0)], "--update")
    kept = json.loads((tmp_path / "baselines/make-x-1-r-avx2.json").read_text())
    assert {r["name"]: r["ratio"] for r in kept["rows"]} == {"a": 4.0, "b": 3.0}


def test_another_memory_has_a_baseline_of_their_own(compare, tmp_path):
    compare([row("a", 4.0)], "--update")
    done = compare([row("a", 1.0)], memory="fovea")
    assert done.returncode == 0 and "no baseline" in done.stdout


def test_a_file_that_is_no_result_is_refused_in_one_line(tmp_path):
    (tmp_path / "x.json").write_text("[]")
    done = subprocess.run([sys.executable, COMPARE, tmp_path / "x.json"], capture_output=True, text=True)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
