"""The order of the rooms: imports run one way, from the doors down to what every room uses (CONTRIBUTING.md)."""

import ast
import graphlib
from pathlib import Path

import pytest

import robust_arch

PACKAGE = Path(robust_arch.__file__).parent
FLOORS = (
    {"errors"},
    {"common"},
    {"architectures", "attacks", "data", "runs"},
    {"search", "engine", "objectives", "analysis"},
    {"training", "evaluation", "tracking", "interop"},
    {"configuration"},
    {"execution"},
    {"study"},
    {"train", "evaluate", "__init__"},  # which imports what it offers when that is first used
    {"cli"},
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
DOORS = {"__init__", "cli", "errors", "evaluate", "train"}


def _room(path):
    """The folder of a module, or its own name where it is a door."""
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def _imports(source):
    """The rooms that a source imports from, also inside functions and for types alone."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [each.name for each in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            inside = node.module == "robust_arch"
            names = [f"robust_arch.{each.name}" if inside else node.module for each in node.names]
        else:
            continue
        for name in names:
            package, _, rest = str(name).partition(".")
            room = rest.partition(".")[0]
            if package == "robust_arch" and room in FLOOR:
                yield room


def _modules():
    return sorted(PACKAGE.rglob("*.py"))


def test_every_module_is_in_a_room_or_a_door():
    assert {_room(path) for path in _modules()} == set(FLOOR)
    assert {path.stem for path in PACKAGE.glob("*.py")} == DOORS


@pytest.mark.parametrize("room", sorted(FLOOR))
def test_a_room_imports_only_from_floors_below(room):
    upward = {
        (str(path.relative_to(PACKAGE)), imported)
        for path in _modules()
        if _room(path) == room
        for imported in _imports(path.read_text(encoding="utf-8"))
        if imported != room and FLOOR[imported] >= FLOOR[room]
    }
    assert upward == set()


def test_an_import_upwards_would_be_seen():
    source = "from robust_arch import train\ndef late():\n    from robust_arch.study.plan import StudyPlan\n"
    assert set(_imports(source)) == {"train", "study"}


def _imported_at_once(path):
    """The modules of the package that a module imports while it is itself imported: not in functions, not for types."""
    known = {".".join(each.relative_to(PACKAGE.parent).with_suffix("").parts) for each in _modules()}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            for each in node.names:
                inner = f"{node.module}.{each.name}"
                yield inner if inner in known else node.module


def test_no_module_imports_itself_over_others():
    graph = {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): set(_imported_at_once(path))
        for path in _modules()
        if path.name != "__init__.py"
    }
    order = list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError and names the circle
    assert set(graph) <= set(order)
