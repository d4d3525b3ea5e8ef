"""Averaged weights against closed forms and against torch.optim.swa_utils, a second implementation."""

import copy

import pytest
import torch
from small_training import EPOCHS, SIZE, STEPS, Small, images, train
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn
from torch.utils.data import DataLoader, TensorDataset

from robust_arch.errors import InputError
from robust_arch.training.averaging import EMA, SWA, recompute_statistics


@pytest.fixture
def history():
    """The states of a network, one per step: weights and statistics are random, counts of batches grow."""
    torch.manual_seed(0)
    states = []
    for step in range(STEPS * EPOCHS):
        net = Small()
        net[1].running_mean.normal_()
        net[1].running_var.uniform_(0.5, 2)
        net[1].num_batches_tracked.fill_(step + 1)
        states.append(net.state_dict())
    return states


def averages(averaging, history):
    """The average after each step, from a copy of the first state."""
    net, averaged = Small(), Small()
    averaged.load_state_dict(history[0])
    for step, state in enumerate(history, start=1):
        net.load_state_dict(state)
        averaging.update(averaged, net, step, STEPS, EPOCHS)
        yield copy.deepcopy(averaged.state_dict())


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name].to(tensor.dtype), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("decay", [0.0, 0.9, 0.995])
def test_ema_is_torchs(history, decay):
    net = Small()
    net.load_state_dict(history[0])
    torchs = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
    torchs.update_parameters(net)  # the first one is a copy
    for found, state in zip(averages(EMA(decay=decay, warmup=False), history), history, strict=True):
        net.load_state_dict(state)
        torchs.update_parameters(net)
        expected = torchs.module.state_dict()
        # torch averages the count of batches too, which nothing reads
        assert_close(found, expected | {"1.num_batches_tracked": state["1.num_batches_tracked"]})


def test_ema_is_the_weighted_sum_of_all_states(history):
    # decay d at every step: a_T = d^T w_0 + (1 - d) sum over t of d^(T - t) w_t, in float64
    decay = 0.8
    *_, found = averages(EMA(decay=decay, warmup=False), history)
    steps = len(history)
    shares = [decay**steps] + [(1 - decay) * decay ** (steps - step) for step in range(1, steps + 1)]
    assert sum(shares) == pytest.approx(1)
    states = [history[0], *history]
    for name in ("0.weight", "1.running_var"):
        expected = sum(share * state[name].double() for share, state in zip(shares, states, strict=True))
        torch.testing.assert_close(found[name].double(), expected, rtol=1e-5, atol=1e-6)


def test_the_warm_up_limits_the_decay():
    # (1 + t) / (10 + t): 2/11, 3/12, ... until it exceeds the decay: 0.995 from t = 1,790 on
    ema = EMA(decay=0.995)
    shares = [1 - ema.share(step, STEPS, EPOCHS) for step in (1, 2, 90, 1789, 1790, 10**6)]
    assert shares == pytest.approx([2 / 11, 3 / 12, 91 / 100, 1790 / 1799, 0.995, 0.995], rel=1e-12)
    assert shares[3] < 0.995


@pytest.mark.parametrize(("every", "start"), [("epoch", 0.25), ("epoch", 0.3), ("step", 0.5), ("step", 0.0)])
def test_swa_is_torchs(history, every, start):
    first = {0.25: 1, 0.3: 2, 0.5: 2, 0.0: 0}[start]  # epoch of the first network in the mean, from 0
    net = Small()
    torchs = AveragedModel(net, use_buffers=True)
    *_, found = averages(SWA(every=every, start=start), history)
    for step, state in enumerate(history, start=1):
        net.load_state_dict(state)
        if step > first * STEPS and (every == "step" or step % STEPS == 0):
            torchs.update_parameters(net)
    expected = torchs.module.state_dict()
    assert int(torchs.n_averaged) == (EPOCHS - first) * (STEPS if every == "step" else 1)
    assert_close(found, expected | {"1.num_batches_tracked": history[-1]["1.num_batches_tracked"]})


def test_swa_is_a_copy_before_it_starts(history):
    found = list(averages(SWA(start=0.5), history))
    for epoch in (1, 2, 3):  # the mean of the first network is that network
        for name, tensor in history[epoch * STEPS - 1].items():
            assert torch.equal(found[epoch * STEPS - 1][name], tensor)


@pytest.mark.parametrize(
    ("every", "start", "left"),
    [("epoch", 0.75, 1), ("epoch", 0.76, 0), ("epoch", 0.5, None), ("step", 0.76, 0), ("step", 0.75, None)],
)
def test_an_average_that_will_equal_the_weights_is_announced(history, every, start, left):
    swa = SWA(every=every, start=start)
    *_, found = averages(swa, history)
    assert (swa.warning(EPOCHS) is None) == (left is None)
    assert all(torch.equal(found[name], tensor) for name, tensor in history[-1].items()) == (left is not None)
    if left is not None:
        assert f"start = {start} leaves {left} of trainer.max_epochs = {EPOCHS} to average" in swa.warning(EPOCHS)
    assert EMA().warning(1) is None


def test_equal_weights_stay_equal_to_the_last_bit(history):
    for averaging in (EMA(), EMA(decay=0.3, warmup=False), SWA(start=0.0, every="step")):
        *_, found = averages(averaging, [history[0]] * 9)
        assert all(torch.equal(found[name], tensor) for name, tensor in history[0].items())


@pytest.mark.parametrize(
    ("kind", "key", "values", "allowed"),
    [
        (EMA, "decay", [1, 1.5, -0.1, True, float("nan"), "x"], r"a number in \[0, 1\)"),
        (EMA, "warmup", [0, None], "true or false"),
        (EMA, "select", ["ema", None], "averaged or raw"),
        (SWA, "start", [1, -0.1, True, float("nan"), "x"], r"a fraction of all epochs, in \[0, 1\)"),
        (SWA, "every", ["batch", 1], "epoch or step"),
        (SWA, "batch_norm", ["clean", None], "average or recompute"),
    ],
)
def test_a_value_that_is_not_allowed_is_named(kind, key, values, allowed):
    for value in values:
        with pytest.raises(InputError, match=rf"recipe\.averaging\.{key} = .*: expected {allowed}"):
            kind(**{key: value})


def test_records_name_every_setting_that_is_not_the_default():
    named = [str(each) for each in (EMA(), EMA(decay=0.995, warmup=False, select="raw"), SWA(every="step"))]
    assert named == ["ema", "ema:select-raw:decay-0.995:warmup-false", "swa:every-step"]


def test_statistics_are_torchs_for_batches_of_one_size():
    torch.manual_seed(1)
    x = torch.rand(24, 1, 6, 6)
    net, torchs = Small(), Small()
    torchs.load_state_dict(net.state_dict())
    recompute_statistics(net.eval(), x.split(8))
    update_bn(DataLoader(TensorDataset(x), batch_size=8), torchs)
    assert_close(net.state_dict(), torchs.state_dict())


def test_statistics_by_hand():
    # two batches of 1 x 1 images, of sizes 2 and 4: the mean of batch means (and unbiased variances), by size
    net = nn.BatchNorm2d(1, momentum=0.3).eval()
    net.running_mean.fill_(7)
    recompute_statistics(net, [torch.tensor([1.0, 3]).view(2, 1, 1, 1), torch.tensor([0.0, 0, 6, 6]).view(4, 1, 1, 1)])
    assert float(net.running_mean) == pytest.approx((2 * 2 + 4 * 3) / 6)
    assert float(net.running_var) == pytest.approx((2 * 2 + 4 * 12) / 6)
    assert net.momentum == 0.3
    assert not net.training


def test_statistics_see_no_dropout_and_leave_modes_and_other_tensors():
    torch.manual_seed(2)
    net = nn.Sequential(nn.Dropout(0.9), Small(dropout=0.9)).train()
    net[1][2].eval()
    modes = [module.training for module in net.modules()]
    weights = [parameter.clone() for parameter in net.parameters()]
    x = torch.rand(8, 1, 6, 6)
    state = torch.get_rng_state()
    recompute_statistics(net, [x])
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in net.modules()] == modes
    assert all(torch.equal(*pair) for pair in zip(net.parameters(), weights, strict=True))
    torch.testing.assert_close(net[1][1].running_mean, net[1][0](x).mean(dim=(0, 2, 3)))


def part(state, prefix):
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def clean_accuracy(state):
    """Of a state on the 40 held-out images, in percent."""
    net = Small()
    net.load_state_dict(state)
    held_out = images(1, 40)
    correct = net.eval()(held_out.images.float() / 255).argmax(dim=1) == held_out.labels
    return 100 * float(correct.float().mean())


def test_training_keeps_both_and_the_average_is_that_of_its_steps(tmp_path):
    *_, plain_rows, plain = train(tmp_path / "plain")
    best, last, rows, states = train(tmp_path / "ema", averaging=EMA(decay=0.9))
    # averaging changes nothing of what is trained
    assert all(torch.equal(one[key], other[key]) for one, other in zip(plain, states, strict=True) for key in one)
    assert {key.split(".")[0] for key in last} == {"net", "averages"}
    assert all(torch.equal(tensor, states[-1][key]) for key, tensor in part(last, "net.").items())
    # the shares by hand: the decay after step t is at most (1 + t) / (10 + t), which is below 0.9 for t < 80
    expected = {key: value.double() for key, value in states[0].items()}
    for step, state in enumerate(states[1:], start=1):
        decay = (1 + step) / (10 + step)
        expected = {key: decay * expected[key] + (1 - decay) * state[key].double() for key in expected}
    averaged = part(last, "averages.ema.")
    assert_close(averaged, expected | {"1.num_batches_tracked": states[-1]["1.num_batches_tracked"]})
    # both are validated, and the averaged ones decide the best epoch
    assert rows[-1]["val_clean_acc"] == pytest.approx(clean_accuracy(averaged))
    assert rows[-1]["val_raw_clean_acc"] == pytest.approx(clean_accuracy(part(last, "net.")))
    for own, its in zip(plain_rows, rows, strict=True):
        assert own["val_robust_count"] == its["val_raw_robust_count"]
        assert own["val_fgsm_acc"] == its["val_raw_fgsm_acc"]
    chosen = max(range(EPOCHS), key=lambda epoch: rows[epoch]["val_robust_count"])
    assert all(torch.equal(part(best, "net.")[key], states[STEPS * (chosen + 1)][key]) for key in states[0])


def test_raw_weights_select_on_request(tmp_path):
    _, _, plain_rows, _ = train(tmp_path / "plain")
    best, _, rows, states = train(tmp_path / "raw", averaging=EMA(select="raw", decay=0.9))
    for own, its in zip(plain_rows, rows, strict=True):
        assert {key: value for key, value in its.items() if "averaged" not in key and key != "seconds"} == {
            key: value for key, value in own.items() if key != "seconds"
        }
    chosen = max(range(EPOCHS), key=lambda epoch: rows[epoch]["val_robust_count"])
    assert all(torch.equal(part(best, "net.")[key], states[STEPS * (chosen + 1)][key]) for key in states[0])


def test_statistics_of_the_mean_are_those_of_clean_training_images(tmp_path):
    _, last, _, states = train(tmp_path, averaging=SWA(start=0.5))
    averaged = part(last, "averages.swa.")
    weights = [key for key, _ in Small().named_parameters()]
    for key in weights:  # of the last two epochs
        torch.testing.assert_close(averaged[key], (states[STEPS * 3][key] + states[STEPS * 4][key]) / 2)
    # over three batches of 16 of the 53 images, in some order; means over all images are close, not equal
    net = Small()
    net.load_state_dict(averaged)
    activations = net[0](images(0, SIZE).images.float() / 255)
    torch.testing.assert_close(averaged["1.running_mean"], activations.mean(dim=(0, 2, 3)), rtol=0.05, atol=0.01)
    torch.testing.assert_close(averaged["1.running_var"], activations.var(dim=(0, 2, 3)), rtol=0.1, atol=0.01)
    assert int(averaged["1.num_batches_tracked"]) == STEPS
    mean = (states[STEPS * 3]["1.running_mean"] + states[STEPS * 4]["1.running_mean"]) / 2
    assert not torch.allclose(averaged["1.running_mean"], mean, rtol=1e-4)
