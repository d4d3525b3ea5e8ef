"""Weights of the field's other implementations, written here a second time or taken from torchvision and timm.

Every network has its implementation's own names, none of whose weights is 0 or 1; the logits must agree.
"""

import pytest
import torch
from second_networks import randomised
from torch import nn
from torch.nn import functional as F
from torchvision import models
from torchvision.models.vgg import make_layers
from torchvision.ops import SqueezeExcitation

from robust_arch.architectures import ArchSpec, build
from robust_arch.architectures.families.darts import NORMAL, REDUCE
from robust_arch.errors import InputError
from robust_arch.interop import load_published
from robust_arch.interop.published import published_state


class GowalBlock(nn.Module):
    """WideResNet block of Gowal et al. 2020, which pads a stride of 2 at the end only; RaWRN's with an SE layer."""

    def __init__(self, c_in, c_out, stride, se_ratio):
        super().__init__()
        self.batchnorm_0 = nn.BatchNorm2d(c_in)
        self.conv_0 = nn.Conv2d(c_in, c_out, 3, stride, bias=False)
        self.batchnorm_1 = nn.BatchNorm2d(c_out)
        self.conv_1 = nn.Conv2d(c_out, c_out, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(c_in, c_out, 1, stride, bias=False) if c_in != c_out else None
        self.se = SqueezeExcitation(c_out, round(se_ratio * c_out)) if se_ratio else nn.Identity()
        self.padding = (1, 1, 1, 1) if stride == 1 else (0, 1, 0, 1)

    def forward(self, x):
        activated = F.silu(self.batchnorm_0(x))
        out = self.conv_0(F.pad(activated, self.padding))
        out = self.se(self.conv_1(F.silu(self.batchnorm_1(out))))
        return out + (x if self.shortcut is None else self.shortcut(activated))


class Group(nn.Module):
    def __init__(self, depth, c_in, c_out, stride, se_ratio):
        super().__init__()
        blocks = [GowalBlock(c_out if i else c_in, c_out, 1 if i else stride, se_ratio) for i in range(depth)]
        self.block = nn.Sequential(*blocks)

    def forward(self, x):
        return self.block(x)


class Gowal(nn.Module):
    def __init__(self, spec, se_ratio):
        super().__init__()
        c = (spec.stem_width, *spec.widths)
        self.init_conv = nn.Conv2d(3, c[0], 3, padding=1, bias=False)
        self.layer = nn.Sequential(
            *[Group(spec.depths[i], c[i], c[i + 1], 1 if i == 0 else 2, se_ratio) for i in range(3)]
        )
        self.batchnorm = nn.BatchNorm2d(c[3])
        self.logits = nn.Linear(c[3], 7)

    def forward(self, x):
        x = F.silu(self.batchnorm(self.layer(self.init_conv(x))))
        return self.logits(F.avg_pool2d(x, x.shape[-2:]).flatten(1))


class PreActBlock(nn.Module):
    """Of the code of Wong et al. 2020 and Rice et al. 2020."""

    def __init__(self, c_in, c_out, stride):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(c_in)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1, bias=False)
        if stride != 1 or c_in != c_out:
            self.shortcut = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False))

    def forward(self, x):
        out = F.relu(self.bn1(x))
        shortcut = self.shortcut(out) if hasattr(self, "shortcut") else x
        return self.conv2(F.relu(self.bn2(self.conv1(out)))) + shortcut


class PostActBlock(nn.Module):
    """Of kuangliu/pytorch-cifar."""

    def __init__(self, c_in, c_out, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.shortcut = nn.Sequential()
        if stride != 1 or c_in != c_out:
            self.shortcut = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))

    def forward(self, x):
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + self.shortcut(x))


class FourLayers(nn.Module):
    """ResNet or PreActResNet for CIFAR-10 around these blocks."""

    def __init__(self, spec, block):
        super().__init__()
        self.is_pre = block is PreActBlock
        c = (spec.stem_width, *spec.widths)
        self.conv1 = nn.Conv2d(3, c[0], 3, padding=1, bias=False)
        if not self.is_pre:
            self.bn1 = nn.BatchNorm2d(c[0])
        for i, depth in enumerate(spec.depths):
            first = block(c[i], c[i + 1], 1 if i == 0 else 2)
            rest = (block(c[i + 1], c[i + 1], 1) for _ in range(depth - 1))
            setattr(self, f"layer{i + 1}", nn.Sequential(first, *rest))
        if self.is_pre:
            self.bn = nn.BatchNorm2d(c[4])
        self.linear = nn.Linear(c[4], 7)

    def forward(self, x):
        x = self.conv1(x) if self.is_pre else F.relu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        x = F.relu(self.bn(x)) if self.is_pre else x
        return self.linear(F.avg_pool2d(x, x.shape[-2:]).flatten(1))


def three_by_three_torchvision(spec):
    """Torchvision's ResNet as it is usually changed for CIFAR: a 3x3 stem and no pooling after it."""
    net = models.ResNet(models.resnet.BasicBlock, list(spec.depths), num_classes=7)
    net.conv1, net.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    return net


class VGG(nn.Module):
    """Torchvision's features with the one linear layer of pytorch-cifar."""

    def __init__(self, spec):
        super().__init__()
        plan = [part for depth, width in zip(spec.depths, spec.widths, strict=True) for part in [width] * depth + ["M"]]
        self.features = make_layers(plan, batch_norm=True)
        self.classifier = nn.Linear(spec.widths[-1], 7)

    def forward(self, x):
        return self.classifier(self.features(x).flatten(1))


def densenet(spec):
    depths = tuple(spec.depths)
    net = models.DenseNet(spec.widths[0], depths, spec.stem_width, num_classes=7)
    if not spec.options:
        net.features.conv0 = nn.Conv2d(3, spec.stem_width, 3, padding=1, bias=False)
        for name in ("norm0", "relu0", "pool0"):
            delattr(net.features, name)
    return net


class ReLUConvBN(nn.Module):
    """Of the code of DARTS, like the three below; an operation is `op` where it is a sequence."""

    def __init__(self, c_in, c_out):
        super().__init__()
        self.op = nn.Sequential(nn.ReLU(), nn.Conv2d(c_in, c_out, 1, bias=False), nn.BatchNorm2d(c_out))

    def forward(self, x):
        return self.op(x)


class FactorizedReduce(nn.Module):
    def __init__(self, c_in, c_out):
        super().__init__()
        self.conv_1 = nn.Conv2d(c_in, c_out // 2, 1, 2, bias=False)
        self.conv_2 = nn.Conv2d(c_in, c_out // 2, 1, 2, bias=False)
        self.bn = nn.BatchNorm2d(c_out)

    def forward(self, x):
        x = F.relu(x)
        return self.bn(torch.cat([self.conv_1(x), self.conv_2(x[:, :, 1:, 1:])], 1))


class Convolutions(nn.Module):
    """SepConv, or with dilation 2 DilConv."""

    def __init__(self, c, stride, dilation):
        super().__init__()
        layers = []
        for step in [stride] if dilation == 2 else [stride, 1]:
            depthwise = nn.Conv2d(c, c, 3, step, dilation, dilation, groups=c, bias=False)
            layers += [nn.ReLU(), depthwise, nn.Conv2d(c, c, 1, bias=False), nn.BatchNorm2d(c)]
        self.op = nn.Sequential(*layers)

    def forward(self, x):
        return self.op(x)


OPERATIONS = {
    "max_pool_3x3": lambda c, stride: nn.MaxPool2d(3, stride, 1),
    "skip_connect": lambda c, stride: nn.Identity() if stride == 1 else FactorizedReduce(c, c),
    "sep_conv_3x3": lambda c, stride: Convolutions(c, stride, 1),
    "dil_conv_3x3": lambda c, stride: Convolutions(c, stride, 2),
}


class Cell(nn.Module):
    def __init__(self, edges, c_before, c_in, c, reduces, was_reduced):
        super().__init__()
        self.edges = [(edge.split(":")[0], int(edge.split(":")[1])) for edge in edges]
        self.preprocess0 = FactorizedReduce(c_before, c) if was_reduced else ReLUConvBN(c_before, c)
        self.preprocess1 = ReLUConvBN(c_in, c)
        self._ops = nn.ModuleList(
            [OPERATIONS[name](c, 2 if reduces and number < 2 else 1) for name, number in self.edges]
        )

    def forward(self, before, x):
        states = [self.preprocess0(before), self.preprocess1(x)]
        for i in range(0, len(self.edges), 2):
            first, second = (self._ops[i + k](states[self.edges[i + k][1]]) for k in (0, 1))
            states.append(first + second)
        return torch.cat(states[2:], 1)


class AuxiliaryHead(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.features = nn.Sequential(
            nn.ReLU(), nn.AvgPool2d(5, 3, count_include_pad=False),
            nn.Conv2d(channels, 128, 1, bias=False), nn.BatchNorm2d(128), nn.ReLU(),
            nn.Conv2d(128, 768, 2, bias=False), nn.BatchNorm2d(768), nn.ReLU(),
        )  # fmt: skip
        self.classifier = nn.Linear(768, 7)

    def forward(self, x):
        return self.classifier(self.features(x).flatten(1))


class Liu(nn.Module):
    """The network of DARTS for CIFAR; reductions begin the second and the third stage."""

    def __init__(self, spec):
        super().__init__()
        c = spec.stem_width
        self.is_large = was_reduced = dict(spec.options).get("stem") == "imagenet"
        if self.is_large:
            first = [nn.Conv2d(3, c // 2, 3, 2, 1, bias=False), nn.BatchNorm2d(c // 2), nn.ReLU()]
            self.stem0 = nn.Sequential(*first, nn.Conv2d(c // 2, c, 3, 2, 1, bias=False), nn.BatchNorm2d(c))
            self.stem1 = nn.Sequential(nn.ReLU(), nn.Conv2d(c, c, 3, 2, 1, bias=False), nn.BatchNorm2d(c))
        else:
            self.stem = nn.Sequential(nn.Conv2d(3, c, 3, padding=1, bias=False), nn.BatchNorm2d(c))
        self.cells = nn.ModuleList()
        c_before = c_in = c
        for stage, (depth, c) in enumerate(zip(spec.depths, spec.widths, strict=True)):
            for i in range(depth):
                reduces = stage > 0 and i == 0
                cell = Cell(REDUCE if reduces else NORMAL, c_before, c_in, c, reduces, was_reduced)
                self.cells.append(cell)
                c_before, c_in, was_reduced = c_in, 4 * c, reduces
        self.auxiliary_head = AuxiliaryHead(c_in)
        self.classifier = nn.Linear(c_in, 7)

    def forward(self, x):
        before = self.stem0(x) if self.is_large else self.stem(x)
        x = self.stem1(before) if self.is_large else before
        for cell in self.cells:
            before, x = x, cell(before, x)
        return self.classifier(x.mean((2, 3)))


SAME = {"padding": "same"}
SQUEEZED = {**SAME, "se_ratio": 0.25}
GOWAL = ArchSpec("wide_resnet", (2, 1, 2), (6, 10, 8), stem_width=5, activation="silu", options=SAME)
RAWRN = ArchSpec("wide_resnet", (1, 1, 1), (8, 10, 12), stem_width=5, activation="silu", options=SQUEEZED)
PRE = ArchSpec("preact_resnet", (2, 1, 1, 2), (6, 6, 12, 5), stem_width=6)
POST = ArchSpec("resnet", (1, 2, 1, 1), (6, 6, 8, 5), stem_width=6)
RESNET = ArchSpec("resnet", (1, 1, 2, 1), (64, 128, 256, 512), stem_width=64)
VGGS = ArchSpec("vgg", (1, 2, 1, 3, 1), (4, 6, 6, 8, 5))
DENSE = ArchSpec("densenet", (2, 1, 3, 2), (6,) * 4, stem_width=10)
DENSE_224 = ArchSpec("densenet", (2, 1, 3, 2), (6,) * 4, stem_width=10, options={"stem": "imagenet"})
CELLS = ArchSpec("darts", (2, 3, 1), (4, 6, 8), stem_width=9)
CELLS_AUXILIARY = ArchSpec("darts", (1, 1, 2), (4, 6, 8), stem_width=9, options={"auxiliary": True})
CELLS_224 = ArchSpec("darts", (1, 2, 1), (4, 6, 8), stem_width=10, options={"stem": "imagenet"})

PEERS = {  # the layout, the architecture, the peer's network, and the side of an image
    "gowal2020": ("gowal2020", GOWAL, lambda: Gowal(GOWAL, None), 16),
    "rawrn": ("gowal2020", RAWRN, lambda: Gowal(RAWRN, 0.25), 16),
    "rice2020": ("rice2020", PRE, lambda: FourLayers(PRE, PreActBlock), 9),
    "resnet of pytorch_cifar": ("pytorch_cifar", POST, lambda: FourLayers(POST, PostActBlock), 9),
    "resnet of torchvision, 3x3": ("torchvision", RESNET, lambda: three_by_three_torchvision(RESNET), 9),
    "vgg": ("pytorch_cifar", VGGS, lambda: VGG(VGGS), 32),
    "densenet of torchvision, 3x3": ("torchvision", DENSE, lambda: densenet(DENSE), 16),
    "densenet of torchvision": ("torchvision", DENSE_224, lambda: densenet(DENSE_224), 64),
    "darts": ("liu2019", CELLS, lambda: Liu(CELLS), 16),
    "darts for ImageNet": ("liu2019", CELLS_224, lambda: Liu(CELLS_224), 64),
    "darts, auxiliary": ("liu2019", CELLS_AUXILIARY, lambda: Liu(CELLS_AUXILIARY), 20),
}


def assert_agree(peer, spec, layout, side):
    """The same logits, and written in that layout the same tensors under the same names, which the peer loads."""
    peer = randomised(peer)
    net = load_published(peer.state_dict(), spec)
    x = torch.rand(3, 3, side, side, generator=torch.Generator().manual_seed(1)).double()
    with torch.no_grad():
        theirs = peer.double()(x)
        torch.testing.assert_close(net.double()(x) / theirs.abs().max(), theirs / theirs.abs().max())
    written = published_state(net, spec, layout)
    unused = {
        key for key in peer.state_dict() if key.startswith("auxiliary_head.") and "auxiliary" not in dict(spec.options)
    }
    assert set(written) == set(peer.state_dict()) - unused
    assert all(torch.equal(written[key], peer.state_dict()[key]) for key in written)
    return net


@pytest.mark.parametrize(("layout", "spec", "make", "side"), PEERS.values(), ids=PEERS)
def test_weights_of_a_peer_give_its_logits_and_go_back(layout, spec, make, side):
    torch.manual_seed(0)
    assert_agree(make(), spec, layout, side)


def test_the_auxiliary_head_of_darts_is_read_too():
    peer = randomised(Liu(CELLS_AUXILIARY))
    ours = load_published(peer.state_dict(), CELLS_AUXILIARY).network.auxiliary.eval()
    x = torch.rand(2, 32, 8, 8)
    with torch.no_grad():  # 8x8 features, for which both heads are the same
        torch.testing.assert_close(ours(x), peer.auxiliary_head(x), rtol=1e-4, atol=1e-2)


def test_torchvisions_own_files_of_densenet_have_older_names():
    peer = randomised(densenet(DENSE_224))
    renamed = {}
    for key, value in peer.state_dict().items():
        for kind in ("norm", "conv"):
            if "denselayer" in key:
                key = key.replace(f".{kind}1.", f".{kind}.1.").replace(f".{kind}2.", f".{kind}.2.")
        renamed[key] = value
    assert "features.denseblock1.denselayer1.norm.1.weight" in renamed
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected = load_published(peer.state_dict(), DENSE_224)(x)
        assert torch.equal(load_published(renamed, DENSE_224)(x), expected)


class Stem(nn.Module):
    """The convolutional stem of Singh et al. 2023, whose LayerNorm is written out there."""

    def __init__(self, norm):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 6, 3, 2, 1),
            norm(6, eps=1e-6),
            nn.GELU(),
            nn.Conv2d(6, 8, 3, 2, 1),
            norm(8, eps=1e-6),
            nn.GELU(),
        )

    def forward(self, x):
        return self.stem(x)


@pytest.mark.parametrize(("layout", "stem"), [("timm", "patch"), ("singh2023", "conv")])
def test_convnext(layout, stem):
    timm = pytest.importorskip("timm")
    peer = timm.models.convnext.ConvNeXt(3, 7, depths=(1, 2, 1, 1), dims=(8, 16, 16, 24))
    stem_width = 16
    if stem == "conv":
        peer.stem, stem_width = Stem(timm.layers.LayerNorm2d), 6
    shape = {"depths": (1, 2, 1, 1), "widths": (8, 16, 16, 24), "stem_width": stem_width, "activation": "gelu"}
    assert_agree(peer, ArchSpec("convnext", **shape, options={"stem": stem}), layout, 64)


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        ("same", {}, r"arch\.options\.padding = 'symmetric': expected same, as files of this layout have"),
        ("symmetric", SAME, r"arch\.options\.padding = 'same': expected symmetric, as files of this layout have"),
    ],
)
def test_weights_of_the_other_padding_are_refused_although_every_shape_fits(given, options, message):
    spec = ArchSpec("wide_resnet", (1, 1, 1), (4, 6, 8), activation="silu", options=options)
    own = ArchSpec("wide_resnet", (1, 1, 1), (4, 6, 8), activation="silu", options=SAME if given == "same" else {})
    state = Gowal(own, None).state_dict()
    if given == "symmetric":
        net = load_published(state, ArchSpec.from_dict({**own.to_dict(), "options": SAME}))
        state = published_state(net, own, "huang2021")
    with pytest.raises(InputError, match=message):
        load_published(state, spec)
    with pytest.raises(InputError, match=message):
        published_state(load_published(state, own), spec, "gowal2020" if given == "same" else "huang2021")


def test_weights_of_robust_res_blocks_are_refused_for_preactivated_ones_although_every_shape_fits():
    spec = ArchSpec("robust_resnet", (1, 1, 1), (8, 8, 8), options={"scales": 2})
    preactivated = ArchSpec("robust_resnet", (1, 1, 1), (8, 8, 8), options={"scales": 2, "preactivated": True})
    state = published_state(build(spec), spec)
    load_published(state, spec)
    message = r"arch\.options\.preactivated = True: expected false, as files of this layout have"
    with pytest.raises(InputError, match=message):
        load_published(state, preactivated)
    with pytest.raises(InputError, match=message):
        published_state(build(preactivated), preactivated)


def test_pytorch_cifars_densenet_puts_new_channels_first_and_is_refused():
    with pytest.raises(InputError, match=r"begin with features\.conv0\.weight \(torchvision\).*'conv1\.weight'"):
        load_published({"conv1.weight": torch.ones(10, 3, 3, 3), "linear.weight": torch.ones(7, 5)}, DENSE)
