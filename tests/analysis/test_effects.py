"""Effects on planted surfaces, whose truth is known, and the parts of the regression against second computations."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from planted import planted
from typer.testing import CliRunner

from robust_arch.analysis.effects import designs, estimate_effects
from robust_arch.analysis.effects.estimates import AS_THEY_ARE
from robust_arch.analysis.effects.surface import Surface, Terms
from robust_arch.architectures import ArchSpec, cost, named_spec
from robust_arch.cli import app
from robust_arch.errors import InputError

GRID = [
    ArchSpec("wide_resnet", depths, widths)
    for depths in product((1, 2, 4), repeat=3)
    for widths in product((16, 32, 64), (32, 64, 128), (32, 64, 128))
]
TRUTHS = {
    "MACs": lambda spec, priced: 2 * np.log2(priced.macs),
    "parameters": lambda spec, priced: 1.5 * np.log2(priced.params),
    "share": lambda spec, priced: 60 - 8 * priced.shares()[-1],
    "both": lambda spec, priced: 20 + np.log2(priced.macs) - 6 * priced.shares()[-1],
    "depth": lambda spec, priced: 50 - 2 * (np.log2(spec.depths[1]) - 1) ** 2,
    "width and MACs": lambda spec, priced: 40 + np.log2(priced.macs) - 0.8 * np.log2(spec.widths[-1]),
    "nothing": lambda spec, priced: 50.0,
}
OWN = {  # per doubling of MACs, of parameters, and per 0.1 less of the last stage's share
    "MACs": (2, 0, 0), "parameters": (0, 1.5, 0), "share": (0, 0, 0.8), "both": (1, 0, 0.6), "depth": (0, 0, 0),
    "width and MACs": (1, 0, 0), "nothing": (0, 0, 0),
}  # fmt: skip


def some(count, seed=0):
    return [GRID[place] for place in np.random.default_rng(seed).choice(len(GRID), count, replace=False)]


def effects(truth, count=100, sd=0.2, seed=0, draws=60, seeds=1):
    group = planted(some(count, seed), truth, seeds=seeds, sd=sd, draw=seed)
    return estimate_effects(designs(group)[0], draws)


@pytest.mark.parametrize("name", TRUTHS)
def test_what_is_planted_is_found_and_what_is_not_is_not(name):
    found = effects(TRUTHS[name])
    for path, true in zip(found.paths.values(), OWN[name], strict=False):
        assert path.own.value == pytest.approx(true, abs=0.15)
        assert path.own.high - path.own.low < 0.6
        assert path.total.value == pytest.approx(path.own.value + sum(part.value for part in path.parts.values()))


def test_the_gain_of_a_smaller_last_stage_at_equal_parameters_is_all_macs():
    found = effects(TRUTHS["MACs"]).paths["smaller last stage at equal parameters"]
    # second computation: least squares of the planted truth on the share at equal parameters
    specs = some(100)
    priced = [cost(spec) for spec in specs]
    params, macs = (np.log2([getattr(each, name) for each in priced]) for name in ("params", "macs"))
    shares = np.array([each.shares()[-1] for each in priced])
    params = params - params.mean()
    matrix = np.column_stack([np.ones(100), params, params**2, shares])
    slope = np.linalg.lstsq(matrix, 2 * macs, rcond=None)[0][-1]
    assert found.total.value == pytest.approx(-0.1 * slope, abs=0.05)
    assert found.parts["MACs"].value == pytest.approx(found.total.value, abs=0.06)
    assert found.own.low < 0 < found.own.high


def test_a_curved_effect_of_one_stage_is_found_where_its_ends_are_equal():
    found = effects(TRUTHS["depth"])
    curve = found.curves["depth of stage 2"]
    assert curve.levels.tolist() == [1, 2, 4]
    assert curve.values[1] - curve.values[0] == pytest.approx(2, abs=0.2)
    assert curve.change.low < 0 < curve.change.high
    assert found.variance["depth of stage 2"].value > 90
    assert found.curves["width of stage 1"].variance.value < 2


def test_an_effect_through_costs_counts_for_the_stage_that_changes_them():
    specs = some(100)
    found = effects(TRUTHS["MACs"])
    # what doubling the depth of stage 1 does to the planted truth, from depth 1 to 2, where only it differs
    changes = [
        2 * np.log2(cost(ArchSpec("wide_resnet", (2, *spec.depths[1:]), spec.widths)).macs
                    / cost(ArchSpec("wide_resnet", (1, *spec.depths[1:]), spec.widths)).macs)
        for spec in specs if spec.depths[0] in (1, 2)
    ]  # fmt: skip
    curve = found.curves["depth of stage 1"]
    assert curve.values[1] - curve.values[0] == pytest.approx(np.mean(changes), abs=0.08)


def test_on_a_full_grid_the_decomposition_is_that_of_the_analysis_of_variance():
    specs = [spec for spec in GRID if spec.depths[2] == 1 and spec.widths[2] == 32 and spec.depths[1] == 1]

    def truth(spec, _):
        depth, first, second = np.log2(spec.depths[0]) - 1, np.log2(spec.widths[0]) - 5, np.log2(spec.widths[1]) - 6
        return 50 + depth + 2 * first + first * second

    found = estimate_effects(designs(planted(specs, truth, seeds=1, sd=0.01))[0], 50)
    # three levels -1, 0, 1: variance 2/3 each, of the product 4/9
    whole = 2 / 3 + 4 * 2 / 3 + 4 / 9
    expected = {"depth of stage 1": 2 / 3, "width of stage 1": 8 / 3, "width of stage 2": 0, "interactions": 4 / 9}
    for name, value in expected.items():
        assert found.variance[name].value == pytest.approx(100 * value / whole, abs=1.0), name
    assert sum(each.value for each in found.variance.values()) == pytest.approx(100, abs=0.5)


def test_leaving_out_is_what_a_fit_without_the_architecture_predicts():
    generator = np.random.default_rng(0)
    x, weights = generator.normal(size=(30, 3)), generator.integers(1, 4, 30).astype(float)
    y = x @ [1.0, 2.0, 0.0] + generator.normal(size=30)
    surface, terms = Surface(x, y), Terms((1, 2, 3), frozenset({(0, 1)}))
    fit = surface.fit(terms, weights)
    matrix = surface.matrix(terms)
    for left in range(30):
        kept = np.delete(np.arange(30), left)
        root = np.sqrt(weights[kept])[:, None]
        own = np.linalg.lstsq(matrix[kept] * root, y[kept] * root[:, 0], rcond=None)[0]
        assert fit.left_out[left] == pytest.approx(y[left] - matrix[left] @ own, rel=1e-4, abs=1e-6)


def test_the_spline_is_a_natural_cubic_one():
    x = np.linspace(-2, 2, 60)[:, None]
    surface = Surface(x, np.zeros(60))
    fine = np.linspace(-4, 4, 801)[:, None]
    columns = surface.basis.columns(fine, Terms((3,)))[0]
    second = np.diff(columns, 2, axis=0)
    knots = surface.basis.knots[:, 0] * surface.basis.scale[0] + surface.basis.centre[0]
    outside = (fine[1:-1, 0] < knots[0] - 0.02) | (fine[1:-1, 0] > knots[-1] + 0.02)
    assert np.abs(second[outside]).max() < 1e-8  # straight outside the knots
    assert np.abs(second).max() > 1e-5
    assert np.linalg.matrix_rank(columns) == 4


def test_one_wild_architecture_moves_nothing_and_is_named():
    group = planted(some(80), TRUTHS["both"], seeds=1, sd=0.2)
    group.rows.iloc[5, group.rows.columns.get_loc("worst_case_acc")] = 3.0
    found = estimate_effects(designs(group)[0], 60)
    assert list(found.outliers) == [group.rows["arch"].iloc[5]]
    for path, true in zip(found.paths.values(), OWN["both"], strict=False):
        assert path.own.value == pytest.approx(true, abs=0.2)
        assert path.own.high - path.own.low < 1


def test_at_one_budget_parameters_have_no_effect_and_it_says_why():
    widths = [(first, second, third) for first in range(16, 72, 8) for second in range(32, 120, 8)
              for third in range(32, 136, 8)]  # fmt: skip
    specs = [ArchSpec("wide_resnet", (2, 2, 2), each) for each in widths]
    specs = [spec for spec in specs if abs(cost(spec).params / 500_000 - 1) < 0.02]
    assert len(specs) >= 20
    found = estimate_effects(designs(planted(specs, TRUTHS["both"], seeds=1, sd=0.1))[0], 60)
    assert "hardly differ" in found.design.inseparable["parameters"]
    assert "parameters at equal MACs" not in found.paths
    assert found.paths["MACs at equal parameters"].own.value == pytest.approx(1, abs=0.2)
    assert found.paths["smaller last stage at equal parameters"].own.value == pytest.approx(0.6, abs=0.1)


def test_what_goes_together_is_not_estimated():
    specs = [ArchSpec("wide_resnet", (n, n, n), (16 * k, 32 * k, 64 * k)) for n in (1, 2, 3, 4) for k in (1, 2, 3, 4)]
    found = estimate_effects(designs(planted(specs, TRUTHS["MACs"], seeds=1, sd=0.1))[0], 60)
    assert found.curves == {}
    assert "goes with the other stages" in found.design.inseparable["depth of stage 2"]


def test_where_every_architecture_is_as_robust_every_effect_is_zero():
    found = estimate_effects(designs(planted(some(30), TRUTHS["nothing"], seeds=1, sd=0))[0], 60)
    assert all(curve.change.value == pytest.approx(0, abs=1e-6) for curve in found.curves.values())
    assert all(path.own.value == pytest.approx(0, abs=1e-6) for path in found.paths.values())


def test_architectures_with_options_are_of_a_kind_of_their_own_and_cost_what_they_cost():
    bottlenecks = [replace(spec, options={"block": "bottleneck"}) for spec in some(20)]
    found = designs(planted([*some(30), *bottlenecks], TRUTHS["MACs"], seeds=1, sd=0.1))
    assert [(len(design.names), "block bottleneck" in design.kind) for design in found] == [(30, False), (20, True)]
    design = found[1]
    change = next(each for each in design.changes if design.variables[each.variable] == "depth of stage 2")
    for member, low in zip(change.members, change.low, strict=True):
        depths = named_spec(design.names[member]).depths
        changed = replace(
            named_spec(design.names[member]), depths=(depths[0], round(2 ** low[change.variable]), depths[2])
        )
        assert low[design.variables.index("MACs")] == pytest.approx(np.log2(cost(changed).macs))


def test_runs_without_a_cost_are_left_out_and_counted():
    group = planted(some(20), TRUTHS["MACs"], seeds=2, sd=0.2)
    rows = group.rows.assign(macs=group.rows["macs"].where(group.rows["arch"] != group.rows["arch"].iloc[0]))
    (design,) = designs(replace(group, rows=rows))
    assert len(design.names) == 19
    assert design.left_out == "2 runs without one of worst_case_acc, params, macs"
    assert designs(group)[0].left_out == ""


def test_too_few_architectures_are_one_error(tmp_path):
    group = planted(some(8), TRUTHS["MACs"], seeds=3, sd=0.1)
    with pytest.raises(InputError, match="8 architectures"):
        estimate_effects(designs(group)[0])
    group.rows.to_csv(tmp_path / "results.csv", index=False)
    shown = CliRunner().invoke(app, ["effects", str(tmp_path / "results.csv")])
    assert "at most 8 comparable architectures" in str(shown.exception)


def test_the_command_puts_the_answer_first_in_80_columns(tmp_path):
    planted(some(60), TRUTHS["share"], seeds=2, sd=0.2).rows.to_csv(tmp_path / "results.csv", index=False)
    out = tmp_path / "out"
    twice = [str(tmp_path / "results.csv")] * 2  # a run that is in two studies counts once
    arguments = ["effects", *twice, "--out", str(out), "--draws", "60"]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0, shown.output
    lines = [line for line in shown.output.splitlines() if not line.startswith("written")]
    assert max(map(len, lines)) <= 80
    text = shown.output
    assert text.index("Answer") < text.index("One stage changed") < text.index("What this does not say")
    assert "60 architectures, 120 runs" in text
    assert {path.name for path in out.iterdir()} == {"effects-1.pdf", "effects-1.png", "effects.csv"}
    before = (out / "effects-1.png").read_bytes()
    CliRunner().invoke(app, arguments)
    assert (out / "effects-1.png").read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize("name", ["both", "width and MACs", "nothing"])
def test_intervals_hold_the_truth_at_the_stated_rate(name):
    hits = np.zeros(3)
    for seed in range(40):
        found = effects(TRUTHS[name], count=50, sd=0.3, seed=seed, draws=100)
        own = [path.own for path in found.paths.values()][:3]
        hits += [each.low <= true <= each.high for each, true in zip(own, OWN[name], strict=True)]
    assert hits.min() >= 33  # of 40: fewer than that with probability 0.0004 at 95%


def test_where_only_one_size_varies_the_gain_is_not_split_into_cost_and_stages():
    widths = [ArchSpec("wide_resnet", (5, 5, 5), (16 * k, 32 * k, 64 * k)) for k in range(1, 15)]
    group = planted(widths, lambda spec, _: 40 + 3.5 * spec.widths[0] ** 0.25, seeds=1, sd=0.05)
    path = estimate_effects(designs(group)[0], 40).paths[AS_THEY_ARE]
    assert path.own.value == pytest.approx(path.total.value, abs=1e-9)
    assert abs(path.own.low - path.own.high) < 1
