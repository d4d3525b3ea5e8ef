"""Whether a network from elsewhere works clearly better behind another normalisation than the one it is scored with."""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from robust_arch.common.statistics import compare_paired
from robust_arch.evaluation.checks import Check
from robust_arch.evaluation.examples import Examples
from robust_arch.evaluation.scoring import clean_logits

_MOST = 1_000  # images of each part: enough for a difference of one point, and few beside an attack
_LEVEL = 0.01  # of McNemar's exact test on the same images


def try_alternatives(
    net: nn.Module,
    alternatives: Mapping[str, nn.Module],
    parts: Sequence[Examples],
    device: torch.device,
    batch_size: int,
) -> list[Check]:
    """One check per alternative: a warning where it is right on significantly more of the same clean images.

    alternatives: name to the same network behind another normalisation. parts: labelled images. All networks are on
    `device`. Logits that are not finite are wrong.
    """
    samples = [part.sample(_MOST) for part in parts]

    def correct(candidate: nn.Module) -> torch.Tensor:
        logits = torch.cat([clean_logits(candidate, sample, device, batch_size) for sample in samples])
        labels = torch.cat([sample.images.labels for sample in samples])
        return logits.argmax(dim=1).eq(labels) & logits.isfinite().all(dim=1)

    own = correct(net)
    checks = []
    for name, alternative in alternatives.items():
        other = correct(alternative)
        pair = compare_paired(other.numpy(), own.numpy())
        better = pair.difference > 0 and pair.p_value < _LEVEL
        detail = (
            f"with {name} the network is right on {100 * float(other.float().mean()):.1f}% of {pair.n} clean images of "
            f"the training and test parts, as it is scored here on {100 * float(own.float().mean()):.1f}% (McNemar's "
            f"exact test, p = {pair.p_value:.2g})"
        )
        if better:
            detail += ": the network's own normalisation is probably not the one that it is scored with"
        checks.append(Check("another normalisation", "warning" if better else "ok", detail))
    return checks
