"""How and where a run trains: the group `trainer`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from robust_arch.architectures import Classifier
from robust_arch.data.batches import PLACES
from robust_arch.engine import PRECISIONS, AttackableNetwork, decide_precision, keep_freed_memory, missing_compiler
from robust_arch.errors import invalid, require_choice, require_integer


@dataclass(frozen=True, kw_only=True)
class TrainerSettings:
    """How and where to train; all but epochs, precision, devices, batches and callbacks change at most the rounding.

    Attributes:
        max_epochs: number of epochs.
        accelerator: auto, cpu or gpu.
        devices: number of processes, one device each.
        gpus: indices of the GPUs, None for those with the fewest runs on them.
        precision: 32 or bf16-mixed, as Lightning names them; auto is replaced by the best for the hardware.
        compile: true compiles the inner loop, step the blocks of the outer passes as well; the run decides about auto.
        fold: attacks see BatchNorm folded and weights prepared once per step.
        channels_last: of weights in memory, which activations follow.
        data: auto keeps the images on the device where they fit, stream fetches every batch.
        keep_memory: freed memory stays with the process.
        threads: CPU threads, None for torch's default.
        limit_train_batches: batches per epoch, None for all.
        progress_bar: None shows it in a terminal only; a study has its live display there instead.
        callbacks: Lightning callbacks of the user's choice; a tuple once checked.
    """

    max_epochs: int
    accelerator: str = "auto"
    devices: int = 1
    gpus: Sequence[int] | None = None
    precision: str | int = "auto"
    compile: bool | str = "auto"
    fold: bool = True
    channels_last: bool = True
    data: str = "auto"
    keep_memory: bool = True
    threads: int | None = None
    limit_train_batches: int | None = None
    progress_bar: bool | None = None
    callbacks: Mapping[str, object] | Sequence[object] | None = None

    def __post_init__(self) -> None:
        for key in ("max_epochs", "devices", "threads", "limit_train_batches"):
            optional = key in ("threads", "limit_train_batches")
            require_integer(f"trainer.{key}", getattr(self, key), 1, optional=optional)
        require_choice("trainer.accelerator", self.accelerator, ("auto", "cpu", "gpu"))
        require_choice("trainer.data", self.data, PLACES)
        self._check_gpus()
        self._check_precision()
        self._check_compile()
        self._check_callbacks()

    def _check_gpus(self) -> None:
        for index in self.gpus or ():
            require_integer("trainer.gpus", index, 0)
        if self.gpus is not None and not len(set(self.gpus)) == len(self.gpus) == self.devices:
            raise invalid("trainer.gpus", self.gpus, f"as many numbers as trainer.devices, {self.devices}, or null")
        if self.gpus is not None and self.device.type == "cpu":
            raise invalid("trainer.gpus", self.gpus, "null where trainer.accelerator is cpu, or auto without a GPU")
        if self.device.type == "cuda" and (available := torch.cuda.device_count()) < self.devices:
            raise invalid("trainer.devices", self.devices, f"at most the {available} GPUs that torch sees here")

    def _check_precision(self) -> None:
        if str(self.precision) not in ("auto", *PRECISIONS):
            raise invalid("trainer.precision", self.precision, f"auto, {' or '.join(PRECISIONS)}")
        decided = decide_precision(self.device) if self.precision == "auto" else str(self.precision)
        # one spelling, as it is part of a run's identity: 32, as YAML reads it
        object.__setattr__(self, "precision", 32 if decided == "32" else decided)

    def _check_compile(self) -> None:
        if self.compile not in ("auto", "step") and not isinstance(self.compile, bool):
            raise invalid("trainer.compile", self.compile, "auto, true, false or step")
        if self.compiles and not self.fold:
            allowed = "false where trainer.fold=false, as only the folded form is compiled"
            raise invalid("trainer.compile", self.compile, allowed)
        if self.compiles and (missing := missing_compiler(self.device)):
            raise invalid("trainer.compile", self.compile, f"false here: {missing}")

    @property
    def compiles(self) -> bool:
        """Whether the inner loop is compiled; False for auto, which the run has to decide first."""
        return self.compile in (True, "step")

    def _check_callbacks(self) -> None:
        named = self.callbacks.values() if isinstance(self.callbacks, Mapping) else self.callbacks
        object.__setattr__(self, "callbacks", tuple(named or ()))
        if self.callbacks:
            from pytorch_lightning.callbacks import Callback  # imported here because it takes seconds

            for each in self.callbacks:
                if not isinstance(each, Callback):
                    raise invalid("trainer.callbacks", type(each).__name__, "a callback of pytorch_lightning")

    def prepare_process(self) -> None:
        """Set this process's CPU threads, which decide the order of floating-point sums, and its use of memory."""
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        if self.keep_memory:
            keep_freed_memory()

    def attackable(self, net: Classifier) -> nn.Module:
        """`net`, together with the form that attacks in training see."""
        if not self.fold:
            return net
        dtype = torch.float32 if self.precision == 32 else torch.bfloat16
        return AttackableNetwork(net, dtype, compiled=self.compiles)

    @property
    def device(self) -> torch.device:
        """Where a single process computes."""
        use_gpu = self.accelerator == "gpu" or (self.accelerator == "auto" and torch.cuda.is_available())
        if not use_gpu:
            return torch.device("cpu")
        return torch.device("cuda", self.gpus[0]) if self.gpus else torch.device("cuda")
