"""A Gaussian process over architectures whose hyperparameters are averaged over their posterior."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg import cho_solve
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct, Kernel, Matern, WhiteKernel

Z = 1.96
"""Standard deviations on each side of a 95% interval."""
_INTERCEPT = 30.0  # of a site's column: its level is free
DRAWS = 30
"""Draws of the hyperparameters over which predictions are averaged."""
_BURN_IN, _THINNED = 100, 4
_WIDE = 1e6  # length scale of a column that the smooth part does not see
_FAR = 5.0  # standard deviations of an architecture whose noise is raised
_LEAST_DEVIATION = 1e-3  # points


@dataclass(frozen=True)
class Prior:
    """Normal priors of the logarithms of the hyperparameters, on y of standard deviation 1: mean, standard deviation.

    Attributes:
        smooth: variance of the smooth part.
        slope: variance of the linear part's slopes per unit of a variable.
        length: length scales of the smooth part, in units of the variables.
        own: variance of what an architecture has of its own.
    """

    smooth: tuple[float, float] = (np.log(0.3), 2.0)
    slope: tuple[float, float] = (np.log(0.02), 2.0)
    length: tuple[float, float] = (np.log(3.0), 0.8)
    own: tuple[float, float] = (np.log(0.01), 2.0)


@dataclass(frozen=True)
class Prediction:
    """Predicted means over seeds of M architectures.

    Attributes:
        mean: (M,) in percent.
        covariance: (M, M) of the predictions, the hyperparameters' included.
    """

    mean: np.ndarray
    covariance: np.ndarray

    @property
    def deviation(self) -> np.ndarray:
        """(M,) standard deviation in points."""
        return np.sqrt(np.diag(self.covariance))

    def difference(self, first: int, second: int) -> tuple[float, float]:
        """The mean of the first minus that of the second, and its standard deviation."""
        cov = self.covariance
        variance = cov[first, first] + cov[second, second] - 2 * cov[first, second]
        return float(self.mean[first] - self.mean[second]), float(np.sqrt(max(variance, 0.0)))


class Surrogate:
    """Level of the site + linear part + smooth part (Matern 5/2) + what an architecture has of its own + seed noise.

    The hyperparameters are drawn from their posterior by elliptical slice sampling (Murray, Adams, MacKay 2010), and
    predictions are averaged over the draws, since a dozen architectures do not determine them.

    Args:
        x: (N, V) variables.
        site: (N,) position of the site.
        y: (N,) robust accuracy in percent.
        noise: (N,) known variance of y; NaN where it is not known, so that it counts as the architecture's own.
        member: (N,) position of the architecture.
        seed: of the draws.
        draws: of the hyperparameters.
    """

    def __init__(
        self,
        x: np.ndarray,
        site: np.ndarray,
        y: np.ndarray,
        noise: np.ndarray,
        member: np.ndarray,
        seed: int = 0,
        draws: int = DRAWS,
    ) -> None:
        self.centre = x.mean(axis=0)
        self.sites = int(site.max()) + 1
        self.x, self.site, self.member = x, site, member
        self.level, self.scale = float(y.mean()), max(float(y.std()), _LEAST_DEVIATION)
        self.y = (y - self.level) / self.scale
        self.noise_known = not np.isnan(noise).any()
        self.noise = np.nan_to_num(noise) / self.scale**2 + 1e-6
        self.prior = Prior() if self.noise_known else Prior(own=(np.log(0.1), 2.0))
        self._generator = np.random.default_rng(seed)
        start = self._sample(np.zeros(len(self._mean)), _BURN_IN)[-1]
        self.far = self._raise_noise(start)
        self.draws = self._sample(start, draws * _THINNED)[_THINNED - 1 :: _THINNED]

    def _columns(self, x: np.ndarray, site: np.ndarray) -> np.ndarray:
        return np.column_stack([x - self.centre, _INTERCEPT * np.eye(self.sites)[site]])

    @property
    def _mean(self) -> np.ndarray:
        prior, count = self.prior, self.x.shape[1]
        return np.array([prior.smooth[0], prior.slope[0], prior.own[0], *[prior.length[0]] * count])

    @property
    def _deviation(self) -> np.ndarray:
        prior, count = self.prior, self.x.shape[1]
        return np.array([prior.smooth[1], prior.slope[1], prior.own[1], *[prior.length[1]] * count])

    def _kernel(self, draw: np.ndarray) -> Kernel:
        """With the hyperparameters of a draw, which counts from the prior's means in its deviations."""
        smooth, slope, own, *length = np.exp(self._mean + draw * self._deviation)
        return (
            ConstantKernel(smooth) * Matern([*length, *[_WIDE] * self.sites], nu=2.5)
            + ConstantKernel(slope) * DotProduct(1.0)
            + WhiteKernel(own)
        )

    def _fit(self, draw: np.ndarray) -> GaussianProcessRegressor:
        process = GaussianProcessRegressor(self._kernel(draw), alpha=self.noise, optimizer=None)
        return process.fit(self._columns(self.x, self.site), self.y)

    def _likelihood(self, draw: np.ndarray) -> float:
        """The log marginal likelihood without its constant; `_fit` would compute it twice (thousands are needed)."""
        covariance = self._kernel(draw)(self._columns(self.x, self.site))
        covariance[np.diag_indices_from(covariance)] += self.noise
        lower = np.linalg.cholesky(covariance)
        return -0.5 * float(self.y @ cho_solve((lower, True), self.y)) - float(np.log(np.diag(lower)).sum())

    def _sample(self, start: np.ndarray, count: int) -> np.ndarray:
        """(count, H) draws of the hyperparameters."""
        generator, current = self._generator, start
        likelihood = self._likelihood(current)
        found = []
        for _ in range(count):
            other = generator.standard_normal(len(current))
            threshold = likelihood + np.log(generator.random())
            angle = generator.uniform(0, 2 * np.pi)
            low, high = angle - 2 * np.pi, angle
            while True:
                proposed = current * np.cos(angle) + other * np.sin(angle)
                likelihood = self._likelihood(proposed)
                if likelihood > threshold:
                    break
                low, high = (angle, high) if angle < 0 else (low, angle)
                angle = generator.uniform(low, high)
            current = proposed
            found.append(current)
        return np.array(found)

    def _left_out(self, draw: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Per architecture its observations, their errors when it is left out, and these errors' covariance.

        In closed form (Rasmussen and Williams 2006, equations 5.10 to 5.12), for all observations of one architecture.
        """
        process = self._fit(draw)
        inverse = np.linalg.inv(process.L_ @ process.L_.T)
        weighted = inverse @ self.y
        for architecture in range(int(self.member.max()) + 1):
            own = np.flatnonzero(self.member == architecture)
            covariance = np.linalg.inv(inverse[np.ix_(own, own)])
            yield own, covariance @ weighted[own], covariance

    def _raise_noise(self, draw: np.ndarray) -> np.ndarray:
        """Raise the noise of observations that the others predict badly, so that they count little; their positions."""
        errors = np.zeros(len(self.y))
        for own, error, _ in self._left_out(draw):
            errors[own] = error
        # by the errors' own scale: with a wild value in the data, the process's deviations are all too large
        scale = max(1.4826 * float(np.median(np.abs(errors))), 1e-6)
        far = np.flatnonzero(np.abs(errors) > _FAR * scale)
        self.noise[far] += errors[far] ** 2
        if len(far):
            kept = np.setdiff1d(np.arange(len(self.y)), far)
            level, scale = float(self.y[kept].mean()), max(float(self.y[kept].std()), 1e-6)
            self.y, self.noise = (self.y - level) / scale, self.noise / scale**2
            self.level, self.scale = self.level + level * self.scale, self.scale * scale
        return far

    @cached_property
    def _processes(self) -> list[GaussianProcessRegressor]:
        return [self._fit(draw) for draw in self.draws]

    def means(self, x: np.ndarray, site: int) -> np.ndarray:
        """(M,) predicted means in percent, of many architectures. x: (M, V)."""
        columns = self._columns(x, np.full(len(x), site))
        mean = np.mean([process.predict(columns) for process in self._processes], axis=0)
        return np.asarray(self.level + self.scale * mean)

    def predict(self, x: np.ndarray, site: int) -> Prediction:
        """What the mean over seeds of each of a few architectures is predicted to be at a site. x: (M, V)."""
        columns = self._columns(x, np.full(len(x), site))
        found = [process.predict(columns, return_cov=True) for process in self._processes]
        means = np.array([mean for mean, _ in found])
        covariance = np.mean([cov for _, cov in found], axis=0) + np.cov(means.T, bias=True).reshape(len(x), len(x))
        return Prediction(self.level + self.scale * means.mean(axis=0), self.scale**2 * covariance)

    def left_out(self) -> tuple[np.ndarray, np.ndarray]:
        """(N,) predictions in percent without the architecture, and standard deviations of the observation about them.

        The draws are weighted by how they predict what was left out, since they were drawn with it (Gelfand, Dey and
        Chang 1992).
        """
        errors, variances = (np.zeros((len(self.draws), len(self.y))) for _ in range(2))
        weights = np.zeros((len(self.draws), len(self.y)))
        for number, draw in enumerate(self.draws):
            for own, error, covariance in self._left_out(draw):
                errors[number, own], variances[number, own] = error, np.diag(covariance)
                _, size = np.linalg.slogdet(covariance)
                weights[number, own] = 0.5 * (size + error @ np.linalg.solve(covariance, error))
        weights = np.exp(weights - weights.max(axis=0))
        weights /= weights.sum(axis=0)
        means = self.y - errors
        mean = (weights * means).sum(axis=0)
        variance = (weights * (variances + (means - mean) ** 2)).sum(axis=0)
        return self.level + self.scale * mean, self.scale * np.sqrt(variance)

    @cached_property
    def lengths(self) -> np.ndarray:
        """(V,) length scales of the smooth part, the geometric mean over the draws."""
        return np.asarray(np.exp(self._mean[3:] + self.draws[:, 3:].mean(axis=0) * self._deviation[3:]))

    def distance(self, x: np.ndarray) -> np.ndarray:
        """(M,) length scales to the nearest architecture that it learnt from. x: (M, V)."""
        away = (x[:, None, :] - self.x[None, :, :]) / self.lengths
        return np.asarray(np.sqrt((away**2).sum(axis=2)).min(axis=1))
