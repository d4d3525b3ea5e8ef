"""What `auto` decides, and memory that is kept."""

import ctypes
import subprocess
import sys

import pytest
import torch

from robust_arch.engine import decide_compile, decide_precision, keep_freed_memory, missing_compiler
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
    ("device", "amx", "half", "steps", "compiler", "decided", "reason"),
    [
        ("cpu", True, True, MIN_STEPS, "g++", True, str(MIN_STEPS)),
        ("cpu", True, True, MIN_STEPS - 1, "g++", False, "fewer"),
        ("cpu", True, True, MIN_STEPS, None, False, "compiler"),
        ("cpu", True, False, 10**9, "g++", False, "AMX"),
        ("cpu", False, True, 10**9, "g++", False, "AMX"),
        ("cuda", False, True, 10**9, "g++", False, "not measured"),
    ],
)
def test_when_compiling_pays(device, amx, half, steps, compiler, decided, reason, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": amx})
    monkeypatch.setattr("shutil.which", lambda name: compiler)
    found, why = decide_compile(torch.device(device), steps, half=half)
    assert found is decided
    assert reason in why


@pytest.mark.parametrize(
    ("chosen", "there", "lacks"),
    [(None, "g++", False), (None, "clang++", True), ("/opt/cc", "/opt/cc", False), ("/opt/cc", "g++", True)],
)
@pytest.mark.skipif(sys.platform == "darwin", reason="its default is another compiler")
def test_the_compiler_that_is_looked_for_is_the_one_that_is_used(chosen, there, lacks, monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    if chosen:
        monkeypatch.setenv("CXX", chosen)
    monkeypatch.setattr("shutil.which", lambda name: name if name == there else None)
    assert bool(missing_compiler(CPU)) == lacks


FAULTS = """
import resource, torch
from robust_arch.engine import keep_freed_memory
torch.set_num_threads(1)
x = torch.rand(12_000_000)  # 48 MB: glibc itself keeps blocks of up to 32 MB

def faults():
    for _ in range(3):
        x + 1
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(50):
        x + 1
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

plain = faults()
assert keep_freed_memory()
print(plain, faults())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_kept_memory_is_not_mapped_afresh():
    """Pages that the system clears at first use are counted by the system: minor faults."""
    counted = subprocess.run([sys.executable, "-c", FAULTS], check=True, capture_output=True).stdout
    plain, kept = map(int, counted.split())
    assert plain > 50 * 23  # at least the 2 MiB pages of 48 MB, for each of 50 tensors
    # a small block in the way can cost a fresh one now and then
    assert kept < plain / 5


def test_other_systems_keep_what_they_have(monkeypatch):
    def missing(name):
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert keep_freed_memory() is False
