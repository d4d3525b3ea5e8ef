"""The size that a file claims for its network, checked against its weights before anything is allocated."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from robust_arch.architectures import AnyArch, ArchSpec, ImageShape, activation_bytes, cost
from robust_arch.errors import InputError, invalid

_SPARE = 2**16  # parameters beyond twice the file's: near misses are reported key by key, which takes little memory
_MOST_ACTIVATIONS = 2**34  # bytes per image: ten times those of WideResNet-28-10 on images of 224 x 224
_LONGEST_SIDE = 2**13


def require_weights(spec: ArchSpec, num_classes: int, image_shape: ImageShape, tensors: Mapping[str, Any]) -> None:
    """Raise InputError for a network that is far larger than the weights of its file.

    Its parameters, in closed form, must be at most twice the numbers in the file, and its blocks at most as many as
    the tensors (a block has several): building it then takes little more memory than reading the file did.
    """
    sizes = {}  # by storage: a tensor's shape can claim any size for one repeated number
    for value in tensors.values():
        if isinstance(value, Tensor) and value.layout == torch.strided and value.device.type == "cpu":
            storage = value.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes() // value.element_size()
    params, stored = cost(spec, num_classes, image_shape).params, sum(sizes.values())
    if params > 2 * stored + _SPARE or sum(spec.depths) > len(tensors):
        raise InputError(
            f"{misfit(spec)}, {num_classes} classes, {image_shape[0]} channels: that has {params:,} parameters, "
            f"the file holds {stored:,} numbers in {len(tensors):,} tensors"
        )


def misfit(spec: AnyArch) -> str:
    """The beginning of an error about a file whose weights are not of this architecture."""
    return f"checkpoint: the weights are not of the architecture {spec.described}"


def require_image_shape(spec: ArchSpec, image_shape: ImageShape) -> None:
    """Raise InputError for images (C, H, W) on which the network would need more memory than any study has.

    If a family does not count its activations, only the images' sides are limited.
    """
    if (activation_bytes(spec, image_shape) or 0) > _MOST_ACTIVATIONS or max(image_shape[1:]) > _LONGEST_SIDE:
        most = f"{_MOST_ACTIVATIONS // 2**30} GiB of the network's activations each"
        raise invalid("image_shape", image_shape, f"images of at most {_LONGEST_SIDE:,} pixels per side and {most}")
