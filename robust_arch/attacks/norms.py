"""The geometry of a norm ball cut with the box of images: where to project, where to step, where to start."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from robust_arch.common import randomness

_HALVINGS = 40  # of the interval [0, 1]: far below float32's resolution


def _rounded_towards(x: Tensor, exact: Tensor) -> Tensor:
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
    """A norm of each example's perturbation."""

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


class _LinfRegion(Region):
    def __init__(self, x: Tensor, eps: float) -> None:
        exact = x.double()
        self.lower = self._bound(x, exact, -eps).clamp_(min=0)
        self.upper = self._bound(x, exact, eps).clamp_(max=1)

    @staticmethod
    def _bound(x: Tensor, exact: Tensor, offset: float) -> Tensor:
        """The sum of x and offset, rounded towards x, in place to save passes over memory. exact: x in float64."""
        moved = exact + offset
        bound = moved.to(x.dtype, copy=True)
        # the sum itself was rounded, which shows where x is float64: hence the second comparison
        for reach in (moved.sub_(exact).abs_(), abs(offset)):
            outside = bound.to(torch.float64, copy=True).sub_(exact).abs_() > reach
            bound = torch.where(outside, torch.nextafter(bound, x), bound)
        return bound

    def project(self, x_adv: Tensor) -> Tensor:
        return torch.clamp(x_adv, self.lower, self.upper)


class _Linf(Norm):
    def region(self, x: Tensor, eps: float) -> Region:
        return _LinfRegion(x, eps)

    def steepest(self, gradient: Tensor) -> Tensor:
        return gradient.sign()

    def random_offset(self, keys: Tensor, shape: tuple[int, ...]) -> Tensor:
        return 2 * randomness.uniform(keys, shape) - 1

    def distance(self, x: Tensor, x_adv: Tensor) -> Tensor:
        return (x_adv - x).flatten(1).abs().amax(dim=1)

    def dual(self, gradient: Tensor) -> Tensor:
        return gradient.flatten(1).abs().sum(dim=1)


def _per_example(values: Tensor) -> Tensor:
    """(B,) values in a shape that multiplies (B, C, H, W)."""
    return values.view(-1, 1, 1, 1)


def _length(values: Tensor) -> Tensor:
    """The Euclidean norm of each example: (B,)."""
    length: Tensor = torch.linalg.vector_norm(values.flatten(1), dim=1)
    return length


class _L2Region(Region):
    def __init__(self, x: Tensor, eps: float) -> None:
        self.x, self.eps = x.clone(), eps  # an attack may write into its images
        self.exact = self.x.double()

    def project(self, x_adv: Tensor) -> Tensor:
        """clip(x + t (x_adv - x)) with the largest t in [0, 1] whose distance from x is at most eps.

        By the Karush-Kuhn-Tucker conditions that is the nearest point of ball and box together; clipping a point
        that was scaled to the sphere first would stop short of it. The distance rises with t, which is bisected.
        """
        offset = x_adv.double() - self.exact

        def point(t: Tensor) -> Tensor:
            return (self.exact + _per_example(t) * offset).clamp_(0, 1)

        low = torch.zeros(len(offset), dtype=torch.float64, device=offset.device)
        high = torch.ones_like(low)
        low[_length(point(high) - self.exact) <= self.eps] = 1.0
        if bool((low < 1).any()):
            for _ in range(_HALVINGS):
                middle = (low + high) / 2
                inside = _length(point(middle) - self.exact) <= self.eps
                low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)
        # x + (x_adv - x) is not always x_adv: a point inside the ball is returned as it is
        return torch.where(_per_example(low == 1), x_adv.clamp(0, 1), _rounded_towards(self.x, point(low)))


class _L2(Norm):
    def region(self, x: Tensor, eps: float) -> Region:
        return _L2Region(x, eps)

    def steepest(self, gradient: Tensor) -> Tensor:
        # first by the largest entry: squares of float32 numbers below 1e-23 or above 1e19 do not fit into float32
        largest = gradient.flatten(1).abs().amax(dim=1)
        scaled = gradient / _per_example(torch.where(largest > 0, largest, 1.0))
        length = _length(scaled)
        return scaled / _per_example(torch.where(length > 0, length, 1.0))

    def random_offset(self, keys: Tensor, shape: tuple[int, ...]) -> Tensor:
        """A uniform direction at length u^(1 / d), which is uniform in the ball of d dimensions."""
        direction = self.steepest(randomness.normal(keys, shape))
        # a stream of its own: the direction has used the numbers that follow from the key itself
        u = randomness.uniform(randomness.example_keys(1, keys), (1,))[:, 0]
        return _per_example(u ** (1 / direction[0].numel())) * direction

    def distance(self, x: Tensor, x_adv: Tensor) -> Tensor:
        return _length(x_adv - x)

    def dual(self, gradient: Tensor) -> Tensor:
        return _length(gradient)


NORMS: dict[str, Norm] = {"linf": _Linf(), "l2": _L2()}
