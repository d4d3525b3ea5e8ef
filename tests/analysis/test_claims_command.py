"""What `robust-arch claims` prints, and its errors."""

import re
from pathlib import Path

import pandas as pd
import pytest
from planted import planted
from typer.testing import CliRunner

from robust_arch.analysis.groups import main_group
from robust_arch.analysis.report.comparison import section
from robust_arch.architectures import ArchSpec
from robust_arch.cli import app

SPECS = [ArchSpec("wide_resnet", (1, 1, 1), (8, 16, width)) for width in (8, 16, 24, 32, 40, 48)]
DEMO = Path(__file__).parents[2] / "experiments" / "demo"


@pytest.fixture
def rows() -> pd.DataFrame:
    """A line through the widths: every smaller last stage is 0.5 points better for 8 channels."""
    return planted(SPECS, lambda spec, _: 60 - spec.widths[-1] / 16, seeds=3, sd=0.01).rows


def claims(*arguments: str | Path) -> str:
    """What is printed, each finding in one line."""
    result = CliRunner().invoke(app, ["claims", *map(str, arguments)])
    if result.exit_code:
        return f"{result.exit_code}: {result.exception}"
    assert max(map(len, result.output.splitlines())) <= 80
    return re.sub(r"\n {2,}", " ", result.output)


VERDICT = "(RULED OUT|SUPPORTED|TOO FEW RUNS|NOT TESTED)"


def test_every_claim_is_tested_on_a_file_of_results(tmp_path: Path, rows: pd.DataFrame) -> None:
    rows.to_csv(tmp_path / "results.csv", index=False)
    text = claims("--verbose", tmp_path / "results.csv")
    verdicts = re.findall(rf"^(C\d), ([^:]*): {VERDICT}", text, re.MULTILINE)
    assert ("C1", "more parameters, over all", "SUPPORTED") in verdicts
    assert ("C1", "more multiply-accumulates, one pair", "SUPPORTED") in verdicts
    assert ("C2", "smaller last stage, others kept, on average", "SUPPORTED") in verdicts
    assert "6 architectures, 18 runs, seeds per architecture: 3" in text
    # 15 pairs, 1 to 5 steps of 0.5 points apart: (5 x 1 + 4 x 2 + 3 x 3 + 2 x 4 + 1 x 5) / 15 x 0.5 = 1.17
    effect = re.search(r"smaller minus larger, mean of pairs: \+([\d.]+) points \[", text)
    assert effect is not None
    assert float(effect[1]) == pytest.approx(1.17, abs=0.02)
    found = re.search(r"smaller minus larger, the largest difference [^(]* \((\S+) against (\S+)\): \+2\.5", text)
    assert found is not None
    assert found.groups() == ("wide_resnet-d1-1-1-w8-16-8", "wide_resnet-d1-1-1-w8-16-48")


def test_the_table_has_the_tested_statements_with_their_effects_and_names_the_others(tmp_path: Path) -> None:
    rising = planted(SPECS, lambda spec, _: 60 + spec.widths[-1] / 16, seeds=3, sd=0.01).rows
    rising.to_csv(tmp_path / "results.csv", index=False)
    text = CliRunner().invoke(app, ["claims", str(tmp_path / "results.csv")]).output
    rows = re.findall(r"^    (\S.*?) {2,}(supported|ruled out|too few runs) {2,}(\S.*?) {2,}(\d+)$", text, re.MULTILINE)
    # six widths of the last stage: nothing costs the same, so only C1 and C2 with the others kept are tested
    assert [row[0] for row in rows] == [
        *(f"more {what}, {scope}" for what in ("parameters", "MACs") for scope in ("over all", "one pair")),
        "others kept, on average",
        "others kept, one pair",
    ]
    # every smaller last stage is worse, by 1.17 points on average (as below) and by 0.5 points or more per pair
    assert {row[1] for row in rows} == {"ruled out"}
    assert {row[3] for row in rows} == {"18"}
    effects = {row[0]: row[2] for row in rows}
    assert re.fullmatch(r"-1\.1\d \[-1\.\d\d, -1\.\d\d\]", effects["others kept, on average"])
    assert effects["more parameters, over all"].startswith("tau +1.00 [+0.27")  # 1 of 720 orders is as high
    untested = (
        "Not tested by this study: C2 others grown, equal parameters; C2 others grown, equal MACs; "
        "C3 equal parameters, against equal shares; C3 equal MACs, against equal shares; "
        "C3 equal parameters, against equal widening factors; C3 equal MACs, against equal widening factors."
    )
    assert untested in " ".join(text.split())


def test_no_number_of_seeds_is_named_that_nobody_would_run(tmp_path: Path) -> None:
    planted(SPECS, lambda spec, _: 60, seeds=3, sd=9).rows.to_csv(tmp_path / "results.csv", index=False)
    text = claims("--verbose", tmp_path / "results.csv")
    assert "it takes more than 50 seeds per architecture to show a gain of 1 point" in text
    assert max(int(number) for number in re.findall(r"(\d+) (?:seeds|would show)", text)) <= 50


def test_a_suggested_command_sets_each_budget_once(tmp_path: Path, rows: pd.DataFrame) -> None:
    rows.to_csv(tmp_path / "results.csv", index=False)
    commands = re.findall(r"study=\w+(?: search\S+)*", claims("--verbose", tmp_path / "results.csv"))
    assert {"study=budget", "study=last_stage"} <= set(commands)
    for command in commands:
        keys = [word.split("=")[0] for word in command.split()]
        assert len(keys) == len(set(keys)), command


def test_a_study_of_one_seed_is_too_few_runs_for_all_but_the_trend_over_architectures(tmp_path: Path) -> None:
    text = claims("--verbose", DEMO)
    verdicts = re.findall(rf"^(C\d, [^:]*): {VERDICT}", text, re.MULTILINE)
    assert {verdict for name, verdict in verdicts if "over all" not in name} == {
        "TOO FEW RUNS",
        "NOT TESTED",
    }
    falling = planted(SPECS, lambda spec, _: 60 - spec.widths[-1] / 16, seeds=1, sd=0.1).rows
    falling.to_csv(tmp_path / "results.csv", index=False)
    found = claims("--verbose", tmp_path / "results.csv")
    assert "C1, more parameters, over all: SUPPORTED" in found
    # of the 720 orders of six architectures one is as low
    assert "Kendall's tau between parameters and robust accuracy: -1.00 [-1.00, -0.27]; p 0.0014" in found
    assert "C1, more parameters, one pair: TOO FEW RUNS" in found


def test_capacity_is_judged_at_best_and_at_last_which_can_disagree(tmp_path: Path) -> None:
    best, last = (
        planted(SPECS, lambda spec, _, up=up: 60 + up * spec.widths[-1] / 16, seeds=2, sd=0.01).rows for up in (1, -1)
    )
    pd.concat([best, last.assign(checkpoint="last")]).to_csv(tmp_path / "results.csv", index=False)
    at_best, at_last = re.split(
        r"(?=^wide_resnet.*checkpoint last)", claims("--verbose", tmp_path / "results.csv"), flags=re.MULTILINE
    )
    assert "checkpoint best" in at_best
    assert "C1, more parameters, over all: RULED OUT" in at_best
    assert "C2," in at_best
    assert "C1, more parameters, over all: SUPPORTED" in at_last
    assert "C2," not in at_last


def test_all_claims_can_be_tested_at_last(tmp_path: Path) -> None:
    best, last = (
        planted(SPECS, lambda spec, _, up=up: 60 + up * spec.widths[-1] / 16, seeds=2, sd=0.01).rows for up in (1, -1)
    )
    pd.concat([best, last.assign(checkpoint="last")]).to_csv(tmp_path / "both.csv", index=False)
    last.assign(checkpoint="last").to_csv(tmp_path / "last.csv", index=False)
    at_last = claims("--verbose", "--checkpoint", "last", tmp_path / "both.csv")
    assert "checkpoint best" not in at_last
    assert "C2," in at_last
    assert at_last == claims("--verbose", tmp_path / "last.csv")
    wrong = " ".join(claims("--checkpoint", "final", tmp_path / "both.csv").split())
    assert wrong.startswith("1: error: --checkpoint = 'final': expected one of best, last")


def test_a_report_says_what_is_decided_at_each_checkpoint() -> None:
    flat = planted(SPECS, lambda *_: 60.0, seeds=2, sd=0.8).rows
    falling = planted(SPECS, lambda spec, _: 60 - spec.widths[-1] / 16, seeds=2, sd=0.01).rows
    frame = pd.concat([flat, falling.assign(checkpoint="last")])
    found = section(frame, main_group(frame), {}, None)
    assert re.search(r"At best: .*At last: Supported: more capacity lowers robust accuracy \(C1: ", found.decided)
    assert any(text.startswith("At last: More capacity lowers") and "tau -1.00" in text for text in found.answers)
    alone = section(flat, main_group(flat), {}, None)
    assert not any("At best" in text for text in (alone.decided, *alone.answers))


def test_a_study_without_a_row_yet_changes_nothing(tmp_path: Path, rows: pd.DataFrame) -> None:
    rows.to_csv(tmp_path / "results.csv", index=False)
    (tmp_path / "begun" / "runs").mkdir(parents=True)
    rows.head(0).to_csv(tmp_path / "header.csv", index=False)
    alone = claims(tmp_path / "results.csv")
    assert " supported " in alone
    assert claims(tmp_path / "begun", tmp_path / "results.csv", tmp_path / "header.csv") == alone
    assert claims(tmp_path / "begun").startswith("1: error: claims: no two architectures")


def test_what_is_left_out_is_counted(tmp_path: Path, rows: pd.DataFrame) -> None:
    lost = [rows.iloc[[place]].assign(run_id=f"f{place}", seed=9, status="failed") for place in range(2)]
    empty = rows.iloc[[2]].assign(run_id="e", seed=9, worst_case_acc=float("nan"))
    last = rows.iloc[:4].assign(checkpoint="last")
    pd.concat([rows, *lost, empty, last]).to_csv(tmp_path / "results.csv", index=False)
    assert claims(tmp_path / "results.csv").startswith(
        "Left out: 2 failed or diverged runs, 1 row without a worst-case accuracy.\n"
    )


def test_rows_that_nothing_compares_with_are_named_with_what_is_different(tmp_path: Path, rows: pd.DataFrame) -> None:
    first = rows["arch"].iloc[0]
    alone = rows[rows["arch"] == first].assign(seed=9, pgd20_acc=float("nan"), n_test=77)
    pd.concat([rows, alone]).to_csv(tmp_path / "results.csv", index=False)
    said = " ".join(claims(tmp_path / "results.csv").split())
    counted = f"{len(alone)} row{'s' if len(alone) > 1 else ''}"
    assert said.startswith(f"Left out: {counted} of {first} that no other architecture's compare with (")
    assert re.match(r"[^)]*test images 77 instead of \d+, attacks [^)]* instead of [^)]*\)\.", said.split("(", 1)[1])


def test_there_must_be_something_to_compare(tmp_path: Path, rows: pd.DataFrame) -> None:
    rows.head(3).to_csv(tmp_path / "results.csv", index=False)
    assert claims(tmp_path / "results.csv").startswith("1: error: claims: no two architectures")
    assert claims(tmp_path / "nothing").startswith("1: error: study")
