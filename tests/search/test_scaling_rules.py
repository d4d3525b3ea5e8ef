"""Scaling rules against the published networks that they led to."""

import numpy as np
import pytest

from robust_arch.architectures import PRESETS, ArchSpec, cost
from robust_arch.errors import InputError
from robust_arch.search import Budget
from robust_arch.search.scaling_rules import (
    Scaling,
    robust_depths,
    robust_scaling,
    robust_widening,
    shrink_last,
    standard,
)
from robust_arch.study.plan import plan_study

RULES = [standard, shrink_last, robust_scaling]


@pytest.mark.parametrize("resource", ["params", "macs"])
@pytest.mark.parametrize(("name", "blocks"), [("wrn_28_10", 4), ("wrn_34_12", 5), ("wrn_46_14", 7), ("wrn_70_16", 11)])
def test_standard_scaling_finds_wrn_n_k_at_its_cost(name, blocks, resource):
    target = getattr(cost(PRESETS[name]), resource)
    assert standard(Budget(**{resource: target}, tolerance=0.001), blocks) == PRESETS[name]


@pytest.mark.parametrize("resource", ["params", "macs"])
def test_the_papers_rule_finds_wrn_34_r_at_its_cost(resource):
    target = getattr(cost(PRESETS["wrn_34_r"]), resource)
    assert shrink_last(Budget(**{resource: target}, tolerance=0.001)) == PRESETS["wrn_34_r"]


@pytest.mark.parametrize("name", ["wrn_a1", "wrn_a2", "wrn_a3", "wrn_a4"])
def test_sums_are_divided_over_the_stages_as_in_the_published_networks(name):
    spec = PRESETS[name]
    widening = [width // base for width, base in zip(spec.widths, (16, 32, 64), strict=True)]
    assert [int(depth) for depth in robust_depths(np.array(sum(spec.depths)))] == list(spec.depths)
    assert [int(factor) for factor in robust_widening(np.array(sum(widening)))] == widening


@pytest.mark.parametrize("name", ["wrn_a1", "wrn_a3"])  # whose sums, 35 : 15 and 55 : 24, are nearest to 7 : 3
def test_robust_scaling_finds_published_networks_at_their_cost(name):
    assert robust_scaling(Budget(macs=cost(PRESETS[name]).macs, tolerance=0.01)) == PRESETS[name]


def test_another_family_is_scaled_by_its_own_cost():
    target = cost(PRESETS["robust_resnet_a1"]).macs
    found = robust_scaling(Budget(macs=target, tolerance=0.01), template=PRESETS["robust_resnet_a2"])
    assert found == PRESETS["robust_resnet_a1"]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("budget", [Budget(params=25_000_000, tolerance=0.1), Budget(macs=8 * 10**9, tolerance=0.1)])
def test_what_is_found_meets_the_budget_and_keeps_the_templates_settings(rule, budget):
    settings = {"stem_width": 24, "activation": "prelu", "options": {"se_ratio": 0.25}}
    template = ArchSpec("wide_resnet", (1, 1, 1), (8, 8, 8), **settings)
    found = rule(budget, template=template, num_classes=100, image_shape=(1, 28, 28))
    result = cost(found, 100, (1, 28, 28))
    assert budget.contains(result.params, result.macs)
    assert {**found.to_dict(), "depths": [1, 1, 1], "widths": [8, 8, 8]} == template.to_dict()


@pytest.mark.parametrize("rule", RULES)
def test_a_budget_that_no_network_of_the_rule_meets_names_the_nearest(rule):
    with pytest.raises(InputError, match=r"search\.budget = 100 parameters.*nearest has [\d,]+ params"):
        rule(Budget(params=100))


def test_families_of_another_number_of_stages_are_refused():
    with pytest.raises(InputError, match=r"arch\.family = 'resnet': expected a family of 3 stages"):
        standard(Budget(params=10**7), template=PRESETS["resnet18"])


def test_a_budget_is_required():
    with pytest.raises(InputError, match="params or macs"):
        robust_scaling(Budget())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rule": "wide"}, r"search\.scaling\.rule = 'wide': expected standard, shrink_last or robust_scaling"),
        ({"rule": "standard", "blocks": 0}, r"search\.scaling\.blocks = 0: expected an integer of at least 1"),
        ({"rule": "robust_scaling", "blocks": 5}, r"search\.scaling\.blocks = 5: expected null for robust_scaling"),
    ],
)
def test_bad_scaling_is_named(given, message):
    with pytest.raises(InputError, match=message):
        Scaling(**given)


def planned(composed, *overrides):
    (plan,) = [plan_study(composed("search.seeds=[0,1]", *overrides, small=False), [])]
    return plan, [run.run.settings.spec for run in plan.runs]


def test_a_study_plans_the_network_of_a_rule(composed):
    # digits are 8x8 images of one channel; WRN-A1's sums of depths and widening factors are nearest to 7 : 3
    macs = cost(PRESETS["wrn_a1"], 10, (1, 8, 8)).macs
    common = (f"search.budget.macs={macs}", "search.budget.tolerance=0.01")
    plan, specs = planned(composed, *common, "search.scaling.rule=robust_scaling")
    assert specs == [PRESETS["wrn_a1"]] * 2
    assert plan.runs[0].overrides[-1] == "seed=0"
    params = cost(PRESETS["wrn_34_r"], 10, (1, 8, 8)).params
    _, specs = planned(composed, f"search.budget.params={params}", "search.scaling.rule=shrink_last")
    assert specs == [PRESETS["wrn_34_r"]] * 2
    deeper = ("search.scaling.blocks=2", "search.space.width_step=1", "search.budget.params=175000")
    _, specs = planned(composed, *deeper, "search.scaling.rule=standard")
    assert specs == [PRESETS["wrn_16_1"]] * 2


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("search.scaling.rule=standard", "search.budget.params=100"), "no network of this rule meets it; the nearest"),
        (("search.scaling.rule=standard",), "params or macs"),
        (
            ("search.scaling.blocks=2",),
            r"search\.scaling\.blocks = 2: expected null where search\.scaling\.rule is null",
        ),
        (
            ("search.scaling.rule=standard", "search.space.depths=[[1],[1],[1]]"),
            r"search\.space\.depths = .*: expected null where search\.scaling\.rule sets the network",
        ),
        (
            ("search.scaling.rule=standard", "search.space.vary.widths=[2]"),
            r"search\.space\.vary\.widths = .*: expected null where",
        ),
        (
            ("search.scaling.rule=standard", "search.budget.params=1e6", "arch=resnet18"),
            r"arch\.family = 'resnet': expected a family of 3 stages",
        ),
    ],
)
def test_what_a_rule_cannot_do_is_named(composed, overrides, message):
    with pytest.raises(InputError, match=message):
        planned(composed, *overrides)
