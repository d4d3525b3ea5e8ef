"""Adapter to AutoAttack (Croce and Hein 2020): the authors' own code, from either of its two distributions."""

import importlib
import logging
import sys
import time
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor, nn

from robust_arch.attacks.base import Attack, image_gradient, other_form, require_count
from robust_arch.attacks.threat import ThreatModel
from robust_arch.common.progress import duration, step
from robust_arch.errors import InputError, invalid, require_choice

log = logging.getLogger(__name__)

VERSIONS = ("standard", "plus", "rand")
PACKAGES = ("pyautoattack", "autoattack")
LIBRARY_NORMS = {"linf": "Linf", "l2": "L2"}
RELATIVE_SECONDS = {"apgd-ce": 1.0, "apgd-t": 8.75, "fab-t": 11.81, "square": 13.81}
"""Seconds per image that withstands a part of the standard suite, in units of APGD-CE's.

Medians of nine published runs on CIFAR-10 and CIFAR-100 (logs of AutoAttack at github.com/csdongxian/AWP).
"""
_TILES = 5  # the l2 start of Square divides an image's sides by this


@dataclass(frozen=True, kw_only=True)
class _Suite(Attack):
    """Attacks of the library, each on the images that withstood those before it, on min(9, K - 1) target classes.

    The network itself decides which images are misclassified. The attacks see the folded form of an `Attackable`.
    """

    package: str = "pyautoattack"
    block_size: int = 250

    def __post_init__(self) -> None:
        require_count("block_size", self.block_size)
        require_choice("attack.package", self.package, PACKAGES)
        distribution_version(self.package)

    @property
    @abstractmethod
    def library_version(self) -> str:
        """The version of the suite, by the library's name for it."""

    @property
    def parts(self) -> list[str] | None:
        """The attacks of that version that run, by the library's names; None for all."""
        return None

    @property
    def min_classes(self) -> int:
        """The DLR loss divides by a difference to the third largest logit, the targeted one also uses the fourth."""
        return 3 if self.library_version == "rand" else 4

    @property
    def implementation(self) -> str:
        """The distribution that holds the authors' code, with its version."""
        return f"{self.package} {distribution_version(self.package)}"

    def run(self, net: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, seed: int, index: Tensor) -> Tensor:
        """One call of the library per block; images that it could not perturb come back clean."""
        first = x[:1].requires_grad_(True)
        logits = net(first)
        num_classes = logits.shape[1]
        if num_classes < self.min_classes:
            allowed = f"at least {self.min_classes} classes, for the DLR loss of {type(self).__name__}"
            raise invalid("net", f"{num_classes} classes", allowed)
        if x.dtype != torch.float32:
            raise invalid("x", x.dtype, "float32 images: the library casts to that, and the network must take it")
        image_gradient(logits.sum(), first)
        if self.parts is None and self.library_version != "rand":
            require_size_for_square(x, threat)
        attacked = other_form(net, x)
        x_adv = x.clone()
        for block in torch.split(index.argsort(), self.block_size):
            # a suite of its own: a call leaves some of its settings changed, FAB's restarts for one
            suite = self._suite(attacked, threat, seed, x.device, min(9, num_classes - 1))
            suite.model = net
            _tell_parts(suite)
            size = {"batch_size" if self.package == "pyautoattack" else "bs": self.block_size}
            # a random network is called once before the library seeds; the caller's state is kept around all of this
            torch.manual_seed(seed)
            tracer = sys.gettrace()  # the library's check for dynamic defences leaves Python without one
            try:
                found = suite.run_standard_evaluation(x[block], y[block], **size)
            finally:
                sys.settrace(tracer)
            x_adv[block] = found[0] if isinstance(found, tuple) else found
        return x_adv

    def _suite(self, net: nn.Module, threat: ThreatModel, seed: int, device: torch.device, targets: int) -> Any:
        library = importlib.import_module(self.package)
        settings = {"version": self.library_version, "seed": seed, "device": device}
        if self.package == "autoattack":
            settings["verbose"] = False
        suite = library.AutoAttack(net, norm=LIBRARY_NORMS[threat.norm], eps=threat.eps, **settings)
        suite.apgd_targeted.n_target_classes = suite.fab.n_target_classes = targets
        if self.parts is not None:
            suite.attacks_to_run = self.parts
        if self.package == "autoattack":
            suite.logger = suite.apgd.logger = suite.apgd_targeted.logger = _WarningsOnly()
        return suite


@dataclass(frozen=True, kw_only=True)
class AutoAttack(_Suite):
    """A whole suite of AutoAttack on min(9, K - 1) target classes.

    The network itself decides which images are misclassified; the attacks see BatchNorm folded where they may.

    Attributes:
        version: `standard` (APGD-CE, APGD-T, FAB-T, Square), `plus` (those, APGD-DLR and untargeted FAB, with restarts)
            or `rand` (APGD-CE and APGD-DLR on gradients averaged over 20 draws, for randomised networks).
        package: the distribution of the code; `autoattack` is installed from its repository, only on request.
        block_size: images attacked in one call of the library, in index order. The library reseeds for each of its
            batches, so the block is part of what determines the result; within a block it equals a direct call.
    """

    version: str = "standard"

    def __post_init__(self) -> None:
        require_choice("attack.version", self.version, VERSIONS)
        super().__post_init__()

    @property
    def library_version(self) -> str:
        """The version of the suite, by the library's name for it."""
        return self.version


@dataclass(frozen=True, kw_only=True)
class APGDScreen(_Suite):
    """APGD-CE and APGD-T as the standard AutoAttack runs them, without FAB-T and Square: not AutoAttack.

    With the same seed and block it breaks exactly the images that AutoAttack's first two attacks break, so AutoAttack
    breaks them too.

    Attributes:
        package: as of `AutoAttack`.
        block_size: as of `AutoAttack`.
    """

    @property
    def library_version(self) -> str:
        """The version whose settings the two attacks have."""
        return "standard"

    @property
    def parts(self) -> list[str]:
        """The two attacks."""
        return ["apgd-ce", "apgd-t"]


def _tell_parts(suite: Any) -> None:
    """Log each attack of the suite as it starts, with the images that withstood those before it and the time left.

    The library calls the suite's attacks once per block, in the order of `attacks_to_run`.
    """
    left, done, started = list(suite.attacks_to_run), 0.0, time.monotonic()
    timed = RELATIVE_SECONDS.keys() >= set(left)

    def told(perturb: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
        def run(x: Tensor, y: Tensor) -> Tensor:
            nonlocal done
            more = ""
            if done and timed:
                rest = len(x) * sum(RELATIVE_SECONDS[name] for name in left)
                more = f", about {duration((time.monotonic() - started) * rest / done)} left for them"
            name = left.pop(0)
            step(log, f"{name} on the {len(x)} images that are still classified correctly", more)
            done += len(x) * RELATIVE_SECONDS.get(name, 0.0)
            return perturb(x, y)

        return run

    for part in (suite.apgd, suite.apgd_targeted, suite.fab, suite.square):
        part.perturb = told(part.perturb)


class _WarningsOnly:
    """Replaces the printing logger of the package `autoattack`: only warnings are logged."""

    def log(self, message: str) -> None:
        if message.startswith("Warning"):
            log.warning("%s", message.removeprefix("Warning: "))


def require_size_for_square(x: Tensor, threat: ThreatModel) -> None:
    """Raise InputError for images (B, C, H, W) that are too small for the library's Square attack under l2."""
    if threat.norm == "l2" and min(x.shape[2:]) < _TILES:
        raise invalid("square", tuple(x.shape[2:]), f"images of at least {_TILES} x {_TILES} pixels under l2")


def distribution_version(package: str) -> str:
    """The installed version of a distribution; raises InputError where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        raise InputError(
            f"attack.package = {package!r}: an installed package; this one is not (pyautoattack comes with robust_arch)"
        ) from None
