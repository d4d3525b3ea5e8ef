"""Mixup and CutMix against torchvision's, for fixed shares and boxes, and the distribution of what is drawn."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch.nn import functional as F
from torchvision.transforms import v2

from robust_arch.data.mixing import CutMix, Mixture, MixUp, draw
from robust_arch.errors import InputError


def batch():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(5, 2, 6, 8, generator=generator), torch.tensor([0, 3, 3, 1, 2])


def previous(values):
    """The one before each, the last before the first."""
    return torch.cat([values[-1:], values[:-1]])


def mixed(mixture):
    images, labels = batch()
    one_hot = F.one_hot(labels, 4).float()
    return mixture.images(images, previous(images)), mixture.labels(one_hot, previous(one_hot))


@pytest.mark.parametrize("own", [0.0, 0.3, 0.5, 0.9, 1.0])
def test_mixup_is_torchvisions_for_the_same_share(own, monkeypatch):
    theirs = v2.MixUp(num_classes=4)
    monkeypatch.setattr(theirs, "make_params", lambda _: {"lam": own})
    for ours, expected in zip(mixed(Mixture(own)), theirs(*batch()), strict=True):
        torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize(("rows", "columns"), [((0, 6), (0, 8)), ((1, 4), (5, 8)), ((2, 2), (0, 8)), ((5, 6), (0, 1))])
def test_cutmix_is_torchvisions_for_the_same_box(rows, columns, monkeypatch):
    own = 1 - (rows[1] - rows[0]) * (columns[1] - columns[0]) / 48
    theirs = v2.CutMix(num_classes=4)
    box = (columns[0], rows[0], columns[1], rows[1])
    monkeypatch.setattr(theirs, "make_params", lambda _: {"box": box, "lam_adjusted": own})
    mixture = Mixture(own, (slice(*rows), slice(*columns)))
    for ours, expected in zip(mixed(mixture), theirs(*batch()), strict=True):
        torch.testing.assert_close(ours, expected)


def test_the_images_given_are_left_as_they_are():
    images, _ = batch()
    before = images.clone()
    Mixture(0.5, (slice(0, 3), slice(0, 3))).images(images, previous(images))
    assert torch.equal(images, before)


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_shares_of_mixup_follow_beta(alpha):
    shares = [draw(MixUp(alpha=alpha), CutMix(), seed, (8, 8)).own for seed in range(2000)]
    assert stats.kstest(shares, stats.beta(alpha, alpha).cdf).pvalue > 1e-3


def test_boxes_of_cutmix_surround_every_pixel_equally_often_and_their_area_is_the_share():
    # a window of 2 pixels around (r, c) covers rows r - 1 and r, as far as they are in the image
    found = np.zeros((4, 5))
    for seed in range(4000):
        mixture = draw(MixUp(), CutMix(window=2), seed, (4, 5))
        rows, columns = mixture.box
        found[rows.stop - 1, columns.stop - 1] += 1
        assert (rows.start, columns.start) == (max(rows.stop - 2, 0), max(columns.stop - 2, 0))
        covered = (rows.stop - rows.start) * (columns.stop - columns.start)
        assert mixture.own == pytest.approx(1 - covered / 20)
    assert stats.chisquare(found.ravel()).pvalue > 1e-3


def test_a_box_is_as_large_as_its_beta_before_the_border_cuts_it():
    # alpha 1: the share is uniform, and the side is the root of the share; boxes that the border cuts are left out
    sides = []
    for seed in range(4000):
        rows, _ = draw(MixUp(), CutMix(alpha=1), seed, (1000, 1000)).box
        if rows.start > 0 and rows.stop < 1000:
            sides.append(rows.stop - rows.start)
    # the density of a side s in (0, 1) is 2 s, and an unclipped centre has probability 1 - s: s ~ Beta(2, 2)
    assert stats.kstest(np.array(sides) / 1000, stats.beta(2, 2).cdf).pvalue > 1e-3


@pytest.mark.parametrize(
    ("mixup", "cutmix", "shares"),
    [
        (MixUp(alpha=1), CutMix(alpha=1), {"mixup": 0.5, "cutmix": 0.5}),
        (MixUp(alpha=1, probability=0.5), CutMix(), {"mixup": 0.5, None: 0.5}),
        (MixUp(), CutMix(window=3, probability=0.2), {"cutmix": 0.2, None: 0.8}),
        (MixUp(alpha=1, probability=0.5), CutMix(alpha=1), {"mixup": 0.25, "cutmix": 0.5, None: 0.25}),
        (MixUp(), CutMix(), {None: 1}),
        (MixUp(alpha=1, probability=0), CutMix(), {None: 1}),
    ],
)
def test_how_many_batches_are_mixed_and_how(mixup, cutmix, shares):
    def kind(mixture):
        return mixture and ("mixup" if mixture.box is None else "cutmix")

    kinds = [kind(draw(mixup, cutmix, seed, (8, 8))) for seed in range(2000)]
    assert set(kinds) == set(shares)
    if len(shares) > 1:
        expected = [2000 * share for share in shares.values()]
        assert stats.chisquare([kinds.count(each) for each in shares], expected).pvalue > 1e-3


def test_a_draw_depends_on_the_seed_alone():
    settings = (MixUp(alpha=0.3), CutMix(alpha=1))
    first = [draw(*settings, seed, (8, 8)) for seed in range(20)]
    np.random.default_rng().random(5)
    assert first == [draw(*settings, seed, (8, 8)) for seed in range(20)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MixUp(alpha=-0.1), r"recipe\.mixup\.alpha = -0\.1: expected a number from 0 to 1000"),
        (lambda: MixUp(alpha=float("nan")), r"recipe\.mixup\.alpha = nan"),
        (lambda: MixUp(alpha=1, probability=1.5), r"recipe\.mixup\.probability = 1\.5: expected a number from 0 to 1"),
        (lambda: CutMix(alpha=True), r"recipe\.cutmix\.alpha = True"),
        (lambda: CutMix(window=2.5), r"recipe\.cutmix\.window = 2\.5: expected an integer of at least 0"),
        (lambda: CutMix(alpha=1, window=8), r"recipe\.cutmix\.window = 8: expected 0 where recipe\.cutmix\.alpha = 1"),
    ],
)
def test_bad_values_of_mixing_are_named(make, message):
    with pytest.raises(InputError, match=message):
        make()
