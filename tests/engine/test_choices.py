"""What `auto` decides, and memory that is kept."""

import subprocess
import sys

import pytest
import torch

from robust_arch.engine import decide_compile, decide_precision, keep_freed_memory
from robust_arch.engine.compilation import MIN_STEPS

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("units", "precision"),
    [({}, "32"), ({"avx512_f": True, "avx512_bf16": False}, "32"), ({"avx512_bf16": True}, "bf16-mixed"),
     ({"amx_bf16": True}, "bf16-mixed")],
)  # fmt: skip
def test_half_precision_is_chosen_where_the_processor_multiplies_it(units, precision, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: units)
    assert decide_precision(CPU) == precision


@pytest.mark.parametrize(
    ("device", "amx", "steps", "compiler", "decided", "reason"),
    [
        ("cpu", True, MIN_STEPS, "/usr/bin/g++", True, str(MIN_STEPS)),
        ("cpu", True, MIN_STEPS - 1, "/usr/bin/g++", False, "fewer"),
        ("cpu", True, MIN_STEPS, None, False, "compiler"),
        ("cpu", False, 10**9, "/usr/bin/g++", False, "AMX"),
        ("cuda", False, 10**9, "/usr/bin/g++", False, "not measured"),
    ],
)
def test_compiling_is_decided_by_hardware_and_planned_steps(device, amx, steps, compiler, decided, reason, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": amx})
    monkeypatch.setattr("shutil.which", lambda name: compiler)
    found, why = decide_compile(torch.device(device), steps)
    assert found is decided
    assert reason in why


FAULTS = """
import resource, sys, torch
from robust_arch.engine import keep_freed_memory
torch.set_num_threads(1)
if sys.argv[1] == "keep":
    assert keep_freed_memory()
x = torch.rand(12_000_000)  # 48 MB: glibc itself keeps blocks of up to 32 MB
for _ in range(3):
    x + 1
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    x + 1
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_kept_memory_is_not_mapped_afresh():
    """Pages that the system clears at first use are counted by the system: minor faults."""
    faults = {
        what: int(subprocess.run([sys.executable, "-c", FAULTS, what], check=True, capture_output=True).stdout)
        for what in ("keep", "plain")
    }
    assert faults["keep"] < 50  # fewer than one a tensor
    assert faults["plain"] > 50 * 23  # at least the 2 MiB pages of 48 MB, for each of 50 tensors


def test_other_systems_keep_what_they_have(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_freed_memory() is False
