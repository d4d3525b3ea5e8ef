"""Every key of train.yaml and evaluate.yaml: a misspelt one, a deleted one and a value of another type are one error.

The keys are those of the composed configuration, so that a new one is tested by being there.
"""

import copy
import math

import pytest
from commands import SMALL
from composition import configuration
from omegaconf import OmegaConf, open_dict

from robust_arch.configuration.evaluation import read_finalists
from robust_arch.configuration.schema import require_known
from robust_arch.errors import InputError
from robust_arch.study.plan import plan_study

GRID = ("search.space.depths=[[1],[1],[1]]", "search.space.widths=[[4],[8],[8]]")
WRONG = (None, True, "nonsense", "a\nb\x1b[31m", -1, 0.5, math.nan, math.inf, 10**30, [None], {"a": 1})


def _groups(node, place=""):
    """The place of every group, the top included."""
    yield place
    for name, value in node.items():
        if isinstance(value, dict):
            yield from _groups(value, f"{place}.{name}" if place else name)


def _leaves(node, place=""):
    for name, value in node.items():
        here = f"{place}.{name}" if place else name
        if isinstance(value, dict) and value:
            yield from _leaves(value, here)
        else:
            yield here


def _set(cfg, place, value):
    parent, _, name = place.rpartition(".")
    with open_dict(cfg):
        node = OmegaConf.select(cfg, parent) if parent else cfg
        node[name] = value
    return cfg


def _plan(cfg):
    plan_study(cfg, [])
    read_finalists(cfg)


def _refusal(cfg):
    """The error of a configuration, or nothing where it is allowed."""
    try:
        _plan(cfg)
    except InputError as error:
        return str(error)
    return ""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The folder of results of the configurations here, in which nothing may appear."""
    return tmp_path_factory.mktemp("keys") / "results"


@pytest.fixture(scope="module")
def study(results):
    """A function that returns a small study's configuration, with everything in it that has a group of its own."""
    finalists = "study.finalists={top: 1, attacks: [fgsm], n: 20}"
    cfg = configuration(
        results.parent, *SMALL, *GRID, "logger=wandb", "evaluate.attacks=[]", "recipe/averaging=swa", finalists
    )
    return lambda: copy.deepcopy(cfg)


def _places(study, kind):
    return sorted(kind(OmegaConf.to_container(study(), resolve=False)))


def test_the_configuration_itself_is_allowed(study):
    _plan(study())


def test_a_misspelt_key_in_any_group_is_named(study, results):
    for place in _places(study, _groups):
        if place.endswith(("eps", "data.eps")):  # radii by norm
            continue
        cfg = study()
        key = f"{place}.nonsence" if place else "nonsence"
        with pytest.raises(InputError) as error:
            _plan(_set(cfg, key, 1))
        assert str(error.value).startswith(f"{key}: unknown key"), place
    assert not results.exists()


def test_the_nearest_key_is_named(study):
    near = {
        "sead": "seed", "threat.epss": "eps", "search.seds": "seeds", "selection.imgs": "images",
        "study.finalist": "finalists", "evaluate.attcks": "attacks", "logger.mod": "mode", "trainer.treads": "threads",
        "data.split_sed": "split_seed", "recipe.optimizer.learning": "lr", "objective.attack.step": "steps",
    }  # fmt: skip
    for key, right in near.items():
        with pytest.raises(InputError) as error:
            _plan(_set(study(), key, 1))
        assert str(error.value).startswith(f"{key}: unknown key"), key
        assert right in str(error.value)
        assert "did you mean" in str(error.value) or key == "recipe.optimizer.learning"


def test_a_deleted_key_is_named_or_has_a_default(study):
    for place in _places(study, _leaves):
        cfg = study()
        parent, _, name = place.rpartition(".")
        with open_dict(cfg):
            del (OmegaConf.select(cfg, parent) if parent else cfg)[name]
        refusal = _refusal(cfg)
        if name == "_partial_":  # then it is to be built at once
            name = "params"
        assert not refusal or name.replace("linf", "eps") in refusal, (place, refusal)


def test_every_key_refuses_some_value_of_another_type_and_names_itself(study, results):
    # a key that refuses nothing is a key that nobody reads
    for place in _places(study, _leaves):
        refusals = [refusal for value in WRONG if (refusal := _refusal(_set(study(), place, value)))]
        parent, _, name = place.replace("data.eps.linf", "threat.eps").rpartition(".")  # the one is read as the other
        assert refusals or place == "study.base", place  # the base of a plan is any network
        for refusal in refusals:
            assert refusal.isprintable(), (place, refusal)
            assert name in refusal or parent in refusal, (place, refusal)
    assert not results.exists()


@pytest.mark.parametrize("key", ["data.name", "recipe.name", "objective.name", "study.name", "logger.project"])
@pytest.mark.parametrize("value", [None, "", " ", " x", "a\nb", "a\x1b[0m", ["a"], "x" * 300, True, 0.5])
def test_a_label_that_is_no_label_is_refused(study, key, value):
    with pytest.raises(InputError, match=rf"^{key} = .*name"):
        _plan(_set(study(), key, value))


@pytest.mark.parametrize("value", [None, "", " ", ["a"], "a\nb", 3])
def test_a_results_folder_that_is_no_path_is_refused(study, value):
    with pytest.raises(InputError, match=r"^results_dir = .*the path of a folder"):
        _plan(_set(study(), "results_dir", value))


def test_objectives_that_no_sweeper_uses_are_checked_too(study):
    for value in (["nope"], "macs", [["macs"]], ["macs", "macs"]):
        with pytest.raises(InputError, match=r"^study\.objectives = .*held_out_robust_acc"):
            _plan(_set(study(), "study.objectives", value))


def test_gpus_on_a_cpu_are_refused(study):
    with pytest.raises(InputError, match=r"^trainer\.gpus = .*null where trainer\.accelerator is cpu"):
        _plan(_set(study(), "trainer.gpus", [0]))


def test_evaluate_has_keys_of_its_own(composed):
    cfg = composed(config="evaluate", small=False)
    require_known(cfg, "evaluate")
    with pytest.raises(InputError, match=r"^means: unknown key"):
        require_known(_set(cfg, "means", [0.5]), "evaluate")
    cfg = composed(config="evaluate", small=False)
    with pytest.raises(InputError, match=r"^evaluate\.attcks: unknown key; did you mean attacks\?"):
        require_known(_set(cfg, "evaluate.attcks", ["fgsm"]), "evaluate")
