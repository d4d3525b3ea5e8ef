import pytest

from robust_arch.errors import InputError
from robust_arch.training.schedule import Steps

PUBLISHED = Steps(milestones=(0.75, 0.9), factor=0.1)  # Huang et al. 2021


def table(schedule, epochs):
    """Learning rate by epoch, at a base rate of 0.1."""
    return [0.1 * schedule(epoch, epochs) for epoch in range(epochs)]


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [
        (100, [0.1] * 75 + [0.01] * 15 + [0.001] * 10),
        (200, [0.1] * 150 + [0.01] * 30 + [0.001] * 20),
        # 0.75 * 10 = 7.5 and 0.9 * 10 = 9: the milestones fall before epochs 8 and 9
        (10, [0.1] * 8 + [0.01] + [0.001]),
    ],
)
def test_the_published_rule_as_a_table(epochs, expected):
    assert table(PUBLISHED, epochs) == pytest.approx(expected, rel=1e-12)


def test_every_rate_of_the_rule_is_reached_at_its_epoch():
    for epochs in range(10, 400):
        # in whole numbers: e >= 3/4 E and e >= 9/10 E
        passed = [(4 * e >= 3 * epochs) + (10 * e >= 9 * epochs) for e in range(epochs)]
        assert set(passed) == {0, 1, 2}
        assert table(PUBLISHED, epochs) == pytest.approx([0.1 ** (1 + n) for n in passed], rel=1e-12), epochs


def test_the_rate_is_constant_within_an_epoch():
    assert PUBLISHED(74.999, 100) == PUBLISHED(74, 100) == 1
    assert PUBLISHED(75.5, 100) == PUBLISHED(75, 100) == pytest.approx(0.1)


def test_steps_of_an_epoch_do_not_pass_a_milestone_early():
    # 390 steps an epoch, 50,000 images in batches of 128; time is the step over the steps of an epoch
    factors = [PUBLISHED(step / 390, 100) for step in (75 * 390 - 1, 75 * 390, 90 * 390 - 1, 90 * 390)]
    assert factors == pytest.approx([1, 0.1, 0.1, 0.01])


def test_without_milestones_the_rate_is_constant():
    assert set(table(Steps(milestones=()), 20)) == {0.1}


def test_milestones_may_be_a_list():
    assert Steps(milestones=[0.75, 0.9]) == PUBLISHED


@pytest.mark.parametrize("milestone", [0, -0.5, 1.5, 75])
def test_a_milestone_that_is_no_fraction_of_the_epochs_is_named(milestone):
    with pytest.raises(InputError, match=rf"milestones = \(0\.5, {milestone}\): .*fractions"):
        Steps(milestones=(0.5, milestone))
