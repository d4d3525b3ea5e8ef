"""A family with the three duties alone, in a module of its own: every command works or says what is not available."""

import sys
import textwrap

import pytest
import torch

from robust_arch.architectures import ArchSpec, activation_bytes, arch_name, build, cost, families, named_spec
from robust_arch.architectures.family import Family, family_names, get_family
from robust_arch.errors import InputError
from robust_arch.execution.execute import execute
from robust_arch.interop import export_checkpoint, import_published, open_checkpoint
from robust_arch.study.plan import plan_study
from robust_arch.study.plan_table import plan_tables

# two stages of 1x1 convolutions; Tanh is a layer whose operator norm is not known
MODULE = """
from torch import nn

from robust_arch.architectures.family import CostTerms, Family
from robust_arch.errors import invalid


class PointwiseFamily(Family):
    def validate(self, spec):
        if len(spec.depths) != 2:
            raise invalid("arch.depths", spec.depths, "family pointwise has 2 stages")

    def cost_terms(self, depths, widths, stem_width, num_classes, image_shape):
        channels, height, width = image_shape
        entering = (channels, *widths[:-1])
        params = [a * c + (d - 1) * c * c for a, c, d in zip(entering, widths, depths)]
        head = widths[-1] * num_classes
        return CostTerms(tuple(params), tuple(height * width * p for p in params), head + num_classes, head)

    def build(self, spec, num_classes, channels):
        layers = []
        for depth, width in zip(spec.depths, spec.widths):
            for _ in range(depth):
                layers += [nn.Conv2d(channels, width, 1, bias=False), nn.Tanh()]
                channels = width
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))


FAMILY = PointwiseFamily()
"""
SPEC = {"family": "pointwise", "depths": (2, 1), "widths": (4, 8)}
RUN = (
    "arch.family=pointwise",
    "arch.depths=[2,1]",
    "arch.widths=[4,8]",
    "trainer.max_epochs=1",
    "trainer.limit_train_batches=2",
    "evaluate.attacks=[pgd20]",
    "evaluate.checkpoints=[last]",
    "evaluate.n=20",
)


@pytest.fixture
def beside_the_others(tmp_path, monkeypatch):
    """A function that puts a module beside the families."""
    monkeypatch.setattr(families, "__path__", [*families.__path__, str(tmp_path / "families")])
    (tmp_path / "families").mkdir()
    added = []

    def add(name, source):
        (tmp_path / "families" / f"{name}.py").write_text(textwrap.dedent(source))
        added.append(f"{families.__name__}.{name}")

    yield add
    for module in added:
        sys.modules.pop(module, None)


@pytest.fixture
def pointwise(beside_the_others):
    """The architecture of the minimal family."""
    beside_the_others("pointwise", MODULE)
    return ArchSpec(**SPEC)


@pytest.fixture
def trained(pointwise, composed):
    """A run of the minimal family, trained for two batches and evaluated with smoothness."""
    (planned,) = plan_study(composed(*RUN, "evaluate.smoothness=10"), []).runs
    assert execute(planned.run) == "completed"
    return planned.run


def test_it_is_found_costed_built_and_named(pointwise):
    assert "pointwise" in family_names()
    # 3 channels: 3 x 4 + 4 x 4, then 4 x 8; the head 8 x 5 + 5
    found = cost(pointwise, 5, (3, 6, 6))
    assert (found.params, found.macs) == (28 + 32 + 45, 36 * (28 + 32) + 40)
    assert (found.stage_params, found.shares()) == ((28, 32), (28 / 60, 32 / 60))
    net = build(pointwise, 5, (3, 6, 6), seed=0)
    assert sum(parameter.numel() for parameter in net.parameters()) == found.params
    assert net(torch.zeros(2, 3, 6, 6)).shape == (2, 5)
    assert activation_bytes(pointwise, (3, 6, 6)) is None
    assert named_spec(arch_name(pointwise)) == pointwise
    with pytest.raises(InputError, match="pointwise has 2 stages"):
        ArchSpec("pointwise", (1, 1, 1), (4, 4, 4))
    with pytest.raises(InputError, match=r"one of .*pointwise, .*resnet.*wide_resnet"):
        get_family("pointwize")


def test_a_plan_of_it_has_a_dash_for_the_memory(pointwise, composed):
    space = ("search.space.depths=[[1],[1,2]]", "search.space.widths=[[4],[4,8]]", "search.budget.params=160")
    plan = plan_study(composed(*RUN, *space, "search.budget.tolerance=0.2"), [])
    # on digits (1, 8, 8) in 10 classes: the first stage is 4, the second 4 c + (d - 1) c^2, the head 10 c + 10
    # so 70, 86, 126 and 190: of [128, 192] only the last is inside
    assert [planned.run.settings.spec.widths for planned in plan.runs] == [(4, 8)]
    table = plan_tables(plan)[0]
    cells = {column.header: [*column.cells] for column in table.columns}
    assert cells["activations, MiB"] == ["-"]
    assert cells["params"] == ["190"]


def test_it_is_trained_and_only_the_logits_change_is_measured(trained):
    ((_, record),) = trained.records()
    smoothness = record.content["smoothness"]
    (logits,) = smoothness["stages"]
    assert logits["name"] == "logits"
    assert logits["alone"] == logits["from_input"] > 0
    assert (logits["bound"], smoothness["bounds"]) == (None, None)
    assert "not available for this family" in (trained.folder.evaluations / "card.md").read_text()


def test_its_checkpoint_has_every_form_but_published_names(trained, tmp_path):
    checkpoint = trained.folder.path / "checkpoints" / "last.ckpt"
    export_checkpoint(checkpoint, tmp_path / "net.safetensors", "safetensors")
    assert open_checkpoint(tmp_path / "net.safetensors").spec == ArchSpec(**SPEC)
    for layout in (None, "huang2021"):
        with pytest.raises(InputError, match=r"'pointwise'.*resnet.*wide_resnet.*not available for this family"):
            export_checkpoint(checkpoint, tmp_path / "net.pth", "published", layout=layout)
    assert not (tmp_path / "net.pth").exists()


def test_a_file_of_published_names_is_refused(pointwise, tmp_path):
    torch.save(build(pointwise, 5, (3, 6, 6), seed=0).network.state_dict(), tmp_path / "net.pth")
    with pytest.raises(InputError, match="not available for this family"):
        import_published(tmp_path / "net.pth", tmp_path / "net.ckpt", pointwise)
    with pytest.raises(InputError, match="not available for this family"):
        open_checkpoint(tmp_path / "net.pth", SPEC)
    assert not (tmp_path / "net.ckpt").exists()


@pytest.mark.parametrize("duty", ["validate", "cost_terms", "build"])
def test_each_duty_is_required(duty):
    members = {name: lambda *_: None for name in ("validate", "cost_terms", "build") if name != duty}
    with pytest.raises(TypeError, match=duty):
        type("Lazy", (Family,), members)()


def test_a_module_without_a_family_is_named(beside_the_others):
    beside_the_others("empty", "FAMILY = object()")
    with pytest.raises(InputError, match=r"arch\.family = 'empty'.*FAMILY is a Family"):
        ArchSpec("empty", (1,), (1,))
