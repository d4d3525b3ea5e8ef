import dataclasses

import pytest
import torch

from robust_arch.architectures import ArchSpec, build
from robust_arch.attacks import PGD, ThreatModel
from robust_arch.errors import InputError
from robust_arch.interop import load_checkpoint
from robust_arch.training.module import AdversarialTraining

SPEC = ArchSpec("wide_resnet", (1, 2, 1), (4, 6, 6), stem_width=4, activation="silu")
MEAN, STD = (0.25, 0.5), (0.5, 0.125)


@pytest.fixture
def net():
    """A network with statistics of its own, and a normalisation that is not the identity."""
    net = build(SPEC, 7, (2, 8, 8), mean=MEAN, std=STD, seed=3)
    net.train()(images())
    return net.eval()


def images():
    return torch.rand(16, 2, 8, 8, generator=torch.Generator().manual_seed(0))


def checkpoint(net):
    """What a training run writes, as far as loading is concerned: weights under `net.`, and the card."""
    state = {f"net.{key}": value for key, value in net.state_dict().items()}
    return {
        "epoch": 4,
        "global_step": 50,
        "state_dict": {**state, "something_else": torch.ones(2)},
        "optimizer_states": [{"state": {}, "param_groups": [{"lr": 0.1}]}],
        "card": {
            "schema": 1,
            "package_version": "0.1.0",
            "run_id": "0123456789ab",
            "arch": SPEC.to_dict(),
            "num_classes": 7,
            "image_shape": [2, 8, 8],
            "config": {"seed": 3, "recipe": {"name": "digits"}},
        },
    }


@pytest.fixture
def path(net, tmp_path):
    path = tmp_path / "best.ckpt"
    torch.save(checkpoint(net), path)
    return path


def test_logits_are_those_of_the_saved_network(net, path):
    loaded = load_checkpoint(path)
    assert not loaded.net.training
    with torch.no_grad():
        assert torch.equal(loaded.net(images()), net(images()))


def test_every_tensor_comes_from_the_file(net, path):
    # logits alone would not show a count of batches, or a statistic that evaluation does not read
    state, expected = load_checkpoint(path).net.state_dict(), net.state_dict()
    assert list(state) == list(expected)
    assert all(torch.equal(state[key], expected[key]) for key in expected)
    assert any(key.endswith("num_batches_tracked") for key in expected)


def test_what_the_training_module_saves_can_be_loaded(net, tmp_path):
    # the key names and the card as the training module itself writes them
    objects = (net, None, ThreatModel("linf", "8/255"), None, PGD(steps=1, rel_step_size=1))
    card = checkpoint(net)["card"]
    module = AdversarialTraining(*objects, epochs=1, steps_per_epoch=1, max_value=255, seed=0, card=card)
    content = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(content)
    torch.save(content, tmp_path / "last.ckpt")
    loaded = load_checkpoint(tmp_path / "last.ckpt", expected=SPEC)
    with torch.no_grad():
        assert torch.equal(loaded.net(images()), net(images()))


def test_the_card_is_handed_over(net, path):
    loaded = load_checkpoint(path)
    assert loaded.spec == SPEC
    assert loaded.card == checkpoint(net)["card"]


def test_loading_leaves_file_and_random_state_alone(path):
    content, state = path.read_bytes(), torch.get_rng_state()
    load_checkpoint(path)
    assert path.read_bytes() == content
    assert torch.equal(torch.get_rng_state(), state)


def test_the_expected_architecture_passes(path):
    assert load_checkpoint(path, expected=SPEC).spec == SPEC


@pytest.mark.parametrize(
    "change", [{"depths": (1, 1, 1)}, {"widths": (4, 6, 8)}, {"stem_width": 8}, {"activation": "relu"}], ids=str
)
def test_another_architecture_than_expected_is_named(change, path):
    other = dataclasses.replace(SPEC, **change)
    with pytest.raises(InputError, match=r"^arch = .*the checkpoint's own architecture") as raised:
        load_checkpoint(path, expected=other)
    assert str(other.to_dict()) in str(raised.value)
    assert str(SPEC.to_dict()) in str(raised.value)


def test_a_card_of_another_architecture_than_the_weights_is_refused(net, tmp_path):
    content = checkpoint(net)
    content["card"]["arch"]["widths"] = [4, 6, 8]
    torch.save(content, tmp_path / "best.ckpt")
    with pytest.raises(InputError, match=r"not of the architecture.*widths \(4, 6, 8\)"):
        load_checkpoint(tmp_path / "best.ckpt")


CHANGED_STATES = {
    "missing": lambda state: state.pop("net.network.bn.running_mean"),
    "extra": lambda state: state.update({"net.network.aux.weight": torch.ones(1)}),
    "another shape": lambda state: state.update({"net.network.fc.bias": torch.ones(6)}),
    "no prefix": lambda state: [state.update({key.removeprefix("net."): state.pop(key)}) for key in list(state)],
}


@pytest.mark.parametrize("change", CHANGED_STATES.values(), ids=CHANGED_STATES)
def test_every_weight_must_be_accounted_for(change, net, tmp_path):
    content = checkpoint(net)
    change(content["state_dict"])
    torch.save(content, tmp_path / "best.ckpt")
    with pytest.raises(InputError, match="not of the architecture"):
        load_checkpoint(tmp_path / "best.ckpt")


NO_CARDS = {"none": None, "empty": {}, "a name": "wrn_34_r", "no arch": {"num_classes": 7, "image_shape": [2, 8, 8]}}


@pytest.mark.parametrize("card", NO_CARDS.values(), ids=NO_CARDS)
def test_a_file_without_a_card_is_named(card, net, tmp_path):
    content = checkpoint(net)
    content["card"] = card
    if card is None:
        del content["card"]
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(InputError, match=r"checkpoint = '.*other\.ckpt'.*no card"):
        load_checkpoint(tmp_path / "other.ckpt")


@pytest.mark.parametrize("part", ["num_classes", "image_shape", "state_dict"])
def test_a_card_without_its_weights_or_task_is_refused(part, net, tmp_path):
    content = checkpoint(net)
    (content if part in content else content["card"]).pop(part)
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(InputError, match=r"checkpoint"):
        load_checkpoint(tmp_path / "other.ckpt")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"checkpoint = '.*best\.ckpt': no such file"):
        load_checkpoint(tmp_path / "best.ckpt")


def test_a_file_cut_off_is_refused(path):
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(InputError, match=r"checkpoint = '.*best\.ckpt'"):
        load_checkpoint(path)
