from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robust_arch.data import ImageSet, stratified
from robust_arch.data.images import stratified_order, without
from robust_arch.errors import InputError


def image_set(**changes):
    given = {
        "images": torch.arange(2 * 2 * 2 * 3, dtype=torch.uint8).view(2, 2, 2, 3),
        "labels": torch.tensor([0, 2]),
        "num_classes": 3,
        "max_value": 255,
    }
    return ImageSet(**given | changes)


def labels_of_sizes(*sizes):
    return torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))


def sizes_of(labels, index):
    return torch.bincount(labels[index], minlength=int(labels.max()) + 1).tolist()


@pytest.mark.parametrize(
    ("sizes", "count", "expected"),
    [
        ((5, 5), 4, [2, 2]),
        ((5, 3, 2), 4, [2, 1, 1]),  # 2.0, 1.2, 0.8: the remainder goes to the third
        ((6, 3, 1), 5, [3, 2, 0]),  # 3.0, 1.5, 0.5: equal remainders go to the first
        ((1, 1, 1), 2, [1, 1, 0]),
        ((7, 2, 1), 7, [5, 1, 1]),  # 4.9, 1.4, 0.7
        ((4, 4, 2), 10, [4, 4, 2]),
        ((1000, 1), 1, [1, 0]),
    ],
)
def test_classes_are_taken_by_largest_remainder(sizes, count, expected):
    labels = labels_of_sizes(*sizes)
    assert sizes_of(labels, stratified(labels, count, seed=0)) == expected


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.data())
def test_no_class_is_one_example_away_from_its_quota(sizes, data):
    labels = labels_of_sizes(*sizes)
    count = data.draw(st.integers(1, len(labels)))
    index = stratified(labels, count, seed=data.draw(st.integers(0, 100)))
    assert len(index) == len(index.unique()) == count
    for taken, size in zip(sizes_of(labels, index), sizes, strict=True):
        assert abs(taken - Fraction(size * count, len(labels))) < 1


def test_positions_are_ascending_and_follow_from_the_seed():
    labels = labels_of_sizes(50, 30, 20)[torch.randperm(100, generator=torch.Generator().manual_seed(0))]
    first = stratified(labels, 20, seed=0)
    assert torch.equal(first, first.sort().values)
    assert torch.equal(first, stratified(labels, 20, seed=0))
    assert not torch.equal(first, stratified(labels, 20, seed=1))


def test_every_member_of_a_class_can_be_drawn():
    labels = labels_of_sizes(4, 4)
    drawn = torch.cat([stratified(labels, 2, seed) for seed in range(60)])
    assert drawn.unique().tolist() == list(range(8))


@pytest.mark.parametrize("count", [0, -1, 6])
def test_impossible_counts_are_named(count):
    with pytest.raises(InputError, match=rf"count = {count}: .*between 1 and the 5 examples"):
        stratified(labels_of_sizes(3, 2), count, seed=0)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_each_first_part_of_the_order_is_stratified(sizes, random):
    labels = labels_of_sizes(*sizes).tolist()
    random.shuffle(labels)
    order = stratified_order(torch.tensor(labels), seed=random.randrange(100)).tolist()
    assert sorted(order) == list(range(len(labels)))
    taken = [0] * len(sizes)
    for count, position in enumerate(order, start=1):
        taken[labels[position]] += 1
        for number, size in zip(taken, sizes, strict=True):
            assert abs(number - Fraction(size * count, len(labels))) < 1


@pytest.mark.parametrize(
    ("sizes", "count", "expected"),
    [
        ((60, 30, 10), 10, [6, 3, 1]),
        ((60, 30, 10), 50, [30, 15, 5]),
        ((5, 5), 4, [2, 2]),
        ((100, 1, 1), 51, [50, 1, 0]),  # 50, 0.5, 0.5: equals go to the first
    ],
)
def test_a_first_part_of_the_order_holds_the_classes_in_their_proportions(sizes, count, expected):
    labels = labels_of_sizes(*sizes)
    assert sizes_of(labels, stratified_order(labels, seed=0)[:count]) == expected


def test_the_order_inside_a_class_is_drawn_by_the_seed():
    labels = labels_of_sizes(4, 4)
    assert torch.equal(stratified_order(labels, 3), stratified_order(labels, 3))
    # the first of the order is any of class 0
    assert {int(stratified_order(labels, seed)[0]) for seed in range(40)} == {0, 1, 2, 3}


def test_without_is_the_rest_in_order():
    assert without(6, torch.tensor([4, 0, 3])).tolist() == [1, 2, 5]


def test_a_subset_keeps_the_order_that_was_asked_for():
    images = image_set()
    subset = images.subset(torch.tensor([1, 0]))
    assert torch.equal(subset.images, images.images.flip(0))
    assert subset.labels.tolist() == [2, 0]
    assert (subset.num_classes, subset.max_value, subset.image_shape) == (3, 255, (2, 2, 3))


def test_pixels_become_fractions_of_the_largest_value():
    digits = image_set(images=torch.tensor([0, 4, 16, 1], dtype=torch.uint8).view(2, 1, 1, 2), max_value=16)
    assert digits.to_unit(digits.images).flatten().tolist() == [0, 0.25, 1, 0.0625]


def test_channel_statistics_are_those_of_the_pixels():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 17, size=(20, 3, 4, 5), dtype=np.uint8) * np.array([1, 0, 1], np.uint8)[:, None, None]
    means, stds = image_set(
        images=torch.from_numpy(pixels), labels=torch.zeros(20, dtype=torch.int64), max_value=16
    ).channel_statistics()
    np.testing.assert_allclose(means, (pixels / 16).mean(axis=(0, 2, 3)), atol=1e-12)
    np.testing.assert_allclose(stds, (pixels / 16).std(axis=(0, 2, 3)), atol=1e-12)


def pixels_with_one_changed():
    images = image_set().images.clone()
    images[1, 1, 1, 2] += 1
    return images


@pytest.mark.parametrize(
    "changes",
    [
        {"images": pixels_with_one_changed()},
        {"labels": torch.tensor([0, 1])},
        {"num_classes": 4},
        {"max_value": 254},
        {"images": image_set().images.view(2, 2, 3, 2)},
        {"images": image_set().images.flip(0)},
    ],
    ids=["pixel", "label", "classes", "scale", "shape", "order"],
)
def test_the_fingerprint_changes_with_everything_that_training_sees(changes):
    assert image_set(**changes).fingerprint() != image_set().fingerprint()


def test_the_fingerprint_follows_from_the_contents_and_not_from_their_layout():
    transposed = image_set().images.permute(0, 1, 3, 2).contiguous().permute(0, 1, 3, 2)
    assert not transposed.is_contiguous()
    assert image_set(images=transposed).fingerprint() == image_set().fingerprint()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": torch.zeros(2, 2, 2, 3)}, r"images = .*float32.*uint8 of shape"),
        ({"images": torch.zeros(2, 2, 3, dtype=torch.uint8)}, r"images = \(\(2, 2, 3\).*uint8 of shape \(N, C, H, W\)"),
        ({"labels": torch.tensor([0])}, r"labels = \(\(1,\).*.*one int64 per image"),
        ({"labels": torch.tensor([0, 1], dtype=torch.int32)}, r"labels = .*int32.*.*one int64 per image"),
        ({"labels": torch.tensor([0, 3])}, r"labels = \(0, 3\): .*in 0\.\.2"),
        ({"labels": torch.tensor([-1, 0])}, r"labels = \(-1, 0\): .*in 0\.\.2"),
        ({"max_value": 16}, r"images = 23: .*at most max_value = 16"),
    ],
)
def test_impossible_sets_are_named(changes, message):
    with pytest.raises(InputError, match=message):
        image_set(**changes)
