"""Sweeps over values: which combinations there are, in which order, written down by hand."""

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException

from robust_arch.common.paths import conf_dir
from robust_arch.study.composition import combinations, configurations, sweep_configuration


@pytest.fixture
def hydra():
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        yield GlobalHydra.instance().config_loader()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], [[]]),
        (["seed=1"], [["seed=1"]]),
        # the last key varies fastest, and a choice keeps its order
        (
            ["seed=2,1", "n=3", "+m=a,b"],
            [
                ["seed=2", "n=3", "+m=a"],
                ["seed=2", "n=3", "+m=b"],
                ["seed=1", "n=3", "+m=a"],
                ["seed=1", "n=3", "+m=b"],
            ],
        ),
        (["seed=range(1,4)"], [["seed=1"], ["seed=2"], ["seed=3"]]),
        (["a=choice([1,2],[3])"], [["a=[1,2]"], ["a=[3]"]]),
        (["a='x,y'"], [["a='x,y'"]]),
        # of a key that is given twice the last value counts, at the first one's place
        (["a=1,2", "b=0", "a=3"], [["a=3", "b=0"]]),
        (["objective=glob(*a*,exclude=tr*)"], [["objective=mart"], ["objective=natural"], ["objective=sat"]]),
    ],
)
def test_combinations_in_order(hydra, arguments, expected):
    assert combinations(arguments, hydra) == expected


def test_an_interval_cannot_be_enumerated(hydra):
    with pytest.raises(HydraException, match="INTERVAL"):
        combinations(["recipe.optimizer.lr=interval(0,1)"], hydra)


def test_each_configuration_is_composed_with_its_combination(hydra):
    config, loader, arguments = sweep_configuration(["hydra/launcher=joblib", "seed=4,5", "study.name=here"])
    assert config.hydra.runtime.choices["hydra/launcher"] == "joblib"
    assert arguments == ["seed=4,5", "study.name=here"]
    found = list(configurations(config, loader, arguments))
    assert [(cfg.seed, cfg.study.name, "hydra" in cfg) for cfg, _ in found] == [(4, "here", False), (5, "here", False)]
    assert [overrides for _, overrides in found] == [["seed=4", "study.name=here"], ["seed=5", "study.name=here"]]
