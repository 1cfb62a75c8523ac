"""Figures as they are kept in a file: what was measured, when, and on what.

``docs/figures.json`` is the one place that figures stand in; :mod:`benchmarks.tables` makes the
tables of the README and the docs from it.  A row that is measured again takes the place of the old
one, so each row has its own day and its own machine.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure, Outcome


@dataclass(frozen=True)
class KeptFigure:
    """What one contender came to in one row; its single values only since they are kept."""

    contender: str
    count: int = 0
    median: float | None = None
    best: float | None = None
    judged: float | None = None
    passed: bool | None = None
    note: str = ""
    failure: str = ""
    values: tuple[float | None, ...] = ()


@dataclass(frozen=True)
class KeptRow:
    """A row, as it was measured on a day on a machine."""

    name: str
    title: str
    unit: str
    bar: str
    higher_is_better: bool
    measured: str
    machine: Mapping[str, str] = field(hash=False)
    disturbance: float
    figures: tuple[KeptFigure, ...]

    def figure_of(self, contender: str) -> KeptFigure | None:
        found = (each for each in self.figures if each.contender == contender)
        return next(found, None)


def of_outcome(outcome: Outcome, machine: Mapping[str, str], day: str) -> KeptRow:
    """Return what is kept of a row that has just been measured."""
    row = outcome.row
    return KeptRow(
        name=row.name,
        title=row.title,
        unit=row.unit,
        bar=row.asked,
        higher_is_better=row.higher_is_better,
        measured=day,
        machine=machine,
        disturbance=round(outcome.disturbance, 2),
        figures=tuple(_figure(outcome, each) for each in outcome.figures),
    )


def _figure(outcome: Outcome, figure: Figure) -> KeptFigure:
    if not figure.values:
        passed = outcome.passed(figure)
        return KeptFigure(figure.contender, passed=passed, failure=figure.failure)
    return KeptFigure(
        contender=figure.contender,
        count=len(figure.values),
        median=_finite(figure.median),
        best=_finite(outcome.row.best_of(figure.values)),
        judged=_finite(outcome.judged_value(figure)),
        passed=outcome.passed(figure),
        note=figure.note,
        failure=figure.failure,
        values=tuple(map(_finite, figure.values)),
    )


def _finite(value: float | None) -> float | None:
    """Return the value, or None for what JSON cannot say."""
    return value if value is not None and isfinite(value) else None


def read(path: Path) -> list[KeptRow]:
    """Return the rows that a file keeps."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return [_row(each, content["machines"]) for each in content["rows"]]


def _row(kept: dict[str, Any], machines: Sequence[Mapping[str, str]]) -> KeptRow:
    figures = tuple(
        KeptFigure(**{**each, "values": tuple(each["values"])}) for each in kept["figures"]
    )
    return KeptRow(**{**kept, "machine": machines[kept["machine"]], "figures": figures})


def as_json(rows: Iterable[KeptRow]) -> str:
    """Return the rows as text; each machine stands there once."""
    machines: list[Mapping[str, str]] = []
    lines = []
    for row in rows:
        if row.machine not in machines:
            machines.append(row.machine)
        lines.append({**asdict(row), "machine": machines.index(row.machine)})
    kept = {"machines": [dict(each) for each in machines], "rows": lines}
    return json.dumps(kept, indent=1, ensure_ascii=False) + "\n"


def replaced(old: Iterable[KeptRow], new: Iterable[KeptRow]) -> list[KeptRow]:
    """Return the old rows with those that were measured again in their places."""
    fresh = {row.name: row for row in new}
    rows = [fresh.pop(row.name, row) for row in old]
    return [*rows, *fresh.values()]
