"""Recommendations on planted surfaces, whose best architecture is known, and the study that tests them."""

from itertools import pairwise, product

import numpy as np
import pandas as pd
import pytest
import yaml
from planted import planted
from typer.testing import CliRunner

from robust_arch.analysis.surrogate.gaussian_process import DRAWS, Surrogate, Z
from robust_arch.analysis.surrogate.observations import observations_of, variables
from robust_arch.architectures import ArchSpec, cost
from robust_arch.cli import app
from robust_arch.errors import InputError
from robust_arch.search import Budget
from robust_arch.study.recommend.candidates import candidates_inside, rules_inside
from robust_arch.study.recommend.recommendation import MOST, Request, recommend
from robust_arch.study.recommend.wording import told

GRID = [
    ArchSpec("wide_resnet", depths, widths)
    for depths in product((1, 2, 4), repeat=3)
    for widths in product((16, 32, 64), (32, 64, 128), (32, 64, 128))
]
BUDGET = Budget(params=400_000)


def peak(spec, priced):
    """Best at a last share of 0.4, a middle share of 0.4 and a second stage of two blocks."""
    _, middle, last = priced.shares()
    return 50 - 40 * (last - 0.4) ** 2 - 15 * (middle - 0.4) ** 2 - (np.log2(spec.depths[1]) - 1) ** 2


def nothing(spec, priced):
    return 50.0


def some(count, seed):
    return [GRID[place] for place in np.random.default_rng(seed).choice(len(GRID), count, replace=False)]


def rows(truth, count, seeds, seed, sd=0.3, specs=None):
    """Rows whose runs scatter independently: no seed moves all architectures alike."""
    found = planted(specs or some(count, seed), truth, seeds=seeds, sd=0.0).rows.copy()
    found["worst_case_acc"] += np.random.default_rng(seed + 100).normal(0, sd, len(found))
    return found


def surrogate(frame, draws=8):
    seen = observations_of(frame)
    _, x = variables(seen.specs[0], seen.points, seen.task)
    return Surrogate(x[seen.member], seen.site, seen.y, seen.noise, seen.member, draws=draws), seen


def values(specs):
    return variables(specs[0], np.array([[*spec.depths, *spec.widths] for spec in specs]), (10, (3, 32, 32)))[1]


@pytest.mark.slow
@pytest.mark.parametrize(("truth", "count", "seeds"), [(peak, 24, 3), (peak, 40, 1), (nothing, 24, 3)])
def test_intervals_of_unseen_architectures_and_of_their_differences_cover_at_the_stated_rate(truth, count, seeds):
    covered, compared = [], []
    for seed in range(8):
        found, seen = surrogate(rows(truth, count, seeds, seed), DRAWS)
        unseen = [spec for spec in some(60, seed + 50) if spec not in seen.specs][:20]
        true = np.array([truth(spec, cost(spec)) for spec in unseen])
        predicted = found.predict(values(unseen), 0)
        covered += (np.abs(predicted.mean - true) <= Z * predicted.deviation).tolist()
        for place in range(1, len(unseen)):
            value, deviation = predicted.difference(0, place)
            compared.append(abs(value - true[0] + true[place]) <= Z * deviation)
    # 160 each, correlated within a draw
    assert np.mean(covered) >= 0.90
    assert np.mean(compared) >= 0.90


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_first_proposal_is_near_the_planted_optimum(seed):
    frame = rows(peak, 60, 2, seed)
    found = recommend(frame, Request(BUDGET))
    points = candidates_inside(observations_of(frame), BUDGET).points
    specs = [ArchSpec("wide_resnet", tuple(map(int, p[:3])), tuple(map(int, p[3:]))) for p in points]
    best = max(peak(spec, cost(spec)) for spec in specs)
    spread = np.std([peak(spec, cost(spec)) for spec in specs])
    proposed = found.entries[0]
    assert peak(proposed.spec, proposed.cost) > best - 0.7
    assert spread > 1.0  # otherwise any architecture would be near
    assert found.check.tau.tau > 0.6
    assert found.check.covered >= 0.85 * found.check.n


@pytest.mark.slow
def test_of_noise_alone_nothing_is_told_apart_from_the_rules():
    wrong = 0
    for seed in range(6):
        found = recommend(rows(nothing, 30, 2, seed), Request(BUDGET, count=2))
        assert found.differences
        differs = any(value.low > 0 or value.high < 0 for value in found.differences.values())
        assert differs or "nothing can be told apart from the rules" in " ".join(told(found).split())
        wrong += differs
    assert wrong <= 1


@pytest.mark.parametrize("new_runs", [1, 4])
def test_the_interval_of_a_mean_of_new_runs_has_their_scatter_too(new_runs):
    found = recommend(rows(peak, 24, 3, 0, sd=2.0), Request(BUDGET, count=1, draws=2, seeds=new_runs))
    for entry in found.entries:
        of_mean, of_runs = ((each.high - each.low) / (2 * Z) for each in (entry.value, entry.of_runs))
        assert np.sqrt(of_runs**2 - of_mean**2) == pytest.approx(2.0 / np.sqrt(new_runs), rel=0.25)
    assert f"mean of {new_runs} new run" in " ".join(told(found).split())


def test_one_wild_run_of_three_is_named_and_moves_the_predictions_little():
    frame = rows(peak, 24, 3, 0)
    spoilt = frame.copy()
    spoilt.iloc[4, spoilt.columns.get_loc("worst_case_acc")] = 3.0
    unseen = values([spec for spec in some(60, 50) if spec not in observations_of(frame).specs][:10])
    before, after = (surrogate(each)[0].means(unseen, 0) for each in (frame, spoilt))
    assert np.abs(before - after).max() < 0.6
    assert np.abs(before - after).mean() < 0.3
    assert spoilt["run_id"].iloc[4] in observations_of(spoilt).wild[0]


def test_one_wild_architecture_with_one_run_is_named_and_moves_the_predictions_little():
    frame = rows(peak, 40, 1, 0)
    spoilt = frame.copy()
    spoilt.iloc[4, spoilt.columns.get_loc("worst_case_acc")] = 3.0
    unseen = values([spec for spec in some(80, 50) if spec not in observations_of(frame).specs][:10])
    (before, _), (after, seen) = surrogate(frame), surrogate(spoilt)
    assert np.abs(before.means(unseen, 0) - after.means(unseen, 0)).mean() < 0.5
    assert spoilt["arch"].iloc[4] in [seen.names[seen.member[place]] for place in after.far]


def test_a_left_out_prediction_is_that_of_a_process_without_the_architecture():
    found, seen = surrogate(rows(peak, 12, 2, 3))
    draw = found.draws[0]
    for own, error, covariance in list(found._left_out(draw))[:3]:
        kept = np.setdiff1d(np.arange(len(seen.y)), own)
        columns = found._columns(found.x, found.site)
        kernel = found._fit(draw).kernel_
        whole = kernel(columns) + np.diag(found.noise)
        solved = np.linalg.solve(whole[np.ix_(kept, kept)], np.column_stack([found.y[kept], whole[np.ix_(kept, own)]]))
        assert error == pytest.approx(found.y[own] - whole[np.ix_(own, kept)] @ solved[:, 0], rel=1e-5, abs=1e-8)
        expected = whole[np.ix_(own, own)] - whole[np.ix_(own, kept)] @ solved[:, 1:]
        assert covariance == pytest.approx(expected, rel=1e-4)


def test_the_same_runs_and_seed_give_the_same_recommendation():
    frame = rows(peak, 12, 1, 0)
    first, second = (recommend(frame, Request(BUDGET, count=2, draws=3)) for _ in range(2))
    assert first.entries == second.entries
    assert told(first) == told(second)


@pytest.mark.parametrize("budget", [BUDGET, Budget(macs=40_000_000), Budget(params=400_000, macs=40_000_000)], ids=str)
def test_candidates_and_rules_are_inside_every_budget(budget):
    seen = observations_of(rows(peak, 30, 1, 0))
    points = candidates_inside(seen, budget).points
    assert len(points) > 20
    for point in points[:: len(points) // 20]:
        priced = cost(ArchSpec("wide_resnet", tuple(map(int, point[:3])), tuple(map(int, point[3:]))))
        for resource in budget.resources:
            assert abs(getattr(priced, resource) / getattr(budget, resource) - 1) <= budget.tolerance
    found, missing = rules_inside(seen, budget)
    assert len(found) + len(missing) == 3
    assert all(budget.contains(cost(spec).params, cost(spec).macs) for spec in found.values())


def test_proposals_are_apart_and_a_distant_budget_is_warned_of():
    found = recommend(rows(peak, 20, 1, 0), Request(Budget(params=30_000_000), count=3, apart=1.0, draws=3))
    proposals = [entry for entry in found.entries if entry.kind == "proposal"]
    for first, second in pairwise(proposals):
        logs = [np.log2([*entry.spec.depths, *entry.spec.widths]) for entry in (first, second)]
        assert np.abs(logs[0] - logs[1]).max() >= 1.0
    assert all("parameters above those seen" in entry.outside for entry in proposals)
    text = told(found)
    assert "WARNING: the budget of 30M parameters is outside the studies'" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 80


def test_a_predictor_is_measured_for_the_shortlist_and_moves_the_proposals():
    def own(spec):
        return float(np.log2(spec.widths[0]) - spec.depths[2])

    frame = rows(lambda spec, _: 50 + 2 * own(spec), 40, 1, 0)
    frame["own"] = [own(ArchSpec("wide_resnet", *(tuple(map(int, text.split("-"))) for text in pair)))
                    for pair in zip(frame["depths"], frame["widths"], strict=True)]  # fmt: skip
    asked = []

    def measure(specs):
        asked.extend(specs)
        return np.array([[own(spec)] if spec.depths[0] != 3 else [np.nan] for spec in specs])

    request = Request(BUDGET, count=2, predictors=["own"], draws=4)
    found = recommend(frame, request, measure)
    assert found.names[-1] == "own"
    assert len(asked) == 30 + len(rules_inside(observations_of(frame), BUDGET)[0])
    defined = [own(spec) for spec in asked[:30] if spec.depths[0] != 3]
    assert own(found.entries[0].spec) > np.mean(defined)
    assert all(entry.spec.depths[0] != 3 for entry in found.entries)  # not defined
    with pytest.raises(InputError, match="predictors"):
        recommend(frame, request)


def test_studies_have_levels_of_their_own():
    specs = some(24, 0)
    first = rows(peak, 0, 1, 0, specs=specs[:12])
    second = rows(peak, 0, 1, 1, specs=specs[12:]).assign(study="elsewhere")
    second["run_id"] = "b" + second["run_id"]
    second["worst_case_acc"] += 10  # a machine, a recipe
    found, seen = surrogate(pd.concat([first, second], ignore_index=True))
    assert len(seen.sites) == 2
    unseen = values([spec for spec in some(60, 50) if spec not in seen.specs][:10])
    levels = [found.means(unseen, site).mean() for site in (0, 1)]
    assert levels[1] - levels[0] == pytest.approx(10, abs=1.5)


def test_other_conditions_are_not_mixed_in():
    frame = rows(peak, 20, 1, 0)
    other = frame.assign(objective="trades", worst_case_acc=80.0)
    other["run_id"] = "t" + other["run_id"]
    both = pd.concat([frame, other.iloc[:10]], ignore_index=True)
    seen = observations_of(both)
    assert seen.condition["objective"] == "sat"
    assert seen.y.max() < 60
    assert seen.left_out == ("10 architectures with objective trades",)
    unpriced = frame["params"].where(frame["arch"] != frame["arch"].iloc[0])
    assert observations_of(frame.assign(params=unpriced)).left_out == (
        "1 architecture without one of worst_case_acc, params, macs",
    )
    assert observations_of(both, where={"objective": "trades"}).condition["objective"] == "trades"


@pytest.mark.slow
def test_of_many_architectures_those_nearest_to_the_budget_are_learnt_from():
    specs = [ArchSpec("wide_resnet", (1, 1, 1), (16, 8 * k, 8 * j)) for k in range(1, 21) for j in range(1, 21)]
    found = recommend(rows(nothing, 0, 1, 0, specs=specs), Request(Budget(params=200_000), count=1, draws=2))
    assert (len(found.observations.names), found.available) == (MOST, 400)
    away = [abs(np.log2(cost(spec).params / 200_000)) for spec in specs]
    kept = [abs(np.log2(cost(spec).params / 200_000)) for spec in found.observations.specs]
    assert max(kept) <= np.sort(away)[MOST - 1] + 0.1


@pytest.mark.parametrize(
    ("change", "request_", "message"),
    [
        ({}, {"budget": Budget()}, "--params, --macs = None: expected a budget"),
        ({}, {"budget": Budget(params=300)}, "budget = 300 parameters ±2%: no architecture"),
        ({}, {"column": "cw40_acc"}, "--attack = 'cw40': expected one of pgd20, worst_case"),
        ({}, {"where": {"objective": "mart"}}, "--where objective = 'mart': expected one of sat"),
        ({}, {"where": {"colour": "red"}}, "--where = 'colour': expected a column of results.csv"),
        ({"depths": None, "widths": None}, {}, "10 architectures without depths and widths"),
        ({"params": 12345.0}, {}, "expected costs of images of 8x8"),
        ({"arch": "wide_resnet-d1-1-1-w16-32-64", "depths": "1-1-1", "widths": "16-32-64"}, {}, "at most 1 comparable"),
    ],
)
def test_what_cannot_be_recommended_is_one_error(change, request_, message):
    frame = rows(nothing, 10, 1, 0).assign(**change)
    with pytest.raises(InputError) as caught:
        recommend(frame, Request(**{"budget": BUDGET, **request_}))
    assert message in str(caught.value)


@pytest.mark.slow
def test_the_command_writes_a_study_that_plans(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frame = rows(peak, 14, 2, 0)
    # digits: a data set that is there
    priced = [cost(ArchSpec("wide_resnet", *(tuple(map(int, row[name].split("-"))) for name in ("depths", "widths"))),
                   10, (1, 8, 8)) for _, row in frame.iterrows()]  # fmt: skip
    frame = frame.assign(
        data="digits", recipe="digits", train_threat="linf-0.2", threat="linf-0.2", epochs=3,
        params=[each.params for each in priced], macs=[each.macs for each in priced],
    )  # fmt: skip
    frame.to_csv("recorded.csv", index=False)
    arguments = ["recommend", "--params", "4e5", "--from", "recorded.csv", "--count", "2", "--write-study", "next.yaml"]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    written = (tmp_path / "study" / "next.yaml").read_text()
    content = yaml.safe_load(written)
    assert content["search"]["budget"] == {"params": 400_000, "macs": None, "tolerance": 0.02}
    planned = CliRunner().invoke(app, ["plan", "--config-dir", str(tmp_path), "study=next"], catch_exceptions=False)
    listed = content["search"]["space"]["architectures"]
    assert len(listed) >= 3  # the proposals, and at least one rule
    assert f"{3 * len(listed)} runs inside 400,000 parameters" in " ".join(planned.output.split())
    assert (tmp_path / "recommend" / "recommend.csv").is_file()
    assert CliRunner().invoke(app, arguments).exit_code == 0  # the same study again
    (tmp_path / "study" / "next.yaml").write_text("mine: true")
    assert CliRunner().invoke(app, arguments).exit_code != 0
    assert (tmp_path / "study" / "next.yaml").read_text() == "mine: true"
