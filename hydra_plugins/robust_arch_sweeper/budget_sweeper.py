"""`hydra/sweeper=budget`: Hydra's door to robust_arch.study.sweep. Imports nothing heavy: Hydra imports plugins."""

from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore

from hydra_plugins.robust_arch_sweeper._study_sweeper import StudySweeper


@dataclass
class BudgetSweeperConf:
    """Keys of the sweeper; the study's keys are under `search`."""

    _target_: str = "hydra_plugins.robust_arch_sweeper.budget_sweeper.BudgetSweeper"
    # overrides of the study itself, like {objective: "sat,trades"}; the command line replaces them
    params: Any = None


ConfigStore.instance().store(group="hydra/sweeper", name="budget", node=BudgetSweeperConf, provider="robust_arch")


class BudgetSweeper(StudySweeper):
    """Plans the architectures inside the budget and hands their runs to the configured launcher."""

    def __init__(self, **options: Any) -> None:
        """options: the group's keys, which are read from the configuration with everything else."""

    def run(self, arguments: list[str]) -> None:
        """Run the study; exits with status 1 unless every run of the plan is completed."""
        from robust_arch.study.sweep import sweep

        sweep(self.study_config, self.config_loader, self.launcher, arguments)
