"""The key names of the published WRN-34-R checkpoints (Huang et al. 2021), mapped to and from ours."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from robust_arch.architectures import ArchSpec, Classifier, build
from robust_arch.errors import InputError, invalid
from robust_arch.interop.files import read_weights_only

_FAMILY = "wide_resnet"
_BLOCK = re.compile(r"blocks\.(\d+)\.layer\.(\d+)\.(bn1|conv1|bn2|conv2|convShortcut)\.(\w+)")
_OUTSIDE = {"stem_conv": "stem", "bn1": "bn", "fc": "fc"}


def our_key(key: str) -> str:
    """`blocks.0.layer.1.conv1.weight` as `stages.0.1.conv1.weight`; raises KeyError for an unknown name."""
    if match := _BLOCK.fullmatch(key):
        stage, block, layer, tensor = match.groups()
        return f"stages.{stage}.{block}.{'shortcut' if layer == 'convShortcut' else layer}.{tensor}"
    module, _, tensor = key.partition(".")
    return f"{_OUTSIDE[module]}.{tensor}"


def _state_dict(source: str | Path | Mapping[str, Any]) -> dict[str, Tensor]:
    """The published keys and their tensors, without the wrappers that training code leaves around them."""
    content: Mapping[str, Any] = source if isinstance(source, Mapping) else read_weights_only(source)
    for wrapper in ("model_state_dict", "state_dict"):
        if isinstance(inner := content.get(wrapper), Mapping):
            content = inner
    return {str(key).removeprefix("module."): value for key, value in content.items()}


def load_published(source: str | Path | Mapping[str, Any], spec: ArchSpec) -> Classifier:
    """The network of a published checkpoint, in evaluation mode.

    source: a torch file, or a state dict; keys as in the published WRN-34-R, also under `model_state_dict` or
    `state_dict` and behind `module.`. spec: the architecture; every key and shape must match it. Images in [0, 1]
    enter without normalisation.

    Raises:
        InputError: for a missing file, a file that holds more than data, or weights of another architecture.
    """
    if spec.family != _FAMILY:
        raise invalid("arch.family", spec.family, f"{_FAMILY}: the published checkpoints are of that family")
    published = _state_dict(source)
    for key, dimensions in (("fc.weight", 2), ("stem_conv.weight", 4)):
        value = published.get(key)
        if not isinstance(value, Tensor) or value.ndim != dimensions:
            raise InputError(f"checkpoint: no {dimensions}-d tensor {key!r}; keys are those of the published WRN-34-R")
    try:
        state = {our_key(key): value for key, value in published.items()}
    except KeyError as error:
        raise InputError(
            f"checkpoint: unknown key {error.args[0]!r}; keys are those of the published WRN-34-R"
        ) from None
    num_classes, channels = published["fc.weight"].shape[0], published["stem_conv.weight"].shape[1]
    net = build(spec, num_classes, (channels, 32, 32), seed=0)
    load_strictly(net.network, state, spec)
    return net.eval()


def load_strictly(network: Any, state: Mapping[str, Any], spec: ArchSpec) -> None:
    """Load with `strict=True`; raises InputError with the first differences where the weights are of another arch."""
    try:
        network.load_state_dict(dict(state), strict=True)
    except RuntimeError as error:
        differences = "; ".join(line.strip() for line in str(error).splitlines()[1:4])
        raise InputError(
            f"checkpoint: the weights are not of the architecture depths {spec.depths}, widths {spec.widths}: "
            f"{differences[:400]}"
        ) from None
