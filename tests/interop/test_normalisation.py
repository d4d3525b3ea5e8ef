"""Normalisation in front of published networks, against logits that are computed here without the package's layer."""

import functools

import pytest
import torch
from composition import configuration
from hydra.core.global_hydra import GlobalHydra
from second_networks import Published, randomised
from test_evaluate import GIVEN, fitted
from test_evaluate import SPEC as FITTED
from typer.testing import CliRunner

from robust_arch.architectures import ArchSpec
from robust_arch.cli import app
from robust_arch.data.digits import Digits
from robust_arch.errors import InputError
from robust_arch.evaluate import evaluate
from robust_arch.interop import load_checkpoint, load_published
from robust_arch.interop.published import published_state
from robust_arch.runs import load_study

SPEC = ArchSpec("wide_resnet", (1, 2, 1), (8, 6, 6), stem_width=4)
MEAN, STD = torch.tensor([0.25, 0.5, 0.125]), torch.tensor([0.5, 0.25, 2.0])


@pytest.fixture(scope="module")
def peer():
    return randomised(Published(SPEC.depths, SPEC.widths, SPEC.stem_width))


def behind(prefix, state):
    return {f"{prefix}{key}": value for key, value in state.items()}


LAYOUTS = {
    "mu and sigma": lambda state: {"mu": MEAN, "sigma": STD, **state},
    "images' shape": lambda state: {"mu": MEAN.view(1, 3, 1, 1), "sigma": STD.view(3, 1, 1), **state},
    "normalize": lambda state: {"normalize.mean": MEAN, "normalize.std": STD.double(), **behind("model.", state)},
    "nested": lambda state: behind("module._orig_mod.", {"mu": MEAN, "sigma": STD, **behind("model.", state)}),
    "nested otherwise": lambda state: behind("_orig_mod.model.module.", {"mu": MEAN, "sigma": STD, **state}),
    "a sequence": lambda state: {"0.mean": MEAN, "0.std": STD, **behind("1.", state)},
    "beside the weights": lambda state: {"state_dict": state, "mean": MEAN.tolist(), "std": STD.tolist()},
}


@pytest.mark.parametrize("write", LAYOUTS.values(), ids=LAYOUTS)
def test_what_a_file_carries_is_applied(write, peer, tmp_path):
    torch.save(write(peer.state_dict()), tmp_path / "net.pth")
    x = torch.rand(4, 3, 9, 9, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = peer((x - MEAN[:, None, None]) / STD[:, None, None])
        torch.testing.assert_close(load_published(tmp_path / "net.pth", SPEC)(x), expected, rtol=1e-4, atol=1e-4)


BROKEN = {
    "std alone": ({"sigma": STD}, r"carries 'sigma', but no mean"),
    "too few": ({"mu": MEAN[:2], "sigma": STD}, r"'mu' is not one number for each of the network's 3 channels"),
    "zero": (
        {"mu": MEAN, "sigma": STD * 0},
        r"'sigma' = \[0\.0, 0\.0, 0\.0\]: expected numbers .* greater than 0",
    ),
    "zero in float32": ({"mu": MEAN, "sigma": STD.double() * 1e-60}, r"greater than 0"),
    "not finite": ({"mu": MEAN / 0, "sigma": STD}, r"'mu' = \[inf.*finite"),
    "contradicting": ({"mu": MEAN, "normalize.mean": STD, "sigma": STD}, r"contradict each other"),
    "the same key twice": ({"module.fc.bias": torch.zeros(10)}, r"two keys name the same tensor 'fc\.bias'"),
}


@pytest.mark.parametrize(("extra", "message"), BROKEN.values(), ids=BROKEN)
def test_half_a_normalisation_is_refused(extra, message, peer):
    with pytest.raises(InputError, match=message):
        load_published({**peer.state_dict(), **extra}, SPEC)


# --- evaluation of a network that was trained behind the mean and std of its training images


@functools.cache
def task():
    """Training statistics, and a network that was fitted behind them."""
    splits = Digits(name="digits", val_fraction=0.167).load()
    x = splits.train.images.double() / splits.train.max_value
    mean, std = float(x.mean()), float(x.std(correction=0))
    return splits.test, mean, std, fitted(mean, std, 0.167)


def accuracy(mean, std):
    test, _, _, net = task()
    with torch.no_grad():
        classes = net.network((test.images.float() / test.max_value - mean) / std).argmax(dim=1)
    return 100 * float((classes == test.labels).float().mean())


@pytest.fixture
def bare(tmp_path):
    """The fitted network's weights, as a published file without the normalisation."""
    torch.save({"state_dict": published_state(task()[3], FITTED)}, tmp_path / "bare.pth")
    return tmp_path / "bare.pth"


def run(folder, file, *overrides):
    settings = ["evaluate.attacks=[fgsm]", "data=digits", "threat.eps=0.05", "trainer.accelerator=cpu"]
    return evaluate(configuration(folder, *settings, f"checkpoint={file}", *overrides, config="evaluate")).content


def test_evaluations_of_one_file_behind_different_normalisations(bare, tmp_path):
    _, mean, std, _ = task()
    none = run(tmp_path, bare, *GIVEN)
    dataset = run(tmp_path, bare, *GIVEN, "evaluate.normalize=dataset")
    given = run(tmp_path, bare, *GIVEN, f"evaluate.mean=[{mean}]", f"evaluate.std=[{std}]")
    assert none["clean"]["percent"] == pytest.approx(accuracy(0, 1))
    assert dataset["clean"]["percent"] == pytest.approx(accuracy(mean, std))
    assert accuracy(mean, std) > accuracy(0, 1) + 10  # otherwise nothing could be told apart
    # the same network by another way is the same run, another network is another
    assert given["run_id"] == dataset["run_id"] != none["run_id"]
    assert len(load_study(tmp_path / "results" / "external")) == 2
    wrong = run(tmp_path, bare, *GIVEN, "evaluate.mean=[0.9]", "evaluate.std=[3]", "rerun=true")
    for content in (none, wrong):
        assert any("another normalisation" in warning for warning in content["warnings"])
    assert not any("another normalisation" in warning for warning in dataset["warnings"])
    runs = tmp_path / "results" / "external" / "runs"
    cards = [(runs / each["run_id"] / "evaluations" / "card.md").read_text() for each in (none, dataset)]
    assert "**Normalisation:** none assumed" in cards[0]
    assert "another normalisation" in cards[0]
    assert f"**Normalisation:** mean [{mean:.4g}], std [{std:.4g}]" in cards[1]


def test_a_file_that_carries_its_normalisation(bare, tmp_path):
    _, mean, std, _ = task()
    state = torch.load(bare, weights_only=True)["state_dict"]
    torch.save({"mu": torch.tensor([mean]), "sigma": torch.tensor([std]), **state}, tmp_path / "carries.pth")
    content = run(tmp_path, tmp_path / "carries.pth", *GIVEN)
    assert content["clean"]["percent"] == pytest.approx(accuracy(mean, std))
    assert "carried by the file" in content["normalisation"]["text"]
    assert not any("another normalisation" in warning for warning in content["warnings"])
    # what rounds to the same is no contradiction, and is the same run
    same = run(tmp_path, tmp_path / "carries.pth", *GIVEN, f"evaluate.mean=[{mean:.4f}]", f"evaluate.std=[{std:.4f}]")
    assert same["run_id"] == content["run_id"]
    for other in (["evaluate.mean=[0.1]", "evaluate.std=[0.2]"], ["evaluate.normalize=identity"]):
        with pytest.raises(InputError, match=r"evaluate\.\w+ = .*what the file carries itself"):
            run(tmp_path, tmp_path / "carries.pth", *GIVEN, *other)


ARCH = ("--depths", "1,1,1", "--widths", "4,8,6", "--stem-width", "4")


@pytest.mark.parametrize("options", ["numbers", "dataset"])
def test_an_imported_network_keeps_its_normalisation(options, bare, tmp_path):
    _, mean, std, _ = task()
    request = ("--mean", repr(mean), "--std", repr(std))
    if options == "dataset":
        GlobalHydra.instance().clear()
        request = ("--normalize", "dataset", "--data", "digits")
    out = tmp_path / "net.ckpt"
    result = CliRunner().invoke(app, ["import", str(bare), str(out), *ARCH, "--image-size", "8", *request])
    assert result.exit_code == 0, (result.output, result.exception)
    assert f"normalisation: mean [{mean:.4g}], std [{std:.4g}]" in result.output
    assert load_checkpoint(out).net.normalize.mean.item() == pytest.approx(mean)
    content = run(tmp_path, out)
    assert content["clean"]["percent"] == pytest.approx(accuracy(mean, std))
    assert not any("another normalisation" in warning for warning in content["warnings"])
    with pytest.raises(InputError, match=r"evaluate\.normalize = 'dataset': expected nothing, as a checkpoint"):
        run(tmp_path, out, "evaluate.normalize=dataset")


def test_a_network_imported_without_its_normalisation_gets_the_warning(bare, tmp_path):
    CliRunner().invoke(app, ["import", str(bare), str(tmp_path / "net.ckpt"), *ARCH, "--image-size", "8"])
    content = run(tmp_path, tmp_path / "net.ckpt")
    assert any("another normalisation" in warning for warning in content["warnings"])


REFUSED = {
    "mean alone": (["evaluate.mean=[0.3]"], r"evaluate\.std = None"),
    "std alone": (["evaluate.std=[0.3]"], r"evaluate\.mean = None"),
    "a number": (
        ["evaluate.mean=0.3", "evaluate.std=[1]"],
        r"evaluate\.mean = 0\.3: expected one finite number",
    ),
    "a word": (["evaluate.mean=[a]", "evaluate.std=[1]"], r"evaluate\.mean = \['a'\]"),
    "true": (["evaluate.mean=[true]", "evaluate.std=[1]"], r"evaluate\.mean = \[True\]"),
    "not finite": (["evaluate.mean=[nan]", "evaluate.std=[1]"], r"evaluate\.mean = \[nan\]"),
    "zero": (
        ["evaluate.mean=[0.3]", "evaluate.std=[0]"],
        r"evaluate\.std = \[0\.0\]: expected numbers .* greater than 0",
    ),
    "negative": (
        ["evaluate.mean=[0.3]", "evaluate.std=[-1]"],
        r"evaluate\.std = \[-1\.0\]: expected numbers .* greater than 0",
    ),
    "lengths": (["evaluate.mean=[0.3]", "evaluate.std=[1,1]"], r"evaluate\.std = \[1, 1\]: expected as many numbers"),
    "channels": (["evaluate.mean=[0.3,0.3]", "evaluate.std=[1,1]"], r"evaluate\.mean = .*network's 1 channels"),
    "a mode": (["evaluate.normalize=imagenet"], r"evaluate\.normalize = 'imagenet': expected one of dataset, identity"),
    "both": (["evaluate.normalize=dataset", "evaluate.std=[1]"], r"evaluate\.std = \[1\]: expected nothing beside"),
}


@pytest.mark.parametrize(("overrides", "message"), REFUSED.values(), ids=REFUSED)
def test_bad_normalisations_are_named_and_nothing_is_recorded(overrides, message, bare, tmp_path):
    with pytest.raises(InputError, match=message):
        run(tmp_path, bare, *GIVEN, *overrides)
    assert not (tmp_path / "results").exists()
