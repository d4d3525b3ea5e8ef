"""`--help` tells what keys mean, in the words of the YAML files."""

from pathlib import Path

from robust_arch.configuration.key_comments import key_comments

MAIN = """\
# The head of the file.
defaults:
  - _self_
  - recipe/averaging: null  # ema or swa
  - data: digits
seed: 0
study:
  retries: 1  # more attempts
  # either of
  # two things
  kind:
    name: ${oc.env:HOME}  # $HOME
after: 1  # outside the study
"""
DATA = "# @package _global_\n# Made-up images.\nimages:\n  n: 5  # how many\n"


def test_each_comment_is_given_at_the_path_of_its_key(tmp_path: Path) -> None:
    (tmp_path / "train.yaml").write_text(MAIN)
    for group, text in (("data", DATA), ("logger", "mode: offline  # or online\n")):
        (tmp_path / group).mkdir()
        (tmp_path / group / "chosen.yaml").write_text(text)
    choices = {"data": "chosen", "logger": "chosen", "study": None, "hydra/help": "default"}
    assert key_comments(tmp_path, "train", choices).splitlines() == [
        "recipe/averaging: ema or swa",
        "study.retries: more attempts",
        "study.kind: either of two things",
        "study.kind.name: $HOME",
        "after: outside the study",
        "images: Made-up images.",
        "images.n: how many",
        "logger.mode: or online",
    ]
