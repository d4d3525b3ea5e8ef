"""What a network shows before training: cheap numbers that may go along with the robust accuracy after it.

All are computed in float64, without dropout. `grad_norm` and `ntk_condition` are taken with BatchNorm's batch
statistics, as training starts; `operator_bound` and `local_lipschitz` in evaluation mode, as those of trained networks.
"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from robust_arch.architectures import Classifier
from robust_arch.architectures.family import BoundedNetwork
from robust_arch.attacks import PGD, ThreatModel
from robust_arch.evaluation.smoothness import local_lipschitz, upper_bounds


@dataclass(frozen=True)
class Start:
    """An untrained network with a batch of its training images.

    Attributes:
        net: images (B, C, H, W) in [0, 1] to logits (B, K).
        x: (B, C, H, W) in [0, 1].
        y: (B,) int64.
        threat: that it will be trained under.
        seed: of the run.
    """

    net: Classifier
    x: Tensor
    y: Tensor
    threat: ThreatModel
    seed: int


def gradient_norm(net: nn.Module, x: Tensor, y: Tensor) -> float:
    """||dL/dtheta||_2 over all parameters, L the mean cross-entropy on clean images (Abdelfattah et al. 2021).

    The source sums the norms of single layers; this is the norm of the whole gradient.

    Args:
        net: images to logits; left unchanged.
        x: (B, C, H, W) in [0, 1].
        y: (B,) int64.
    """
    prepared, parameters = _prepared(net)
    gradients = torch.autograd.grad(F.cross_entropy(prepared(x.double()), y), parameters, allow_unused=True)
    return float(torch.cat([each.flatten() for each in gradients if each is not None]).norm())


def ntk_condition_number(net: nn.Module, x: Tensor) -> float:
    """lambda_max / lambda_min of the empirical neural tangent kernel of a batch (Chen, Gong, Wang 2021, TE-NAS).

    Theta_ij = <df(x_i)/dtheta, df(x_j)/dtheta> with f the sum of the logits, (B, B). It needs 8 B bytes per parameter.
    Infinite where the kernel is singular in float64.

    Args:
        net: images to logits; left unchanged.
        x: (B, C, H, W) in [0, 1].
    """
    eigenvalues = torch.linalg.eigvalsh(tangent_kernel(net, x))
    least, most = float(eigenvalues[0]), float(eigenvalues[-1])
    return most / least if least > most * torch.finfo(torch.float64).eps * len(x) else float("inf")


def tangent_kernel(net: nn.Module, x: Tensor) -> Tensor:
    """The kernel of `ntk_condition_number`, (B, B) float64."""
    prepared, parameters = _prepared(net)
    sums = prepared(x.double()).sum(dim=1)
    rows = []
    for each in sums:
        gradients = torch.autograd.grad(each, parameters, retain_graph=True, allow_unused=True)
        rows.append(torch.cat([gradient.flatten() for gradient in gradients if gradient is not None]))
    jacobian = torch.stack(rows)
    return jacobian @ jacobian.T


def _prepared(net: nn.Module) -> tuple[nn.Module, list[nn.Parameter]]:
    """A copy in float64 with batch statistics in BatchNorm and everything else in evaluation mode; its parameters."""
    copied = deepcopy(net).double().eval()
    for module in copied.modules():
        if isinstance(module, _BatchNorm):
            module.train()
    return copied, [parameter for parameter in copied.parameters() if parameter.requires_grad]


def _operator_bound(start: Start) -> float | None:
    """The product of the layers' operator norms; None where the family has no bounds."""
    if not isinstance(start.net.network, BoundedNetwork):
        return None
    shape = start.x.shape
    return float(upper_bounds(start.net, (shape[1], shape[2], shape[3]))["network"])


def _local_lipschitz(start: Start) -> float | None:
    """Mean of ||f(x) - f(x')||_1 / ||x - x'||_inf under pgd20 (Huang et al. 2021)."""
    net = deepcopy(start.net).double().eval()
    x = start.x.double()
    x_adv = PGD(steps=20, rel_step_size=0.1)(net, x, start.y, start.threat, seed=start.seed, index=torch.arange(len(x)))
    with torch.no_grad():
        ratios = local_lipschitz(x, x_adv, net(x), net(x_adv))
    return None if bool(ratios.isnan().all()) else float(ratios.nanmean())


PREDICTORS: Mapping[str, Callable[[Start], float | None]] = {
    "grad_norm": lambda start: gradient_norm(start.net, start.x, start.y),
    "ntk_condition": lambda start: ntk_condition_number(start.net, start.x),
    "operator_bound": _operator_bound,
    "local_lipschitz": _local_lipschitz,
}
"""Name of the column to what computes it; None where it is not defined."""
