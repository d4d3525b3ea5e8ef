"""The operator norm of a random convolution beside (1 + sqrt(c_in / c_out)): writes convolutions.csv.

Usage: python -m experiments.theory.convolutions
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from robust_arch.architectures.initialisation import initialise_convolutions
from robust_arch.evaluation.operator_norms import conv_norm

RECORD = Path(__file__).with_name("convolutions.csv")
C_OUT = 32
C_IN = (4, 8, 16, 32, 64, 128)
SIDES = {1: (1,), 3: (1, 2, 4, 8)}  # of the image, by the kernel's: the norm of a 1x1 kernel is the same on each
SEEDS = (0, 1, 2)
FREQUENCIES = 32  # a dimension


def random_convolution(c_in: int, c_out: int, kernel: int, seed: int) -> nn.Conv2d:
    """Drawn as networks draw theirs, at stride 1, padded to keep the image's size."""
    conv = nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2, bias=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        initialise_convolutions(conv)
    return conv


def unbounded_norm(conv: nn.Conv2d) -> float:
    """The norm on an image without border: the largest over frequencies of the norm of the kernel's Fourier matrix.

    On a grid of frequencies, so from below; no padded convolution with this kernel has a larger one (docs/theory.md).
    """
    side = (FREQUENCIES, FREQUENCIES)
    transformed = torch.fft.fft2(conv.weight.detach().double(), s=side).flatten(2).permute(2, 0, 1)
    return float(torch.linalg.matrix_norm(transformed, 2).max())


def scale(c_in: int, c_out: int) -> float:
    """1 + sqrt(c_in / c_out)."""
    return 1 + math.sqrt(c_in / c_out)


def rows() -> Iterator[dict[str, Any]]:
    """One row a kernel, c_in, seed and side; side "unbounded" is the image without border."""
    for kernel, sides in SIDES.items():
        for c_in in C_IN:
            for seed in SEEDS:
                conv = random_convolution(c_in, C_OUT, kernel, seed)
                norms: dict[int | str, float] = {side: conv_norm(conv, (c_in, side, side))[0] for side in sides}
                norms["unbounded"] = unbounded_norm(conv)
                for side, norm in norms.items():
                    row = {"kernel": kernel, "c_in": c_in, "c_out": C_OUT, "seed": seed, "side": side, "norm": norm}
                    yield row | {"constant": norm / scale(c_in, C_OUT)}


def main() -> None:
    """The command; prints the mean constant by kernel, c_in and side."""
    torch.set_num_threads(1)
    frame = pd.DataFrame(rows())
    frame.to_csv(RECORD, index=False, float_format="%.6g")
    print(frame.pivot_table(index=["kernel", "c_in"], columns="side", values="constant", sort=False).round(3))


if __name__ == "__main__":
    main()
