"""What tests of architectures share: counting by torch itself, and networks in which nothing is 0 or 1 by default."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from robust_arch.architectures import build


def counted(net, image_shape):
    """Parameters and MACs, counted by torch, which takes a multiply-accumulate for two operations."""
    with FlopCounterMode(display=False) as counter:
        net(torch.empty(1, *image_shape, device="meta"))
    return sum(parameter.numel() for parameter in net.parameters()), counter.get_total_flops() / 2


def counted_spec(spec, num_classes, image_shape):
    """The same of the built network; on the meta device no memory is allocated."""
    with torch.device("meta"):
        net = build(spec, num_classes, image_shape).eval()
    return counted(net, image_shape)


def randomised(net, seed=0):
    """All parameters and statistics random, in float64 and evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    net = net.double().eval()
    for name, tensor in net.state_dict().items():
        if tensor.is_floating_point() and not name.startswith("normalize."):
            noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
            tensor.copy_(0.5 + noise.abs() if name.endswith("running_var") else 0.5 * noise)
    return net


def random_images(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def copied(theirs, ours):
    """Copy the tensors of another implementation in their order, which must have the same shapes; returns `ours`."""
    source = [tensor for name, tensor in theirs.state_dict().items() if "num_batches" not in name]
    target = [tensor for name, tensor in ours.state_dict().items() if "num_batches" not in name]
    assert [tensor.shape for tensor in source] == [tensor.shape for tensor in target]
    for to, tensor in zip(target, source, strict=True):
        to.copy_(tensor)
    return ours
