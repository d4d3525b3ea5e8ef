import re
from collections import Counter
from fractions import Fraction
from itertools import pairwise

import pytest
import torch
from sklearn.datasets import load_digits

from robust_arch.data.digits import Digits
from robust_arch.errors import InputError


@pytest.fixture(scope="module")
def raw():
    return load_digits()


@pytest.fixture(scope="module")
def splits():
    return Digits(name="digits", val_fraction=0.167).load()


def contents(images):
    """Every image with its label and how often it occurs."""
    pairs = zip(images.images, images.labels.tolist(), strict=True)
    return Counter((image.numpy().tobytes(), label) for image, label in pairs)


def largest_remainder(sizes, count):
    quotas = [Fraction(size * count, sum(sizes)) for size in sizes]
    taken = [int(quota) for quota in quotas]
    order = sorted(range(len(sizes)), key=lambda i: (taken[i] - quotas[i], i))
    for i in order[: count - sum(taken)]:
        taken[i] += 1
    return taken


def test_sizes_and_shapes(splits):
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [1197, 240, 360]
    for part in (splits.train, splits.val, splits.test):
        assert (part.image_shape, part.num_classes, part.max_value) == ((1, 8, 8), 10, 16)


def test_the_three_parts_hold_every_digit_once(splits, raw):
    expected = Counter(
        (image.astype("uint8").tobytes(), int(label)) for image, label in zip(raw.images, raw.target, strict=True)
    )
    assert sum(expected.values()) == 1797
    assert contents(splits.train) + contents(splits.val) + contents(splits.test) == expected


def test_pixels_are_the_17_levels_divided_by_16(splits, raw):
    unit = splits.test.to_unit(splits.test.images)
    assert unit.unique().tolist() == [level / 16 for level in range(17)]


def test_each_part_holds_the_classes_in_their_proportions(splits, raw):
    sizes = [int((raw.target == digit).sum()) for digit in range(10)]
    test = largest_remainder(sizes, 360)
    val = largest_remainder([size - taken for size, taken in zip(sizes, test, strict=True)], 240)
    assert torch.bincount(splits.test.labels).tolist() == test
    assert torch.bincount(splits.val.labels).tolist() == val


def test_the_split_seed_moves_the_held_out_part_and_never_the_test_part(splits):
    assert Digits(name="digits", val_fraction=0.167).load().training_fingerprint() == splits.training_fingerprint()
    other = Digits(name="digits", val_fraction=0.167, split_seed=1).load()
    assert contents(other.val) != contents(splits.val)
    assert other.test.fingerprint() == splits.test.fingerprint()
    assert contents(other.train) + contents(other.val) == contents(splits.train) + contents(splits.val)


def of_size(count, **settings):
    return Digits(name="digits", val_fraction=0.167, train_images=count, **settings).load()


@pytest.mark.parametrize("count", [10, 100, 600, 1197])
def test_a_part_of_the_training_images_leaves_the_held_out_and_the_test_part_alone(count, splits):
    part = of_size(count)
    assert len(part.train) == count
    assert part.val.fingerprint() == splits.val.fingerprint()
    assert part.test.fingerprint() == splits.test.fingerprint()
    assert contents(part.train) <= contents(splits.train)


def test_a_part_of_the_training_images_holds_the_classes_in_their_proportions(splits):
    sizes = torch.bincount(splits.train.labels).tolist()
    for count in (10, 100, 600):
        taken = torch.bincount(of_size(count).train.labels).tolist()
        assert all(abs(each - Fraction(size * count, 1197)) < 1 for each, size in zip(taken, sizes, strict=True))


def test_a_larger_part_of_the_training_images_holds_the_smaller_one(splits):
    parts = [contents(of_size(count).train) for count in (50, 51, 52, 53, 400, 1196)]
    for smaller, larger in pairwise([*parts, contents(splits.train)]):
        assert smaller <= larger


def test_the_part_of_the_training_images_is_drawn_by_the_split_seed_and_decides_the_fingerprint(splits):
    part = of_size(100)
    assert of_size(1197).training_fingerprint() == splits.training_fingerprint()  # all, in the same order
    assert of_size(100).training_fingerprint() == part.training_fingerprint()
    assert of_size(101).training_fingerprint() != part.training_fingerprint() != splits.training_fingerprint()
    assert contents(of_size(100, split_seed=1).train) != contents(part.train)


REFUSED = [
    *(("val_fraction", value, "between 0 and 1") for value in (0, 1, -0.1, 1.5)),
    ("val_fraction", 0.9999, "fewer than all 1437"),
    *(("train_images", value, "an integer of at least 1, or null") for value in (0, -5, True, 10.0, "many", [10])),
    ("train_images", 1198, "at most the 1197 training images"),
    ("train_images", 9, "enough for an image of each class; of 1 class"),
]


@pytest.mark.parametrize(("key", "value", "message"), REFUSED)
def test_impossible_settings_are_named(key, value, message):
    with pytest.raises(InputError, match=rf"data\.{key} = {re.escape(repr(value))}: .*{message}"):
        Digits(**{"name": "digits", "val_fraction": 0.167, key: value}).load()
