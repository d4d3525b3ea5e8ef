"""The effect of the machine, on planted studies in which one machine is two points better than the other."""

import numpy as np
import pandas as pd
import pytest
from planted import no_effect, planted
from typer.testing import CliRunner

from robust_arch.analysis.claims import examine, heading
from robust_arch.analysis.claims.seed_model import fit
from robust_arch.analysis.claims.sites import without_site_effects
from robust_arch.analysis.effects import designs, estimate_effects
from robust_arch.analysis.effects.wording import told
from robust_arch.analysis.groups import Group, only_group
from robust_arch.analysis.report.comparison import section
from robust_arch.analysis.scaling.points import points_of
from robust_arch.analysis.surrogate.observations import observations_of
from robust_arch.architectures import ArchSpec
from robust_arch.cli import app

SPECS = [ArchSpec("wide_resnet", (1, 1, 1), (8, 16, width)) for width in range(8, 64, 4)]
PLANTED = 2.0


def study(on_second: np.ndarray, *, seeds: int = 3, sd: float = 0.2, draw: int = 0, **second: str) -> Group:
    """No architecture differs; runs on the second machine are two points worse.

    Args:
        on_second: (A, S) booleans.
        seeds: of each architecture.
        sd: of a run, in points.
        draw: of the noise.
        second: columns of the second machine; by default another GPU.
    """
    rows = planted(SPECS, no_effect, seeds=seeds, sd=sd, draw=draw).rows
    moved = on_second.ravel()
    first = {"hardware": "A100", "precision": "32", "version": "2.15.0"}
    for name, value in first.items():
        rows[name] = np.where(moved, (second or {"hardware": "H100"}).get(name, value), value)
    accuracy = rows["worst_case_acc"] - PLANTED * moved
    return only_group(rows.assign(worst_case_acc=accuracy, pgd20_acc=accuracy))


LARGE_ON_SECOND = np.repeat(np.arange(len(SPECS)) >= len(SPECS) // 2, 3).reshape(-1, 3)
EACH_ON_BOTH = np.tile([False, True, False], (len(SPECS), 1))
AT_RANDOM = np.random.default_rng(5).random((len(SPECS), 3)) < 0.5


def verdict(group: Group, setting: str = "more parameters, over all") -> str:
    (examined,) = examine(group)
    return next(found.verdict for found in examined.findings if found.claim == "C1" and found.setting == setting)


def test_machines_by_architecture_make_a_claim_of_nothing_and_are_warned_of():
    group = study(LARGE_ON_SECOND)
    assert verdict(group) == "supported"
    (examined,) = examine(group)
    assert examined.sites.pair is None
    assert examined.sites.crossed == 0
    assert "Warning: architectures and machines are not crossed" in heading(examined)
    assert "A100: 21 runs; H100: 21 runs" in heading(examined)


@pytest.mark.parametrize("layout", [EACH_ON_BOTH, AT_RANDOM], ids=["crossed", "random"])
def test_a_machine_that_shares_architectures_is_found_and_taken_out(layout):
    group = study(layout, sd=0.2)
    assert verdict(group) != "supported"
    (examined,) = examine(group)
    found = examined.sites
    assert found.pair == ("A100", "H100")
    # where each machine has its own seeds, the difference includes that of the seeds
    assert found.effect.value == pytest.approx(PLANTED, abs=0.2 if layout is AT_RANDOM else 0.6)
    assert found.effect.low > 1
    assert "Warning" not in found.sentence
    assert "A100 minus H100 is +" in found.sentence
    assert examined.sigma == pytest.approx(0.2, abs=0.08)


def test_the_interval_holds_the_machines_effect():
    """Of 60 random studies the interval should miss in 3."""
    generator = np.random.default_rng(1)
    missed = 0
    for draw in range(60):
        _, sites = without_site_effects(study(generator.random((len(SPECS), 3)) < 0.5, draw=draw).rows)
        missed += not sites.effect.low <= PLANTED <= sites.effect.high
    assert missed <= 8


def test_effects_and_values_are_those_of_least_squares():
    """Against columns of zeros and ones for architectures, seeds and sites, solved by the pseudo-inverse."""
    generator = np.random.default_rng(2)
    count, seeds, sites = 6, np.array([0, 0, 1, 1, 2]), np.array(["x", "y", "x", "y", "y"])
    runs = generator.normal(50, 1, (count, 5))
    runs[generator.random(runs.shape) < 0.3] = np.nan
    found = fit(runs, seeds=seeds, sites=sites)
    rows, columns = np.nonzero(~np.isnan(runs))
    design = np.hstack(
        [rows[:, None] == np.arange(count), seeds[columns, None] == np.arange(3), sites[columns, None] == ["x", "y"]]
    ).astype(float)
    inverse = np.linalg.pinv(design)
    solved = inverse @ runs[rows, columns]
    assert np.ptp(found.values - solved[:count]) == pytest.approx(0, abs=1e-9)  # noqa: PD011
    assert np.diff(found.sites.effects) == pytest.approx(np.diff(solved[-2:]))
    residuals = runs[rows, columns] - design @ solved
    degrees = len(rows) - np.linalg.matrix_rank(design)
    assert found.degrees == degrees
    assert found.sigma == pytest.approx(np.sqrt(residuals @ residuals / degrees))
    covariance = inverse @ inverse.T
    contrast = np.array([1.0, -1.0])
    expected = contrast @ covariance[-2:, -2:] @ contrast
    assert contrast @ found.sites.covariance @ contrast == pytest.approx(expected)
    between = np.zeros(count)
    between[:2] = 1, -1
    variance = np.sum(between**2 / found.counts) + np.sum((between @ found.loads) ** 2)
    assert variance == pytest.approx(between @ covariance[:count, :count] @ between)


def test_sites_in_two_groups_are_warned_of_and_taken_out_within_each():
    half = len(SPECS) // 2
    rows = study(EACH_ON_BOTH).rows
    names = [f"wide_resnet-d1-1-1-w8-16-{spec.widths[-1]}" for spec in SPECS[half:]]
    others = rows["arch"].isin(names)
    group = only_group(rows.assign(hardware=rows["hardware"].where(~others, rows["hardware"] + " elsewhere")))
    (examined,) = examine(group)
    assert examined.sites.groups == 2
    assert "Warning" in examined.sites.sentence
    assert "2 groups of sites share no architecture" in examined.sites.sentence
    assert abs(examined.sites.effect.value) == pytest.approx(PLANTED, abs=0.6)


@pytest.mark.parametrize(
    ("second", "named"),
    [
        ({"precision": "bf16-mixed"}, "precision 32 minus precision bf16-mixed"),
        ({"version": "2.16.0"}, "torch 2.15.0 minus torch 2.16.0"),
        ({"hardware": "H100", "precision": "bf16-mixed"}, "A100, precision 32 minus H100, precision bf16-mixed"),
    ],
)
def test_a_site_is_a_machine_a_precision_and_a_version(second, named):
    assert named in heading(examine(study(EACH_ON_BOTH, **second))[0])


def test_one_site_or_none_recorded_changes_nothing():
    group = planted(SPECS, no_effect, seeds=3, sd=0.2)
    (before,) = examine(group)
    recorded = group.rows.assign(hardware="A100", precision="32", version="2.15.0")
    # a part of the runs was recorded by an earlier version
    recorded.loc[recorded["seed"] == 0, "precision"] = None
    (after,) = examine(only_group(recorded))
    assert before.findings == after.findings
    assert before.sites is None
    assert after.sites is None


def test_runs_without_a_recorded_site_are_a_site_of_their_own():
    rows = study(EACH_ON_BOTH).rows
    rows.loc[rows["seed"] == 2, ["hardware", "precision", "version"]] = None
    (examined,) = examine(only_group(rows))
    assert examined.sites.runs == {"A100": 14, "H100": 14, "unrecorded": 14}


def test_one_run_of_each_architecture_cannot_tell_machines():
    group = study(LARGE_ON_SECOND[:, :1], seeds=1)
    assert verdict(group) == "supported"
    rows, found = without_site_effects(group.rows)
    assert found.effect is None
    pd.testing.assert_frame_equal(rows, group.rows)


def test_claims_report_and_effects_say_the_same_sentence(tmp_path):
    group = study(EACH_ON_BOTH)
    (examined,) = examine(group)
    sentence = examined.sites.sentence
    assert sentence in section(group.rows, group, {}, None).examined[0].heading
    (design,) = designs(group)
    assert sentence in " ".join(told(estimate_effects(design, draws=50)).split())
    assert design.y == pytest.approx(examined_values(group), abs=0.5)
    group.rows.to_csv(tmp_path / "results.csv", index=False)
    printed = CliRunner().invoke(app, ["claims", str(tmp_path / "results.csv")]).output
    assert sentence in " ".join(printed.split())


@pytest.mark.parametrize("layout", [LARGE_ON_SECOND, EACH_ON_BOTH], ids=["confounded", "crossed"])
def test_scaling_and_recommend_say_it_too_and_take_out_what_they_can(layout):
    group = study(layout)
    (examined,) = examine(group)
    (points,) = points_of(group.rows, "params")
    seen = observations_of(group.rows)
    assert points.sites.sentence == examined.sites.sentence
    assert seen.machines == (examined.sites.sentence,)
    second = (group.rows["hardware"] == "H100").to_numpy()
    gap = 100 * (points.error[second].mean() - points.error[~second].mean())
    assert gap == pytest.approx(0 if layout is EACH_ON_BOTH else PLANTED, abs=0.2)
    if layout is EACH_ON_BOTH:
        assert seen.y == pytest.approx(examined_values(group), abs=0.5)
        assert seen.scatter < 0.4  # that of a run is 0.2; with the machines in it would be above 1


def examined_values(group: Group) -> np.ndarray:
    """The mean of each architecture, were every run on a machine half-way between the two."""
    moved = group.rows["hardware"].map({"A100": -PLANTED / 2, "H100": PLANTED / 2})
    return (group.rows["worst_case_acc"] + moved).groupby(group.rows["arch"], sort=False).mean().to_numpy()
