"""The house has floors: a file imports from lower floors, or from siblings in its own folder."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "measurand"
FLOORS = [
    {"devices", "files", "leases", "linalg", "literal", "memory", "owners", "records"}
    | {"tensors", "validate"},
    {"operators", "nets", "noises", "noise_estimate", "schedules", "metrics", "registration"},
    {"blind", "measurement", "priors", "start"},
    {"methods"},
    {"solvers"},
    {"samplers", "unfolded", "bridges"},
    {"weights", "data", "batches", "problems"},
    {"training", "domains"},
    {"recipes", "shift", "checks", "figures"},
    {"adapters", "jobs"},
    {"tuning", "demo"},
    {"commands"},
    {"cli"},
    {"__main__"},
]
LEVEL = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")

ROOT_FILES = {path.stem for path in PACKAGE.glob("*.py")}


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> set[str]:
    """The modules of the package that a file imports anywhere, also inside functions."""
    own = module_of(path).split(".")
    folder = own if path.name == "__init__.py" else own[:-1]
    known = {module_of(p) for p in PACKAGE.rglob("*.py")}
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.split(".")[0] == "measurand"]
        elif isinstance(node, ast.ImportFrom):
            base = folder[: len(folder) - node.level + 1] if node.level else []
            stem = [*base, *(node.module or "").split(".")] if node.module else base
            if not stem or stem[0] != "measurand":
                continue
            joined = [".".join([*stem, alias.name]) for alias in node.names]
            names = [name if name in known else ".".join(stem) for name in joined]
        else:
            continue
        found |= set(names)
    return found - {".".join(own)}


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else "measurand"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down(path):
    own = room(module_of(path))
    assert own in LEVEL, f"{path.name} stands on no floor: add it to the table"
    for name in imports_of(path):
        other = room(name)
        siblings = other == own or (LEVEL[other] == LEVEL[own] and {other, own} <= ROOT_FILES)
        assert siblings or LEVEL[other] < LEVEL[own], f"{own} must not import {name}"


def test_siblings_form_no_circle():
    graph = {module_of(p): imports_of(p) for p in FILES if p.name != "__init__.py"}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail, module))
        if module in done or module not in graph:
            return
        for other in graph[module]:
            visit(other, (*trail, module))
        done.add(module)

    for module in graph:
        visit(module, ())


def test_nets_see_no_physics():
    for path in (PACKAGE / "nets").glob("*.py"):
        assert not imports_of(path) - {
            f"measurand.nets.{p.stem}" for p in path.parent.glob("*.py")
        }


def test_packages_only_re_export():
    for path in PACKAGE.glob("*/__init__.py"):
        for node in ast.parse(path.read_text()).body:
            assert isinstance(node, ast.Expr | ast.Import | ast.ImportFrom | ast.Assign), path
