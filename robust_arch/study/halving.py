"""Successive halving of a study (Jamieson & Talwalkar 2016; Karnin et al. 2013): short runs of all, long runs of few.

The runs of every rung are whole runs with their own schedule, recorded like any other. Promotions follow from the
records, so the same command resumes where it was interrupted and makes the same decisions.
"""

import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig

from robust_arch.architectures import AnyArch, arch_name
from robust_arch.common.files import write_rows
from robust_arch.configuration.evaluation import Finalists
from robust_arch.configuration.nodes import as_override, field_names, known_keys, plain
from robust_arch.configuration.search import read_seeds
from robust_arch.configuration.settings import read_settings, study_command
from robust_arch.errors import InputError
from robust_arch.execution.run import Run
from robust_arch.runs import StudyFolder
from robust_arch.search import Halving
from robust_arch.search.halving import kept, mean_or_none, ranking, tied
from robust_arch.study.composition import configurations
from robust_arch.study.launch import launch_until_settled
from robust_arch.study.plan import PlannedRun, StudyPlan, checked_finalists, finalist_runs, plan_study

log = logging.getLogger(__name__)

# a lower rung is judged on held-out images: what it evaluates is clean test accuracy alone, for the record
_LOWER_EVALUATION = (
    "evaluate.attacks=[]", "evaluate.cascade=[]", "evaluate.checkpoints=[best]", "evaluate.diagnostics=null",
    "evaluate.smoothness=null", "evaluate.save_images=false",
)  # fmt: skip
ONE_VALUE = "hydra/sweeper=halving: one value for each key; sweep over values in studies of their own"
RUNG_COLUMNS = (
    "rung", "resource", "value", "run_id", "arch", "seed", "held_out_robust_acc", "mean_held_out_robust_acc",
    "tie_mean", "rank", "promoted", "state",
)  # fmt: skip


@dataclass(frozen=True)
class Rung:
    """One rung.

    Attributes:
        number: Counted from 1.
        value: Of the resource.
        template: A run of the rung with the study's template architecture.
    """

    number: int
    value: int
    template: PlannedRun

    def runs(self, specs: Sequence[AnyArch], seeds: Sequence[int]) -> list[PlannedRun]:
        """The runs of these architectures, each with every seed."""
        return [self.template.changed(spec=spec, seed=seed) for spec in specs for seed in seeds]


@dataclass(frozen=True)
class HalvingPlan:
    """A checked search.

    Attributes:
        options: The group `hydra/sweeper=halving`.
        rungs: From the first to the last.
        study: The plan of the first rung.
        seeds: With which every architecture is trained.
        finalists: What is evaluated after the last rung, if anything.
    """

    options: Halving
    rungs: tuple[Rung, ...]
    study: StudyPlan
    seeds: tuple[int, ...]
    finalists: Finalists | None


@dataclass(frozen=True)
class Decision:
    """The outcome of a rung; accuracies are in percent on held-out images.

    Attributes:
        rung: The rung.
        specs: Its architectures, in plan order.
        runs: Its runs.
        values: Accuracy by run_id; None for a run that failed or diverged.
        means: Per architecture, over the study's seeds.
        tie_means: For tied architectures, by position: the mean including the seeds that break ties.
        order: Positions of the architectures, best first.
        promoted: The promoted architectures, in plan order.
    """

    rung: Rung
    specs: tuple[AnyArch, ...]
    runs: tuple[PlannedRun, ...]
    values: Mapping[str, float | None]
    means: tuple[float | None, ...]
    tie_means: Mapping[int, float | None]
    order: tuple[int, ...]
    promoted: tuple[AnyArch, ...]


def read_halving(node: DictConfig) -> Halving:
    """The group `hydra/sweeper=halving`."""
    names = {"_target_", "params", *field_names(Halving)}
    options = known_keys(plain(node, "hydra.sweeper"), "hydra.sweeper", names)
    del options["_target_"]
    options.pop("params", None)  # read where configurations are composed
    return Halving(**options)


def rung_overrides(options: Halving, number: int) -> tuple[str, ...]:
    """The overrides that distinguish a run of rung `number`, counted from 0, from a run of the study."""
    evaluation = () if number == len(options.values) - 1 else _LOWER_EVALUATION
    return (as_override(options.resource, options.values[number]), *evaluation)


def plan_halving(config: DictConfig, loader: ConfigLoader, arguments: Sequence[str]) -> HalvingPlan:
    """Check everything and plan; trains and writes nothing.

    Raises:
        InputError: if a value is not allowed, if the command line sweeps over one, or if no architecture fits.
    """
    options = read_halving(config.hydra.sweeper)
    rungs: list[Rung] = []
    for number, value in enumerate(options.values):
        found = list(configurations(config, loader, [*arguments, *rung_overrides(options, number)]))
        if len(found) > 1:
            raise InputError(ONE_VALUE)
        cfg, overrides = found[0]
        if not rungs:
            study = replace(plan_study(cfg, overrides), halving=options)
            options.require_other_seeds(read_seeds(cfg))
        first = study.runs[0].run
        # a Run checks that its settings fit the data
        base = Run(read_settings(cfg), first.splits, first.training_fingerprint)
        rungs.append(Rung(number + 1, value, PlannedRun.composed(base, overrides)))
    finalists = checked_finalists(cfg, first)
    return HalvingPlan(options, tuple(rungs), study, read_seeds(cfg), finalists)


def halve(config: DictConfig, loader: ConfigLoader, launcher: Launcher, arguments: Sequence[str]) -> None:
    """Plan, run rung after rung, then evaluate the finalists of the last one.

    Raises:
        SystemExit: with status 1 if every architecture of a rung failed, or if a run was interrupted; the same command
            resumes there.
    """
    try:
        plan = plan_halving(config, loader, arguments)
    except InputError as error:
        sys.exit(f"error: {error}")
    hydra_overrides = [item for item in config.hydra.overrides.hydra if not item.startswith("hydra.mode=")]
    search = _Search(plan, launcher, study_command(config.hydra, [*hydra_overrides, *arguments]))
    specs: tuple[AnyArch, ...] = tuple(plan.study.members.specs)
    search.study.go_on()
    with search.study.sweeping():
        for rung in plan.rungs:
            decision = search.decide(rung, specs)
            specs = decision.promoted
            if not specs:
                sys.exit(
                    f"error: rung {rung.number}: a run of every architecture failed; results in {search.study.path}"
                )
        search.evaluate_finalists(decision.runs)
    log.info("%d rungs decided; results in %s", len(plan.rungs), search.study.results_path)


class _Search:
    """Decides the rungs of one study one after the other, and records them."""

    def __init__(self, plan: HalvingPlan, launcher: Launcher, command: str) -> None:
        self.plan, self.launcher = plan, launcher
        self.study: StudyFolder = plan.study.study
        self.decisions: list[Decision] = []
        self.launched: list[PlannedRun] = []
        members = plan.study.members
        self.about = {
            "command": command,
            "budgets": [str(plan.study.budget)],
            "considered": members.considered,
            "rejected": members.rejected_count,
            "halving": {"resource": plan.options.resource, "rungs": list(plan.options.values), "eta": plan.options.eta},
        }

    def decide(self, rung: Rung, specs: tuple[AnyArch, ...]) -> Decision:
        """Run what is not done of a rung, and record what is promoted or, on the last rung, what has finished."""
        options, seeds = self.plan.options, self.plan.seeds
        runs = rung.runs(specs, seeds)
        values = self._values(runs)
        means = [mean_or_none(_of(runs, values, spec)) for spec in specs]
        keep = len(specs) if rung is self.plan.rungs[-1] else kept(len(specs), options.eta)
        tie_means: dict[int, float | None] = {}
        if options.tie_seeds and (positions := tied(means, keep, options.tie_points)):
            log.info("rung %d: %d architectures are tied and get further seeds", rung.number, len(positions))
            further = rung.runs([specs[i] for i in positions], options.tie_seeds)
            values |= self._values(further)
            runs += further
            tie_means = {i: mean_or_none(_of(runs, values, specs[i])) for i in positions}
        order = ranking(means, keep, options.tie_points, tie_means)
        promoted = sorted(i for i in order[:keep] if means[i] is not None and tie_means.get(i, 0.0) is not None)
        chosen = tuple(specs[i] for i in promoted)
        decision = Decision(rung, specs, tuple(runs), values, tuple(means), tie_means, order, chosen)
        self.decisions.append(decision)
        self._write_rungs()
        self._tell(decision)
        return decision

    def _values(self, runs: Sequence[PlannedRun]) -> dict[str, float | None]:
        """Held-out robust accuracy of each run, once each has ended; None for one that failed or diverged."""
        self.launched += runs
        self.study.write_plan([planned.row() for planned in self.launched], self.about)
        launch_until_settled(self.launcher, runs)
        _require_ended(runs)
        return {planned.run.run_id: _held_out(planned) for planned in runs}

    def _write_rungs(self) -> None:
        """Replace rungs.csv."""
        resource, final = self.plan.options.resource, self.plan.rungs[-1]
        rows = [row for each in self.decisions for row in _rows(each, resource, last=each.rung is final)]
        write_rows(self.study.path / "rungs.csv", RUNG_COLUMNS, rows)

    def _tell(self, decision: Decision) -> None:
        rung, specs = decision.rung, decision.specs
        done = [planned for planned in decision.runs if decision.values[planned.run.run_id] is not None]
        result = done[0].run.folder.result if done else None
        images = result.selection_images if result else None
        described = "; ".join(_described(decision, position) for position in decision.order)
        ended = "finished" if rung is self.plan.rungs[-1] else "promoted"
        log.info(
            "rung %d of %d, %s=%d: %d of %d architectures %s; held-out robust accuracy (n=%s), mean of %d seeds: %s",
            rung.number, len(self.plan.rungs), self.plan.options.resource, rung.value, len(decision.promoted),
            len(specs), ended, images, len(self.plan.seeds), described,
        )  # fmt: skip

    def evaluate_finalists(self, runs: Sequence[PlannedRun]) -> None:
        """Evaluate the best runs of the last rung again with `study.finalists`."""
        if self.plan.finalists is not None:
            chosen = finalist_runs([planned for planned in runs if planned.run.folder.trained], self.plan.finalists)
            launch_until_settled(self.launcher, chosen, "finalists")
            if not all(planned.run.is_done() for planned in chosen):
                sys.exit(f"error: not every finalist is evaluated; results in {self.study.path}")
        self.study.write_results()


def _require_ended(runs: Sequence[PlannedRun]) -> None:
    """Stop the search at an interrupted run: without its result, the promotion would be arbitrary."""
    undone = [planned.run for planned in runs if not planned.run.is_done()]
    open_runs = [run for run in undone if run.folder.state not in ("failed", "diverged")]
    for run in open_runs:
        log.error("run %s is not done (%s): %s", run.run_id, run.folder.state, run.folder.path)
    if open_runs:
        sys.exit(1)


def _held_out(planned: PlannedRun) -> float | None:
    result = planned.run.folder.result
    return result.best_val_robust_acc if planned.run.is_done() and result else None


def _of(runs: Sequence[PlannedRun], values: Mapping[str, float | None], spec: AnyArch) -> list[float | None]:
    """The values of one architecture's runs."""
    return [values[planned.run.run_id] for planned in runs if planned.run.settings.spec == spec]


def _described(decision: Decision, position: int) -> str:
    """An architecture with its value in percent, like `net 41.3 (tied, 40.9 with further seeds)`."""
    mean, spec = decision.means[position], decision.specs[position]
    words = [arch_name(spec), "failed" if mean is None else f"{mean:.1f}"]
    if position in decision.tie_means:
        tie_mean = decision.tie_means[position]
        words.append("(tied, failed)" if tie_mean is None else f"(tied, {tie_mean:.1f} with further seeds)")
    return " ".join(words)


def _rows(decision: Decision, resource: str, *, last: bool) -> list[dict[str, Any]]:
    """The rows of rungs.csv of one rung; what does not apply is empty, as is `promoted` on the last rung."""
    rows = []
    for planned in decision.runs:
        run = planned.run
        position = decision.specs.index(run.settings.spec)
        rows.append(
            {
                "rung": decision.rung.number,
                "resource": resource,
                "value": decision.rung.value,
                "run_id": run.run_id,
                "arch": arch_name(run.settings.spec),
                "seed": run.settings.seed,
                "held_out_robust_acc": decision.values[run.run_id],
                "mean_held_out_robust_acc": decision.means[position],
                "tie_mean": decision.tie_means.get(position),
                "rank": decision.order.index(position) + 1,
                "promoted": None if last else str(run.settings.spec in decision.promoted).lower(),
                "state": run.folder.state,
            }
        )
    return rows
