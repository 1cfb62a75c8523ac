"""Runs a row for all its contenders, by turns, and holds the figures against the bar.

The contenders of a row take turns, round by round, so that what the machine does
meanwhile (other tenants, a warmer core) strikes all of them alike.  A figure is
the median over all rounds; the best value is kept beside it.

Rejected: judging by the best value.  Users get the median.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from benchmarks.contenders import CONTENDERS, NotMeasured, run_program
from benchmarks.machine import busy_cores

OURS = ("dtm local", "dtm mpi")
OVER_TCP = ("dtm tcp", "dtm tls")
LAUNCHED = "dtm over tcp"  # measured when asked for; its ratio to local is in the report
PATIENT_ROUNDS = 1


@dataclass(frozen=True)
class Row:
    """One line of the table: what is run, by whom, and what is asked of dtm."""

    name: str
    title: str
    program: str
    unit: str
    bar: float
    peers: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    singly: tuple[str, ...] = ()  # peers that are measured with one task an item, too
    higher_is_better: bool = False
    bar_text: str = ""
    mpi_bar: float | None = None  # what is asked under MPI, if it is not the same
    ours: tuple[str, ...] = OURS  # which ways of running dtm are measured
    asked_of: tuple[str, ...] = OURS
    against: str | None = None  # judge the ratio to this contender, not the value
    from_outside: bool = False  # the value is the wall time of the whole program
    workers: int = 2
    rounds: int = 3
    timeout: float = 180.0

    @property
    def asked(self) -> str:
        sign = "≥" if self.higher_is_better else "≤"
        text = self.bar_text or f"{sign} {self.bar:g} {self.unit}".rstrip()
        return text if self.mpi_bar is None else f"{text}, MPI {sign} {self.mpi_bar:g}"

    def bar_of(self, contender: str) -> float:
        """Return what is asked of one way of running dtm."""
        return self.bar if self.mpi_bar is None or contender != "dtm mpi" else self.mpi_bar

    def best_of(self, values: list[float]) -> float:
        return max(values) if self.higher_is_better else min(values)


@dataclass
class Figure:
    """What one contender came to in one row."""

    contender: str
    values: list[float] = field(default_factory=list)
    judged: list[float] = field(default_factory=list)
    note: str = ""
    failure: str = ""

    @property
    def median(self) -> float:
        return median(self.values)


@dataclass
class Outcome:
    """A row and the figures of all its contenders."""

    row: Row
    figures: list[Figure]
    disturbance: float = 0.0  # cores that others kept busy just before

    def figure_of(self, contender: str) -> Figure | None:
        found = [each for each in self.figures if each.contender == contender and each.values]
        return found[0] if found else None

    def judged_value(self, figure: Figure) -> float | None:
        """Return the number that is held against the bar."""
        if self.row.against is None:
            return median(figure.judged)
        other = self.figure_of(self.row.against)
        return figure.median / other.median if other else None

    def passed(self, figure: Figure) -> bool | None:
        """Tell if dtm meets the bar; None for those of whom nothing is asked."""
        if figure.contender not in self.row.asked_of:
            return None
        value = self.judged_value(figure) if figure.values else None
        if value is None:
            return False
        bar = self.row.bar_of(figure.contender)
        return value >= bar if self.row.higher_is_better else value <= bar


def contestants(row: Row) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return the label of each figure of a row, with its contender and extra arguments."""
    found = {label: (label, row.arguments) for label in (*row.ours, *row.peers)}
    for label in row.singly:
        found[f"{label}, one by one"] = (label, (*row.arguments, "chunks=one"))
    return found


def measure_row(row: Row, *, quick: bool, tell: Callable[[str], None]) -> Outcome:
    """Measure all contenders of a row, by turns."""
    entrants = contestants(row)
    figures = {label: Figure(label) for label in entrants}
    disturbance = busy_cores()
    for turn in range(1 if quick else row.rounds):
        for label, (name, arguments) in entrants.items():
            figure = figures[label]
            if figure.failure or (CONTENDERS[name].patient and turn >= PATIENT_ROUNDS):
                continue
            flags = ("--quick", *arguments) if quick else arguments
            try:
                add(
                    figure,
                    row,
                    run_program(CONTENDERS[name], row.program, flags, row.workers, row.timeout),
                )
            except NotMeasured as reason:
                figure.failure = str(reason)
            tell(line_of(row, figure))
    return Outcome(row, list(figures.values()), disturbance)


def add(figure: Figure, row: Row, found: dict[str, Any]) -> None:
    """Add what one run of a program found to the figure of its contender."""
    if row.from_outside:
        figure.values.append(found["seconds"])
        figure.judged.append(found["seconds"])
    else:
        figure.values.extend(found["values"])
        figure.judged.extend(found["judged"])
    figure.note = found["note"]


def line_of(row: Row, figure: Figure) -> str:
    if figure.failure:
        return f"{row.name}: {figure.contender}: {figure.failure}"
    shown = f"{row.name}: {figure.contender}: {figure.median:.4g} {row.unit}".rstrip()
    return f"{shown} ({figure.note})" if figure.note else shown
