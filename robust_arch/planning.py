"""The plan of a study as a person reads it."""

from collections.abc import Sequence

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import open_dict, read_write
from rich.table import Table

from robust_arch.architectures import arch_name
from robust_arch.errors import InputError
from robust_arch.paths import conf_dir
from robust_arch.resolvers import register_resolvers
from robust_arch.sweep import StudyPlan, plan_study


def plan_from_overrides(overrides: Sequence[str]) -> StudyPlan:
    """The plan that `python -m robust_arch.train -m <overrides>` would follow.

    Raises:
        InputError: for an override that Hydra or this project refuses.
    """
    register_resolvers()
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            cfg = compose("train", overrides=list(overrides), return_hydra_config=True)
    except HydraException as error:
        raise InputError(str(error)) from None
    HydraConfig.instance().set_config(cfg)
    with read_write(cfg), open_dict(cfg):
        del cfg["hydra"]
    return plan_study(cfg, overrides)


def plan_tables(plan: StudyPlan) -> list[Table | str]:
    """The runs with their cost and shares, and what was left out with the reason."""
    runs = Table(title=f"study {plan.study.name}: {len(plan.runs)} runs inside {plan.budget}")
    for column in ("run", "architecture", "params", "MACs", "stage shares of params", "of MACs", "seed", "state"):
        runs.add_column(column, justify="right" if column in ("params", "MACs", "seed") else "left", overflow="fold")
    for planned in plan.runs:
        run = planned.run
        runs.add_row(
            run.run_id,
            arch_name(run.settings.spec),
            f"{run.cost.params:,}",
            f"{run.cost.macs:,}",
            _shares(run.cost.shares("params")),
            _shares(run.cost.shares("macs")),
            str(run.settings.seed),
            run.folder.state,
        )
    members = plan.members
    if not members.rejected_count:
        return [runs]
    rejected = Table(title=f"{members.rejected_count:,} of {members.considered:,} rejected")
    rejected.add_column("nearest of them" if members.rejected_count > len(members.rejected) else "what")
    rejected.add_column("why")
    for item in members.rejected:
        rejected.add_row(item.description, item.reason)
    return [runs, rejected]


def _shares(shares: Sequence[float]) -> str:
    return " ".join(f"{share:.0%}" for share in shares)
