"""Files of a study that are torn, foreign or nonsense: they count as not there, and nothing that reads them crashes."""

import shutil

import pytest
from commands import SMALL, call

from robust_arch.runs import StudyFolder, load_study

PLAN = (
    "robust_arch.train", "-m", *SMALL, "hydra/sweeper=budget", "study.name=tiny", "search.space.depths=[[1],[1],[1]]",
    "search.space.widths=[[4],[4],[4,8]]", "evaluate.attacks=[fgsm]",
)  # fmt: skip
DEEP = b"[" * 100_000
FILES = {
    "status.json": [b"", b"\xff\xfe", DEEP, b"{}", b'{"state": "completed", "run": "x"}', b'{"run": {}, "error": 5}'],
    "result.json": [b"", b"{}", b'{"schema": 1}', b'{"best_val_robust_acc": null}', b"[]", DEEP],
    "metrics.csv": [b"", b"\xff\xfe\n\xff", b"a,b\n1,2\n"],
    "config.yaml": [b"", b"\xff", b"a: [", b"5"],
    "checkpoints/best.ckpt": [b"", b"garbage"],
    "checkpoints/last.ckpt": [b"", b"garbage"],
    "evaluations/*.json": [b"", b"{}", b'{"schema": 1, "attacks": [], "clean": 1, "invalid": 1}', DEEP],
    "evaluations/*.npz": [b"", b"PK\x03\x04"],
}
STUDY_FILES = {
    "plan.csv": [b"", b"\xff\xfe", b"a,b\n1,2\n"],
    "study.json": [b"", b"{}", DEEP],
    "results.csv": [b"\xff"],
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    done = call(*PLAN, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def spoil(study, case):
    """Spoil one file of the first run; each case in a study of its own would take minutes."""
    name, content = case
    run = next(iter(study.runs())).path
    for path in run.glob(name):
        path.write_bytes(content)


SWEPT = [  # one of each file; a sweep takes seconds
    ("status.json", b"{}"),
    ("result.json", b"{}"),
    ("metrics.csv", b"\xff\xfe\n\xff"),
    ("checkpoints/best.ckpt", b"garbage"),
    ("checkpoints/last.ckpt", b""),
    ("evaluations/*.json", DEEP),
    ("evaluations/*.npz", b"PK\x03\x04"),
]


@pytest.mark.slow
@pytest.mark.parametrize("case", SWEPT, ids=lambda case: f"{case[0]}-{case[1][:12]!r}")
def test_the_same_command_mends_it(finished, tmp_path, case):
    shutil.copytree(finished / "results", tmp_path / "results")
    study = StudyFolder(tmp_path / "results" / "tiny")
    spoil(study, case)
    again = call(*PLAN, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    before, after = (load_study(folder / "results" / "tiny") for folder in (finished, tmp_path))
    columns = [name for name in before if name != "train_seconds"]
    assert after[columns].equals(before[columns])


@pytest.mark.parametrize("name", STUDY_FILES)
def test_the_tools_do_without_a_file_of_the_study(finished, tmp_path, name):
    shutil.copytree(finished / "results", tmp_path / "results")
    for content in STUDY_FILES[name]:
        (tmp_path / "results" / "tiny" / name).write_bytes(content)
        for tool in ("status", "report"):
            told = call("robust_arch.cli", tool, "tiny", cwd=tmp_path)
            assert told.returncode == 0, told.stderr
