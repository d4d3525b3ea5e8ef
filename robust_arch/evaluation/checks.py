"""What must hold before a number is recorded, and after each attack."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robust_arch.attacks import ThreatModel
from robust_arch.attacks.base import undisturbed
from robust_arch.common.statistics import wilson_interval
from robust_arch.evaluation.examples import Examples

TOLERANCE = 1e-3
"""Logits agree if no difference exceeds this share of the largest |logit|: float32 sums in another order stay a
hundred times below it, batch statistics, noise and bfloat16 do not."""
_PROBES = 64
_MARGIN_OF_CHANCE = 0.1  # of the way from chance to 100%: a network whose interval ends below it has learnt nothing
_CAUSES = (
    "; usual causes: too little training, a missing normalisation, classes or channels in another order, weights that "
    "are not the trained ones, or a network that was saved or called in training mode"
)
_ZERO_GRADIENTS = 0.05  # share of examples above which cross-entropy attacks are noticeably weaker


@dataclass(frozen=True)
class Check:
    """What was checked, whether it is `ok`, a `warning` or `failed`, and what was found."""

    name: str
    state: str
    detail: str


def preflight(
    net: nn.Module, examples: Examples, logits: Tensor, threat: ThreatModel, device: torch.device
) -> list[Check]:
    """Input range, evaluation mode, the same logits however they are batched, gradients, accuracy above chance.

    Logits that are not finite fail a check of their own, which is then the only one. logits: (n, K) at the clean
    images. `net` is on `device`.
    """
    if bad := not_finite(logits):
        return [Check("finite logits", "failed", f"the logits of {bad} of {len(logits)} images are NaN or infinite")]
    probes = examples.sample(_PROBES)
    ((_, x, y, _),) = probes.batches(len(probes), device)
    low, high = (float(bound) for bound in x.aminmax())
    training = [name or type(module).__name__ for name, module in net.named_modules() if module.training]
    mode = f"in training mode: {', '.join(training[:3])}" if training else "every module"
    with torch.no_grad():  # what is computed between weights and logits cannot be seen
        types = {str(tensor.dtype) for tensor in (*net.parameters(), net(x[:1])) if tensor.is_floating_point()}
    return [
        Check("images in [0, 1]", _state(low >= 0 and high <= 1), f"from {low:.4f} to {high:.4f}"),
        Check("evaluation mode", _state(not training), mode),
        Check("float32", _state(types == {"torch.float32"}), ", ".join(sorted(types))),
        *_same_logits(net, x),
        _gradients(net, x, y, threat),
        above_chance(logits.argmax(dim=1).eq(examples.images.labels), logits.shape[1]),
    ]


def not_finite(logits: Tensor) -> int:
    """How many images have logits that are NaN or infinite. logits: (B, K)."""
    return int((~logits.isfinite().all(dim=1)).sum())


def _state(ok: bool) -> str:
    return "ok" if ok else "failed"


@torch.no_grad()
def _same_logits(net: nn.Module, x: Tensor) -> Iterator[Check]:
    together = net(x)
    # seven parts, none of which is a single image if that can be helped: batch statistics refuse those
    parts = torch.tensor_split(x, min(7, max(1, len(x) // 2)))
    others = {
        "same logits when asked again": net(x),
        "same logits in another order": net(x.flip(0)).flip(0),
        "same logits at another batch size": torch.cat([net(part) for part in parts]),
    }
    for name, logits in others.items():
        yield Check(name, _state(logits_agree(together, logits)), _difference(together, logits))


def _difference(logits: Tensor, others: Tensor) -> str:
    return (
        f"largest difference {float((logits - others).abs().max()):.2g}, largest logit {float(logits.abs().max()):.2g}"
    )


def logits_agree(logits: Tensor, others: Tensor) -> bool:
    """Whether two computations of the same logits, (B, K) each, differ by rounding at most."""
    return bool((logits - others).abs().max() <= TOLERANCE * logits.abs().max())


def _gradients(net: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel) -> Check:
    """Gradients of the cross-entropy at the clean images; zero ones give attacks no direction."""
    with torch.enable_grad(), undisturbed(net):
        x = x.clone().requires_grad_(True)
        loss = F.cross_entropy(net(x), y, reduction="sum")
        # the second term makes the gradient zero where logits are detached from the images
        (gradient,) = torch.autograd.grad(loss + 0 * x.sum(), x)
    useless = ~gradient.isfinite().flatten(1).all(dim=1) | (gradient.flatten(1) == 0).all(dim=1)
    count, n = int(useless.sum()), len(x)
    # nothing can be attacked where nothing may be changed
    state = "failed" if count == n and threat.eps > 0 else "warning" if count > _ZERO_GRADIENTS * n else "ok"
    return Check("gradients", state, f"{count} of {n} examples have a gradient that is zero everywhere or not finite")


def above_chance(correct: Tensor, classes: int) -> Check:
    """Clean accuracy against guessing; a warning where there are too few images to decide. correct: (n,) booleans."""
    count, n, chance = int(correct.sum()), len(correct), 1 / classes
    low, high = wilson_interval(count, n)
    learnt_nothing = high < chance + _MARGIN_OF_CHANCE * (1 - chance)
    state = "ok" if low > chance else "failed" if learnt_nothing else "warning"
    detail = f"{100 * count / n:.1f}% [{100 * low:.1f}, {100 * high:.1f}] of {n}, chance {100 * chance:.1f}%"
    detail += "" if state == "ok" else _CAUSES
    return Check("clean accuracy above chance", state, detail)


def after_attack(net: nn.Module, threat: ThreatModel, x: Tensor, x_adv: Tensor, logits_adv: Tensor) -> Iterator[str]:
    """What is wrong with attacked images: outside the ball or the box, or different logits when scored again.

    x, x_adv: (B, C, H, W); logits_adv: (B, K), the first score of x_adv.
    """
    distance = float(threat.distance(x.double(), x_adv.double()).max())
    low, high = (float(bound) for bound in x_adv.aminmax())
    if not (distance <= threat.eps and low >= 0 and high <= 1):  # false for NaN too
        yield f"images left {threat} (distance {distance:.9g}) or the box [0, 1] ({low:.9g} to {high:.9g})"
    with torch.no_grad():
        again = net(x_adv.flip(0)).flip(0)
    if not logits_agree(logits_adv, again):
        yield f"the same images get different logits when scored again ({_difference(logits_adv, again)})"
