"""The Dockerfile against what it is built from; nothing here runs Docker."""

import re
import shlex
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
LINES = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def arguments(instruction):
    return [line.removeprefix(f"{instruction} ") for line in LINES if line.startswith(f"{instruction} ")]


def test_the_base_image_has_a_python_that_the_package_allows():
    (image,) = arguments("FROM")
    major, minor = map(int, re.fullmatch(r"python:(\d+)\.(\d+)-slim", image).groups())
    least = tuple(map(int, PROJECT["requires-python"].removeprefix(">=").split(".")))
    assert (major, minor) >= least
    assert f"Programming Language :: Python :: {major}.{minor}" in PROJECT["classifiers"]


def test_everything_is_installed_at_the_versions_of_the_constraints():
    installs = [shlex.split(line) for line in arguments("RUN") if line.startswith("pip install")]
    assert len(installs) == 2
    pinned = {line.partition("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    for words in installs:
        assert words[words.index("--constraint") + 1] == "constraints.txt"
        assert "--index-url" not in words  # the CUDA build, whose libraries are pinned too
    assert set(installs[0][-2:]) == {"torch", "torchvision"} <= pinned
    assert any(name.startswith("nvidia-cudnn") for name in pinned)
    extras = re.fullmatch(r"\.\[(.+)\]", installs[1][-1])[1].split(",")
    assert set(extras) <= set(PROJECT["optional-dependencies"])


def test_what_is_copied_is_here_and_what_is_started_is_installed():
    for words in map(str.split, arguments("COPY")):
        assert all((ROOT / source).exists() for source in words[:-1])
    (command,) = arguments("CMD")
    assert re.findall(r'"([^"]+)"', command)[0] in PROJECT["scripts"]
