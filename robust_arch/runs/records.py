"""What the JSON files of a run and of a study hold, as frozen classes."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from robust_arch.runs.fields import (
    Count,
    Fields,
    Identifier,
    Interval,
    Label,
    Measure,
    Message,
    Moment,
    Name,
    Number,
    Percent,
    PerStage,
    Plain,
    Points,
    Positive,
    Seconds,
    Seed,
    expect,
)  # fmt: skip

if TYPE_CHECKING:
    import numpy as np

SMOOTHNESS_ATTACK = "pgd20"
"""The attack on whose images stability, local Lipschitz constants and FOSC are computed."""
WEIGHTS = ("raw", "ema", "swa")
"""The values of `weights` in evaluation records and results.csv: as trained, or averaged over training."""
ELSEWHERE = "elsewhere"
"""The value of `weights` in status.json of a merged run."""


class RunFacts(Fields):
    """The columns of results.csv that are known before a run starts.

    None: how a checkpoint from elsewhere was trained, and the stages of a network of the user's own.
    """

    run_id: Identifier
    study: Name
    arch: Name
    family: Name
    depths: PerStage | None = None
    widths: PerStage | None = None
    params: Positive
    macs: Positive
    objective: Label | None = None
    recipe: Label | None = None
    train_threat: Name | None = None
    data: Label
    seed: Seed | None = None
    epochs: Positive | None = None

    @property
    def short_name(self) -> str:
        """The run's name on a screen, like `d2-2-2-w8-16-32, seed 0`: architecture without its family, and seed."""
        arch = self.arch.removeprefix(f"{self.family}-")
        return arch if self.seed is None else f"{arch}, seed {self.seed}"


class Status(Fields):
    """status.json.

    Attributes:
        state: one of STATES.
        attempts: how often the run was started.
        host: the machine of the last attempt.
        end: how the last attempt ended, one of ENDS.
        launcher: what started the last attempt, like `joblib`.
        weights: `elsewhere` for a merged run; no value of WEIGHTS.
        error: traceback of the last attempt.
        updated: when this was written.
        run: what is known of the run before it starts.
    """

    state: Name = "planned"
    attempts: Count = 0
    host: Name = "another machine"
    end: Name | None = None
    launcher: Name | None = None
    weights: Name | None = None
    error: str | None = None
    updated: Moment | None = None
    run: RunFacts


class RecordedCost(Fields):
    """Parameters and multiply-accumulates per image, in all and per stage, if the network has stages."""

    params: Positive
    macs: Positive
    stage_params: list[Count]
    stage_macs: list[Count]


def _shares_are_defined(cost: RecordedCost) -> bool:
    if not cost.stage_params and not cost.stage_macs:
        return True
    return len(cost.stage_params) == len(cost.stage_macs) > 0 < min(sum(cost.stage_params), sum(cost.stage_macs))


class RecordedExtra(Fields):
    """Images that were mixed into the training batches."""

    name: Label
    file: Name
    images: Positive
    fraction: Number
    per_batch: Positive
    fingerprint: Name


class RecordedData(Fields):
    """The data set of a training, with the number of images per part.

    Attributes:
        name: of the data set.
        fingerprint: of the images that determine training.
        train: number of images to fit.
        val: number of images that are held out.
        test: number of images to test on.
        images_per_epoch: images seen in an epoch, where that is not one pass over `train`.
        extra: what was mixed into the batches.
    """

    name: Label
    fingerprint: Plain = None
    train: Count
    val: Count
    test: Count
    images_per_epoch: Positive | None = None
    extra: RecordedExtra | None = None


class Hardware(Fields):
    """On what a number was computed."""

    processor: Name = "unrecorded processor"
    cores: Count | None = None
    gpus: list[Name] = []
    threads: Count | None = None
    system: Name | None = None

    def site(self, device: str | None) -> str:
        """The GPUs, each kind once, or the processor of a run on `device` cpu."""
        gpus = [] if device == "cpu" else self.gpus
        return ", ".join(dict.fromkeys(gpus)) or self.processor


class _Provenance(Fields):
    command: Message | None = None
    commit: Name | None = None
    torch_version: Name | None = None
    versions: dict[Name, Name | None] = {}
    hardware: Hardware | None = None


class RunResult(_Provenance):
    """result.json: a finished training. Epochs count from 0; accuracies on held-out images are in percent.

    Attributes:
        device: of the training, cpu or cuda.
        precision: of the training, as Lightning names it.
        selected_weights: those that decided the best epoch and whose held-out accuracies these are.
    """

    run_id: Identifier | None = None
    package_version: Name | None = None
    finished: Moment
    device: Name | None = None
    precision: Name | None = None
    train_seconds: Seconds
    epochs: Positive | None = None
    selected_weights: Name = "raw"
    best_epoch: Count
    last_epoch: Count
    best_val_robust_acc: Percent
    last_val_robust_acc: Percent | None = None
    robust_overfitting: Points | None = None
    flags: list[Message] = []
    seeds: dict[Name, Seed | None] = {}
    data: RecordedData | None = None
    selection_images: Positive
    cost: Annotated[RecordedCost, expect("one integer per stage, not all of them 0", _shares_are_defined)] | None = None

    @property
    def site(self) -> dict[str, str]:
        """On what the run was trained, by column of results.csv, as far as it is recorded."""
        hardware = self.hardware.site(self.device) if self.hardware else None
        columns = {"hardware": hardware, "precision": self.precision, "version": self.torch_version}
        return {column: value for column, value in columns.items() if value}


class Share(Fields):
    """`count` of `n` images, in percent, with its 95% interval."""

    count: Count
    n: Positive
    percent: Percent
    interval: Interval


class Mean(Fields):
    """The mean over `n` images; `left_out` of them have no defined value."""

    mean: Number | None
    n: Count
    left_out: Count = 0


class CascadeStage(Fields):
    """One attack of a cascade: the images that it saw, and those that withstood it."""

    attack: Name
    attacked: Count
    standing: Count


class AttackRecord(Share):
    """Robust accuracy under one attack, and what determines it.

    Attributes:
        settings: of the attack; of a cascade, of each of its attacks.
        images: whether the attacked images were saved.
        problems: why the numbers of the evaluation may not be used.
        stages: of a cascade.
    """

    settings: Plain = {}
    eps: Name | None = None
    seed: Seed | None = None
    implementation: Name = "unrecorded"
    seconds: Seconds | None = None
    images: bool = False
    problems: list[Message] = []
    warnings: list[Message] = []
    stages: list[CascadeStage] = []


class Verdict(Fields):
    """The result of one check for masked gradients."""

    name: Name
    ok: bool
    text: Message


class ShareAtRadius(Share):
    """Robust accuracy at the radius `eps`."""

    eps: Name


class ShareAfterSteps(Share):
    """Robust accuracy after so many gradient steps."""

    steps: Positive


class EpsCurve(Fields):
    """Robust accuracy against the radius."""

    points: Annotated[list[ShareAtRadius], expect("at least one point", bool)]


class WithSquare(Fields):
    """Accuracy under white-box attacks, and under these and the Square attack together."""

    white_box: Share
    both: Share


class Losses(Fields):
    """Mean loss along the gradient and along random directions, one number per distance."""

    gradient: list[Number]
    random: list[Number]


class Directions(Fields):
    """Losses against the distance from the image, in units of eps."""

    rel_t: Annotated[list[Number], expect("at least one number", bool)]
    cross_entropy: Losses
    margin: Losses


def _losses_are_whole(found: Directions) -> bool:
    losses = (found.cross_entropy, found.margin)
    return all(len(line) == len(found.rel_t) for loss in losses for line in (loss.gradient, loss.random))


class Diagnosis(Fields):
    """The checks for masked gradients on `n` images, and the numbers behind them."""

    n: Positive
    norm: Literal["linf", "l2"]
    threat: Name
    eps: EpsCurve
    steps: Annotated[list[ShareAfterSteps], expect("at least one number of steps", bool)]
    square: WithSquare
    directions: Annotated[Directions, expect("one loss per distance", _losses_are_whole)]
    verdicts: list[Verdict]
    examples: Positive | None = None
    seed: Seed | None = None


class StageSmoothness(Fields):
    """One part of a network: mean change from the input and alone, largest change alone, and bound."""

    name: Name
    from_input: Measure | None
    alone: Measure | None
    alone_max: Measure | None
    bound: Measure | None


class Smoothness(Fields):
    """The smoothness of a network's parts on `n` attacked images."""

    n: Count
    stages: list[StageSmoothness]
    examples: Positive | None = None
    seed: Seed | None = None


class PreflightCheck(Fields):
    """One check before any attack."""

    name: Name
    state: Name
    detail: Message


class EvaluationProvenance(_Provenance):
    """With what the numbers of an evaluation were computed."""

    device: Name | None = None


class Normalisation(Fields):
    """How images were normalised, where the evaluation says it."""

    text: Message


RESERVED_NAMES = ("clean", "index", "label", "worst_case", "diagnostics", "smoothness")
"""Names that no attack may have, because evaluation records use them."""
AttackName = Annotated[
    Name,
    expect(f"a name of an attack, not {', '.join(sorted(RESERVED_NAMES))}", lambda name: name not in RESERVED_NAMES),
]


class Evaluation(Fields):
    """evaluations/<eval_id>.json, of any version: one checkpoint on `n_test` images under one threat model.

    Attributes:
        version: of the record's layout.
        checkpoint: best, last or external.
        weights: raw, ema or swa.
        invalid: why none of the numbers may be used; empty where they may.
        about: command and provenance.
    """

    version: Annotated[Plain, Field(alias="schema")] = None
    eval_id: Identifier | None = None
    run_id: Identifier | None = None
    checkpoint: Name
    weights: Name
    threat: Name
    eps: Name | None = None
    data: Label
    examples_fingerprint: Name | None = None
    n_test: Positive
    normalisation: Normalisation | None = None
    preflight: list[PreflightCheck] = []
    invalid: list[Message] = []
    warnings: list[Message] = []
    clean: Share
    attacks: dict[AttackName, AttackRecord]
    worst_case: Share | None = None
    stability: Share | None = None
    lipschitz: Mean | None = None
    lipschitz_kl: Mean | None = None
    lipschitz_l2: Mean | None = None
    fosc: Mean | None = None
    diagnostics: Diagnosis | None = None
    smoothness: Smoothness | None = None
    about: EvaluationProvenance | None = None

    def is_whole_with(self, arrays: "Mapping[str, np.ndarray]") -> bool:
        """Whether `arrays` are this record's: an index, and one boolean per image for clean and every attack."""
        flags = ("clean", *self.attacks)
        shapes = {name: array.shape for name, array in arrays.items()}
        whole = all(shapes.get(name) == (self.n_test,) for name in ("index", *flags))
        return whole and all(arrays[name].dtype == bool for name in flags)


class PlanFacts(Fields):
    """study.json of one plan: what it rests on."""

    command: Message = ""
    budgets: list[Name] = []
    considered: Count = 0
    rejected: Count = 0
    not_sampled: Count = 0


class StudyFacts(PlanFacts):
    """study.json; `merged`: that of each study that was merged."""

    merged: list[PlanFacts] = []
