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


def test_all_that_are_not_held_out_are_the_same_images_in_the_same_order(splits):
    assert of_size(1197).training_fingerprint() == splits.training_fingerprint()


def test_the_part_of_the_training_images_is_drawn_by_the_split_seed_and_decides_the_fingerprint(splits):
    part = of_size(100)
    assert of_size(100).training_fingerprint() == part.training_fingerprint()
    assert of_size(101).training_fingerprint() != part.training_fingerprint() != splits.training_fingerprint()
    assert contents(of_size(100, split_seed=1).train) != contents(part.train)


@pytest.mark.parametrize("count", [0, -5, True, False, 10.0, 0.5, "many", [10]])
def test_an_impossible_number_of_training_images_is_named(count):
    with pytest.raises(InputError, match=r"data\.train_images = .*: an integer of at least 1, or null"):
        Digits(name="digits", train_images=count)


def test_more_training_images_than_there_are_and_fewer_than_classes_are_named():
    with pytest.raises(InputError, match=r"data\.train_images = 1198: at most the 1197 training images"):
        of_size(1198)
    with pytest.raises(InputError, match=r"data\.train_images = 9: enough for an image of each class; of 1 class"):
        of_size(9)
