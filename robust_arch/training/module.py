"""One adversarial training run as a LightningModule; it receives objects and knows no configuration."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR

from robust_arch.architectures import Classifier
from robust_arch.architectures.family import AUXILIARY_WEIGHT, AuxiliaryNetwork
from robust_arch.attacks import PGD, Attack, Clean, ThreatModel
from robust_arch.common.randomness import derive, example_keys
from robust_arch.data.batches import Batch
from robust_arch.engine import AttackableNetwork
from robust_arch.errors import invalid
from robust_arch.objectives import Objective
from robust_arch.training.callbacks import require_finite
from robust_arch.training.recipe import Recipe

ONE_STEP = PGD(steps=1, rel_step_size=1.0, start=Clean())
"""FGSM: training has overfitted to it if held-out accuracy stays high under it while it falls under more steps."""
_CHECK_EVERY = 50  # steps between two looks at the loss, for which the host waits for the device


class AdversarialTraining(pl.LightningModule):
    """Descends `objective` on augmented images; validates on clean images and under `selection_attack`.

    max_value: of the uint8 images. num_classes: needed where the recipe makes soft labels. seed: with epoch, step and
    example it decides every random number.
    attackable: from `net`, once on its device, to the network that objectives and selection are given. prepare: called
    in each process before it computes. card: plain facts saved in every checkpoint, with which it can be evaluated.
    """

    val_counts: Tensor

    def __init__(
        self,
        net: Classifier,
        objective: Objective,
        threat: ThreatModel,
        recipe: Recipe,
        selection_attack: Attack,
        *,
        epochs: int,
        steps_per_epoch: int,
        max_value: int,
        seed: int,
        num_classes: int | None = None,
        attackable: Callable[[Classifier], nn.Module] = AttackableNetwork,
        channels_last: bool = True,
        prepare: Callable[[], None] | None = None,
        card: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        # channels last: the layout in which convolutions are fastest, on CPUs and GPUs
        self.net = net.to(memory_format=torch.channels_last) if channels_last else net
        self.objective, self.threat, self.recipe = objective, threat, recipe
        self.selection_attack, self.attackable, self.prepare = selection_attack, attackable, prepare
        self.epochs, self.steps_per_epoch, self.max_value = epochs, steps_per_epoch, max_value
        self.seed, self.num_classes, self.card = seed, num_classes, card or {}
        self._sums: dict[str, Tensor] = {}  # over the epoch's batches: each metric times examples, and examples
        self.register_buffer("val_counts", torch.zeros(4, dtype=torch.int64), persistent=False)

    def setup(self, stage: str) -> None:  # noqa: ARG002
        """Runs in each process, before its network is moved to its device."""
        if self.prepare is not None:
            self.prepare()

    @cached_property
    def attacked_net(self) -> nn.Module:
        """The network as attacks see it; cached outside torch's modules, so that its weights do not count twice."""
        return self.attackable(self.net)

    def configure_optimizers(self) -> Any:
        """The recipe's optimizer; its schedule advances by steps and is a pure function of the step."""
        optimizer = self.recipe.optimizer(self.recipe.parameter_groups(self.net))
        schedule = LambdaLR(optimizer, lambda step: self.recipe.schedule(step / self.steps_per_epoch, self.epochs))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Augment, mix, maximise, descend. batch: images (B, C, H, W) uint8, labels (B,), positions (B,)."""
        images, labels, index = batch
        step = self.global_step
        x = self.recipe.augment(images, example_keys(derive(self.seed, "augment", step), index)).float()
        x, y = self._mixed(x / self.max_value, labels)
        # dropout and the like draw from the global state: a function of step and rank, so that a resumed run agrees
        torch.manual_seed(derive(self.seed, "network", step, self.global_rank))
        threat = self.recipe.threat_at(self.threat, self.current_epoch)
        loss = self.objective(self.attacked_net, x, y, threat, derive(self.seed, "attack", step), index)
        network = getattr(self.net, "network", None)
        auxiliary = network.take_auxiliary_logits() if isinstance(network, AuxiliaryNetwork) else None
        total = loss.total if auxiliary is None else loss.total + AUXILIARY_WEIGHT * F.cross_entropy(auxiliary, y)
        if batch_idx % _CHECK_EVERY == 0:
            require_finite(total.detach(), f"the loss at step {step}")
        # of mixed labels the one with the largest share counts
        largest = y if y.ndim == 1 else y.argmax(dim=1)
        correct = (loss.logits.argmax(dim=1) == largest).float().mean() * 100
        metrics = {"train_loss": total.detach(), "train_acc": correct, "examples": torch.ones_like(correct)}
        for name, value in {**metrics, **{f"train_{name}": value for name, value in loss.terms.items()}}.items():
            self._sums[name] = self._sums.get(name, 0) + value * len(y)
        return total

    def _mixed(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Images and labels as the recipe mixes and smooths them; the labels are then probabilities (B, K)."""
        recipe = self.recipe
        if not recipe.has_soft_labels:
            return x, y
        if self.num_classes is None:
            raise invalid("num_classes", None, "the number of classes, for soft labels")
        labels = recipe.soft_labels(y, self.num_classes)
        mixture = recipe.mixture(derive(self.seed, "mix", self.global_step), (x.shape[2], x.shape[3]))
        if mixture is None:
            return x, labels
        return mixture.images(x, self._previous(x)), mixture.labels(labels, self._previous(labels))

    def _previous(self, values: Tensor) -> Tensor:
        """Of each example the one before it in the global batch, of which each rank has every world_size-th example."""
        ranks = self.trainer.world_size
        gathered: Any = self.all_gather(values)  # (ranks, B, ...); from one process alone (B, ...)
        shares: Tensor = gathered.view(ranks, *values.shape)
        return shares.transpose(0, 1).flatten(0, 1).roll(1, 0)[self.global_rank :: ranks]

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002
        """Log the epoch's means after its last batch; summed here, so that a resumed epoch has the same means."""
        if batch_idx + 1 < self.trainer.num_training_batches:
            return
        sums = {name: self.trainer.strategy.reduce(value, reduce_op="sum") for name, value in self._sums.items()}
        self._sums = {}
        examples = sums.pop("examples")
        self.log_dict({name: value / examples for name, value in sums.items()}, on_step=False, on_epoch=True)

    def on_validation_epoch_start(self) -> None:
        """Reset this rank's counts: examples, correct, robust, correct under one step."""
        self.val_counts.zero_()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002
        """Count correct and robust held-out examples; a rank's share of the last batch may be empty."""
        images, y, index = batch
        if not len(y):
            return
        x = images.float() / self.max_value
        correct = self.net(x).argmax(dim=1) == y
        seed = derive(self.seed, "selection")
        counts = [torch.ones_like(y).sum(), correct.sum()]
        for attack in (self.selection_attack, ONE_STEP):
            x_adv = attack(self.attacked_net, x, y, self.threat, seed=seed, index=index)
            counts.append((correct & (self.net(x_adv).argmax(dim=1) == y)).sum())
        self.val_counts += torch.stack(counts)

    def on_validation_epoch_end(self) -> None:
        """Sum over ranks; log accuracies in percent and the robust count, by which checkpoints are selected."""
        counts = self.trainer.strategy.reduce(self.val_counts.clone(), reduce_op="sum")
        size, correct, robust, fgsm = (float(count) for count in counts)
        accuracies = {"val_clean_acc": correct, "val_robust_acc": robust, "val_fgsm_acc": fgsm}
        self.log_dict({name: 100 * count / size for name, count in accuracies.items()} | {"val_robust_count": robust})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the card and, in the middle of an epoch, its sums so far."""
        checkpoint |= {"card": self.card, "sums": dict(self._sums)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the sums; checkpoints of earlier versions, which were saved between epochs, have none."""
        self._sums = {name: value.to(self.device) for name, value in checkpoint.get("sums", {}).items()}
