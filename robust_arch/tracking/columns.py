"""The columns of a run on wandb, which its pages can plot, sort and group by."""

from collections.abc import Mapping
from typing import Any

from robust_arch.architectures import AnyArch, Cost, CustomArch
from robust_arch.runs import RecordedRun, RunFacts, RunFolder
from robust_arch.runs.records import Evaluation, Share
from robust_arch.runs.study import run_rows

ARCH = "arch_name"
# with the suffix _name where the word alone is a configuration group
QUESTION = {
    "objective": "objective_name",
    "recipe": "recipe_name",
    "data": "data_name",
    "train_threat": "train_threat",
    "epochs": "epochs",
}
"""Columns of results.csv to those on wandb. Runs that differ in one of them are not comparable."""
RESOURCES = ("params", "macs")
_LONGEST_TAG = 64  # characters; wandb refuses longer tags
_RESULT = {"train_seconds", "best_epoch", "best_val_robust_acc", "robust_overfitting"}
_NOT_ACCURACIES = ("n_test", "stability", "lipschitz")


def run_name(facts: RunFacts) -> str:
    """Architecture, objective, epochs and seed, like `wrn_34_r-sat-e100-s0`."""
    return f"{facts.arch}-{facts.objective}-e{facts.epochs}-s{facts.seed}"


def run_tags(facts: RunFacts) -> list[str]:
    """Family, objective, recipe, data and threat model, without duplicates and names that are too long."""
    names = (facts.family, facts.objective, facts.recipe, facts.data, facts.train_threat)
    return [name for name in dict.fromkeys(names) if name and len(name) <= _LONGEST_TAG]


def stage_column(stage: int, what: str) -> str:
    """The column of one stage, counted from 1, like `stage1_width`."""
    return f"stage{stage}_{what}"


def last_share_column(resource: str) -> str:
    """The column of the last stage's share, like `last_params_share`."""
    return f"last_{resource}_share"


def run_columns(facts: RunFacts, spec: AnyArch, cost: Cost, eps: float) -> dict[str, Any]:
    """The run's facts with one value per column, as panels, filters and groupings need them.

    Shares are fractions, in [0, 1], of the sum over the stages. A network of the user's own has no columns of stages.
    """
    question = {column: getattr(facts, name) for name, column in QUESTION.items()}
    named = {ARCH: facts.arch, **question, "eps": eps}
    return {**named, "params": cost.params, "macs": cost.macs, **_stage_columns(spec, cost)}


def _stage_columns(spec: AnyArch, cost: Cost) -> dict[str, float]:
    if isinstance(spec, CustomArch):
        return {}
    of_stages: dict[str, tuple[float, ...]] = {"width": spec.widths, "depth": spec.depths}
    of_stages |= {f"{resource}_share": cost.shares(resource) for resource in RESOURCES}
    columns = {
        stage_column(stage, what): value
        for what, values in of_stages.items()
        for stage, value in enumerate(values, start=1)
    }
    return columns | {last_share_column(resource): cost.shares(resource)[-1] for resource in RESOURCES}


def summary_column(checkpoint: str, weights: str, n_test: int, whole: int, number: str) -> str:
    """`best/pgd20_acc`, `best-ema/pgd20_acc` of averaged weights.

    It is `best-n120/pgd20_acc` where 120 of the `whole` test set were attacked.
    """
    averaged = "" if weights == "raw" else f"-{weights}"
    part = "" if n_test == whole else f"-n{n_test}"
    return f"{checkpoint}{averaged}{part}/{number}"


def run_summary(folder: RunFolder, state: str) -> dict[str, Any]:
    """How the run ended, and the final numbers of its checkpoints, each with the ends of its 95% interval."""
    summary: dict[str, Any] = {"state": state}
    run = folder.read()
    if run.result is None:
        return summary
    summary |= run.result.model_dump(include=_RESULT, exclude_unset=True)  # earlier versions recorded fewer
    summary |= run.result.site
    if data := run.result.data:
        for row in logged_rows(run):
            summary |= _numbers(row, data.test)
        for record in _logged_records(run):
            summary |= _intervals(record, data.test)
    return summary


def logged_rows(run: RecordedRun) -> list[dict[str, Any]]:
    """The rows of results.csv that go to wandb: evaluations under the threat model and on the data of training."""
    if run.facts is None:
        return []
    trained = (run.facts.train_threat, run.facts.data)
    return [row for row in run_rows(run) if "checkpoint" in row and (row["threat"], row["data"]) == trained]


def _logged_records(run: RecordedRun) -> list[Evaluation]:
    """The evaluations whose numbers `logged_rows` has."""
    if run.facts is None or run.state in ("failed", "diverged"):
        return []
    trained = (run.facts.train_threat, run.facts.data)
    return [each for each in run.evaluations if not each.invalid and (each.threat, each.data) == trained]


def _numbers(row: Mapping[str, Any], whole: int) -> dict[str, Any]:
    return {
        summary_column(row["checkpoint"], row["weights"], row["n_test"], whole, key): value
        for key, value in row.items()
        if key.endswith("_acc") or key in _NOT_ACCURACIES
    }


def _intervals(record: Evaluation, whole: int) -> dict[str, float]:
    """`best/pgd20_acc_low` and `best/pgd20_acc_high`: the ends of the 95% interval, in percent."""
    shares: dict[str, Share | None] = {"clean_acc": record.clean, "worst_case_acc": record.worst_case}
    shares |= {f"{name}_acc": attack for name, attack in record.attacks.items()} | {"stability": record.stability}
    return {
        summary_column(record.checkpoint, record.weights, record.n_test, whole, f"{number}_{end}"): bound
        for number, share in shares.items()
        if share is not None
        for end, bound in zip(("low", "high"), share.interval, strict=True)
    }
