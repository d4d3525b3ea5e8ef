"""Published tables: what each cell becomes, what is left out, and that nothing in a file is executed."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from robust_arch.analysis.published.imported import import_results
from robust_arch.analysis.published.mapping import mapping_names, read_mapping
from robust_arch.analysis.published.provenance import provenance_of
from robust_arch.analysis.reading import read_results
from robust_arch.cli import app
from robust_arch.errors import InputError
from robust_arch.runs import COLUMNS, SITE_COLUMNS

METHODS = """
source: A paper (2030)
licence: CC BY 4.0
best: the epoch of highest PGD accuracy
selected_on: test
unit: percent
architecture: {id: "net-${method}", family: published, params: "Params (M)", macs: macs, scale: {params: 1000000}}
values: {recipe: r, data: cifar10, threat: linf-8/255, n_test: 10000, seed: "${seed}", epochs: 100, checkpoint: best}
evaluations:
  - {clean: Clean, attacks: {pgd20: PGD, autoattack: AA}}
"""
HEADER = "method,Params (M),macs,seed,Clean,PGD,AA"
ROWS = ["a,1.5,2e8,0,84.1,55.0,50.5", "a,1.5,2e8,1,84.0%,54.0,50.0", "b,3,4e8,0,85.0,,51.0"]


@pytest.fixture
def imported(tmp_path: Path):
    """Import lines under a mapping into tmp_path/results/study."""

    def run(lines, mapping=METHODS, name="study", **options):
        (tmp_path / "table.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        (tmp_path / "columns.yaml").write_text(mapping, encoding="utf-8")
        study = tmp_path / "results" / name
        return import_results(tmp_path / "table.csv", str(tmp_path / "columns.yaml"), study, **options)

    return run


def test_each_cell_becomes_its_column(imported):
    done = imported([HEADER, *ROWS])
    frame = read_results(done.path)
    assert tuple(frame.columns) == (*COLUMNS, *SITE_COLUMNS)
    first, second, third = frame.to_dict("records")
    assert (first["arch"], first["params"], first["macs"]) == ("net-a", 1_500_000, 200_000_000)
    assert (first["clean_acc"], first["pgd20_acc"], first["autoattack_acc"]) == (84.1, 55.0, 50.5)
    assert first["worst_case_acc"] == 50.5  # the smaller one
    assert second["clean_acc"] == 84.0
    assert frame["seed"].tolist() == [0, 1, 0]
    assert frame["pgd20_acc"].isna().tolist() == [False, False, True]
    assert third["worst_case_acc"] == 51.0
    assert frame["depths"].isna().all()


def test_provenance_is_kept_and_printed_by_what_reads_the_study(imported, tmp_path):
    lines = [HEADER, *(f"m{place},{place + 1},{place + 2}e8,0,80,{40 + place},{30 + place}" for place in range(14))]
    done = imported(lines)
    kept = provenance_of(done.path.parent)
    assert (kept.source, kept.licence, kept.selected_on) == ("A paper (2030)", "CC BY 4.0", "test")
    for command in ("claims", "effects", "scaling"):
        options = [] if command == "claims" else ["--out", str(tmp_path / command), "--draws", "50"]
        shown = CliRunner().invoke(app, [command, str(done.path.parent), *options])
        assert shown.exit_code == 0, shown.output
        assert "A paper (2030)" in shown.output
        assert "picked on the test set" in " ".join(shown.output.split())
    assert "A paper (2030)" in CliRunner().invoke(app, ["results", str(done.path.parent)]).output
    assert CliRunner().invoke(app, ["report", str(done.path.parent)]).exit_code == 0
    page = (done.path.parent / "report" / "index.html").read_text()
    assert "A paper (2030)" in page
    assert "import-results" in page  # the command that makes the study again


def test_the_same_run_at_two_sites_is_no_copy(imported):
    mapping = METHODS.replace("values: {", 'values: {hardware: "${site}", ')
    both = [f"{row},{site}" for row in ROWS[:2] for site in ("lab A", "lab B")]
    again = f"{ROWS[0].replace('84.1', '84.2')},lab A"
    done = imported([f"{HEADER},site", *both, again], mapping)
    assert read_results(done.path)["hardware"].tolist() == ["lab A", "lab B"] * 2
    assert done.provenance.left_out == 1


def test_depths_and_widening_factors_are_priced_in_closed_form(imported):
    mapping = METHODS.replace(
        'id: "net-${method}", family: published, params: "Params (M)", macs: macs, scale: {params: 1000000}',
        "depths: [n, n, n], widening: [20, 20, k]",
    )
    lines = ["n,k,seed,Clean,PGD,AA", "5,8,0,86,57,52", "5,0.3,0,80,50,45"]
    done = imported(lines, mapping)
    row = read_results(done.path).iloc[0]
    assert (row["depths"], row["widths"]) == ("5-5-5", "320-640-512")
    assert (row["arch"], row["params"], row["macs"]) == ("wrn_34_r", 68_116_698, 19_132_765_184)
    assert "line 3" in done.left_out[0]  # 19.2 channels
    assert "whole channels" in done.left_out[0]


def test_costs_that_disagree_with_the_closed_form_are_told(imported):
    mapping = METHODS.replace('id: "net-${method}", family: published,', "depths: [5, 5, 5], widths: [320, 640, 512],")
    done = imported([HEADER, "a,68.116698,38265530368,0,86,57,52"], mapping)
    assert any("params of the table agree with the closed form within 0.1%" in text for text in done.costs)
    assert any("macs of the table are 2 times" in text for text in done.costs)  # multiply and add counted apart


def test_a_wild_run_is_kept_and_named(imported):
    lines = [f"m{m},1,1e8,{seed},84,55,{50 + m + seed / 10}" for m in range(6) for seed in range(3)]
    lines[4] = "m1,1,1e8,1,84,55,9"
    done = imported([HEADER, *lines])
    assert len(read_results(done.path)) == 18
    (warning,) = done.warnings
    assert "net-m1, run study-6: worst_case_acc 9.00, its other runs 51.00, 51.20" in warning


BAD_ROWS = {
    "c,1,1e8,0,84,55": "expected 7",
    "c,1,1e8,0,84,155,50": "PGD = '155': expected a percentage",
    "c,1,1e8,0,eighty,55,50": "Clean = 'eighty': expected a number",
    "c,1,1e8,0,,55,50": "expected a clean accuracy",
    "c,1,1e8,0,84,,": "expected an accuracy under an attack",
    "c,nan,1e8,0,84,55,50": "Params (M) = 'nan'",
    "c,0,1e8,0,84,55,50": "expected a number of at least 1",
    "c,1,1e8,x,84,55,50": "seed = 'x': expected an integer",
    "c,1,1e8,1.5,84,55,50": "seed = '1.5'",
    "\ufffd,1,1e8,0,84,55,50": "UTF-8",
    "\x1b[31m,1,1e8,0,84,55,50": "one line of text",
    ROWS[0]: "not line 2 again",
    "a,1.5,2e8,0,83.0,54.0,49.5": "those of line 2",
}


@pytest.mark.parametrize(("row", "why"), BAD_ROWS.items(), ids=range(len(BAD_ROWS)))
def test_a_row_that_does_not_fit_is_named_and_left_out(imported, row, why):
    done = imported([HEADER, *ROWS, row])
    assert len(read_results(done.path)) == 3
    assert len(done.left_out) == 1
    assert done.left_out[0].startswith("line 5: ")
    assert why in done.left_out[0]


BAD_MAPPINGS = {
    ("unit: percent", "unit: parts"): "unit = 'parts': expected percent or fraction",
    ("source: A paper (2030)", ""): "source: missing",
    ("selected_on: test", "selected_on: luck"): "selected_on = 'luck'",
    ("best: the", "bset: the"): "bset: unknown key; did you mean best",
    ("pgd20: PGD", "PGD-20: PGD"): "evaluations[0].attacks = 'PGD-20'",
    ("pgd20: PGD", "clean: PGD"): "evaluations[0].attacks = 'clean'",
    ("checkpoint: best", "checkpoint: final"): "checkpoint = 'final': expected one of best, last, external",
    ("n_test: 10000, ", ""): "n_test: missing",
    ('"${seed}"', '"${sed}"'): "lacks sed",
    ('"${seed}"', '"${seed"'): "values.seed",
    ("clean: Clean", "clean: [Clean]"): "evaluations[0].clean",
    ("scale: {params: 1000000}", "scale: {params: -1}"): "architecture.scale.params = -1",
    ('id: "net-${method}", ', ""): "architecture: id, or depths",
    ("licence: CC BY 4.0", "licence: !!python/object/apply:os.mkdir [executed]"): "a YAML file",
    ("unit: percent", "unit: ["): "a YAML file",
    (
        "unit: percent",
        "a: &a [1,1,1,1,1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b]\n"
        "d: &d [*c,*c,*c,*c,*c,*c,*c,*c]\nunit: [*d,*d,*d,*d,*d]",
    ): "at most 10,000 values",
}


@pytest.mark.parametrize(("change", "why"), BAD_MAPPINGS.items(), ids=list(BAD_MAPPINGS.values()))
def test_a_mapping_that_does_not_fit_is_one_error(imported, tmp_path, monkeypatch, change, why):
    monkeypatch.chdir(tmp_path)
    assert change[0] in METHODS
    with pytest.raises(InputError) as error:
        imported([HEADER, *ROWS], METHODS.replace(*change))
    assert why in str(error.value)
    assert not (tmp_path / "results").exists()
    assert not (tmp_path / "executed").exists()


def test_fractions_read_as_percent_are_an_error(imported):
    with pytest.raises(InputError, match="unit = 'percent': expected fraction"):
        imported([HEADER, "a,1,1e8,0,0.84,0.55,0.5", "b,1,1e8,0,0.85,0.56,0.51"])


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"\x00\x01\x02", b"\xff\xfe" + "a,b".encode("utf-16-le")])
def test_a_file_that_is_no_such_table_is_one_error(tmp_path, content):
    (tmp_path / "columns.yaml").write_text(METHODS)
    (tmp_path / "table.csv").write_bytes(content)
    with pytest.raises(InputError):
        import_results(tmp_path / "table.csv", str(tmp_path / "columns.yaml"), tmp_path / "study")
    assert not (tmp_path / "study").exists()


def test_a_study_is_never_replaced_unless_it_was_imported_and_it_is_asked_for(imported, tmp_path):
    done = imported([HEADER, *ROWS])
    before = done.path.read_bytes()
    with pytest.raises(InputError, match="--force"):
        imported([HEADER, ROWS[0]])
    assert done.path.read_bytes() == before
    (done.path.parent / "figures").mkdir()  # as `robust-arch figures` leaves them
    assert len(read_results(imported([HEADER, ROWS[0]], force=True).path)) == 1
    (tmp_path / "results" / "own" / "runs").mkdir(parents=True)
    with pytest.raises(InputError, match="was not imported"):
        imported([HEADER, *ROWS], name="own", force=True)


def test_of_one_row_per_epoch_the_last_and_the_best_are_taken(imported):
    mapping = METHODS.replace("epochs: 100, checkpoint: best", "weights: raw").replace(
        "  - {clean: Clean, attacks: {pgd20: PGD, autoattack: AA}}",
        "  - {checkpoint: best, clean: Clean, attacks: {pgd20: PGD}}\n"
        "  - {checkpoint: last, clean: Clean, attacks: {pgd20: PGD}}\n"
        "epoch: {column: epoch, best: PGD}",
    )
    lines = ["method,Params (M),macs,seed,epoch,Clean,PGD"]
    lines += [f"{m},1,1e8,0,{epoch},{70 + epoch},{value}" for m in "ab" for epoch, value in enumerate((40, 52, 47))]
    frame = read_results(imported(lines, mapping).path)
    assert frame[["arch", "checkpoint", "epochs", "clean_acc", "worst_case_acc"]].to_numpy().tolist() == [
        ["net-a", "best", 3, 71, 52], ["net-a", "last", 3, 72, 47],
        ["net-b", "best", 3, 71, 52], ["net-b", "last", 3, 72, 47],
    ]  # fmt: skip
    assert frame["run_id"].nunique() == 2


def test_cells_of_several_lines_are_read_and_rows_are_chosen(imported):
    mapping = METHODS.replace("unit: percent", 'unit: percent\nwhere: {macs: ["2e8", "4e8"]}')
    done = imported([HEADER, '"a\nlong name",1.5,2e8,0,84.1,55.0,50.5', ROWS[2], "c,3,5e8,0,85,50,49"], mapping)
    assert read_results(done.path)["arch"].tolist() == ["net-a long name", "net-b"]
    assert done.filtered == 1


def test_a_table_without_accuracies_is_a_plan(imported, tmp_path):
    design = "source: s\nlicence: l\narchitecture: {depths: [n, n, n], widths: [320, 640, 512]}\n"
    done = imported(["n", "5", "4", "x"], design)
    assert done.path.name == "plan.csv"
    assert done.path.read_text().splitlines()[:2] == [
        "run_id,arch,params,macs,seed", "study-2,wrn_34_r,68116698,19132765184,0",
    ]  # fmt: skip
    assert done.left_out == ["line 4: n = 'x': expected a number"]
    with pytest.raises(InputError, match="params and macs"):
        imported(["n", "5"], 'source: s\nlicence: l\narchitecture: {id: "${n}"}\n', name="other")
    assert not (tmp_path / "results" / "other").exists()


@pytest.mark.parametrize("name", mapping_names())
def test_the_mappings_of_the_project_fit(name):
    mapping = read_mapping(name)
    assert mapping.source
    assert mapping.columns


def test_the_published_widths_of_wrn_34_k(tmp_path):
    # two rows of the published table: k = 1 and 10
    (tmp_path / "rice.csv").write_text(
        "widen_factor,epochs,best_epoch,best_clean,best_robust,last_clean,last_robust\n"
        "1,200,165,0.7755,0.4989,0.7821,0.4802\n10,200,101,0.8607,0.5680,0.8688,0.4856\n"
    )
    arguments = ["import-results", str(tmp_path / "rice.csv"), "--columns", "rice_widths", "--name", "rice"]
    shown = CliRunner().invoke(app, [*arguments, "--results-dir", str(tmp_path)])
    assert shown.exit_code == 0, shown.output
    assert max(map(len, shown.output.splitlines())) <= max(80, len(f"written: {tmp_path}/rice/results.csv"))
    frame = read_results(tmp_path / "rice")
    at_best = frame[frame["checkpoint"] == "best"]
    assert at_best["worst_case_acc"].tolist() == [49.89, 56.8]
    assert at_best["arch"].tolist() == ["wide_resnet-d5-5-5-w16-32-64", "wrn_34_10"]
    assert at_best["epochs"].tolist() == [200, 200]


@pytest.mark.parametrize("sign", [";", "\t"])
def test_another_delimiter_is_named_and_read(imported, sign):
    lines = [line.replace(",", sign) for line in (HEADER, *ROWS)]
    with pytest.raises(InputError, match=r"lacks method.*separated by .*: set `delimiter` in the mapping") as caught:
        imported(lines)
    assert repr(sign) in str(caught.value)
    done = imported(["\ufeff" + lines[0], *lines[1:]], f"{METHODS}delimiter: {sign!r}\n".replace("'\\t'", '"\\t"'))
    assert (done.rows, done.architectures) == (3, 2)
