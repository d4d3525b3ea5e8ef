"""The benchmarks run from start to end, on networks too small to measure anything; speed is not tested."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "parts"),
    [
        ("training", {"throughput", "switches", "evaluation", "loading", "overhead", "batch_sizes", "two_processes"}),
        ("accuracy", {"digits"}),
        ("search", {"grid", "random_search", "halving_1-4_eta3", "halving_1-2-4_eta3_ties"}),
        ("records", {"load_study", "status", "results", "report", "merge", "merge_again", "merged_run"}),
    ],
)
def test_a_benchmark_runs_and_leaves_the_recorded_figures_alone(script, parts):
    recorded = {path: path.read_bytes() for path in BENCHMARKS.glob("*.json")}
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / f"{script}.py"), "--smoke"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert parts <= {line.split()[0] for line in done.stdout.splitlines() if line[:1].isalpha()}
    assert recorded == {path: path.read_bytes() for path in BENCHMARKS.glob("*.json")}


@pytest.mark.parametrize("name", ["accuracy", "evaluation", "records", "search", "training"])
def test_recorded_figures_name_their_hardware_and_versions(name):
    provenance = json.loads((BENCHMARKS / f"{name}.json").read_text())["provenance"]
    assert provenance["hardware"]["processor"]
    assert provenance["versions"]["torch"]
