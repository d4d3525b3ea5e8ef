"""How and where a run trains, as the group `trainer` says."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from robust_arch.architectures import Classifier
from robust_arch.data.batches import PLACES
from robust_arch.engine import PRECISIONS, AttackableNetwork, decide_precision, keep_freed_memory, missing_compiler
from robust_arch.errors import invalid, require_flag, require_integer


@dataclass(frozen=True, kw_only=True)
class TrainerSettings:
    """How and where to train; all but epochs, precision, devices and the batch limit change rounding at most.

    accelerator: auto, cpu or gpu. devices: processes, one device each. gpus: which ones, None for those with the fewest
    runs on them. precision: 32 or bf16-mixed, as Lightning names them; auto becomes what the hardware
    is made for. compile: of the inner loop; auto is decided by the run.
    fold: attacks see BatchNorm folded and weights prepared once a step. channels_last: of weights in memory,
    which activations follow. data: auto keeps the images on the device where they fit, stream fetches every batch.
    keep_memory: freed memory stays with the process. threads: CPU threads, None for torch's default.
    limit_train_batches: batches an epoch, None for all.
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

    def __post_init__(self) -> None:
        self._check_counts()
        for key in ("fold", "channels_last", "keep_memory"):
            require_flag(f"trainer.{key}", getattr(self, key))
        if self.progress_bar is not None:
            require_flag("trainer.progress_bar", self.progress_bar)
        if self.accelerator not in ("auto", "cpu", "gpu"):
            raise invalid("trainer.accelerator", self.accelerator, "auto, cpu or gpu")
        if self.data not in PLACES:
            raise invalid("trainer.data", self.data, f"one of {', '.join(PLACES)}")
        self._check_gpus()
        self._check_precision()
        self._check_compile()
        available = torch.cuda.device_count()
        if self.device.type == "cuda" and available < self.devices:
            raise invalid("trainer.devices", self.devices, f"at most the {available} GPUs that torch sees here")

    def _check_counts(self) -> None:
        for key in ("max_epochs", "devices", "threads", "limit_train_batches"):
            optional = key in ("threads", "limit_train_batches")
            require_integer(f"trainer.{key}", getattr(self, key), 1, optional=optional)

    def _check_gpus(self) -> None:
        if self.gpus is None:
            return
        for index in self.gpus:
            require_integer("trainer.gpus", index, 0)
        if len(set(self.gpus)) != self.devices or len(self.gpus) != self.devices:
            raise invalid("trainer.gpus", self.gpus, f"as many numbers as trainer.devices, {self.devices}, or null")
        if self.device.type == "cpu":
            raise invalid("trainer.gpus", self.gpus, "null where trainer.accelerator is cpu, or auto without a GPU")

    def _check_precision(self) -> None:
        if str(self.precision) not in ("auto", *PRECISIONS):
            raise invalid("trainer.precision", self.precision, f"auto, {' or '.join(PRECISIONS)}")
        decided = decide_precision(self.device) if self.precision == "auto" else str(self.precision)
        # one spelling, as it is part of who a run is: 32, as YAML reads it
        object.__setattr__(self, "precision", 32 if decided == "32" else decided)

    def _check_compile(self) -> None:
        if self.compile != "auto" and not isinstance(self.compile, bool):
            raise invalid("trainer.compile", self.compile, "auto, true or false")
        if self.compile is True and not self.fold:
            raise invalid(
                "trainer.compile", True, "false where trainer.fold=false, as only the folded form is compiled"
            )
        if self.compile is True and (missing := missing_compiler(self.device)):
            raise invalid("trainer.compile", True, f"false here: {missing}")

    def prepare_process(self) -> None:
        """Set this process's CPU threads, which decide the order of floating-point sums, and its memory."""
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        if self.keep_memory:
            keep_freed_memory()

    def attackable(self, net: Classifier) -> nn.Module:
        """`net` with what attacks in training see of it."""
        if not self.fold:
            return net
        dtype = torch.float32 if self.precision == 32 else torch.bfloat16
        return AttackableNetwork(net, dtype, compiled=self.compile is True)

    @property
    def device(self) -> torch.device:
        """Where a single process computes."""
        use_gpu = self.accelerator == "gpu" or (self.accelerator == "auto" and torch.cuda.is_available())
        if not use_gpu:
            return torch.device("cpu")
        return torch.device("cuda", self.gpus[0]) if self.gpus else torch.device("cuda")
