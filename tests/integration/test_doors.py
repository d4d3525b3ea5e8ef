"""`robust-arch train|evaluate|list` and --version."""

import sys
from importlib.metadata import version

import pytest
from typer.testing import CliRunner

from robust_arch.cli import app
from robust_arch.common.paths import conf_dir
from robust_arch.configuration.listing import headline, listed


def test_every_choice_has_a_line():
    empty = [(group, name) for group, choices in listed().items() for name, line in choices.items() if not line]
    assert not empty
    files = [path for path in conf_dir().rglob("*.yaml") if path.parent != conf_dir()]
    assert sum(map(len, listed().values())) == len(files)


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        ("# @package _global_\n# Does it help? It is narrower.\n", "Does it help?"),
        (
            "# As in Rice et al. 2020, with a rate of 0.1.\n# Slower.\nname: x\n",
            "As in Rice et al. 2020, with a rate of 0.1",
        ),
        ("# A sentence over\n# two lines. Another.\n", "A sentence over two lines"),
        ("# One line\n# Command:  python\n", "One line"),
        ("name: x  # not a head\n", ""),
    ],
)
def test_the_line_is_the_first_sentence_of_the_head(tmp_path, head, expected):
    path = tmp_path / "one.yaml"
    path.write_text(head)
    assert headline(path) == expected


def test_own_groups_are_listed_beside_the_package(tmp_path):
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "mine.yaml").write_text("# Is mine better?\n")
    result = CliRunner().invoke(app, ["list", "studies", "--config-dir", str(tmp_path)])
    assert "Is mine better?" in result.output
    assert "demo" in result.output
    assert "wrn_28_10" not in result.output


def test_an_unknown_group_is_named_with_what_exists():
    result = CliRunner().invoke(app, ["list", "colours"])
    assert result.exit_code
    message = str(result.exception.args[0])
    assert "colours" in message
    assert "studies" in message


def test_version_is_that_of_the_package():
    assert CliRunner().invoke(app, ["--version"]).output.strip() == f"robust-arch {version('robust-arch')}"


@pytest.mark.parametrize(("door", "module"), [("train", "robust_arch.train"), ("evaluate", "robust_arch.evaluate")])
def test_a_door_hands_its_words_to_the_module(monkeypatch, door, module):
    __import__(module)
    seen = []
    monkeypatch.setattr(sys.modules[module], "main", lambda: seen.append(sys.argv[1:]))
    monkeypatch.setattr(sys, "argv", ["robust-arch"])
    CliRunner().invoke(app, [door, "-m", "study=demo", "--help", "search.seeds=[0]"])
    assert seen == [["-m", "study=demo", "--help", "search.seeds=[0]"]]
