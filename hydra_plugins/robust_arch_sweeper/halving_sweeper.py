"""`hydra/sweeper=halving`: Hydra's door to robust_arch.halving. Imports nothing heavy, as Hydra imports plugins."""

import sys
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class HalvingSweeperConf:
    """Keys beside those under `search`; types are checked by robust_arch, which names the key and what is allowed."""

    _target_: str = "hydra_plugins.robust_arch_sweeper.halving_sweeper.HalvingSweeper"
    # what a rung has more of than the one before: trainer.max_epochs or trainer.limit_train_batches
    resource: Any = "trainer.max_epochs"
    # its value at each rung, like [3,9,27]; null: max, max/eta, max/eta^2... down to min
    rungs: Any = None
    min: Any = None
    max: Any = None
    # of n architectures ceil(n/eta) are promoted
    eta: Any = 3
    # architectures that so many percentage points of held-out robust accuracy across the cut separate are tied
    tie_points: Any = 0
    # seeds that the tied are trained with too, at that rung; without any, ties go by the mean and then plan order
    tie_seeds: Any = field(default_factory=list)


ConfigStore.instance().store(group="hydra/sweeper", name="halving", node=HalvingSweeperConf, provider="robust_arch")


class HalvingSweeper(Sweeper):
    """Promotes architectures inside the budget from short runs to long ones, on the configured launcher."""

    launcher: Launcher

    def __init__(self, **options: Any) -> None:
        """options: the group's keys, which are read from the configuration with everything else."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra gives, and make the launcher."""
        from hydra.core.plugins import Plugins

        self.study_config, self.config_loader = config, hydra_context.config_loader
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Run the search; exits with status 1 unless it comes to its end."""
        from robust_arch.halving import halve

        try:
            halve(self.study_config, self.config_loader, self.launcher, arguments)
        except OSError as error:  # a disk is full, or a folder cannot be written
            sys.exit(f"error: {error}")
