"""A network together with the form of it that attacks see."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from robust_arch.attacks.base import undisturbed
from robust_arch.engine.compilation import RegionCompiler
from robust_arch.engine.frozen import FrozenNetwork, NotFreezableError

log = logging.getLogger(__name__)

_PROBES = 8  # images on which logits are compared
_TOLERANCE = 1e-3  # of the largest logit: rounding in a different order stays a hundred times below it
_HALF_TOLERANCE = 0.25  # bfloat16 keeps 8 bits, and errors add up over layers; a wrong graph is off by the whole


class AttackableNetwork(nn.Module):
    """Calls go to `net`; attacks are given its frozen form, made at the first attack.

    dtype: of the frozen form. compiled: whether its blocks are compiled. A network that has no such form, or whose form
    gives different logits, is attacked as it is.
    """

    def __init__(self, net: nn.Module, dtype: torch.dtype = torch.float32, *, compiled: bool = False) -> None:
        super().__init__()
        self.net, self.dtype, self.compiled = net, dtype, compiled
        # in a tuple, where torch does not see a module: it is a view of `net`, no part of its own
        self._frozen: tuple[FrozenNetwork] | None = None
        self._freezable = True

    @property
    def training(self) -> bool:
        """The mode of `net`."""
        return self.net.training

    @training.setter
    def training(self, mode: bool) -> None:
        """Ignored: torch sets the mode of each module in turn, `net` included."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W) in [0, 1]. Returns logits (B, K)."""
        logits: Tensor = self.net(x)
        return logits

    def attacked(self, x: Tensor) -> nn.Module:
        """The frozen form with the current weights. x: (B, C, H, W), on which its logits are compared at first."""
        if self._freezable and (self._frozen is None or self._frozen[0].is_stale()):
            self._freeze(x[:_PROBES])
        if self._frozen is None:
            return self.net
        self._frozen[0].refresh()
        return self._frozen[0]

    def _freeze(self, x: Tensor) -> None:
        self._frozen = None
        try:
            self._frozen = (self._checked(torch.float32, x, _TOLERANCE),)
        except Exception as error:  # an unusual network may fail in any way
            log.warning("attacks see the network as it is, without folded BatchNorm: %s", error)
            self._freezable = False
            return
        if self.dtype != torch.float32:
            try:
                self._frozen = (self._checked(self.dtype, x, _HALF_TOLERANCE),)
            except Exception as error:
                log.warning("attacks see the network in float32: %s", error)
                return
        if self.compiled:
            self._frozen = (FrozenNetwork(self.net, self.dtype, RegionCompiler(x.device)),)

    def _checked(self, dtype: torch.dtype, x: Tensor, tolerance: float) -> FrozenNetwork:
        """The frozen form, if its logits are those of the network."""
        frozen = FrozenNetwork(self.net, dtype)
        autocast = torch.autocast(x.device.type, enabled=False)
        with torch.no_grad(), undisturbed(self.net), autocast, without_tf32():
            expected, images = self.net(x), x.clone()
            logits = frozen(images)
        if not torch.equal(images, x):  # behind no normalisation, the images of an attack would be overwritten
            raise NotFreezableError("its first operation overwrites its input")
        difference, largest = (expected - logits).abs().max(), expected.abs().max()
        if not bool(difference <= tolerance * largest):
            raise NotFreezableError(f"its logits would differ by {float(difference):.2g} of {float(largest):.2g}")
        return frozen


@contextmanager
def without_tf32() -> Iterator[None]:
    """No TensorFloat-32 inside, whose ten bits would hide or feign a difference."""
    backends: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = False
    try:
        yield
    finally:
        for backend, allowed in zip(backends, before, strict=True):
            backend.allow_tf32 = allowed
