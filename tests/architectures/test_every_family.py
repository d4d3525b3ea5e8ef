"""What holds for each family, on odd architectures: nothing here names one, a family is tested once it is there."""

import importlib

import numpy as np
import pytest
import torch
from networks import counted_spec
from torch.nn import functional as F

from robust_arch.architectures import PRESETS, ArchSpec, arch_name, build, cost, named_spec
from robust_arch.architectures.family import family_names, family_of
from robust_arch.attacks import PGD, ThreatModel
from robust_arch.engine import AttackableNetwork

FAMILIES = family_names()
TASKS = [(33, (1, 28, 28)), (2, (3, 8, 8)), (10, (3, 32, 32)), (5, (2, 11, 17))]


def preset_of(family):
    """The first preset of the family; each has one."""
    return next(spec for spec in PRESETS.values() if spec.family == family)


def odd_specs(family):
    """Architectures at the edge: equal adjacent widths, depth 1, width 8, widths that rise and fall, odd widths."""
    stages = len(preset_of(family).depths)
    rising = [8 + 8 * stage for stage in range(stages)]
    cases = {
        "equal": {"widths": (8,) * stages, "depths": (1,) * stages},
        "falling": {"widths": tuple(reversed(rising)), "depths": (2,) * stages},
        "odd": {"widths": tuple(9 + 4 * stage for stage in range(stages)), "depths": (1, 2, 3, 2, 1)[:stages]},
        "deep": {"widths": tuple(rising), "depths": (3,) * stages, "activation": "prelu"},
        "psilu": {"widths": tuple(rising), "depths": (2,) * stages, "activation": "psilu", "initialisation": "he"},
    }
    return {name: ArchSpec(family, **case) for name, case in cases.items()}


CASES = [pytest.param(spec, id=f"{family}-{name}") for family in FAMILIES for name, spec in odd_specs(family).items()]
ATTACKED = {  # each odd architecture on one task; wide images for the cheapest
    "equal": (10, (3, 64, 64)),
    "falling": (33, (1, 28, 28)),
    "odd": (5, (2, 11, 17)),
    "deep": (2, (3, 8, 8)),
    "psilu": (33, (1, 28, 28)),
}
NAMED = [pytest.param(spec, id=name) for name, spec in PRESETS.items()]


@pytest.fixture(autouse=True)
def dependencies(request):
    """Skip a family whose blocks come from a package that is not installed."""
    spec = request.node.callspec.params.get("spec") if hasattr(request.node, "callspec") else None
    module = importlib.import_module(f"robust_arch.architectures.families.{spec.family}") if spec else None
    for package in getattr(module, "REQUIRED", ()):
        pytest.importorskip(package)


@pytest.mark.parametrize("task", TASKS, ids=str)
@pytest.mark.parametrize("spec", CASES)
def test_the_closed_form_is_what_torch_counts(spec, task):
    found = cost(spec, *task)
    assert (found.params, found.macs) == counted_spec(spec, *task)
    assert sum(found.stage_params) < found.params
    assert min(found.stage_params) > 0


@pytest.mark.slow
@pytest.mark.parametrize("spec", NAMED)
def test_presets_cost_what_torch_counts(spec):
    shape = (3, 224, 224) if dict(spec.options).get("stem", "cifar") != "cifar" else (3, 32, 32)
    found = cost(spec, 10, shape)
    assert (found.params, found.macs) == counted_spec(spec, 10, shape)


@pytest.mark.parametrize("task", TASKS, ids=str)
@pytest.mark.parametrize("spec", CASES)
def test_one_batch_of_training_reaches_every_parameter(spec, task):
    num_classes, image_shape = task
    net = build(spec, num_classes, image_shape, seed=0).train()
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(6, *image_shape, generator=generator)
    y = torch.randint(num_classes, (6,), generator=generator)
    before = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    logits = net(x)
    assert logits.shape == (6, num_classes)
    F.cross_entropy(logits, y).backward()
    # a parameter without gradient would stop distributed training
    assert [name for name, parameter in net.named_parameters() if parameter.grad is None] == []
    optimizer.step()
    assert all(bool(torch.isfinite(parameter).all()) for parameter in net.parameters())
    assert any(not torch.equal(before[name], parameter) for name, parameter in net.named_parameters())
    assert torch.equal(net.eval()(x[:2]), net(x[:2]))


@pytest.mark.parametrize(
    ("spec", "task"),
    [
        pytest.param(spec, ATTACKED[name], id=f"{family}-{name}")
        for family in FAMILIES
        for name, spec in odd_specs(family).items()
    ],
)
def test_attacks_on_the_trained_and_folded_network_stay_in_the_ball(spec, task):
    found, (num_classes, image_shape) = cost(spec, *task), task
    assert (found.params, found.macs) == counted_spec(spec, *task)
    net = build(spec, num_classes, image_shape, seed=0)
    x = torch.rand(4, *image_shape, generator=torch.Generator().manual_seed(0))
    y = torch.arange(4) % num_classes
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    F.cross_entropy(net(x), y).backward()  # moves the statistics of BatchNorm too
    optimizer.step()
    net.eval()
    with torch.no_grad():
        attacked = AttackableNetwork(net).attacked(x)  # the network itself where a layer has no constant form
        torch.testing.assert_close(attacked(x), net(x), rtol=1e-3, atol=1e-4)
    x_adv = PGD(steps=2, rel_step_size=0.5)(AttackableNetwork(net), x, y, ThreatModel("linf", "8/255"))
    assert 0 <= x_adv.min() <= x_adv.max() <= 1
    assert 0 < (x_adv - x).abs().max() <= 8 / 255 + 1e-6


@pytest.mark.parametrize("spec", CASES)
def test_many_architectures_cost_what_each_costs_alone(spec):
    stages = len(spec.depths)
    rng = np.random.default_rng(0)
    depths, widths = rng.integers(1, 6, size=(stages, 30)), rng.choice([8, 16, 24, 70], size=(stages, 30))
    terms = family_of(spec).cost_terms(list(depths), list(widths), spec.stem_width, 10, (3, 32, 31))
    for i in range(30):
        values = {**spec.to_dict(), "depths": depths[:, i].tolist(), "widths": widths[:, i].tolist()}
        alone = cost(ArchSpec.from_dict(values), 10, (3, 32, 31))
        assert (terms.params[i], terms.macs[i]) == (alone.params, alone.macs)
        assert tuple(stage[i] for stage in terms.stage_macs) == alone.stage_macs


@pytest.mark.parametrize("spec", [*CASES, *NAMED])
def test_names_and_records_give_the_same_architecture_back(spec):
    assert named_spec(arch_name(spec)) == spec
    assert ArchSpec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_has_a_preset(family):
    assert preset_of(family).family == family
