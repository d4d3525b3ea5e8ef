"""Is a network's robustness real, or do its gradients mislead the attacks? Seven checks with a verdict each.

Masked (obfuscated) gradients make gradient attacks fail on networks that other attacks break (Athalye et al. 2018).
The checks are those of Carlini et al. 2019 ("On evaluating adversarial robustness") and of Croce and Hein 2020. Passing
proves nothing; a flag means that the network's accuracy under gradient attacks cannot be trusted.
"""

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robust_arch.attacks import PGD, Attack, Clean, Margin, ThreatModel
from robust_arch.attacks.losses import CrossEntropy, LogitRatio, margin
from robust_arch.attacks.square import Square
from robust_arch.common import randomness
from robust_arch.common.progress import mention, step
from robust_arch.errors import invalid
from robust_arch.evaluation.checks import not_finite
from robust_arch.evaluation.examples import Examples
from robust_arch.evaluation.masking_verdicts import LOSS_STEPS, verdicts
from robust_arch.evaluation.record import share
from robust_arch.evaluation.surrogates import DISTILLATION_COPIES, distilled, presaturation

log = logging.getLogger(__name__)

MULTIPLES = tuple(Fraction(multiple) for multiple in ("0", "1/2", "1", "2", "4", "8"))
"""Radii in units of eps; one at which any image can be turned into any other is added."""
# The settings of cw40, on each loss: too large logits stop cross-entropy but not the margin. They start from the clean
# image, since a random start moves images whose gradient is zero and would hide that it is.
ATTACKS = {
    name: PGD(steps=LOSS_STEPS, rel_step_size=0.1, start=Clean(), loss=loss)
    for name, loss in (("cross_entropy", CrossEntropy()), ("margin", Margin()), ("logit_ratio", LogitRatio()))
}
"""Attacks by the loss that they climb; the last one needs three classes."""
CURVE = ("cross_entropy", "margin")
"""The attacks whose point-wise worst case is followed over the radii."""
STEPS = (1, 2, 5, 10, 20, 50, 100)
REL_PATH = 2.5  # steps of 2.5 eps / steps can cross the ball (Madry et al. 2018); at most eps, so one step is fgsm
QUERIES = 1000
REL_T = tuple(quarter / 4 for quarter in range(9))
"""Distances along a direction, in units of eps."""
RANDOM_DIRECTIONS = 4  # per image; the gradient is compared with their mean
REL_REPEAT = 1e-4  # of the length of the logits: what AutoAttack calls randomised; rounding stays below 1e-5


class _ZeroWhereMissing(nn.Module):
    """The network, whose gradient with respect to the images is zero where it is not finite or not available."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        if not x.requires_grad:
            return self.net(x)  # type: ignore[no-any-return]
        x = x.view_as(x)  # the caller's tensor keeps no hook
        x.register_hook(_finite)  # type: ignore[no-untyped-call]
        logits: Tensor = self.net(x)
        return logits + 0 * x.flatten(1).sum(dim=1, keepdim=True)


def _finite(gradient: Tensor) -> Tensor:
    return torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)


@torch.no_grad()
def _logits(net: nn.Module, x: Tensor) -> Tensor:
    """(B, K) float32; raises FloatingPointError where they are not finite."""
    logits: Tensor = net(x).float()
    if bad := not_finite(logits):
        raise FloatingPointError(
            f"the logits of {bad} of {len(x)} images are not finite, so that the network's gradients cannot be judged"
        )
    return logits


@dataclass(frozen=True)
class _Subject:
    """A network on its examples and device, the threat it faces, and how it is attacked."""

    net: nn.Module
    examples: Examples
    threat: ThreatModel
    device: torch.device
    batch_size: int
    seed: int

    def batches(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Images (B, C, H, W), labels (B,) and index (B,) on the device."""
        for _, x, y, index in self.examples.batches(self.batch_size, self.device):
            yield x, y, index

    def logits(self) -> Tensor:
        """At the clean images, (n, K) on the CPU."""
        return torch.cat([_logits(self.net, x).cpu() for x, _, _ in self.batches()])

    def surviving(
        self, attack: Attack, among: Tensor, threat: ThreatModel, attacked: nn.Module | None = None
    ) -> Tensor:
        """Those of `among`, (n,) bool, that the attack does not break; the rest is not attacked.

        attacked: the network that the attack sees, by default this one, which always classifies.
        """
        net, chosen = _ZeroWhereMissing(self.net if attacked is None else attacked), among.nonzero()[:, 0]
        surviving = torch.zeros_like(among)
        batches = self.examples.subset(chosen).batches(attack.block_size or self.batch_size, self.device)
        for where, x, y, index in batches:
            x_adv = attack(net, x, y, threat, seed=self.seed, index=index)
            surviving[chosen[where]] = (_logits(self.net, x_adv).argmax(dim=1) == y).cpu()
        return surviving


def diagnose(
    net: nn.Module, examples: Examples, threat: ThreatModel, *, device: torch.device, batch_size: int, seed: int
) -> dict[str, Any]:
    """Numbers and verdict of every check, and whether any is flagged: plain data for JSON, decided by `seed`.

    The network is on `device` and left in evaluation mode. Gradients that are not finite or not available (logits from
    argmax, or detached) count as zero, and are flagged.

    Raises:
        InputError: for a radius of 0 or no examples.
        FloatingPointError: for logits that are not finite, at clean, attacked or shifted images.
    """
    if not threat.eps:
        raise invalid("threat.eps", 0, "a radius greater than 0, to look for masked gradients")
    if not len(examples):
        raise invalid("evaluate.diagnostics", 0, "at least one example")
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)  # for a network that draws random numbers
        subject = _Subject(net.eval(), examples, threat, device, batch_size, seed)
        logits, again = subject.logits(), subject.logits()
        predicted = logits.argmax(dim=1)
        clean = predicted == examples.images.labels
        step(log, "losses")
        after_loss = {
            name: subject.surviving(attack, clean, threat)
            for name, attack in ATTACKS.items()
            if name in CURVE or examples.images.num_classes >= 3
        }
        after_losses = torch.stack(list(after_loss.values())).all(dim=0)
        radii = _curve_over_eps(subject, clean, after_loss)
        steps, after_steps = _curve_over_steps(subject, clean)
        white_box = after_steps & after_losses
        found = {
            "eps": {"points": radii, "classes": len(set(predicted.tolist()))},
            "steps": steps,
            # missed: images that another loss breaks and this one does not
            "losses": [
                {"loss": name, "standing": share(mine), "missed": share(mine & ~after_losses)}
                for name, mine in after_loss.items()
            ],
            "square": _black_box(subject, white_box),
            "transfer": _transfer(subject, white_box),
            "directions": _directions(subject, white_box),
            "repeat": {"changed": share(_differ(logits, again))},
        }
    judged = verdicts(found)
    about = {"n": len(examples), "norm": threat.norm, "threat": str(threat), "seed": seed, "cost": _cost(len(radii))}
    return {**about, **found, "verdicts": judged, "flagged": not all(verdict["ok"] for verdict in judged)}


def _cost(radii: int) -> dict[str, int]:
    """The most passes per image, forward and backward or forward only; broken images are not attacked again."""
    # radii other than 0 and eps, whose attacks are those of the losses; the distilled surrogate's passes are its own
    curves = radii - 2 + 1
    each = {name: attack.gradients for name, attack in ATTACKS.items()}
    gradients = curves * sum(each[name] for name in CURVE) + sum(each.values()) + sum(STEPS) + 2
    return {"gradients": gradients, "forwards": QUERIES + DISTILLATION_COPIES + len(REL_T) * (2 + RANDOM_DIRECTIONS)}


def _radii(threat: ThreatModel, pixels: int) -> list[Fraction]:
    """Ascending, eps among them; at the last one any image can be turned into any other."""
    # the diagonal of the unit cube, rounded up, or its side
    whole = Fraction(math.isqrt(pixels - 1) + 1 if threat.norm == "l2" else 1)
    eps = threat.eps_fraction
    return sorted({*(multiple * eps for multiple in MULTIPLES if multiple <= 1 or multiple * eps < whole), whole})


def _curve_over_eps(subject: _Subject, clean: Tensor, at_eps: dict[str, Tensor]) -> list[dict[str, Any]]:
    """Point-wise worst case over the attacks of `CURVE` at each radius.

    clean: (n,) bool. at_eps: survivors of each of them at the threat's radius.
    """
    step(log, "eps")
    rows = []
    for eps in _radii(subject.threat, math.prod(subject.examples.images.image_shape)):
        mention(f"eps {eps}")
        threat, survivors = ThreatModel(subject.threat.norm, eps), clean
        for name in CURVE if eps else ():
            known = threat == subject.threat
            survivors = survivors & at_eps[name] if known else subject.surviving(ATTACKS[name], survivors, threat)
        rows.append({"eps": str(eps), "radius": float(eps), **share(survivors)})
    return rows


def _curve_over_steps(subject: _Subject, clean: Tensor) -> tuple[list[dict[str, Any]], Tensor]:
    """Cross-entropy at eps from the clean image; and what survives every number of steps. clean: (n,) bool."""
    step(log, "steps")
    rows, always = [], clean
    for steps in STEPS:
        mention(f"{steps} steps")
        attack = PGD(steps=steps, rel_step_size=min(1.0, REL_PATH / steps), start=Clean())
        survivors = subject.surviving(attack, clean, subject.threat)
        always = always & survivors
        rows.append({"steps": steps, "rel_step_size": attack.rel_step_size, **share(survivors)})
    return rows, always


def _black_box(subject: _Subject, white_box: Tensor) -> dict[str, Any]:
    """What the Square attack breaks of the survivors of every white-box attack. white_box: (n,) bool."""
    step(log, f"square, {int(white_box.sum())} survivors")
    attack = Square(queries=QUERIES)
    both = subject.surviving(attack, white_box, subject.threat)
    return {
        "queries": QUERIES,
        "implementation": attack.implementation,
        "white_box": share(white_box),
        "both": share(both),
        "broken": share(white_box & ~both),
    }


def _transfer(subject: _Subject, white_box: Tensor) -> list[dict[str, Any]]:
    """What images made on surrogates break of the survivors of every white-box attack. white_box: (n,) bool."""
    if not bool(white_box.any()):
        return []
    step(log, "transfer")
    x = torch.cat([batch for batch, _, _ in subject.batches()])
    surrogates: dict[str, nn.Module | None] = {
        "before saturation": presaturation(subject.net, x[: subject.batch_size]),
        "distilled": distilled(subject.net, x, subject.threat, subject.examples.images.num_classes),
    }
    rows = []
    for name, surrogate in surrogates.items():
        if surrogate is not None:
            survivors = white_box
            for loss in CURVE:
                survivors = subject.surviving(ATTACKS[loss], survivors, subject.threat, surrogate)
            rows.append({"surrogate": name, "white_box": share(white_box), "broken": share(white_box & ~survivors)})
    return rows


def _directions(subject: _Subject, white_box: Tensor) -> dict[str, Any]:
    """Mean losses along their own gradients and along random directions; images without a gradient.

    The latter are counted among all images and among the survivors of every white-box attack. white_box: (n,) bool.
    """
    step(log, "directions")
    parts = zip(*(_along_directions(subject, x, y, index) for x, y, index in subject.batches()), strict=True)
    along, random, moves = (torch.cat(part, dim=-1).cpu() for part in parts)
    wins = (along > random)[:, REL_T.index(1.0)]
    losses = {
        name: {
            "gradient": along[position].mean(dim=1).tolist(),
            "random": random[position].mean(dim=1).tolist(),
            "wins": share(wins[position]),
        }
        for position, name in enumerate(CURVE)
    }
    about = {"rel_t": list(REL_T), "random_directions": RANDOM_DIRECTIONS}
    return {**about, **losses, "no_gradient": share(~moves), "no_gradient_standing": share(~moves[white_box])}


def _along_directions(subject: _Subject, x: Tensor, y: Tensor, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Losses (2, T, B) along their own gradients, along random directions, and which images have a gradient, (B,)."""
    gradients = [_gradient(subject.net, x, y, loss) for loss in range(2)]
    along = [_profile(subject, x, y, _finite(gradient))[loss] for loss, gradient in enumerate(gradients)]
    seeds = [randomness.derive(subject.seed, "masking", number) for number in range(RANDOM_DIRECTIONS)]
    # under linf the steepest direction is the sign, so these are -1 or 1 per pixel; under l2 it is the unit vector
    noise = [randomness.normal(randomness.example_keys(seed, index), tuple(x.shape[1:])) for seed in seeds]
    random = torch.stack([_profile(subject, x, y, direction) for direction in noise]).mean(dim=0)
    flat = gradients[0].flatten(1)
    return torch.stack(along), random, flat.isfinite().all(dim=1) & (flat != 0).any(dim=1)


@torch.enable_grad()
def _gradient(net: nn.Module, x: Tensor, y: Tensor, loss: int) -> Tensor:
    """The gradient of one of the losses in the precision of the attacks, like x; zero where there is none."""
    x = x.detach().clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(_losses(net(x).float(), y)[loss].sum() + 0 * x.sum(), x)
    return gradient


def _profile(subject: _Subject, x: Tensor, y: Tensor, direction: Tensor) -> Tensor:
    """Losses (2, T, B) at x + t eps * (steepest for `direction`), clipped to the box."""
    offset = subject.threat.eps * subject.threat.steepest(direction)
    shifted = [(x + t * offset).clamp(0, 1) for t in REL_T]
    return torch.stack([_losses(_logits(subject.net, x).double(), y) for x in shifted], dim=1)


def _losses(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy and margin of each image: (2, B)."""
    return torch.stack([F.cross_entropy(logits, y, reduction="none"), margin(logits, y)])


def _differ(logits: Tensor, again: Tensor) -> Tensor:
    """Images whose logits change in a second forward pass: (n,) bool."""
    change = torch.linalg.vector_norm((again - logits).double(), dim=1)
    differ: Tensor = change > REL_REPEAT * torch.linalg.vector_norm(logits.double(), dim=1)
    return differ
