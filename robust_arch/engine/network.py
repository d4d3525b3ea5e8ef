"""A network together with what attacks see of it."""

import logging

import torch
from torch import Tensor, nn

from robust_arch.architectures import Classifier
from robust_arch.engine.compilation import RegionCompiler
from robust_arch.engine.frozen import FrozenNetwork, NotFreezableError

log = logging.getLogger(__name__)


class AttackableNetwork(nn.Module):
    """Calls go to `net`; attacks are given its frozen form, made at the first one.

    dtype: of the frozen form. compiled: whether its blocks are compiled. A network without such a form is attacked as
    it is.
    """

    def __init__(self, net: Classifier, dtype: torch.dtype = torch.float32, *, compiled: bool = False) -> None:
        super().__init__()
        self.net, self.dtype, self.compiled = net, dtype, compiled
        self._frozen: FrozenNetwork | None = None
        self._freezable = True

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W) in [0, 1]. Returns logits (B, K)."""
        logits: Tensor = self.net(x)
        return logits

    def attacked(self) -> nn.Module:
        """The frozen form, with the weights of now."""
        if self._frozen is not None:
            self._frozen.refresh()
        elif self._freezable:
            self._freeze()
        return self.net if self._frozen is None else self._frozen

    def _freeze(self) -> None:
        device = next(self.net.parameters()).device
        compiler = RegionCompiler(device) if self.compiled else None
        try:
            self._frozen = FrozenNetwork(self.net, self.dtype, compiler)
        except NotFreezableError as error:
            log.warning("attacks see the network as it is, without folded BatchNorm: %s", error)
            self._freezable = False
