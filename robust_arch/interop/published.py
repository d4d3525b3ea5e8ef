"""Published checkpoints, whose key names each family knows, in and out."""

import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robust_arch.architectures import AnyArch, ArchSpec, Classifier, CustomArch, ImageShape, build
from robust_arch.architectures.family import KeyNames, family_names, get_family
from robust_arch.errors import InputError, invalid
from robust_arch.interop.checkpoint import LoadedCheckpoint
from robust_arch.interop.normalisation import carried_by, part_of_normalisation
from robust_arch.interop.reading import read_weights_only
from robust_arch.interop.sizes import require_weights
from robust_arch.interop.strict import load_strictly

log = logging.getLogger(__name__)

_WRAPPERS = re.compile(r"^(?:(?:model|module|_orig_mod|1)\.)+")  # 1: behind a normalisation in a Sequential
_WRAPPED = ("model_state_dict", "state_dict")  # keys under which files hold a state dict
_NARROW = 64  # channels of the network from which a layout's keys are taken
_SIDE = 32  # of the images for which a network is built; no weight depends on it


def load_published(source: str | Path | Mapping[str, Any], spec: ArchSpec) -> Classifier:
    """The network of a published checkpoint, in evaluation mode.

    source: a torch file, or a state dict; keys as in one of the family's published layouts, also under
    `model_state_dict` or `state_dict` and behind `module.`, `model.` or `_orig_mod.`. spec: the architecture; every
    key and shape must match it. Classes and channels are those of the weights. Images in [0, 1] pass through the
    normalisation that the file carries as `mu` and `sigma` or as mean and std of `normalize`, if any. Half precision
    becomes float32, exactly.

    Raises:
        InputError: for a missing file, a file that holds more than data, weights of another architecture, or weights
            that are not finite.
    """
    content = source if isinstance(source, Mapping) else read_weights_only(source)
    return read_published(content, spec)[0].net


def read_published(content: Mapping[str, Any], spec: ArchSpec) -> tuple[LoadedCheckpoint, str]:
    """The network in a published file's content, without a card, and the name of its layout; as `load_published`."""
    tensors, parts = _tensors(content)
    layout, names = _layout_of(tensors, spec)
    kept = {name: value for name, value in tensors.items() if not name.startswith(names.unused)}
    if len(kept) < len(tensors):
        log.info("%d tensors under %s: left out, no network uses them", len(tensors) - len(kept), names.unused[0])
    num_classes = _size(kept, names("fc.weight"), 2, 0)
    channels = _size(kept, names("stem.weight"), 4, 1)
    carried = carried_by(parts, channels)
    image_shape = (channels, _SIDE, _SIDE)
    require_weights(spec, num_classes, image_shape, kept)
    net = build(spec, num_classes, image_shape, seed=0)
    load_strictly(net.network, kept, spec, names)
    net = net.eval() if carried is None else carried.applied_to(net)
    return LoadedCheckpoint(net, spec, {}, carried), layout


def read_own(
    content: Mapping[str, Any], spec: CustomArch, num_classes: int, image_shape: ImageShape
) -> LoadedCheckpoint:
    """A network of the user's own with the weights of its state dict, without a card.

    The keys are the network's, or the network's behind the same wrappers as published files have.

    Raises:
        InputError: for weights of another network.
    """
    net = build(spec, num_classes, image_shape, seed=0)
    keys = set(net.network.state_dict())
    inner = next((content[name] for name in _WRAPPED if isinstance(content.get(name), Mapping)), content)
    if keys <= set(inner):
        load_strictly(net.network, inner, spec)
        return LoadedCheckpoint(net.eval(), spec, {})
    tensors, parts = _tensors(content)
    load_strictly(net.network, tensors, spec, lambda key: _WRAPPERS.sub("", key))
    carried = carried_by(parts, image_shape[0])
    return LoadedCheckpoint(net.eval() if carried is None else carried.applied_to(net), spec, {}, carried)


def published_state(net: Classifier, spec: AnyArch, layout: str | None = None) -> dict[str, Tensor]:
    """The weights of `net` under the names of a layout, by default the family's usual one.

    Raises:
        InputError: for a family without layouts, an unknown layout, or a network that normalises its input.
    """
    layouts = _layouts(spec)
    layout = next(iter(layouts)) if layout is None else layout
    if layout not in layouts:
        raise invalid("layout", layout, f"for family {spec.family} one of {', '.join(layouts)}")
    if bool((net.normalize.mean != 0).any()) or bool((net.normalize.std != 1).any()):
        raise InputError(
            "format = 'published': the checkpoint normalises its input, and published files have no place for that; "
            "safetensors and onnx have"
        )
    return {layouts[layout](key): value.contiguous() for key, value in net.network.state_dict().items()}


def _layouts(spec: AnyArch) -> Mapping[str, KeyNames]:
    if isinstance(spec, ArchSpec) and (layouts := get_family(spec.family).published_keys):
        return layouts
    known = ", ".join(name for name in family_names() if get_family(name).published_keys)
    raise invalid("arch.family", spec.family, f"one of {known}; published key names are not available for this family")


def _tensors(content: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """A file's tensors by published name; and for `mean` and `std` the entries of a normalisation by key."""
    parts: dict[str, dict[str, Any]] = {"mean": {}, "std": {}}
    for wrapper in _WRAPPED:
        if isinstance(inner := content.get(wrapper), Mapping):
            if {part_of_normalisation(key) for key in content if isinstance(key, str)} >= set(parts):
                _unwrapped(content, parts)  # something else may be called mean, but not beside a std
            content = inner
    tensors = _unwrapped(content, parts)
    if tensors.pop("n_averaged", None) is not None:
        log.info("n_averaged: left out, the number of networks that were averaged")
    return tensors, parts


def _unwrapped(content: Mapping[str, Any], parts: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The entries without the prefixes of wrappers around a network; those of a normalisation go to `parts`."""
    tensors: dict[str, Any] = {}
    for key, value in content.items():
        if not isinstance(key, str):
            raise InputError("checkpoint: the keys of a state dict are text")
        name = _WRAPPERS.sub("", key)
        if part := part_of_normalisation(name):
            parts[part][key] = value
        elif name in tensors:
            raise InputError(f"checkpoint: two keys name the same tensor {name!r}, one of them {key!r}")
        else:
            tensors[name] = value
    return tensors


def _layout_of(tensors: Mapping[str, Any], spec: ArchSpec) -> tuple[str, KeyNames]:
    """The layout of the family that finds most of its keys; raises InputError if none finds any."""
    # one small block per stage tells layouts apart as well as the whole network does; meta takes no memory
    widths = tuple(min(width, _NARROW) for width in spec.widths)
    small = replace(spec, depths=(1,) * len(spec.depths), widths=widths, stem_width=min(spec.stem_width, _NARROW))
    with torch.device("meta"):
        network: nn.Module = get_family(spec.family).build(small, 10, 3)
    layouts = _layouts(spec)
    found = {layout: sum(names(key) in tensors for key in network.state_dict()) for layout, names in layouts.items()}
    best = max(found, key=lambda layout: found[layout])
    if not found[best]:
        stems = ", ".join(f"{names('stem.weight')} ({layout})" for layout, names in layouts.items())
        raise InputError(
            f"checkpoint: no weights of family {spec.family} under published names, which begin with {stems}; "
            f"the first keys are {list(tensors)[:3]}"
        )
    return best, layouts[best]


def _size(tensors: Mapping[str, Any], name: str, dimensions: int, dimension: int) -> int:
    value = tensors.get(name)
    if not isinstance(value, Tensor) or value.ndim != dimensions:
        raise InputError(f"checkpoint: no {dimensions}-d tensor {name!r}")
    return value.shape[dimension]
