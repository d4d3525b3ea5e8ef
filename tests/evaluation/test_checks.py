"""Planted defects, each of which must make the one check fail that is there for it, and no other."""

import math
from fractions import Fraction

import pytest
import torch
from evaluations import CPU, random_images
from torch import nn

from robust_arch.attacks import ThreatModel
from robust_arch.data import ImageSet
from robust_arch.evaluation import select_examples
from robust_arch.evaluation.checks import TOLERANCE, above_chance, after_attack, logits_agree, preflight
from robust_arch.evaluation.scoring import clean_logits

THREAT = ThreatModel("linf", "1/8")
IMAGES, MODE, PRECISION, AGAIN, ORDER, BATCH, GRADIENTS, CHANCE = (
    "images in [0, 1]",
    "evaluation mode",
    "float32",
    "same logits when asked again",
    "same logits in another order",
    "same logits at another batch size",
    "gradients",
    "clean accuracy above chance",
)


@pytest.fixture
def sound(linear):
    """A linear network of five classes; weights in eighths and pixels in 128ths make every sum exact in any order."""
    generator = torch.Generator().manual_seed(1)
    return linear(torch.randint(-16, 17, (5, 16), generator=generator) / 8)


def images_for(net, n=64, wrong_every=4):
    return random_images(net, n, wrong_every)


def checked(net, images, threat=THREAT):
    """Name to check, as an evaluation makes them."""
    examples = select_examples(images, None)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        logits = clean_logits(net, examples, CPU, 250)
        checks = preflight(net, examples, logits, threat, CPU)
    return {check.name: check for check in checks}


def not_ok(net, images, threat=THREAT):
    """Name to state of the checks that found something."""
    return {name: check.state for name, check in checked(net, images, threat).items() if check.state != "ok"}


class Changed(nn.Module):
    """A network with something done to its input and to its logits."""

    def __init__(self, net, before=lambda x: x, after=lambda logits: logits):
        super().__init__()
        self.net, self.before, self.after = net, before, after

    def forward(self, x):
        return self.after(self.net(self.before(x)))


def test_a_sound_network_passes_every_check(sound):
    checks = checked(sound, images_for(sound, 200))
    assert list(checks) == [IMAGES, MODE, PRECISION, AGAIN, ORDER, BATCH, GRADIENTS, CHANCE]
    assert {check.state for check in checks.values()} == {"ok"}
    # exact arithmetic: nothing differs, on 64 probes of the 200
    assert [checks[name].detail.split(",")[0] for name in (AGAIN, ORDER, BATCH)] == ["largest difference 0"] * 3
    assert checks[GRADIENTS].detail.startswith("0 of 64 examples")
    # by Wilson, 150 of 200: (0.75 + z^2/400 -+ z sqrt(0.1875/200 + z^2/160000)) / (1 + z^2/200), z = 1.96
    assert checks[CHANCE].detail == "75.0% [68.6, 80.5] of 200, chance 20.0%"


def test_a_trained_convolutional_network_passes_every_check():
    # sums of floats that do depend on the batch, BatchNorm with the statistics of training
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(32, 5))
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 129, (100, 1, 4, 4), generator=generator, dtype=torch.uint8)
    labels = (x.float().mean((1, 2, 3)) / 128).mul(5 * 1.5).sub(1.25).clamp(0, 4.9).long()
    for _ in range(60):
        loss = nn.functional.cross_entropy(net(x.float() / 128), labels)
        gradients = torch.autograd.grad(loss, list(net.parameters()))
        with torch.no_grad():
            for weight, gradient in zip(net.parameters(), gradients, strict=True):
                weight -= 0.3 * gradient
    assert not_ok(net, ImageSet(x, labels, 5, max_value=128)) == {}


class StuckIdentity(nn.Identity):
    """Cannot be brought into evaluation mode."""

    def train(self, mode=True):
        return super().train(True)


class StuckBatchNorm(nn.BatchNorm2d):
    def train(self, mode=True):
        return super().train(True)


def test_a_module_that_stays_in_training_mode_is_named(sound):
    net = nn.Sequential(StuckIdentity(), sound)
    assert not_ok(net, images_for(sound)) == {MODE: "failed"}
    assert checked(net, images_for(sound))[MODE].detail == "in training mode: 0"


def test_batch_norm_that_stays_in_training_mode_fails_by_its_mode_and_by_its_logits(sound):
    # the mean over a batch is the same in another order
    net = nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False), sound)
    assert not_ok(net, images_for(net)) == {BATCH: "failed"}
    assert not_ok(nn.Sequential(StuckBatchNorm(1), sound), images_for(net)) == {MODE: "failed", BATCH: "failed"}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_logits_that_are_not_finite_fail_alone_with_the_number_of_images(value, sound):
    # argmax of NaN is some class, and would count as right or wrong
    images = images_for(sound, 100)
    images.images[:, 0, 0, 0] = 0
    images.images[[3, 50, 99], 0, 0, 0] = 128
    net = Changed(sound, before=lambda x: torch.where(x[:, :1, :1, :1] > 0.5, value, x))
    checks = checked(net, images)
    assert {name: check.state for name, check in checks.items()} == {"finite logits": "failed"}
    assert checks["finite logits"].detail == "the logits of 3 of 100 images are NaN or infinite"


POSITION = 0.1 * torch.arange(64)[:, None] * torch.arange(5)
UNSTEADY = {
    "noise": (lambda logits: logits + 0.1 * torch.randn_like(logits), {AGAIN, ORDER, BATCH}),
    # asked again in the same order they are the same
    "position in the batch": (lambda logits: logits + POSITION[: len(logits)], {ORDER, BATCH}),
}


@pytest.mark.parametrize(("after", "failed"), UNSTEADY.values(), ids=UNSTEADY)
def test_logits_that_change_with_the_call_or_the_position_fail(after, failed, sound):
    assert not_ok(Changed(sound, after=after), images_for(sound)) == dict.fromkeys(failed, "failed")


NO_GRADIENT = {
    "detached": torch.Tensor.detach,
    "rounded": lambda x: (x * 128).round() / 128,  # changes no image of 129 levels
    "infinite": lambda x: x + 0 * (x - x).sqrt(),  # the derivative of the root at 0 is infinite, times 0 not a number
}


@pytest.mark.parametrize("before", NO_GRADIENT.values(), ids=NO_GRADIENT)
def test_gradients_of_no_use_on_every_image_fail(before, sound):
    net, images = Changed(sound, before=before), images_for(sound)
    assert not_ok(net, images) == {GRADIENTS: "failed"}
    assert checked(net, images)[GRADIENTS].detail.startswith("64 of 64 examples")


def test_a_cut_input_fails_also_where_unregistered_weights_have_gradients(sound):
    class Wrapper(nn.Module):
        def forward(self, x):
            return sound(x.detach())

    assert not_ok(Wrapper(), images_for(sound)) == {GRADIENTS: "failed"}
    # where nothing may be changed, no gradient is needed
    assert not_ok(Wrapper(), images_for(sound), ThreatModel("linf", 0)) == {GRADIENTS: "warning"}


def test_a_network_of_constant_logits_fails_by_its_gradients(linear):
    # 60 of 100 labels are class 0, which is what a tie is taken for: accuracy alone would pass
    net = linear(torch.zeros(5, 16))
    images = images_for(net, 100, wrong_every=0)
    images.labels[60:] = 1
    assert not_ok(net, images) == {GRADIENTS: "failed"}


@pytest.mark.parametrize(("n", "dead", "state"), [(64, 3, "ok"), (64, 4, "warning"), (20, 1, "ok"), (20, 2, "warning")])
def test_more_than_one_gradient_in_twenty_of_no_use_is_a_warning(n, dead, state, sound):
    # 5% of 64 are 3.2, of 20 exactly 1
    images = images_for(sound, n)
    images.images[:, 0, 0, 0] = 128
    images.images[:dead, 0, 0, 0] = 0
    net = Changed(sound, before=lambda x: torch.where(x[:, :1, :1, :1] > 0.5, x, x.detach()))
    check = checked(net, images)[GRADIENTS]
    assert (check.state, check.detail.split(" examples")[0]) == (state, f"{dead} of {n}")


def test_saturated_logits_are_a_warning_where_some_gradients_are_left_and_fail_where_none_is(sound):
    net, images = Changed(sound, after=lambda logits: 1e5 * logits), images_for(sound)
    # by float64: right answers whose margin leaves no other class a probability in float32, 2^-149 = e^-103.3
    with torch.no_grad():
        logits = net.double()(images.images.double() / 128)
    net.float()
    others = logits.scatter(1, images.labels[:, None], -math.inf)
    expected = int((logits.gather(1, images.labels[:, None])[:, 0] - others.amax(dim=1) > 104).sum())
    assert expected == 48  # each right answer; the cross-entropy of a wrong one has a gradient
    assert not_ok(net, images) == {GRADIENTS: "warning"}
    assert checked(net, images)[GRADIENTS].detail.startswith("48 of 64 examples")
    assert not_ok(net, images_for(sound, wrong_every=0)) == {GRADIENTS: "failed"}


def test_guessing_fails_on_many_images_and_is_a_warning_on_few(sound):
    for n, state in ((1000, "failed"), (12, "warning")):
        images = images_for(sound, n)
        images.labels[:] = torch.randint(0, 5, (n,), generator=torch.Generator().manual_seed(5))
        assert not_ok(sound, images) == {CHANCE: state}


# By the score test that Wilson's interval inverts: its lower end lies above p where k - n p > z sqrt(n p (1 - p)), its
# upper end below h where n h - k > z sqrt(n h (1 - h)). With p = 1/K and h a tenth of the way from p to 1, z = 1.95996:
BORDERS = [
    # n, K, the largest count that fails, the smallest one that passes
    (100, 10, 11, 16),  # h = 0.19: 19 - k > 7.69, and k - 10 > 5.88
    (20, 2, 6, 15),  # h = 0.55: 11 - k > 4.36, and k - 10 > 4.38
    (1000, 2, 519, 531),  # 550 - k > 30.83, and k - 500 > 30.99
    (360, 10, 53, 48),  # 68.4 - k > 14.59, and k - 36 > 11.16: from 48 on it passes, though 53 lies below h too
    (10, 5, 0, 5),  # h = 0.28: 2.8 - k > 2.783 for k = 0 alone, and k - 2 > 2.48
]


@pytest.mark.parametrize(("n", "classes", "fails", "passes"), BORDERS)
def test_the_borders_of_chance_are_those_of_the_score_test(n, classes, fails, passes):
    states = [above_chance(torch.arange(n) < count, classes).state for count in range(n + 1)]
    chance = Fraction(1, classes)
    z2 = Fraction("1.959963984540054") ** 2

    def beyond(difference, p):
        return difference > 0 and difference**2 > z2 * n * p * (1 - p)

    bar = chance + (1 - chance) / 10
    by_hand = [
        "ok" if beyond(k - n * chance, chance) else "failed" if beyond(n * bar - k, bar) else "warning"
        for k in range(n + 1)
    ]
    assert states == by_hand
    assert states.index("ok") == passes
    assert states.count("failed") == min(fails + 1, passes)


def test_accuracy_is_given_in_percent_of_n():
    # 16 of 100: (0.16 + z^2/200 -+ z sqrt(0.1344/100 + z^2/40000)) / (1 + z^2/100) = 10.1, 24.4
    assert above_chance(torch.arange(100) < 16, 10).detail == "16.0% [10.1, 24.4] of 100, chance 10.0%"


class Scaled(ImageSet):
    """Images that are brought into other units than [0, 1]."""

    def __init__(self, images, to_unit):
        super().__init__(images.images, images.labels, images.num_classes, images.max_value)
        object.__setattr__(self, "change", to_unit)

    def to_unit(self, images):
        return self.change(images.float())


OUTSIDE = {
    "left in grey levels": lambda x: x,
    "normalised": lambda x: x / 128 - 0.5,
    "one ulp above 1": lambda x: (x / 128).nextafter(torch.full_like(x, 2)),
}


@pytest.mark.parametrize("to_unit", OUTSIDE.values(), ids=OUTSIDE)
def test_images_outside_the_box_fail(to_unit, sound):
    images = images_for(sound)
    images.images[5, 0, 0, 0], images.images[6, 0, 0, 0] = 128, 0
    inside = checked(sound, images)[IMAGES]
    assert (inside.state, inside.detail) == ("ok", "from 0.0000 to 1.0000")
    net = Changed(sound, before=lambda x: x / 128)  # grey levels would saturate the logits
    scaled = Scaled(images, to_unit)
    with torch.no_grad():
        right = net(to_unit(images.images.float())).argmax(dim=1)
    scaled.labels[:48] = right[:48]
    assert not_ok(net, scaled) == {IMAGES: "failed"}


@pytest.mark.parametrize(("share", "agree"), [(0.0, True), (0.9, True), (1.1, False)])
def test_logits_agree_up_to_the_tolerance_of_the_largest_one(share, agree):
    logits = torch.tensor([[0.0, 1.0], [-200.0, 3.0]])
    others = logits.clone()
    others[0, 1] += share * TOLERANCE * 200  # the largest of all examples counts, by its magnitude
    assert logits_agree(logits, others) is agree
    assert logits_agree(others, logits) is agree
    for value in (math.nan, math.inf):
        others[0, 0] = value
        assert not logits_agree(others, others)


# rounding to the nearest moves a number in [1, 2) by half a unit in the last place at most: of bfloat16's 7 bits after
# the leading one 2^-8 = 0.0039, of float16's 10 (TensorFloat-32's too) 2^-11 = 0.00049. TOLERANCE lies between.
@pytest.mark.parametrize(
    ("dtype", "error", "state"), [(torch.bfloat16, 2.0**-8, "failed"), (torch.float16, 2.0**-11, "ok")], ids=str
)
def test_logits_in_half_precision_at_large_batches_fail_as_far_as_the_tolerance_tells(dtype, error, state, linear):
    weight = torch.zeros(2, 16)
    weight[0], weight[1, 0] = error, 0.5
    net = linear(weight, [1 - 15 * error, 0.0])

    class Rounded(nn.Module):
        def forward(self, x):
            logits = net(x)
            return logits.to(dtype).float() if len(x) > 20 else logits

    # all pixels 1 but the first: its logits are 1 + error (halfway, to even: 1) or 1, and 0.5 or 0
    images = torch.full((64, 1, 4, 4), 128, dtype=torch.uint8)
    images[::2, 0, 0, 0] = 0
    check = checked(Rounded(), ImageSet(images, torch.zeros(64).long(), 2, max_value=128))
    assert check[BATCH].state == state
    assert check[BATCH].detail.startswith(f"largest difference {error:.2g}, ")
    assert [check[name].state for name in (AGAIN, ORDER)] == ["ok", "ok"]


def test_autocast_inside_the_forward_pass_of_some_batches_fails(sound):
    class Autocast(nn.Module):
        def forward(self, x):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=len(x) > 20):
                return sound(x).float()

    images = images_for(sound)
    with torch.no_grad():
        logits = sound(images.images.float() / 128)
        # weights and pixels are exact in bfloat16 (at most 8 bits), so the rounded sum is all that differs
        error = (logits - logits.bfloat16().float()).abs().max() / logits.abs().max()
    assert TOLERANCE < float(error) < 2.0**-8
    assert not_ok(Autocast(), images) == {BATCH: "failed"}


# --- after an attack


@pytest.fixture
def grey():
    """Three images of 100/255, which no float holds exactly."""
    return torch.full((3, 1, 4, 4), 100 / 255)


def problems(net, x, x_adv, threat=THREAT):
    with torch.no_grad():
        return list(after_attack(net, threat, x, x_adv, net(x_adv)))


@pytest.mark.parametrize("sign", [1, -1])
def test_one_float_beyond_the_ball_is_a_problem(sign, grey, sound):
    threat = ThreatModel("linf", "8/255")
    x = float(grey[0, 0, 0, 0])
    away = torch.tensor(float(sign * 2))
    reach = torch.tensor(x + sign * 8 / 255)
    # the farthest float32 inside, by exact fractions
    while abs(Fraction(float(reach)) - Fraction(x)) <= Fraction(8, 255):
        reach = reach.nextafter(away)
    while abs(Fraction(float(reach)) - Fraction(x)) > Fraction(8, 255):
        reach = reach.nextafter(-away)
    x_adv = grey.clone()
    x_adv[1, 0, 2, 3] = reach
    assert problems(sound, grey, x_adv, threat) == []
    x_adv[1, 0, 2, 3] = reach.nextafter(away)
    (problem,) = problems(sound, grey, x_adv, threat)
    assert problem.startswith("images left linf-8/255 (distance 0.0313725")


def test_a_distance_that_float32_rounds_onto_the_ball_is_a_problem(sound):
    # 1/8 + 2^-26 - 3 * 2^-28 = 1/8 + 2^-28, but above 1/8 float32 numbers are 2^-26 apart
    x = torch.full((1, 1, 4, 4), 0.125 + 2.0**-26)
    (problem,) = problems(sound, x, torch.full_like(x, 3 * 2.0**-28))
    assert problem.startswith("images left linf-0.125 (distance 0.125000004)")


BEYOND = {
    # 3 - 4 - 5: length 0.625
    "l2 ball": (ThreatModel("l2", "5/8"), 0.25, [0.375, 0.5], 1.0, "images left l2-0.625 (distance 0.625000"),
    "above the box": (THREAT, 1.0, [0.0, 0.0], 2.0, "images left linf-0.125 (distance "),
    "below the box": (THREAT, 0.0, [0.0, 0.0], -1.0, "images left linf-0.125 (distance "),
}


@pytest.mark.parametrize(("threat", "level", "offset", "towards", "message"), BEYOND.values(), ids=BEYOND)
def test_one_float_beyond_is_a_problem(threat, level, offset, towards, message, sound):
    x = torch.full((2, 1, 4, 4), level)
    x_adv = x.clone()
    x_adv[1, 0, 0, :2] += torch.tensor(offset)
    assert problems(sound, x, x_adv, threat) == []
    x_adv[1, 0, 0, 0] = x_adv[1, 0, 0, 0].nextafter(torch.tensor(towards))
    (problem,) = problems(sound, x, x_adv, threat)
    assert problem.startswith(message)
    assert "or the box [0, 1]" in problem
    x_adv[0, 0, 0, 0] = math.nan
    assert "(distance nan) or the box [0, 1] (nan" in problems(sound, x, x_adv, threat)[0]


@pytest.mark.parametrize(("share", "count"), [(0.9, 0), (1.1, 1)])
def test_a_second_score_that_differs_is_a_problem(share, count, grey, sound):
    with torch.no_grad():
        logits = sound(grey)
        first = logits.clone()
        first[2, 0] += share * TOLERANCE * float(first.abs().max())
        found = list(after_attack(sound, THREAT, grey, grey, first))
    assert len(found) == count
    assert all(problem.startswith("the same images get different logits when scored again (") for problem in found)


def test_scores_that_depend_on_the_position_are_a_problem(grey, sound):
    # the second score is taken in the reverse order
    net = Changed(sound, after=lambda logits: logits + torch.arange(len(logits))[:, None] * torch.arange(5))
    (problem,) = problems(net, grey, grey)
    assert problem.startswith("the same images get different logits when scored again (largest difference 8")
