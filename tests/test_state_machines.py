"""Every table of states is whole, and is drawn in the documentation."""

from __future__ import annotations

from enum import Enum
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TABLES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in sorted((ROOT / "dtm").rglob("*.py"))
    if "\nTRANSITIONS:" in path.read_text(encoding="utf-8")
]


def table_of(module: str) -> dict[Enum, dict[str, Enum]]:
    return import_module(module).TRANSITIONS


def test_there_are_tables() -> None:
    assert {"dtm.core.balancer", "dtm.run.stacks", "dtm.launch.launcher"} <= set(TABLES)


@pytest.mark.parametrize("module", TABLES)
def test_a_table_has_every_state_and_leads_to_every_other(module: str) -> None:
    table = table_of(module)
    states = list(table)
    assert set(states) == set(type(states[0]))
    reached = {state for events in table.values() for state in events.values()}
    assert set(states[1:]) <= reached


@pytest.mark.parametrize("module", TABLES)
def test_a_table_is_drawn_in_the_documentation(module: str) -> None:
    page = (ROOT / "docs" / "states.rst").read_text(encoding="utf-8")
    assert f".. state-machine:: {module}.TRANSITIONS" in page
