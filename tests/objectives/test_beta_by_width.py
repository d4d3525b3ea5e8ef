"""Beta as a function of the widening factor, and how records name an objective with a beta."""

import math

import pytest

from robust_arch.architectures import PRESETS, ArchSpec
from robust_arch.attacks import PGD, KLToClean
from robust_arch.errors import InputError
from robust_arch.objectives.base import widening_factor
from robust_arch.objectives.mart import MART
from robust_arch.objectives.trades import TRADES
from robust_arch.runs.labels import name_and_beta

ATTACK = PGD(steps=1, rel_step_size=1.0, loss=KLToClean())


def trades(beta):
    return TRADES(name="trades", attack=ATTACK, beta=beta)


def wide(*widths):
    return ArchSpec("wide_resnet", (1, 1, 1), widths)


@pytest.mark.parametrize(
    ("spec", "factor"),
    [
        (PRESETS["wrn_28_10"], 10),  # WRN-28-10 by its name
        (PRESETS["wrn_34_12"], 12),
        (PRESETS["wrn_34_r"], (20 + 20 + 8) / 3),  # the factors of Huang et al. 2021
        (PRESETS["wrn_16_half"], 0.5),
        (PRESETS["resnet18"], 4),  # 64, 128, 256, 512
    ],
)
def test_the_widening_factor_is_that_of_the_name(spec, factor):
    assert widening_factor(spec) == pytest.approx(factor)


@pytest.mark.parametrize("kind", [TRADES, MART])
def test_beta_is_linear_between_the_factors_given_and_constant_outside(kind):
    objective = kind(name="x", attack=ATTACK, beta={10: 12, 1: 6, 5: 8})
    expected = {1: 6, 5: 8, 10: 12, 0.5: 6, 20: 12, 3: 7, 7.5: 10}
    for factor, beta in expected.items():
        own = objective.for_network(wide(*(int(16 * 2**stage * factor) for stage in range(3))))
        assert own.beta == pytest.approx(beta)
        assert own.weight == own.beta
        assert (own.name, own.attack) == (objective.name, objective.attack)


def test_a_number_is_the_beta_of_every_network():
    assert trades(3.0).for_network(wide(16, 32, 64)) == trades(3.0)


def test_a_beta_of_zero_for_some_networks_is_natural_training_there():
    objective = trades({1: 0, 2: 6})
    assert objective.is_adversarial
    assert not objective.for_network(wide(16, 32, 64)).is_adversarial
    assert objective.for_network(wide(32, 64, 128)).is_adversarial


@pytest.mark.parametrize(
    ("beta", "label"),
    [
        (6.0, "trades"), (6, "trades"), (3, "trades-beta3"), (0.5, "trades-beta0.5"), (1e-7, "trades-beta1e-07"),
        ({10: 12.0, 1: 6.0}, "trades-beta1:6,10:12"),
    ],
)  # fmt: skip
def test_records_name_every_beta_but_the_usual_one(beta, label):
    assert trades(beta).label == label
    assert name_and_beta(label) == ((label, 6.0) if isinstance(beta, dict) else ("trades", beta))


@pytest.mark.parametrize(
    "beta", [-1, math.inf, math.nan, True, "6", None, {}, {1: -1}, {0: 6}, {-1: 6}, {"a": 6}, {1: "b"}, {1: {2: 3}}]
)
def test_a_bad_beta_is_named(beta):
    with pytest.raises(InputError, match=r"^objective\.beta = .*finite number of at least 0, or a mapping"):
        trades(beta)
