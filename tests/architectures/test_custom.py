"""Networks of the user's own: their cost against closed forms, their attacks against plain autograd."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from robust_arch.architectures import (
    PRESETS,
    ArchSpec,
    CustomArch,
    activation_bytes,
    arch_name,
    build,
    cost,
    named_spec,
)
from robust_arch.common.identity import describe
from robust_arch.engine import AttackableNetwork
from robust_arch.errors import InputError

SHAPE = (3, 8, 8)


class Small(nn.Module):
    """Convolution, BatchNorm, dropout, and a linear layer that sizes itself."""

    def __init__(self, width: int = 4, num_classes: int = 5) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU(inplace=True), nn.Dropout(0.5))
        self.body.append(nn.Conv2d(width, width, 3, groups=2, bias=False)).append(nn.BatchNorm2d(width))
        self.fc = nn.LazyLinear(num_classes)

    def forward(self, x):
        return self.fc(self.body(x).flatten(1))


class Viewed(Small):
    """Its `view` raises for channels last."""

    def forward(self, x):
        x = self.body(x)
        return self.fc(x.view(x.shape[0], -1))


class OverwritesItsInput(Small):
    stages = 3  # no stages of a family

    def forward(self, x):
        return super().forward(x.mul_(2).sub_(1))


class Scaled(Small):
    """Reads a parameter directly, and is reparametrised."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(3.0))
        self.body[4] = parametrizations.weight_norm(self.body[4])

    def forward(self, x):
        return self.scale * super().forward(x)


class Branching(Small):
    """Cannot be traced: it looks at its images."""

    def forward(self, x):
        return super().forward(x if x.mean() > 0.5 else 1 - x)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, stride=4)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.fc = nn.Linear(16, 5)

    def forward(self, x):
        return self.fc(self.layer(self.patches(x).flatten(2).transpose(1, 2)).mean(1))


class Pair(Small):
    def forward(self, x):
        return super().forward(x), x


class PairInTraining(Small):
    def forward(self, x):
        logits = super().forward(x)
        return (logits, logits) if self.training else logits


def of_a_family(preset):
    return build(PRESETS[preset], 5, (3, 32, 32)).network


def no_module():
    return len


def raises():
    raise OSError("no such\nweights")


def own(target, **arguments):
    return CustomArch(f"{__name__}.{getattr(target, '__name__', target)}", arguments)


def test_cost_by_hand():
    # 3 x 3 convolutions without padding: 8x8 to 6x6 to 4x4; two groups halve the second; the head reads 4 x 16 numbers
    convolutions, head = (4 * 27, 4 * 2 * 9), 64 * 5
    found = cost(own(Small), 5, SHAPE)
    assert found.params == sum(convolutions) + 4 + 2 * (4 + 4) + head + 5
    assert found.macs == 36 * convolutions[0] + 16 * convolutions[1] + head
    assert found.shares() == ()
    assert activation_bytes(own(Small), SHAPE) is None


def test_attention_is_counted():
    patches, n, d = 4 * 16 * 48, 4, 16
    # queries, keys and values; scores and their use; the projection; two layers of 32; the head
    layer = 3 * n * d * d + 2 * n * n * d + n * d * d + 2 * n * d * 32
    assert cost(own(Attention), 5, SHAPE).macs == patches + layer + d * 5


@pytest.mark.parametrize("preset", ["wrn_16_1", "resnet18", "vgg11"])
def test_counting_agrees_with_the_closed_form_of_the_families(preset):
    expected = cost(PRESETS[preset], 5, (3, 32, 32))
    found = cost(own(of_a_family, preset=preset), 5, (3, 32, 32))
    assert (found.params, found.macs) == (expected.params, expected.macs)


def test_groups_with_a_target_are_built_first():
    layers = [
        {"_target_": "torch.nn.Flatten"},
        {"_target_": "torch.nn.Linear", "in_features": 192, "out_features": 5, "bias": False},
    ]
    assert cost(CustomArch("torch.nn.Sequential", {"_args_": layers}), 5, SHAPE).params == 192 * 5


def test_the_seed_decides_the_weights_and_leaves_the_global_state():
    state = torch.get_rng_state()
    one, same, other = (build(own(Small), 5, SHAPE, seed=seed).state_dict() for seed in (1, 1, 2))
    cost(own(Small, width=6), 5, SHAPE)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not torch.equal(one["network.fc.weight"], other["network.fc.weight"])


def test_name_and_identity():
    spec = CustomArch("mine.Net", {"width": 32, "blocks": [1, 2], "norm": None, "kind": "a b"})
    assert spec == CustomArch.from_dict(spec.to_dict())
    assert CustomArch("mine.Net", {"widths": (1, 2)}).to_dict() == {"_target_": "mine.Net", "widths": [1, 2]}
    assert arch_name(CustomArch("mine.Net", {"width": 32, "blocks": [1, 2]})) == "mine.Net-blocks=[1,2]-width=32"
    assert arch_name(spec).startswith("mine.Net-")
    assert arch_name(spec) != arch_name(CustomArch("mine.Net", {**spec.arguments, "kind": "a c"}))
    assert describe(spec) != describe(CustomArch("other.Net", spec.arguments))
    assert spec.words == ("arch._target_=mine.Net arch.width=32 'arch.blocks=[1,2]' arch.norm=null 'arch.kind=\"a b\"'")
    # text that Hydra would read as a number
    assert CustomArch("mine.Net", {"norm": "inf"}).words == "arch._target_=mine.Net 'arch.norm=\"inf\"'"
    with pytest.raises(InputError):
        named_spec(spec.name)
    assert spec.family == "custom"
    assert not any(isinstance(preset, CustomArch) for preset in PRESETS.values())


@pytest.mark.parametrize("target", ["Net", "", "a b.Net", "os;.x", ".Net", None, 3])
def test_a_target_is_a_full_name(target):
    with pytest.raises(InputError, match=r"arch\._target_ = .*my_package\.MyNet"):
        CustomArch(target)


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, torch.zeros(2), [[[]] * 9] * 2000])
def test_arguments_are_plain_data(value):
    with pytest.raises(InputError, match=r"arch = .*plain data"):
        CustomArch("mine.Net", {"value": value})


WRONG = {
    "a pair": (own(Pair), SHAPE, "logits alone; in evaluation mode it returns tuple"),
    "a pair in training": (own(PairInTraining), SHAPE, "in training mode it returns tuple"),
    "other classes": (own(Small, num_classes=7), SHAPE, r"shape \(1, 5\).*returns \(1, 7\).*arch\.num_classes=5"),
    "other channels": (own(Small), (1, 8, 8), r"images of shape \(1, 1, 8, 8\).*RuntimeError.*3 channels"),
    "no module": (own(no_module), SHAPE, "a torch.nn.Module; it returns builtin_function"),
    "its own error": (own(raises), SHAPE, "cannot be built: OSError: no such weights"),
    "no such module": (CustomArch("no_such_package.Net"), SHAPE, "No module named 'no_such_package'"),
    "no such name": (own("Absent"), SHAPE, "Absent"),
    "unknown argument": (own(Small, widht=3), SHAPE, "unexpected keyword argument 'widht'"),
    "nothing to train": (CustomArch("torch.nn.Flatten"), (5, 1, 1), "0 trainable parameters"),
}


@pytest.mark.parametrize(("spec", "shape", "message"), WRONG.values(), ids=WRONG)
def test_what_is_no_classifier_of_these_images_is_refused(spec, shape, message):
    with pytest.raises(InputError, match=message) as raised:
        cost(spec, 5, shape)
    assert spec.target in str(raised.value)
    assert "\n" not in str(raised.value)


NETWORKS = {
    "BatchNorm and dropout": (Small, True),
    "view": (Viewed, True),
    "input in place": (OverwritesItsInput, False),
    "parameter and reparametrisation": (Scaled, False),
    "branch": (Branching, False),
    "attention": (Attention, False),
}


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format], ids=["last", "first"])
@pytest.mark.parametrize(("network", "folds"), NETWORKS.values(), ids=NETWORKS)
def test_attacks_see_the_gradient_of_plain_autograd(network, folds, layout):
    net = build(own(network), 5, SHAPE, seed=0).train()
    net.to(memory_format=net.layout)
    x, y = torch.rand(12, *SHAPE).to(memory_format=layout), torch.arange(12) % 5
    net(x)  # statistics of BatchNorm that are no identity
    plain, before = copy.deepcopy(net).eval(), x.clone()
    attackable = AttackableNetwork(net)

    def gradient(form):
        images = before.clone().requires_grad_(True)
        loss = F.cross_entropy(form(images), y, reduction="sum")
        return torch.autograd.grad(loss, images)[0]

    attacked = attackable.attacked(x)
    assert torch.equal(x, before)
    assert (attacked is not net) == folds
    expected, found = gradient(plain), gradient(attacked.eval())
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max() > 0


def test_a_family_is_built_as_before():
    net = build(ArchSpec("wide_resnet", (1, 1, 1), (4, 4, 4)), seed=0)
    assert net.layout == torch.channels_last


def test_a_timm_model_by_name():
    timm = pytest.importorskip("timm")
    arguments = {"model_name": "resnet18", "num_classes": 5, "in_chans": 3}
    spec = CustomArch("timm.create_model", arguments)
    model = timm.create_model(**arguments)
    found = cost(spec, 5, (3, 32, 32))
    assert found.params == sum(parameter.numel() for parameter in model.parameters())
    # the 7x7 stem with stride 2 and max pooling leave 8x8; 3x3 convolutions in four stages of two blocks, 1x1 shortcuts
    stages = [64 * 4 * 9 * 64 * 64]
    for pixels, width in ((16, 128), (4, 256), (1, 512)):
        stages.append(pixels * (width // 2 * width * (9 + 1) + 3 * 9 * width * width))
    assert found.macs == 256 * 49 * 3 * 64 + sum(stages) + 512 * 5
