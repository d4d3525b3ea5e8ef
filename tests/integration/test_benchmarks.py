"""The benchmarks run from start to end, on networks too small to measure anything; speed is not tested."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from robust_arch.architectures import ArchSpec, build
from robust_arch.errors import InputError

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "parts"),
    [
        (
            "training",
            {
                "throughput",
                "objectives",
                "switches",
                "evaluation",
                "loading",
                "overhead",
                "batch_sizes",
                "two_processes",
            },
        ),
        ("accuracy", {"digits"}),
        ("search", {"grid", "random_search", "halving_1-4_eta3", "halving_1-2-4_eta3_ties"}),
        ("records", {"load_study", "status", "results", "report", "merge", "merge_again", "merged_run"}),
    ],
)
def test_a_benchmark_runs_and_leaves_the_recorded_figures_alone(script, parts):
    recorded = {path: path.read_bytes() for path in BENCHMARKS.glob("**/*.json")}
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / f"{script}.py"), "--smoke"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert parts <= {line.split()[0] for line in done.stdout.splitlines() if line[:1].isalpha()}
    assert recorded == {path: path.read_bytes() for path in BENCHMARKS.glob("**/*.json")}


@pytest.mark.slow
def test_a_gpu_benchmark_runs_on_a_cpu_and_goes_on_where_it_was(tmp_path):
    out = tmp_path / "results.json"
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "--device", "cpu", "--tiny", "--out", str(out)]
    first = subprocess.run([*command, "--minutes", "0"], capture_output=True, text=True, check=True)
    assert "left: numerics, matrix product" in first.stdout
    done = subprocess.run([*command, "--minutes", "60"], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("nothing is left\n")
    recorded = out.read_bytes()
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (again.stdout, out.read_bytes()) == ("nothing is left\n", recorded)


@pytest.mark.parametrize("path", sorted(BENCHMARKS.glob("results/*.json")), ids=lambda path: path.stem)
def test_recorded_figures_name_their_hardware_and_versions(path, benchmarks):
    from machine import slug

    results = json.loads(path.read_text())
    assert slug(results.pop("machine")) == path.stem
    for part in results.values():
        assert part["provenance"]["hardware"]["processor"]
        assert part["provenance"]["versions"]["torch"]


def test_a_file_is_named_after_its_machine(benchmarks):
    from machine import slug

    facts = {"processor": "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz", "cores": 8}
    units = ["avx512_bf16", "amx_bf16"]
    assert slug({**facts, "features": units, "gpus": ["NVIDIA H100 80GB HBM3"]}) == (
        "intel-r-xeon-r-platinum-8481c-cpu-2-70ghz-8-cores-avx512_bf16-amx_bf16-1x-nvidia-h100-80gb-hbm3"
    )
    assert slug({"processor": "../x/Y", "cores": 1, "features": [], "gpus": []}) == "x-y-1-cores"


def test_a_part_leaves_the_others_and_a_damaged_file_alone(benchmarks, tmp_path, monkeypatch):
    import machine

    monkeypatch.setattr(machine, "RESULTS", tmp_path)
    path = machine.write_part("training", {"a": 1})
    machine.write_part("records", {"b": 2})
    assert (machine.read_part("training"), machine.read_part("records"), machine.read_part("gpu")) == (
        {"a": 1},
        {"b": 2},
        None,
    )
    path.write_text('{"training": ')
    with pytest.raises(InputError, match="expected a JSON object"):
        machine.write_part("records", {"b": 3})
    assert path.read_text() == '{"training": '


def test_the_tables_are_those_of_the_recorded_figures(benchmarks):
    from tables import written

    page = (BENCHMARKS / "README.md").read_text()
    machines = [json.loads(path.read_text()) for path in sorted(BENCHMARKS.glob("results/*.json"))]
    assert written(page, machines) == page
    machines[0]["training"]["throughput"][0]["images_per_second"]["engine"] = 12345
    machines[0]["training"].setdefault("commits", {})["throughput"] = "abcdef0123"
    changed = written(page, machines)
    assert "| 12345 |" in changed
    assert changed.count("commit abcdef0") == 1  # of the part that was measured again


def test_time_is_charged_to_the_innermost_part(benchmarks):
    from profile_step import REST, Clock

    moments = iter([0, 1, 3, 7, 12, 20])
    clock = Clock(lambda: next(moments))
    with clock.part("outer"), clock.part("inner"):  # from 1 and from 3, to 12 and to 7
        pass
    assert clock.lap() == {REST: 1 + 8, "outer": 2 + 5, "inner": 4}  # 12 to 20 is the rest
    assert sum([1 + 8, 2 + 5, 4]) == 20


def test_the_parts_of_a_profiled_step_add_up(benchmarks):
    from profile_step import PARTS, profiled

    found = profiled("tiny", "trades", 4, 1, True, accelerator="cpu", threads=1)
    assert sum(found["parts_ms"].values()) == pytest.approx(found["step_ms"], abs=0.01 * len(PARTS))
    assert {name for name, value in found["parts_ms"].items() if value <= 0} <= {"fetch the batch"}


@pytest.mark.parametrize("objective", ["sat", "trades", "mart"])
def test_the_reference_descends_the_same_loss(objective, benchmarks):
    """Written after the published code, it is a second implementation of the objectives."""
    import reference
    from arms import OBJECTIVES

    net = build(ArchSpec("wide_resnet", (1, 1, 1), (4, 4, 8)), seed=0).eval()
    x, x_adv = torch.rand(2, 6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    y = torch.arange(6)
    loss, logits = reference.outer_loss(net, x, x_adv, y, objective)
    found = OBJECTIVES[objective].loss(net, x, x_adv, y)
    torch.testing.assert_close(found.total, loss)
    torch.testing.assert_close(found.logits, logits)
