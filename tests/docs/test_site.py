"""The site builds without a warning, and holds what is generated from code and configuration."""

import html
import re
import shutil
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
    for package in ("mkdocs", "latex2mathml"):
        pytest.importorskip(package, reason="needs the extra docs")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return folder


def words(page):
    return html.unescape(re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8")))


@pytest.mark.slow
def test_the_reference_has_what_is_promised(site):
    page = (site / "reference.html").read_text(encoding="utf-8")
    anchors = set(re.findall(r'id="(robust_arch\.[\w.]+)"', page))
    assert {f"robust_arch.{name}" for name in PROMISED} <= anchors


@pytest.mark.slow
def test_the_configuration_has_every_choice_and_every_key(site):
    text = words(site / "configuration.html")
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
            assert (page.parent / target).is_file(), f"{page.relative_to(site)}: {target}"  # a folder shows nothing


@pytest.mark.slow
def test_the_site_needs_nothing_from_elsewhere(site):
    for page in site.rglob("*.html"):
        loaded = re.findall(r'<(?:script|img)[^>]*\ssrc="([^"]+)"', page.read_text(encoding="utf-8"))
        styles = re.findall(r'<link[^>]*rel="stylesheet"[^>]*href="([^"]+)"', page.read_text(encoding="utf-8"))
        assert not [address for address in loaded + styles if "//" in address]


@pytest.mark.slow
def test_every_formula_of_the_theory_is_drawn(site):
    prose = re.sub(r"`[^`]*`", "", (ROOT / "docs" / "theory.md").read_text(encoding="utf-8"))
    assert prose.count("$$") % 2 == 0
    displayed = prose.count("$$") // 2
    inline = prose.replace("$$", "").count("$") // 2
    assert displayed > 5
    assert inline > 90
    page = (site / "theory.html").read_text(encoding="utf-8")
    blocks = re.findall(r'<math [^>]*display="(\w+)"', page)
    assert (blocks.count("block"), blocks.count("inline")) == (displayed, inline)
    assert not re.search(r"\$|\\[a-zA-Z(\[]", re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL))


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the extra `browser`")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("needs Chromium (Debian: apt install chromium)")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.mark.slow
def test_the_search_finds_pages_by_their_words_from_the_disk(site, browser):
    page = browser.new_page()
    page.goto(f"{(site / 'search.html').as_uri()}?q=superseded-run")  # a word of one page
    assert page.locator("#mkdocs-search-results a").first.get_attribute("href").startswith("wandb.html")
    page.locator("#mkdocs-search-query").fill("hyperparam")  # the beginning of a word
    assert page.locator("#mkdocs-search-results a").count() > 0
    page.locator("#mkdocs-search-query").fill("zzzz")
    assert page.locator("#mkdocs-search-results").inner_text() == "No results found"
    page.goto((site / "tutorial.html").as_uri())
    field = page.locator("#rtd-search-form input")
    field.fill("halving")
    field.press("Enter")
    page.wait_for_url("**/search.html?q=halving")
    assert page.locator("#mkdocs-search-results a").count() > 3
    page.close()


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 375], ids=["desk", "phone"])
def test_from_the_disk_every_page_is_silent_and_fits(site, browser, width):
    context = browser.new_context(viewport={"width": width, "height": 900})
    page = context.new_page()
    said = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("requestfailed", lambda request: said.append(request.url))
    for file in site.rglob("*.html"):
        page.goto(file.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width, file.name
        assert said == [], file.name
    context.close()
