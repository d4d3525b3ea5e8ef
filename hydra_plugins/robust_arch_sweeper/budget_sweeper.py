"""`hydra/sweeper=budget`: Hydra's door to robust_arch.sweep. Imports nothing heavy, as Hydra imports every plugin."""

import sys
from dataclasses import dataclass

from hydra.core.config_store import ConfigStore
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class BudgetSweeperConf:
    """The group's only choice; the study's keys stand under `search`."""

    _target_: str = "hydra_plugins.robust_arch_sweeper.budget_sweeper.BudgetSweeper"


ConfigStore.instance().store(group="hydra/sweeper", name="budget", node=BudgetSweeperConf, provider="robust_arch")


class BudgetSweeper(Sweeper):
    """Plans the architectures inside the budget and hands their runs to the configured launcher."""

    launcher: Launcher

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra gives, and make the launcher."""
        from hydra.core.plugins import Plugins

        self.study_config, self.config_loader = config, hydra_context.config_loader
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Run the study; exits with status 1 unless every run of the plan is completed."""
        from robust_arch.sweep import sweep

        try:
            sweep(self.study_config, self.config_loader, self.launcher, arguments)
        except OSError as error:  # a disk is full, or a folder cannot be written
            sys.exit(f"error: {error}")
