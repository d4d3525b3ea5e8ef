"""The GPU benchmark's logic on a CPU: parts, resumption, planted differences; no figure of a GPU is tested."""

import json
import shlex

import pytest
import torch

from robust_arch.study.plan import plan_study

pytestmark = pytest.mark.usefixtures("benchmarks")


class Machine:
    """Parts that take a known number of minutes on a clock that only they move."""

    def __init__(self, monkeypatch, minutes):
        self.minutes, self.now, self.begun = minutes, 0.0, []
        monkeypatch.setattr("gpu.time.monotonic", lambda: self.now)
        self.todo = {name: name for name in minutes}

    def measure(self, name, seconds):
        self.begun.append(name)
        if 60 * self.minutes[name] > seconds:
            self.now += seconds
            raise TimeoutError
        self.now += 60 * self.minutes[name]
        return {"shown": {"minutes": self.minutes[name]}}


@pytest.fixture
def call(tmp_path):
    """One call of the command, with its state read from the file again."""
    import gpu

    def once(machine, minutes=9):
        return gpu.run(machine.todo, gpu.State(tmp_path / "results.json"), minutes, machine.measure)

    return once


def recorded(tmp_path):
    return json.loads((tmp_path / "results.json").read_text())


def test_calls_go_on_where_the_last_one_ended(call, tmp_path, monkeypatch):
    (tmp_path / "results.json").write_text('{"training": {"a": 1}}')
    machine = Machine(monkeypatch, {"a": 4, "b": 4, "c": 4, "d": 1})
    assert call(machine) == ["c", "d"]  # c is cut off after one minute
    assert list(recorded(tmp_path)["gpu"]["parts"]) == ["a", "b"]
    assert call(machine) == []
    assert machine.begun == ["a", "b", "c", "c", "d"]
    assert call(machine) == []
    assert machine.begun[5:] == []
    assert recorded(tmp_path)["training"] == {"a": 1}


def test_a_part_that_no_call_can_hold_does_not_stop_the_others(call, tmp_path, monkeypatch):
    machine = Machine(monkeypatch, {"long": 10, "short": 1})
    assert call(machine) == ["short"]
    assert call(machine) == []
    assert recorded(tmp_path)["gpu"]["parts"]["long"]["shown"] == {"too slow": "more than 9 minutes"}


def test_a_failed_part_is_measured_again(call, tmp_path, monkeypatch):
    machine = Machine(monkeypatch, {"a": 1, "b": 1})
    with monkeypatch.context() as patch:
        patch.setattr(machine, "measure", lambda name, seconds: {"error": f"{name} broke"})
        assert call(machine) == []
    assert recorded(tmp_path)["gpu"]["parts"]["a"] == {"error": "a broke"}
    assert call(machine) == []
    assert machine.begun == ["a", "b"]
    assert "error" not in recorded(tmp_path)["gpu"]["parts"]["a"]


def test_every_part_has_its_sizes():
    import gpu

    found = list(gpu.parts("cuda", tiny=False))
    for name in ("WRN-16-4", "WRN-28-10", "WRN-34-10"):
        for batch in (128, 512):
            sides = [part.split(": ")[1] for part in found if part.startswith(f"{name}, batch {batch}: ")]
            assert sides == ["reference", "engine", "engine, CUDA graphs"]
    assert found[0] == "numerics"
    assert {"8 small runs at once", "autoattack"} <= set(found)
    assert not any("CUDA" in part for part in gpu.parts("cpu", tiny=True))


def test_the_same_device_agrees_with_itself():
    import gpu

    assert "error" not in gpu.numerics(gpu.TINY, "cpu", 4)


@pytest.mark.parametrize("planted", ["weight", "start"])
def test_a_planted_difference_is_reported(planted, monkeypatch):
    import gpu

    if planted == "weight":
        real = gpu.moved

        def wrong(net, device):
            copied = real(net, device)
            with torch.no_grad():
                next(copied.parameters()).mul_(1.01)
            return copied

        monkeypatch.setattr(gpu, "moved", wrong)
    else:
        seeds = iter([0, 1])
        real_keys = gpu.example_keys
        monkeypatch.setattr(gpu, "example_keys", lambda _, index: real_keys(next(seeds), index))
    found = gpu.numerics(gpu.TINY, "cpu", 4)
    named = "logits" if planted == "weight" else "random start"
    assert found["error"].startswith("differs from the CPU: ")
    assert named in found["error"]
    assert found["differences"][named] > found["tolerances"][named]


def test_the_table_by_hand():
    from tables import gpu

    parts = {
        "numerics": {"shown": {"logits": "2e-01 of at most 0.0001"}, "error": "differs from the CPU: logits"},
        "WRN-16-4, batch 128: reference": {"shown": {"images/s": 50.0}},
        "WRN-16-4, batch 128: engine": {"shown": {"images/s": 125.0, "GPU MiB": 900}},
        "WRN-16-4, batch 512: engine": {"shown": {"out of GPU memory": ""}},
    }
    assert gpu({"parts": parts}).splitlines()[2:] == [
        "| numerics | **FAILED: differs from the CPU: logits**; logits 2e-01 of at most 0.0001 |",
        "| WRN-16-4, batch 128: reference | images/s 50.0 |",
        "| WRN-16-4, batch 128: engine | **2.50 times faster**; images/s 125.0; GPU MiB 900 |",
        "| WRN-16-4, batch 512: engine | out of GPU memory |",
    ]


@pytest.mark.parametrize("number", range(3))
def test_a_command_for_c2_plans_two_networks_of_one_cost(number, composed, small_images):
    import gpu

    command, *overrides = shlex.split(list(gpu.c2_commands())[number])[3:]
    assert command == "-m"
    runs = plan_study(composed(*overrides, small=False), overrides).runs
    (wide, narrow) = {run.run.settings.spec: run.run.cost.params for run in runs}.items()
    assert len(runs) == 2 * 3
    assert 1e6 < wide[1] < 5e6
    assert narrow[1] == pytest.approx(wide[1], rel=0.02)
    assert 2 * narrow[0].widths[2] == wide[0].widths[2]
