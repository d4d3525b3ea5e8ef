"""The geometry of a norm ball cut with the box of images: where to project, where to step, where to start."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from robust_arch.common import randomness

_HALVINGS = 40  # of the interval [0, 1]: far below float32's resolution


def rounded_towards(x: Tensor, exact: Tensor) -> Tensor:
    """`exact` (float64) in x's type, each coordinate rounded towards x: no coordinate moves away from x."""
    rounded = exact.to(x.dtype)
    outside = (rounded.double() - x.double()).abs() > (exact - x.double()).abs()
    return torch.where(outside, torch.nextafter(rounded, x), rounded)


class Region(ABC):
    """The points that an attacker may choose around one batch: the ball cut with the box [0, 1]."""

    @abstractmethod
    def project(self, x_adv: Tensor) -> Tensor:
        """The nearest point of the region, exactly inside it. x_adv: (B, C, H, W)."""


class Norm(ABC):
    """A norm of perturbations, an example each."""

    @abstractmethod
    def region(self, x: Tensor, eps: float) -> Region:
        """The region around x: (B, C, H, W) in [0, 1]."""

    @abstractmethod
    def steepest(self, gradient: Tensor) -> Tensor:
        """The direction of norm 1 in which a function of this gradient rises fastest; 0 where the gradient is."""

    @abstractmethod
    def random_offset(self, keys: Tensor, shape: tuple[int, ...]) -> Tensor:
        """A point uniform in the unit ball. keys: (B,) as of `randomness.example_keys`. Returns (B, *shape)."""

    @abstractmethod
    def distance(self, x: Tensor, x_adv: Tensor) -> Tensor:
        """The norm of x_adv - x: (B,)."""

    @abstractmethod
    def dual(self, gradient: Tensor) -> Tensor:
        """The largest <v, gradient> over all v of norm 1, in gradient's type: (B,). gradient: (B, C, H, W)."""


class LinfRegion(Region):
    """A box of its own for each pixel."""

    def __init__(self, x: Tensor, eps: float) -> None:
        self.lower = self._bound(x, -eps).clamp_(min=0)
        self.upper = self._bound(x, eps).clamp_(max=1)

    @staticmethod
    def _bound(x: Tensor, offset: float) -> Tensor:
        bound = rounded_towards(x, x.double() + offset)
        # the sum itself was rounded, which shows where x is float64
        outside = (bound.double() - x.double()).abs() > abs(offset)
        return torch.where(outside, torch.nextafter(bound, x), bound)

    def project(self, x_adv: Tensor) -> Tensor:
        """Each pixel by itself."""
        return torch.clamp(x_adv, self.lower, self.upper)


class Linf(Norm):
    """The largest change of a pixel."""

    def region(self, x: Tensor, eps: float) -> LinfRegion:
        """Bounds a pixel."""
        return LinfRegion(x, eps)

    def steepest(self, gradient: Tensor) -> Tensor:
        """The sign."""
        return gradient.sign()

    def random_offset(self, keys: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Each pixel uniform in [-1, 1)."""
        return 2 * randomness.uniform(keys, shape) - 1

    def distance(self, x: Tensor, x_adv: Tensor) -> Tensor:
        """The largest |x_adv - x|."""
        return (x_adv - x).flatten(1).abs().amax(dim=1)

    def dual(self, gradient: Tensor) -> Tensor:
        """||gradient||_1."""
        return gradient.flatten(1).abs().sum(dim=1)


def _by_example(values: Tensor, like: Tensor) -> Tensor:
    """(B,) values in a shape that multiplies (B, C, H, W)."""
    return values.view(-1, *[1] * (like.ndim - 1))


def _length(values: Tensor) -> Tensor:
    """The Euclidean norm of each example: (B,)."""
    length: Tensor = torch.linalg.vector_norm(values.flatten(1), dim=1)
    return length


class L2Region(Region):
    """A ball whose part outside the box is cut off."""

    def __init__(self, x: Tensor, eps: float) -> None:
        self.x, self.exact, self.eps = x, x.double(), eps

    def project(self, x_adv: Tensor) -> Tensor:
        """clip(x + t (x_adv - x)) with the largest t in [0, 1] whose norm is at most eps.

        By the Karush-Kuhn-Tucker conditions that is the nearest point of ball and box together; clipping a point
        that was scaled to the sphere first would stop short of it. The norm rises with t, which is bisected.
        """
        offset = x_adv.double() - self.exact
        low = torch.zeros(len(offset), dtype=torch.float64, device=offset.device)
        high = torch.ones_like(low)
        low[self._norm(offset, high) <= self.eps] = 1.0
        if bool((low < 1).any()):
            for _ in range(_HALVINGS):
                middle = (low + high) / 2
                inside = self._norm(offset, middle) <= self.eps
                low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)
        projected = rounded_towards(self.x, self._point(offset, low))
        # x + (x_adv - x) is not always x_adv: a point inside the ball stays what it is
        return torch.where(_by_example(low == 1, offset), x_adv.clamp(0, 1), projected)

    def _point(self, offset: Tensor, t: Tensor) -> Tensor:
        return (self.exact + _by_example(t, offset) * offset).clamp_(0, 1)

    def _norm(self, offset: Tensor, t: Tensor) -> Tensor:
        return _length(self._point(offset, t) - self.exact)


class L2(Norm):
    """The Euclidean length of the change."""

    def region(self, x: Tensor, eps: float) -> L2Region:
        """A ball and the box."""
        return L2Region(x, eps)

    def steepest(self, gradient: Tensor) -> Tensor:
        """The gradient at length 1."""
        # first by the largest entry: squares of float32 numbers below 1e-23 or above 1e19 do not fit into float32
        largest = gradient.flatten(1).abs().amax(dim=1)
        scaled = gradient / _by_example(torch.where(largest > 0, largest, torch.ones_like(largest)), gradient)
        length = _length(scaled)
        return scaled / _by_example(torch.where(length > 0, length, torch.ones_like(length)), gradient)

    def random_offset(self, keys: Tensor, shape: tuple[int, ...]) -> Tensor:
        """A uniform direction at length u^(1 / d), which is uniform in the ball of d dimensions."""
        direction = self.steepest(randomness.normal(keys, shape))
        dimensions = direction[0].numel()
        # a stream of its own: the direction has used the numbers that follow from the key itself
        lengths = randomness.uniform(randomness.example_keys(1, keys), (1,))[:, 0] ** (1 / dimensions)
        return _by_example(lengths, direction) * direction

    def distance(self, x: Tensor, x_adv: Tensor) -> Tensor:
        """||x_adv - x||_2."""
        return _length(x_adv - x)

    def dual(self, gradient: Tensor) -> Tensor:
        """||gradient||_2."""
        return _length(gradient)


NORMS: dict[str, Norm] = {"linf": Linf(), "l2": L2()}
