"""What the documentation names exists: files, commands, targets, studies and tests."""

import ast
import re
from pathlib import Path

import pytest
from typer.main import get_command

from robust_arch.cli import app
from robust_arch.common.paths import conf_dir

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDED = [*PAGES, *sorted((ROOT / "experiments").glob("**/README.md")), ROOT / "benchmarks" / "README.md"]
GROUPS = sorted(path.name for path in conf_dir().iterdir() if path.is_dir())


def text(page):
    return page.read_text(encoding="utf-8")


def anchors(page):
    """Of the headings, as forges and the site make them: lower case, no punctuation, dashes for blanks."""
    headings = re.findall(r"^#+ (.*)$", text(page), flags=re.MULTILINE)
    without_links = [re.sub(r"\]\([^)]*\)", "", heading) for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in without_links}


def local_links(page):
    """(file, anchor) of every link that names no host; what the site alone has would lead nowhere in the repository."""
    for target in re.findall(r"\]\(([^)\s]+)\)", text(page)):
        file, _, anchor = target.partition("#")
        if ":" not in target:
            yield file, anchor


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file_and_its_heading(page):
    for file, anchor in local_links(page):
        path = (page.parent / file).resolve() if file else page
        assert path.exists(), f"{page.name}: {file}"
        path = path / "README.md" if path.is_dir() else path
        if anchor:
            assert anchor in anchors(path), f"{page.name}: {file}#{anchor}"


def test_the_recipes_begin_with_a_list_of_all_of_them_in_order():
    contents, *sections = re.split(r"^(?=## )", text(ROOT / "docs" / "recipes.md"), flags=re.MULTILINE)
    without_code = re.sub(r"^```.*?^```", "", "".join(sections), flags=re.DOTALL | re.MULTILINE)
    assert re.findall(r"\[([^]]+)\]\(#", contents) == re.findall(r"^#+ (.+)$", without_code, flags=re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_exists(page):
    known = set(get_command(app).commands)
    named = set(re.findall(r"robust-arch ([a-z]+)", text(page)))
    assert named <= known
    modules = re.findall(r"python -m (robust_arch\.[a-z_.]+)", text(page))
    assert all((ROOT / module.replace(".", "/")).with_suffix(".py").is_file() for module in modules)


@pytest.mark.parametrize("page", COMMANDED, ids=lambda page: str(page.relative_to(ROOT)))
def test_brackets_in_commands_are_quoted(page):
    """Elsewhere zsh takes them for a pattern of file names, and refuses the command where no file fits."""
    blocks = re.findall(r"^```bash\n(.*?)^```", text(page), flags=re.DOTALL | re.MULTILINE)
    inline = re.findall(r"`([^`\n]*python -m [^`\n]*)`", text(page))
    for command in [*blocks, *inline]:
        bare = re.sub(r"'[^'\n]*'|\"[^\"\n]*\"|(?<!\S)#.*", "", command)
        assert not re.search(r"[\[\]]", bare), bare


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_choice_of_a_group_exists(page):
    """`study=demo`, `arch=wrn_34_12,wrn_34_r`, `objective=sat|trades`; not <name>, nor what the page itself writes."""
    own = set(re.findall(r"mine/\w+/(\w+)\.yaml", text(page)))
    for group, choices in re.findall(rf"(?<![\w./])({'|'.join(GROUPS)})=([\w|,]+)", text(page)):
        for choice in re.split(r"[|,]", choices):
            known = (conf_dir() / group / choice).with_suffix(".yaml").is_file()
            assert not choice or known or choice in own, f"{page.name}: {group}={choice}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_make_target_exists(page):
    targets = set(re.findall(r"^([a-z%-]+):", text(ROOT / "Makefile"), flags=re.MULTILINE))
    assert set(re.findall(r"(?:`|^)make ([a-z-]+)", text(page), flags=re.MULTILINE)) <= targets


def test_every_test_and_file_that_the_questions_name_exists():
    page = text(ROOT / "docs" / "faq.md")
    mistakes = ast.parse(text(ROOT / "tests" / "integration" / "test_mistakes.py"))
    tests = {node.name for node in mistakes.body if isinstance(node, ast.FunctionDef)}
    named = set(re.findall(r"`(test_\w+)`", page))
    assert len(named) > 20
    assert named <= tests
    files = re.findall(r"`((?:robust_arch|conf|tests)/[\w./]+)`", page)
    assert len(files) > 10
    assert all((ROOT / file).exists() for file in files)
