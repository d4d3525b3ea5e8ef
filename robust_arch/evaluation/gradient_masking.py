"""Is a network's robustness real, or do its gradients mislead the attacks? Seven checks with a verdict each.

Masked (obfuscated) gradients make gradient attacks fail on networks that other attacks break (Athalye et al. 2018).
The checks are those of Carlini et al. 2019 ("On evaluating adversarial robustness") and of Croce and Hein 2020. Passing
proves nothing; a flag says not to believe the network's accuracy under gradient attacks.
"""

import math
from collections.abc import Callable, Iterator
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
from robust_arch.common.statistics import recorded_share
from robust_arch.errors import invalid
from robust_arch.evaluation.examples import Examples
from robust_arch.evaluation.surrogates import DISTILLATION_COPIES, distilled, presaturation

MULTIPLES = tuple(Fraction(multiple) for multiple in ("0", "1/2", "1", "2", "4", "8"))
"""Radii in units of eps; one at which any image can be turned into any other is added."""
LOSS_STEPS = 40
# The settings of cw40, on each loss: too large logits stop cross-entropy and not the margin. From the clean image: a
# random start moves images whose gradient is zero, and would hide that it is.
ATTACKS = {
    name: PGD(steps=LOSS_STEPS, rel_step_size=0.1, start=Clean(), loss=loss)
    for name, loss in (("cross_entropy", CrossEntropy()), ("margin", Margin()), ("logit_ratio", LogitRatio()))
}
"""By the loss that they climb; the last one needs three classes."""
CURVE = ("cross_entropy", "margin")
"""Those of them whose point-wise worst case is followed over the radii."""
STEPS = (1, 2, 5, 10, 20, 50, 100)
FEW, MANY = 20, 100  # pgd20 must have converged
REL_PATH = 2.5  # steps of 2.5 eps / steps can cross the ball (Madry et al. 2018); at most eps, so one step is fgsm
QUERIES = 1000
REL_T = tuple(quarter / 4 for quarter in range(9))
"""Distances along a direction, in units of eps."""
RANDOM_DIRECTIONS = 4  # an image; the gradient is held against their mean

# A share of the images breaks its limit if the lower end of its 95% Wilson interval lies above: chance flags nothing.
MAX_STANDING = 0.02  # at the last radius every image can be reached: whoever stands was missed, and is not robust
MAX_RISE = 0.02  # a ball holds every smaller one: an accuracy that rises with the radius is a failure of the attack
MAX_WORSE = 0.01  # many steps reach what one step does; they fail where the loss is jagged or the gradient lies
MAX_UNCONVERGED = 0.03  # on honest networks pgd20 has all but converged: less than a point is left
MAX_BLACK_BOX = 0.02  # one search without gradients is weaker than many attacks with gradients that tell the truth
# On nine diagnoses of honest networks (digits, 120 images; two naturally and two adversarially trained, linf 0.1 to 0.3
# and l2 0.5) one loss missed at most 6 of 120 images, and surrogates broke 1 of 408 that stood.
MAX_MISSED = 0.10
MAX_TRANSFER = 0.02
# Where few images stand, a share of all images hides what falls: these limits are of those that stood, and never fewer
# than MIN_FALLEN images. 6 of 11 exceed a quarter by their interval, 2 of 2 do not.
MAX_OF_STANDING = 0.25
MAX_TRANSFER_OF_STANDING = 0.05
MIN_FALLEN = 3
MIN_WINS = 0.75  # against random directions a gradient without information wins on half of the images
MAX_NO_GRADIENT = 0.01  # these images never move in a gradient attack, whatever it reports
MAX_RANDOM = 0.0  # the accuracy of a network that draws random numbers needs attacks of its own
REL_REPEAT = 1e-4  # of the length of the logits: what AutoAttack calls randomised; rounding stays below 1e-5


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
        for _, *batch in self.examples.batches(self.batch_size, self.device):
            yield batch[0], batch[1], batch[2]

    def standing(self, attack: Attack, among: Tensor, threat: ThreatModel, attacked: nn.Module | None = None) -> Tensor:
        """Those of `among` that the attack does not break; the others are not attacked. among: (n,) bool, as returned.

        attacked: the network that the attack sees, this one unless given; this one classifies.

        A gradient that is not finite counts as zero in the attack; `_against_directions` says how many there are.
        """
        net, chosen = _FiniteGradients(self.net if attacked is None else attacked), among.nonzero()[:, 0]
        standing = torch.zeros_like(among)
        for where, x, y, index in self.examples.subset(chosen).batches(
            attack.block_size or self.batch_size, self.device
        ):
            x_adv = attack(net, x, y, threat, seed=self.seed, index=index)
            standing[chosen[where]] = (_logits(self.net, x_adv).argmax(dim=1) == y).cpu()
        return standing


class _FiniteGradients(nn.Module):
    """The network, its gradient with respect to the images zero where it is not finite."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K) of x: (B, C, H, W)."""
        if x.requires_grad:
            x = x.view_as(x)  # the caller's tensor keeps no hook
            x.register_hook(_finite)  # type: ignore[no-untyped-call]
        logits: Tensor = self.net(x)
        return logits


def diagnose(
    net: nn.Module, examples: Examples, threat: ThreatModel, *, device: torch.device, batch_size: int, seed: int
) -> dict[str, Any]:
    """Numbers and verdict of every check, and whether any is flagged: plain data for JSON, decided by `seed`.

    The network is on `device` and left in evaluation mode.

    Raises:
        InputError: for a radius of 0 or no examples.
        FloatingPointError: for logits that are not finite, at clean, attacked or shifted images.
    """
    if not threat.eps:
        raise invalid("threat.eps", 0, "greater than 0, to look for masked gradients")
    if not len(examples):
        raise invalid("evaluate.diagnostics", 0, "at least one example")
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)  # for a network that draws random numbers
        subject = _Subject(net.eval(), examples, threat, device, batch_size, seed)
        logits, again = _clean_logits(subject), _clean_logits(subject)
        predicted = logits.argmax(dim=1)
        clean = predicted == examples.images.labels
        standing = _after_each_loss(subject, clean)
        radii = _against_eps(subject, clean, standing)
        steps, after_steps = _against_steps(subject, clean)
        losses, after_losses = _compared(standing)
        white_box = after_steps & after_losses
        found = {
            "eps": {"points": radii, "classes": len(set(predicted.tolist()))},
            "steps": steps,
            "losses": losses,
            "square": _against_square(subject, white_box),
            "transfer": _against_transfer(subject, white_box),
            "directions": _against_directions(subject, white_box),
            "repeat": {"changed": _share(_differ(logits, again))},
        }
    verdicts = [{"name": name, **judge(found[name])} for name, judge in _JUDGES.items()]
    about = {"n": len(examples), "norm": threat.norm, "threat": str(threat), "seed": seed, "cost": _cost(len(radii))}
    return {**about, **found, "verdicts": verdicts, "flagged": not all(verdict["ok"] for verdict in verdicts)}


def _cost(radii: int) -> dict[str, int]:
    """The most passes per image, forward and backward or forward alone; fallen images are not attacked again."""
    # radii but 0 and eps, whose attacks are those of the losses; the distilled surrogate's passes are its own
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


def _after_each_loss(subject: _Subject, clean: Tensor) -> dict[str, Tensor]:
    """Who stands at eps after each attack of `ATTACKS` by itself, by its loss: (n,) bool. clean: (n,) bool."""
    few_classes = subject.examples.images.num_classes < 3
    return {
        name: subject.standing(attack, clean, subject.threat)
        for name, attack in ATTACKS.items()
        if name in CURVE or not few_classes
    }


def _against_eps(subject: _Subject, clean: Tensor, at_eps: dict[str, Tensor]) -> list[dict[str, Any]]:
    """Point-wise worst case over the attacks of `CURVE` at each radius.

    clean: (n,) bool. at_eps: who stands at the threat's radius after each of them.
    """
    rows = []
    for eps in _radii(subject.threat, math.prod(subject.examples.images.image_shape)):
        threat, standing = ThreatModel(subject.threat.norm, eps), clean
        for name in CURVE if eps else ():
            known = threat == subject.threat
            standing = standing & at_eps[name] if known else subject.standing(ATTACKS[name], standing, threat)
        rows.append({"eps": str(eps), "radius": float(eps), **_share(standing)})
    return rows


def _against_steps(subject: _Subject, clean: Tensor) -> tuple[list[dict[str, Any]], Tensor]:
    """Cross-entropy at eps from the clean image; who stands after any number of steps. clean: (n,) bool."""
    rows, always = [], clean
    for steps in STEPS:
        attack = PGD(steps=steps, rel_step_size=min(1.0, REL_PATH / steps), start=Clean())
        standing = subject.standing(attack, clean, subject.threat)
        always = always & standing
        rows.append({"steps": steps, "rel_step_size": attack.rel_step_size, **_share(standing)})
    return rows, always


def _compared(standing: dict[str, Tensor]) -> tuple[list[dict[str, Any]], Tensor]:
    """Who stands after each loss, and who of them after all: rows, and (n,) bool. standing: (n,) bool by loss.

    missed: images that another loss breaks and this one does not.
    """
    after_all = torch.stack(list(standing.values())).all(dim=0)
    rows = [
        {"loss": name, "standing": _share(mine), "missed": _share(mine & ~after_all)} for name, mine in standing.items()
    ]
    return rows, after_all


def _against_transfer(subject: _Subject, white_box: Tensor) -> list[dict[str, Any]]:
    """Whom of those that every white-box attack left standing images break that were made on a surrogate."""
    if not bool(white_box.any()):
        return []
    x = torch.cat([batch for batch, _, _ in subject.batches()])
    surrogates: dict[str, nn.Module | None] = {
        "before saturation": presaturation(subject.net, x[: subject.batch_size]),
        "distilled": distilled(subject.net, x, subject.threat, subject.examples.images.num_classes),
    }
    rows = []
    for name, surrogate in surrogates.items():
        if surrogate is not None:
            standing = white_box
            for loss in CURVE:
                standing = subject.standing(ATTACKS[loss], standing, subject.threat, surrogate)
            rows.append({"surrogate": name, "white_box": _share(white_box), "broken": _share(white_box & ~standing)})
    return rows


def _against_square(subject: _Subject, white_box: Tensor) -> dict[str, Any]:
    """Whom of those that every white-box attack left standing the black-box attack breaks. white_box: (n,) bool."""
    attack = Square(queries=QUERIES)
    both = subject.standing(attack, white_box, subject.threat)
    return {
        "queries": QUERIES,
        "implementation": attack.implementation,
        "white_box": _share(white_box),
        "both": _share(both),
        "broken": _share(white_box & ~both),
    }


def _against_directions(subject: _Subject, white_box: Tensor) -> dict[str, Any]:
    """Mean losses along their own gradients and along random directions; images without a gradient.

    Those are counted among all images and among those that every white-box attack left standing. white_box: (n,) bool.
    """
    parts = zip(*(_along_directions(subject, x, y, index) for x, y, index in subject.batches()), strict=True)
    along, random, moves = (torch.cat(part, dim=-1).cpu() for part in parts)
    wins = (along > random)[:, REL_T.index(1.0)]
    losses = {
        name: {
            "gradient": along[position].mean(dim=1).tolist(),
            "random": random[position].mean(dim=1).tolist(),
            "wins": _share(wins[position]),
        }
        for position, name in enumerate(("cross_entropy", "margin"))
    }
    about = {"rel_t": list(REL_T), "random_directions": RANDOM_DIRECTIONS}
    return {**about, **losses, "no_gradient": _share(~moves), "no_gradient_standing": _share(~moves[white_box])}


def _along_directions(subject: _Subject, x: Tensor, y: Tensor, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Losses (2, T, B) along their own gradients, losses along random directions, and who has a gradient, (B,)."""
    gradients = [_gradient(subject.net, x, y, loss) for loss in (0, 1)]
    along = [_profile(subject, x, y, _finite(gradient))[loss] for loss, gradient in enumerate(gradients)]
    seeds = [randomness.derive(subject.seed, "masking", number) for number in range(RANDOM_DIRECTIONS)]
    # under linf the steepest direction is the sign, so these are -1 or 1 a pixel; under l2 it is the unit vector
    noise = [randomness.normal(randomness.example_keys(seed, index), tuple(x.shape[1:])) for seed in seeds]
    random = [_profile(subject, x, y, direction) for direction in noise]
    flat = gradients[0].flatten(1)
    moves = flat.isfinite().all(dim=1) & (flat != 0).any(dim=1)
    return torch.stack(along), torch.stack(random).mean(dim=0), moves


def _gradient(net: nn.Module, x: Tensor, y: Tensor, loss: int) -> Tensor:
    """The gradient of one of the losses, in the precision of the attacks: like x."""
    with torch.enable_grad():
        x = x.detach().clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(_losses(net(x).float(), y)[loss].sum(), x)
    return gradient.detach()


def _profile(subject: _Subject, x: Tensor, y: Tensor, direction: Tensor) -> Tensor:
    """Losses (2, T, B) at x + t eps * (steepest for `direction`), cut off at the box."""
    offset = subject.threat.eps * subject.threat.steepest(direction)
    shifted = [(x + t * offset).clamp(0, 1) for t in REL_T]
    return torch.stack([_losses(_logits(subject.net, x).double(), y) for x in shifted], dim=1)


@torch.no_grad()
def _logits(net: nn.Module, x: Tensor) -> Tensor:
    """(B, K) float32; raises FloatingPointError where they are not finite."""
    logits: Tensor = net(x).float()
    if not bool(logits.isfinite().all()):
        raise FloatingPointError("the network's logits are not finite; its gradients cannot be judged")
    return logits


def _clean_logits(subject: _Subject) -> Tensor:
    """(n, K) on the CPU."""
    return torch.cat([_logits(subject.net, x).cpu() for x, _, _ in subject.batches()])


def _losses(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy and margin of each image: (2, B)."""
    return torch.stack([F.cross_entropy(logits, y, reduction="none"), margin(logits, y)])


def _finite(gradient: Tensor) -> Tensor:
    return torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)


def _differ(logits: Tensor, again: Tensor) -> Tensor:
    """Whose logits are others when the network is asked again: (n,) bool."""
    change = torch.linalg.vector_norm((again - logits).double(), dim=1)
    differ: Tensor = change > REL_REPEAT * torch.linalg.vector_norm(logits.double(), dim=1)
    return differ


def _share(flags: Tensor) -> dict[str, Any]:
    """Count, percent of n and 95% Wilson interval in percent."""
    return recorded_share(int(flags.sum()), len(flags))


def _exceeds(share: dict[str, Any], limit: float) -> bool:
    return bool(share["interval"][0] > 100 * limit)


def _worded(share: dict[str, Any]) -> str:
    low, high = share["interval"]
    return f"{share['count']} of {share['n']} ({share['percent']:.1f}% [{low:.1f}, {high:.1f}])"


def _many(among: dict[str, Any], limit: float = MAX_OF_STANDING) -> bool:
    """Whether at least `MIN_FALLEN` images, and more than the limit by the interval, fall of those that stood."""
    return among["count"] >= MIN_FALLEN and _exceeds(among, limit)


def _of_standing(among: dict[str, Any], limit: float) -> str:
    return f"{among['count']} of the {among['n']} that stood, allowed {limit:.0%} or {MIN_FALLEN - 1} images"


def _difference(more: dict[str, Any], fewer: dict[str, Any]) -> dict[str, Any]:
    """The share by which the first exceeds the second; nothing where it does not."""
    return recorded_share(max(more["count"] - fewer["count"], 0), more["n"])


def _judge_eps(found: dict[str, Any]) -> dict[str, Any]:
    rows = found["points"]
    rises = [_difference(later, rows[i]) for i in range(len(rows)) for later in rows[i + 1 :]]
    rise = max(rises, key=lambda share: int(share["count"]))
    # a network that gives one class to every image is useless and masks nothing: no image is known to break another
    reachable = found["classes"] > 1
    last = (
        f"At radius {rows[-1]['eps']}, where any image can be turned into any other, {_worded(rows[-1])} still stand, "
        f"allowed {MAX_STANDING:.0%}"
    )
    return {
        "ok": not (reachable and _exceeds(rows[-1], MAX_STANDING)) and not _exceeds(rise, MAX_RISE),
        "text": (last if reachable else "The network gives one class to all images, so that no image breaks another")
        + f"; the largest rise of accuracy with the radius is {_worded(rise)}, allowed {MAX_RISE:.0%}.",
    }


def _judge_steps(rows: list[dict[str, Any]]) -> dict[str, Any]:
    at = {row["steps"]: row for row in rows}
    worse, unconverged = _difference(at[MANY], at[1]), _difference(at[FEW], at[MANY])
    late = recorded_share(unconverged["count"], at[FEW]["count"])
    return {
        "ok": not _exceeds(worse, MAX_WORSE) and not _exceeds(unconverged, MAX_UNCONVERGED) and not _many(late),
        "text": f"One step leaves {_worded(at[1])} standing and {MANY} steps {_worded(at[MANY])}; {MANY} steps break "
        f"{_worded(worse)} fewer than one, allowed {MAX_WORSE:.0%}, and {_worded(unconverged)} more than {FEW}, "
        f"allowed {MAX_UNCONVERGED:.0%}: {_of_standing(late, MAX_OF_STANDING)}.",
    }


def _judge_losses(rows: list[dict[str, Any]]) -> dict[str, Any]:
    # no limit of those that stood: where few do, an honest network's losses leave different ones standing
    parts = [
        f"{row['loss'].replace('_', ' ')} leaves {_worded(row['standing'])}, of which others break "
        f"{_worded(row['missed'])}"
        for row in rows
    ]
    return {
        "ok": not any(_exceeds(row["missed"], MAX_MISSED) for row in rows),
        "text": f"{LOSS_STEPS} steps on each loss by itself: {'; '.join(parts)}; allowed {MAX_MISSED:.0%} of all.",
    }


def _judge_transfer(rows: list[dict[str, Any]]) -> dict[str, Any]:
    if not rows:
        return {"ok": True, "text": "No image stands after the white-box attacks: nothing to judge."}
    parts, ok = [], True
    for row in rows:
        among = recorded_share(row["broken"]["count"], row["white_box"]["count"])
        ok = ok and not _exceeds(row["broken"], MAX_TRANSFER) and not _many(among, MAX_TRANSFER_OF_STANDING)
        parts.append(
            f"{row['surrogate']}: {_worded(row['broken'])} of all, {_of_standing(among, MAX_TRANSFER_OF_STANDING)}"
        )
    return {
        "ok": ok,
        "text": f"Images made on another network break, of the {rows[0]['white_box']['count']} that every white-box "
        f"attack left standing, from the network {'; '.join(parts)}; allowed {MAX_TRANSFER:.0%} of all.",
    }


def _judge_square(found: dict[str, Any]) -> dict[str, Any]:
    broken, standing = found["broken"]["count"], found["white_box"]["count"]
    if not standing:
        return {"ok": True, "text": "No image stands after the white-box attacks: nothing to judge."}
    among = recorded_share(broken, standing)
    return {
        "ok": not _many(among) and not _exceeds(found["broken"], MAX_BLACK_BOX),
        "text": f"Of the {standing} images that every white-box attack left standing, the Square attack of "
        f"{found['queries']} queries breaks {broken}: {_worded(found['broken'])} of all images, allowed "
        f"{MAX_BLACK_BOX:.0%}, and {_of_standing(among, MAX_OF_STANDING)}.",
    }


def _judge_directions(found: dict[str, Any]) -> dict[str, Any]:
    wins = [found[name]["wins"] for name in ("cross_entropy", "margin")]
    low = [_exceeds(recorded_share(share["n"] - share["count"], share["n"]), 1 - MIN_WINS) for share in wins]
    return {
        "ok": not any(low)
        and not _exceeds(found["no_gradient"], MAX_NO_GRADIENT)
        and not _many(found["no_gradient_standing"], MAX_NO_GRADIENT),
        "text": f"At distance eps the gradient's direction raises the loss more than random ones on {_worded(wins[0])} "
        f"for cross-entropy and {_worded(wins[1])} for the margin, needed {MIN_WINS:.0%}; the gradient of "
        f"cross-entropy is zero or not finite on {_worded(found['no_gradient'])}, allowed {MAX_NO_GRADIENT:.0%}: "
        f"{_of_standing(found['no_gradient_standing'], MAX_NO_GRADIENT)}.",
    }


def _judge_repeat(found: dict[str, Any]) -> dict[str, Any]:
    return {
        "ok": not _exceeds(found["changed"], MAX_RANDOM),
        "text": f"Asked twice, the network gives other logits on {_worded(found['changed'])}, "
        f"allowed {MAX_RANDOM:.0%}.",
    }


_JUDGES: dict[str, Callable[[Any], dict[str, Any]]] = {
    "eps": _judge_eps,
    "steps": _judge_steps,
    "losses": _judge_losses,
    "square": _judge_square,
    "transfer": _judge_transfer,
    "directions": _judge_directions,
    "repeat": _judge_repeat,
}
