"""What the keys of a configuration mean, from the comments of its YAML files, for `--help`."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from textwrap import fill

_KEY = re.compile(r"( *(?:- )?)([A-Za-z][\w/]*):[^#]*(?:# *(.*))?$")
_COMMENT = re.compile(r" *#(?! @package) ?(.*)$")
_PACKAGE = re.compile(r"# @package (\S+)")
_WIDTH = 80


def key_comments(folder: Path, config: str, choices: Mapping[str, str | None]) -> str:
    """One paragraph per commented key of `config`.yaml and of each group's chosen file, if in the folder."""
    groups = {group: choice for group, choice in choices.items() if not group.startswith("hydra/")}
    files = [(folder / f"{config}.yaml", "")]
    files += [(folder / group / f"{choice}.yaml", group.replace("/", ".")) for group, choice in groups.items()]
    found: dict[str, str] = {}
    for file, package in files:
        for key, comment in _commented(file, package) if file.is_file() else ():
            found.setdefault(key, comment)
    return "\n".join(fill(f"{key}: {comment}", _WIDTH, subsequent_indent="    ") for key, comment in found.items())


def _commented(file: Path, package: str) -> Iterator[tuple[str, str]]:
    """The keys with a comment beside or above them, as `recipe.awp.gamma`."""
    text = file.read_text(encoding="utf-8")
    if given := _PACKAGE.match(text):
        package = given[1].replace("_global_", "")
    path: list[tuple[int, str]] = []
    above: list[str] = []
    for line in text.splitlines():
        if comment := _COMMENT.match(line):
            above.append(comment[1])
            continue
        if key := _KEY.match(line):
            path = [*(parent for parent in path if parent[0] < len(key[1])), (len(key[1]), key[2])]
            names = [name for _, name in path if name != "defaults"]
            told = " ".join([*above, key[3] or ""]).strip()
            if told and names:
                yield ".".join(filter(None, [package, *names])), told
        above = []
