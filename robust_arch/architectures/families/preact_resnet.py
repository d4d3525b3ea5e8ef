"""Pre-activation ResNet for small images (He et al. 2016b), with widths and depths per stage.

The network that most adversarial training is reported on: a 3x3 stem without BatchNorm, BN-act before pooling, and a
1x1 convolution of act(BN(x)) as the shortcut where the width or the resolution changes.
"""

import re
from types import MappingProxyType

from robust_arch.architectures.families.wide_resnet import WideResNetFamily
from robust_arch.architectures.family import KeyNames

_BLOCK = re.compile(r"stages\.(\d+)\.(\d+)\.(.+)")


def _rice(key: str) -> str:
    """The names of Wong et al. 2020 and Rice et al. 2020: `layer1.0.conv1.weight`."""
    if match := _BLOCK.fullmatch(key):
        stage, block, tensor = match.groups()
        return f"layer{int(stage) + 1}.{block}.{tensor.replace('shortcut', 'shortcut.0')}"
    module, tensor = key.split(".")
    return f"{({'stem': 'conv1', 'fc': 'linear'}).get(module, module)}.{tensor}"


class PreActResNetFamily(WideResNetFamily):
    """Four stages; blocks and options are those of family wide_resnet."""

    strides = (1, 2, 2, 2)
    published_keys = MappingProxyType({"rice2020": KeyNames(_rice, options={"padding": ("symmetric",)})})
    raw_shortcut = False


FAMILY = PreActResNetFamily()
