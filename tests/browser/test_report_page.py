"""The report in a real browser: Debian's Chromium, driven by Playwright, opens a study of 1,000 runs from the disk."""

import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from robust_arch.analysis.report.details import StudyDetails
from robust_arch.analysis.report.page import ReportedStudy, write_report

playwright = pytest.importorskip("playwright.sync_api", reason="needs the extra `browser`")
CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian: apt install chromium)"),
]
RUNS, N_TEST = 1000, 360
HOSTILE = '<script>window.attacked = 1</script><img src=x onerror="window.attacked=1">'


def share(rng: np.random.Generator, low: float, high: float) -> float:
    return float(100 * round(rng.uniform(low, high) * N_TEST) / N_TEST)


def evaluation(run: int, checkpoint: str) -> dict[str, Any]:
    """A run of three seeds per architecture; every seventh architecture was trained with trades."""
    rng = np.random.default_rng([run, checkpoint == "last"])
    number = run // 3
    widths = f"8-{8 + number % 40}-{8 + 4 * (number % 17)}"
    arch = HOSTILE if number == 5 else f"wide_resnet-d1-{1 + number % 3}-1-w{widths}"
    row: dict[str, Any] = {"run_id": f"{run:012x}", "study": "planted", "arch": arch, "family": "wide_resnet"}
    row |= {"depths": f"1-{1 + number % 3}-1", "widths": widths, "params": 4000 + 61 * number, "seed": run % 3}
    row |= {"macs": 100_000 + 37 * (number * 7919 % 3331), "objective": "trades" if number % 7 == 3 else "sat"}
    row |= {"recipe": "digits", "train_threat": "linf-0.2", "threat": "linf-0.2", "data": "digits", "epochs": 10}
    row |= {"checkpoint": checkpoint, "weights": "raw", "n_test": N_TEST, "status": "completed", "train_seconds": 31.0}
    row |= {"clean_acc": share(rng, 0.9, 1), "fgsm_acc": share(rng, 0.6, 0.8), "pgd20_acc": share(rng, 0.5, 0.7)}
    row |= {"worst_case_acc": share(rng, 0.3, 0.5), "stability": share(rng, 0.5, 0.8)}
    return row | {"lipschitz": float(rng.uniform(10, 60)) if number % 11 else float("nan")}


def card(row: dict[str, Any]) -> str:
    """As long as a real one, with numbers of its own."""
    rng = np.random.default_rng(int(row["run_id"], 16))
    table = ["| attack | correct (%) | 95% interval | n | what it is |", "|---|---:|---:|---:|---|"]
    table += [f"| attack{i} | {rng.uniform():.4f} | {rng.uniform():.4f} | 360 | {'settings ' * 12} |" for i in range(5)]
    lead = f"- **Architecture:** {row['arch']}; `{row['run_id']}`"
    numbers = [f"- measured {' '.join(f'{value:.4f}' for value in rng.uniform(size=20))}" for _ in range(4)]
    return "\n".join([f"# Model card: {row['arch']}", "", lead, *2 * ["", "## Checkpoint", "", *table, "", *numbers]])


@dataclass(frozen=True)
class Study:
    """The report and what it was made of."""

    path: Path
    frame: pd.DataFrame
    details: StudyDetails

    @property
    def main(self) -> pd.DataFrame:
        """The rows of the main group in the order of the page: sat at best."""
        rows = self.frame[(self.frame["checkpoint"] == "best") & (self.frame["objective"] == "sat")]
        return rows.sort_values(["params", "arch", "seed"], kind="stable")

    @property
    def architectures(self) -> pd.DataFrame:
        """The architectures of the main group in the order of the page: means over seeds, the most robust one first."""
        kept = dict.fromkeys(("params", "macs", "widths"), "first")
        means = self.main.groupby("arch", sort=False).agg(
            {**kept, "worst_case_acc": "mean", "lipschitz": "mean", "clean_acc": "mean"}
        )
        return means.round(6).sort_values("worst_case_acc", ascending=False, kind="stable")

    @property
    def url(self) -> str:
        return self.path.as_uri()


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """1,000 completed runs evaluated at best and last, and 20 that failed."""
    rows = [evaluation(run, checkpoint) for run in range(RUNS) for checkpoint in ("best", "last")]
    kept = ("run_id", "study", "arch", "family", "depths", "widths", "params", "macs", "seed", "objective", "recipe")
    lost = [evaluation(run, "best") for run in range(RUNS, RUNS + 20)]
    rows += [{name: row[name] for name in kept} | {"status": "failed"} for row in lost]
    runs = {row["run_id"]: row for row in rows}
    frame = pd.DataFrame(rows).assign(cw40_acc=float("nan"), autoattack_acc=float("nan"))
    widths = {run: [int(width) for width in row["widths"].split("-")] for run, row in runs.items()}
    rng = np.random.default_rng(0)
    details = StudyDetails(
        name=HOSTILE,
        command="python -m robust_arch.train -m study=planted",
        stage_shares={run: tuple(width / sum(each) for width in each) for run, each in widths.items()},
        budget="",
        planned=RUNS + 20,
        versions={"torch": "2.11.0"},
        hardware="2 CPU cores",
        best_val={run: 50 + 10 * float(rng.uniform()) for run in runs},
        n_val=240,
        errors={row["run_id"]: f"RuntimeError: {HOSTILE}" for row in lost},
        outcomes={run: rng.uniform(size=N_TEST) < 0.4 for run in runs},
        commands={
            run: f"python -m robust_arch.train 'arch.widths={widths[run]}' seed={runs[run]['seed']}" for run in runs
        },
        facts={run: [("state", row["status"]), ("network", row["arch"])] for run, row in runs.items()},
        cards={run: card(row) for run, row in runs.items()},
    )
    folder = tmp_path_factory.mktemp("report")
    return Study(write_report([ReportedStudy(frame, details)], folder / "index.html"), frame, details)


def own(url: str, study: Study) -> bool:
    """Whether a request stays inside the page: itself, or what its scripts made."""
    return url.split("#")[0] == study.url or url.startswith(("data:", "blob:"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Any, study: Study) -> Iterator[Any]:
    """The report, freshly opened; whatever a test did, the console must be silent and nothing else be asked for."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light")
    opened = context.new_page()
    opened.set_default_timeout(120_000)  # no verdict that depends on how busy the machine is
    said: list[str] = []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda request: said.append(request.url) if not own(request.url, study) else None)
    opened.goto(study.url)
    yield opened
    context.close()
    assert said == []


def shown(page: Any) -> list[str]:
    """The architecture of each row."""
    names: list[str] = page.locator("#rows tbody [data-card]").all_inner_texts()
    return names


def show_all(page: Any) -> None:
    while page.locator("#more").is_visible():
        page.locator("#more").dispatch_event("click")


def count(page: Any) -> int:
    return int(page.inner_text("#count").split()[0].replace(",", ""))


def natural(text: str) -> list[tuple[int, Any]]:
    """Digits by their value, other text as it stands."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", text) if part]


@pytest.mark.parametrize(
    ("heading", "column"),
    [("params", "params"), ("MACs", "macs"), ("worst case (%)", "worst_case_acc"), ("local Lipschitz", "lipschitz")],
)
def test_headings_sort_numbers_as_python_does(page: Any, study: Study, heading: str, column: str) -> None:
    button = page.locator("thead button", has_text=re.compile(f"^{re.escape(heading)}"))
    known = study.architectures[study.architectures[column].notna()].reset_index().to_dict("records")
    places = {name: place for place, name in enumerate(study.architectures.index)}
    for reverse, name in ((False, "ascending"), (True, "descending")):
        button.click()
        expected = sorted(known, key=lambda row: (-row[column] if reverse else row[column], places[row["arch"]]))
        assert shown(page) == [row["arch"] for row in expected[:100]]
        assert page.locator("thead [aria-sort]:not([aria-sort=none])").get_attribute("aria-sort") == name
        assert button.evaluate("node => node === document.activeElement")


def test_what_is_missing_comes_last_in_both_orders(page: Any, study: Study) -> None:
    page.fill("#filter", "d1-2-1")
    rows = study.architectures[study.architectures.index.str.contains("d1-2-1")]
    missing = set(rows.index[rows["lipschitz"].isna()])
    assert len(missing) > 5
    for _ in range(2):
        page.locator("thead button", has_text="local Lipschitz").click()
        show_all(page)
        assert set(shown(page)[-len(missing) :]) == missing


def test_widths_sort_by_their_numbers(page: Any, study: Study) -> None:
    page.locator("thead button", has_text="widths").click()
    expected = sorted(study.architectures.to_dict("index").items(), key=lambda item: natural(item[1]["widths"]))
    assert shown(page) == [name for name, _ in expected[:100]]


def test_the_filter_keeps_what_pandas_keeps(page: Any, study: Study) -> None:
    page.fill("#filter", "D1-2-1 w8-2")
    names = study.architectures.index
    kept = names[names.str.contains("d1-2-1") & names.str.contains("w8-2")]
    assert 0 < len(kept) < 100
    assert count(page) == len(kept)
    assert shown(page) == list(kept)
    assert page.locator(".mark").count() == len(kept)
    page.fill("#filter", "nothing like it")
    assert count(page) == 0
    assert "Nothing to draw" in page.inner_text("#legend")


def test_an_architecture_unfolds_to_its_seeds(page: Any, study: Study) -> None:
    name = study.architectures.index[0]
    runs = study.main[study.main["arch"] == name]
    fold = page.locator("#rows [data-fold]").first
    assert fold.get_attribute("aria-expanded") == "false"
    assert page.locator("#rows tr.run").count() == 0
    fold.click()
    assert fold.get_attribute("aria-expanded") == "true"
    lines = page.locator("#rows tr.run").all_inner_texts()
    assert len(lines) == len(runs)
    for line, row in zip(lines, runs.to_dict("records"), strict=True):
        assert f"seed {row['seed']}, run {row['run_id']}" in line
        assert f"{row['worst_case_acc']:.1f}" in line
    mean, sd = runs["worst_case_acc"].mean(), runs["worst_case_acc"].std()
    assert f"{mean:.1f} ± {sd:.1f}" in page.locator("#rows tr[data-architecture]").first.inner_text()
    fold.click()
    assert page.locator("#rows tr.run").count() == 0


def test_a_link_restores_the_view(page: Any, browser: Any, study: Study) -> None:
    page.select_option("#group", "1")
    page.fill("#filter", "d1-2-1")
    page.locator("thead button", has_text="params").click()
    page.select_option("#cost", "macs")
    page.locator("#rows [data-fold]").nth(2).click()
    fragment = page.get_attribute("#link", "href")
    assert page.url.endswith(fragment)
    other = browser.new_page()
    other.goto(f"{study.url}{fragment}")
    for read in (shown, lambda each: each.locator("#rows tr.run").all_inner_texts()):
        assert read(other) == read(page)
        assert read(page)
    for control in ("#group", "#filter", "#cost", "#unit", "#checkpoint"):
        assert other.input_value(control) == page.input_value(control)
    other.goto(f"{study.url}#group=nonsense&sort=%3Cscript%3E&status=x&open=y&cost=z&order=")
    assert other.input_value("#group") == "0"
    assert shown(other) == list(study.architectures.index[:100])
    other.close()


def saved(page: Any, selector: str) -> bytes:
    with page.expect_download() as download:
        page.locator(selector).first.click()
    return Path(download.value.path()).read_bytes()


def test_what_is_saved_is_what_is_shown(page: Any, study: Study) -> None:
    page.fill("#filter", "d1-2-1 w8-2")
    names = study.architectures.index
    kept = study.architectures[names.str.contains("d1-2-1") & names.str.contains("w8-2")]
    table = pd.read_csv(BytesIO(saved(page, "[data-save=architectures]")))
    assert list(table["architecture"]) == list(kept.index)
    assert table["worst case (%)"].to_numpy() == pytest.approx(kept["worst_case_acc"], abs=1e-6)
    assert (table["seeds"] == 3).all()
    runs = pd.read_csv(BytesIO(saved(page, "[data-save=runs]")), dtype={"run": str})
    expected = study.main[study.main["arch"].isin(kept.index)].set_index("run_id")["worst_case_acc"]
    assert runs.set_index("run")["worst case (%)"].to_dict() == pytest.approx(expected.to_dict(), abs=1e-6)
    for button in ("#cost-section [data-kind", ".opening [data-kind"):
        drawing = saved(page, f"{button}=svg]").decode()
        assert ElementTree.fromstring(drawing).tag == "{http://www.w3.org/2000/svg}svg"
        assert saved(page, f"{button}=png]").startswith(b"\x89PNG")


def test_rows_of_two_groups_are_never_in_one_ranking(page: Any, study: Study) -> None:
    page.select_option("#objective", "trades")  # which the main group does not hold
    assert page.input_value("#group") == "-1"
    page.locator("thead button", has_text="clean").click()
    show_all(page)
    blocks = page.eval_on_selector_all(
        "#rows tbody tr",
        "all => all.map(row => row.querySelector('[data-card]')?.textContent ?? '#' + row.textContent)",
    )
    headings = [text for text in blocks if text.startswith("#")]
    expected = study.frame[study.frame["objective"] == "trades"]
    assert len(headings) == 3  # best, last, and the runs without numbers
    assert "in 3 groups, each sorted by itself" in page.inner_text("#count")
    for heading, block in zip(
        headings[:2], np.split(blocks, [blocks.index(text) for text in headings])[1:], strict=False
    ):
        (checkpoint,) = re.findall("checkpoint (best|last)", heading)
        rows = expected[expected["checkpoint"] == checkpoint].groupby("arch")["clean_acc"].mean().round(6)
        accuracies = rows.loc[list(block[1:])]
        assert len(accuracies) == len(rows)
        assert accuracies.is_monotonic_increasing


def test_a_facet_taken_back_restores_the_group(page: Any, study: Study) -> None:
    for chosen in ("0", "1"):
        page.select_option("#group", chosen)
        before = shown(page)
        page.select_option("#status", "failed")
        assert page.input_value("#group") == "-1"
        assert "only rows with status failed" in page.inner_text("#shown")
        page.select_option("#status", "")
        assert page.input_value("#group") == chosen
        assert shown(page) == before
        assert "only rows" not in page.inner_text("#shown")


@pytest.mark.parametrize("cost", ["params", "macs"])
def test_the_front_is_what_no_other_run_beats(page: Any, study: Study, cost: str) -> None:
    page.select_option("#unit", "run")
    page.select_option("#cost", cost)
    rows = study.main.to_dict("records")
    front = {
        row["run_id"]
        for row in rows
        if not any(
            other[cost] <= row[cost]
            and other["worst_case_acc"] >= row["worst_case_acc"]
            and (other[cost], other["worst_case_acc"]) != (row[cost], row["worst_case_acc"])
            for other in rows
        )
    }
    assert page.locator(".mark").count() == len(rows)
    drawn = page.locator(".mark.front")
    found = set()
    for place in range(drawn.count()):
        drawn.nth(place).focus()
        page.keyboard.press("Enter")
        found.add(page.inner_text("#card-title").rsplit("run ", 1)[1])
        page.keyboard.press("Escape")
    assert found == front


def test_heights_are_the_accuracies(page: Any, study: Study) -> None:
    page.select_option("#unit", "run")
    heights = page.eval_on_selector_all(".mark circle.shape", "all => all.map(mark => Number(mark.getAttribute('cy')))")
    rows = study.main.sort_values(["params", "worst_case_acc"], kind="stable")
    assert np.corrcoef(heights, rows["worst_case_acc"])[0, 1] == pytest.approx(-1, abs=1e-9)


def test_hover_shows_the_network_and_its_command(page: Any, study: Study) -> None:
    page.fill("#filter", "d1-2-1 w8-2")
    page.select_option("#unit", "run")
    rows = study.main[study.main["arch"].str.contains("d1-2-1-w8-2")]
    row = rows.sort_values(["params", "worst_case_acc"], kind="stable").iloc[0]
    assert not page.locator("#tip").is_visible()
    page.locator(".mark").first.hover(force=True)
    text = page.inner_text("#tip")
    for said in (row["arch"], row["depths"], row["widths"], f"{row['params']:,}", f"{row['worst_case_acc']:.1f} ["):
        assert said in text
    assert page.inner_text("#tip code") == study.details.commands[row["run_id"]]
    page.mouse.move(5, 5)
    assert not page.locator("#tip").is_visible()


def test_a_point_of_several_runs_shows_their_mean(page: Any, study: Study) -> None:
    first = study.main[study.main["arch"] == study.main["arch"].iloc[0]]
    page.locator(".mark").first.focus()
    text = page.inner_text("#tip")
    assert f"mean of {len(first)} runs {first['worst_case_acc'].mean():.1f} ± " in text
    assert ", ".join(str(seed) for seed in first["seed"]) in text


def test_keys_reach_a_point_and_open_its_card(page: Any, study: Study) -> None:
    page.select_option("#unit", "run")
    page.focus("#unit")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    rows = study.main.sort_values(["params", "worst_case_acc"], kind="stable")
    second = rows.iloc[1]
    assert study.details.commands[second["run_id"]] in page.inner_text("#tip")
    page.keyboard.press("Enter")
    assert page.locator("dialog").is_visible()
    assert page.inner_text("#card-title") == f"{second['arch']}, run {second['run_id']}"
    assert page.locator("#card-body td").count() == 2 * 5 * 5
    assert page.inner_text("#card-body strong >> nth=0") == "Architecture:"
    page.keyboard.press("Escape")
    assert not page.locator("dialog").is_visible()
    assert page.evaluate("document.activeElement.dataset.mark") == "1"


def test_names_are_text(page: Any, study: Study) -> None:
    assert page.inner_text("h1") == f"Study {HOSTILE}"
    page.fill("#filter", "<script>")
    hostile = study.main[study.main["arch"] == HOSTILE]
    assert shown(page) == [HOSTILE]
    assert len(hostile) == 3
    page.locator(".mark").first.focus()
    assert HOSTILE in page.inner_text("#tip")
    page.locator("#rows [data-card]").first.click()
    assert HOSTILE in page.inner_text("#card-body li >> nth=0")
    assert page.evaluate("window.attacked") is None
    assert page.locator("script").count() == 2


def test_only_the_page_s_own_script_may_run(browser: Any, study: Study, tmp_path: Path) -> None:
    tampered = tmp_path / "index.html"
    source = study.path.read_text(encoding="utf-8")
    tampered.write_text(source.replace("</main>", "<script>window.attacked = 1</script></main>"), encoding="utf-8")
    page = browser.new_page()
    page.goto(tampered.as_uri())
    assert page.evaluate("window.attacked") is None
    assert count(page) == len(study.architectures)
    page.close()


def test_a_phone_scrolls_in_one_direction(page: Any) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.select_option("#unit", "run")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.locator("#chart").bounding_box()["width"] <= 390
    page.locator("#rows [data-card]").first.click()
    box = page.locator("dialog").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 390
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def right_ends(page: Any, selector: str) -> list[float]:
    ends: list[float] = page.eval_on_selector_all(
        selector, "all => all.map(node => node.getBoundingClientRect()).filter(box => box.width).map(box => box.right)"
    )
    return ends


@pytest.mark.parametrize("unit", ["architecture", "run"])
def test_the_star_is_explained_where_it_stands(page: Any, study: Study, unit: str) -> None:
    page.select_option("#unit", unit)
    assert page.locator("#chart .star").count() == 1
    assert "★" in page.inner_text("#legend")
    assert "highest held-out robust accuracy" in page.inner_text("#legend")
    page.fill("#filter", "no such network")
    assert "★" not in page.inner_text("#legend")


def test_ranges_of_every_size_have_three_round_numbers_with_room(browser: Any) -> None:
    rng = np.random.default_rng(0)
    linear = [(6.0, 89.0)] + [(low, low + span) for low, span in 10 ** rng.uniform(-2, 7, (500, 2))]
    decades = [
        (low, low * ratio) for low, ratio in 10 ** np.column_stack([rng.uniform(2, 6, 500), rng.uniform(1.3, 6, 500)])
    ]
    axes = [(low, high, kind) for kind, ranges in enumerate((linear, decades)) for low, high in ranges]
    source = (files("robust_arch.analysis.report") / "scripts" / "scale.js").read_text(encoding="utf-8")
    page = browser.new_page()
    ticks = page.evaluate(
        f"axes => {{ {source}; const on = ([low, high, kind]) => axis(low, high, 0, 242, Boolean(kind));"
        " return axes.map(on).map(made => made.ticks.map(tick => [tick, made.at(tick)])); }",
        axes,
    )
    page.close()
    for (low, high, kind), found in zip(axes, ticks, strict=True):
        values, places = np.array(found).T
        assert len(values) >= 3, (low, high, kind)
        assert low <= values.min() <= values.max() <= high * (1 + 1e-12)
        assert np.diff(places).min() >= 40 - 1e-6
        assert {f"{value:e}".split("e")[0].rstrip("0") for value in values} <= {"1.", "2.", "3.", "5."} or not kind
    (first, *_) = ticks
    assert [value for value, _ in first] == [25, 50, 75]


A4_WIDE = 1047  # pixels of 277 mm: A4 on its side without two margins of 10 mm


def test_a_printed_page_cuts_nothing_off(page: Any) -> None:
    page.emulate_media(media="print")
    page.set_viewport_size({"width": A4_WIDE, "height": 718})
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator(".verdicts dl").first.is_visible()
    assert not page.locator(".controls").first.is_visible()
    assert not page.locator("#more").is_visible()
    assert page.locator("#rows tbody tr").count() == 100
    assert "the first 100 are shown" in page.inner_text("#count")
    assert max(right_ends(page, "th, td, p, pre, img, svg")) <= A4_WIDE
    assert page.evaluate("document.documentElement.scrollWidth") <= A4_WIDE
    boxes = page.eval_on_selector_all(".scroll", "all => all.map(node => getComputedStyle(node).overflowX)")
    assert set(boxes) == {"visible"}
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert not page.locator(".verdicts dl").first.is_visible()


@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="needs pdftotext (Debian: apt install poppler-utils)")
def test_paper_has_every_row_under_its_headings(page: Any, study: Study, tmp_path: Path) -> None:
    page.pdf(path=tmp_path / "report.pdf", prefer_css_page_size=True)
    told = subprocess.run(["pdftotext", "-layout", tmp_path / "report.pdf", "-"], capture_output=True, check=True)
    sheets = told.stdout.decode().split("\f")
    params = study.architectures["params"][:100].map("{:,}".format)
    rows = [sum(f" {each} " in sheet for each in params) for sheet in sheets]
    assert sum(rows) >= 100
    assert all("Lipschitz" in sheet for sheet, count in zip(sheets, rows, strict=True) if count > 1)


def luminance(colour: str) -> float:
    """Relative luminance of `rgb(r, g, b)` (WCAG 2.1)."""
    channels = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [value / 12.92 if value <= 0.03928 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_light_and_dark_are_both_readable(page: Any) -> None:
    backgrounds = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        paper = luminance(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        backgrounds.append(paper)
        for selector in ("p", "figcaption", "tbody button", "thead button", "td small"):
            ink = luminance(page.eval_on_selector(f"#explorer {selector}", "node => getComputedStyle(node).color"))
            assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) >= 4.5, (scheme, selector)
    assert backgrounds[0] > 0.9
    assert backgrounds[1] < 0.1


def test_without_scripts_the_essentials_are_there(browser: Any, study: Study) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(study.url)
    assert not page.locator("#explorer").is_visible()
    assert "of 1,020 planned runs 1,000 done" in page.inner_text("#study-1")
    assert page.locator("#static table").first.locator("tbody tr").count() == 50
    assert f"The first 50 of {len(study.architectures):,} architectures" in page.inner_text("#static")
    assert page.locator(".opening figure svg").count() >= 1
    assert "python -m robust_arch.train -m study=planted" in page.inner_text("pre >> nth=-1")
    context.close()
