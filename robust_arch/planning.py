"""The plan of a study as a person reads it."""

from collections.abc import Sequence
from pathlib import Path

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
from robust_arch.sweep import StudyPlan, combinations, plan_study


def plans_from_command(arguments: Sequence[str]) -> list[StudyPlan]:
    """The plans that `python -m robust_arch.train -m <arguments>` would follow, one a combination of swept values.

    `-m` may be among the arguments, and `--config-dir <folder>` adds a folder of one's own YAML.

    Raises:
        InputError: for an argument that Hydra or this project refuses.
    """
    overrides = [argument for argument in arguments if argument not in ("-m", "--multirun")]
    search_path = []
    for option in ("--config-dir", "-cd"):
        if option in overrides:
            position = overrides.index(option)
            search_path = [f"hydra.searchpath=[file://{Path(*overrides[position + 1 : position + 2]).resolve()}]"]
            del overrides[position : position + 2]
    register_resolvers()
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            return [_plan([*search_path, *combination], combination) for combination in combinations(overrides)]
    except HydraException as error:
        raise InputError(str(error)) from None


def _plan(composed_with: Sequence[str], overrides: Sequence[str]) -> StudyPlan:
    cfg = compose("train", overrides=list(composed_with), return_hydra_config=True)
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
