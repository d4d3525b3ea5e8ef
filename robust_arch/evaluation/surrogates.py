"""Surrogates: networks that are attacked in place of another one, which then classifies the attacked images.

Where a network's own gradients mislead attacks, those of a surrogate may not (Papernot et al. 2017, Athalye et al.
2018). An image that the network misclassifies is a true counterexample, whatever its origin.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robust_arch.attacks import ThreatModel
from robust_arch.errors import invalid
from robust_arch.evaluation.operator_norms import hooked

PRESATURATION = "presaturation_logits"
"""Method of a network, from images to logits (B, K), that returns them before any saturation."""
DISTILLATION_COPIES = 16  # per image, with random changes, on which the distilled network learns the network's classes
_STEPS, _BATCH, _RATE = 300, 256, 2e-3
_SIDE = 32  # of the images that the distilled network works on: larger ones are reduced by the first stride


class Presaturation(nn.Module):
    """A network up to the last of its linear or convolutional layers that has one number per class.

    layer: that layer, or the part of the network, possibly all of it, whose method `presaturation_logits` is used.
    """

    def __init__(self, net: nn.Module, layer: nn.Module) -> None:
        super().__init__()
        self.net, self.layer = net, layer

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K) of x: (B, C, H, W)."""
        calls: list[tuple[Tensor, Tensor]] = []
        with hooked([self.layer], lambda _, inputs, output: calls.append((inputs[0], output))):
            self.net(x)
        inputs, output = calls[-1]
        own = getattr(self.layer, PRESATURATION, None)
        logits: Tensor = output if own is None else own(inputs)  # inputs: behind the normalisation, if there is one
        return logits.flatten(1)


@torch.no_grad()
def presaturation(net: nn.Module, x: Tensor) -> Presaturation | None:
    """The network before its last saturation; None where there is nothing after its last layer, or no such layer.

    x: (B, C, H, W), images on which the two are compared.
    """
    logits: Tensor = net(x)
    for part in net.modules():  # a family's network lies inside a classifier that normalises
        if callable(getattr(part, PRESATURATION, None)):
            own = Presaturation(net, part)
            if (shape := own(x).shape) != logits.shape:
                raise invalid(PRESATURATION, tuple(shape), f"the shape of the logits, {tuple(logits.shape)}")
            return own
    called: list[tuple[nn.Module, Tensor]] = []

    def note(layer: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.numel() == logits.numel() and len(output) == len(logits):
            called.append((layer, output.flatten(1)))

    with hooked([module for module in net.modules() if isinstance(module, nn.Linear | nn.Conv2d)], note):
        net(x)
    if not called or torch.allclose(called[-1][1].float(), logits.float(), rtol=1e-4, atol=1e-5):
        return None
    return Presaturation(net, called[-1][0])


def distilled(net: nn.Module, x: Tensor, threat: ThreatModel, num_classes: int) -> nn.Module:
    """A small convolutional network that has learnt the classes that `net` gives to x and to changed copies of it.

    The copies have uniform noise of up to twice the radius (of up to 0.2 under l2). x: (B, C, H, W) in [0, 1]. Random
    numbers are those of torch's generator.
    """
    scale = 2 * threat.eps if threat.norm == "linf" else 0.2
    with torch.no_grad():
        copies = [x, *((x + scale * (2 * torch.rand_like(x) - 1)).clamp(0, 1) for _ in range(DISTILLATION_COPIES - 1))]
        images = torch.cat(copies)
        classes = torch.cat([net(part).argmax(dim=1) for part in torch.split(images, _BATCH)])
    stride = max(1, -(-x.shape[-1] // _SIDE))
    student = nn.Sequential(
        *(nn.Conv2d(x.shape[1], 16, 3, stride=stride, padding=1), nn.ReLU()),
        *(nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(8), nn.Flatten(), nn.Linear(32 * 64, num_classes)),
    ).to(x.device)
    optimizer = torch.optim.Adam(student.parameters(), lr=_RATE)
    with torch.enable_grad():
        for _ in range(_STEPS):
            batch = torch.randint(len(images), (_BATCH,), device=x.device)
            loss = F.cross_entropy(student(images[batch]), classes[batch])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
    return student.eval().requires_grad_(False)
