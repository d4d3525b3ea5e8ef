"""Published checkpoints, whose key names each family knows, in and out."""

import logging
import re
from collections.abc import Callable, Mapping
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
    layout, keys = _layout_of(tensors, spec)
    names = keys.of(spec)
    num_classes = _size(tensors, names("fc.weight"), 2, 0)
    channels = _size(tensors, names(keys.stem), 4, 1)
    carried = carried_by(parts, channels)
    image_shape = (channels, _SIDE, _SIDE)
    require_weights(spec, num_classes, image_shape, tensors)
    net = build(spec, num_classes, image_shape, seed=0)
    load_strictly(net.network, _used(tensors, net.network, keys, names), spec, names)
    net = net.eval() if carried is None else carried.applied_to(net)
    return LoadedCheckpoint(net, spec, {}, carried), layout


def read_own(
    content: Mapping[str, Any], spec: CustomArch, task: Callable[[], tuple[int, ImageShape]] | None
) -> LoadedCheckpoint:
    """A network of the user's own with the weights of its state dict, without a card.

    The keys are the network's, or the network's behind the same wrappers as published files have. task: number of
    classes and shape of images.

    Raises:
        InputError: for weights of another network, or without a task.
    """
    if task is None:
        raise invalid("checkpoint", list(content)[:3], "a checkpoint of this project, as a state dict names no data")
    num_classes, image_shape = task()
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


def _used(
    tensors: Mapping[str, Any], network: nn.Module, keys: KeyNames, names: Callable[[str], str]
) -> dict[str, Any]:
    """The tensors without those that the network does not use, linear layers as it has them."""
    own = {names(key): key for key in network.state_dict()}
    used = {name: value for name, value in tensors.items() if name in own or not name.startswith(keys.unused)}
    if len(used) < len(tensors):
        log.info("%d tensors under %s: left out, no network uses them", len(tensors) - len(used), keys.unused[0])
    for name, value in used.items():
        is_linear = own.get(name, "").endswith(keys.as_convolutions)
        if is_linear and isinstance(value, Tensor) and value.ndim == 4 and value.shape[2:] == (1, 1):
            used[name] = value[:, :, 0, 0]
    return used


def published_state(net: Classifier, spec: AnyArch, layout: str | None = None) -> dict[str, Tensor]:
    """The weights of `net` under the names of a layout, by default the family's usual one.

    Raises:
        InputError: for a family without layouts, an unknown layout, or a network that normalises its input.
    """
    if not isinstance(spec, ArchSpec):
        raise _without_layouts(spec.family)
    layouts, options = _layouts(spec), get_family(spec.family).options.read(spec.options)
    if layout is None:
        layout = next((name for name, keys in layouts.items() if keys.misfit(options) is None), next(iter(layouts)))
    if layout not in layouts:
        raise invalid("layout", layout, f"for family {spec.family} one of {', '.join(layouts)}")
    keys = layouts[layout]
    if misfit := keys.misfit(options):
        raise misfit
    if bool((net.normalize.mean != 0).any()) or bool((net.normalize.std != 1).any()):
        raise InputError(
            "format = 'published': the checkpoint normalises its input, and published files have no place for that; "
            "safetensors and onnx have"
        )
    names, state = keys.of(spec), net.network.state_dict()
    convolved = {key for key in state if key.endswith(keys.as_convolutions)}
    return {
        names(key): (value[..., None, None] if key in convolved else value).contiguous() for key, value in state.items()
    }


def _layouts(spec: ArchSpec) -> Mapping[str, KeyNames]:
    if layouts := get_family(spec.family).published_keys:
        return layouts
    raise _without_layouts(spec.family)


def _without_layouts(family: str) -> InputError:
    known = ", ".join(name for name in family_names() if get_family(name).published_keys)
    return invalid("arch.family", family, f"one of {known}; published key names are not available for this family")


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
        state = get_family(spec.family).build(small, 10, 3).state_dict()
    layouts = _layouts(spec)
    found = {name: sum(map(tensors.__contains__, map(keys.of(spec), state))) for name, keys in layouts.items()}
    best = max(found, key=lambda name: found[name])
    if not found[best]:
        stems = ", ".join(f"{keys.of(spec)(keys.stem)} ({name})" for name, keys in layouts.items())
        raise InputError(
            f"checkpoint: no weights of family {spec.family} under published names, which begin with {stems}; "
            f"the first keys are {list(tensors)[:3]}"
        )
    if misfit := layouts[best].misfit(get_family(spec.family).options.read(spec.options)):
        raise misfit
    return best, layouts[best]


def _size(tensors: Mapping[str, Any], name: str, dimensions: int, dimension: int) -> int:
    value = tensors.get(name)
    if not isinstance(value, Tensor) or value.ndim != dimensions:
        raise InputError(f"checkpoint: no {dimensions}-d tensor {name!r}")
    return value.shape[dimension]
