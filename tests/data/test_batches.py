import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robust_arch.data import ImageSet
from robust_arch.data.batches import GlobalBatches, loader
from robust_arch.data.extra import ExtraImages


def batches(size, batch_size, *, epoch=0, shuffle=True, drop_last=False, **settings):
    sampler = GlobalBatches(size, batch_size, shuffle=shuffle, drop_last=drop_last, **settings)
    sampler.set_epoch(epoch)
    result = [batch.tolist() for batch in sampler]
    assert len(result) == len(sampler)
    return result


def order(*args, **settings):
    return [position for batch in batches(*args, **settings) for position in batch]


@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 5), st.booleans(), st.booleans())
def test_ranks_partition_every_global_batch(size, batch_size, world_size, shuffle, drop_last):
    settings = {"shuffle": shuffle, "drop_last": drop_last}
    whole = batches(size, batch_size, **settings)
    shares = [batches(size, batch_size, rank=rank, world_size=world_size, **settings) for rank in range(world_size)]
    # zip is strict: all ranks see as many batches as a single process does
    for batch, *parts in zip(whole, *shares, strict=True):
        assert sorted(position for part in parts for position in part) == sorted(batch)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


@given(st.integers(1, 60), st.integers(1, 20), st.booleans())
def test_every_position_comes_once_an_epoch(size, batch_size, shuffle):
    assert sorted(order(size, batch_size, shuffle=shuffle)) == list(range(size))


def test_an_incomplete_last_batch_is_kept_or_dropped():
    assert batches(10, 4, shuffle=False) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert batches(10, 4, shuffle=False, drop_last=True) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert batches(8, 4, shuffle=False, drop_last=True) == batches(8, 4, shuffle=False)
    # 50,000 images in batches of 128
    assert len(GlobalBatches(50_000, 128, shuffle=True, drop_last=True)) == 390


def test_shares_of_a_batch_by_hand():
    shares = [batches(5, 4, shuffle=False, rank=rank, world_size=2) for rank in (0, 1)]
    assert shares == [[[0, 2], [4]], [[1, 3], []]]


def test_the_order_follows_from_seed_and_epoch_alone():
    expected = order(40, 8, seed=3, epoch=5)
    assert order(40, 7, seed=3, epoch=5) == expected
    assert order(40, 8, seed=3, epoch=5, drop_last=True) == expected
    # another epoch before it leaves no trace
    sampler = GlobalBatches(40, 8, shuffle=True, drop_last=False, seed=3)
    list(sampler)
    sampler.set_epoch(5)
    assert torch.cat(list(sampler)).tolist() == expected


def test_seeds_and_epochs_have_orders_of_their_own():
    orders = {tuple(order(40, 8, seed=seed, epoch=epoch)) for seed in (0, 1) for epoch in (0, 1, 2)}
    assert len(orders) == 6
    assert tuple(range(40)) not in orders


def test_the_global_random_state_plays_no_part():
    first = order(40, 8)
    before = torch.get_rng_state()
    with torch.random.fork_rng():
        torch.manual_seed(123)
        assert order(40, 8) == first
    assert torch.equal(torch.get_rng_state(), before)


def image_set(size):
    return ImageSet(torch.arange(size, dtype=torch.uint8).view(size, 1, 1, 1), torch.arange(size) % 3, num_classes=3)


@pytest.mark.parametrize("world_size", [1, 2])
def test_the_loader_yields_images_with_their_labels_and_positions(world_size):
    # five examples in batches of four: with two processes the share of the second is empty at last
    for rank in range(world_size):
        sampler = GlobalBatches(5, 4, shuffle=True, drop_last=False, rank=rank, world_size=world_size)
        shares = list(sampler)
        for (images, labels, index), expected in zip(loader(image_set(5), sampler), shares, strict=True):
            assert torch.equal(index, expected)
            assert images.shape == (len(expected), 1, 1, 1)
            assert images.flatten().tolist() == expected.tolist()
            assert labels.tolist() == [position % 3 for position in expected.tolist()]


mixtures = st.fixed_dictionaries(
    {
        "size": st.integers(1, 40), "batch_size": st.integers(2, 12), "extra_per_batch": st.integers(1, 11),
        "extra_size": st.integers(1, 30), "steps": st.none() | st.integers(1, 15), "drop_last": st.booleans(),
        "seed": st.integers(0, 3), "epoch": st.integers(0, 3),
    }
).filter(lambda settings: settings["extra_per_batch"] < settings["batch_size"])  # fmt: skip


@given(mixtures, st.integers(1, 4))
def test_every_batch_has_its_share_of_extra_examples_and_ranks_partition_it(settings, world_size):
    size, extra = settings["size"], settings["extra_per_batch"]
    own = settings["batch_size"] - extra
    whole = batches(**settings)
    steps = settings["steps"]
    if steps is None:
        steps = size // own if settings["drop_last"] else -(-size // own)
    assert len(whole) == steps
    for batch in whole:
        assert len(batch) == own + extra
        assert all(position < size for position in batch[:own])  # own examples come first
        assert all(size <= position < size + settings["extra_size"] for position in batch[own:])
    # own examples pass by pass: each comes once before any comes again
    seen = [position for batch in whole for position in batch[:own]]
    for start in range(0, len(seen), size):
        part = seen[start : start + size]
        assert len(set(part)) == len(part)
    shares = [batches(rank=rank, world_size=world_size, **settings) for rank in range(world_size)]
    for batch, *parts in zip(whole, *shares, strict=True):
        assert sorted(position for part in parts for position in part) == sorted(batch)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


@given(mixtures, st.integers(0, 15))
def test_an_epoch_that_is_resumed_anywhere_has_the_batches_that_were_left(settings, done):
    whole = batches(**settings)
    sampler = GlobalBatches(shuffle=True, **{key: value for key, value in settings.items() if key != "epoch"})
    sampler.set_epoch(settings["epoch"])
    sampler.skip(done)
    assert [batch.tolist() for batch in sampler] == whole[done:]
    assert [batch.tolist() for batch in sampler] == whole  # the skip is for once


def test_the_published_epoch_of_196_batches_is_half_extra_and_half_a_pass():
    # 47,500 images of CIFAR-10 and 500,000 extra ones, in batches of 256
    epoch = batches(47_500, 256, drop_last=False, steps=196, extra_size=500_000, extra_per_batch=128)
    own = [position for batch in epoch for position in batch if position < 47_500]
    extra = [position for batch in epoch for position in batch if position >= 47_500]
    assert len(own) == len(set(own)) == len(extra) == 196 * 128
    # drawn with replacement: of n draws from N the mean number of different ones is N (1 - (1 - 1/N)^n), 24,469
    assert len(set(extra)) == pytest.approx(500_000 * (1 - (1 - 1 / 500_000) ** 25_088), rel=0.01)
    assert min(extra) < 47_500 + 5_000
    assert max(extra) >= 547_500 - 5_000


def test_extra_examples_do_not_change_the_order_of_the_set_s_own():
    mixed = batches(40, 8, seed=3, epoch=5, extra_size=50_000_000, extra_per_batch=4)
    assert [position for batch in mixed for position in batch[:4]] == order(40, 8, seed=3, epoch=5)
    drawn = {
        tuple(batches(40, 8, seed=seed, epoch=epoch, extra_size=9**9, extra_per_batch=4)[number][4:])
        for seed in (0, 1)
        for epoch in (0, 1)
        for number in (0, 1)
    }
    assert len(drawn) == 8


def test_steps_without_extra_examples_end_an_epoch_early_or_go_on_with_another_order():
    whole = order(10, 4, drop_last=True)
    assert batches(10, 4, drop_last=False, steps=2) == [whole[:4], whole[4:]]
    seen = order(10, 4, drop_last=False, steps=5)
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
    assert seen[:10] != seen[10:]


@pytest.mark.parametrize("world_size", [1, 2])
def test_the_loader_mixes_extra_images_with_labels_and_positions_of_their_own(world_size):
    pixels = np.random.default_rng(0).integers(0, 256, (7, 1, 1, 1), dtype=np.uint8)
    extra = ExtraImages(pixels, np.arange(7) % 3, "x", "x.npz", 0.5)
    for rank in range(world_size):
        settings = {"rank": rank, "world_size": world_size, "extra_size": 7, "extra_per_batch": 4}
        sampler = GlobalBatches(5, 6, shuffle=True, drop_last=False, **settings)
        for (images, labels, index), expected in zip(loader(image_set(5), sampler, extra=extra), sampler, strict=True):
            assert torch.equal(index, expected)
            assert images.dtype == torch.uint8
            assert images.shape == (len(expected), 1, 1, 1)
            for image, label, position in zip(images.flatten().tolist(), labels.tolist(), index.tolist(), strict=True):
                at = position - 5
                assert (image, label) == ((position, position % 3) if at < 0 else (pixels[at, 0, 0, 0], at % 3))
