"""What commands import before they do anything: torch takes seconds."""

import subprocess
import sys

import pytest
from commands import SMALL

_CODE = """
import sys
from {module} import {name}
sys.argv[1:] = {arguments}
try:
    {name}()
except SystemExit:
    pass
print("LOADED", *(package for package in {heavy} if package in sys.modules))
"""
HEAVY = ("torch", "pytorch_lightning", "pandas", "matplotlib", "scipy", "sklearn")


def loaded(module, name, *arguments, cwd):
    """Which of the heavy packages a command has imported at its end."""
    code = _CODE.format(module=module, name=name, arguments=list(arguments), heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split()[1:])


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A folder in which a study of one run is finished."""
    folder = tmp_path_factory.mktemp("startup")
    command = [sys.executable, "-m", "robust_arch.train", *SMALL, "study.name=tiny", "trainer.max_epochs=1"]
    subprocess.run(command, cwd=folder, capture_output=True, check=True)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [(["--help"], set()), (["status", "tiny"], set()), (["results", "tiny"], {"pandas"}), (["plan", "--help"], set())],
)
def test_tools_that_only_read_records_import_no_torch(arguments, allowed, study):
    assert loaded("robust_arch.cli", "app", *arguments, cwd=study) == allowed


@pytest.mark.slow
def test_a_finished_run_imports_no_lightning(study):
    assert loaded("robust_arch.train", "main", "--help", cwd=study) == set()
    again = loaded("robust_arch.train", "main", *SMALL, "study.name=tiny", "trainer.max_epochs=1", cwd=study)
    assert "torch" in again
    assert not again & {"pytorch_lightning", "matplotlib"}
