from collections import Counter
from fractions import Fraction

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


def test_loading_again_gives_the_same_splits(splits):
    again = Digits(name="digits", val_fraction=0.167).load()
    assert again.training_fingerprint() == splits.training_fingerprint()
    assert again.test.fingerprint() == splits.test.fingerprint()


def test_the_split_seed_moves_the_held_out_part_and_never_the_test_part(splits):
    other = Digits(name="digits", val_fraction=0.167, split_seed=1).load()
    assert contents(other.val) != contents(splits.val)
    assert other.test.fingerprint() == splits.test.fingerprint()
    assert contents(other.train) + contents(other.val) == contents(splits.train) + contents(splits.val)


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5])
def test_an_impossible_fraction_is_named(fraction):
    with pytest.raises(InputError, match=rf"data\.val_fraction = {fraction}: between 0 and 1"):
        Digits(name="digits", val_fraction=fraction)


def test_a_fraction_that_leaves_nothing_to_train_on_is_named():
    with pytest.raises(InputError, match=r"data\.val_fraction = 0\.9999: fewer than all 1437"):
        Digits(name="digits", val_fraction=0.9999).load()
