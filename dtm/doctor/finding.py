"""A finding: what was seen of one thing, how bad that is, and what to do about it.

Pure; any thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum


class Level(Enum):
    """How bad a finding is."""

    FINE = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found.

    Attributes:
        about: the thing looked at, in a word or two.
        level: a run works (FINE), works but badly (WARNING), or does not (PROBLEM).
        found: what was seen, for people.
        advice: what to do, empty where nothing needs doing.
        host: where it was seen, None for the machine where the doctor runs.
        figures: what was measured, for programs.
    """

    about: str
    level: Level
    found: str
    advice: str = ""
    host: str | None = None
    figures: Mapping[str, float] = field(default_factory=dict)

    def at(self, host: str | None) -> Finding:
        """Return the same finding, seen on a host."""
        return replace(self, host=host)


def fine(about: str, found: str, **figures: float) -> Finding:
    """Return a finding that all is well."""
    return Finding(about, Level.FINE, found, figures=figures)


def warning(about: str, found: str, advice: str, **figures: float) -> Finding:
    """Return a finding that a run would work badly."""
    return Finding(about, Level.WARNING, found, advice, figures=figures)


def problem(about: str, found: str, advice: str, **figures: float) -> Finding:
    """Return a finding that a run would not work."""
    return Finding(about, Level.PROBLEM, found, advice, figures=figures)


def would_work(findings: Iterable[Finding]) -> bool:
    """Whether a run would work, by these findings."""
    return all(finding.level is not Level.PROBLEM for finding in findings)
