"""conf/data/*.yaml as a user names them: the radius and the recipe that come with the data."""

from fractions import Fraction

import pytest

from robust_arch.common.paths import conf_dir
from robust_arch.configuration.evaluation import read_threat
from robust_arch.configuration.nodes import instantiate
from robust_arch.configuration.settings import read_settings
from robust_arch.data.torchvision_sets import TorchvisionSet
from robust_arch.errors import InputError

# data: source, recipe, radius by norm. The radii are those of Huang et al. 2021, for MNIST of
# Madry et al. 2018, and for ImageNet of Salman et al. 2020.
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
    "parquet": (None, "huang2021", {"linf": Fraction(8, 255)}),
    "tiny_imagenet": (None, "huang2021", {"linf": Fraction(8, 255)}),
    "imagenet": (None, "imagenet", {"linf": Fraction(4, 255)}),
}
each_set = pytest.mark.parametrize("name", sorted(EVERY))


def test_every_data_file_is_covered_here():
    assert {path.stem for path in (conf_dir() / "data").glob("*.yaml")} == set(EVERY)


@each_set
def test_radius_and_recipe_come_with_the_data_and_the_command_line_wins(name, composed):
    _, recipe, radii = EVERY[name]
    cfg = composed(f"data={name}", small=False)
    threat = read_threat(cfg.threat)
    assert (threat.norm, threat.eps_fraction) == ("linf", radii["linf"])
    assert cfg.recipe.name == recipe
    # digits and house numbers mean something else when mirrored
    assert instantiate(cfg.recipe, "recipe").augment.flip == (name not in ("digits", "mnist", "svhn"))
    overrides = (f"data={name}", "threat.eps=1/255", "recipe=short", "recipe.batch_size=7")
    changed = composed(*overrides, small=False)
    assert read_threat(changed.threat).eps_fraction == Fraction(1, 255)
    # all of the recipe, not its name alone, and in any order
    assert changed.recipe == composed("recipe=short", "recipe.batch_size=7", "data=cifar10", small=False).recipe
    assert changed == composed(*overrides[::-1], small=False)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_the_radius_of_the_other_norm_is_the_usual_one_too(name, composed):
    threat = read_threat(composed(f"data={name}", "threat.norm=l2", small=False).threat)
    assert (threat.norm, threat.eps_fraction) == ("l2", EVERY[name][2]["l2"])


def test_a_norm_without_a_usual_radius_asks_for_one(composed):
    with pytest.raises(InputError, match=r"threat\.eps = None: expected a radius, .*l2"):
        read_threat(composed("data=svhn", "threat.norm=l2", small=False).threat)
    threat = read_threat(composed("data=svhn", "threat.norm=l2", "threat.eps=2", small=False).threat)
    assert (threat.norm, threat.eps_fraction) == ("l2", 2)


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


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.source=CIFAR", r"data\.source = 'CIFAR': expected one of"),
        ("data.image_size=0", r"data\.image_size = 0: expected an integer"),
    ],
)
def test_bad_values_are_named(override, message, composed):
    with pytest.raises(InputError, match=message):
        read_settings(composed("data=svhn", override, small=False))
