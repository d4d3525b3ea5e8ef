import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robust_arch.data import ImageSet
from robust_arch.data.batches import GlobalBatches, loader


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
