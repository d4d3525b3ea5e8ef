"""Every figure and table of experiments/ from planted records: made, and skipped where there is no record."""

import sys
from importlib import import_module

import pytest
from planted_studies import rows, wide

from experiments import __main__ as command
from experiments.published import scaled, uniform
from experiments.record import record
from experiments.wrn34 import table as wrn34
from robust_arch.errors import InputError
from robust_arch.runs import to_frame

FIGURES = command.items("figure")
TABLES = ["cifar10", "families", "wrn34"]


@pytest.mark.parametrize("item", TABLES)
def test_accuracies_have_a_unit_in_the_heading(item):
    head = [heading.text for heading in import_module(f"experiments.{item}.table").HEAD]
    accuracies = [text for text in head if text.startswith(("clean", "robust", "PGD", "CW", "Auto"))]
    assert len(accuracies) == {"cifar10": 4, "families": 2, "wrn34": 4}[item]
    assert all(text.endswith(" (%)") for text in accuracies)


@pytest.mark.slow
def test_all_figures_and_tables_are_made_from_records_alone(studies, tmp_path, capsys):
    for kind in ("figure", "table"):
        command.write_all(kind, studies, tmp_path)
    assert "skipped" not in capsys.readouterr().out
    made = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")}
    figures = {f"{item}/figure.{ending}" for item in FIGURES for ending in ("pdf", "png")}
    assert made == figures | {f"{item}/table.{ending}" for item in TABLES for ending in ("md", "tex")}


def test_what_is_not_recorded_is_skipped_in_one_line(tmp_path, capsys):
    command.write_all("figure", tmp_path / "none", tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == FIGURES
    own = [item for item in FIGURES if not import_module(f"experiments.{item}.figure").STUDIES]  # draw their own record
    assert own == ["theory"]
    assert all(("skipped, no record of study" in line) != (line.split(":")[0] in own) for line in lines)
    assert {path.parent.name for path in tmp_path.rglob("figure.*")} == set(own)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing"], "item = 'nothing': expected one of"),
        (["ranking", "no/such/study"], "STUDY = 'no/such/study'"),
    ],
)
def test_a_wrong_name_is_one_clear_error(monkeypatch, arguments, words):
    monkeypatch.setattr(sys, "argv", ["experiments", *arguments])
    with pytest.raises(SystemExit, match=words):
        command.main()


def test_one_item_without_its_record_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no record of study budget"):
        command.write_recorded("ranking", "figure", tmp_path, tmp_path)


def test_a_study_of_ones_own_is_drawn_beside_its_results(studies, tmp_path):
    (tmp_path / "results.csv").write_bytes((studies / "budget" / "results.csv").read_bytes())
    command.write_one("simplex", str(tmp_path / "results.csv"))
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"simplex.pdf", "simplex.png"}


def test_capacity_is_shown_at_both_checkpoints_by_size(studies):
    grid = command.import_module("experiments.cifar10.table").tabulate([studies / "cifar10_capacity"])
    assert [row[1] for row in grid.rows] == ["4-8-16", "8-16-32", "16-32-64"]
    best, last = ([float(row[column].split()[0]) for row in grid.rows] for column in (7, 8))
    assert last == pytest.approx([value - 1 for value in best], abs=0.11)


def test_families_are_separated_most_robust_first(studies):
    grid = command.import_module("experiments.families.table").tabulate([studies / "families"])
    assert [(row[0], row[2], row[8]) for row in grid.rows] == [
        ("resnet", "16-16-16-32", "70.0 [65.0, 75.0]"),
        ("resnet", "8-16-16-32", "68.0 [63.0, 73.0]"),
        ("wide_resnet", "12-28-12", "66.0 [61.0, 71.0]"),
        ("wide_resnet", "28-12-12", "64.0 [59.0, 69.0]"),
        ("wide_resnet", "8-16-32", "62.0 [57.0, 67.0]"),
    ]
    assert grid.rules == {2}


def test_published_numbers_are_beside_ours(tmp_path):
    names = [heading.text for heading in wrn34.HEAD]
    (row,) = [row for row in wrn34.tabulate([]).rows if row[:3] == ["cifar10", "trades", "WRN-34-R"] and row[6] != "0"]
    # Huang et al. 2023, Table 2, and the exact costs of published.json
    assert dict(zip(names[3:], row[3:], strict=True)) == {
        "params (M)": "68.1", "MACs": "19.13 G", "source": "published", "seeds": "3",
        "clean (%)": "85.80", "PGD-20 (%)": "57.35", "CW-40 (%)": "54.77", "AutoAttack (%)": "53.23",
    }  # fmt: skip
    runs = rows([wide((5, 5, 5), (320, 640, 512))], {"wrn_34_r": [50.0, 52.0, 54.0]})
    for run in runs:
        run |= {"data": "cifar10", "objective": "trades", "recipe": "huang2021", "n_test": 10_000, "epochs": 100}
        run |= {"threat": "linf-8/255", "train_threat": "linf-8/255", "cw40_acc": float("nan")}
    others = [{**runs[0], "run_id": "x", "recipe": "short"}, {**runs[0], "run_id": "y", "epochs": 1}]
    to_frame([*runs, *others]).to_csv(tmp_path / "results.csv", index=False)
    (ours,) = [row for row in wrn34.tabulate([tmp_path]).rows if row[5] == "ours" and row[6] != "0"]
    # mean 53 of pgd20, half width t(2, 0.95) * 2 / sqrt(3) = 4.97
    assert ours[6:] == ["3", "95.20 [94.70, 95.70]", "53.00 [48.03, 57.97]", "-", "-"]
    to_frame([*runs, {**runs[0], "run_id": "z"}]).to_csv(tmp_path / "results.csv", index=False)
    with pytest.raises(InputError, match=r"seeds \[0, 0, 1, 2\]"):
        wrn34.tabulate([tmp_path])


def test_costs_of_published_networks_are_the_published_ones(published):
    found = {point.name: point.cost for point in uniform()}
    exact = {row["name"]: row["params"] for row in published["wide_resnet_cost"]["rows"]}
    assert {name: found[name].params for name in exact if name in found} == {
        name: exact[name] for name in ("WRN-28-10", "WRN-34-12", "WRN-34-R", "WRN-70-16")
    }
    budgets = [row["budget_gmacs"] for row in published["independent_scaling"]["rows"]]
    assert [round(point.cost.macs / 1e9 / 5) * 5 for point in scaled()] == budgets


def test_a_study_is_recorded_with_its_epochs(studies, tmp_path):
    study = tmp_path / "overfitting"
    (study / "runs" / "a").mkdir(parents=True)
    (study / "plan.csv").write_text("run_id,arch,params,macs,seed\na,b,1,2,0\n")
    (study / "runs" / "a" / "metrics.csv").write_text("epoch,lr,val_robust_acc\n0,0.1,12.5\n")
    into = record(study, tmp_path / "records", epochs=True)
    assert (into / "plan.csv").read_text() == (study / "plan.csv").read_text()
    lines = (into / "metrics.csv").read_text().splitlines()
    assert lines[0] == "run_id,epoch,lr,train_loss,train_acc,val_clean_acc,val_robust_acc,val_robust_count"
    assert lines[1] == "a,0,0.1,,,,12.5,"
    assert (into / "results.csv").read_text().startswith("run_id,study,arch")
