"""One attack on one set of images: who survives, whose prediction is stable, how far the logits move."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robust_arch.attacks import Attack, ThreatModel
from robust_arch.data import ImageSet


@dataclass(frozen=True)
class Examples:
    """A part of a test set. images: the part; index: (n,) its positions in the whole set, ascending."""

    images: ImageSet
    index: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def batches(self, size: int, device: torch.device) -> Iterator[tuple[slice, Tensor, Tensor, Tensor]]:
        """Where the batch stands, x (B, C, H, W) float32 in [0, 1], y (B,), index (B,); each example once, in order."""
        for start in range(0, len(self), size):
            where = slice(start, start + size)
            x = self.images.to_unit(self.images.images[where].to(device))
            yield where, x, self.images.labels[where].to(device), self.index[where].to(device)


@dataclass(frozen=True)
class Outcome:
    """What an attack did to n examples, all on the CPU.

    correct: (n,) bool, classified correctly at x'. predicted: (n,) classes at x'. lipschitz: (n,) float64,
    ||f(x) - f(x')||_1 / ||x - x'||_inf with f the logits, NaN where x' = x.
    """

    correct: Tensor
    predicted: Tensor
    lipschitz: Tensor
    seconds: float


@torch.no_grad()
def clean_logits(net: nn.Module, examples: Examples, device: torch.device, batch_size: int) -> Tensor:
    """Logits at the clean images, (n, K) float32 on the CPU; raises FloatingPointError where they are not finite."""
    net.eval()
    logits = torch.cat([net(x).float().cpu() for _, x, _, _ in examples.batches(batch_size, device)])
    if not bool(torch.isfinite(logits).all()):
        raise FloatingPointError("the network's logits on clean images are not finite; nothing was recorded")
    return logits


def local_lipschitz(x: Tensor, x_adv: Tensor, logits: Tensor, logits_adv: Tensor) -> Tensor:
    """||f(x) - f(x')||_1 / ||x - x'||_inf of each example (Huang et al. 2021), NaN where x' = x. Returns (B,)."""
    distance = (x_adv.double() - x.double()).flatten(1).abs().amax(dim=1)
    change = (logits_adv.double() - logits.double()).abs().sum(dim=1)
    return torch.where(distance > 0, change / distance, torch.nan)


def run_attack(
    net: nn.Module,
    examples: Examples,
    attack: Attack,
    threat: ThreatModel,
    logits: Tensor,
    *,
    device: torch.device,
    batch_size: int,
    seed: int,
) -> Outcome:
    """Attack every example once and score the returned images.

    logits: (n, K), as of `clean_logits`. An attack that names a block size is called on such blocks instead.

    Raises:
        RuntimeError: if an image came back outside the ball or the box.
    """
    net.eval()
    size = attack.block_size or batch_size
    predicted = torch.empty(len(examples), dtype=torch.int64)
    lipschitz = torch.empty(len(examples), dtype=torch.float64)
    started = time.perf_counter()
    for where, x, y, index in examples.batches(size, device):
        x_adv = attack(net, x, y, threat, seed=seed, index=index)
        _require_allowed(threat, x, x_adv)
        with torch.no_grad():
            logits_adv = net(x_adv).float()
        if not bool(torch.isfinite(logits_adv).all()):
            raise FloatingPointError("the network's logits on attacked images are not finite")
        predicted[where] = logits_adv.argmax(dim=1).cpu()
        lipschitz[where] = local_lipschitz(x, x_adv, logits[where].to(device), logits_adv).cpu()
    seconds = time.perf_counter() - started
    return Outcome(predicted == examples.images.labels, predicted, lipschitz, seconds)


def _require_allowed(threat: ThreatModel, x: Tensor, x_adv: Tensor) -> None:
    distance = float(threat.distance(x.double(), x_adv.double()).max())
    low, high = (float(bound) for bound in x_adv.aminmax())
    if not (distance <= threat.eps and low >= 0 and high <= 1):  # false for NaN too
        raise RuntimeError(f"an attack left {threat} (distance {distance}) or the box [0, 1] ({low} to {high})")
