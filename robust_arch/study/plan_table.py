"""The plan of a study as a person reads it."""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Literal

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from rich.table import Table

from robust_arch.architectures import activation_bytes, arch_name
from robust_arch.common.paths import conf_dir
from robust_arch.configuration.commands import FLAGS, require_one_study, with_own_network
from robust_arch.configuration.resolvers import register_resolvers
from robust_arch.configuration.schema import refused
from robust_arch.errors import invalid
from robust_arch.execution.run import Run
from robust_arch.search import Candidates, Halving
from robust_arch.study.composition import sweep_configuration
from robust_arch.study.forecast import recorded_speed
from robust_arch.study.halving import plan_halving
from robust_arch.study.plan import StudyPlan, plan_all
from robust_arch.study.speed import Speed


def plans_from_command(arguments: Sequence[str]) -> list[StudyPlan]:
    """The plans that `python -m robust_arch.train -m <arguments>` would follow, one per combination of swept values.

    `-m` may be among the arguments, and `--config-dir <folder>` adds a folder of one's own YAML.

    Raises:
        InputError: for an argument that Hydra or this project refuses.
    """
    words = [
        part for word in arguments for part in (word.split("=", 1) if word.startswith("--config-dir=") else [word])
    ]
    overrides = with_own_network([FLAGS.get(word, word) for word in words if word not in ("-m", "--multirun")])
    search_path = []
    for option in ("--config-dir", "-cd"):
        if option in overrides:
            position = overrides.index(option)
            folder = Path(overrides[position + 1]) if len(overrides) > position + 1 else None
            if folder is None or not folder.is_dir():
                raise invalid(
                    option, None if folder is None else str(folder), "a folder of YAML files laid out like conf/"
                )
            search_path = [f"hydra.searchpath=[file://{folder.resolve()}]"]
            del overrides[position : position + 2]
    register_resolvers()
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            require_one_study(overrides)
            config, loader, swept = sweep_configuration([*search_path, *overrides])
            sweeper = config.hydra.runtime.choices["hydra/sweeper"]
            if sweeper == "optuna":
                raise invalid("hydra/sweeper", sweeper, "budget or halving; Optuna chooses as the study runs")
            if sweeper == "halving":
                return [plan_halving(config, loader, swept).study]
            return plan_all(config, loader, swept)[0]
    except (HydraException, OmegaConfBaseException) as error:
        raise refused(error) from None


def plan_tables(plan: StudyPlan) -> list[Table | str]:
    """The runs and their cost, what is left to train, and what was rejected and why."""
    # the runs of a plan differ in architecture and seed alone
    speed = recorded_speed(plan.runs[0].run, plan.study)
    members = plan.members
    tables: list[Table | str] = [_runs_table(plan, speed), _left_to_train(plan, speed)]
    if plan.halving is not None:
        tables.append(_schedule(plan, plan.halving))
    if members.not_sampled:
        tables.append(f"{members.not_sampled:,} more architectures inside were not sampled (search.sample)")
    if members.rejected_count:
        tables.append(_rejected_table(members))
    return tables


_COLUMNS: dict[str, Literal["left", "right"]] = {
    "run": "left", "architecture": "left", "params": "right", "MACs": "right", "stage shares of params": "left",
    "of MACs": "left", "activations, MiB": "right", "training time": "right", "seed": "right", "state": "left",
}  # fmt: skip


def _runs_table(plan: StudyPlan, speed: Speed | None) -> Table:
    table = Table(title=f"study {plan.study.name}: {len(plan.runs)} runs inside {plan.budget}")
    for column, side in _COLUMNS.items():
        table.add_column(column, justify=side, overflow="fold")
    for planned in plan.runs:
        run = planned.run
        table.add_row(
            run.run_id,
            arch_name(run.settings.spec),
            f"{run.cost.params:,}",
            f"{run.cost.macs:,}",
            _shares(run.cost.shares("params")),
            _shares(run.cost.shares("macs")),
            _activation_mib(run),
            _duration(_seconds(run, speed)) if speed else "-",
            str(run.settings.seed),
            run.folder.state,
        )
    return table


def _activation_mib(run: Run) -> str:
    """What a forward pass over one batch keeps for the backward pass, in float32; a dash where not available."""
    kept = activation_bytes(run.settings.spec, run.splits.train.image_shape)
    return "-" if kept is None else f"{run.settings.recipe.batch_size * kept / 2**20:,.1f}"


def _seconds(run: Run, speed: Speed) -> float:
    """How long the run will train."""
    return speed.seconds(run.cost.macs, run.settings.trainer.max_epochs)


def _duration(seconds: float) -> str:
    """Hours, minutes and seconds."""
    return str(timedelta(seconds=round(seconds)))


def _left_to_train(plan: StudyPlan, speed: Speed | None) -> str:
    left = [planned.run for planned in plan.runs if not planned.run.folder.trained]
    if not left:
        return "nothing is left to train"
    if speed is None:
        return f"{len(left)} runs left to train; times appear once a run of the study is recorded on this machine"
    duration = _duration(sum(_seconds(run, speed) for run in left))
    return f"{len(left)} runs left to train: {duration} in all, one after the other"


def _rejected_table(members: Candidates) -> Table:
    table = Table(title=f"{members.rejected_count:,} of {members.considered:,} rejected")
    table.add_column("nearest of them" if members.rejected_count > len(members.rejected) else "what")
    table.add_column("why")
    for item in members.rejected:
        table.add_row(item.description, item.reason)
    return table


def _schedule(plan: StudyPlan, halving: Halving) -> Table:
    """The rungs and their runs if none fails and none is tied, and their cost relative to the full grid."""
    seeds = len(plan.runs) // len(plan.members.specs)
    counts = halving.schedule(len(plan.members.specs))
    rows = [(count * seeds, value) for count, value in zip(counts, halving.values, strict=True)]
    total, grid = sum(runs * value for runs, value in rows), len(plan.runs) * halving.values[-1]
    title = f"rungs of {halving.resource}: {total:,} in all, {total / grid:.0%} of the full grid's {grid:,}"
    table = Table(title=f"{title}; the runs above are the first rung's")
    for column in ("rung", halving.resource, "architectures", "runs", "sum"):
        table.add_column(column, justify="right")
    for number, (count, (runs, value)) in enumerate(zip(counts, rows, strict=True), start=1):
        table.add_row(str(number), str(value), str(count), str(runs), f"{runs * value:,}")
    return table


def _shares(shares: Sequence[float]) -> str:
    return " ".join(f"{share:.0%}" for share in shares)
