"""`hydra/sweeper=halving`: Hydra's door to robust_arch.study.halving. Imports nothing heavy: Hydra imports plugins."""

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore

from hydra_plugins.robust_arch_sweeper._study_sweeper import StudySweeper


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
    # overrides of the study itself, as in budget
    params: Any = None


ConfigStore.instance().store(group="hydra/sweeper", name="halving", node=HalvingSweeperConf, provider="robust_arch")


class HalvingSweeper(StudySweeper):
    """Promotes architectures inside the budget from short runs to long ones, on the configured launcher."""

    def __init__(self, **options: Any) -> None:
        """options: the group's keys, which are read from the configuration with everything else."""

    def run(self, arguments: list[str]) -> None:
        """Run the search; exits with status 1 unless it comes to its end."""
        from robust_arch.study.halving import halve

        halve(self.study_config, self.config_loader, self.launcher, arguments)
