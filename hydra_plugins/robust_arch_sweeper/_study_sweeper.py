"""What the sweepers of this package share: Hydra hands over the configuration, robust_arch does the rest."""

import sys
from abc import abstractmethod

from hydra.core.config_loader import ConfigLoader
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class StudySweeper(Sweeper):
    """Keeps what Hydra gives; abstract, as Hydra would offer a concrete class as a sweeper of its own."""

    study_config: DictConfig
    config_loader: ConfigLoader
    launcher: Launcher

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra gives, and make the launcher."""
        from hydra.core.plugins import Plugins

        self.study_config, self.config_loader = config, hydra_context.config_loader
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Do what the sweeper does; exits with status 1 unless it comes to its end."""
        try:
            self.run(arguments)
        except OSError as error:  # a disk is full, or a folder cannot be written
            sys.exit(f"error: {error}")

    @abstractmethod
    def run(self, arguments: list[str]) -> None:
        """Plan and launch."""
