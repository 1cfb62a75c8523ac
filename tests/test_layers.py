"""The layers of the house: no import goes upwards, and there is no cycle, late ones included."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "dtm"

# From top to bottom; a module may import from its own line (without a cycle) and from lines below.
# A wing has one line for all that is in it; a room that stands elsewhere than its wing has its own.
LAYERS = [
    ["dtm", "dtm.__main__", "dtm.commands*", "dtm.doctor*", "dtm.trace*", "dtm.joblib",
     "dtm.asyncio"],
    ["dtm.dtm"],
    ["dtm.integrations*"],
    ["dtm.door", "dtm.call_options", "dtm.guard", "dtm.time_limit", "dtm.tolerance",
     "dtm.progress"],
    ["dtm.testing*", "dtm.conformance"],
    ["dtm.run*", "dtm.launch*"],
    ["dtm.wire*", "dtm.comm*", "dtm.core*"],
    ["dtm.future", "dtm.lazy", "dtm.task", "dtm.options", "dtm.errors", "dtm.version",
     "dtm.comm.base",
     "dtm.handle"],
]  # fmt: skip
IMPURE = {
    "threading", "socket", "time", "logging", "mpi4py", "selectors", "select", "os",
    "multiprocessing", "subprocess", "asyncio", "concurrent",
}  # fmt: skip


def _name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_name(path): path for path in PACKAGE.rglob("*.py")}


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            below = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (below & MODULES.keys()) or {node.module}
    return found


GRAPH = {name: _imports(path) for name, path in MODULES.items()}
OWN = {name: {other for other in used if other in MODULES} for name, used in GRAPH.items()}


def _layer(name: str) -> int:
    best = (-1, -1)
    for number, patterns in enumerate(LAYERS):
        for pattern in patterns:
            stem = pattern.rstrip("*").rstrip(".")
            covers = name == stem or (pattern.endswith("*") and name.startswith(stem + "."))
            if covers:
                best = max(best, (len(stem), number))
    assert best[1] >= 0, f"{name} stands in no wing: move it into one, or give it a line in LAYERS"
    return best[1]


def test_there_is_a_package_to_look_at() -> None:
    assert len(MODULES) > 25


@pytest.mark.parametrize("name", sorted(MODULES))
def test_nothing_imports_upwards(name: str) -> None:
    upwards = {other for other in OWN[name] if _layer(other) < _layer(name)}
    assert not upwards, (
        f"{name} imports from a layer above its own: {sorted(upwards)}. Move what it needs down "
        "into a room that both may use, hand it in as an argument, or move this module up"
    )


def test_no_import_cycle_late_imports_included() -> None:
    settled: set[str] = set()
    left = dict(OWN)
    while True:
        free = {name for name, used in left.items() if used - {name} <= settled}
        if not free:
            break
        settled |= free
        left = {name: used for name, used in left.items() if name not in free}
    assert not left, f"these import each other: {sorted(left)}"


@pytest.mark.parametrize("name", sorted(each for each in MODULES if each.startswith("dtm.core")))
def test_core_is_pure(name: str) -> None:
    assert not {used.partition(".")[0] for used in GRAPH[name]} & IMPURE
    assert not {used for used in OWN[name] if used.startswith("dtm.comm")}


@pytest.mark.parametrize("name", sorted(each for each in MODULES if each.startswith("dtm.comm.")))
def test_managers_know_no_tasks(name: str) -> None:
    assert not {used for used in OWN[name] if used.startswith(("dtm.core", "dtm.task"))}
