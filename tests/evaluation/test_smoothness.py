"""Smoothness of linear networks in closed form, of tiny ones by hand, and bounds against true Jacobians."""

import json
import math

import numpy as np
import pytest
import torch
from evaluations import CPU
from torch import nn
from torch.autograd.functional import jacobian as jacobian_of

from robust_arch.architectures import ArchSpec, Classifier, build
from robust_arch.architectures.build import Normalize
from robust_arch.architectures.family import StagedNetwork
from robust_arch.attacks import PGD, Attack, ThreatModel
from robust_arch.data import ImageSet
from robust_arch.errors import InputError
from robust_arch.evaluation.examples import Examples
from robust_arch.evaluation.operator_norms import hooked
from robust_arch.evaluation.smoothness import (
    LIPSCHITZ_FORMS,
    fosc,
    local_lipschitz,
    stage_changes,
    stage_smoothness,
    upper_bounds,
)

PGD5 = PGD(steps=5, rel_step_size=0.5)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- local Lipschitz constants: f(x) = W x ---

WEIGHT = random(4, 6)


def lipschitz_of_linear(offset, form):
    """The quotient at grey images of shape (1, 2, 3), moved by `offset`: (B, 6)."""
    x = torch.full((len(offset), 1, 2, 3), 0.5, dtype=torch.float64)
    x_adv = x + offset.view_as(x)
    return local_lipschitz(x, x_adv, x.flatten(1) @ WEIGHT.T, x_adv.flatten(1) @ WEIGHT.T, form)


def test_the_form_of_the_paper_on_a_linear_network():
    offset = 0.1 * random(3, 6, seed=1)
    expected = np.abs(offset.numpy() @ WEIGHT.numpy().T).sum(axis=1) / np.abs(offset.numpy()).max(axis=1)
    found = lipschitz_of_linear(offset, "l1_linf")
    assert found.dtype == torch.float64
    assert found.numpy() == pytest.approx(expected, rel=1e-12)
    # a sign vector against one row at a time: no linf step does more to the first logit than its row's l1 norm
    sign = 0.25 * WEIGHT[:1].sign()
    expected = float((WEIGHT @ WEIGHT[0].sign()).abs().sum())
    assert float(lipschitz_of_linear(sign, "l1_linf")) == pytest.approx(expected, rel=1e-12)


def test_the_l2_form_reaches_the_largest_singular_value():
    _, singular, right = np.linalg.svd(WEIGHT.numpy())
    found = lipschitz_of_linear(0.1 * torch.from_numpy(right[:4].copy()), "l2")
    assert found.numpy() == pytest.approx(singular, rel=1e-12)
    assert bool((lipschitz_of_linear(random(20, 6, seed=2), "l2") <= singular[0]).all())


def test_the_kl_form_by_hand():
    # p = (3/4, 1/4), q = (1/2, 1/2), and the image moved by 0.2 at most
    x = torch.tensor([[[[0.1, 0.4]]]])
    x_adv = torch.tensor([[[[0.3, 0.3]]]])
    found = local_lipschitz(x, x_adv, torch.tensor([[math.log(3.0), 0.0]]), torch.zeros(1, 2), "kl")
    assert float(found) == pytest.approx((0.75 * math.log(1.5) + 0.25 * math.log(0.5)) / 0.2, rel=1e-6)
    # certain predictions: finite
    certain = torch.tensor([[2000.0, 0.0]])
    assert float(local_lipschitz(x, x + 0.25, certain, certain.flip(1), "kl")) == pytest.approx(8000.0)


def test_the_kl_form_of_a_small_change_is_half_its_variance():
    # KL(p || softmax(z + d)) = Var_p(d) / 2 + O(d^3): 3e-12 here, which a sum in float32 would lose
    logits, change = random(1, 5), 1e-5 * random(1, 5, seed=1)
    p = torch.softmax(logits, dim=1)
    variance = float((p * change**2).sum() - (p * change).sum() ** 2)
    x = torch.full((1, 1, 1, 1), 0.5)
    found = local_lipschitz(x, x + 0.25, logits, logits + change, "kl")
    assert float(found) == pytest.approx(variance / 2 / 0.25, rel=1e-3, abs=0)


@pytest.mark.parametrize("form", LIPSCHITZ_FORMS)
def test_an_image_that_did_not_move_has_no_quotient(form):
    offset = torch.stack([torch.zeros(6), 0.1 * torch.ones(6)]).double()
    assert lipschitz_of_linear(offset, form).isnan().tolist() == [True, False]


def test_an_unknown_form_is_refused():
    x = torch.zeros(1, 1, 1, 1)
    with pytest.raises(InputError, match="l1_linf, kl, l2"):
        local_lipschitz(x, x, torch.zeros(1, 2), torch.zeros(1, 2), "l3")


# --- first-order stationary condition ---


def two_classes(linear):
    """The network, and the gradient of its cross-entropy by hand: (1 - p_y)(w_other - w_y)."""
    weight, bias = random(2, 6, seed=3), random(2, seed=4)

    def gradient(x, y):
        p = torch.softmax(x.double().flatten(1) @ weight.T + bias, dim=1)
        own = p.gather(1, y[:, None])
        return (1 - own) * (weight[1 - y] - weight[y])

    return linear(weight, bias, dtype=torch.float64), gradient


GREY = torch.full((3, 1, 2, 3), 0.5, dtype=torch.float64)
LABELS = torch.tensor([0, 1, 1])
DUAL = {"linf": lambda g: g.abs().sum(dim=1), "l2": lambda g: g.square().sum(dim=1).sqrt()}
UPHILL = {"linf": torch.sign, "l2": lambda g: g / g.square().sum(dim=1, keepdim=True).sqrt()}


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(("position", "factor"), [(1.0, 0.0), (0.0, 1.0), (-1.0, 2.0), (0.5, 0.5)])
def test_fosc_from_the_best_to_the_worst_point_of_the_ball(linear, norm, position, factor):
    net, gradient = two_classes(linear)
    direction = UPHILL[norm](gradient(GREY, LABELS))  # the same everywhere in the ball: two classes
    x_adv = GREY + position * 0.125 * direction.view_as(GREY)
    found = fosc(net, GREY, x_adv, LABELS, ThreatModel(norm, "0.125"))
    assert found.dtype == torch.float64
    expected = factor * 0.125 * DUAL[norm](gradient(x_adv, LABELS))
    assert found.numpy() == pytest.approx(expected.numpy(), rel=1e-9, abs=1e-15)


def test_fosc_of_a_confident_float32_network_is_not_rounded_away(linear):
    net = linear([[20.0], [0.0]])
    x = torch.ones(1, 1, 1, 1)
    found = fosc(net, x, x, torch.tensor([0]), ThreatModel("linf", "0.5"))
    # 1 - p_y = 1 / (1 + e^20) is 2e-9, and 1 - 2e-9 is 1 in float32
    assert float(found) == pytest.approx(0.5 * 20 / (1 + math.exp(20)), rel=1e-6, abs=0)


def test_fosc_of_an_example_does_not_depend_on_its_batch(linear):
    net, _ = two_classes(linear)
    x_adv, threat = GREY + 0.1 * random(*GREY.shape, seed=5), ThreatModel("linf", "0.5")
    parts = zip(GREY.split(1), x_adv.split(1), LABELS.split(1), strict=True)
    apart = torch.cat([fosc(net, x, moved, y, threat) for x, moved, y in parts])
    assert fosc(net, GREY, x_adv, LABELS, threat).numpy() == pytest.approx(apart.numpy(), rel=1e-12)


TINY = ArchSpec("wide_resnet", (1, 1, 1), (3, 3, 4), stem_width=2, dropout=0.3)


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.inference_mode])
def test_measuring_leaves_the_network_as_it_was(mode):
    net = build(TINY, 3, (1, 6, 6), seed=0).train()
    net.network.bn.eval()
    net.network.fc.weight.requires_grad_(False)
    modes = [module.training for module in net.modules()]
    trainable = [parameter.requires_grad for parameter in net.parameters()]
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    random_state = torch.get_rng_state()
    with mode():
        x, y = random(2, 1, 6, 6).float().sigmoid(), torch.tensor([0, 2])
        x_adv = (x + 0.1).clamp(max=1)
        values = fosc(net, x, x_adv, y, ThreatModel("linf", "0.1"))
        stage_changes(net, x, x_adv)
        upper_bounds(net, (1, 6, 6))
    assert bool((values > 0).all())
    assert [module.training for module in net.modules()] == modes
    assert [parameter.requires_grad for parameter in net.parameters()] == trainable
    assert all(parameter.grad is None for parameter in net.parameters())
    assert all(torch.equal(tensor, state[name]) for name, tensor in net.state_dict().items())
    assert not any(module._forward_hooks for module in net.modules())
    assert torch.equal(torch.get_rng_state(), random_state)


# --- the measured change of each stage ---


class Planted(StagedNetwork):
    """Stem times 3; a stage that takes the first channel, one that doubles it; the head sums over positions."""

    def __init__(self, first=1.0):
        super().__init__()
        self.stem = nn.Conv2d(2, 2, 1, bias=False)
        self.stages = nn.Sequential(nn.Conv2d(2, 1, 1, bias=False), nn.Sequential(nn.Conv2d(1, 1, 1, bias=False)))
        with torch.no_grad():
            self.stem.weight.copy_(3 * torch.eye(2).view(2, 2, 1, 1))
            self.stages[0].weight.copy_(torch.tensor([first, 0.0]).view(1, 2, 1, 1))
            self.stages[1][0].weight.fill_(2.0)

    def forward(self, x):
        return self.stages(self.stem(x)).sum(dim=(2, 3)) @ torch.tensor([[1.0, -1.0]])


def planted(first=1.0):
    return Classifier(Normalize([0.0, 0.0], [0.5, 0.5]), Planted(first))


def test_changes_of_a_planted_network():
    x = torch.full((3, 2, 1, 2), 0.5)
    x_adv = x.clone()
    x_adv[0, 0, 0, 0] += 0.25  # reaches the logits
    x_adv[1, 1] += 0.25  # ends in the first stage
    found = {change.name: (change.from_input, change.alone) for change in stage_changes(planted(), x, x_adv)}
    nan = math.nan
    expected = {
        "stem": ([6, 6, nan], [6, 6, nan]),  # standard deviation 1/2, then 3
        "stage 1": ([6, 0, nan], [1, 0, nan]),
        "stage 2": ([12, 0, nan], [2, nan, nan]),  # nothing of the second image's change enters it
        "logits": ([12 * 2**0.5, 0, nan], [2**0.5, nan, nan]),
    }
    assert list(found) == list(expected)
    for name, (from_input, alone) in expected.items():
        assert found[name][0].dtype == found[name][1].dtype == torch.float64
        assert found[name][0].tolist() == pytest.approx(from_input, nan_ok=True), name
        assert found[name][1].tolist() == pytest.approx(alone, nan_ok=True), name


def test_features_that_are_not_finite_are_no_missing_value():
    net = planted(first=math.inf)
    with pytest.raises(FloatingPointError, match="stage 1"):
        stage_changes(net, torch.full((1, 2, 1, 2), 0.5), torch.full((1, 2, 1, 2), 0.75))
    assert not any(module._forward_hooks for module in net.modules())


# --- upper bounds ---

SPECS = [
    ArchSpec("wide_resnet", (1, 1, 1), (3, 3, 3), stem_width=3),  # equal widths: shortcuts of raw x at stride 2
    ArchSpec("wide_resnet", (2, 1, 2), (4, 6, 3), stem_width=2, activation="softplus"),
    ArchSpec("wide_resnet", (1, 2, 1), (3, 4, 4), stem_width=3, activation="silu"),
    ArchSpec("wide_resnet", (1, 1, 1), (3, 4, 2), stem_width=2, activation="gelu", dropout=0.5),
    ArchSpec("wide_resnet", (1, 1, 1), (3, 3, 2), stem_width=2, activation="psilu", options={"padding": "same"}),
    ArchSpec(
        "wide_resnet", (1, 1, 1), (1, 2, 1), activation="prelu", options={"padding": "same", "block": "bottleneck"}
    ),
    ArchSpec("resnet", (1, 1, 1, 1), (3, 3, 4, 4), stem_width=3),
    ArchSpec("resnet", (2, 1, 1, 1), (3, 4, 4, 3), stem_width=2, activation="silu"),
]
SHAPE = (1, 6, 6)


def randomised(spec, seed):
    """A float64 network in evaluation mode whose BatchNorm has statistics and parameters of its own."""
    net = build(spec, 3, SHAPE, mean=[0.4], std=[0.3], seed=seed).double().eval()
    generator = torch.Generator().manual_seed(seed)
    for bn in (module for module in net.modules() if isinstance(module, nn.BatchNorm2d)):
        for tensor in (bn.weight.data, bn.bias.data, bn.running_mean):
            tensor.copy_(torch.randn(tensor.shape, generator=generator))
        bn.running_var.copy_(0.3 + torch.rand(bn.running_var.shape, generator=generator))
    return net


def singular_value(function, x):
    return float(torch.linalg.svdvals(jacobian_of(function, x).reshape(-1, x.numel()))[0])


def entering(net, x):
    """What enters each stage."""
    kept = []
    with hooked(net.network.stages, lambda _, args, output: kept.append(args[0].detach())):
        net(x)
    return kept


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.family}-{spec.widths}-{spec.activation}")
def test_bounds_are_above_the_true_jacobians_of_stages_and_network(spec):
    net = randomised(spec, 0)
    bounds = upper_bounds(net, SHAPE)
    stages = {f"stage {i}": stage for i, stage in enumerate(net.network.stages, start=1)}
    assert set(bounds["stages"]) == {"stem", *stages, "head"}
    for point in random(3, 1, *SHAPE).sigmoid():
        assert singular_value(net, point) <= bounds["network"]
        for (name, stage), features in zip(stages.items(), entering(net, point), strict=True):
            assert singular_value(stage, features) <= bounds["stages"][name], name


def test_the_network_bound_is_the_product_and_all_is_plain_json():
    net = randomised(SPECS[1], 0)
    bounds = upper_bounds(net, SHAPE)
    assert bounds["network"] == pytest.approx(math.prod(bounds["stages"].values()))
    assert json.loads(json.dumps(bounds)) == bounds
    assert {key.rsplit(".", 1)[0] for key in net.state_dict()} <= {layer["name"] for layer in bounds["layers"]}
    assert all(layer["converged"] for layer in bounds["layers"])


def test_scaling_a_layer_scales_its_stage_alone():
    net = randomised(SPECS[0], 0)
    before = upper_bounds(net, SHAPE)
    with torch.no_grad():
        net.network.fc.weight.mul_(2)
        net.network.stem.weight.mul_(-3)
        net.normalize.std.div_(5)
    after = upper_bounds(net, SHAPE)
    factors = {name: after["stages"][name] / before["stages"][name] for name in before["stages"]}
    assert factors == pytest.approx({"stem": 15, "stage 1": 1, "stage 2": 1, "stage 3": 1, "head": 2}, rel=1e-6)
    assert after["network"] == pytest.approx(30 * before["network"], rel=1e-6)


BLOCK = {"bn1": 2.0, "conv1": 3.0, "bn2": 5.0, "conv2": 7.0}


def bounds_by_hand(spec, values):
    """The bounds where layers have these norms by the end of their name, and the rest has 1."""
    network = build(spec, 3, SHAPE).network
    names = {module: name for name, module in network.named_modules()}
    return network.lipschitz_bounds(
        lambda layer: next((value for key, value in values.items() if names[layer].endswith(key)), 1.0)
    )


def test_composition_of_a_wide_resnet_by_hand():
    spec = ArchSpec("wide_resnet", (2, 1, 1), (3, 3, 4), stem_width=3)
    found = bounds_by_hand(spec, {**BLOCK, "shortcut": 11.0, "stem": 13.0, "bn": 17.0, "pool": 19.0, "fc": 23.0})
    assert found == {
        "stem": 13,
        # the first blocks' shortcuts are the identity, but for this norm function, which gives every shortcut 11
        "stage 1": (11 + 2 * 3 * 5 * 7) ** 2,
        "stage 2": 11 + 2 * 3 * 5 * 7,  # stride 2 alone: the projection starts from raw x
        "stage 3": 2 * (11 + 3 * 5 * 7),  # another width: the projection starts behind the BatchNorm
        "head": 17 * 19 * 23,
    }


def test_composition_of_a_resnet_by_hand():
    spec = ArchSpec("resnet", (2, 1, 1, 1), (3, 3, 4, 4), stem_width=3)
    values = {**BLOCK, "shortcut.0": 11.0, "shortcut.1": 29.0, "stem": 13.0, "bn": 17.0, "pool": 19.0, "fc": 23.0}
    branch = 2 * 3 * 5 * 7
    assert bounds_by_hand(spec, values) == {
        "stem": 13 * 17,  # with its BatchNorm, up to what enters the first stage
        "stage 1": (branch + 1) ** 2,
        "stage 2": branch + 11 * 29,
        "stage 3": branch + 11 * 29,
        "stage 4": branch + 11 * 29,
        "head": 19 * 23,
    }


def test_activations_count_once_where_they_stand():
    slope = 1.099839320128867  # of silu
    wide = bounds_by_hand(ArchSpec("wide_resnet", (1, 1, 1), (3, 3, 4), stem_width=3, activation="silu"), {})
    once, twice = slope, slope**2
    expected = {"stem": 1, "stage 1": 1 + twice, "stage 2": 1 + twice, "stage 3": once + twice, "head": once}
    assert wide == pytest.approx(expected)
    post = bounds_by_hand(ArchSpec("resnet", (1, 1, 1, 1), (3, 3, 4, 4), stem_width=3, activation="silu"), {})
    stages = {f"stage {i}": once * (once + 1) for i in range(1, 5)}
    assert post == pytest.approx({"stem": once, **stages, "head": 1})


# --- both together, under an attack ---


def examples(n=12):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 17, (n, *SHAPE), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 3, (n,), generator=generator)
    return Examples(ImageSet(images, labels, 3, max_value=16), torch.arange(n))


def trained(spec, steps):
    """A float32 network after some steps of SGD: BatchNorm has statistics and the weights are no longer random."""
    net = build(spec, 3, SHAPE, seed=0).train()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    ((_, x, y, _),) = examples().batches(12, CPU)
    torch.manual_seed(0)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    return net.eval()


def smoothness(net, attack=PGD5, batch_size=5):
    threat = ThreatModel("linf", "0.2")
    return stage_smoothness(net, examples(), attack, threat, device=CPU, batch_size=batch_size, seed=0)


@pytest.mark.parametrize(("steps", "spec"), [(30, spec) for spec in SPECS] + [(0, SPECS[0]), (0, SPECS[-1])])
def test_what_is_measured_stays_below_the_bound(steps, spec):
    found = smoothness(trained(spec, steps))
    assert (found["n"], found["left_out"]) == (12, 0)
    names = [stage["name"] for stage in found["stages"]]
    assert names == ["stem", *(f"stage {i}" for i in range(1, len(spec.depths) + 1)), "logits"]
    for stage in found["stages"]:
        assert 0 < stage["alone"] <= stage["alone_max"] <= stage["bound"] * (1 + 1e-6)
    assert found["stages"][-1]["from_input"] <= found["bounds"]["network"]
    assert found["stages"][-1]["bound"] == found["bounds"]["stages"]["head"]
    assert json.loads(json.dumps(found)) == found


def test_numbers_are_those_of_the_examples_whatever_the_batches():
    net = trained(SPECS[1], 0)
    found, again = smoothness(net, batch_size=12), smoothness(net, batch_size=5)
    ((_, x, y, index),) = examples().batches(12, CPU)
    x_adv = PGD5(net, x, y, ThreatModel("linf", "0.2"), seed=0, index=index)
    for stage, other, change in zip(found["stages"], again["stages"], stage_changes(net, x, x_adv), strict=True):
        assert stage["from_input"] == pytest.approx(float(change.from_input.mean()))
        assert stage["alone"] == pytest.approx(float(change.alone.mean()))
        assert stage["alone_max"] == pytest.approx(float(change.alone.max()))
        assert stage["alone_n"] == 12
        assert other.pop("name") == stage.pop("name")
        assert other == pytest.approx(stage, rel=1e-4)


class Moves(Attack):
    """Moves the images at positions below `count`."""

    def __init__(self, count):
        self.count = count

    def run(self, net, x, y, threat, seed, index):
        return torch.where((index < self.count).view(-1, 1, 1, 1), 0.9 * x + 0.05, x)


def test_images_that_did_not_move_are_left_out_and_counted():
    net = trained(SPECS[0], 0)
    found = smoothness(net, Moves(7))
    assert (found["n"], found["left_out"]) == (7, 5)
    assert all(stage["alone_n"] == 7 and math.isfinite(stage["alone"]) for stage in found["stages"])
    nothing = smoothness(net, Moves(0))
    assert (nothing["n"], nothing["left_out"]) == (0, 12)
    for stage in nothing["stages"]:
        assert (stage["from_input"], stage["alone"], stage["alone_max"], stage["alone_n"]) == (None, None, None, 0)
        assert stage["bound"] > 0
    assert json.loads(json.dumps(nothing)) == nothing
