import sys

import pytest
import torch
from networks import copied, counted, random_images, randomised

from robust_arch.architectures import PRESETS, ArchSpec, build, cost
from robust_arch.errors import InputError

BASE = {"family": "convnext", "depths": (1, 2, 1, 1), "widths": (8, 16, 16, 24), "activation": "gelu"}


def test_without_timm_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    assert cost(ArchSpec(**BASE)).params > 0
    with pytest.raises(
        InputError, match=r"arch\.family = 'convnext': needs the package timm: install the extra `timm`"
    ):
        build(ArchSpec(**BASE))


def test_logits_equal_those_of_timm():
    timm = pytest.importorskip("timm")
    theirs = timm.models.convnext.ConvNeXt(3, 7, depths=BASE["depths"], dims=BASE["widths"])
    theirs = randomised(theirs)
    ours = copied(theirs, build(ArchSpec(**BASE, options={"stem": "patch"}), 7, (3, 64, 64)).network.double().eval())
    x = random_images(2, 3, 70, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("preset", "name"), [("convnext_tiny", "convnext_tiny"), ("convnext_base", "convnext_base")])
def test_presets_are_those_of_timm_but_for_the_stem(preset, name):
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        theirs = timm.create_model(name, pretrained=False).eval()
    spec = ArchSpec.from_dict({**PRESETS[preset].to_dict(), "stem_width": 16, "options": {"stem": "patch"}})
    found = cost(spec, 1000, (3, 224, 224))
    assert (found.params, found.macs) == counted(theirs, (3, 224, 224))


def test_the_convolutional_stem_is_that_of_the_published_robust_models():
    pytest.importorskip("timm")
    stem = build(PRESETS["convnext_tiny"]).network.stem
    layers = [(type(layer).__name__, getattr(layer, "stride", None)) for layer in stem]
    assert layers == [("Conv2d", (2, 2)), ("LayerNorm2d", None), ("_Activation", None)] * 2
    # 3 to 48 to 96 channels: 9 x 3 x 48 + 48, 9 x 48 x 96 + 96, LayerNorm 96 + 192; patch: 16 x 3 x 96 + 96, 192
    patch = ArchSpec.from_dict({**PRESETS["convnext_tiny"].to_dict(), "stem_width": 16, "options": {"stem": "patch"}})
    assert cost(PRESETS["convnext_tiny"]).params - cost(patch).params == 1344 + 41_568 + 288 - 4704 - 192
    widths = [layer.out_channels for layer in build(PRESETS["convnext_base"]).network.stem if hasattr(layer, "stride")]
    assert widths == [64, 96, 128]


@pytest.mark.parametrize(("stem", "least"), [("cifar", 8), ("conv", 29), ("conv3", 29), ("patch", 32)])
def test_images_that_are_too_small_for_the_strides_are_refused(stem, least):
    pytest.importorskip("timm")
    spec = ArchSpec(**BASE, options={"stem": stem})
    with torch.no_grad():
        assert build(spec, 3, (1, least, least + 1))(torch.zeros(1, 1, least, least + 1)).shape == (1, 3)
    for function in (cost, build):
        with pytest.raises(
            InputError, match=rf"image_shape = .*: expected at least {least} pixels per side for stem {stem}"
        ):
            function(spec, 3, (1, least - 1, 64))
