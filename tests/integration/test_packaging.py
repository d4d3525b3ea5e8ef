"""A built wheel works by itself, from any folder."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """What an installed wheel puts on the path."""
    folder = tmp_path_factory.mktemp("wheel")
    build = ("wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder, REPOSITORY)
    subprocess.run([sys.executable, "-m", "pip", *build], check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_the_wheel_holds_configuration_plugin_and_template(unpacked):
    files = {str(path.relative_to(unpacked)) for path in unpacked.rglob("*")}
    assert "robust_arch/conf/study/demo.yaml" in files
    assert "robust_arch/conf/arch/wrn_34_r.yaml" in files
    assert "hydra_plugins/robust_arch_sweeper/budget_sweeper.py" in files
    assert "hydra_plugins/__init__.py" not in files  # Hydra's rule for its plugins
    page = "robust_arch/analysis/report"
    assert f"{page}/page.css" in files
    for kind in ("scripts/*.js", "templates/*.html.jinja"):
        there = {str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / page).glob(kind)}
        assert there
        assert there <= files
    assert not any(file.startswith(("tests", "conf")) for file in files)


@pytest.mark.slow
def test_it_plans_a_study_from_another_folder(unpacked, tmp_path):
    code = "from robust_arch.common import paths; from robust_arch.cli import main; print(paths.conf_dir()); main()"
    environment = {**os.environ, "PYTHONPATH": str(unpacked), "COLUMNS": "200"}
    command = [sys.executable, "-c", code, "plan", "study=demo"]
    plan = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert plan.returncode == 0, plan.stderr
    where, *_ = plan.stdout.splitlines()
    assert Path(where) == unpacked / "robust_arch" / "conf"
    assert "8 runs inside 60,000 parameters" in plan.stdout
