"""Networks under their published names, written here a second time, and random weights for them."""

import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    """A basic block under its published names."""

    def __init__(self, c_in, c_out, stride):
        super().__init__()
        self.from_activated = c_in != c_out
        self.bn1 = nn.BatchNorm2d(c_in)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1, bias=False)
        self.convShortcut = None
        if c_in != c_out or stride == 2:
            self.convShortcut = nn.Conv2d(c_in, c_out, 1, stride=stride, bias=False)

    def forward(self, x):
        a = F.relu(self.bn1(x))
        out = self.conv2(F.relu(self.bn2(self.conv1(a))))
        if self.convShortcut is None:
            return out + x
        return out + self.convShortcut(a if self.from_activated else x)


class Stage(nn.Module):
    def __init__(self, depth, c_in, c_out, stride):
        super().__init__()
        self.layer = nn.Sequential(*[Block(c_out if i else c_in, c_out, 1 if i else stride) for i in range(depth)])

    def forward(self, x):
        return self.layer(x)


class Published(nn.Module):
    """The published network."""

    def __init__(self, depths, widths, stem_width=16, num_classes=10, channels=3):
        super().__init__()
        channels_in = (stem_width, *widths)
        self.stem_conv = nn.Conv2d(channels, stem_width, 3, padding=1, bias=False)
        self.blocks = nn.ModuleList([Stage(depths[i], channels_in[i], widths[i], 1 if i == 0 else 2) for i in range(3)])
        self.bn1 = nn.BatchNorm2d(widths[-1])
        self.fc = nn.Linear(widths[-1], num_classes)

    def forward(self, x):
        x = self.stem_conv(x)
        for stage in self.blocks:
            x = stage(x)
        x = F.relu(self.bn1(x))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Trades(nn.Module):
    """The network of TRADES, MART and AWP: `sub_block1` takes no part in the logits."""

    def __init__(self, depths, widths, stem_width=16, num_classes=10, channels=3):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, stem_width, 3, padding=1, bias=False)
        self.block1 = Stage(depths[0], stem_width, widths[0], 1)
        self.sub_block1 = Stage(depths[0], stem_width, widths[0], 1)
        self.block2 = Stage(depths[1], widths[0], widths[1], 2)
        self.block3 = Stage(depths[2], widths[1], widths[2], 2)
        self.bn1 = nn.BatchNorm2d(widths[2])
        self.fc = nn.Linear(widths[2], num_classes)

    def forward(self, x):
        x = F.relu(self.bn1(self.block3(self.block2(self.block1(self.conv1(x))))))
        return self.fc(F.avg_pool2d(x, x.shape[-2:]).flatten(1))


def randomised(net):
    """All weights and statistics random: none is 0 or 1 by default, where a swap would not show."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in net.state_dict().items():
        if name.endswith("num_batches_tracked"):
            tensor.fill_(17)
        elif name.endswith("running_var"):
            tensor.uniform_(0.5, 2, generator=generator)
        else:
            tensor.normal_(0, 0.5, generator=generator)
    return net.eval()


def images(channels=3, size=9):
    return torch.rand(4, channels, size, size, generator=torch.Generator().manual_seed(1))


def assert_same_function(net, peer, channels=3):
    """In float64 nothing but a difference of the networks is left; in float32 as they were loaded, rounding is."""
    assert not net.training
    x = images(channels)
    with torch.no_grad():
        torch.testing.assert_close(net(x), peer(x), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(net.double()(x.double()), peer.double()(x.double()), rtol=1e-10, atol=1e-10)
