"""Networks of cells against a second implementation, written here from the paper's description, and published costs."""

import math

import pytest
import torch
from networks import counted_spec, random_images, randomised
from torch import nn
from torch.nn import functional as F

from robust_arch.architectures import PRESETS, ArchSpec, build, cost
from robust_arch.architectures.families.darts import NORMAL, REDUCE
from robust_arch.attacks import PGD, ThreatModel
from robust_arch.data.augment import CropFlip
from robust_arch.errors import InputError
from robust_arch.objectives import Loss
from robust_arch.training.module import AdversarialTraining
from robust_arch.training.recipe import Recipe

BASE = {"family": "darts", "depths": (2, 3, 1), "widths": (4, 6, 5), "stem_width": 8}
OTHER = {
    "normal": ["sep_conv_5x5:1", "avg_pool_3x3:1", "dil_conv_5x5:2", "sep_conv_7x7:1"],  # the first input is not read
    "reduce": [
        "dil_conv_3x3:0",
        "avg_pool_3x3:1",
        "skip_connect:0",
        "max_pool_3x3:2",
        "skip_connect:1",
        "skip_connect:3",
    ],
}


class Reader:
    """The layers of a network one after the other, as a forward pass in the published order calls them."""

    def __init__(self, net):
        self.state = {name: tensor for name, tensor in net.state_dict().items() if "num_batches" not in name}
        self.names = list(self.state)

    def take(self):
        return self.state[self.names.pop(0)]

    def norm(self, x):
        weight, bias, mean, var = (self.take() for _ in range(4))
        return F.batch_norm(x, mean, var, weight, bias)

    def act_conv_norm(self, x):
        return self.norm(F.conv2d(x.clamp(min=0), self.take()))

    def factorized_reduce(self, x):
        x = x.clamp(min=0)
        first, second = self.take(), self.take()
        return self.norm(torch.cat([F.conv2d(x, first, stride=2), F.conv2d(x[:, :, 1:, 1:], second, stride=2)], dim=1))

    def separable(self, x, size, stride, dilation):
        x = F.conv2d(x.clamp(min=0), self.take(), None, stride, dilation * (size // 2), dilation, groups=x.shape[1])
        return self.norm(F.conv2d(x, self.take()))

    def operation(self, name, x, stride):
        if name == "max_pool_3x3":
            return F.max_pool2d(x, 3, stride, 1)
        if name == "avg_pool_3x3":
            return F.avg_pool2d(x, 3, stride, 1, count_include_pad=False)
        if name == "skip_connect":
            return x if stride == 1 else self.factorized_reduce(x)
        size = int(name[-1])
        if name.startswith("dil_conv"):
            return self.separable(x, size, stride, 2)
        return self.separable(self.separable(x, size, stride, 1), size, 1, 1)

    def cell(self, edges, before, x, reduces, was_reduced):
        edges = [(edge.split(":")[0], int(edge.split(":")[1])) for edge in edges]
        states = [None, None]
        if any(number == 0 for _, number in edges):
            states[0] = self.factorized_reduce(before) if was_reduced else self.act_conv_norm(before)
        states[1] = self.act_conv_norm(x)
        for i in range(0, len(edges), 2):
            outs = []
            for name, number in edges[i : i + 2]:
                outs.append(self.operation(name, states[number], 2 if reduces and number < 2 else 1))
            states.append(outs[0] + outs[1])
        return torch.cat(states[2:], dim=1)


def reference_logits(net, spec, x):
    options = {"normal": NORMAL, "reduce": REDUCE, **dict(spec.options)}
    reader = Reader(net.network)
    before = x = reader.norm(F.conv2d(x, reader.take(), padding=1))
    was_reduced = False
    for stage, depth in enumerate(spec.depths):
        for i in range(depth):
            reduces = stage > 0 and i == 0
            edges = options["reduce" if reduces else "normal"]
            before, x = x, reader.cell(edges, before, x, reduces, was_reduced)
            was_reduced = reduces
    return F.linear(x.mean((2, 3)), reader.take(), reader.take())


SPECS = [ArchSpec(**BASE), ArchSpec(**BASE, options=OTHER), ArchSpec(**{**BASE, "depths": (1, 1, 2)})]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.depths}-{len(spec.options)}")
def test_logits_equal_a_second_implementation(spec):
    net = randomised(build(spec, 5, (3, 16, 16), seed=0))
    x = random_images(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(net(x), reference_logits(net, spec, x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.depths}-{len(spec.options)}")
def test_the_closed_form_is_what_torch_counts(spec):
    found = cost(spec, 7, (2, 17, 20))
    assert (found.params, found.macs) == counted_spec(spec, 7, (2, 17, 20))


@pytest.mark.parametrize(
    ("name", "task", "millions"), [("darts", (10,), 3.349), ("darts_imagenet", (1000, (3, 224, 224)), 4.719)]
)
def test_presets_have_the_published_parameters(name, task, millions):
    # from the README of the code of Liu et al. 2019
    assert round(cost(PRESETS[name], *task).params / 1e6, 3) == millions


def test_the_stem_for_imagenet_by_hand():
    # of 4 channels, on 1x17x17 images: convolutions 1 to 2 at 9x9, 2 to 4 at 5x5, 4 to 4 at 3x3; BN 4, 8 and 8
    large, small = (
        cost(ArchSpec("darts", (1, 1, 1), (4, 4, 4), stem_width=4, options=options), 2, (1, side, side))
        for options, side in (({"stem": "imagenet"}, 17), ({}, 3))
    )
    assert large.params - small.params == (18 + 72 + 144 + 20) - (36 + 8)
    # the first cell reads its first input at twice the size, but convolves every other position
    assert large.macs - small.macs == 18 * 81 + 72 * 25 + 144 * 9 - 36 * 9


@pytest.mark.parametrize(("stem", "least"), [("cifar", 17), ("imagenet", 129)])
def test_the_auxiliary_head_needs_five_positions_per_side(stem, least):
    spec = ArchSpec("darts", (1, 1, 1), (1, 1, 1), stem_width=2, options={"stem": stem, "auxiliary": True})
    net = build(spec, 3, (1, least, least), seed=0).train()
    assert net(torch.rand(2, 1, least, least)).shape == (2, 3)
    with pytest.raises(InputError, match=rf"expected at least {least} pixels per side"):
        cost(spec, 3, (1, least - 1, least))


def test_the_auxiliary_head_counts_and_acts_in_training_only():
    spec = ArchSpec(**BASE, options={"auxiliary": True})
    found, without = cost(spec, 7, (3, 32, 32)), cost(ArchSpec(**BASE), 7, (3, 32, 32))
    # it reads the first cell of the last stage, 4 nodes of 5 channels: 20 x 128, 4 x 128 x 768, BatchNorm, 768 x 7 + 7
    assert found.params - without.params == 20 * 128 + 256 + 4 * 128 * 768 + 2 * 768 + 768 * 7 + 7
    assert found.macs == without.macs
    net = build(spec, 7, (3, 32, 32), seed=0)
    x = random_images(4, 3, 32, 32).float()
    net.eval()(x)
    assert net.network.take_auxiliary_logits() is None
    net.train()(x)
    assert net.network.take_auxiliary_logits().shape == (4, 7)
    assert net.network.take_auxiliary_logits() is None
    with pytest.raises(InputError, match=r"image_shape = \(3, 16, 32\): expected at least 17 pixels per side"):
        build(spec, 7, (3, 16, 32))


class Zero:
    """An objective whose loss is 0, so that only the auxiliary loss remains."""

    def __call__(self, net, x, y, threat, seed, index):
        logits = net(x)
        return Loss(0 * logits.sum(), logits)


def test_training_adds_the_auxiliary_loss():
    net = build(ArchSpec(**BASE, options={"auxiliary": True}), 7, (3, 32, 32), seed=0).train()
    recipe = Recipe(
        name="test",
        epochs=1,
        batch_size=4,
        optimizer=torch.optim.SGD,
        schedule=lambda epoch, epochs: 1.0,
        augment=CropFlip(padding=0, flip=False),
    )
    task = {"epochs": 1, "steps_per_epoch": 1, "max_value": 255, "seed": 0}
    attack = PGD(steps=1, rel_step_size=1.0)
    module = AdversarialTraining(net, Zero(), ThreatModel("linf", 0.1), recipe, attack, **task)
    batch = torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8), torch.tensor([0, 1, 2, 3]), torch.arange(4)
    module.training_step(batch, 0).backward()
    last = net.network.auxiliary.layers[-1]
    assert last.weight.grad.abs().sum() > 0
    with torch.no_grad():
        last.weight.zero_()
        last.bias.zero_()
    # equal logits of 7 classes, weight 0.4 (Liu et al. 2019)
    assert module.training_step(batch, 0).item() == pytest.approx(0.4 * math.log(7))


def test_drop_path_leaves_operations_out_in_training():
    net = build(ArchSpec(**BASE, dropout=0.5), 7, (3, 16, 16), seed=0)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.track_running_stats, module.running_mean, module.running_var = False, None, None
    x = random_images(4, 3, 16, 16).float()
    assert not torch.equal(net.train()(x), net(x))
    assert torch.equal(net.eval()(x), net(x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"normal": ["sep_conv_3x3:1"]}, r"arch\.options\.normal = \('sep_conv_3x3:1',\): expected pairs of edges"),
        (
            {"normal": ["conv_9x9:1", "skip_connect:0"]},
            r"arch\.options\.normal = 'conv_9x9:1': expected an operation of",
        ),
        (
            {"reduce": ["skip_connect:1", "skip_connect:2"]},
            r"arch\.options\.reduce = 'skip_connect:2': expected pairs of edges",
        ),
        (
            {"reduce": ["skip_connect:0", "skip_connect:0"]},
            r"arch\.options\.reduce = .*: expected a cell that reads input 1",
        ),
        ({"auxiliary": "yes"}, r"arch\.options\.auxiliary = 'yes': expected true or false"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(InputError, match=message):
        ArchSpec(**BASE, options=options)
