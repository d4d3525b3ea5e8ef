"""The plan of a study: its runs inside the budget, all checked before any of them starts."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from robust_arch.architectures import CustomArch
from robust_arch.configuration.evaluation import (
    Finalists,
    evaluation_keys,
    read_evaluation,
    read_finalists,
    read_threat,
)
from robust_arch.configuration.nodes import as_override
from robust_arch.configuration.search import (
    read_budget,
    read_sample,
    read_scaled,
    read_seeds,
    read_space,
    refuse_search_of_own,
)
from robust_arch.configuration.settings import Settings, read_settings
from robust_arch.errors import InputError, invalid
from robust_arch.evaluation import EvaluationSettings
from robust_arch.execution.run import Run
from robust_arch.runs import StudyFolder
from robust_arch.runs.study import PLAN_COLUMNS
from robust_arch.search import Budget, Candidates, Halving
from robust_arch.study.composition import configurations
from robust_arch.study.optimiser import read_objectives, refuse_allocation

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PlannedRun:
    """A run of the plan, with the overrides that a job composes its settings from.

    Attributes:
        run: The planned run.
        overrides: Hydra overrides; `changed` keeps them in step with the run.
    """

    run: Run
    overrides: tuple[str, ...]

    @classmethod
    def composed(cls, run: Run, overrides: Sequence[str]) -> "PlannedRun":
        """A run that was composed with `overrides`; its jobs get the precision that was resolved for the plan."""
        precision = as_override("trainer.precision", run.settings.trainer.precision)
        return cls(run, (*overrides, precision))

    def changed(self, **changes: Any) -> "PlannedRun":
        """A copy of the run with other settings.

        changes: Fields of `Settings`: `spec` (of the same family and stem), `seed`, `evaluation` or `rerun`.
        """
        before = self.run.settings
        settings = replace(before, **changes)
        keys = {key: value for name in changes for key, value in _KEYS[name](before, settings).items()}
        overrides = (as_override(key, value) for key, value in keys.items())
        return PlannedRun(replace(self.run, settings=settings), (*self.overrides, *overrides))

    def row(self) -> dict[str, Any]:
        """A row of plan.csv."""
        facts = self.run.facts
        return {key: getattr(facts, key) for key in PLAN_COLUMNS}

    @property
    def is_settled(self) -> bool:
        """Whether nothing is left to try: the run is done, or it diverged, which it would do again."""
        return self.run.is_done() or self.run.folder.state == "diverged"


def _changed_evaluation(before: Settings, after: Settings) -> dict[str, Any]:
    old = evaluation_keys(before.evaluation)
    return {key: value for key, value in evaluation_keys(after.evaluation).items() if value != old[key]}


def _changed_spec(_: Settings, after: Settings) -> dict[str, Any]:
    if isinstance(after.spec, CustomArch):  # a study changes nothing in it
        return {"arch._target_": after.spec.target}
    return {"arch.depths": after.spec.depths, "arch.widths": after.spec.widths}


_KEYS: Mapping[str, Callable[[Settings, Settings], Mapping[str, Any]]] = {
    "spec": _changed_spec,
    "seed": lambda _, after: {"seed": after.seed},
    "evaluation": _changed_evaluation,
    "rerun": lambda _, after: {"rerun": after.rerun},
}
"""By field of `Settings` that a study changes: the configuration's keys with their values, from before and after."""


@dataclass(frozen=True)
class StudyPlan:
    """The plan of one configuration.

    Attributes:
        runs: One per architecture inside the budget and seed.
        members: The architectures of the space inside the budget, and what was rejected.
        budget: The budget.
        study: The study's folder.
        halving: The rungs of which these runs are the first, in successive halving.
    """

    runs: tuple[PlannedRun, ...]
    members: Candidates
    budget: Budget
    study: StudyFolder
    halving: Halving | None = None


def plan_study(cfg: DictConfig, overrides: Sequence[str]) -> StudyPlan:
    """Check everything and plan; trains and writes nothing.

    cfg: a composed configuration. overrides: those it was composed with, which are passed to every job.

    Raises:
        InputError: if a value is not allowed, or no architecture of the space meets the budget.
    """
    refuse_search_of_own(cfg)
    settings = read_settings(cfg)
    refuse_allocation(cfg)
    read_objectives(cfg)
    require_jobs()
    base = Run.load(settings)
    train = base.splits.train
    task = (train.num_classes, train.image_shape)
    budget, seeds = read_budget(cfg, *task), read_seeds(cfg)
    if isinstance(settings.spec, CustomArch):
        members = Candidates((settings.spec,), 1, (), 0)
    else:
        space = read_scaled(cfg, budget, *task) or read_space(cfg)
        members = read_sample(cfg).of(space.members(budget, *task), *task, budget.counted)
    if not members.specs:
        nearest = f"; nearest: {members.rejected[0].description}: {members.rejected[0].reason}" * bool(members.rejected)
        raise InputError(
            f"search.budget = {budget}: none of the {members.considered} points of search.space meets it{nearest}"
        )
    members.require_plannable(len(seeds))
    template = PlannedRun.composed(base, overrides)
    runs = [template.changed(spec=spec, seed=seed) for spec in members.specs for seed in seeds]
    return StudyPlan(tuple(runs), members, budget, StudyFolder(base.settings.study_path))


def require_jobs() -> None:
    """Raise InputError for a number of simultaneous jobs that joblib would refuse in the middle of the sweep."""
    jobs = HydraConfig.get().launcher.get("n_jobs", 1) if HydraConfig.initialized() else 1
    if jobs is not None and (isinstance(jobs, bool) or not isinstance(jobs, int) or not jobs):
        raise invalid("hydra.launcher.n_jobs", jobs, "an integer of at least 1, or -1 for as many as there are cores")


def plan_all(
    config: DictConfig, loader: ConfigLoader, arguments: Sequence[str]
) -> tuple[list[StudyPlan], Finalists | None]:
    """The plan per combination of swept values, and the finalists' evaluation, all checked."""
    plans = []
    finalists = None
    for composed, combination in configurations(config, loader, arguments):
        plans.append(plan_study(composed, combination))
        finalists = checked_finalists(composed, plans[-1].runs[0].run)
    return plans, finalists


def checked_finalists(cfg: DictConfig, run: Run) -> Finalists | None:
    """`study.finalists`, or None; raises InputError where it does not fit the test images or weights of this run."""
    finalists, test = read_finalists(cfg), run.splits.test
    if finalists is not None:
        finalists.evaluation.chosen_weights(run.settings.recipe.weights)
        finalists.evaluation.require_fits(len(test), test.num_classes, read_threat(cfg.threat).eps)
        _warn_of_incomparable(finalists.evaluation, read_evaluation(cfg.evaluate), len(test))
    return finalists


def _warn_of_incomparable(finalists: EvaluationSettings, others: EvaluationSettings, test_size: int) -> None:
    """Log it if finalists get further attacks on the images of the other runs: their worst case is then another one."""
    known = {named.name for named in others.attacks}
    further = [named.name for named in finalists.attacks if named.name not in known]
    if further and (finalists.n or test_size) == (others.n or test_size):
        log.warning(
            "study.finalists.n = %s: the images of evaluate.n, so the finalists' rows have %s in their worst case and "
            "are compared with no other run; with another number they have further rows",
            finalists.n, ", ".join(further),
        )  # fmt: skip


def finalist_runs(trained: Sequence[PlannedRun], finalists: Finalists) -> list[PlannedRun]:
    """The best runs by robust accuracy on held-out images, with the evaluation of finalists."""

    def held_out(planned: PlannedRun) -> float:
        result = planned.run.folder.result
        return result.best_val_robust_acc if result else -1.0

    best = sorted(trained, key=held_out, reverse=True)[: finalists.top]
    evaluation = finalists.evaluation
    attacks = ", ".join(named.name for named in (*evaluation.attacks, *evaluation.cascade))
    images = "all" if evaluation.n is None else evaluation.n
    log.info("finalists: the best %d of %d runs, under %s on %s test images", len(best), len(trained), attacks, images)
    return [planned.changed(evaluation=evaluation, rerun=False) for planned in best]
