import itertools

import numpy as np
import pytest
import torch
from scipy import stats

from robust_arch.common.randomness import example_keys
from robust_arch.data.augment import CropFlip
from robust_arch.errors import InputError


def crop_and_flip(image, padding, top, left, flip):
    """One image (C, H, W) by numpy slicing."""
    _, height, width = image.shape
    padded = np.pad(image, ((0, 0), (padding, padding), (padding, padding)))
    crop = padded[:, top : top + height, left : left + width]
    return crop[:, :, ::-1] if flip else crop


def keys(count, seed=0):
    return example_keys(seed, torch.arange(count))


def numbered(count, channels, height, width):
    """Images of which no two pixels are equal and none is 0, so that every crop is another image."""
    pixels = np.arange(1, channels * height * width + 1, dtype=np.uint8).reshape(channels, height, width)
    return torch.from_numpy(np.stack([pixels] * count))


def found_draws(images, result, padding):
    """The (top, left, flip) of each example, by trying them all; exactly one must fit."""
    choices = list(itertools.product(range(2 * padding + 1), range(2 * padding + 1), (False, True)))
    image = images[0].numpy()
    candidates = {crop_and_flip(image, padding, *choice).tobytes(): choice for choice in choices}
    assert len(candidates) == len(choices)
    return [candidates[example.numpy().tobytes()] for example in result]


@pytest.mark.parametrize(
    ("shape", "padding"), [((1, 8, 8), 1), ((3, 6, 5), 2), ((2, 4, 9), 3), ((3, 8, 8), 4)], ids=str
)
def test_every_result_is_a_crop_and_flip_of_its_image_and_all_are_equally_frequent(shape, padding):
    images = numbered(4000, *shape)
    result = CropFlip(padding=padding)(images, keys(4000))
    assert result.dtype == torch.uint8
    assert result.is_contiguous()
    draws = np.array(found_draws(images, result, padding))
    for column in draws.T:
        assert stats.chisquare(np.bincount(column)).pvalue > 1e-3
    # the three draws are independent: so are the cells of their table
    table = np.zeros((2 * padding + 1, 2 * padding + 1, 2), dtype=int)
    np.add.at(table, tuple(draws.T), 1)
    assert stats.chisquare(table.ravel()).pvalue > 1e-3


def test_each_example_is_cropped_from_itself():
    images = torch.from_numpy(np.random.default_rng(0).integers(1, 256, size=(16, 3, 5, 5), dtype=np.uint8))
    draws = found_draws(numbered(16, 3, 5, 5), CropFlip(padding=2)(numbered(16, 3, 5, 5), keys(16)), 2)
    expected = [crop_and_flip(image.numpy(), 2, *draw) for image, draw in zip(images, draws, strict=True)]
    np.testing.assert_array_equal(CropFlip(padding=2)(images, keys(16)), np.stack(expected))


def test_an_example_is_treated_alike_in_any_batch():
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, size=(16, 1, 8, 8), dtype=np.uint8))
    together = CropFlip()(images, keys(16))
    order = torch.tensor([9, 0, 15])
    assert torch.equal(CropFlip()(images[order], keys(16)[order]), together[order])
    assert not torch.equal(CropFlip()(images, keys(16, seed=1)), together)


def test_images_may_be_floating_point():
    images = numbered(32, 1, 6, 6)
    as_bytes = CropFlip(padding=2)(images, keys(32))
    assert torch.equal(CropFlip(padding=2)(images / 255, keys(32)), as_bytes / 255)


def test_without_padding_and_flip_nothing_happens():
    images = numbered(8, 3, 4, 4)
    assert torch.equal(CropFlip(padding=0, flip=False)(images, keys(8)), images)


def test_without_flip_no_image_is_mirrored():
    images = numbered(200, 1, 6, 6)
    draws = found_draws(images, CropFlip(padding=2, flip=False)(images, keys(200)), 2)
    assert not any(flip for _, _, flip in draws)
    assert len({(top, left) for top, left, _ in draws}) == 25


def test_no_images_stay_no_images():
    assert CropFlip()(torch.zeros(0, 3, 8, 8, dtype=torch.uint8), keys(0)).shape == (0, 3, 8, 8)


def test_negative_padding_is_named():
    with pytest.raises(InputError, match=r"padding = -1: expected an integer of at least 0"):
        CropFlip(padding=-1)


def test_cutout_is_a_square_around_each_pixel_equally_often():
    side, height, width = 4, 5, 7
    images = torch.full((5000, 2, height, width), 9, dtype=torch.uint8)
    result = CropFlip(padding=0, flip=False, cutout=side)(images, keys(5000))
    expected = {}
    for row, column in itertools.product(range(height), range(width)):
        image = np.full((2, height, width), 9, dtype=np.uint8)
        image[:, max(0, row - 2) : row + 2, max(0, column - 2) : column + 2] = 0
        expected[image.tobytes()] = row * width + column
    assert len(expected) == height * width
    found = np.bincount([expected[image.numpy().tobytes()] for image in result], minlength=height * width)
    assert stats.chisquare(found).pvalue > 1e-3


def test_cutout_leaves_crop_and_flip_as_they_are():
    images = numbered(64, 3, 6, 6)
    plain, cut = (CropFlip(padding=2, cutout=side)(images, keys(64)) for side in (0, 2))
    assert torch.equal(torch.where(cut == 0, 0, plain), cut)
    assert 0 < int((cut != plain).sum()) <= 64 * 3 * 4
