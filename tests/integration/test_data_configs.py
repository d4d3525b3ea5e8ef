"""conf/data/*.yaml as a user names them: the radius and the recipe that come with the data."""

from fractions import Fraction

import pytest

from robust_arch.common.paths import conf_dir
from robust_arch.configuration.evaluation import read_threat
from robust_arch.configuration.nodes import instantiate
from robust_arch.configuration.settings import read_settings
from robust_arch.data.torchvision_sets import TorchvisionSet
from robust_arch.errors import InputError

# data: source, recipe, radius by norm. The radii are those of Huang et al. 2021 and, for MNIST, of Madry et al. 2018.
STANDARD = {
    "cifar10": ("CIFAR10", "huang2021", {"linf": Fraction(8, 255), "l2": Fraction(1, 2)}),
    "cifar100": ("CIFAR100", "huang2021", {"linf": Fraction(8, 255), "l2": Fraction(1, 2)}),
    "svhn": ("SVHN", "huang2021_no_flip", {"linf": Fraction(8, 255)}),
    "mnist": ("MNIST", "huang2021_no_flip", {"linf": Fraction(3, 10)}),
}
EVERY = {
    **STANDARD,
    "digits": (None, "digits", {"linf": Fraction(1, 5)}),
    "image_folder": (None, "huang2021", {"linf": Fraction(8, 255)}),
}
each_set = pytest.mark.parametrize("name", sorted(EVERY))


def test_every_data_file_is_spoken_of_here():
    assert {path.stem for path in (conf_dir() / "data").glob("*.yaml")} == set(EVERY)


@each_set
def test_the_radius_that_is_usual_on_the_data_is_the_default(name, composed):
    for norm, eps in EVERY[name][2].items():
        threat = read_threat(composed(f"data={name}", f"threat.norm={norm}", small=False).threat)
        assert (threat.norm, threat.eps_fraction) == (norm, eps)


@each_set
def test_the_norm_is_linf_unless_said(name, composed):
    threat = read_threat(composed(f"data={name}", small=False).threat)
    assert (threat.norm, threat.eps_fraction) == ("linf", EVERY[name][2]["linf"])


@each_set
def test_a_radius_of_the_command_line_wins(name, composed):
    threat = read_threat(composed(f"data={name}", "threat.eps=1/255", small=False).threat)
    assert threat.eps_fraction == Fraction(1, 255)


@pytest.mark.parametrize("name", sorted(name for name in EVERY if "l2" not in EVERY[name][2]))
def test_a_norm_without_a_usual_radius_asks_for_one(name, composed):
    with pytest.raises(InputError, match=r"threat\.eps = None: a radius, .*l2"):
        read_threat(composed(f"data={name}", "threat.norm=l2", small=False).threat)
    threat = read_threat(composed(f"data={name}", "threat.norm=l2", "threat.eps=2", small=False).threat)
    assert (threat.norm, threat.eps_fraction) == ("l2", 2)


@each_set
def test_the_recipe_comes_with_the_data(name, composed):
    cfg = composed(f"data={name}", small=False)
    assert cfg.recipe.name == EVERY[name][1]
    # digits and house numbers mean something else when mirrored
    assert instantiate(cfg.recipe, "recipe").augment.flip == (name in ("cifar10", "cifar100", "image_folder"))


@each_set
@pytest.mark.parametrize("recipe", ["short", "huang2021"])
def test_a_recipe_of_the_command_line_wins(name, recipe, composed):
    overrides = [f"data={name}", f"recipe={recipe}"]
    cfg = composed(*overrides, small=False)
    assert cfg.recipe.name == recipe
    # all of it, not its name alone, and in any order
    assert cfg.recipe == composed(f"recipe={recipe}", "data=cifar10", small=False).recipe
    assert cfg == composed(*overrides[::-1], small=False)


@each_set
def test_a_value_of_the_recipe_can_be_set_on_top(name, composed):
    cfg = composed(f"data={name}", "recipe.batch_size=7", "recipe.optimizer.lr=0.3", small=False)
    assert (cfg.recipe.name, cfg.recipe.batch_size, cfg.recipe.optimizer.lr) == (EVERY[name][1], 7, 0.3)


@pytest.mark.parametrize("name", sorted(STANDARD))
def test_the_objects_are_those_of_the_file_and_the_command_line(name, composed):
    settings = read_settings(composed(f"data={name}", small=False))
    assert settings.dataset == TorchvisionSet(
        name=name,
        source=STANDARD[name][0],
        root=None,
        image_size=None,
        download=True,
        val_fraction=0.05,
        split_seed=0,
        eps=settings.dataset.eps,
    )
    changed = read_settings(
        composed(
            f"data={name}", "data.root=/some/where", "data.image_size=48", "data.download=false",
            "data.val_fraction=0.1", "data.split_seed=5", small=False,
        )
    ).dataset  # fmt: skip
    assert (changed.root, changed.image_size, changed.download) == ("/some/where", 48, False)
    assert (changed.val_fraction, changed.split_seed) == (0.1, 5)


@pytest.mark.parametrize("name", sorted(STANDARD))
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.source=CIFAR", r"data\.source = 'CIFAR': one of"),
        ("data.image_size=0", r"data\.image_size = 0: an integer"),
        ("data.val_fraction=0", r"data\.val_fraction = 0"),
    ],
)
def test_bad_values_are_named(name, override, message, composed):
    with pytest.raises(InputError, match=message):
        read_settings(composed(f"data={name}", override, small=False))
