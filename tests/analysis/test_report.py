"""The page is read back with an HTML parser: it says what the planted study holds, and nothing it must not."""

import base64
import hashlib
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from planted import planted as planted_study
from typer.testing import CliRunner

from robust_arch.analysis.groups import main_group
from robust_arch.analysis.report.details import StudyDetails
from robust_arch.analysis.report.page import ReportedStudy, write_report
from robust_arch.architectures import ArchSpec
from robust_arch.cli import app
from robust_arch.runs.records import Smoothness

Rows = Callable[..., pd.DataFrame]
VOID = {"meta", "img", "br", "input"}


class Page(HTMLParser):
    """Text, tables (rows of cell texts), attributes by tag; fails on tags that do not nest."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source
        self.open: list[str] = []
        self.words: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.attributes: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(source)
        self.close()
        assert not self.open
        self.verdicts = [table for table in self.tables if table[0][0] == "claim"]
        self.tables = [table for table in self.tables if table[0][0] != "claim"]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append("")
        if tag == "table" and "id" not in dict(attrs):  # the one with an id is empty until the script fills it
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        if "script" in self.open:
            self.scripts[-1] += data
            return
        self.words.append(data)
        if self.open and self.open[-1] in ("td", "th", "small") and "table" in self.open:
            self.tables[-1][-1][-1] += data

    @property
    def data(self) -> dict[str, Any]:
        """What the page's plot and table work on."""
        content: dict[str, Any] = json.loads(self.scripts[0])
        return content

    def cells(self, heading: str) -> list[str]:
        """The texts of a column of that data, with the small print."""
        texts = self.data["texts"]
        (column,) = [column for column in self.data["columns"] if column["heading"] == heading]
        smalls = [texts[place] for place in column["small"]] if "small" in column else [""] * len(column["cells"])
        return [f"{texts[place]} {small}".strip() for place, small in zip(column["cells"], smalls, strict=True)]

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.words))

    def column(self, table: int, heading: str) -> list[str]:
        position = self.tables[table][0].index(heading)
        return [row[position] for row in self.tables[table][1:]]


def details(**changes: Any) -> StudyDetails:
    plain: dict[str, Any] = {
        "name": "planted",
        "command": "python -m robust_arch.train -m study=planted",
        "stage_shares": {"a": (0.1, 0.2, 0.7), "b": (0.2, 0.2, 0.6), "c": (0.2, 0.4, 0.4), "d": (0.25, 0.25, 0.5)},
        "budget": "60,000 parameters ±2%",
        "planned": 6,
        "versions": {"torch": "2.11.0"},
        "hardware": "2 CPU cores",
        "best_val": {"a": 61.0, "b": 58.0, "c": 59.0, "d": 60.0},
        "errors": {"e": "DivergedError: the loss is nan"},
        "n_val": 287,
    }
    return StudyDetails(**plain | changes)


def page(frame: pd.DataFrame, folder: Path, **changes: Any) -> Page:
    path = write_report([ReportedStudy(frame, details(**changes))], folder / "report" / "index.html")
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def parsed(planted: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Page:
    """The page of the planted study."""
    return page(planted, tmp_path_factory.mktemp("planted"))


def test_summary_counts_runs_and_names_the_run_that_held_out_images_select(parsed: Page) -> None:
    text = parsed.text
    assert text.strip().startswith("Study planted")
    assert "5 architectures under a budget of 60,000 parameters ±2%;" in text
    assert "of 6 planned runs 4 done, 0 failed, 1 diverged, 1 not finished." in text
    # net-c has the best test accuracy, net-a the best held-out one: the latter decides
    assert "The highest held-out robust accuracy, 61.0% of 287 held-out images, belongs to net-a (seed 0)" in text
    # 180 of 360 by Wilson: 0.5 -+ 1.959964 sqrt(0.25/360 + 1.959964^2/(4 * 360^2)) / (1 + 1.959964^2/360) = 44.9, 55.1
    assert "Of 360 test images it classifies 95.0% [92.2, 96.8] correctly" in text
    assert "50.0% [44.9, 55.1] under every attack" in text


def test_without_held_out_accuracies_nothing_is_named_best(planted: pd.DataFrame, tmp_path: Path) -> None:
    parsed = page(planted, tmp_path, best_val={})
    assert "no architecture is named as best" in parsed.text
    assert "★" not in parsed.text


def test_first_table_holds_the_rows_of_the_figures(parsed: Page) -> None:
    assert parsed.column(0, "architecture") == ["net-c", "net-b", "net-d", "net-a ★"]  # the most robust one first
    assert parsed.column(0, "seeds") == ["1"] * 4
    assert parsed.column(0, "params") == ["60,000", "59,000", "61,000", "58,000"]
    assert parsed.column(0, "MACs") == ["2.45 M"] * 4
    assert parsed.column(0, "last stage's share (%)") == ["40.0", "60.0", "50.0", "70.0"]
    assert parsed.column(0, "worst case (%)")[-1] == "50.0 [44.9, 55.1]"
    assert parsed.column(0, "stability (%)") == ["57.5 [52.3, 62.5]"] * 4


def test_rows_of_other_conditions_stand_in_their_own_tables(parsed: Page) -> None:
    captions = re.findall('<p class="caption">Checkpoint (best|last), .*? ([0-9]+) test images?[.]', parsed.source)
    assert captions == [("best", "360"), ("last", "360"), ("best", "50")]
    assert [group["short"] for group in parsed.data["groups"][1:]] == [
        "checkpoint last instead of best",
        "test images 50 instead of 360, attacks fgsm + pgd20 + cw40 + autoattack instead of fgsm + pgd20 + cw40",
    ]
    assert "autoattack (%)" not in parsed.tables[0][0]
    assert parsed.column(2, "autoattack (%)") == ["48.0 [34.8, 61.5]"]


def test_several_seeds_are_averaged_in_words(rows: Rows, tmp_path: Path) -> None:
    runs = [{"run_id": str(seed), "seed": seed, "worst_case_acc": 50.0 + 2 * seed} for seed in range(3)]
    text = page(rows(*runs), tmp_path, best_val={"1": 60.0}).text
    assert "Over its 3 runs the mean is 52.0%, the standard deviation 2.0 points." in text
    assert "No verdict on the claims C1, C2 and C3: there are no two architectures to compare." in text


def test_failures_are_listed_with_their_error(parsed: Page, planted: pd.DataFrame, tmp_path: Path) -> None:
    assert parsed.tables[-1][1:] == [["e", "net-e", "0", "diverged", "DivergedError: the loss is nan"]]
    healthy = page(planted[planted["run_id"] != "e"], tmp_path)
    assert len(healthy.tables) == 3
    assert "None: no run failed or diverged" in healthy.text


@pytest.mark.parametrize("which", ["no rows", "all diverged", "nothing attacked"])
def test_studies_without_results_say_so(planted: pd.DataFrame, rows: Rows, tmp_path: Path, which: str) -> None:
    frame = {
        "no rows": pd.DataFrame(columns=planted.columns),
        "all diverged": planted[planted["run_id"] == "e"],
        "nothing attacked": rows(dict.fromkeys(["fgsm_acc", "pgd20_acc", "cw40_acc", "worst_case_acc"], float("nan"))),
    }[which]
    parsed = page(frame, tmp_path)
    assert "There is no answer yet" in parsed.text
    assert "figure" not in [tag for tag, attrs in parsed.attributes if attrs.get("class") != "plot"]
    assert ("There are no results to show yet" in parsed.text) is (which != "nothing attacked")
    assert main_group(frame) is None


def test_everything_is_escaped(planted: pd.DataFrame, tmp_path: Path) -> None:
    bad = '"><script>alert(1)</script>$x$'
    frame = planted.assign(arch=bad + planted["arch"], data=bad, recipe=bad, depths=bad, run_id=bad + planted["run_id"])
    texts = {"name": bad, "command": bad, "hardware": bad, "budget": bad, "versions": {bad: bad}}
    parsed = page(frame, tmp_path, **texts, errors={bad + "e": bad}, best_val={bad + "a": 60.0})
    assert [tag for tag, _ in parsed.attributes].count("script") == 2
    assert parsed.cells("architecture")[2] == bad + "net-b"
    assert "<" not in parsed.scripts[0]
    assert parsed.column(0, "architecture")[1] == bad + "net-b"
    assert parsed.tables[-1][1][-1] == bad
    assert bad in parsed.words


def test_page_needs_nothing_outside_itself(parsed: Page) -> None:
    assert len([attrs for tag, attrs in parsed.attributes if tag == "svg"]) >= 2
    assert not [attrs["src"] for _, attrs in parsed.attributes if "src" in attrs]
    assert not {"link", "iframe"} & {tag for tag, _ in parsed.attributes}
    targets = {attrs["id"] for _, attrs in parsed.attributes if "id" in attrs}
    links = [attrs[name] for _, attrs in parsed.attributes for name in ("href", "xlink:href") if name in attrs]
    assert links
    assert all(link and link.startswith("#") and link[1:] in targets for link in links)
    written = re.sub(r"xmlns(:xlink)?=\"[^\"]*\"|url\(#[^)]*\)", "", parsed.source)
    assert "url(" not in written
    assert not re.search("https?:|//[a-z]", written.replace("// ", ""))


def test_the_page_s_policy_lets_its_own_script_run_and_no_other(parsed: Page) -> None:
    (policy,) = [attrs["content"] for _, attrs in parsed.attributes if attrs.get("http-equiv")]
    digest = base64.b64encode(hashlib.sha256(parsed.scripts[1].encode()).digest()).decode()
    assert policy is not None
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_data_holds_every_row_in_its_group(parsed: Page) -> None:
    data = parsed.data
    assert parsed.cells("run") == ["a", "a", "b", "b", "b", "c", "c", "e", "d", "d"]  # by params
    assert data["rows"]["group"] == [0, 1, 0, 1, 2, 0, 1, 3, 0, 1]  # best, last, the subset, without numbers
    assert [group["main"] for group in data["groups"]] == [True, False, False]
    assert data["groups"][1]["short"] == "checkpoint last instead of best"
    assert parsed.cells("worst case (%)")[:2] == ["50.0 [44.9, 55.1]", "45.0 [39.9, 50.2]"]
    assert parsed.cells("worst case (%)")[7] == "-"
    assert data["rows"]["share"][:3] == [70, 70, 60]
    assert data["rows"]["robust"][7] is None


def test_data_has_a_row_per_architecture(rows: Rows, tmp_path: Path) -> None:
    runs = [{"run_id": str(seed), "seed": seed, "worst_case_acc": 50.0 + 2 * seed} for seed in range(3)]
    data = page(rows(*runs), tmp_path, best_val={}).data
    found, texts = data["architectures"], data["texts"]
    # standard deviation 2, t at 2 degrees of freedom 4.303: 52 -+ 4.303 * 2 / sqrt(3)
    assert found["rows"] == [[0, 1, 2]]
    assert [found[name][0] for name in ("robust", "low", "high")] == pytest.approx([52, 47.032, 56.968], abs=1e-3)
    means = {column["heading"]: column["means"] for column in data["columns"]}
    worst = means["worst case (%)"]
    assert [texts[worst[name][0]] for name in ("cells", "small")] == ["52.0 ± 2.0", "[47.0, 57.0]"]
    assert (worst["values"], worst["sd"]) == ([52], [2])
    assert means["seed"]["values"] == [3]
    assert texts[means["params"]["cells"][0]] == "60,000"


def test_runs_come_with_command_facts_and_card(planted: pd.DataFrame, tmp_path: Path) -> None:
    told = {
        "commands": {"b": "train seed=0"},
        "facts": {"b": [("state", "completed")]},
        "cards": {"b": "# Card\n\ntext"},
    }
    data = page(planted, tmp_path, **told).data
    texts = data["texts"]
    run = data["runs"][1]
    assert run["command"] == "train seed=0"
    assert [texts[place] for place in run["facts"]] == ["state", "completed"]
    assert [texts[place] for place in run["card"]] == ["# Card", "", "text"]
    assert data["runs"][0] == {"command": ""}


def test_static_tables_are_cut_and_say_so(rows: Rows, tmp_path: Path) -> None:
    runs = [{"run_id": f"{number:03}", "arch": f"net{number}", "params": 1000 + number} for number in range(60)]
    parsed = page(rows(*runs), tmp_path, best_val={})
    assert parsed.column(0, "params") == [f"{1000 + number:,}" for number in range(50)]
    assert "The first 50 of 60 architectures." in parsed.text
    assert len(parsed.cells("params")) == 60


def test_counts_have_separators_and_the_right_number(rows: Rows, tmp_path: Path) -> None:
    runs = [
        {"run_id": f"{i:03}", "arch": f"net{i}", "worst_case_acc": 40.0 + i / 9, "epochs": 1, "n_test": 10_000}
        for i in range(61)
    ]
    text = page(rows(*runs), tmp_path, best_val={}, planned=1100).text
    assert "of 1,100 planned runs 61 done, 0 failed, 0 diverged, 1,039 not finished." in text
    assert "recipe digits (1 epoch, raw weights)" in text
    assert "on 10,000 test images." in text


def test_verdicts_stand_before_the_results(tmp_path: Path) -> None:
    specs = [ArchSpec("wide_resnet", (1, 1, 1), (8 * k, 16 * k, 32 * k)) for k in range(1, 7)]
    frame = planted_study(specs, lambda spec, _: 60 - spec.widths[0] / 4, seeds=3, sd=0.1).rows
    parsed = page(frame, tmp_path, best_val={})
    assert parsed.verdicts[0][1][:3] == ["C1", "more parameters, over all", "supported"]
    assert parsed.verdicts[0][1][3].startswith("-1.00 [")  # every wider network is worse: tau is -1
    assert parsed.verdicts[0][0] == ["claim", "setting", "verdict", "effect"]
    assert {len(line) for line in parsed.verdicts[0]} == {4}
    assert "C1, more parameters, over all: supported" in parsed.text
    assert "; 6 architectures, 18 runs, seeds per architecture: 3." in parsed.text
    assert parsed.source.index('id="study-1-verdicts"') < parsed.source.index('id="results"')


def test_networks_of_no_known_family_get_no_verdict_and_the_reason(planted: pd.DataFrame, tmp_path: Path) -> None:
    twice = pd.concat([planted, planted.assign(seed=1, run_id=planted["run_id"] + "1")], ignore_index=True)
    parsed = page(twice.assign(family="unheard_of"), tmp_path)
    assert "No verdict on the claims C1, C2 and C3: arch.family" in parsed.text
    assert parsed.verdicts == []


OUTCOMES = {"a": np.arange(360) < 180, "b": np.arange(360) < 198, "c": np.arange(360) < 216, "d": np.arange(360) < 189}


def test_one_seed_per_architecture_gets_the_verdicts_of_the_command_and_the_paired_comparison(
    planted: pd.DataFrame, tmp_path: Path
) -> None:
    parsed = page(planted, tmp_path, outcomes=OUTCOMES)
    assert "This study has only one seed per architecture" in parsed.text
    assert "No verdict" not in parsed.text
    best, last = parsed.verdicts  # all that the command says of the main group, and C1 at `last`
    assert {line[0] for line in best[1:]} == {"C1", "C3"}
    assert re.search("Not tested by this study: [^.]*C2 others kept", parsed.text)
    assert {line[0] for line in last[1:]} == {"C1"}
    planted.to_csv(tmp_path / "results.csv", index=False)
    printed = CliRunner().invoke(app, ["claims", "--verbose", str(tmp_path / "results.csv")]).output
    printed = re.sub(r"\n {2,}", " ", printed)
    commands = re.findall(r"^(C\d), ([^:]*): (RULED OUT|SUPPORTED|TOO FEW RUNS)", printed, re.MULTILINE)
    assert [(claim, setting, verdict.upper()) for claim, setting, verdict, _ in [*best[1:], *last[1:]]] == commands
    (paired,) = [table for table in parsed.tables if "p (Holm)" in table[0]]
    # net-a was selected; the others are right on 18, 36 and 9 images more, and on none less: p = 2 / 2^k
    assert [row[0] for row in paired[1:]] == ["net-b", "net-c", "net-d"]
    assert [row[6] for row in paired[1:]] == [f"{2 / 2**k:.3g}" for k in (18, 36, 9)]
    assert [row[7] for row in paired[1:]] == [f"{factor * 2 / 2**k:.3g}" for factor, k in ((2, 18), (3, 36), (1, 9))]
    assert "Of 3 networks 3 differ from it at the 5% level after Holm's correction." in parsed.text


def test_several_seeds_get_the_verdicts_and_no_paired_comparison(tmp_path: Path) -> None:
    specs = [ArchSpec("wide_resnet", (1, 1, 1), (8 * k, 16 * k, 32 * k)) for k in range(1, 4)]
    frame = planted_study(specs, lambda spec, _: 60, seeds=2, sd=1).rows
    runs = frame["run_id"].tolist()
    outcomes = {run: np.random.default_rng(place).random(100) < 0.5 for place, run in enumerate(runs)}
    parsed = page(frame, tmp_path, best_val=dict.fromkeys(runs, 60.0), outcomes=outcomes)
    assert len(parsed.verdicts) == 1
    assert "Paired comparison" not in parsed.text
    assert "Holm" not in parsed.text


def test_fronts_are_those_of_each_group(rows: Rows, tmp_path: Path) -> None:
    # by params: 10 with 40 is on it; 20 with 50 beats 20 with 45 and 30 with 50; 40 with 60 is the best
    found = [(10, 40.0), (20, 45.0), (20, 50.0), (30, 50.0), (40, 60.0)]
    runs = [
        {"run_id": f"{place}", "arch": f"net{place}", "params": params, "macs": 100 - params, "worst_case_acc": value}
        for place, (params, value) in enumerate(found)
    ]
    other = [run | {"checkpoint": "last", "worst_case_acc": 10.0 + place} for place, run in enumerate(runs)]
    data = page(rows(*runs, *other), tmp_path, best_val={}).data
    robust, checkpoint = data["rows"]["robust"], [data["texts"][place] for place in data["rows"]["checkpoint"]]
    for cost, best, last in (("params", [40, 50, 60], [10, 12, 13, 14]), ("macs", [60], [14])):
        front = data["front"][cost]
        assert sorted(robust[place] for place in front if checkpoint[place] == "best") == best
        assert sorted(robust[place] for place in front if checkpoint[place] == "last") == last
        group = data["groups"][0]
        assert sorted(data["architectures"]["robust"][place] for place in group["front"][cost]) == best


def test_page_is_accessible(parsed: Page) -> None:
    assert all(attrs.get("scope") in ("col", "row") for tag, attrs in parsed.attributes if tag == "th")
    labels = [attrs.get("aria-label") for tag, attrs in parsed.attributes if tag == "svg"]
    assert all(labels)


def test_writing_is_one_step_and_repeats_to_the_same_bytes(planted: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "report" / "index.html"
    study = ReportedStudy(planted, details())
    assert write_report([study], path) == path
    first = path.read_bytes()
    write_report([study], path)
    assert path.read_bytes() == first
    assert list(path.parent.iterdir()) == [path]


def test_order_of_rows_does_not_matter(parsed: Page, planted: pd.DataFrame, tmp_path: Path) -> None:
    assert page(planted.iloc[::-1], tmp_path).tables == parsed.tables


@pytest.mark.parametrize(("count", "folded"), [(20, 0), (21, 3)])
def test_long_lists_are_folded(rows: Rows, tmp_path: Path, count: int, folded: int) -> None:
    lost = [
        {"run_id": f"r{i:02}", "arch": f"net{i:02}", "status": "failed", "clean_acc": float("nan")}
        for i in range(count)
    ]
    runs = [run["run_id"] for run in lost]
    parsed = page(
        rows(*lost), tmp_path, errors={}, flags=dict.fromkeys(runs, "a <flag>"), invalid=dict.fromkeys(runs, "b")
    )
    assert len([tag for tag, _ in parsed.attributes if tag == "details"]) == folded
    assert [row[0] for row in parsed.tables[-1][1:]] == runs
    assert parsed.text.count("a <flag>") == count
    assert ("21 failed or diverged runs" in parsed.text) is ("21 warnings" in parsed.text) is (folded > 0)


@pytest.mark.parametrize(("count", "folded"), [(0, 0), (5, 0), (6, 1)])
def test_each_network_has_a_table_of_its_stages(planted: pd.DataFrame, tmp_path: Path, count: int, folded: int) -> None:
    stage = {"name": "stage 1", "from_input": 1.23456, "alone": 2.0, "alone_max": None, "bound": 1e6}
    found = {f"net <{i}>": Smoothness.read({"n": 200, "stages": [stage]}) for i in range(count)}
    parsed = page(planted, tmp_path, smoothness=found)
    tables = [table for table in parsed.tables if table[0][0] == "part"]
    assert [table[1] for table in tables] == [["stage 1", "1.23", "2", "-", "1e+06"]] * count
    assert all(f"net <{i}>; measured on 200 of them." in parsed.text for i in range(count))
    # beside the grounds of the verdicts at `best` and at `last`
    assert len([tag for tag, _ in parsed.attributes if tag == "details"]) == 2 + folded
    assert ("smoothness by stage (evaluate.smoothness=200)" in parsed.text) is (count == 0)
