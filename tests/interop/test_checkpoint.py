import copy
import dataclasses
from types import SimpleNamespace

import pytest
import torch
from variants import trained

from robust_arch.architectures import ArchSpec
from robust_arch.attacks import PGD, ThreatModel
from robust_arch.errors import InputError
from robust_arch.interop import load_checkpoint
from robust_arch.training.averaging import EMA
from robust_arch.training.module import AdversarialTraining

SPEC = ArchSpec("wide_resnet", (1, 2, 1), (4, 6, 6), stem_width=4, activation="silu")


@pytest.fixture
def net():
    """A network with statistics of its own, and a normalisation that is not the identity."""
    return trained(SPEC, 7, (2, 8, 8), {"mean": (0.25, 0.5), "std": (0.5, 0.125)})


@pytest.fixture
def content(net):
    """What a training run writes, as far as loading is concerned: weights under `net.`, and the card."""
    state = {f"net.{key}": value for key, value in net.state_dict().items()}
    return {
        "epoch": 4,
        "state_dict": {**state, "something_else": torch.ones(2)},
        "optimizer_states": [{"state": {}, "param_groups": [{"lr": 0.1}]}],
        "card": {
            "schema": 1,
            "arch": SPEC.to_dict(),
            "num_classes": 7,
            "image_shape": [2, 8, 8],
            "config": {"seed": 3, "recipe": {"name": "digits"}},
        },
    }


@pytest.fixture
def load(content, tmp_path):
    """A function that loads the content from a file."""

    def save_and_load(expected=None):
        torch.save(content, tmp_path / "best.ckpt")
        return load_checkpoint(tmp_path / "best.ckpt", expected)

    return save_and_load


def assert_same_logits(net, loaded):
    x = torch.rand(16, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    assert not loaded.training
    with torch.no_grad():
        assert torch.equal(loaded(x), net(x))


def test_every_tensor_comes_from_the_file_and_the_card_with_them(net, content, load):
    loaded = load(expected=SPEC)
    assert_same_logits(net, loaded.net)
    # logits alone would not show a count of batches, or a statistic that evaluation does not read
    state, expected = loaded.net.state_dict(), net.state_dict()
    assert list(state) == list(expected)
    assert all(torch.equal(state[key], expected[key]) for key in expected)
    assert any(key.endswith("num_batches_tracked") for key in expected)
    assert (loaded.spec, loaded.card) == (SPEC, content["card"])


def test_what_the_training_module_saves_can_be_loaded(net, content, tmp_path):
    # the key names and the card as the training module itself writes them
    averaged = copy.deepcopy(net)
    objects = (net, None, ThreatModel("linf", "8/255"), SimpleNamespace(averaging=EMA()), PGD(steps=1, rel_step_size=1))
    card = {**content["card"], "weights": "ema"}
    module = AdversarialTraining(*objects, epochs=1, steps_per_epoch=1, max_value=255, seed=0, card=card)
    with torch.no_grad():
        net.network.fc.weight.neg_()
    saved = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(saved)
    path = tmp_path / "last.ckpt"
    torch.save(saved, path)
    for given, weights, expected in ((None, "ema", averaged), ("ema", "ema", averaged), ("raw", "raw", net)):
        loaded = load_checkpoint(path, expected=SPEC, weights=given)
        assert_same_logits(expected, loaded.net)
        assert (loaded.weights, loaded.card["weights"]) == (weights, weights)
    with pytest.raises(InputError, match=f"weights = 'swa': expected raw or ema, which {path} holds"):
        load_checkpoint(path, weights="swa")


def test_a_file_with_one_set_of_weights_names_no_other(load, tmp_path):
    assert load().weights == "raw"
    with pytest.raises(InputError, match="weights = 'ema': expected raw, which"):
        load_checkpoint(tmp_path / "best.ckpt", weights="ema")


def test_loading_leaves_file_and_random_state_alone(load, tmp_path):
    load()
    written, state = (tmp_path / "best.ckpt").read_bytes(), torch.get_rng_state()
    load_checkpoint(tmp_path / "best.ckpt")
    assert (tmp_path / "best.ckpt").read_bytes() == written
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "change", [{"depths": (1, 1, 1)}, {"widths": (4, 6, 8)}, {"stem_width": 8}, {"activation": "relu"}], ids=str
)
def test_another_architecture_than_expected_is_named(change, load):
    other = dataclasses.replace(SPEC, **change)
    with pytest.raises(InputError, match=r"^arch = .*the checkpoint's own architecture") as raised:
        load(expected=other)
    assert str(other.to_dict()) in str(raised.value)
    assert str(SPEC.to_dict()) in str(raised.value)


def without_prefix(content):
    content["state_dict"] = {key.removeprefix("net."): value for key, value in content["state_dict"].items()}


NO_CARD, OTHER_WEIGHTS = r"checkpoint = '.*best\.ckpt'.*no card", "not of the architecture"
CHANGES = {
    "missing weights": (lambda it: it["state_dict"].pop("net.network.bn.running_mean"), OTHER_WEIGHTS),
    "more weights": (lambda it: it["state_dict"].update({"net.network.aux.weight": torch.ones(1)}), OTHER_WEIGHTS),
    "another shape": (lambda it: it["state_dict"].update({"net.network.fc.bias": torch.ones(6)}), OTHER_WEIGHTS),
    "not finite": (
        lambda it: it["state_dict"]["net.network.stages.1.0.conv1.weight"].view(-1)[:1].fill_(torch.inf),
        r"'net\.network\.stages\.1\.0\.conv1\.weight' is not finite",
    ),
    "no prefix": (without_prefix, OTHER_WEIGHTS),
    "another width": (
        lambda it: it["card"]["arch"].update(widths=[4, 6, 8]),
        r"not of the architecture.*widths \(4, 6, 8\)",
    ),
    "no card": (lambda it: it.pop("card"), NO_CARD),
    "an empty card": (lambda it: it.update(card={}), NO_CARD),
    "a name": (lambda it: it.update(card="wrn_34_r"), NO_CARD),
    "no arch": (lambda it: it["card"].pop("arch"), NO_CARD),
    "no classes": (lambda it: it["card"].pop("num_classes"), NO_CARD),
    "no image shape": (lambda it: it["card"].pop("image_shape"), NO_CARD),
    "no weights": (lambda it: it.pop("state_dict"), NO_CARD),
}


@pytest.mark.parametrize(("change", "message"), CHANGES.values(), ids=CHANGES)
def test_card_and_weights_must_be_there_and_belong_together(change, message, content, load):
    change(content)
    with pytest.raises(InputError, match=message):
        load()
