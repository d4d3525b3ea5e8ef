"""The site builds without a warning, and holds what is generated from code and configuration."""

import html
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
# the names of the Python interface that the documentation promises
PROMISED = {
    *("architectures.ArchSpec", "architectures.PRESETS", "architectures.build", "architectures.cost"),
    *("search.Budget", "search.allocate", "attacks.ThreatModel", "attacks.PGD"),
    *("interop.load_published", "runs.load_study"),
}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("mkdocs", reason="needs the extra docs")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return folder


def words(page):
    return html.unescape(re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8")))


@pytest.mark.slow
def test_the_reference_has_what_is_promised(site):
    page = (site / "reference" / "index.html").read_text(encoding="utf-8")
    anchors = set(re.findall(r'id="(robust_arch\.[\w.]+)"', page))
    assert {f"robust_arch.{name}" for name in PROMISED} <= anchors


@pytest.mark.slow
def test_the_configuration_has_every_choice_and_every_key(site):
    text = words(site / "configuration" / "index.html")
    for file in (ROOT / "conf").rglob("*.yaml"):
        if file.parent.name != "conf":
            assert f"{file.parent.name}={file.stem}" in text
        for key in yaml.safe_load(file.read_text(encoding="utf-8")):
            assert f"{key}:" in text


@pytest.mark.slow
def test_links_out_of_the_pages_lead_to_files_of_the_site(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 10
    for page in pages:
        targets = re.findall(r'(?:href|src)="([^"#:]+)[#"]', page.read_text(encoding="utf-8"))
        for target in targets:
            path = site / target.lstrip("/") if target.startswith("/") else page.parent / target
            assert path.exists(), f"{page.relative_to(site)}: {target}"


@pytest.mark.slow
def test_the_site_needs_nothing_from_elsewhere(site):
    for page in site.rglob("*.html"):
        loaded = re.findall(r'<(?:script|img)[^>]*\ssrc="([^"]+)"', page.read_text(encoding="utf-8"))
        styles = re.findall(r'<link[^>]*rel="stylesheet"[^>]*href="([^"]+)"', page.read_text(encoding="utf-8"))
        assert not [address for address in loaded + styles if "//" in address]
