"""The interface of a numerical optimiser such as Optuna: an allocation in, objective values out."""

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from robust_arch.configuration.nodes import of_a_job
from robust_arch.configuration.search import read_budget, read_template, refuse_search_of_own, search_group
from robust_arch.configuration.settings import read_settings
from robust_arch.errors import InputError, invalid
from robust_arch.execution.execute import execute
from robust_arch.execution.run import Run
from robust_arch.runs.folder import wait_while_locked
from robust_arch.search import allocate
from robust_arch.search.allocation import check_cuts, stick_breaking


def _held_out_percent(run: Run) -> float:
    if (result := run.folder.result) is None:
        raise InputError(f"{run.folder.path}: result.json is missing or does not fit")
    return result.best_val_robust_acc


OBJECTIVES: dict[str, Callable[[Run], float]] = {
    "held_out_robust_acc": _held_out_percent,
    "macs": lambda run: float(run.cost.macs),
    "params": lambda run: float(run.cost.params),
}


def load_run(cfg: DictConfig) -> Run:
    """The run that a configuration asks for, with its data.

    `search.allocation` replaces depths and widths of `arch`: its cuts divide the budget. The run is identical to one
    that is configured with these depths and widths directly.

    Raises:
        InputError: if a value is not allowed, or no widths on the grid meet the budget.
    """
    refuse_search_of_own(cfg)
    run = Run.load(read_settings(cfg))
    allocation = _allocation(cfg)
    if allocation["cuts"] is None:
        if allocation["depths"] is not None:
            raise invalid("search.allocation.depths", allocation["depths"], "null where search.allocation.cuts is null")
        return run
    template, train = read_template(cfg), run.splits.train
    depths = template.depths if allocation["depths"] is None else allocation["depths"]
    if not isinstance(depths, list | tuple) or len(depths) != len(template.depths):
        raise invalid("search.allocation.depths", depths, f"a list of {len(template.depths)} integers, or null")
    spec = allocate(
        read_budget(cfg, train.num_classes, train.image_shape),
        stick_breaking(check_cuts(allocation["cuts"], len(depths))),
        depths,
        cfg.search.space.width_step,
        num_classes=train.num_classes,
        image_shape=train.image_shape,
        template=template,
    )
    return replace(run, settings=replace(run.settings, spec=spec))


def _allocation(cfg: DictConfig) -> dict[str, Any]:
    """The group `search.allocation`."""
    return search_group(cfg, "allocation", ("cuts", "depths"))


def refuse_allocation(cfg: DictConfig) -> None:
    """Raise InputError if an allocation is set and the sweeper plans the architectures."""
    allocation = _allocation(cfg)
    if any(value is not None for value in allocation.values()):
        raise invalid(
            "search.allocation",
            allocation,
            "null values where the sweeper plans the architectures; search.space.shares divides the budget there",
        )


def read_objectives(cfg: DictConfig) -> tuple[str, ...]:
    """The key `study.objectives`: what a job returns to the sweeper; none by default."""
    if cfg.study.objectives is None:
        return ()
    names: Any = cfg.study.objectives
    listed = [str(name) for name in names] if OmegaConf.is_list(names) else []
    if not listed or len(set(listed)) != len(listed) or not set(listed) <= set(OBJECTIVES):
        raise invalid("study.objectives", names, f"a list of different ones of {', '.join(OBJECTIVES)}, or null")
    return tuple(listed)


def objective_values(run: Run, names: tuple[str, ...]) -> tuple[float, ...]:
    """The objectives of a completed run: held-out robust accuracy in percent, MACs per image, parameters."""
    return tuple(OBJECTIVES[name](run) for name in names)


def execute_or_wait(run: Run) -> str:
    """Execute the run, or wait for the process that does, as two suggestions can be the same run; returns its state."""
    while (state := execute(run)) == "running":
        wait_while_locked([run.folder])
    return state


class PrepareSearch(Callback):
    """Checks everything before a sweep of suggestions starts, and makes the study's folder for the storage."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Exit with the message of the InputError if a value is not allowed."""
        direction = config.hydra.sweeper.get("direction")
        cfg = of_a_job(config.copy())
        try:
            run, names = load_run(cfg), read_objectives(cfg)
            if not OmegaConf.is_list(direction) or len(direction) != len(names):
                raise invalid(
                    "study.objectives", list(names), f"one per entry of hydra.sweeper.direction = {direction}"
                )
        except InputError as error:
            sys.exit(f"error: {error}")
        run.settings.study_path.mkdir(parents=True, exist_ok=True)
