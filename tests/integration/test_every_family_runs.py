"""Each family through the whole chain: plan, training, evaluation under attack, record, export and import."""

import importlib

import pytest
import torch

from robust_arch.architectures import PRESETS, arch_name
from robust_arch.architectures.family import BoundedNetwork, family_names
from robust_arch.architectures.presets import named_spec
from robust_arch.engine.frozen import FrozenNetwork, NotFreezableError
from robust_arch.evaluation.smoothness import stage_changes, upper_bounds
from robust_arch.execution.execute import execute
from robust_arch.interop import export_checkpoint, open_checkpoint
from robust_arch.study.plan import plan_study

COMMON = (
    "trainer.max_epochs=1",
    "trainer.limit_train_batches=2",
    "evaluate.attacks=[pgd20]",
    "evaluate.checkpoints=[last]",
    "evaluate.n=20",
)
OPTIONS = {  # beside the defaults, some that change the network
    "wide_resnet": ("arch.activation=psilu", "arch.options={se_ratio:0.5,padding:same,block:[basic,bottleneck,basic]}"),
    "preact_resnet": ("arch.activation=prelu", "arch.initialisation=lecun"),
    "densenet": ("+arch.options.transition_widths=[8,9,10]",),
    "robust_resnet": ("+arch.options.preactivated=true",),
    "darts": ("arch.dropout=0.2", "+arch.options.normal=[skip_connect:0,sep_conv_3x3:1]"),
}


def small(family):
    """Overrides for a small network of the family, of a preset without options if there is one."""
    presets = [(name, spec) for name, spec in PRESETS.items() if spec.family == family]
    name, preset = min(presets, key=lambda item: bool(item[1].options))
    widths = [8, 8, 12, 8, 8][: len(preset.depths)]
    stem = () if family == "vgg" else ("arch.stem_width=8",)
    overrides = [f"arch={name}", f"arch.depths={[1] * len(widths)}", f"arch.widths={widths}", *stem]
    overrides += ["arch.options.stem=cifar"] if preset.options else []
    return [override.replace(" ", "") for override in overrides]


@pytest.mark.parametrize("changed", [False, True], ids=["default", "options"])
@pytest.mark.parametrize("family", family_names())
def test_the_whole_chain(family, changed, composed, tmp_path):
    for package in getattr(importlib.import_module(f"robust_arch.architectures.families.{family}"), "REQUIRED", ()):
        pytest.importorskip(package)
    if changed and family not in OPTIONS:
        pytest.skip("the family has no options that this test knows")
    plan = plan_study(composed(*COMMON, *small(family), *(OPTIONS[family] if changed else ())), [])
    (planned,) = plan.runs
    spec = planned.run.settings.spec
    assert spec.family == family
    assert bool(spec.options) == (changed and family != "preact_resnet")
    assert execute(planned.run) == "completed"
    assert [subject.checkpoint for subject, _ in planned.run.records()] == ["last"]
    assert named_spec(arch_name(spec)) == spec

    checkpoint = planned.run.folder.path / "checkpoints" / "last.ckpt"
    export_checkpoint(checkpoint, tmp_path / "net.safetensors", "safetensors")
    loaded, exported = open_checkpoint(checkpoint), open_checkpoint(tmp_path / "net.safetensors")
    assert exported.spec == loaded.spec == spec
    x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    moved = (x + 0.1).clamp(max=1)
    assert stage_changes(loaded.net, x, moved)[-1].name == "logits"
    if isinstance(loaded.net.network, BoundedNetwork):
        bound = upper_bounds(loaded.net, (1, 8, 8))["network"]
        assert stage_changes(loaded.net, x, moved)[-1].from_input.max() <= bound * (1 + 1e-5)
    with torch.no_grad():
        assert torch.equal(exported.net(x), loaded.net(x))
        try:
            frozen = FrozenNetwork(loaded.net)
        except NotFreezableError:  # attacks then see the network itself
            return
        torch.testing.assert_close(frozen(x), loaded.net(x), rtol=1e-4, atol=1e-4)
