"""Random numbers as a function of (seed, stream, example): the same in any batch, order, shard or device.

Each example has a key, a 64-bit integer; its numbers are SplitMix64 outputs counted from the key (Steele, Lea, Flood,
"Fast splittable pseudorandom number generators", OOPSLA 2014). They are computed in integer arithmetic alone, so a CPU
and a GPU draw the same bits.
"""

import hashlib
import math

import torch
from torch import Tensor

_GAMMA = -7046029254386353131  # 0x9E3779B97F4A7C15, the golden-ratio increment, as a signed 64-bit integer
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB


def derive(seed: int, *parts: int | str) -> int:
    """A 63-bit seed for a stream of its own, which depends on `seed` and every part."""
    text = repr((int(seed), *(part if isinstance(part, str) else int(part) for part in parts)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def _shift_right(z: Tensor, bits: int) -> Tensor:
    # torch shifts int64 arithmetically; the mask makes it the logical shift by which SplitMix64 is defined
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _mix(z: Tensor) -> Tensor:
    z = (z ^ _shift_right(z, 30)) * _MIX_1
    z = (z ^ _shift_right(z, 27)) * _MIX_2
    return z ^ _shift_right(z, 31)


def example_keys(stream_seed: int, index: Tensor) -> Tensor:
    """One key per example. index: (B,) integers, the examples' positions in their data set. Returns (B,) int64."""
    return _mix(_mix(index.long() * _GAMMA + _GAMMA) ^ stream_seed)


def random_bits(keys: Tensor, count: int) -> Tensor:
    """`count` 64-bit words per example. keys: (B,) int64. Returns (B, count) int64."""
    counter = torch.arange(1, count + 1, device=keys.device, dtype=torch.int64) * _GAMMA
    return _mix(keys[:, None] + counter)


def uniform(keys: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Uniform numbers in [0, 1), multiples of 2^-24. keys: (B,) int64. Returns (B, *shape) float32."""
    words = random_bits(keys, math.prod(shape))
    return (_shift_right(words, 40).float() * 2.0**-24).view(len(keys), *shape)


def normal(keys: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Standard normal numbers by the Box-Muller transform. keys: (B,) int64. Returns (B, *shape) float32."""
    u = uniform(keys, (2, math.prod(shape)))
    # 1 - u lies in (0, 1], so the logarithm is finite
    z = torch.sqrt(-2.0 * torch.log1p(-u[:, 0])) * torch.cos(2.0 * math.pi * u[:, 1])
    return z.view(len(keys), *shape)
