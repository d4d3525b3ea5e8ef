"""Adversarial training and attacks as published code usually writes them; what the engine is measured against.

float32, NCHW, eager; worker processes that transform one image at a time; the mode switched to and fro around the
attack; a number read back at every step; in evaluation, weight gradients computed for nothing. Written anew here,
after the structure of the code that TRADES (Zhang et al. 2019) and MART (Wang et al. 2020) published.
"""

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from robust_arch.data import ImageSet

EPS, STEP, BETA = 8 / 255, 2 / 255, 6.0


class Pictures(Dataset[tuple[Tensor, int]]):
    """One image at a time, cropped and flipped as a picture, then made a tensor."""

    def __init__(self, images: ImageSet) -> None:
        self.images = images.images.permute(0, 2, 3, 1).numpy()
        self.labels = images.labels.tolist()
        side = self.images.shape[1]
        self.transform = transforms.Compose(
            [transforms.RandomCrop(side, padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[i])), self.labels[i]


def loader(images: ImageSet, batch_size: int) -> DataLoader[tuple[Tensor, int]]:
    """Two worker processes."""
    return DataLoader(Pictures(images), batch_size=batch_size, shuffle=True, num_workers=2, drop_last=True)


def kl(logits: Tensor, target: Tensor) -> Tensor:
    """KL(p(target) || p(logits)), summed over the batch."""
    return F.kl_div(F.log_softmax(logits, dim=1), F.softmax(target, dim=1), reduction="sum")


def attack_for_training(net: nn.Module, x: Tensor, y: Tensor, steps: int, objective: str = "sat") -> Tensor:
    """PGD: from a uniform start for sat; for trades on the KL term, whose target it computes anew at each step."""
    net.eval()
    noise = torch.empty_like(x).uniform_(-EPS, EPS) if objective == "sat" else 0.001 * torch.randn_like(x)
    x_adv = torch.clamp(x.detach() + noise, 0.0, 1.0)
    for _ in range(steps):
        x_adv.requires_grad_()
        with torch.enable_grad():
            logits = net(x_adv)
            loss = kl(logits, net(x)) if objective == "trades" else F.cross_entropy(logits, y)
        grad = torch.autograd.grad(loss, [x_adv])[0]
        x_adv = x_adv.detach() + STEP * torch.sign(grad.detach())
        x_adv = torch.min(torch.max(x_adv, x - EPS), x + EPS)
        x_adv = torch.clamp(x_adv, 0.0, 1.0)
    net.train()
    return x_adv


def mart_loss(logits: Tensor, logits_adv: Tensor, y: Tensor) -> Tensor:
    """Boosted cross-entropy, and the KL term weighted by how unlikely the true class is."""
    p, p_adv = F.softmax(logits, dim=1), F.softmax(logits_adv, dim=1)
    order = torch.argsort(p_adv, dim=1)[:, -2:]
    wrong = torch.where(order[:, -1] == y, order[:, -2], order[:, -1])
    boosted = F.cross_entropy(logits_adv, y) + F.nll_loss(torch.log(1.0001 - p_adv + 1e-12), wrong)
    divergence = F.kl_div(torch.log(p_adv + 1e-12), p, reduction="none").sum(dim=1)
    own = torch.gather(p, 1, y.unsqueeze(1)).squeeze(1)
    return boosted + BETA * (divergence * (1.0000001 - own)).mean()


def outer_loss(net: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, objective: str) -> tuple[Tensor, Tensor]:
    """The loss to descend, and the logits by which accuracy is counted; trades passes the clean images twice."""
    if objective == "sat":
        logits = net(x_adv)
        return F.cross_entropy(logits, y), logits
    logits = net(x)
    logits_adv = net(x_adv)
    if objective == "mart":
        return mart_loss(logits, logits_adv, y), logits_adv
    return F.cross_entropy(logits, y) + BETA * kl(logits_adv, net(x)) / len(x), logits_adv


def training_step(
    net: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, steps: int, objective: str = "sat"
) -> float:
    """Attack, descend, clip, and read the loss and the accuracy back."""
    x_adv = attack_for_training(net, x, y, steps, objective)
    optimizer.zero_grad()
    loss, logits = outer_loss(net, x, x_adv, y, objective)
    loss.backward()
    nn.utils.clip_grad_norm_(net.parameters(), 5.0)
    optimizer.step()
    accuracy = (logits.argmax(dim=1) == y).float().mean().item()
    return loss.item() + accuracy


def margin_loss(logits: Tensor, y: Tensor) -> Tensor:
    """The margin of Carlini and Wagner 2017, summed over the batch."""
    mask = F.one_hot(y, logits.shape[1]).float()
    own = (mask * logits).sum(dim=1)
    other = ((1 - mask) * logits - 1e4 * mask).amax(dim=1)
    return -F.relu(own - other + 50).sum()


def evaluate(net: nn.Module, x: Tensor, y: Tensor, *, steps: int, margin: bool, batch_size: int) -> float:
    """Percent of images that stand, clean and attacked ones counted batch by batch."""
    net.eval()
    standing = 0
    for start in range(0, len(x), batch_size):
        images, labels = x[start : start + batch_size], y[start : start + batch_size]
        clean = net(images)
        x_adv = (images + torch.empty_like(images).uniform_(-EPS, EPS)).requires_grad_()
        for _ in range(steps):
            with torch.enable_grad():
                logits = net(x_adv)
                loss = margin_loss(logits, labels) if margin else F.cross_entropy(logits, labels)
            loss.backward()
            moved = x_adv.data + 0.1 * EPS * x_adv.grad.data.sign()
            moved = torch.clamp(images + torch.clamp(moved - images, -EPS, EPS), 0, 1.0)
            x_adv = moved.detach().requires_grad_()
        standing += ((net(x_adv).argmax(1) == labels) & (clean.argmax(1) == labels)).float().sum().item()
    return 100 * standing / len(x)
