"""A network of the user's own through every command, and files that name code which must not run."""

import json
import shutil
import sys

import pandas as pd
import pytest
import torch
import yaml
from commands import SMALL, call
from typer.testing import CliRunner

from robust_arch.architectures import CustomArch
from robust_arch.cli import app
from robust_arch.configuration.settings import read_settings
from robust_arch.errors import InputError
from robust_arch.execution.run import Run
from robust_arch.interop import load_checkpoint, open_checkpoint
from robust_arch.study.plan_table import plan_tables, plans_from_command

MODULE = """
from torch import nn

class MyNet(nn.Module):
    def __init__(self, width: int = 4, num_classes: int = 10):
        super().__init__()
        self.conv = nn.Conv2d(1, width, 3, stride=2)
        self.norm = nn.BatchNorm2d(width)
        self.fc = nn.Linear(9 * width, num_classes)

    def forward(self, x):
        return self.fc(self.norm(self.conv(x)).relu().flatten(1))

class Pair(MyNet):
    def forward(self, x):
        return super().forward(x), x
"""
HOSTILE = "from pathlib import Path\nPath({trace!r}).touch()\n"
NAMED = ("arch._target_=my_network.MyNet", "arch.width=6")
FEW = (*SMALL[2:], "evaluate.smoothness=10")
SPEC = CustomArch("my_network.MyNet", {"width": 6})


@pytest.fixture(scope="module", autouse=True)
def own_path():
    """The commands add the current folder to the path; not for other tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path])
        yield
    sys.modules.pop("my_network", None)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with the module and a study of two networks."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "my_network.py").write_text(MODULE)
    done = call("robust_arch.train", "-m", *NAMED[:1], "arch.width=4,6", *FEW, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def study(trained, tmp_path, monkeypatch):
    """A copy of the study in the current folder, beside a module of that name that leaves `trace` when imported."""
    shutil.copytree(trained / "results" / "single", tmp_path / "results" / "single")
    (tmp_path / "my_network.py").write_text(HOSTILE.format(trace=str(tmp_path / "trace")))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_network", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tool(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)), env={"COLUMNS": "240"})


def checkpoint_of(folder, width=6):
    frame = pd.read_csv(folder / "results" / "single" / "results.csv")
    (run_id,) = set(frame["run_id"][frame["arch"] == f"my_network.MyNet-width={width}"])
    return folder / "results" / "single" / "runs" / run_id / "checkpoints" / "best.ckpt"


def test_it_is_recorded_like_the_rest(trained):
    frame = pd.read_csv(trained / "results" / "single" / "results.csv").set_index("arch")
    assert set(frame.index) == {"my_network.MyNet-width=4", "my_network.MyNet-width=6"}
    assert set(frame["family"]) == {"custom"}
    assert frame[["depths", "widths"]].isna().all(axis=None)
    # 3x3 positions: 9 weights and a bias per channel, two of BatchNorm, and the head
    for width in (4, 6):
        row = frame.loc[f"my_network.MyNet-width={width}"].iloc[0]
        assert row["params"] == 10 * width + 2 * width + 9 * width * 10 + 10
        assert row["macs"] == 9 * 9 * width + 9 * width * 10
    run = checkpoint_of(trained).parents[1]
    assert yaml.safe_load((run / "config.yaml").read_text())["arch"] == SPEC.to_dict()
    assert json.loads((run / "result.json").read_text())["cost"]["stage_params"] == []
    card = (run / "evaluations" / "card.md").read_text()
    assert "my_network.MyNet-width=6 (family custom);" in card
    assert "not available for this family" in card


def test_the_same_command_finds_it_done_and_other_arguments_are_another_run(trained, composed):
    done = call("robust_arch.train", *NAMED, *FEW, cwd=trained)
    assert "is done already" in done.stderr
    words = ("arch=custom", "arch._target_=my_network.MyNet")
    found = {
        width: Run.load(read_settings(composed(*words, *width, *FEW, small=False))).run_id
        for width in ((), ("+arch.width=6",), ("+arch.width=4",), ("+arch.num_classes=10",))
    }
    assert len(set(found.values())) == 4
    assert found["+arch.width=6",] == checkpoint_of(trained).parents[1].name


def test_an_interrupted_run_resumes(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "cut")
    run = checkpoint_of(tmp_path / "cut").parents[1]
    weights = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    (run / "result.json").unlink()
    status = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps({**status, "state": "running"}))
    done = call("robust_arch.train", *NAMED, *FEW, cwd=tmp_path / "cut")
    assert done.returncode == 0, done.stderr
    again = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(weights[key], again[key]) for key in weights)
    assert (run / "result.json").is_file()


def test_what_reads_records_never_imports_what_they_name(study):
    assert tool("status", "single").exit_code == 0
    assert "my_network.MyNet-width=4" in tool("results", "single").output
    assert "report:" in tool("report", "single").output
    claims = tool("claims", "single")
    assert "stages not recorded" in claims.output, claims.output
    for command in ("effects", "scaling"):  # two networks are too few
        assert "expected" in str(tool(command, "single").exception)
    assert "2 added" in tool("merge", "single", "--into", "merged").output
    assert "my_network.MyNet-width=4" in tool("results", "merged").output
    assert not (study / "trace").exists()


def test_a_dashboard_has_no_stages(study):
    pytest.importorskip("wandb_workspaces")
    for path in study.glob("results/single/runs/*/config.yaml"):
        path.write_text(path.read_text().replace("name: csv", "name: wandb\n  mode: offline\n  project: theirs"))
    assert "definition:" in tool("dashboard", "single").output
    definition = (study / "results" / "single" / "report" / "dashboard.json").read_text()
    assert "Accuracy against cost" in definition
    assert "Stage by stage" not in definition
    assert not (study / "trace").exists()


def test_a_checkpoint_is_only_opened_by_who_names_its_network(study):
    checkpoint = checkpoint_of(study)
    before = sorted(study.rglob("*"))
    wanted = "add arch._target_=my_network.MyNet arch.width=6"
    for unnamed in ((), ("arch=wrn_16_1",)):
        refused = call("robust_arch.evaluate", f"checkpoint={checkpoint}", *unnamed, cwd=study)
        assert (refused.returncode, wanted in refused.stderr) == (1, True), refused.stderr
    for form in ("safetensors", "onnx", "published"):
        assert wanted in str(tool("export", checkpoint, "out", "--format", form).exception)
    for opened in (open_checkpoint, load_checkpoint):
        with pytest.raises(InputError, match="nothing that a file names is imported"):
            opened(checkpoint)
    other = call("robust_arch.evaluate", f"checkpoint={checkpoint}", "arch._target_=torch.nn.Linear", cwd=study)
    assert "arch.in_features: missing" in other.stderr
    assert sorted(study.rglob("*")) == before


@pytest.mark.parametrize(
    "arch",
    [
        {"_target_": "my_network.MyNet"},
        {"_target_": "os.mkdir", "path": "trace"},
        {"_target_": "my_network.MyNet", "inner": {"_target_": "os.mkdir", "path": "trace"}},
        {"_target_": "my_network.MyNet", "\x1b[31m": 1},
        {"_target_": ["os.mkdir"]},
        {"_target_": "os.mkdir; x", "family": "wide_resnet"},
        {"_target_": None},
        {"_target_": "os.mkdir", "path": torch.zeros(1)},
        {"family": {"_target_": "os.mkdir", "path": "trace"}, "depths": [1], "widths": [1]},
    ],
)
def test_a_card_cannot_make_anything_happen(study, arch):
    card = {"schema": 1, "arch": arch, "num_classes": 10, "image_shape": [1, 8, 8]}
    torch.save({"card": card, "state_dict": {}}, study / "file.ckpt")
    for given in (None, CustomArch("torch.nn.Flatten")):
        with pytest.raises(InputError) as raised:
            open_checkpoint(study / "file.ckpt", given)
        assert str(raised.value).isprintable()
    assert not (study / "trace").exists()


def test_a_named_checkpoint_is_evaluated_and_exported(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "own")
    folder, checkpoint = tmp_path / "own", checkpoint_of(tmp_path / "own")
    more = ("evaluate.attacks=[fgsm,cw40]", "evaluate.n=40", "trainer.accelerator=cpu")
    done = call("robust_arch.evaluate", f"checkpoint={checkpoint}", *NAMED, *more, cwd=folder)
    assert done.returncode == 0, done.stderr
    frame = pd.read_csv(folder / "results" / "single" / "results.csv")
    assert frame["cw40_acc"].notna().sum() == 1
    wrong = call("robust_arch.evaluate", f"checkpoint={checkpoint}", NAMED[0], "arch.width=4", cwd=folder)
    assert "expected the checkpoint's own architecture" in wrong.stderr
    # exported, and opened again where it is named; the weights alone too, under other names of the same keys
    net = load_checkpoint(checkpoint, SPEC).net
    assert tool("export", checkpoint, folder / "net.safetensors", "--format", "safetensors", *NAMED).exit_code == 0
    state = net.network.state_dict()
    torch.save(state, folder / "raw.pth")
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, folder / "wrapped.pth")
    x = torch.rand(4, 1, 8, 8)
    for name in ("net.safetensors", "raw.pth", "wrapped.pth"):
        opened = open_checkpoint(folder / name, SPEC, lambda: (10, (1, 8, 8))).net
        assert torch.equal(opened(x), net(x))
    with pytest.raises(InputError, match="a state dict names no data"):
        open_checkpoint(folder / "raw.pth", SPEC)
    done = call(
        "robust_arch.evaluate", "checkpoint=raw.pth", *NAMED, "data=digits", "threat.eps=0.1", *more, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    (row,) = pd.read_csv(folder / "results" / "external" / "results.csv").to_dict("records")
    assert (row["arch"], row["family"], row["checkpoint"]) == (SPEC.name, "custom", "external")
    trained_row = frame[(frame["arch"] == SPEC.name) & (frame["checkpoint"] == "best")].iloc[0]
    assert row["clean_acc"] == trained_row["clean_acc"]


BAD = {
    "a pair": (("arch._target_=my_network.Pair",), "logits alone"),
    "classes": ((*NAMED, "arch.num_classes=7"), "arch.num_classes=10"),
    "argument": ((NAMED[0], "arch.widht=7"), "did you mean width?"),
    "type": ((NAMED[0], "arch.width=wide"), "arch.width = 'wide': expected an integer"),
    "module": (("arch._target_=no_such_module.Net",), "No module named 'no_such_module'"),
    "preset": ((*NAMED, "arch=wrn_16_1"), "arch._target_: unknown key"),
    "no target": (("arch=custom",), "arch._target_"),
    "budget": ((*NAMED, "study=demo"), "search.space.depths = [[2], [2], [2]]: expected null"),
}


@pytest.mark.parametrize(("words", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_one_error_before_anything_is_written(trained, words, message):
    before = sorted(trained.rglob("*"))
    refused = call("robust_arch.train", *words, *FEW, cwd=trained)
    assert refused.returncode == 1
    errors = [line for line in refused.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert "Traceback" not in refused.stderr
    assert [path for path in sorted(trained.rglob("*")) if path not in before and "__pycache__" not in str(path)] == []


PLANNED = ("hydra/sweeper=budget", *NAMED, *FEW)


def test_a_study_plans_it_once_per_seed_and_argument(trained, monkeypatch):
    monkeypatch.chdir(trained)
    plans = plans_from_command(["-m", *PLANNED, "arch.num_classes=10", "arch.width=4,6", "search.seeds=[0,1]"])
    found = [(run.run.settings.spec.arguments["width"], run.run.settings.seed) for plan in plans for run in plan.runs]
    assert sorted(found) == [(4, 0), (4, 1), (6, 0), (6, 1)]
    cells = {column.header: [*column.cells] for column in plan_tables(plans[0])[0].columns}
    assert cells["architecture"] == ["my_network.MyNet-num_classes=10-width=4"] * 2
    assert (cells["activations, MiB"], cells["stage shares of params"]) == (["-"] * 2, [""] * 2)
    (halved,) = plans_from_command(["-m", "hydra/sweeper=halving", "hydra.sweeper.rungs=[1,2]", *NAMED, *FEW])
    assert [run.run.settings.trainer.max_epochs for run in halved.runs] == [1]


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (("search.space.widths=[[4,8],[8],[8]]",), "search.space.widths = "),
        (("search.space.shares={parts:6}",), "search.space.shares.parts = 6"),
        (("search.space.vary.widths=[2]",), "search.space.vary.widths = [2]"),
        (("search.budget.params=1000",), "search.budget.params = 1000"),
        (("search.budget.macs=arch",), "search.budget.macs = 'arch'"),
        (("search.allocation.cuts=[0.1,0.2]",), "search.allocation.cuts = "),
    ],
)
def test_the_planner_refuses_it_and_says_why(trained, monkeypatch, words, key):
    monkeypatch.chdir(trained)
    with pytest.raises(
        InputError, match="the planner knows neither its stages nor what another size would cost"
    ) as raised:
        plans_from_command(["-m", *PLANNED, *words])
    assert str(raised.value).startswith(key)


@pytest.mark.slow
def test_a_study_of_it_runs_in_other_processes(trained, tmp_path):
    (tmp_path / "my_network.py").write_text(MODULE)
    launcher = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "search.seeds=[0,1]", "study.name=planned")
    done = call("robust_arch.train", "-m", *PLANNED, *launcher, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(pd.read_csv(tmp_path / "results" / "planned" / "plan.csv")) == 2
    run = next((tmp_path / "results" / "planned" / "runs").iterdir())
    command = json.loads((run / "result.json").read_text())["command"]
    assert "arch=custom arch._target_=my_network.MyNet ++arch.width=6" in command
