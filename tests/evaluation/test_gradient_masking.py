"""Networks whose gradients are known to be honest are not flagged; deliberately masked ones are, by the right check."""

import functools
import json
import math

import pytest
import torch
from evaluations import CPU
from torch import nn
from torch.nn import functional as F

from robust_arch.architectures.build import Classifier, Normalize
from robust_arch.attacks import PGD, Margin, ThreatModel
from robust_arch.common.statistics import recorded_share
from robust_arch.data import ImageSet
from robust_arch.data.digits import Digits
from robust_arch.errors import InputError
from robust_arch.evaluation import gradient_masking as masking
from robust_arch.evaluation import masking_verdicts, surrogates
from robust_arch.evaluation.examples import Examples, select_examples
from robust_arch.evaluation.gradient_masking import diagnose
from robust_arch.evaluation.surrogates import presaturation

THREAT = ThreatModel("linf", "0.2")
N = 60


@pytest.fixture(scope="module", autouse=True)
def few_queries():
    """A fifth of the black-box attack and a third of the distillation: enough here, and most of the time otherwise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(masking, "QUERIES", 200)
        patch.setattr(surrogates, "_STEPS", 100)
        yield


def run(net, examples, threat=THREAT, **changes):
    return diagnose(net, examples, threat, **{"device": CPU, "batch_size": 250, "seed": 0} | changes)


def flags(diagnosis):
    return {verdict["name"] for verdict in diagnosis["verdicts"] if not verdict["ok"]}


def counts(rows):
    return [row["count"] for row in rows]


@pytest.fixture(scope="module")
def digits():
    return Digits(name="digits").read()


@pytest.fixture(scope="module")
def examples(digits):
    return select_examples(digits[1], N)


def trained(train, threat):
    """A small convolutional network, naturally trained or, under a threat, on PGD's images; seconds."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            *(nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 24, 3, stride=2, padding=1), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(24 * 16, 10)),
        )
        x, y = train.to_unit(train.images), train.labels
        optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
        for epoch in range(12):
            for batch in torch.randperm(len(x)).split(64):
                inputs = x[batch]
                if threat is not None:
                    inputs = PGD(steps=4, rel_step_size=0.4)(net, inputs, y[batch], threat, seed=epoch, index=batch)
                loss = F.cross_entropy(net(inputs), y[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return net.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def natural(digits):
    return trained(digits[0], None)


@pytest.fixture(scope="module")
def robust(digits):
    return trained(digits[0], THREAT)


@pytest.fixture(scope="module")
def honest(robust, examples):
    """The diagnosis of the adversarially trained network."""
    return run(robust, examples)


@pytest.fixture(scope="module")
def natural_diagnosis(natural, examples):
    return run(natural, examples)


def assert_honest(diagnosis):
    assert flags(diagnosis) == set()
    assert diagnosis["flagged"] is False
    assert diagnosis["directions"]["no_gradient"]["count"] == 0
    curve = counts(diagnosis["eps"]["points"])
    # the verdicts say something only of networks that are accurate, and of attacks that have something to do
    assert curve[0] > 0.8 * N
    assert curve == sorted(curve, reverse=True)
    assert curve[-1] == 0


def test_honest_networks_are_not_flagged(natural_diagnosis, honest):
    assert_honest(honest)
    assert_honest(natural_diagnosis)


def test_an_honest_network_is_not_flagged_under_l2(robust, examples):
    assert_honest(run(robust, examples, ThreatModel("l2", "0.5")))


class Masked(nn.Module):
    """A network behind something that spoils its gradients."""

    def __init__(self, net, front=None, back=None):
        super().__init__()
        self.net, self.front, self.back = net, front, back

    def forward(self, x):
        logits = self.net(self.front(x) if self.front else x)
        return self.back(logits) if self.back else logits


class WrongSign(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        return -gradient


class TrueOnTheGridOnly(torch.autograd.Function):
    """The gradient is right at the data's own grey levels, where one step starts, and reversed everywhere else."""

    @staticmethod
    def forward(ctx, x):
        ctx.on_grid = bool((x * 16 == (x * 16).round()).all())
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        return gradient if ctx.on_grid else -gradient


def with_noise(x):
    return x + 0.05 * torch.randn_like(x)


def without_slope_at_zero(x):
    return x + 0 * torch.sqrt(0 * x)  # 0 times the infinite slope of the root


# what is spoiled, the checks that must see it, and the share of images that have no gradient left
MASKS = {
    "saturated softmax": ({"back": lambda logits: 1e4 * logits}, {"directions"}, 0.9),
    "rounded input": ({"front": lambda x: (x * 15).round() / 15}, {"eps", "square", "directions"}, 1),
    "shattered": ({"front": lambda x: x + 0.02 * torch.sin(2000 * x)}, {"eps", "square", "directions"}, 0),
    "random": ({"front": with_noise}, {"repeat"}, 0),
    "wrong sign": ({"front": WrongSign.apply}, {"eps", "square", "directions"}, 0),
    "saturated input": (
        {"front": lambda x: torch.tanh(400 * (x - 0.5)) / 2 + 0.5},
        {"eps", "square", "directions"},
        0.1,
    ),
    "no number": ({"front": without_slope_at_zero}, {"eps", "square", "directions"}, 1),
    "detached input": ({"front": torch.Tensor.detach}, {"eps", "square", "directions"}, 1),
    "classes as logits": ({"back": lambda logits: F.one_hot(logits.argmax(1), 10).float()}, {"eps", "directions"}, 1),
    "one step alone": ({"front": TrueOnTheGridOnly.apply}, {"eps", "steps", "square"}, 0),
}


@pytest.fixture(scope="module")
def masked(robust, examples):
    """From the name of a mask to the diagnosis of the robust network behind it."""
    return functools.cache(lambda name: run(Masked(robust, **MASKS[name][0]), examples))


@pytest.mark.parametrize("name", MASKS)
def test_masked_networks_are_flagged_by_the_check_that_sees_it(name, masked):
    diagnosis, (_, expected, without_gradient) = masked(name), MASKS[name]
    assert diagnosis["flagged"] is True
    assert flags(diagnosis) >= expected
    missing = diagnosis["directions"]["no_gradient"]["count"]
    assert without_gradient * N <= missing <= (N if without_gradient else 0)
    (text,) = (verdict["text"] for verdict in diagnosis["verdicts"] if verdict["name"] == "directions")
    assert text.startswith("Gradients are not available.") == (missing == N)
    json.dumps(diagnosis, allow_nan=False)


# logits that saturate, in front of which an undefended network's own gradients break all that these hide
SATURATIONS = {
    "clamped": (lambda logits: logits.clamp(-2, 2), "transfer"),
    "tanh": (lambda logits: 2 * torch.tanh(3 * logits), "transfer"),
    "rounded probabilities": (lambda logits: (100 * logits.softmax(dim=1)).round() / 100, "transfer"),
    "steep": (lambda logits: 1000 * logits, "losses"),
}


@pytest.mark.parametrize(("back", "expected"), SATURATIONS.values(), ids=SATURATIONS)
def test_saturating_logits_of_an_undefended_network_are_flagged(back, expected, natural, examples):
    threat, saturated = ThreatModel("linf", "0.1"), Masked(natural, back=back)
    diagnosis = run(saturated, examples, threat)
    assert expected in flags(diagnosis)
    if back is SATURATIONS["clamped"][0]:
        # the clamp changes no order of logits that it leaves apart: what breaks the network inside breaks it as well
        x, y = examples.images.to_unit(examples.images.images), examples.images.labels
        x_adv = PGD(steps=40, rel_step_size=0.1, loss=Margin())(natural, x, y, threat, seed=0, index=examples.index)
        truly = int((saturated(x_adv).argmax(dim=1) == y).sum())
        (row,) = (row for row in diagnosis["transfer"] if row["surrogate"] == "before saturation")
        assert row["white_box"]["count"] - row["broken"]["count"] <= truly + 3


@pytest.mark.parametrize("classes", [10, 3])
def test_a_network_may_expose_its_logits_before_they_saturate(classes, natural, examples):
    class Exposing(nn.Module):
        def presaturation_logits(self, x):
            return natural(x)[:, :classes]

        def forward(self, x):
            with torch.no_grad():  # no layer in sight, and no gradient
                return natural(x).clamp(-2, 2) + 0 * x.sum()

    x = examples.images.to_unit(examples.images.images)
    if classes == 3:
        with pytest.raises(InputError, match=r"presaturation_logits = \(60, 3\): .*\(60, 10\)"):
            presaturation(Exposing(), x)
        return
    assert torch.equal(presaturation(Exposing(), x)(x), natural(x))
    assert presaturation(natural, x) is None
    # a family's network lies behind the classifier's normalisation
    inside = Classifier(Normalize([0.5], [0.5]), Exposing())
    assert torch.equal(presaturation(inside, x)(x), natural((x - 0.5) / 0.5))


def test_what_the_white_box_attacks_miss_and_the_black_box_attack_finds(masked, honest):
    square = masked("wrong sign")["square"]
    assert square["white_box"]["count"] == honest["eps"]["points"][0]["count"]
    assert square["broken"]["count"] == square["white_box"]["count"] - square["both"]["count"]
    # the forward pass is the honest network's: what truly stands is the same
    assert abs(square["both"]["count"] - honest["square"]["both"]["count"]) <= 6


@pytest.fixture(scope="module")
def two_classes(linear):
    """A linear network of two classes on grey images that it classifies correctly; its weight difference (25,)."""
    generator = torch.Generator().manual_seed(3)
    pixels = torch.randint(70, 130, (40, 1, 5, 5), generator=generator, dtype=torch.uint8)
    weight = torch.randn(2, 25, generator=generator)
    net = linear(weight, -(weight @ torch.full((25,), 0.5)))
    labels = net(pixels / 200.0).argmax(dim=1)
    return net, Examples(ImageSet(pixels, labels, 2, max_value=200), torch.arange(40)), weight[1] - weight[0]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_linear_network_falls_at_its_distance(norm, two_classes):
    net, examples, slope = two_classes
    x, towards_one = examples.images.images.flatten(1) / 200.0, examples.images.labels == 0
    direction = torch.where(towards_one[:, None], slope, -slope)
    eps = {"linf": "0.01", "l2": "0.04"}[norm]
    points = run(net, examples, ThreatModel(norm, eps))["eps"]["points"]
    assert [row["radius"] for row in points] == pytest.approx(
        [float(eps) * multiple for multiple in (0, 0.5, 1, 2, 4, 8)] + [1.0 if norm == "linf" else 5.0]
    )
    for row in points[:-1]:
        offset = direction.sign() if norm == "linf" else direction / direction.norm(dim=1, keepdim=True)
        worst = x + row["radius"] * offset
        assert ((worst >= 0) & (worst <= 1)).all()  # the box binds nowhere: this is the closed form
        margin = ((worst - 0.5) * direction).sum(dim=1)
        assert row["count"] == int((margin < 0).sum())
    assert 0 < points[2]["count"] < points[0]["count"] == 40
    assert points[-1]["count"] == 0
    assert [row["eps"] for row in points[:3]] == {"linf": ["0", "1/200", "1/100"], "l2": ["0", "1/50", "1/25"]}[norm]


def test_a_linear_margin_rises_by_the_dual_norm_along_its_gradient(two_classes):
    net, examples, slope = two_classes
    found = run(net, examples, ThreatModel("linf", "0.02"))["directions"]
    rises = [loss - found["margin"]["gradient"][0] for loss in found["margin"]["gradient"]]
    assert found["rel_t"] == [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75, 2]
    assert rises == pytest.approx([0.02 * t * float(slope.abs().sum()) for t in found["rel_t"]], abs=1e-5)
    for name in ("cross_entropy", "margin"):
        assert found[name]["wins"]["count"] == 40
        # random signs: up as often as down
        assert abs(found[name]["random"][-1] - found[name]["random"][0]) < 0.2 * rises[-1]


def test_a_gradient_of_the_wrong_sign_never_wins_on_a_network_that_rises_with_brightness():
    class Brightness(nn.Module):
        def forward(self, x):
            return torch.stack([torch.zeros(len(x)), 10 * (x.flatten(1).mean(dim=1) - 0.5)], dim=1)

    pixels = torch.randint(40, 160, (30, 1, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    examples = Examples(ImageSet(pixels, torch.arange(30) % 2, 2, max_value=200), torch.arange(30))
    threat = ThreatModel("linf", "0.05")
    right, wrong = (run(net, examples, threat) for net in (Brightness(), Masked(Brightness(), WrongSign.apply)))
    for name in ("cross_entropy", "margin"):
        assert right["directions"][name]["wins"]["count"] == 30
        assert wrong["directions"][name]["wins"]["count"] == 0
        assert right["directions"][name]["random"] == wrong["directions"][name]["random"]


@pytest.mark.parametrize(
    ("eps", "norm", "pixels", "expected"),
    [
        ("8/255", "linf", 3072, ["0", "4/255", "8/255", "16/255", "32/255", "64/255", "1"]),
        ("0.3", "linf", 64, ["0", "3/20", "3/10", "3/5", "1"]),
        ("1", "linf", 64, ["0", "1/2", "1"]),
        ("0.5", "l2", 3072, ["0", "1/4", "1/2", "1", "2", "4", "56"]),
        ("0.5", "l2", 64, ["0", "1/4", "1/2", "1", "2", "4", "8"]),
    ],
)
def test_the_last_radius_reaches_every_image(eps, norm, pixels, expected):
    radii = masking._radii(ThreatModel(norm, eps), pixels)
    assert [str(radius) for radius in radii] == expected
    assert radii[-1] >= (math.sqrt(pixels) if norm == "l2" else 1)


def judged(check, found):
    ok, text = getattr(masking_verdicts, f"_judge_{check}")(found)
    assert "of 100" in text
    return ok


@pytest.mark.parametrize(
    ("survivors", "ok"),
    [
        ({}, True),
        ({1: 90}, True),  # one step is weak: as it should be
        ({1: 48}, True),  # within noise
        ({1: 40}, False),  # one step beats a hundred
        ({20: 53}, True),
        ({20: 60}, False),  # twenty steps are not enough
    ],
)
def test_verdicts_on_steps(survivors, ok):
    rows = [{"steps": steps, **recorded_share(survivors.get(steps, 50), 100)} for steps in masking.STEPS]
    assert judged("steps", rows) is ok


@pytest.mark.parametrize(
    ("curve", "classes", "ok"),
    [
        ([98, 60, 0], 10, True),
        ([98, 60, 1], 10, True),
        ([98, 60, 12], 10, False),
        ([98, 30, 42, 0], 10, False),  # rises on the way
        ([98, 30, 31, 0], 10, True),
        ([10, 10, 10], 1, True),  # one class for every image: nothing to be reached
    ],
)
def test_verdicts_on_radii(curve, classes, ok):
    points = [{"eps": str(position), **recorded_share(count, 100)} for position, count in enumerate(curve)]
    assert judged("eps", {"points": points, "classes": classes}) is ok


@pytest.mark.parametrize(
    ("broken", "survivors", "ok"),
    [(6, 11, False), (3, 3, False), (1, 3, True), (2, 2, True), (1, 1, True), (3, 60, True), (0, 0, True)],
)
def test_few_survivors(broken, survivors, ok):
    shares = {"broken": recorded_share(broken, 200), "white_box": recorded_share(survivors, 200)}
    found, text = masking_verdicts._judge_square({"queries": 1000, **shares})
    assert found == ok
    assert ("nothing to judge" in text) == (survivors == 0)


def test_a_seed_decides_even_a_random_network_and_the_random_state_stays(robust, examples):
    noisy = Masked(robust, front=with_noise).train()
    before = torch.get_rng_state()
    part = examples.subset(torch.arange(10))
    first, second = run(noisy, part, seed=3), run(noisy, part, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert first == second


def test_numbers_do_not_depend_on_the_batch_size(robust, examples, honest):
    parts = run(robust, examples, batch_size=31)
    for name in ("eps", "steps", "square", "verdicts"):
        assert honest[name] == parts[name]


def test_the_record_is_plain_data_with_its_numbers(natural, natural_diagnosis, examples):
    diagnosis = natural_diagnosis
    assert json.loads(json.dumps(diagnosis, allow_nan=False)) == diagnosis
    assert diagnosis["n"] == N
    names = ["eps", "steps", "losses", "square", "transfer", "directions", "repeat"]
    assert [verdict["name"] for verdict in diagnosis["verdicts"]] == names
    texts = [verdict["text"] for verdict in diagnosis["verdicts"]]
    assert all((f"of {N}" in text or "nothing to judge" in text) and "\n" not in text for text in texts)
    # one step, by hand
    x, y = examples.images.to_unit(examples.images.images).requires_grad_(True), examples.images.labels
    (gradient,) = torch.autograd.grad(F.cross_entropy(natural(x), y, reduction="sum"), x)
    fgsm = (x.detach() + 0.2 * gradient.sign()).clamp(0, 1)
    assert counts(diagnosis["steps"])[0] == int((natural(fgsm).argmax(dim=1) == y).sum())


@pytest.mark.parametrize("where", ["clean", "bright"])
def test_logits_that_are_not_finite_are_named(where, robust, examples):
    def front(x):
        return torch.where(1.5 * x > 1, torch.nan, x) if where == "bright" else x * torch.nan

    half = Examples(ImageSet(examples.images.images // 2, examples.images.labels, 10, 16), examples.index)
    with pytest.raises(FloatingPointError, match=r"logits of \d+ of \d+ images are not finite"):
        run(Masked(robust, front=front), half)


def test_what_cannot_be_diagnosed_is_named(robust, examples):
    with pytest.raises(InputError, match=r"threat\.eps = 0: expected a radius greater than 0"):
        run(robust, examples, ThreatModel("linf", 0))
    with pytest.raises(InputError, match=r"evaluate\.diagnostics = 0: expected at least one"):
        run(robust, examples.subset(torch.arange(0)))
