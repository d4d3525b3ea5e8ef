"""A suggested division of the budget becomes a run, and the run its objectives."""

import pytest
from records import WHOLE

from robust_arch.architectures import cost
from robust_arch.configuration.settings import read_settings
from robust_arch.errors import InputError
from robust_arch.execution.run import Run
from robust_arch.search import Budget, allocate
from robust_arch.study.optimiser import load_run, objective_values, read_objectives
from robust_arch.study.plan import plan_study

ALLOCATION = ("search.allocation.cuts=[0.75,0.2]", "search.budget.params=9000", "search.space.width_step=1")


def test_without_an_allocation_it_is_the_run_of_the_architecture(composed):
    assert load_run(composed()).run_id == Run.load(read_settings(composed())).run_id


def test_a_suggestion_is_the_run_of_its_widths(composed):
    suggested = load_run(composed(*ALLOCATION, "search.allocation.depths=[1,2,1]"))
    # by hand: cuts 0.75 and 0.2 are shares 0.5, 0.1 and 0.4
    spec = allocate(Budget(params=9000), (0.5, 0.1, 0.4), (1, 2, 1), 1, num_classes=10, image_shape=(1, 8, 8))
    assert suggested.settings.spec.widths == spec.widths
    widths = ",".join(map(str, spec.widths))
    given = load_run(composed("arch.depths=[1,2,1]", f"arch.widths=[{widths}]"))
    assert suggested.run_id == given.run_id
    assert abs(suggested.cost.params / 9000 - 1) <= 0.02


def test_depths_are_those_of_the_architecture_unless_suggested(composed):
    assert load_run(composed(*ALLOCATION)).settings.spec.depths == (1, 1, 1)


def test_one_number_is_set_as_a_sweeper_sets_it(composed):
    by_element = composed(*ALLOCATION, "search.allocation.cuts.1=0.9")
    whole = composed(*ALLOCATION, "search.allocation.cuts=[0.75,0.9]")
    assert load_run(by_element).run_id == load_run(whole).run_id != load_run(composed(*ALLOCATION)).run_id


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("search.allocation.cuts=[0.5]",), r"search\.allocation\.cuts = \[0\.5\]: expected 2 numbers strictly"),
        (("search.allocation.cuts=[0.5,1.0]",), r"search\.allocation\.cuts = \[0\.5, 1\.0\]"),
        (("search.allocation.depths=[1,1]",), r"search\.allocation\.depths = \[1, 1\]: expected a list of 3 integers"),
        (("search.allocation.cuts=null", "search.allocation.depths=[1,1,1]"), r"search\.allocation\.depths"),
        (("search.allocation.depths=[1,0,1]",), "depths"),
        (("search.budget.params=null",), r"search\.budget = 'no budget'"),
    ],
)
def test_an_allocation_that_is_not_allowed_is_refused(composed, overrides, message):
    with pytest.raises(InputError, match=message):
        load_run(composed(*ALLOCATION, *overrides))


def test_a_study_that_plans_its_architectures_takes_no_allocation(composed):
    with pytest.raises(InputError, match=r"search\.allocation = .*search\.space\.shares"):
        plan_study(composed(*ALLOCATION), [])


@pytest.mark.parametrize("value", ["[]", "[macs,macs]", "[speed]", "macs"])
def test_objectives_that_are_not_allowed_are_refused(composed, value):
    with pytest.raises(InputError, match=r"study\.objectives = .*held_out_robust_acc, macs, params"):
        read_objectives(composed(f"study.objectives={value}"))


def test_objectives_are_what_the_records_say(composed):
    cfg = composed("study.objectives=[macs,held_out_robust_acc,params]")
    run = load_run(cfg)
    run.folder.write_result({**WHOLE, "best_val_robust_acc": 41.25})
    costs = cost(run.settings.spec, 10, (1, 8, 8))
    assert objective_values(run, read_objectives(cfg)) == (costs.macs, 41.25, costs.params)
    assert read_objectives(composed()) == ()
