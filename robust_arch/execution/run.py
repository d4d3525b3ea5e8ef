"""A configured run with its data: its identity, its cost, and whether it is done."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from robust_arch.architectures import AnyArch, ArchSpec, Cost, CustomArch, arch_name, cost
from robust_arch.configuration.settings import Settings
from robust_arch.data import Splits
from robust_arch.errors import invalid
from robust_arch.evaluation import EvaluationRecord, Subject, select_examples
from robust_arch.runs import RunFacts, RunFolder, StudyFolder


def spec_facts(spec: AnyArch, costs: Cost) -> dict[str, Any]:
    """The columns of results.csv that follow from the architecture; a network of the user's own has no stages."""
    stages = {"depths": spec.depths_text, "widths": spec.widths_text} if isinstance(spec, ArchSpec) else {}
    return {
        "arch": arch_name(spec),
        "family": spec.family,
        **stages,
        "params": costs.params,
        "macs": costs.macs,
    }


@dataclass(frozen=True)
class Run:
    """A configured run with its data.

    Attributes:
        settings: its checked configuration.
        splits: training, held-out, test and extra images.
        training_fingerprint: of the training images.

    Raises:
        InputError: on construction, if recipe, evaluation and data do not fit together, or a network of the user's own
            does not turn these images into logits of their classes.
    """

    settings: Settings
    splits: Splits
    training_fingerprint: str

    def __post_init__(self) -> None:
        recipe, size, own = self.settings.recipe, len(self.splits.train), self._own_per_batch
        mixed = self.splits.extra is not None
        if own > size and (recipe.drop_last or mixed or recipe.steps_per_epoch is not None):  # batches are whole
            places = f" in the {own} places that extra images leave" if mixed else ""
            raise invalid("recipe.batch_size", recipe.batch_size, f"at most the {size} training images{places}")
        test, eps = self.splits.test, self.settings.threat.eps
        self.settings.evaluation.require_fits(len(test), test.num_classes, eps)
        self.settings.evaluation.chosen_weights(self.settings.recipe.weights)
        if isinstance(self.settings.spec, CustomArch):
            cost(self.settings.spec, test.num_classes, test.image_shape)

    @classmethod
    def load(cls, settings: Settings) -> "Run":
        """Read the data.

        Raises:
            InputError: if the study's folder holds a recorded study, or as on construction.
        """
        if (study := StudyFolder(settings.study_path)).is_archived:
            allowed = f"another name: {study.path} holds a recorded study, which is only read"
            raise invalid("study.name", study.name, allowed)
        splits = settings.dataset.load()
        if settings.extra is not None:
            splits = replace(splits, extra=settings.extra.load(splits.train))
        return cls(settings, splits, splits.training_fingerprint())

    @cached_property
    def run_id(self) -> str:
        """The run's identity, 12 hexadecimal digits."""
        return self.settings.run_id(self.training_fingerprint)

    @cached_property
    def cost(self) -> Cost:
        """Cost for the image shape and classes of the data."""
        return cost(self.settings.spec, self.splits.train.num_classes, self.splits.train.image_shape)

    @property
    def _own_per_batch(self) -> int:
        """Images of each batch that are of the training set."""
        batch_size, extra = self.settings.recipe.batch_size, self.splits.extra
        return batch_size if extra is None else batch_size - extra.per_batch(batch_size)

    @property
    def steps_per_epoch(self) -> int:
        """Training steps of one epoch."""
        recipe, size = self.settings.recipe, len(self.splits.train)
        steps = recipe.steps_per_epoch
        if steps is None:
            steps = size // self._own_per_batch if recipe.drop_last else -(-size // self._own_per_batch)
        return min(steps, self.settings.trainer.limit_train_batches or steps)

    @property
    def study(self) -> StudyFolder:
        """The folder of its study."""
        return StudyFolder(self.settings.study_path)

    @property
    def folder(self) -> RunFolder:
        """The folder of its records."""
        return self.study.run(self.run_id)

    @property
    def facts(self) -> RunFacts:
        """What is known before the run starts."""
        settings = self.settings
        return RunFacts(
            run_id=self.run_id,
            study=settings.study,
            **spec_facts(settings.spec, self.cost),
            objective=settings.objective.label,
            recipe=settings.recipe_label,
            train_threat=str(settings.threat),
            data=settings.dataset.name,
            seed=settings.seed,
            epochs=settings.trainer.max_epochs,
        )

    def records(self) -> Iterator[tuple[Subject, EvaluationRecord]]:
        """The evaluation record of each requested checkpoint and weights, as it is now."""
        settings = self.settings
        examples = select_examples(self.splits.test, settings.evaluation.n)
        for which in settings.evaluation.checkpoints:
            for weights in settings.evaluation.chosen_weights(settings.recipe.weights):
                subject = Subject(self.run_id, which, weights, settings.threat, settings.dataset.name)
                yield subject, EvaluationRecord(self.folder.evaluations, subject, examples)

    def is_done(self) -> bool:
        """Whether training is finished and every requested number is recorded."""
        evaluation = self.settings.evaluation
        return (
            self.folder.state == "completed"
            and self.folder.trained
            and all(record.is_complete(evaluation) for _, record in self.records())
        )
