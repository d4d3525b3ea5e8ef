"""How much a network changes under attack, and how much it can change at most by its operator norms."""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robust_arch.architectures import Classifier, ImageShape
from robust_arch.architectures.family import BoundedNetwork, StagedNetwork
from robust_arch.attacks import Attack, ThreatModel
from robust_arch.attacks.base import image_gradient, undisturbed
from robust_arch.attacks.norms import NORMS, Norm
from robust_arch.common.progress import step
from robust_arch.errors import invalid
from robust_arch.evaluation.examples import Examples
from robust_arch.evaluation.operator_norms import hooked, operator_norms

log = logging.getLogger(__name__)


def _kl(logits: Tensor, logits_adv: Tensor) -> Tensor:
    # in float64, unlike the loss: for near distributions the sum cancels to the square of their difference
    log_p, log_q = F.log_softmax(logits, dim=1), F.log_softmax(logits_adv, dim=1)
    return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(dim=1).clamp(min=0)


LIPSCHITZ_FORMS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Norm]] = {
    "l1_linf": (lambda logits, logits_adv: (logits_adv - logits).abs().sum(dim=1), NORMS["linf"]),
    "kl": (_kl, NORMS["linf"]),
    "l2": (NORMS["l2"].distance, NORMS["l2"]),
}
"""Name to (change of the logits, length of the change of the image)."""


def local_lipschitz(x: Tensor, x_adv: Tensor, logits: Tensor, logits_adv: Tensor, form: str = "l1_linf") -> Tensor:
    """The change of each example's logits over the change of its image; NaN where x' = x.

    Args:
        x: clean images (B, C, H, W).
        x_adv: attacked images (B, C, H, W).
        logits: f(x), (B, K).
        logits_adv: f(x'), (B, K).
        form: l1_linf, ||f(x) - f(x')||_1 / ||x - x'||_inf (Huang et al. 2021); kl, KL(p(x) || p(x')) in nats over
            the same; l2, ||f(x) - f(x')||_2 / ||x - x'||_2, the one that an operator norm bounds.

    Returns:
        (B,) float64.

    Raises:
        InputError: for another form.
    """
    if form not in LIPSCHITZ_FORMS:
        raise invalid("form", form, f"one of {', '.join(LIPSCHITZ_FORMS)}")
    change, norm = LIPSCHITZ_FORMS[form]
    return _ratio(change(logits.double(), logits_adv.double()), norm.distance(x.double(), x_adv.double()))


def _ratio(change: Tensor, distance: Tensor) -> Tensor:
    return torch.where(distance > 0, change / distance, torch.nan)


def fosc(net: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, threat: ThreatModel) -> Tensor:
    """First-order stationary condition c(x') = eps ||g||_* - <x' - x, g> of each example (Wang et al., ICML 2019).

    g is the gradient of the cross-entropy at x', ||.||_* the dual of the threat's norm. 0 where no point of the ball
    is better to first order; the box of images is ignored, as in the source, so at the box's border c stays above 0
    though nothing is left to gain.

    Args:
        net: images (B, C, H, W) in [0, 1] to logits (B, K); left unchanged.
        x: clean images (B, C, H, W).
        x_adv: attacked images (B, C, H, W).
        y: labels (B,), int64.
        threat: the ball.

    Returns:
        (B,) float64, in nats.
    """
    # as in Attack: gradients are available under no_grad and inference_mode too
    with torch.inference_mode(False), torch.enable_grad(), undisturbed(net):
        point = x_adv.detach().clone().requires_grad_(True)
        # in float64: in float32 the gradient of a confident example is rounded away
        loss = F.cross_entropy(net(point).double(), y.clone(), reduction="sum")
        gradient = image_gradient(loss, point).double()
    gained = ((x_adv.double() - x.double()) * gradient).flatten(1).sum(dim=1)
    return threat.eps * NORMS[threat.norm].dual(gradient) - gained


@dataclass(frozen=True)
class StageChange:
    """How much one stage's features change under attack, in l2: (B,) float64 each, NaN where the denominator is 0.

    Attributes:
        name: "stem" (everything before the first stage), "stage 1", ..., "logits".
        from_input: ||h(x') - h(x)|| / ||x' - x||.
        alone: the same numerator over the change of the stage's input; the stem's input is the image, not normalised.
    """

    name: str
    from_input: Tensor
    alone: Tensor


@torch.no_grad()
def stage_changes(net: Classifier, x: Tensor, x_adv: Tensor) -> list[StageChange]:
    """The measured change of stem, each stage and logits, in this order; `net` is left unchanged.

    For a network that is not a `StagedNetwork`, "logits" is the only entry.

    x, x_adv: (B, C, H, W) in [0, 1].

    Raises:
        FloatingPointError: if a feature is not finite.
    """
    clean, attacked = _features(net, x), _features(net, x_adv)
    moved = before = NORMS["l2"].distance(x.double(), x_adv.double())
    changes = []
    for name, features in clean.items():
        # one stage at a time: in float64 all of them would need much memory
        change = NORMS["l2"].distance(features.double(), attacked[name].double())
        if not bool(torch.isfinite(change).all()):
            raise FloatingPointError(f"the features after {name} are not finite")
        changes.append(StageChange(name, _ratio(change, moved), _ratio(change, before)))
        before = change
    return changes


def _features(net: Classifier, x: Tensor) -> dict[str, Tensor]:
    """The output of the stem, of each stage and of the head, (B, ...) each; only of the head without stages."""
    stages = list(net.network.stages) if isinstance(net.network, StagedNetwork) else []
    names = {stage: f"stage {i}" for i, stage in enumerate(stages, start=1)}
    features: dict[str, Tensor] = {}

    def keep(stage: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        if stage is stages[0]:
            features["stem"] = args[0]
        features[names[stage]] = output

    with undisturbed(net), hooked(stages, keep):
        logits = net(x)
    return {**features, "logits": logits}


def upper_bounds(net: Classifier, image_shape: ImageShape) -> dict[str, Any]:
    """Upper bounds of the l2 Lipschitz constants in evaluation mode, from the layers' operator norms.

    They are as certain as those norms: those of convolutions are approached from below (`conv_norm`).

    Returns:
        Plain JSON data. layers: name, norm, converged of each; stages: "stem" (with the normalisation, from images in
        [0, 1]), "stage 1", ..., "head", each by itself; network: their product, from images to logits.

    Raises:
        InputError: for a network that is not a `BoundedNetwork`, or a layer whose norm is not known.
    """
    network = net.network
    if not isinstance(network, BoundedNetwork):
        raise invalid("net", type(network).__name__, "a BoundedNetwork; upper bounds are not available for this family")
    norms = operator_norms(net, image_shape)
    stages = network.lipschitz_bounds(lambda layer: norms[layer].norm)
    stages = {**stages, "stem": norms[net.normalize].norm * stages["stem"]}
    return {
        "layers": [{"name": layer.name, "norm": layer.norm, "converged": layer.converged} for layer in norms.values()],
        "stages": stages,
        "network": math.prod(stages.values()),
    }


def stage_smoothness(
    net: Classifier,
    examples: Examples,
    attack: Attack,
    threat: ThreatModel,
    *,
    device: torch.device,
    batch_size: int,
    seed: int,
) -> dict[str, Any]:
    """Measured change under `attack` and upper bound, stage by stage; `net` is on `device`.

    Returns:
        Plain JSON data. n: examples that the attack moved, left_out: those with x' = x, which no mean contains.
        stages: for each (the head is named after its output, "logits") the mean change from_input, the mean and the
        maximum of the change alone, and the bound of that; alone_n: examples in these two, whose input of the stage
        changed. A mean or maximum of nothing is None. bounds: as of `upper_bounds`; None, as is each stage's, where
        bounds are not available for the family.
    """
    step(log, "change under attack")
    batches = []
    for _, x, y, index in examples.batches(attack.block_size or batch_size, device):
        batches.append(stage_changes(net, x, attack(net, x, y, threat, seed=seed, index=index)))
    bounds = None
    if isinstance(net.network, BoundedNetwork):
        step(log, "operator norms of its layers")
        bounds = upper_bounds(net, examples.images.image_shape)
    else:
        log.warning("evaluate.smoothness: the bounds of the network's parts are not available for this family")
    stages = []
    for parts in zip(*batches, strict=True):
        name = parts[0].name
        from_input, alone = _defined([part.from_input for part in parts]), _defined([part.alone for part in parts])
        stages.append(
            {
                "name": name,
                "from_input": float(from_input.mean()) if len(from_input) else None,
                "alone": float(alone.mean()) if len(alone) else None,
                "alone_max": float(alone.max()) if len(alone) else None,
                "alone_n": len(alone),
                "bound": bounds["stages"].get("head" if name == "logits" else name) if bounds else None,
            }
        )
        moved = len(from_input)  # the same for every stage
    return {"n": moved, "left_out": len(examples) - moved, "stages": stages, "bounds": bounds}


def _defined(parts: Sequence[Tensor]) -> Tensor:
    """The numbers of all batches that are not NaN, on the CPU."""
    ratios = torch.cat([part.cpu() for part in parts])
    return ratios[~ratios.isnan()]
