"""A built wheel works by itself, from any folder."""

import email
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hatchling.metadata.core import ProjectMetadata
from hatchling.plugin.manager import PluginManager

REPOSITORY = Path(__file__).parents[2]
ADDRESS = "https://example.org/owner/name"


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """What an installed wheel puts on the path."""
    folder = tmp_path_factory.mktemp("wheel")
    build = ("wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder, REPOSITORY)
    subprocess.run(
        [sys.executable, "-m", "pip", *build], check=True, env={**os.environ, "ROBUST_ARCH_REPOSITORY": ADDRESS}
    )
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


def described(unpacked):
    (path,) = unpacked.glob("*.dist-info/METADATA")
    return email.message_from_string(path.read_text(encoding="utf-8"))


def test_the_package_index_gets_addresses_and_classifiers(unpacked):
    metadata = described(unpacked)
    addresses = dict(each.split(", ") for each in metadata.get_all("Project-URL"))
    assert addresses["Repository"] == ADDRESS
    assert set(addresses) == {"Paper", "Repository", "Documentation", "Changelog", "Issues"}
    assert all(each.startswith((f"{ADDRESS}/", "https://arxiv.org/")) for each in addresses.values() if each != ADDRESS)
    assert "Programming Language :: Python :: 3.11" in metadata.get_all("Classifier")
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Description-Content-Type"] == "text/markdown"


def test_every_link_and_image_of_the_readme_is_absolute_and_leads_to_a_file(unpacked):
    metadata = described(unpacked)
    targets = re.findall(r"(!?)\[[^\]]*\]\(([^)]+)\)", metadata.get_payload())
    assert len(targets) > 20
    assert any(image for image, _ in targets)
    for image, target in targets:
        place = f"{ADDRESS}/{'raw' if image else 'blob'}/v{metadata['Version']}/"
        assert target.startswith(place)
        assert (REPOSITORY / target.removeprefix(place).partition("#")[0]).exists(), target


def test_without_the_address_of_the_repository_none_is_invented(monkeypatch):
    monkeypatch.delenv("ROBUST_ARCH_REPOSITORY", raising=False)
    metadata = ProjectMetadata(str(REPOSITORY), PluginManager()).core
    assert metadata.urls == {"Paper": "https://arxiv.org/abs/2110.03825"}
    assert metadata.readme == (REPOSITORY / "README.md").read_text(encoding="utf-8")


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
