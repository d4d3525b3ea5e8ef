"""The commands around checkpoints, with the CIFAR-10 ResNet-18 that pyautoattack ships as a published file."""

from pathlib import Path

import pyautoattack
import pytest
import torch
from pyautoattack.examples.resnet import ResNet18
from second_networks import Published, Trades, randomised
from typer.testing import CliRunner
from variants import WIDE

from robust_arch.architectures import PRESETS, ArchSpec
from robust_arch.cli import app
from robust_arch.interop import load_checkpoint, load_published, open_checkpoint

SHIPPED = Path(pyautoattack.__file__).parent / "examples" / "model_test.pt"


def command(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def assert_refused(result, message):
    """One line of error, exit status 1."""
    assert result.exit_code == 1
    assert result.exception.code.startswith("error: ")
    assert message in result.exception.code
    assert "\n" not in result.exception.code


@pytest.fixture(scope="module")
def shipped():
    """The package's own network with its own weights."""
    net = ResNet18()
    net.load_state_dict(torch.load(SHIPPED, weights_only=True, map_location="cpu"))
    return net.eval()


def images(count=4):
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(2))


def test_the_shipped_resnet18_gives_the_logits_of_its_own_code(shipped):
    net, x = load_published(SHIPPED, PRESETS["resnet18"]), images()
    with torch.no_grad():
        # another order of summation in the pooling, and nothing else
        torch.testing.assert_close(net(x), shipped(x), rtol=1e-5, atol=1e-5)
        x = x[:1].double()
        torch.testing.assert_close(net.double()(x), shipped.double()(x), rtol=1e-12, atol=1e-12)
    shipped.float()


def test_importing_the_shipped_resnet18_and_exporting_it_again_gives_its_weights(shipped, tmp_path):
    out = tmp_path / "resnet18.ckpt"
    result = command("import", SHIPPED, out, "--arch", "resnet18")
    assert result.exit_code == 0, result.output
    assert f"written: {out} (key names of pytorch_cifar)" in result.output
    loaded = load_checkpoint(out, expected=PRESETS["resnet18"])
    assert loaded.card["num_classes"] == 10
    assert loaded.card["image_shape"] == [3, 32, 32]
    assert loaded.card["source"]["file"] == "model_test.pt"
    x = images()
    with torch.no_grad():
        torch.testing.assert_close(loaded.net(x), shipped(x), rtol=1e-5, atol=1e-5)
    result = command("export", out, tmp_path / "again.pt", "--format", "published")
    assert result.exit_code == 0, result.output
    first = torch.load(SHIPPED, weights_only=True, map_location="cpu")
    second = torch.load(tmp_path / "again.pt", weights_only=True)["model_state_dict"]
    assert list(second) == list(first)
    assert all(torch.equal(second[key], first[key]) for key in first)


@pytest.fixture
def published(tmp_path):
    peer = randomised(Published(WIDE.depths, WIDE.widths, WIDE.stem_width, num_classes=5, channels=1))
    torch.save({"model_state_dict": peer.state_dict()}, tmp_path / "published.pth")
    return tmp_path / "published.pth"


STAGES = ("--depths", "1,2,1", "--widths", "8,6,6", "--stem-width", 4)


def test_an_architecture_by_its_stages(published, tmp_path):
    out = tmp_path / "new" / "net.ckpt"
    result = command("import", published, out, *STAGES, "--activation", "silu", "--image-size", 28)
    assert result.exit_code == 0, result.output
    assert "(key names of huang2021)" in result.output
    loaded = load_checkpoint(out)
    assert loaded.spec == ArchSpec("wide_resnet", (1, 2, 1), (8, 6, 6), stem_width=4, activation="silu")
    assert (loaded.card["num_classes"], loaded.card["image_shape"]) == (5, [1, 28, 28])


def test_an_architecture_by_its_name(published, tmp_path):
    result = command("import", published, tmp_path / "net.ckpt", "--arch", "wide_resnet-d1-2-1-w8-6-6-stem4")
    assert result.exit_code == 0, result.output
    assert load_checkpoint(tmp_path / "net.ckpt").spec == WIDE


def test_every_export_by_command(published, tmp_path):
    command("import", published, tmp_path / "net.ckpt", *STAGES, "--image-size", 8)
    for form in ("safetensors", "onnx"):
        result = command("export", tmp_path / "net.ckpt", tmp_path / form, "--format", form)
        assert result.exit_code == 0, result.output
        assert f"written: {tmp_path / form}" in result.output
        assert open_checkpoint(tmp_path / form).spec == WIDE
    result = command("export", tmp_path / "net.ckpt", tmp_path / "t.pt", "--format", "published", "--layout", "trades")
    assert result.exit_code == 0, result.output
    assert "block1.layer.0.conv1.weight" in torch.load(tmp_path / "t.pt", weights_only=True)["model_state_dict"]


def test_import_says_what_it_leaves_out(tmp_path, caplog):
    caplog.set_level("INFO")
    torch.save(randomised(Trades((1, 1, 1), (8, 6, 4), 4)).state_dict(), tmp_path / "net.pt")
    stages = ("--depths", "1,1,1", "--widths", "8,6,4", "--stem-width", 4)
    result = command("import", tmp_path / "net.pt", tmp_path / "net.ckpt", *stages)
    assert result.exit_code == 0, result.output
    assert "(key names of trades)" in result.output
    assert "tensors under sub_block1." in caplog.text


REFUSED = [
    ((), "arch = None: expected the architecture: either --arch <preset>, or --depths and --widths"),
    (("--arch", "wrn_34_r", "--depths", "1,2,1"), "arch = 'wrn_34_r': expected the architecture: either"),
    (("--arch", "wrn_1"), "arch = 'wrn_1': expected a preset's name, or one like wide_resnet-d2-2-2-w16-32-64"),
    (("--depths", "1,2,1"), "--widths = None: expected integers, one per stage, like 5,5,5"),
    (("--depths", "1-2-1", "--widths", "8,6,6"), "--depths = '1-2-1': expected integers, one per stage"),
    (("--depths", "1,2", "--widths", "8,6"), "arch.depths = (1, 2): expected 3 stages, as family wide_resnet has"),
    ((*STAGES, "--family", "resnext"), "arch.family = 'resnext'"),
    ((*STAGES, "--activation", "tanh"), "arch.activation = 'tanh'"),
    ((*STAGES, "--image-size", 0), "image-size = 0: expected at least 1"),
    (("--arch", "wrn_34_r"), "not of the architecture wide_resnet, depths (5, 5, 5)"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED, ids=[message[:40] for _, message in REFUSED])
def test_bad_imports_are_one_line_and_write_nothing(options, message, published, tmp_path):
    assert_refused(command("import", published, tmp_path / "out.ckpt", *options), message)
    assert [path.name for path in tmp_path.iterdir()] == ["published.pth"]


def test_import_replaces_a_file_only_if_asked(published, tmp_path):
    out = tmp_path / "out.ckpt"
    out.write_text("mine")
    assert_refused(command("import", published, out, *STAGES), "--force replaces it")
    assert out.read_text() == "mine"
    assert command("import", published, out, *STAGES, "--force").exit_code == 0
    assert load_checkpoint(out).spec == WIDE
    assert_refused(
        command("import", published, published, *STAGES, "--force"), "another file than the one that is read"
    )
    assert_refused(command("import", out, tmp_path / "b.ckpt", *STAGES), "this is one of this project already")
    assert_refused(command("import", tmp_path / "none", tmp_path / "b.ckpt", *STAGES), "no such file")


@pytest.mark.parametrize(
    ("file", "form", "message"),
    [("none", "onnx", "no such file"), ("published.pth", "onnx", "published checkpoint"), ("a", "pt", "format = 'pt'")],
)
def test_bad_exports_are_one_line(file, form, message, published, tmp_path):
    assert_refused(command("export", tmp_path / file, tmp_path / "o", "--format", form), message)


@pytest.mark.parametrize("name", ["import", "export"])
def test_help_has_an_example(name):
    assert f"Example: robust-arch {name} " in command(name, "--help").output
