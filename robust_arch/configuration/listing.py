"""What each group of the configuration offers, with one line from the head of each YAML file."""

import re
from pathlib import Path

from robust_arch.common.paths import conf_dir
from robust_arch.errors import InputError, require_choice

PLURALS = {"study": "studies", "attack": "attacks", "objective": "objectives", "recipe": "recipes"}
"""Groups that are listed under the plural of their name."""
_SENTENCE = re.compile(r".+?[.?!](?=\s+[A-Z(]|$)|.+")


def listed(group: str | None = None, config_dir: Path | None = None) -> dict[str, dict[str, str]]:
    """By group, each choice with the first sentence of the comment at the head of its file.

    group: as listed or as on the command line (`studies`, `study`); None for all. config_dir: a folder whose groups are
    listed as well.

    Raises:
        InputError: for a group that does not exist, or a folder that does not.
    """
    if config_dir is not None and not config_dir.is_dir():
        raise InputError(f"--config-dir = {str(config_dir)!r}: expected a folder")
    found: dict[str, dict[str, str]] = {}
    for folder in [conf_dir(), *([config_dir] if config_dir else [])]:
        for path in sorted([*folder.glob("*/*.yaml"), *folder.glob("*/*/*.yaml")]):
            name = path.parent.relative_to(folder).as_posix()
            found.setdefault(PLURALS.get(name, name), {})[path.stem] = headline(path)
    if group is None:
        return found
    name = PLURALS.get(group, group)
    require_choice("group", name, sorted(found))
    return {name: found[name]}


def headline(path: Path) -> str:
    """The first sentence of the comment at the head of a YAML file, without its closing full stop; may be empty."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.strip() == "# @package _global_":
            continue
        if not line.startswith("#") or line.startswith("# Command:"):
            break
        lines.append(line.lstrip("# "))
    sentence = _SENTENCE.match(" ".join(lines))
    return sentence.group().removesuffix(".") if sentence else ""
