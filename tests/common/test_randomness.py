import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from robust_arch.common import randomness

MASK = 2**64 - 1
GAMMA = 0x9E3779B97F4A7C15


def mix(z):
    """SplitMix64's output function on Python's integers, which do not overflow."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def splitmix64(seed, count):
    return [mix((seed + i * GAMMA) & MASK) for i in range(1, count + 1)]


def unsigned(tensor):
    return [value & MASK for value in tensor.tolist()]


def keys(count, seed=0):
    return randomness.example_keys(seed, torch.arange(count))


def test_the_published_outputs_of_splitmix64():
    # the outputs of the reference implementation (Vigna 2015) for the seed 1234567
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert unsigned(randomness.random_bits(torch.tensor([1234567]), 4)[0]) == expected
    assert splitmix64(1234567, 4) == expected


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=5), st.integers(1, 9))
def test_words_equal_an_implementation_on_unbounded_integers(seeds, count):
    words = randomness.random_bits(torch.tensor(seeds), count)
    assert [unsigned(row) for row in words] == [splitmix64(seed & MASK, count) for seed in seeds]


@given(st.integers(0, 2**63 - 1), st.lists(st.integers(0, 2**40), min_size=1, max_size=5))
def test_keys_equal_an_implementation_on_unbounded_integers(stream, index):
    expected = [mix(mix(((i + 1) * GAMMA) & MASK) ^ stream) for i in index]
    assert unsigned(randomness.example_keys(stream, torch.tensor(index))) == expected


def test_keys_of_examples_and_streams_do_not_collide():
    every = torch.cat([keys(50_000, randomness.derive(0, "attack", step)) for step in range(4)])
    assert len(every.unique()) == 200_000


def test_an_example_has_its_numbers_in_any_batch():
    index = torch.tensor([7, 3, 100])
    together = randomness.uniform(randomness.example_keys(1, index), (2, 3))
    for i in range(3):
        assert torch.equal(randomness.uniform(randomness.example_keys(1, index[i : i + 1]), (2, 3))[0], together[i])


def test_a_uniform_number_is_the_upper_24_bits_of_its_word():
    expected = [(word >> 40) / 2**24 for word in splitmix64(99, 6)]
    drawn = randomness.uniform(torch.tensor([99]), (2, 3))
    assert drawn.shape == (1, 2, 3)
    assert drawn.dtype == torch.float32
    assert drawn.flatten().tolist() == expected


@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_numbers_have_their_distribution(seed):
    numbers = randomness.uniform(keys(2000, seed), (5, 4)).double().numpy()
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert stats.kstest(numbers.ravel(), "uniform").pvalue > 1e-3
    # within five standard errors of 1/2 and 1/12
    assert abs(numbers.mean() - 1 / 2) < 5 * np.sqrt(1 / 12 / numbers.size)
    assert abs(numbers.var() - 1 / 12) < 5 * np.sqrt(1 / 180 / numbers.size)
    numbers = randomness.normal(keys(2000, seed), (5, 4))
    assert numbers.shape == (2000, 5, 4)
    assert stats.kstest(numbers.double().numpy().ravel(), "norm").pvalue > 1e-3


def test_neighbouring_numbers_and_examples_are_not_correlated():
    numbers = randomness.uniform(keys(2000), (20,)).double().numpy()
    for one, other in ((numbers[:, :-1], numbers[:, 1:]), (numbers[:-1], numbers[1:])):
        assert stats.pearsonr(one.ravel(), other.ravel()).pvalue > 1e-3


def test_normal_numbers_are_finite_at_the_ends_of_the_uniform_ones(monkeypatch):
    ends = torch.tensor([[[0.0], [0.0]], [[1 - 2.0**-24], [0.5]]])
    monkeypatch.setattr(randomness, "uniform", lambda keys, shape: ends)
    # sqrt(-2 log(2^-24)) = sqrt(48 log 2), turned by half a circle
    torch.testing.assert_close(randomness.normal(torch.zeros(2), (1,)), torch.tensor([[0.0], [-5.768108]]))


def test_no_numbers_for_no_examples():
    assert randomness.normal(keys(0), (3, 4)).shape == (0, 3, 4)


def test_seeds_are_derived_by_a_digest_that_does_not_depend_on_the_process():
    # first 8 bytes of BLAKE2b-64 of the text, little-endian, without the lowest bit
    digest = hashlib.blake2b(b"(7, 'augment', 3)", digest_size=8).digest()
    assert randomness.derive(7, "augment", 3) == sum(byte << (8 * i) for i, byte in enumerate(digest)) >> 1
    # the same digest by another program
    assert digest.hex() == "72dc5a51b9e1cb44"


def test_derived_seeds_depend_on_every_part():
    parts = [(0,), (1,), (0, "attack"), (0, "augment"), (0, "attack", 0), (0, "attack", 1), (0, "attack", "1")]
    seeds = [randomness.derive(*each) for each in [*parts, (0, 1, "attack")]]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
