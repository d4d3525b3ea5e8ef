"""One adversarial training run as a LightningModule; it receives objects and knows no configuration."""

import copy
import itertools
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from robust_arch.architectures import Classifier
from robust_arch.architectures.build import weight_layout
from robust_arch.architectures.family import AUXILIARY_WEIGHT, AuxiliaryNetwork
from robust_arch.attacks import PGD, Attack, Clean, ThreatModel
from robust_arch.common.randomness import derive, example_keys
from robust_arch.data.batches import Batch, GlobalBatches
from robust_arch.engine import AttackableNetwork, compile_blocks
from robust_arch.errors import invalid
from robust_arch.objectives import Loss, Objective
from robust_arch.training.averaging import recompute_statistics
from robust_arch.training.callbacks import require_finite
from robust_arch.training.recipe import Recipe
from robust_arch.training.weight_perturbation import preserved_buffers, restore

ONE_STEP = PGD(steps=1, rel_step_size=1.0, start=Clean())
"""FGSM: training has overfitted to it if held-out accuracy stays high under it while it falls under more steps."""
_CHECK_EVERY = 50  # steps between two looks at the loss, for which the host waits for the device


class AdversarialTraining(pl.LightningModule):
    """Descends `objective` on augmented images; validates on clean images and under `selection_attack`.

    With `recipe.averaging` both the trained and the averaged network are validated, and both are in every checkpoint,
    under `net.` and `averages.<name>.`.

    max_value: of the uint8 images. num_classes: needed where the recipe makes soft labels. seed: with epoch, step and
    example it decides every random number.
    attackable: from `net`, once on its device, to the network that objectives and selection are given. compiled:
    whether the blocks of `net` are. prepare: called in each process before it computes. card: plain facts saved in
    every checkpoint, with which it can be evaluated.
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
        compiled: bool = False,
        prepare: Callable[[], None] | None = None,
        card: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        # channels last: the layout in which convolutions are fastest, on CPUs and GPUs
        self.net = net.to(memory_format=weight_layout(net)) if channels_last else net
        self.objective, self.threat, self.recipe = objective, threat, recipe
        self.selection_attack, self.attackable = selection_attack, attackable
        self.compiled, self.prepare = compiled, prepare
        self.epochs, self.steps_per_epoch, self.max_value = epochs, steps_per_epoch, max_value
        self.seed, self.num_classes, self.card = seed, num_classes, card or {}
        self.averages = nn.ModuleDict()  # by name, which is part of the keys in a checkpoint
        if recipe.averaging is not None:
            self.averages[recipe.averaging.name] = copy.deepcopy(self.net).requires_grad_(False)
        self._unperturbed: list[tuple[Tensor, Tensor]] = []  # weights that AWP has perturbed, and their values before
        self._sums: dict[str, Tensor] = {}  # over the epoch's batches: each metric times examples, and examples
        self.register_buffer("val_counts", torch.zeros(1 + len(self.averages), 4, dtype=torch.int64), persistent=False)

    def setup(self, stage: str) -> None:  # noqa: ARG002
        """Runs in each process, before its network is moved to its device."""
        if self.prepare is not None:
            self.prepare()
        if self.compiled:
            compile_blocks(self.net.network)

    @cached_property
    def attacked_net(self) -> nn.Module:
        """The network as attacks see it; cached outside torch's modules, so that its weights do not count twice."""
        return self.attackable(self.net)

    @cached_property
    def _validated(self) -> dict[str, tuple[nn.Module, nn.Module]]:
        """By prefix of its metrics, each network that is validated, and as attacks see it.

        The one that decides the best epoch has the prefix `val`.
        """
        raw, averaging = (self.net, self.attacked_net), self.recipe.averaging
        if averaging is None:
            return {"val": raw}
        net = self.averages[averaging.name]
        average = (net, self.attackable(cast(Classifier, net)))
        chosen = averaging.select == "averaged"
        return {"val": average, "val_raw": raw} if chosen else {"val": raw, "val_averaged": average}

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
        loss = self._loss(x, y, threat, derive(self.seed, "attack", step), index)
        total = self._total(loss, y)
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
        return mixture.images(x, self._partners(x)), mixture.labels(labels, self._partners(labels))

    def _partners(self, values: Tensor) -> Tensor:
        """Of each example the one that lies a number of places before it in the global batch, drawn for each step.

        Each rank has every world_size-th example of the global batch.
        """
        ranks = self.trainer.world_size
        gathered: Any = self.all_gather(values)  # (ranks, B, ...); from one process alone (B, ...)
        shares: Tensor = gathered.view(ranks, *values.shape)
        places = 1 + derive(self.seed, "partner", self.global_step) % max(ranks * len(values) - 1, 1)
        return shares.transpose(0, 1).flatten(0, 1).roll(places, 0)[self.global_rank :: ranks]

    def _loss(self, x: Tensor, y: Tensor, threat: ThreatModel, seed: int, index: Tensor) -> Loss:
        """The objective's loss; with AWP at perturbed weights, which are restored after the backward pass."""
        net, awp = self.attacked_net, self.recipe.awp
        if not awp.is_active(self.current_epoch):
            return self.objective(net, x, y, threat, seed, index)
        x_adv = self.objective.adversarial(net, x, y, threat, seed, index)
        with preserved_buffers(self.net):
            total = self._total(self.objective.loss(net, x, x_adv, y), y)
            self._unperturbed = awp.perturb(self.net, total, self._mean_over_devices)
        return self.objective.loss(net, x, x_adv, y)

    def _total(self, loss: Loss, y: Tensor) -> Tensor:
        """The scalar to descend, with the loss of a second classifier that the network may have."""
        network = getattr(self.net, "network", None)
        auxiliary = network.take_auxiliary_logits() if isinstance(network, AuxiliaryNetwork) else None
        return loss.total if auxiliary is None else loss.total + AUXILIARY_WEIGHT * F.cross_entropy(auxiliary, y)

    def _mean_over_devices(self, tensors: list[Tensor]) -> list[Tensor]:
        """Of tensors with the same shapes on every device."""
        if self.trainer.world_size == 1:
            return tensors
        flat = self.trainer.strategy.reduce(torch.cat([each.flatten() for each in tensors]), reduce_op="mean")
        parts = flat.split([each.numel() for each in tensors])
        return [part.view_as(each) for part, each in zip(parts, tensors, strict=True)]

    def on_after_backward(self) -> None:
        """Restore the weights before gradients are clipped and the optimizer steps."""
        restore(self._unperturbed)
        self._unperturbed = []

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step; then update the average, before any callback may save a checkpoint."""
        super().optimizer_step(*args, **kwargs)
        if (averaging := self.recipe.averaging) is not None:
            step = self.global_step + 1  # Lightning counts the step when this returns
            averaging.update(self.averages[averaging.name], self.net, step, self.steps_per_epoch, self.epochs)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002
        """Log the epoch's means after its last batch; summed here, so that a resumed epoch has the same means."""
        if batch_idx + 1 < self.trainer.num_training_batches:
            return
        sums = {name: self.trainer.strategy.reduce(value, reduce_op="sum") for name, value in self._sums.items()}
        self._sums = {}
        examples = sums.pop("examples")
        self.log_dict(
            {name: value / examples for name, value in sums.items()}, on_step=False, on_epoch=True, logger=False
        )

    def on_validation_epoch_start(self) -> None:
        """Reset this rank's counts: examples, correct, robust, correct under one step; complete the average."""
        self.val_counts.zero_()
        averaging = self.recipe.averaging
        if averaging is None or averaging.batch_norm != "recompute":
            return
        if averaging.share(self.global_step, self.steps_per_epoch, self.epochs) != 1:  # 1: a copy, statistics included
            recompute_statistics(self.averages[averaging.name], self._clean_batches())

    def _clean_batches(self) -> Iterator[Tensor]:
        """Training images (B, C, H, W) in [0, 1], not augmented: the global batches of the first epoch.

        On several devices each computes all of them, so that the result does not depend on their number.
        """
        loader = cast(DataLoader[Batch], self.trainer.train_dataloader)
        batches = copy.copy(cast(GlobalBatches, loader.sampler))
        batches.rank, batches.world_size, batches.epoch = 0, 1, 0
        batches.keyed = False  # without random crops of images that are decoded on access
        for index in itertools.islice(batches, self.steps_per_epoch):
            yield loader.dataset[index][0].to(self.device).float() / self.max_value

    def validation_step(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002
        """Count correct and robust held-out examples; a rank's share of the last batch may be empty."""
        images, y, index = batch
        if not len(y):
            return
        x = images.float() / self.max_value
        seed = derive(self.seed, "selection")
        for place, (net, attacked) in enumerate(self._validated.values()):
            correct = net(x).argmax(dim=1) == y
            counts = [torch.ones_like(y).sum(), correct.sum()]
            for attack in (self.selection_attack, ONE_STEP):
                x_adv = attack(attacked, x, y, self.threat, seed=seed, index=index)
                counts.append((correct & (net(x_adv).argmax(dim=1) == y)).sum())
            self.val_counts[place] += torch.stack(counts)

    def on_validation_epoch_end(self) -> None:
        """Sum over ranks; log accuracies in percent and the robust count, by which checkpoints are selected."""
        counts = self.trainer.strategy.reduce(self.val_counts.clone(), reduce_op="sum")
        for prefix, (size, correct, robust, fgsm) in zip(self._validated, counts.tolist(), strict=True):
            accuracies = {"clean": correct, "robust": robust, "fgsm": fgsm}
            self.log_dict(
                {f"{prefix}_{name}_acc": 100 * count / size for name, count in accuracies.items()}, logger=False
            )
            self.log(f"{prefix}_robust_count", float(robust), logger=False)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the card and, in the middle of an epoch, its sums so far."""
        checkpoint |= {"card": self.card, "sums": dict(self._sums)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the sums; checkpoints of earlier versions, which were saved between epochs, have none."""
        self._sums = {name: value.to(self.device) for name, value in checkpoint.get("sums", {}).items()}
