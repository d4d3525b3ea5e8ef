"""From a spec to a network that takes images in [0, 1]."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from robust_arch.architectures.cost import check_task
from robust_arch.architectures.custom import AnyArch, CustomArch
from robust_arch.architectures.family import ImageShape, get_family
from robust_arch.architectures.initialisation import initialise
from robust_arch.errors import invalid


class Normalize(nn.Module):
    """(x - mean) / std by channel, with both saved in the checkpoint: attacks see images in [0, 1]."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(list(mean), dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(list(std), dtype=torch.float32).view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W) in [0, 1]."""
        return (x - self.mean) / self.std


class Classifier(nn.Module):
    """Normalisation, then the network: images (B, C, H, W) in [0, 1] to logits (B, K).

    layout: the memory format of its weights: channels last, in which convolutions are fastest, or contiguous, for a
    network that needs contiguous images too.
    """

    def __init__(
        self, normalize: Normalize, network: nn.Module, layout: torch.memory_format = torch.channels_last
    ) -> None:
        super().__init__()
        self.normalize = normalize
        self.network = network
        self.layout = layout

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W) in [0, 1]. Returns logits (B, K)."""
        logits: Tensor = self.network(self.laid_out(self.normalize(x)))
        return logits

    def laid_out(self, x: Tensor) -> Tensor:
        """Images in the layout that the network needs. x: (B, C, H, W)."""
        if self.layout == torch.channels_last:
            return x
        return x.clone(memory_format=torch.contiguous_format)  # `contiguous` keeps the strides of a single channel


def weight_layout(net: nn.Module) -> torch.memory_format:
    """The memory format of a network's weights: channels last, unless the network names one."""
    layout: torch.memory_format = getattr(net, "layout", torch.channels_last)
    return layout


def build(
    spec: AnyArch,
    num_classes: int = 10,
    image_shape: ImageShape = (3, 32, 32),
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    seed: int | None = None,
) -> Classifier:
    """A freshly initialised network of `spec`.

    mean, std: one number per channel, in units of images in [0, 1]; the identity unless given.
    seed: initialises from this seed and leaves torch's global random state as it was; None draws from that state.
    """
    check_task(num_classes, image_shape)
    channels = image_shape[0]
    mean = [0.0] * channels if mean is None else mean
    std = [1.0] * channels if std is None else std
    for key, values in (("mean", mean), ("std", std)):
        if len(values) != channels:
            raise invalid(key, list(values), f"one number for each of the {channels} channels")
    if min(std) <= 0:
        raise invalid("std", list(std), "numbers greater than 0")
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices=list(gpus), enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        if isinstance(spec, CustomArch):
            return Classifier(Normalize(mean, std), *spec.build(num_classes, image_shape))
        family = get_family(spec.family)
        family.check_image(spec, image_shape)
        network = family.build(spec, num_classes, channels)
        initialise(network, spec.initialisation)
    return Classifier(Normalize(mean, std), network)
